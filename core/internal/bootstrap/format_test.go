package bootstrap

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/endpoint"
)

var update = flag.Bool("update", false, "write testdata anew")

// golden is the file of testdata/golden.txt: three slots; the second peer was
// reached twice, the third removed.
func golden(t testing.TB) []byte {
	path := place(t)
	c := opened(t, path, Options{Peers: 3})
	for _, k := range []Contact{
		{Peer: id(1), At: at(1), Told: []endpoint.Endpoint{at(1), endpoint.New(endpoint.UTP, netip.MustParseAddrPort("[2001:db8::1]:40000"))}, Flags: 1, Record: []byte("a signed record")},
		{Peer: id(2), At: at(2), Role: 1},
		{Peer: id(3), At: at(3)},
	} {
		if err := c.Reached(start, k); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Reached(start.Add(time.Second), contact(2)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Failed(start.Add(time.Minute), id(1)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Remove(id(3)); err != nil {
		t.Fatal(err)
	}
	c.Close()
	return readFile(t, path)
}

// dump writes down all bytes of a file that are not zero, in lines of 16.
func dump(b []byte) string {
	var out strings.Builder
	fmt.Fprintf(&out, "%d bytes; lines of zeros are left out\n", len(b))
	for i := 0; i < len(b); i += 16 {
		if line := b[i:min(i+16, len(b))]; !zeros(line) {
			fmt.Fprintf(&out, "%05x  %s\n", i, hex.EncodeToString(line))
		}
	}
	return out.String()
}

func TestGoldenFile(t *testing.T) {
	name := filepath.Join("testdata", "golden.txt")
	got := dump(golden(t))
	if *update {
		writeFile(t, name, []byte(got))
	}
	if wanted := string(readFile(t, name)); got != wanted {
		t.Fatalf("the form of the file has changed:\n%s", got)
	}
}

// The vector of RFC 3720, appendix B.4, so that nobody has to guess which CRC it is.
func TestChecksumIsCRC32C(t *testing.T) {
	if got := checksum([]byte("123456789")); got != 0xe3069283 {
		t.Errorf("%08x", got)
	}
}

// randomEntry returns an entry with a bit of everything.
func randomEntry(r *rand.Rand, seq uint64) *Entry {
	e := &Entry{Role: uint8(r.IntN(256)), Flags: uint8(r.IntN(256)), Failures: r.IntN(3), Success: start.Add(time.Duration(r.IntN(1e6)) * time.Millisecond)}
	for i := range e.Peer {
		e.Peer[i] = byte(r.IntN(256))
	}
	e.order = 1 + r.Uint64N(seq)
	if e.Failures > 0 {
		e.failed, e.Failure = 1+r.Uint64N(seq), start
	}
	for range r.IntN(MaxEndpoints + 1) {
		addr := netip.AddrFrom4([4]byte{192, 0, 2, byte(r.IntN(256))})
		if r.IntN(2) == 0 {
			addr = netip.AddrFrom16([16]byte{0x20, 1, 15: byte(r.IntN(256))})
		}
		e.Endpoints = append(e.Endpoints, Known{Endpoint: endpoint.New(endpoint.Transport(1+r.IntN(3)), netip.AddrPortFrom(addr, uint16(r.IntN(65536))))})
	}
	if n := r.IntN(MaxRecord + 1); n > 0 {
		e.Record = bytes.Repeat([]byte{byte(n)}, n)
	}
	return e
}

func TestSlotsComeBackAndNothingElseDoes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		seq := 1 + r.Uint64N(maxSeq)
		e := randomEntry(r, seq)
		if r.IntN(10) == 0 {
			e = nil
		}
		b := appendSlot(nil, seq, e)
		if len(b) != slotSize {
			t.Fatalf("%d bytes", len(b))
		}
		gotSeq, got, err := parseSlot(b)
		if err != nil || gotSeq != seq || !reflect.DeepEqual(got, e) {
			t.Fatalf("%d %+v %v\nwant %d %+v", gotSeq, got, err, seq, e)
		}
		for range 20 {
			bad := bytes.Clone(b)
			bad[r.IntN(slotSize)] ^= 1 << r.IntN(8)
			if _, _, err := parseSlot(bad); err == nil {
				t.Fatal("one wrong bit was not noticed")
			}
		}
	}
}

// What a checksum cannot notice: bytes that somebody has written so.
func TestSlotsThatMakeNoSenseAreRefused(t *testing.T) {
	good := &Entry{Peer: id(1), Endpoints: []Known{{at(1), start}}, Success: start, order: 5}
	write := func(change func(b []byte)) []byte {
		b := appendSlot(nil, 7, good)
		change(b)
		return appendCheck(b[:slotCheck], 0)
	}
	for what, change := range map[string]func(b []byte){
		"number":           func(b []byte) { b[1] = 1 },
		"unknown (2)":      func(b []byte) { b[8] = 2 },
		"unknown (0)":      func(b []byte) { b[8] = 0 },
		"9 endpoints":      func(b []byte) { b[11] = 9 },
		"record of 913":    func(b []byte) { b[14], b[15] = 913>>8, 913&0xff },
		"numbers or":       func(b []byte) { clear(b[16:24]) },
		"numbers or t":     func(b []byte) { b[23] = 8 },
		"numbers or ti":    func(b []byte) { b[31] = 8 },
		"numbers or tim":   func(b []byte) { clear(b[32:40]) },
		"numbers or time":  func(b []byte) { b[32] = 1 },
		"numbers or times": func(b []byte) { b[40] = 1 },
		"names no peer":    func(b []byte) { clear(b[48:80]) },
		"5 bytes":          func(b []byte) { b[81] = 5 },
		"address of 4":     func(b []byte) { b[99] = 1 },
		"time of an":       func(b []byte) { b[100] = 1 },
		"after its end":    func(b []byte) { b[1019] = 1 },
	} {
		if _, _, err := parseSlot(write(change)); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, _, err := parseSlot(append(make([]byte, slotSize-1), 1)); err == nil {
		t.Error("a slot without a number that is not empty")
	}
	if _, e, err := parseSlot(write(func(b []byte) { b[80] = 200 })); err != nil || len(e.Endpoints) != 0 {
		t.Errorf("an endpoint of an unknown transport: %+v %v", e, err)
	}
}

func TestHeaders(t *testing.T) {
	for _, count := range []int{1, 200, MaxPeers} {
		h := header{count: count}
		b := h.append(nil)
		if got, err := parseHeader(b); err != nil || got != h || len(b) != headerSize {
			t.Fatalf("%+v %v", got, err)
		}
		for n := range b {
			if _, err := parseHeader(b[:n]); !errors.Is(err, errForeign) {
				t.Fatalf("%d bytes: %v", n, err)
			}
			for bit := range 8 {
				bad := bytes.Clone(b)
				bad[n] ^= 1 << bit
				if _, err := parseHeader(bad); err == nil {
					t.Fatalf("bit %d of byte %d was not noticed", bit, n)
				}
			}
		}
	}
	seal := func(change func(b []byte)) error {
		b := header{count: 200}.append(nil)
		change(b)
		_, err := parseHeader(appendCheck(b[:28], 0))
		return err
	}
	var newer newerError
	if err := seal(func(b []byte) { b[9] = 2 }); !errors.As(err, &newer) || newer.version != 2 {
		t.Error(err)
	}
	for what, change := range map[string]func(b []byte){
		"version 0":    func(b []byte) { b[9] = 0 },
		"slot size":    func(b []byte) { b[15] = 1 },
		"no slots":     func(b []byte) { clear(b[16:20]) },
		"65537 slots":  func(b []byte) { b[17], b[18], b[19] = 1, 0, 1 },
		"2^32-1 slots": func(b []byte) { copy(b[16:20], "\xff\xff\xff\xff") },
	} {
		if err := seal(change); err == nil {
			t.Errorf("%s was taken", what)
		}
	}
}

// The copies of a slot are in different blocks of the disk, and nothing overlaps.
func TestLayout(t *testing.T) {
	for _, count := range []int{1, 3, 4, 5, 200, MaxPeers} {
		h := header{count: count}
		if h.size() > 2*blockSize+2*64<<20 || h.size()%blockSize != 0 {
			t.Fatalf("%d slots take %d bytes", count, h.size())
		}
		for _, i := range []int{0, count / 2, count - 1} {
			first, second := h.at(i, 0), h.at(i, 1)
			if first < 2*blockSize || first+slotSize > h.at(0, 1) || second+slotSize > h.size() || first/blockSize == second/blockSize || first%slotSize != 0 {
				t.Fatalf("slot %d of %d is at %d and %d", i, count, first, second)
			}
		}
	}
}

func TestEndpointsWithoutAPlaceAreLeftOut(t *testing.T) {
	zone := endpoint.New(endpoint.TCP, netip.MustParseAddrPort("[fe80::1%eth0]:1"))
	got := merge(nil, at(1), []endpoint.Endpoint{zone, {}, at(1), at(2)}, start)
	if wanted := []Known{{at(1), start}, {at(2), time.Time{}}}; !reflect.DeepEqual(got, wanted) {
		t.Fatalf("%v", got)
	}
}

func TestTimesAreWithinBounds(t *testing.T) {
	for _, when := range []time.Time{time.Unix(-5, 0), time.Unix(1<<40, 0), {}} {
		b := appendSlot(nil, 1, &Entry{Peer: identity.PeerID{1}, Success: start, Failure: when, order: 1})
		if _, _, err := parseSlot(b); err != nil {
			t.Errorf("%v: %v", when, err)
		}
	}
}
