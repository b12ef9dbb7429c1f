package hostile

import (
	"net"
	"testing"
	"time"

	crust "github.com/libcrust/libcrust/core"
)

// hold opens n connections that say what first gives for each, which may be
// nothing, and then no more.
func hold(t *testing.T, at string, n int, first func(i int) []byte) (conns []net.Conn) {
	t.Helper()
	for i := range n {
		c, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		if b := first(i); len(b) > 0 {
			if _, err := c.Write(b); err != nil {
				t.Fatalf("connection %d: %v", i, err)
			}
		}
		conns = append(conns, c)
	}
	return conns
}

func closeAll(conns []net.Conn) {
	for _, c := range conns {
		c.Close() //nolint:errcheck // they carry nothing
	}
}

// until waits for a condition of the service's counters.
func until(t *testing.T, n *node, what string, good func(crust.Stats) bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !good(n.Stats()); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: it did not come to pass; %+v", what, n.Stats())
		}
	}
}

// TestConnectionsThatNeverSpeak opens 1,000 connections to a service with
// default limits. They come from one address, so no more than 256 may stay.
func TestConnectionsThatNeverSpeak(t *testing.T) {
	const network, count = "silent", 1000
	victim := start(t, crust.Config{NetworkName: network})
	half := flights(t, network, 1)[0][:60]
	for name, first := range map[string]func(int) []byte{
		"not a byte":     func(int) []byte { return nil },
		"half a flight":  func(int) []byte { return half },
		"byte by choice": func(i int) []byte { return half[:i%20] },
	} {
		mustConnectWithinASecond(t, victim, network)
		before, evicted := measure(t), victim.Stats().HandshakesEvicted
		conns := hold(t, victim.at().Addr.String(), count, first)
		until(t, victim, name, func(s crust.Stats) bool { return s.HandshakesEvicted-evicted >= count-256 })
		if s := victim.Stats(); s.Handshakes > 256 {
			t.Errorf("%s: %d handshakes are under way, over the limit", name, s.Handshakes)
		}
		for range 3 {
			mustConnectWithinASecond(t, victim, network)
		}
		closeAll(conns)
		until(t, victim, name, func(s crust.Stats) bool { return s.Handshakes == 0 })
		mustReturnTo(t, before)
	}
}

// TestManyHeldHandshakes lets 1,000 silent connections stay, as from many
// addresses, and counts what each costs and that all are given up in time.
func TestManyHeldHandshakes(t *testing.T) {
	const network, count, timeout = "held", 1000, 3 * time.Second
	victim := start(t, crust.Config{NetworkName: network, HandshakeTimeout: timeout, MaxHandshakes: 2 * count, MaxHandshakesPerAddress: 2 * count})
	mustConnectWithinASecond(t, victim, network)
	before := measure(t)
	conns := hold(t, victim.at().Addr.String(), count, func(int) []byte { return nil })
	until(t, victim, "held", func(s crust.Stats) bool { return s.Handshakes == count })
	now := measure(t)
	if each := (int64(now.heap) - int64(before.heap)) / count; each > 24<<10 {
		t.Errorf("a silent connection holds %d bytes, both ends of it counted", each)
	} else {
		t.Logf("a silent connection holds %d bytes, both ends of it counted", each)
	}
	mustConnectWithinASecond(t, victim, network)
	until(t, victim, "given up", func(s crust.Stats) bool { return s.Handshakes == 0 })
	for i, c := range conns {
		if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Fatalf("connection %d is still open", i)
		}
	}
	closeAll(conns)
	mustReturnTo(t, before)
}
