package hostile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	crust "github.com/libcrust/libcrust/core"
)

// authentic is the part of a first flight that the responder checks: the nonce,
// the length of the Noise message, and the message. What lies between and
// behind is the padding and its length.
func authentic(at int) bool { return at < 26 || at >= 28 && at < 80 }

// flights collects first flights of a network that nobody has answered.
func flights(t *testing.T, network string, n int) (list [][]byte) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close() //nolint:errcheck // the sink has done its work
	s := start(t, crust.Config{NetworkName: network, NoListen: true})
	sink := crust.Endpoint{Transport: crust.TCP, Addr: ln.Addr().(*net.TCPAddr).AddrPort()}
	for i := range n {
		if err := s.ConnectEndpoint(crust.Contact{Endpoint: sink}, uint64(i+1)); err != nil {
			t.Fatal(err)
		}
		c, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 4096)
		m, err := c.Read(b)
		if err != nil || m < 80 {
			t.Fatalf("a first flight of %d bytes, %v", m, err)
		}
		c.Close() //nolint:errcheck // it has said all it can
		list = append(list, b[:m])
	}
	return list
}

// answered records first flights that the service has answered.
func answered(t *testing.T, victim *node, network string, n int) (list [][]byte) {
	t.Helper()
	tap := newRelay(t, victim.at())
	s := start(t, crust.Config{NetworkName: network, NoListen: true})
	for i := range n {
		if _, err := s.connect(tap.at(), victim.ID(), uint64(i+1)); err != nil {
			t.Fatal(err)
		}
		if err := s.Disconnect(victim.ID()); err != nil {
			t.Fatal(err)
		}
		if _, err := s.next(of(crust.EventLost, victim.ID())); err != nil {
			t.Fatal(err)
		}
	}
	tap.ln.Close() //nolint:errcheck // no more conversations
	tap.wg.Wait()
	for _, rec := range tap.tape {
		if len(rec.in) == 0 || rec.first < 80 {
			t.Fatal("a recorded first flight has no answer")
		}
		list = append(list, rec.out[:rec.first])
	}
	return list
}

// probe is one attempt to make the service show itself.
type probe struct {
	kind  string
	bytes []byte
}

func flip(r *rand.Rand, flight []byte, allowed func(int) bool) []byte {
	b := bytes.Clone(flight)
	for n := 1 + r.IntN(3); n > 0; {
		if at := r.IntN(len(b)); allowed(at) {
			b[at] ^= 1 << r.IntN(8)
			n--
		}
	}
	if bytes.Equal(b, flight) { // two flips took each other back
		b[0] ^= 1
	}
	return b
}

// probes makes n of them, of every kind.
func probes(t *testing.T, victim *node, network string, n int) (list []probe) {
	t.Helper()
	r := rand.New(rand.NewPCG(1, uint64(n)))
	fresh, old := flights(t, network, 50), answered(t, victim, network, 50)
	foreign := flights(t, "another network", 50)
	anywhere := func(int) bool { return true }
	any1 := func(from [][]byte) []byte { return from[r.IntN(len(from))] }
	others := [][]byte{
		[]byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"), []byte("SSH-2.0-OpenSSH_9.6\r\n"),
		append([]byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3}, make([]byte, 508)...), []byte("\x13BitTorrent protocol"),
		make([]byte, 2048), bytes.Repeat([]byte{0xff}, 700),
	}
	for i := range n {
		var p probe
		switch i % 10 {
		case 0, 1, 2:
			p = probe{"random", make([]byte, 1+r.IntN(3000))}
			for i := range p.bytes {
				p.bytes[i] = byte(r.Uint32())
			}
		case 3:
			f := any1(fresh)
			p = probe{"truncated", f[:1+r.IntN(79)]}
		case 4, 5:
			p = probe{"flipped", flip(r, any1(fresh), authentic)}
		case 6:
			p = probe{"replayed and flipped", flip(r, any1(old), anywhere)}
		case 7:
			p = probe{"replayed", any1(old)}
		case 8:
			p = probe{"another network's", any1(foreign)}
		case 9:
			p = probe{"another protocol's", others[r.IntN(len(others))]}
			if i%20 == 9 {
				p = probe{"nothing", nil}
			}
		}
		list = append(list, p)
	}
	r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

// outcome is what a prober sees.
type outcome struct {
	bytes int
	reset bool
	took  time.Duration
	err   error
}

// send runs one probe. With half set it shuts its sending side down.
func (p probe) send(at string, half bool) (o outcome) {
	began := time.Now()
	c, err := net.Dial("tcp", at)
	if err != nil {
		return outcome{err: err}
	}
	defer c.Close() //nolint:errcheck // it has seen what it can see
	if _, err := c.Write(p.bytes); err != nil {
		return outcome{err: err}
	}
	if half {
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			return outcome{err: err}
		}
	}
	if err := c.SetReadDeadline(began.Add(patience)); err != nil {
		return outcome{err: err}
	}
	n, err := io.Copy(io.Discard, c)
	o = outcome{bytes: int(n), took: time.Since(began), reset: errors.Is(err, syscall.ECONNRESET)}
	if !o.reset {
		o.err = err
	}
	return o
}

// TestProbersGetSilence sends 10,000 first flights that no member of the network
// would send, and compares what their senders see.
func TestProbersGetSilence(t *testing.T) {
	const (
		network   = "probed"
		total     = 10000
		wave      = 1250
		handshake = 1500 * time.Millisecond
	)
	victim := start(t, crust.Config{
		NetworkName: network, HandshakeTimeout: handshake, MaxHandshakes: 2 * wave, MaxHandshakesPerAddress: 2 * wave,
	})
	all := probes(t, victim, network, total)
	at := victim.at().Addr.String()
	mustConnectWithinASecond(t, victim, network)
	before, failed := measure(t), victim.Stats().HandshakesFailed

	var mu sync.Mutex
	seen := map[string][]outcome{}
	for part := range slices.Chunk(all, wave) {
		var wg sync.WaitGroup
		gate := make(chan struct{}, 50) // as many dial at once
		for _, p := range part {
			gate <- struct{}{}
			wg.Go(func() {
				time.AfterFunc(10*time.Millisecond, func() { <-gate })
				o := p.send(at, false)
				mu.Lock()
				seen[p.kind] = append(seen[p.kind], o)
				mu.Unlock()
			})
		}
		mustConnectWithinASecond(t, victim, network)
		wg.Wait()
	}
	compare(t, seen, handshake*3/4, handshake)
	until(t, victim, "every probe has reached the service", func(s crust.Stats) bool { return s.HandshakesFailed-failed >= total })
	mustReturnTo(t, before)
	mustConnectWithinASecond(t, victim, network)
}

// compare fails when an outcome tells the prober anything.
func compare(t *testing.T, seen map[string][]outcome, least, most time.Duration) {
	t.Helper()
	const kinds = 8
	if len(seen) != kinds {
		t.Errorf("%d kinds of probes, want %d", len(seen), kinds)
	}
	var means []time.Duration
	for kind, list := range seen {
		var sum time.Duration
		var told []string
		for _, o := range list {
			sum += o.took
			switch {
			case o.err != nil:
				told = append(told, o.err.Error())
			case o.bytes != 0:
				told = append(told, fmt.Sprintf("%d bytes of answer", o.bytes))
			case o.reset:
				told = append(told, "closed by a reset")
			case o.took < least || o.took > most+3*time.Second:
				told = append(told, fmt.Sprintf("closed after %v, want %v to %v", o.took, least, most))
			}
		}
		if len(told) > 0 {
			t.Errorf("%s: %d of %d probes were told something, the first: %s", kind, len(told), len(list), told[0])
		}
		means = append(means, sum/time.Duration(len(list)))
		t.Logf("%-20s %5d probes, no answer, closed after %v on average", kind, len(list), means[len(means)-1].Round(time.Millisecond))
	}
	// The times are drawn from a quarter of the timeout. The mean of 500 has a
	// deviation of 0.3 % of the timeout, and the machine adds its noise.
	if spread := slices.Max(means) - slices.Min(means); spread > most/12 {
		t.Errorf("the mean time of closing differs by %v from kind to kind", spread)
	}
}

// A prober that shuts its sending side down sees the same end, at once, whatever
// it has sent.
func TestProbersThatHangUp(t *testing.T) {
	const network = "hung up"
	victim := start(t, crust.Config{NetworkName: network})
	all := probes(t, victim, network, 400)
	at := victim.at().Addr.String()
	before := measure(t)
	seen := map[string][]outcome{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	var next atomic.Int64
	for range 8 {
		wg.Go(func() {
			for i := next.Add(1) - 1; int(i) < len(all); i = next.Add(1) - 1 {
				o := all[i].send(at, true)
				mu.Lock()
				seen[all[i].kind] = append(seen[all[i].kind], o)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	compare(t, seen, 0, time.Second)
	mustReturnTo(t, before)
}

// The probes above are refused for what they are, not because the harness
// cannot get an answer: an untouched first flight gets one.
func TestUntouchedFlightIsAnswered(t *testing.T) {
	const network = "answering"
	victim := start(t, crust.Config{NetworkName: network, HandshakeTimeout: 500 * time.Millisecond})
	for i, f := range flights(t, network, 3) {
		if o := (probe{"untouched", f}).send(victim.at().Addr.String(), false); o.bytes < 28+32+48+16 || o.err != nil {
			t.Errorf("flight %d: %d bytes of answer, %v", i, o.bytes, o.err)
		}
		if o := (probe{"again", f}).send(victim.at().Addr.String(), false); o.bytes != 0 || o.err != nil {
			t.Errorf("flight %d again: %d bytes of answer, %v", i, o.bytes, o.err)
		}
	}
}
