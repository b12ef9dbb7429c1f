//go:build linux

package scale

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	crust "github.com/libcrust/libcrust/core"
)

// Crust is libcrust over TCP, with its defaults but for limits of peers that are not
// reached.
func Crust() Stack { return crustStack{} }

type crustStack struct{}

func (crustStack) Name() string { return "crust" }

func (crustStack) Hub() (Hub, error) {
	s, err := crust.New(crust.Config{
		NetworkName: "scale", MaxPeers: 16384, MaxInbound: 16384, MaxPeersPerAddress: 16384, MaxPeersPerPrefix: 16384,
		MaxHandshakes: 4096, MaxHandshakesPerAddress: 4096,
		Listen: []crust.Endpoint{{Transport: crust.TCP, Addr: netip.MustParseAddrPort("127.0.0.1:0")}},
	})
	if err != nil {
		return nil, err
	}
	h := &crustHub{service: s, done: make(chan struct{})}
	go h.take()
	return h, nil
}

type crustHub struct {
	service *crust.Service
	done    chan struct{}

	mu    sync.Mutex
	owed  int           // receipts
	all   chan struct{} // closed when there are none
	wrong error
}

// take takes events until there are no more.
func (h *crustHub) take() {
	defer close(h.done)
	for e := range h.service.Events(context.Background()) {
		if e.Type != crust.EventDelivered {
			continue
		}
		h.mu.Lock()
		h.wrong = errors.Join(h.wrong, e.Err())
		if h.owed--; h.owed == 0 {
			close(h.all)
		}
		h.mu.Unlock()
	}
}

func (h *crustHub) Address() string {
	return fmt.Sprintf("%v#%v", h.service.Listeners()[0], h.service.ID())
}

func (h *crustHub) Sessions() int { return h.service.Stats().Peers }

func (h *crustHub) Traffic() uint64 {
	s := h.service.Stats()
	return s.WireSentBytes + s.WireReceivedBytes
}

func (h *crustHub) Broadcast(ctx context.Context, message []byte) error {
	peers := h.service.Peers()
	all := make(chan struct{})
	h.mu.Lock()
	h.owed, h.all, h.wrong = len(peers), all, nil
	h.mu.Unlock()
	for i, p := range peers {
		if err := h.service.SendReceipt(p.Peer, message, 1, uint64(i)); err != nil {
			return err
		}
	}
	select {
	case <-all:
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.wrong
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (h *crustHub) Close() error {
	err := h.service.Close()
	<-h.done
	return err
}

func (crustStack) Client() (Client, error) {
	s, err := crust.New(crust.Config{NetworkName: "scale", NoListen: true, NoNetworkWatch: true})
	if err != nil {
		return nil, err
	}
	return &crustClient{service: s}, nil
}

type crustClient struct {
	service *crust.Service
	token   uint64
}

// Connect connects. What comes later waits in the queue, which is small.
func (c *crustClient) Connect(ctx context.Context, address string) error {
	contact, err := crust.ParseContact(address)
	if err != nil {
		return err
	}
	c.token++
	if err := c.service.ConnectEndpoint(contact, c.token); err != nil {
		return err
	}
	for {
		b, err := c.service.NextBatch(ctx, 1)
		if err != nil {
			return err
		}
		for _, e := range b.Events {
			if e.Token == c.token && e.Type == crust.EventConnectFailed {
				err = e.Err()
			}
			if e.Token == c.token && (e.Type == crust.EventConnected || err != nil) {
				b.Release()
				return err
			}
		}
		b.Release()
	}
}

func (c *crustClient) Close() error { return c.service.Close() }
