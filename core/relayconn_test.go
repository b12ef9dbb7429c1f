package crust

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libcrust/libcrust/core/internal/wire"
)

// TestRelayConnDeadlines: reads and writes that wait end at their deadline, also one
// that is set while they wait, and at Close; a deadline that is moved lets them go on.
func TestRelayConnDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newRelayConn(nil, &port{}, Endpoint{})
		c.credit = 0
		ops := map[string]func() error{
			"read":  func() error { _, err := c.Read(make([]byte, 1)); return err },
			"write": func() error { _, err := c.Write([]byte("x")); return err },
		}
		for name, op := range ops {
			began := time.Now()
			c.SetDeadline(began.Add(time.Second))
			if err := op(); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != time.Second {
				t.Errorf("%s: %v after %v", name, err, time.Since(began))
			}
			c.SetDeadline(time.Time{})
			time.AfterFunc(time.Second, func() { c.SetDeadline(time.Now().Add(time.Second)) })
			began = time.Now()
			if err := op(); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != 2*time.Second {
				t.Errorf("%s: %v after %v", name, err, time.Since(began))
			}
		}
		if n, err := c.TryWrite([]byte("x")); n != 0 || err != nil {
			t.Errorf("without credit %d bytes were tried: %v", n, err)
		}
		c.SetDeadline(time.Time{})
		c.take([]byte("data"))
		c.ended(wire.RelayDone)
		got, err := io.ReadAll(c)
		if string(got) != "data" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	})
}

// TestRelayConnBreaks: a circuit that breaks ends reading after what has come, and
// writing at once.
func TestRelayConnBreaks(t *testing.T) {
	c := newRelayConn(nil, &port{}, Endpoint{})
	c.take([]byte("data"))
	c.ended(wire.RelayLimit)
	c.ended(wire.RelayDone) // the first word counts
	buf := make([]byte, 9)
	if n, err := c.Read(buf); n != 4 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	var why relayError
	if _, err := c.Read(buf); !errors.As(err, &why) || why.reason != wire.RelayLimit {
		t.Errorf("read: %v", err)
	}
	if _, err := c.Write(buf); !errors.As(err, &why) || why.reason != wire.RelayLimit {
		t.Errorf("write: %v", err)
	}
	if _, ok := c.RemoteAddr().(*net.TCPAddr); ok || c.RemoteAddr().Network() != "relay" {
		t.Errorf("%v", c.RemoteAddr())
	}
}

// TestRelayConnWindow: no more is taken than was granted, in frames of any size.
func TestRelayConnWindow(t *testing.T) {
	for _, size := range []int{1, 100, wire.MaxRelayData} {
		c := newRelayConn(nil, &port{}, Endpoint{})
		n := 0
		for ; c.take(make([]byte, size)); n++ {
			if n > wire.RelayWindow {
				t.Fatal("there is no bound")
			}
		}
		if n != wire.RelayWindow/wire.RelayCost(size) {
			t.Errorf("%d frames of %d bytes were taken", n, size)
		}
		if !newRelayConn(nil, &port{}, Endpoint{}).grant(0) || c.grant(1) {
			t.Error("more was granted than there can be")
		}
	}
}
