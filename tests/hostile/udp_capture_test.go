package hostile

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"math"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/anacrolix/go-libutp"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/identity"
)

// leastSamples is from how many datagrams on a position is judged: each value of
// a byte is then expected twice.
const leastSamples = 512

// mostSamples bounds them, since threshold sets high counts aside.
const mostSamples = 4000

// column is one position of one kind of datagram: how often each value was there.
type column struct {
	count [256]int
	n     int
}

// kind names datagrams that stand at one place of a conversation.
type kind struct {
	toServer bool
	number   int  // of the direction; -1 means all together
	fromEnd  bool // positions count from the end
}

func (k kind) String() string {
	text, side, end := fmt.Sprintf("datagram %d", k.number), "to the initiator", ""
	if k.number < 0 {
		text = "all datagrams"
	}
	if k.toServer {
		side = "to the responder"
	}
	if k.fromEnd {
		end = ", from the end"
	}
	return text + " " + side + end
}

// observer collects datagrams as somebody does who sees only the wire.
type observer struct {
	columns map[kind][]column
	utp     int // datagrams that look like packets of uTP
	all     int
}

// add takes a datagram, the number-th of its direction.
func (o *observer) add(toServer bool, number int, b []byte) {
	if o.columns == nil {
		o.columns = map[kind][]column{}
	}
	o.all++
	if looksLikeUTP(b) {
		o.utp++
	}
	for _, k := range []kind{{toServer, number, false}, {toServer, number, true}, {toServer, -1, false}, {toServer, -1, true}} {
		if k.number > 15 {
			continue
		}
		columns := o.columns[k]
		for len(columns) < min(len(b), 1500) {
			columns = append(columns, column{})
		}
		o.columns[k] = columns
		for i := range columns[:min(len(b), 1500)] {
			v := b[i]
			if k.fromEnd {
				v = b[len(b)-1-i]
			}
			if c := &columns[i]; c.n < mostSamples {
				c.count[v]++
				c.n++
			}
		}
	}
}

// looksLikeUTP reports whether a datagram could begin with a header of uTP: type
// and version, a known extension, a plausible length (BEP 29).
func looksLikeUTP(b []byte) bool {
	return len(b) >= 20 && b[0]&15 == 1 && b[0]>>4 <= 4 && b[1] <= 2
}

// judgement is what the observer finds.
type judgement struct {
	positions int
	far       []string // positions that are not uniform
	mean      float64  // of the statistic, per degree of freedom
	deviation float64  // of that mean, if all is uniform
	most      float64
	utp       bool // there are packets of uTP
}

// judge looks at every position that was seen often enough.
func (o *observer) judge() (j judgement) {
	total := 0
	for _, columns := range o.columns {
		for _, c := range columns {
			if c.n >= leastSamples {
				total++
			}
		}
	}
	limits := map[int]float64{}
	sum := 0.0
	for k, columns := range o.columns {
		for i := range columns {
			c := &columns[i]
			if c.n < leastSamples {
				continue
			}
			stat, mean := 0.0, float64(c.n)/256
			for _, n := range c.count {
				stat += (float64(n) - mean) * (float64(n) - mean) / mean
			}
			at := c.n / 16 * 16 // a threshold is nearly the same for its neighbours, and higher for less
			if limits[at] == 0 {
				limits[at] = threshold(at, 1e-6/float64(total))
			}
			if stat > limits[at] {
				j.far = append(j.far, fmt.Sprintf("%v, byte %d: %.0f over %.0f", k, i, stat, limits[at]))
			}
			j.positions++
			j.most = max(j.most, stat)
			sum += stat
		}
	}
	j.mean = sum / float64(j.positions)
	// Positions are seen up to four times, so those count as one.
	j.deviation = math.Sqrt(2 * 255 / (float64(j.positions) / 4))
	// 5 of 256 first bytes and 3 of 256 second ones would do by chance.
	expected := float64(o.all) * 15 / 65536
	j.utp = float64(o.utp) > expected+6*math.Sqrt(expected)+6
	return j
}

// TestUDPCaptureLooksRandom records 1,000 whole conversations over uTP and looks
// at each datagram as somebody does who does not know the network name.
func TestUDPCaptureLooksRandom(t *testing.T) {
	const network, plain = "a network of our own", "the quick brown fox jumps over the lazy dog; "
	appID := []byte("application number one")
	server := startUDP(t, crust.Config{NetworkName: network, AppID: appID})
	tap := newUDPRelay(t, server.at())
	words := map[string][]byte{
		"the network name": []byte(network), "the app id": appID, "the plaintext": []byte(plain), "the server's id": idBytes(server.ID()),
		"the prologue": []byte("libcrust/1"),
	}
	text := []byte(strings.Repeat(plain, 20))
	const clients = 4
	var wg sync.WaitGroup
	got := make([]chan crust.Event, clients)
	index := map[crust.PeerID]int{}
	keys := make([]*identity.Key, clients)
	for k := range keys {
		key, err := identity.Generate()
		if err != nil {
			t.Fatal(err)
		}
		static, err := key.ID().Curve25519()
		if err != nil {
			t.Fatal(err)
		}
		keys[k], index[key.ID()], got[k] = key, k, make(chan crust.Event, 16)
		words[fmt.Sprintf("the id of client %d", k)] = idBytes(key.ID())
		words[fmt.Sprintf("the static key of client %d", k)] = static[:]
	}
	stop := make(chan struct{})
	var router sync.WaitGroup
	router.Go(func() {
		for {
			select {
			case e := <-server.events:
				if k, ok := index[e.Peer]; ok && (e.Type == crust.EventMessage || e.Type == crust.EventLost) {
					got[k] <- e
				}
			case <-stop:
				return
			}
		}
	})
	for k, key := range keys {
		wg.Go(func() {
			for i := range conversations / clients {
				c, err := newClient(crust.Config{NetworkName: network, AppID: appID, Identity: key})
				if err == nil {
					err = c.converse(server, got[k], tap.at(), text)
					c.Close() //nolint:errcheck // said everything
					tap.forget(c.at)
				}
				if err != nil {
					t.Errorf("client %d, conversation %d: %v", k, i, err)
					return
				}
			}
		})
	}
	wg.Wait()
	close(stop)
	router.Wait()
	tap.stop()
	if t.Failed() {
		return
	}
	judgeUDP(t, tap, secrets(words))
}

// converse is one conversation: connect, a message each way, disconnect.
func (c *client) converse(server *node, got chan crust.Event, at crust.Endpoint, text []byte) error {
	if err := c.connect(at, server.ID()); err != nil {
		return err
	}
	if err := c.Send(server.ID(), text, 0); err != nil {
		return err
	}
	if e := <-got; e.Type != crust.EventMessage || !bytes.Equal(e.Data, text) {
		return fmt.Errorf("the server got %v of %d bytes", e.Type, len(e.Data))
	}
	if err := server.Send(c.ID(), text, 0); err != nil {
		return err
	}
	if e, err := c.await(crust.EventMessage); err != nil || !bytes.Equal(e.Data, text) {
		return fmt.Errorf("the client got %d bytes, %w", len(e.Data), err)
	}
	if err := c.Disconnect(server.ID()); err != nil {
		return err
	}
	if e, err := c.await(crust.EventLost); err != nil && e.Type != crust.EventLost {
		return err
	}
	if e := <-got; e.Type != crust.EventLost {
		return fmt.Errorf("the server saw %v instead of the end", e.Type)
	}
	return nil
}

// judgeUDP is the observer's view of the tape.
func judgeUDP(t *testing.T, tap *udpRelay, hidden map[string][]byte) {
	t.Helper()
	if len(tap.tape) != conversations {
		t.Fatalf("%d conversations on the tape", len(tap.tape))
	}
	var o observer
	var all [][]byte
	lengths := map[string]map[int]int{"offers": {}, "answers": {}, "finishes": {}}
	for _, f := range tap.tape {
		out, in := f.datagrams(true), f.datagrams(false)
		if len(out) < 3 || len(in) < 2 {
			t.Fatalf("a conversation of %d and %d datagrams", len(out), len(in))
		}
		for i, b := range out {
			o.add(true, i, b)
		}
		for i, b := range in {
			o.add(false, i, b)
		}
		all = append(append(all, out...), in...)
		lengths["offers"][len(out[0])]++
		lengths["answers"][len(in[0])]++
		lengths["finishes"][len(out[1])]++
		if len(in[0]) > len(out[0]) {
			t.Errorf("an answer of %d bytes to an offer of %d", len(in[0]), len(out[0]))
		}
	}
	j := o.judge()
	t.Logf("%d datagrams, chi square of 255 degrees at %d positions: mean %.2f (deviation %.2f), most %.1f", o.all, j.positions, j.mean, j.deviation, j.most)
	if len(j.far) > 0 {
		t.Errorf("%d positions are not uniform: %s", len(j.far), strings.Join(j.far[:min(len(j.far), 5)], "; "))
	}
	if math.Abs(j.mean-255) > 6*j.deviation {
		t.Errorf("the mean statistic is %.2f, want about 255", j.mean)
	}
	if j.utp {
		t.Errorf("%d of %d datagrams look like packets of uTP", o.utp, o.all)
	}
	if names := found(bytes.Join(all, nil), hidden); len(names) > 0 {
		t.Errorf("the tape shows %s", strings.Join(names, ", "))
	}
	for name, list := range lengths {
		shortest, longest, most := 1<<30, 0, 0
		for n, c := range list {
			shortest, longest, most = min(shortest, n), max(longest, n), max(most, c)
		}
		t.Logf("the %s have %d lengths, from %d to %d; %d are equal at most", name, len(list), shortest, longest, most)
		if len(list) < 200 || longest-shortest < 240 || most > 30 {
			t.Errorf("the lengths of the %s do not spread", name)
		}
	}
}

// TestUDPCaptureCheckCanFail gives the observer clear uTP, and random datagrams
// with one bit that shows.
func TestUDPCaptureCheckCanFail(t *testing.T) {
	var good, bit observer
	for i := range 4000 {
		b := make([]byte, 60+i%50)
		rand.Read(b) //nolint:errcheck // never fails
		good.add(true, 0, b)
		b[17] &^= 0x40 // a bit that is always zero
		bit.add(true, 0, b)
	}
	if j := good.judge(); len(j.far) > 0 || j.utp || math.Abs(j.mean-255) > 6*j.deviation {
		t.Errorf("random datagrams are objected to: %+v", j)
	}
	if j := bit.judge(); len(j.far) == 0 || !strings.Contains(strings.Join(j.far, ";"), "byte 17:") {
		t.Errorf("a bit that shows is not objected to: %+v", j)
	}
	clear := clearUTP(t)
	if j := clear.judge(); !j.utp || len(j.far) < 8 {
		t.Errorf("of %d datagrams of clear uTP %d are found, and %d positions objected to", clear.all, clear.utp, len(j.far))
	} else {
		t.Logf("clear uTP: %d of %d datagrams are found, %d positions objected to", clear.utp, clear.all, len(j.far))
	}
}

// clearUTP lets two sockets of libutp talk through the relay.
func clearUTP(t *testing.T) *observer {
	server, err := utp.NewSocket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close() //nolint:errcheck // the talk is over
	tap := newUDPRelay(t, crust.Endpoint{Transport: crust.UTP, Addr: server.Addr().(*net.UDPAddr).AddrPort()})
	dialler, err := utp.NewSocket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer dialler.Close() //nolint:errcheck // the talk is over
	noise := make([]byte, 4<<20)
	rand.Read(noise) //nolint:errcheck // never fails
	var wg sync.WaitGroup
	wg.Go(func() {
		c, err := server.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close() //nolint:errcheck // it has got everything
		if _, err := io.CopyN(io.Discard, c, int64(len(noise))); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := dialler.DialContext(ctx, "", tap.at().Addr.String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(noise); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	c.Close() //nolint:errcheck // said everything
	tap.stop()
	var o observer
	for _, f := range tap.tape {
		for _, b := range f.datagrams(true) {
			o.add(true, 0, b)
		}
		for _, b := range f.datagrams(false) {
			o.add(false, 0, b)
		}
	}
	return &o
}
