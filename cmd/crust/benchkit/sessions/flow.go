package sessions

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/libcrust/libcrust/cmd/crust/benchkit"
)

// Sink accepts one flow over the transport of that name and counts what comes
// within a time from its first byte on. It writes a benchkit.FlowReport with its
// address and then one with the count. Bytes that are not those of the flow are an
// error.
func Sink(ctx context.Context, name string, at netip.Addr, d time.Duration, out io.Writer) error {
	t, err := benchkit.FindTransport(Transports(), name)
	if err != nil {
		return err
	}
	f := flow{begun: make(chan struct{}), failed: make(chan error, 1)}
	server, err := t.Listen(at, func(c benchkit.Conn) {
		select {
		case f.failed <- f.receive(c):
		default: // there was another flow
		}
	})
	if err != nil {
		return err
	}
	lines := json.NewEncoder(out)
	err = lines.Encode(benchkit.FlowReport{Address: server.Address()})
	if err == nil {
		err = f.wait(ctx, d)
	}
	if err == nil {
		err = lines.Encode(benchkit.FlowReport{Bytes: f.bytes.Load(), Seconds: d.Seconds()})
	}
	return errors.Join(err, server.Close())
}

// flow is one that comes.
type flow struct {
	begun  chan struct{} // closed at the first message
	failed chan error    // one slot
	bytes  atomic.Int64
}

// wait waits for a time from the first message on.
func (f *flow) wait(ctx context.Context, d time.Duration) error {
	var over <-chan time.Time
	begun := f.begun
	for {
		select {
		case <-begun:
			over, begun = time.After(d), nil
		case <-over:
			return nil
		case err := <-f.failed:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// receive takes the messages of a flow until something is wrong with it.
func (f *flow) receive(c benchkit.Conn) error {
	var check benchkit.FlowChecker
	message := make([]byte, benchkit.ChunkSize)
	for first := true; ; first = false {
		if err := c.Receive(message); err != nil {
			return fmt.Errorf("the flow ended: %w", err)
		}
		if err := check.Check(message); err != nil {
			return err
		}
		f.bytes.Add(int64(len(message)))
		if first {
			close(f.begun)
		}
	}
}

// Source sends a flow to a Sink's address for a time, or until the sink is gone.
func Source(ctx context.Context, name, address string, d time.Duration) (err error) {
	t, err := benchkit.FindTransport(Transports(), name)
	if err != nil {
		return err
	}
	client, err := t.NewClient()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	conn, err := client.Dial(ctx, address)
	if err != nil {
		return fmt.Errorf("dial: %w", err)
	}
	c := conn.(sender) // ours are
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	message := make([]byte, benchkit.ChunkSize)
	for n := uint64(0); ; n++ {
		benchkit.FillChunk(message, n)
		if c.sendWithin(ctx, message) != nil {
			return nil // the sink has counted enough, or the time is over
		}
	}
}

type sender interface {
	sendWithin(ctx context.Context, message []byte) error
}

func (c *conn) sendWithin(ctx context.Context, message []byte) error {
	return c.node.service.SendWait(ctx, c.peer, message, priority)
}
