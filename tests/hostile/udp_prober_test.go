package hostile

import (
	"bytes"
	"math/rand/v2"
	"net"
	"runtime"
	"testing"
	"time"

	crust "github.com/libcrust/libcrust/core"
)

// udpFlights collects first flights of a network that nobody has answered, each
// of another attempt.
func udpFlights(t *testing.T, network string, n int) (list [][]byte) {
	t.Helper()
	sink, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close() //nolint:errcheck // the sink has done its work
	at := crust.Endpoint{Transport: crust.UTP, Addr: sink.LocalAddr().(*net.UDPAddr).AddrPort()}
	buf := make([]byte, 2048)
	for range n {
		c, err := newClient(crust.Config{NetworkName: network})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.ConnectEndpoint(crust.Contact{Endpoint: at}, 1); err != nil {
			t.Fatal(err)
		}
		for {
			m, from, err := sink.ReadFromUDPAddrPort(buf)
			if err != nil {
				t.Fatal(err)
			}
			if from == c.at {
				list = append(list, bytes.Clone(buf[:m]))
				break
			}
		}
		c.Close() //nolint:errcheck // it has said what was wanted
	}
	return list
}

// udpTapes records whole conversations with a victim, which has answered their
// first flights and forgotten their ends.
func udpTapes(t *testing.T, victim *node, network string, n int) (tapes []*flow) {
	t.Helper()
	tap := newUDPRelay(t, victim.at())
	for range n {
		c, err := newClient(crust.Config{NetworkName: network})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.connect(tap.at(), victim.ID()); err != nil {
			t.Fatal(err)
		}
		if err := c.Send(victim.ID(), []byte("what is to be recorded"), 0); err != nil {
			t.Fatal(err)
		}
		if _, err := victim.next(of(crust.EventMessage, c.ID())); err != nil {
			t.Fatal(err)
		}
		c.Close() //nolint:errcheck // it has said what was wanted
		if _, err := victim.next(of(crust.EventLost, c.ID())); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(1500 * time.Millisecond) // all of it has come through, and the good-byes are over
	tap.stop()
	return tap.tape
}

// udpProbes makes n datagrams that no member of the network would send.
func udpProbes(t *testing.T, victim *node, network string, n int) (list []probe) {
	t.Helper()
	r := rand.New(rand.NewPCG(2, uint64(n)))
	fresh, foreign := udpFlights(t, network, 30), udpFlights(t, "another network", 30)
	var old, finishes, sealed [][]byte
	for _, f := range udpTapes(t, victim, network, 30) {
		out := f.datagrams(true)
		old, finishes, sealed = append(old, out[0]), append(finishes, out[1]), append(sealed, out[2:]...)
	}
	anywhere := func(int) bool { return true }
	any1 := func(from [][]byte) []byte { return from[r.IntN(len(from))] }
	others := [][]byte{
		append([]byte{0xc3, 0, 0, 0, 1, 8}, make([]byte, 1194)...),                                                          // QUIC, an Initial
		append([]byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42}, make([]byte, 12)...),                                             // STUN, a binding request
		{0x41, 0, 0x12, 0x34, 0, 0, 0, 1, 0, 0, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0},                                               // uTP, a SYN
		{0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 'a', 0, 0, 1, 0, 1},                                                   // DNS, a query
		[]byte("d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe"),                                                  // BitTorrent's DHT
		append([]byte{1, 0, 0, 0}, make([]byte, 144)...), bytes.Repeat([]byte{0xff}, 700), make([]byte, 1200), {}, {0}, {1}, // WireGuard, and nothing
	}
	for i := range n {
		var p probe
		switch i % 10 {
		case 0, 1:
			p = probe{"random", make([]byte, r.IntN(1400))}
			for i := range p.bytes {
				p.bytes[i] = byte(r.Uint32())
			}
		case 2:
			f := any1(fresh)
			p = probe{"truncated", f[:r.IntN(len(f))]}
		case 3, 4:
			p = probe{"flipped", flip(r, any1(fresh), anywhere)}
		case 5:
			p = probe{"replayed offer", any1(old)}
		case 6:
			p = probe{"replayed finish", any1(finishes)}
		case 7:
			p = probe{"replayed sealed datagram", any1(sealed)}
			if i%20 == 7 {
				p = probe{"flipped sealed datagram", flip(r, any1(sealed), anywhere)}
			}
		case 8:
			p = probe{"another network's", any1(foreign)}
		case 9:
			p = probe{"another protocol's", others[r.IntN(len(others))]}
		}
		list = append(list, p)
	}
	r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

// TestUDPProbersGetSilence sends 50,000 datagrams that no member of the network
// would send, from 50 addresses: not one byte comes back, members connect
// meanwhile, and nothing stays behind.
func TestUDPProbersGetSilence(t *testing.T) {
	const network, total, prompt = "probed by datagrams", 50000, 500
	victim := startUDP(t, crust.Config{NetworkName: network})
	all := udpProbes(t, victim, network, total)
	mustConnectWithinASecond(t, victim, network)
	before := measure(t)
	e := newEars(t, victim.at().Addr, 50)
	kinds := map[string]int{}
	for i, p := range all {
		kinds[p.kind]++
		if _, err := e.conns[i%len(e.conns)].Write(p.bytes); err != nil {
			t.Fatal(err)
		}
		if i%prompt == 0 { // the receive buffer of a socket is not the point here
			time.Sleep(2 * time.Millisecond)
		}
		if i%(total/5) == 0 {
			mustConnectWithinASecond(t, victim, network)
		}
	}
	mustConnectWithinASecond(t, victim, network)
	e.close()
	for kind, n := range kinds {
		t.Logf("%-24s %5d datagrams", kind, n)
	}
	if len(kinds) != 9 {
		t.Errorf("%d kinds of probes, want 9", len(kinds))
	}
	if e.heard.Load() != 0 {
		t.Errorf("%d bytes of answer in %d datagrams", e.heard.Load(), e.count.Load())
	}
	mustReturnTo(t, before)
	runtime.KeepAlive(all) // what was measured before holds it, too
}

// The probes above get no answer for what they are, not because the harness
// hears none: an untouched offer gets one, which is not longer; the same offer
// again gets the same from where it came, and nothing elsewhere.
func TestUDPUntouchedOfferIsAnswered(t *testing.T) {
	const network = "answering datagrams"
	victim := startUDP(t, crust.Config{NetworkName: network})
	for i, f := range udpFlights(t, network, 3) {
		for k, want := range []int64{1, 0} {
			e := newEars(t, victim.at().Addr, 1)
			if _, err := e.conns[0].Write(f); err != nil {
				t.Fatal(err)
			}
			e.close()
			if e.count.Load() != want || e.heard.Load() > int64(len(f)) {
				t.Errorf("offer %d of %d bytes, address %d: %d answers of %d bytes altogether, want %d", i, len(f), k, e.count.Load(), e.heard.Load(), want)
			}
		}
	}
}

// TestUDPReplayFlood: who has recorded handshakes, and repeats them as fast as he
// can from everywhere, keeps no member from connecting.
func TestUDPReplayFlood(t *testing.T) {
	const network, total = "replayed", 300_000
	victim := startUDP(t, crust.Config{NetworkName: network})
	var tape [][]byte
	for _, f := range udpTapes(t, victim, network, 50) {
		tape = append(tape, f.datagrams(true)...)
	}
	e := newEars(t, victim.at().Addr, 20)
	done := make(chan struct{})
	go func() {
		defer close(done)
		began := time.Now()
		for i := range total {
			e.conns[i%len(e.conns)].Write(tape[i%len(tape)]) //nolint:errcheck // lost on the way
			if i%256 == 0 {
				time.Sleep(time.Until(began.Add(time.Duration(i) * 12 * time.Microsecond)))
			}
		}
	}()
	for under := true; under; {
		mustConnectWithinASecond(t, victim, network)
		select {
		case <-done:
			under = false
		case <-time.After(100 * time.Millisecond):
		}
	}
	e.close()
	if e.heard.Load() != 0 {
		t.Errorf("%d bytes of answer in %d datagrams", e.heard.Load(), e.count.Load())
	}
}
