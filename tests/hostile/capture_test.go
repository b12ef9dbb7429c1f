package hostile

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"

	"github.com/flynn/noise"
	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/identity"
)

const (
	conversations = 1000
	positions     = 512
)

// threshold returns a bound that the statistic of one position exceeds with
// probability below p when the bytes are uniform. It is no approximation: the n
// bytes fall into 256 bins as independent Poisson counts do that happen to sum
// up to n, which makes any event at most sqrt(2 pi n) e^(1/12n) times likelier;
// for independent counts Chernoff's bound holds, with counts over 60 set aside.
func threshold(n int, p float64) float64 {
	const bins, most = 256, 60
	mean := float64(n) / bins
	poisson := make([]float64, 200)
	poisson[0] = math.Exp(-mean)
	for k := 1; k < len(poisson); k++ {
		poisson[k] = poisson[k-1] * mean / float64(k)
	}
	rare := 0.0
	for _, q := range poisson[most+1:] {
		rare += q
	}
	condition := math.Sqrt(2*math.Pi*float64(n)) * math.Exp(1/(12*float64(n)))
	bound := func(x float64) float64 { // of P(sum of (count - mean)^2 / mean >= x)
		best := math.Inf(1)
		for s := 0.01; s < 0.5; s += 0.005 {
			e := 0.0
			for k, q := range poisson[:most+1] {
				d := float64(k) - mean
				e += q * math.Exp(s*d*d/mean)
			}
			best = min(best, bins*math.Log(e)-s*x)
		}
		return condition * (math.Exp(best) + bins*rare)
	}
	low, high := 255.0, 10000.0
	for high-low > 0.01 {
		if mid := (low + high) / 2; bound(mid) > p {
			low = mid
		} else {
			high = mid
		}
	}
	return high
}

// chiSquare returns the statistic of each position over all samples, each of
// which must be long enough.
func chiSquare(t *testing.T, samples [][]byte) []float64 {
	t.Helper()
	out := make([]float64, positions)
	mean := float64(len(samples)) / 256
	for i := range out {
		var count [256]int
		for _, s := range samples {
			if len(s) < positions {
				t.Fatalf("a conversation of %d bytes one way is too short to be judged", len(s))
			}
			count[s[i]]++
		}
		for _, c := range count {
			d := float64(c) - mean
			out[i] += d * d / mean
		}
	}
	return out
}

// tooFar returns the positions whose statistic is over the threshold.
func tooFar(stats []float64, limit float64) (list []int) {
	for i, x := range stats {
		if x > limit {
			list = append(list, i)
		}
	}
	return list
}

// secrets are what must never be seen on the way.
func secrets(words map[string][]byte) map[string][]byte {
	all := map[string][]byte{}
	for name, w := range words {
		all[name] = w
		all[name+" in hexadecimal"] = []byte(hex.EncodeToString(w))
		all[name+" in capital hexadecimal"] = []byte(strings.ToUpper(hex.EncodeToString(w)))
	}
	return all
}

// found returns the names of the secrets that tape contains, or 16 bytes of
// them in a row.
func found(tape []byte, secrets map[string][]byte) (names []string) {
	for name, s := range secrets {
		for at := 0; at+16 <= max(len(s), 16); at++ {
			if bytes.Contains(tape, s[at:min(at+16, len(s))]) {
				names = append(names, name)
				break
			}
		}
	}
	return names
}

// TestCaptureLooksRandom records 1,000 whole conversations and looks at them as
// somebody does who does not know the network name.
func TestCaptureLooksRandom(t *testing.T) {
	const network, plain = "a network of our own", "the quick brown fox jumps over the lazy dog; "
	appID := []byte("application number one")
	server := start(t, crust.Config{NetworkName: network, AppID: appID})
	tap := newRelay(t, server.at())
	words := map[string][]byte{
		"the network name": []byte(network), "the app id": appID, "the plaintext": []byte(plain), "the server's id": idBytes(server.ID()),
		"the prologue": []byte("libcrust/1"),
	}
	text := []byte(strings.Repeat(plain, 20))

	// Some conversations of each identity, so that an identity would repeat.
	const clients = 4
	var wg sync.WaitGroup
	got := make([]chan crust.Event, clients)
	index := map[crust.PeerID]int{}
	nodes := make([]*node, clients)
	for k := range nodes {
		key, err := identity.Generate()
		if err != nil {
			t.Fatal(err)
		}
		nodes[k] = start(t, crust.Config{NetworkName: network, AppID: appID, Identity: key, NoListen: true})
		got[k] = make(chan crust.Event, 16)
		index[key.ID()] = k
		words[fmt.Sprintf("the id of client %d", k)] = idBytes(key.ID())
		static, err := key.ID().Curve25519()
		if err != nil {
			t.Fatal(err)
		}
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
	for k, n := range nodes {
		wg.Go(func() {
			for i := range conversations / clients {
				if err := converse(n, server, got[k], tap.at(), uint64(i+1), text); err != nil {
					t.Errorf("client %d, conversation %d: %v", k, i, err)
					return
				}
			}
		})
	}
	wg.Wait()
	close(stop)
	router.Wait()
	if t.Failed() {
		return
	}
	judge(t, tap, secrets(words))
}

func idBytes(id crust.PeerID) []byte { return id[:] }

// converse is one conversation: connect, a message each way, disconnect.
func converse(n, server *node, got chan crust.Event, at crust.Endpoint, token uint64, text []byte) error {
	if _, err := n.connect(at, server.ID(), token); err != nil {
		return err
	}
	if err := n.Send(server.ID(), text, 0); err != nil {
		return err
	}
	if e := <-got; e.Type != crust.EventMessage || !bytes.Equal(e.Data, text) {
		return fmt.Errorf("the server got %v of %d bytes", e.Type, len(e.Data))
	}
	if err := server.Send(n.ID(), text, 0); err != nil {
		return err
	}
	e, err := n.next(of(crust.EventMessage, server.ID()))
	if err != nil || !bytes.Equal(e.Data, text) {
		return fmt.Errorf("the client got %d bytes, %w", len(e.Data), err)
	}
	if err := n.Disconnect(server.ID()); err != nil {
		return err
	}
	if _, err := n.next(of(crust.EventLost, server.ID())); err != nil {
		return err
	}
	if e := <-got; e.Type != crust.EventLost {
		return fmt.Errorf("the server saw %v instead of the end", e.Type)
	}
	return nil
}

// judge is the observer's view of the tape.
func judge(t *testing.T, tap *relay, hidden map[string][]byte) {
	t.Helper()
	tap.ln.Close() //nolint:errcheck // no more conversations
	tap.wg.Wait()
	if len(tap.tape) != conversations {
		t.Fatalf("%d conversations on the tape", len(tap.tape))
	}
	limit := threshold(conversations, 1e-6/(2*positions))
	var out, in, all [][]byte
	firsts, seconds := map[int]int{}, map[int]int{}
	for _, rec := range tap.tape {
		out, in = append(out, rec.out), append(in, rec.in)
		all = append(all, rec.out, rec.in)
		firsts[rec.first]++
		seconds[rec.second]++
	}
	for name, samples := range map[string][][]byte{"to the responder": out, "to the initiator": in} {
		stats := chiSquare(t, samples)
		if far := tooFar(stats, limit); len(far) > 0 {
			t.Errorf("%s, the bytes at %v are not uniform: the first gives %.0f, over %.0f", name, far, stats[far[0]], limit)
		}
		mean := 0.0
		for _, x := range stats {
			mean += x / positions
		}
		t.Logf("%s: chi square of 255 degrees at %d positions: mean %.1f, most %.1f, limit %.1f", name, positions, mean, maxOf(stats), limit)
		// The mean of 512 statistics has a deviation of about 1: a bias too small
		// for any one position shows here.
		if math.Abs(mean-255) > 8 {
			t.Errorf("%s, the mean statistic is %.1f, want about 255", name, mean)
		}
	}
	if names := found(bytes.Join(all, nil), hidden); len(names) > 0 {
		t.Errorf("the tape shows %s", strings.Join(names, ", "))
	}
	for name, lengths := range map[string]map[int]int{"first": firsts, "second": seconds} {
		shortest, longest, most := 1<<30, 0, 0
		for n, c := range lengths {
			shortest, longest, most = min(shortest, n), max(longest, n), max(most, c)
		}
		t.Logf("the %s flights have %d lengths, from %d to %d; %d are equal at most", name, len(lengths), shortest, longest, most)
		// 1,000 throws at 256 lengths hit about 251 of them, each about 4 times.
		if len(lengths) < 230 || longest-shortest < 240 || most > 25 {
			t.Errorf("the lengths of the %s flights do not spread", name)
		}
	}
}

func maxOf(list []float64) (most float64) {
	for _, x := range list {
		most = max(most, x)
	}
	return most
}

// TestCaptureCheckCanFail gives the observer what it must object to: the same
// handshake without the mask, and with no more than the top bit of the curve
// point showing.
func TestCaptureCheckCanFail(t *testing.T) {
	limit := threshold(conversations, 1e-6/(2*positions))
	var bare, points [][]byte
	for range conversations {
		state, err := noise.NewHandshakeState(noise.Config{
			CipherSuite: noise.NewCipherSuite(noise.DH25519, noise.CipherChaChaPoly, noise.HashBLAKE2b),
			Pattern:     noise.HandshakeXX, Initiator: true, PresharedKey: make([]byte, 32),
		})
		if err != nil {
			t.Fatal(err)
		}
		message, _, _, err := state.WriteMessage(nil, []byte{1, 0, 1, 1})
		if err != nil {
			t.Fatal(err)
		}
		filler := make([]byte, positions)
		if _, err := rand.Read(filler); err != nil {
			t.Fatal(err)
		}
		bare = append(bare, append(append([]byte{0, 52, 0, 0}, message...), filler...))
		points = append(points, append(message[:32:32], filler...))
	}
	if far := tooFar(chiSquare(t, bare), limit); len(far) != 5 || far[0] != 0 || far[4] != 35 {
		t.Errorf("a handshake in clear is objected to at %v, want the four bytes of the lengths and the last of the point", far)
	}
	if far := tooFar(chiSquare(t, points), limit); len(far) != 1 || far[0] != 31 {
		t.Errorf("the top bit of a curve point is objected to at %v, want only at 31", far)
	}
	hidden := secrets(map[string][]byte{"a word": []byte("0123456789abcdefghij"), "a name": []byte("short")})
	for text, want := range map[string]int{
		"..0123456789abcdefghij..": 1, "..3456789abcdefghi..": 1, "30313233343536373839616263646566": 1,
		"303132333435363738396162636465666768696A": 1, "..short..": 1, "..shor..": 0, "..0123456789abcde..": 0,
	} {
		if got := found([]byte(text), hidden); len(got) < want || want == 0 && len(got) > 0 {
			t.Errorf("in %q was found %v", text, got)
		}
	}
}

// The threshold is not so high that it forgives everything.
func TestThresholdIsSharp(t *testing.T) {
	if x := threshold(conversations, 1e-6/(2*positions)); x < 350 || x > 560 {
		t.Errorf("the threshold for 255 degrees of freedom is %.1f", x)
	}
}
