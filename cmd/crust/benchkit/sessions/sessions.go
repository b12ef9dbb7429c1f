// Package sessions makes libcrust's sessions over TCP and over UDP known to
// benchkit, through nothing but libcrust's public Go API.
package sessions

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	crust "github.com/libcrust/libcrust/core"

	"github.com/libcrust/libcrust/cmd/crust/benchkit"
)

// unbounded is, in connections a second, more than there can be.
const unbounded = 1 << 20

// sendBatch is how many small messages go to Service.SendBatch at once.
const sendBatch = 256

// priority of all messages: the least urgent that is never dropped.
const priority = crust.MustArrive

// Transports are libcrust's over TCP: by batches of events with the cipher that
// the peers choose, the same with ChaCha20-Poly1305 forced, and by single events;
// over UDP, the first two; and over TCP in clear.
func Transports() []benchkit.Transport {
	return []benchkit.Transport{
		transport{name: "secure-tcp", over: crust.TCP},
		transport{name: "secure-tcp-chacha", over: crust.TCP, cipher: crust.CipherChaCha20Poly1305},
		transport{name: "secure-tcp-events", over: crust.TCP, single: true},
		transport{name: "secure-utp", over: crust.UTP},
		transport{name: "secure-utp-chacha", over: crust.UTP, cipher: crust.CipherChaCha20Poly1305},
		transport{name: "tracer", over: crust.Tracer},
	}
}

type transport struct {
	name    string
	over    crust.Transport
	cipher  crust.CipherChoice
	single  bool   // receive by Service.Events and not by Service.NextBatch
	network string // Network when it is ""
}

func (t transport) Name() string           { return t.name }
func (t transport) CarriesDatagrams() bool { return t.over == crust.UTP }

// newNode makes a service that listens at an address, or nowhere if that is zero.
func (t transport) newNode(at netip.Addr) (*node, error) {
	var listen []crust.Endpoint
	if at.IsValid() {
		listen = []crust.Endpoint{{Transport: t.over, Addr: netip.AddrPortFrom(at, 0)}}
	}
	return t.makeNode(listen)
}

// makeNode makes a service that listens at some endpoints, or nowhere.
func (t transport) makeNode(listen []crust.Endpoint) (*node, error) {
	config := crust.Config{
		Cipher: t.cipher, Listen: listen, NoListen: listen == nil, NetworkName: cmp.Or(t.network, Network), Beacon: crust.BeaconOff, Gossip: crust.GossipOff,
		// All sessions come from one address, as fast as they can be made: what the
		// others that are measured have no bound for either.
		MaxAcceptsPerSecond: unbounded, MaxAcceptsPerAddress: unbounded, HandshakePercent: 800,
	}
	if t.over == crust.Tracer {
		config.Tracer = crust.TracerOn
	}
	if t.network != "" { // the other end is elsewhere, and may go without a word
		config.Heartbeat, config.LostAfter, config.ResumeWindow, config.ConnectTimeout = remoteHeartbeat, remoteLost, remoteResume, remoteConnect
	}
	service, err := crust.New(config)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &node{service: service, ctx: ctx, cancel: cancel, single: t.single}, nil
}

func (t transport) NewClient() (benchkit.Client, error) {
	c := new(client)
	for i := range c.nodes {
		n, err := t.newNode(netip.Addr{})
		if err != nil {
			return nil, errors.Join(err, c.Close())
		}
		c.nodes[i] = n
	}
	return c, nil
}

// node is a service and the events taken from it but not yet looked at. One
// goroutine at a time looks.
type node struct {
	service *crust.Service
	ctx     context.Context
	cancel  context.CancelFunc
	single  bool
	token   uint64
	bound   context.Context // when it ends, ctx does

	batch crust.Batch
	next  int // of batch.Events

	closing crust.PeerID // of a session that is not yet known to be over
}

// settle waits until the session that was closed last is over.
func (n *node) settle() error {
	peer := n.closing
	if peer.IsZero() {
		return nil
	}
	n.closing = crust.PeerID{}
	_, err := n.await(func(e *crust.Event) bool { return e.Type == crust.EventLost && e.Peer == peer })
	return err
}

// peek returns the next event without taking it. It is valid until the one
// after it is looked at.
func (n *node) peek() (*crust.Event, error) { return n.peekWithin(n.ctx) }

// peekWithin is peek until ctx ends.
func (n *node) peekWithin(ctx context.Context) (*crust.Event, error) {
	for n.next == len(n.batch.Events) {
		n.next = 0
		n.batch.Release()
		n.batch = crust.Batch{}
		if n.single {
			for event := range n.service.Events(ctx) {
				n.batch.Events = []crust.Event{event}
				break
			}
			if len(n.batch.Events) == 0 {
				return nil, io.EOF
			}
			continue
		}
		var err error
		if n.batch, err = n.service.NextBatch(ctx, 0); err != nil {
			return nil, err
		}
	}
	return &n.batch.Events[n.next], nil
}

// await takes events until want holds for one. The event's Data must not be used.
func (n *node) await(want func(*crust.Event) bool) (crust.Event, error) {
	for {
		event, err := n.peek()
		if err != nil {
			return crust.Event{}, err
		}
		n.next++
		if want(event) {
			found := *event
			found.Data = nil
			return found, nil
		}
		if event.Type == crust.EventStopped {
			return crust.Event{}, io.EOF
		}
	}
}

func (n *node) Close() error {
	n.cancel()
	err := n.service.Close()
	n.batch.Release()
	return err
}

// client dials from several services in turn. A service has one session with a
// peer, so that a closing one must be over before the next: with one service the
// end of each session would be measured too, which other transports leave to the
// kernel.
type client struct {
	nodes [4]*node
	turn  int
}

// Dial dials. When ctx ends, this client's sessions end too.
func (c *client) Dial(ctx context.Context, address string) (benchkit.Conn, error) {
	n := c.nodes[c.turn%len(c.nodes)]
	c.turn++
	if n.bound != ctx {
		n.bound = ctx
		context.AfterFunc(ctx, n.cancel)
	}
	if err := n.settle(); err != nil {
		return nil, err
	}
	n.token++
	if err := n.connect(address); err != nil {
		return nil, err
	}
	// Exactly one final event has the token, within Config.ConnectTimeout.
	final, err := n.await(func(e *crust.Event) bool { return e.Token == n.token })
	if err != nil {
		return nil, err
	}
	if final.Type != crust.EventConnected {
		return nil, errors.Join(fmt.Errorf("the connect ended as %v", final.Type), final.Err())
	}
	return &conn{node: n, peer: final.Peer}, nil
}

// connect begins to connect to an address.
func (n *node) connect(address string) error {
	if info, err := byInfo(address); info != nil || err != nil {
		return errors.Join(err, n.service.Connect(info, n.token))
	}
	contact, err := crust.ParseContact(address)
	if err != nil {
		return err
	}
	return n.service.ConnectEndpoint(contact, n.token)
}

func (c *client) Close() (err error) {
	for _, n := range c.nodes {
		if n != nil {
			err = errors.Join(err, n.Close())
		}
	}
	return err
}

// conn is the session with one peer.
type conn struct {
	node *node
	peer crust.PeerID
	lost bool // EventLost has been taken
}

func (c *conn) SendAll(count, size int) error {
	if size >= benchkit.BulkSize {
		message := make([]byte, size)
		for range count {
			if err := c.node.service.SendWait(c.node.ctx, c.peer, message, priority); err != nil {
				return err
			}
		}
		return nil
	}
	batch := slices.Repeat([]crust.Message{{Peer: c.peer, Data: make([]byte, size), Priority: priority}}, sendBatch)
	for count > 0 {
		accepted, err := c.node.service.SendBatch(batch[:min(count, sendBatch)])
		count -= accepted
		if err == nil {
			continue
		}
		if !errors.Is(err, crust.CodeWouldBlock) {
			return err
		}
		// The message that was refused waits for room, so the next batch finds some.
		if err := c.node.service.SendWait(c.node.ctx, c.peer, batch[0].Data, priority); err != nil {
			return err
		}
		count--
	}
	return nil
}

// SendDatagram never waits, and drops what was sent first when too much is on the
// way. A program that wants datagrams to arrive hears from the other end how far
// it is, and does not have more than datagramWindow bytes under way.
const datagramWindow = 200 << 10

// underWay is how many datagrams may be, and after how many the receiver says how
// far it is, in a datagram of 8 bytes.
func underWay(size int) (most, report int64) {
	most = int64(datagramWindow / (size + 2))
	return most, most / 8
}

func (c *conn) SendDatagrams(size int, d time.Duration) (sent int, err error) {
	most, _ := underWay(size)
	ctx, cancel := context.WithTimeout(c.node.ctx, d)
	defer cancel()
	var arrived atomic.Int64
	news := make(chan struct{}, 1)
	var listening sync.WaitGroup
	listening.Go(func() { c.hear(ctx, &arrived, news) })
	defer listening.Wait()
	defer cancel()
	patience := time.NewTimer(time.Minute)
	defer patience.Stop()
	data := make([]byte, size)
	for start := time.Now(); sent%16 != 0 || time.Since(start) < d; sent++ {
		for sent%16 == 0 && int64(sent)-arrived.Load() > most {
			patience.Reset(10 * time.Millisecond)
			select {
			case <-news:
			case <-patience.C:
				most += int64(sent) - arrived.Load() // those are lost
			case <-ctx.Done():
				return sent, nil
			}
		}
		if err := c.node.service.SendDatagram(c.peer, data); err != nil {
			return sent, err
		}
	}
	return sent, nil
}

// hear takes the receiver's reports until something else comes, or ctx ends.
func (c *conn) hear(ctx context.Context, arrived *atomic.Int64, news chan<- struct{}) {
	for {
		event, err := c.node.peekWithin(ctx)
		if err != nil || event.Type != crust.EventDatagram || len(event.Data) != 8 {
			return
		}
		c.node.next++
		arrived.Store(max(arrived.Load(), int64(binary.BigEndian.Uint64(event.Data))))
		select {
		case news <- struct{}{}:
		default:
		}
	}
}

func (c *conn) ReceiveAll(count, size int) error {
	if c.node.single {
		return c.receiveSingly(count, size)
	}
	for count > 0 {
		if _, err := c.node.peek(); err != nil {
			return err
		}
		events := c.node.batch.Events[c.node.next:]
		for i := range events {
			if count == 0 {
				break
			}
			message, err := c.isMessage(&events[i], size)
			if err != nil {
				return err
			}
			if message {
				count--
			}
			c.node.next++
		}
	}
	return nil
}

func (c *conn) receiveSingly(count, size int) error {
	for event := range c.node.service.Events(c.node.ctx) {
		message, err := c.isMessage(&event, size)
		if err != nil {
			return err
		}
		if message {
			count--
		}
		if count == 0 {
			return nil
		}
	}
	return io.ErrUnexpectedEOF
}

// isMessage tells messages from other events. It returns an error for a message
// of another size, and io.EOF for the end of the session.
func (c *conn) isMessage(event *crust.Event, size int) (bool, error) {
	switch {
	case event.Type == crust.EventMessage:
		if len(event.Data) != size {
			return false, fmt.Errorf("a message of %d bytes arrived, not of %d", len(event.Data), size)
		}
		return true, nil
	case event.Type == crust.EventLost && event.Peer == c.peer:
		c.lost = true
		return false, io.EOF
	case event.Type == crust.EventStopped:
		return false, io.EOF
	}
	return false, nil
}

func (c *conn) Send(message []byte) error {
	return c.node.service.SendWait(c.node.ctx, c.peer, message, priority)
}

func (c *conn) Receive(message []byte) error {
	for {
		event, err := c.node.peek()
		if err != nil {
			return err
		}
		c.node.next++
		is, err := c.isMessage(event, len(message))
		if err != nil {
			return err
		}
		if is {
			copy(message, event.Data)
			return nil
		}
	}
}

// Close begins to disconnect: the node's next session waits for the end.
func (c *conn) Close() error {
	if c.lost {
		return nil
	}
	c.lost = true
	if err := c.node.settle(); err != nil {
		return err
	}
	err := c.node.service.Disconnect(c.peer)
	if err != nil && !errors.Is(err, crust.CodeUnknownPeer) { // unknown when the other end was faster
		return err
	}
	c.node.closing = c.peer
	return nil
}
