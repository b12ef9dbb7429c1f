package netio

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestDiffer(t *testing.T) {
	old := view{addrs: parse("10.0.0.1", "10.0.0.2"), running: parse("10.0.0.1", "10.0.0.2")}
	for name, c := range map[string]struct {
		now  view
		want Change
		some bool
	}{
		"nothing": {now: old},
		"another address": {
			now:  view{addrs: parse("10.0.0.1", "10.0.0.3"), running: parse("10.0.0.1", "10.0.0.3")},
			want: Change{Came: parse("10.0.0.3"), Gone: parse("10.0.0.2")}, some: true,
		},
		"carrier lost":       {now: view{addrs: old.addrs, running: parse("10.0.0.1")}, want: Change{Links: true}, some: true},
		"came with no cable": {now: view{addrs: parse("10.0.0.1", "10.0.0.2", "10.0.0.3"), running: old.running}, want: Change{Came: parse("10.0.0.3")}, some: true},
		"another source":     {now: view{addrs: old.addrs, running: old.running, from: [2]netip.Addr{old.addrs[0]}}, want: Change{Routes: true}, some: true},
		"slept":              {now: view{addrs: old.addrs, running: old.running, asleep: leastSleep}, want: Change{Woke: true}, some: true},
		"dozed":              {now: view{addrs: old.addrs, running: old.running, asleep: leastSleep - 1}},
	} {
		got, some := c.now.differ(&old)
		if some != c.some || !slices.Equal(got.Came, c.want.Came) || !slices.Equal(got.Gone, c.want.Gone) ||
			got.Links != c.want.Links || got.Routes != c.want.Routes || got.Woke != c.want.Woke {
			t.Errorf("%s: %+v (%v), want %+v", name, got, some, c.want)
		}
	}
}

// TestPoller: it looks each time, says nothing when nothing is different, and ends.
func TestPoller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPoller(pollEvery)
		p.last.addrs = append(slices.Clone(p.last.addrs), netip.MustParseAddr("198.51.100.7")) // one that has gone since
		began := time.Now()
		c, err := p.Next()
		if err != nil || !slices.Equal(c.Gone, parse("198.51.100.7")) || len(c.Came) > 0 || time.Since(began) != pollEvery {
			t.Errorf("%+v, %v after %v", c, err, time.Since(began))
		}
		time.AfterFunc(time.Minute, func() { p.Close() })
		if c, err = p.Next(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%+v, %v", c, err)
		}
		p.Close()
	})
}

// TestSystemWatcherCloses: Close ends a Next that waits, and may be repeated.
func TestSystemWatcherCloses(t *testing.T) {
	w, err := System.(Watched).Watch()
	if err != nil {
		t.Fatal(err)
	}
	w.Attend(true)
	time.AfterFunc(10*time.Millisecond, func() { w.Close() })
	for err == nil { // the machine's network may change by itself
		_, err = w.Next()
	}
	if !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	w.Close()
	w.Attend(false)
	if _, err = w.Next(); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

// TestQuiet: on Linux the kernel knows of acknowledgements that nobody reads.
func TestQuiet(t *testing.T) {
	l, err := System.Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := System.Dial(t.Context(), netip.AddrPort{}, l.Addr().(*net.TCPAddr).AddrPort())
	if err != nil {
		t.Fatal(err)
	}
	d, known := Quiet(c)
	if known && d > 10*time.Second {
		t.Errorf("a new connection is quiet for %v", d)
	}
	c.Close()
	if d, known := Quiet(c); known {
		t.Errorf("a closed connection is quiet for %v", d)
	}
	if _, known := Quiet(nil); known {
		t.Error("no connection is known")
	}
}
