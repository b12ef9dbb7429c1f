package netio

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/net/bpf"

	"github.com/libcrust/libcrust/core/internal/ban"
)

// machine returns a machine, of the people who keep Go, that runs the program of a sieve
// for packets that begin with their IP header.
func machine(t *testing.T, s *Sieve) *bpf.VM {
	t.Helper()
	if len(s.program) > maxProgram {
		t.Fatalf("%d instructions", len(s.program))
	}
	var raw []bpf.RawInstruction
	for _, i := range s.program {
		if i.code == bpfLoadWord || i.code == bpfLoadByte {
			i.k -= ipHeader
		}
		raw = append(raw, bpf.RawInstruction{Op: i.code, Jt: i.jt, Jf: i.jf, K: i.k})
	}
	program, all := bpf.Disassemble(raw)
	if !all {
		t.Fatal("an instruction is not known")
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

// drops reports whether a packet from an address is dropped.
func drops(t *testing.T, vm *bpf.VM, from netip.Addr) bool {
	t.Helper()
	packet := make([]byte, 60)
	if from.Is4() {
		packet[0] = 0x45
		copy(packet[12:], from.AsSlice())
	} else {
		packet[0] = 0x60
		copy(packet[8:], from.AsSlice())
	}
	n, err := vm.Run(packet)
	if err != nil {
		t.Fatal(err)
	}
	// All of it is a number of 32 bits, which an int may take for a negative one.
	if n != 0 && uint32(n) < uint32(len(packet)) {
		t.Fatalf("%d bytes are kept of a packet", n)
	}
	return n == 0
}

// TestSieveIsTheBlacklist compares the program with the blacklist, for random prefixes of
// all lengths, near to each other and far, and for addresses in them, beside them and
// anywhere.
func TestSieveIsTheBlacklist(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 1))
	now := time.Now()
	var dropped, kept int
	for round := range 300 {
		var entries []ban.Entry
		var prefixes []netip.Prefix
		for range r.IntN(60) * (1 + round%8) {
			p := randomPrefix(r)
			prefixes = append(prefixes, p)
			entries = append(entries, ban.Entry{Prefix: p})
		}
		s := NewSieve(prefixes)
		set := ban.Set{Max: len(entries)}
		if err := set.Add(now, entries[:s.Len()]); err != nil {
			t.Fatal(err)
		}
		vm := machine(t, s)
		for range 300 {
			a := randomAddr(r)
			if len(prefixes) > 0 && r.IntN(4) > 0 {
				a = near(r, prefixes[r.IntN(len(prefixes))])
			}
			_, banned := set.Addr(now, a)
			if got := drops(t, vm, a); got != banned {
				t.Fatalf("seed %d: %v is dropped: %v, banned: %v, of %v", seed, a, got, banned, prefixes)
			}
			if banned {
				dropped++
			} else {
				kept++
			}
		}
	}
	if dropped < 1000 || kept < 1000 {
		t.Errorf("only %d were dropped and %d kept", dropped, kept)
	}
}

func randomPrefix(r *rand.Rand) netip.Prefix {
	a := randomAddr(r)
	bits := a.BitLen() - r.IntN(1+r.IntN(a.BitLen()+1))
	return netip.PrefixFrom(a, bits).Masked()
}

// randomAddr is one of few or one of all.
func randomAddr(r *rand.Rand) netip.Addr {
	var b [16]byte
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	few := r.IntN(3)
	if r.IntN(2) == 0 {
		if few > 0 {
			copy(b[:], []byte{192, 0, byte(2 * few)})
		}
		return netip.AddrFrom4([4]byte(b[:]))
	}
	if few > 0 {
		copy(b[:], []byte{0x20, 1, 0xd, 0xb8, 0, 0, byte(few)})
	}
	return netip.AddrFrom16(b) // in IPv4's clothes none comes: 80 bits would be zero
}

// near is an address at the edge of a prefix, within it or beside it.
func near(r *rand.Rand, p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	if r.IntN(2) == 0 { // its last
		for i := p.Bits(); i < 8*len(b); i++ {
			b[i/8] |= 0x80 >> (i % 8)
		}
	}
	a, _ := netip.AddrFromSlice(b)
	switch other := a; r.IntN(3) {
	case 0:
		other = a.Next()
		fallthrough
	case 1:
		if other == a {
			other = a.Prev()
		}
		if other.IsValid() {
			return other
		}
	}
	return a
}

// TestSieveIsBounded: what there is no room for is left out, the first are in it, and
// what is no packet of IP is kept.
func TestSieveIsBounded(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for name, c := range map[string]struct {
		one   func() netip.Prefix
		least int
	}{
		"IPv4": {func() netip.Prefix {
			return netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32())}), 32)
		}, 3300},
		"a /64 each": {func() netip.Prefix {
			return netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32())}), 64)
		}, 600},
		"a /24": {func() netip.Prefix {
			return netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(r.Uint32())}), 32)
		}, 10_000},
	} {
		var prefixes []netip.Prefix
		for range 10_000 {
			prefixes = append(prefixes, c.one())
		}
		began := time.Now()
		s := NewSieve(prefixes)
		t.Logf("%s: %d of %d prefixes in %d instructions, made in %v", name, s.Len(), len(prefixes), len(s.program), time.Since(began))
		if s.Len() < c.least {
			t.Errorf("%s: only %d are taken", name, s.Len())
		}
		vm := machine(t, s)
		for _, p := range prefixes[:s.Len()] {
			if !drops(t, vm, p.Addr()) {
				t.Fatalf("%s: %v is not dropped", name, p)
			}
		}
		if drops(t, vm, netip.MustParseAddr("127.0.0.1")) || drops(t, vm, netip.MustParseAddr("::1")) {
			t.Errorf("%s: an innocent is dropped", name)
		}
		if n, err := vm.Run(make([]byte, 60)); uint32(n) < 60 || err != nil {
			t.Errorf("%s: of what is no packet of IP %d bytes are kept, %v", name, n, err)
		}
	}
}
