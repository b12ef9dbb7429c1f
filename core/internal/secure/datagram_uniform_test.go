package secure

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// samples is how many datagrams of each kind are looked at.
const samples = 2560

// chiLimit returns a bound that the chi-square statistic of samples bytes in 256
// bins exceeds with probability below p when they are uniform: Chernoff's bound
// for independent Poisson counts, which the condition on their sum makes at most
// sqrt(2 pi n) e^(1/12n) times likelier. Counts over 100 are set aside.
func chiLimit(p float64) float64 {
	const n, bins, most = samples, 256, 100
	mean := float64(n) / bins
	poisson := make([]float64, 300)
	poisson[0] = math.Exp(-mean)
	for k := 1; k < len(poisson); k++ {
		poisson[k] = poisson[k-1] * mean / float64(k)
	}
	rare := 0.0
	for _, q := range poisson[most+1:] {
		rare += q
	}
	condition := math.Sqrt(2*math.Pi*n) * math.Exp(1.0/(12*n))
	bound := func(x float64) float64 {
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

// crooked returns the positions at which the bytes of the datagrams are not
// uniform, counted from the front and, as negative numbers, from the end, as far
// as all of them reach.
func crooked(t *testing.T, datagrams [][]byte) (at []int) {
	t.Helper()
	if len(datagrams) != samples {
		t.Fatalf("%d datagrams, want %d", len(datagrams), samples)
	}
	shortest := len(slices.MinFunc(datagrams, func(a, b []byte) int { return len(a) - len(b) }))
	limit := chiLimit(1e-6 / 10000)
	for i := -shortest; i < shortest; i++ {
		var count [256]int
		for _, d := range datagrams {
			count[d[(i+len(d))%len(d)]]++
		}
		stat := 0.0
		for _, c := range count {
			d := float64(c) - samples/256
			stat += d * d / (samples / 256)
		}
		if stat > limit {
			at = append(at, i)
		}
	}
	return at
}

// TestDatagramsLookRandom: no position of any datagram, from the front or from
// the end, shows anything but uniform bytes.
func TestDatagramsLookRandom(t *testing.T) {
	e := newEnds(t, 3)
	e.a.Random, e.b.Random = deterministic(21), deterministic(22) // no chance of a chance failure
	e.a.Images, e.b.Images = new(Images), new(Images)
	crowded := NewResponder(ResponderConfig{Config: e.b, HeaderKey: e.keyB, Limit: 2})
	if _, err := crowded.Answer(nil, here, e.fresh(t), 0); err != nil {
		t.Fatal(err)
	}
	got := map[string][][]byte{}
	var x *Associated
	for n := range samples {
		i := e.initiator(t, e.b.Key.ID())
		offer := e.offer(t, i)
		f := flown(t, e.b.Network, offer)
		from := place(n)
		answer, err := e.responder.Answer(nil, from, f, 0)
		if err != nil {
			t.Fatal(err)
		}
		if flown(t, e.a.Network, answer).Type == FlightCookie {
			e.responder.Expire(defaultTimeout)
			answer, err = e.responder.Answer(nil, from, f, 0)
		}
		cookie, err2 := crowded.Answer(nil, here, f, 0)
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		if x, err = i.Answer(flown(t, e.a.Network, answer)); err != nil {
			t.Fatal(err)
		}
		finish, err := i.Finish(nil)
		if err != nil {
			t.Fatal(err)
		}
		first, _ := x.Box.Seal(nil, make([]byte, 200))
		for name, b := range map[string][]byte{"offers": offer, "answers": answer, "cookies": cookie, "finishes": finish, "first datagrams": first} {
			got[name] = append(got[name], b)
		}
		got["nonces of offers"] = append(got["nonces of offers"], offer[:wire.FlightNonce])
	}
	for range samples {
		d, _ := x.Box.Seal(nil, make([]byte, 200))
		got["datagrams of one association"] = append(got["datagrams of one association"], d)
	}
	for name, list := range got {
		if at := crooked(t, list); len(at) > 0 {
			t.Errorf("%s: not uniform at %v", name, at)
		}
	}
	unmasked(t, e, got["offers"], x)
}

// unmasked gives the check what it must object to.
func unmasked(t *testing.T, e *ends, offers [][]byte, x *Associated) {
	t.Helper()
	var clear, headers [][]byte
	for i, b := range offers {
		f := flown(t, e.b.Network, b)
		clear = append(clear, f.Append(bytes.Clone(b[:wire.FlightNonce]), len(b)-wire.FlightOverhead-len(f.Noise)))
		d, _ := x.Box.Seal(nil, make([]byte, 50))
		var header [wire.HeaderBlock]byte
		wire.PutSealedHeader(&header, x.Box.seal.cid, uint64(i))
		headers = append(headers, append(header[:], d[wire.HeaderBlock:]...))
	}
	const head = wire.FlightNonce
	at := crooked(t, clear)
	for _, want := range []int{head, head + 9, head + 25, head + 26, head + 27 + 31, -1} { // type, cookie, length, top of the point, padding
		if !slices.Contains(at, want) {
			t.Errorf("offers in clear pass at %d", want)
		}
	}
	at = crooked(t, headers)
	for i := range wire.HeaderBlock - 1 { // the last byte of a counter is uniform
		if !slices.Contains(at, i) {
			t.Errorf("headers in clear pass at %d", i)
		}
	}
	if slices.Contains(at, wire.HeaderBlock) {
		t.Error("the check objects to ciphertext")
	}
}

// Of all lengths that a flight may have every one comes, about equally often.
func TestFlightLengthsOfDatagramsSpread(t *testing.T) {
	e := newEnds(t, 1)
	e.a.Random, e.b.Random = deterministic(31), deterministic(32)
	i := e.initiator(t, e.b.Key.ID())
	full := e.fresh(t)
	full.size = wire.MaxDatagramFlight
	lengths := map[string]map[int]int{}
	const throws = 20000
	count := func(name string, b []byte, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if lengths[name] == nil {
			lengths[name] = map[int]int{}
		}
		lengths[name][len(b)]++
	}
	crowded := NewResponder(ResponderConfig{Config: e.b, HeaderKey: e.keyB, Limit: 2})
	if _, err := crowded.Answer(nil, here, e.fresh(t), 0); err != nil {
		t.Fatal(err)
	}
	x, err := e.responder.Answer(nil, here, full, 0)
	if err != nil {
		t.Fatal(err)
	}
	need := map[string]int{"answers": wire.FlightOverhead + len(flown(t, e.a.Network, x).Noise), "offers": wire.MinOffer, "cookies": wire.FlightOverhead}
	for range throws {
		b, err := i.Offer(nil)
		count("offers", b, err)
		b, err = e.responder.Answer(nil, here, full, 0)
		count("answers", b, err)
		b, err = crowded.Answer(nil, place(1), full, 0)
		count("cookies", b, err)
	}
	if _, err := i.Answer(flown(t, e.a.Network, e.answer(t, e.offer(t, i)))); err != nil {
		t.Fatal(err)
	}
	need["finishes"] = wire.FlightOverhead + len(i.finish)
	for range throws {
		b, err := i.Finish(nil)
		count("finishes", b, err)
	}
	for name, seen := range lengths {
		span := spread
		if name == "offers" {
			span = wire.MaxDatagramFlight - wire.MinOffer + 1
		}
		for n := need[name]; n < need[name]+span; n++ {
			if c := seen[n]; c == 0 || c > 4*throws/span {
				t.Errorf("%s: %d of %d bytes among %d", name, c, n, throws)
			}
			delete(seen, n)
		}
		if len(seen) > 0 {
			t.Errorf("%s: lengths out of bounds: %v", name, seen)
		}
	}
}

// Two handshakes of the same two peers have nothing in common that shows.
func TestHandshakesShareNoBytes(t *testing.T) {
	e := newEnds(t, 3)
	parts := map[string]string{}
	for n := range 20 {
		i := e.initiator(t, identity.PeerID{})
		offer := e.offer(t, i)
		answer, err := e.responder.Answer(nil, place(n), flown(t, e.b.Network, offer), 0)
		if err != nil {
			t.Fatal(err)
		}
		x, err := i.Answer(flown(t, e.a.Network, answer))
		if err != nil {
			t.Fatal(err)
		}
		finish, err := i.Finish(nil)
		if err != nil {
			t.Fatal(err)
		}
		first, _ := x.Box.Seal(nil, make([]byte, 100))
		for name, b := range map[string][]byte{"offer": offer, "answer": answer, "finish": finish, "first datagram": first} {
			for at := range len(b) - 7 {
				where := fmt.Sprintf("%s %d at %d", name, n, at)
				if old, ok := parts[string(b[at:at+8])]; ok {
					t.Fatalf("%s repeats 8 bytes of %s", where, old)
				}
				parts[string(b[at:at+8])] = where
			}
		}
	}
}
