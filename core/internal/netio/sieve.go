package netio

import (
	"errors"
	"math"
	"net/netip"
	"slices"
)

// Sieve has the kernel drop what comes to sockets from some addresses, before it costs a
// connection, a copy or a system call. It is a program of classic BPF, which the kernel
// runs for each packet to a socket: for each datagram of UDP, and to a listener of TCP for
// what is to become a connection. It drops nobody else, and needs no privilege. A Sieve is
// constant, and may be used from any goroutine.
type Sieve struct {
	prefixes []netip.Prefix
	program  []instruction
}

// instruction is struct sock_filter of <linux/filter.h>. Jumps count from the next one.
type instruction struct {
	code   uint16
	jt, jf uint8
	k      uint32
}

// What is used of <linux/filter.h> and <linux/bpf_common.h>.
const (
	bpfLoadWord     = 0x20 // BPF_LD | BPF_W | BPF_ABS: A = four bytes at k, the first is the highest
	bpfLoadByte     = 0x30 // BPF_LD | BPF_B | BPF_ABS
	bpfShiftRight   = 0x74 // BPF_ALU | BPF_RSH | BPF_K
	bpfJump         = 0x05 // BPF_JMP | BPF_JA: by k
	bpfEqual        = 0x15 // BPF_JMP | BPF_JEQ | BPF_K
	bpfGreater      = 0x25 // BPF_JMP | BPF_JGT | BPF_K
	bpfGreaterEqual = 0x35 // BPF_JMP | BPF_JGE | BPF_K
	bpfReturn       = 0x06 // BPF_RET | BPF_K: how many bytes of the packet are kept

	// ipHeader is SKF_NET_OFF, where the IP header begins. 12 and 8 bytes behind are the
	// sources of IPv4 and IPv6.
	ipHeader = 0xfff00000
	source4  = ipHeader + 12
	source6  = ipHeader + 8

	// maxProgram is BPF_MAXINSNS.
	maxProgram = 4096
)

// leafItems is up to how many ranges are tried one after the other: the jumps of twice as
// many instructions reach over them.
const leafItems = 16

// NewSieve returns a sieve for prefixes, which are those of IPv4 or of IPv6, without the
// bits behind them. There is room for some 3,300 single addresses of IPv4, for 600 /64
// that have nothing in common, and for as many prefixes of neighbours as one likes: the
// first that fit are taken.
func NewSieve(prefixes []netip.Prefix) *Sieve { return newSieve(prefixes, maxProgram) }

func newSieve(prefixes []netip.Prefix, limit int) *Sieve {
	s := &Sieve{prefixes: prefixes}
	for {
		s.program = compile(s.prefixes)
		if len(s.program) <= limit {
			return s
		}
		n := len(s.prefixes)
		s.prefixes = s.prefixes[:min(n-1-n/64, n*limit/len(s.program))]
	}
}

// Len returns how many prefixes were taken.
func (s *Sieve) Len() int { return len(s.prefixes) }

// filtered is a socket that takes a filter. It gives its descriptor, and sees to it that
// connections that it accepts do not inherit what was done to it.
type filtered interface {
	Filter(set func(fd uintptr) error) error
}

// CanSieve reports whether a listener or PacketConn may take a Sieve.
func CanSieve(socket any) bool {
	_, ok := socket.(filtered)
	return ok && sieves
}

// Put puts the sieve into a listener or a PacketConn, in the place of the one before it. A
// sieve for nobody is taken out instead. Where the system has less room for a program, it
// is put in with fewer prefixes, which are the first. After an error there is no sieve in
// the socket; it is errors.ErrUnsupported, wrapped, where there is no such thing.
func (s *Sieve) Put(socket any) error {
	f, ok := socket.(filtered)
	if !ok || !sieves {
		return errors.ErrUnsupported
	}
	for len(s.prefixes) > 0 {
		err := f.Filter(func(fd uintptr) error { return attach(fd, s.program) })
		if err == nil {
			return nil
		}
		if !noRoom(err) {
			return errors.Join(err, unsieve(f))
		}
		s = newSieve(s.prefixes[:len(s.prefixes)/2], maxProgram)
	}
	return unsieve(f)
}

// unsieve takes a sieve out. Where one can be put in and not be taken out, as in emulators,
// one that drops nothing is put in instead.
func unsieve(f filtered) error {
	err := f.Filter(detach)
	if err != nil && f.Filter(func(fd uintptr) error { return attach(fd, []instruction{keep}) }) == nil {
		return nil
	}
	return err
}

// block is a prefix as four words, of which IPv4 has one.
type block struct {
	words [4]uint32
	bits  int
}

// compile returns a program that keeps all of a packet, or nothing when its source is in
// one of the prefixes.
func compile(prefixes []netip.Prefix) []instruction {
	sorted := slices.Clone(prefixes)
	slices.SortFunc(sorted, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	var four, six []block
	var last netip.Prefix
	for _, p := range sorted {
		if last.IsValid() && last.Bits() <= p.Bits() && last.Contains(p.Addr()) {
			continue
		}
		last = p
		if b := blockOf(p); p.Addr().Is4() {
			four = append(four, b)
		} else {
			six = append(six, b)
		}
	}
	codeFour, codeSix := compileWord(four, 0, source4), compileWord(six, 0, source6)
	program := []instruction{
		{code: bpfLoadByte, k: ipHeader},
		{code: bpfShiftRight, k: 4},
		{code: bpfEqual, k: 4, jf: 1},
		{code: bpfJump, k: uint32(2 + len(codeSix))}, //nolint:gosec // it is short
		{code: bpfEqual, k: 6, jt: 1},
		keep,
	}
	return append(append(program, codeSix...), codeFour...)
}

var (
	keep = instruction{code: bpfReturn, k: math.MaxUint32}
	drop = instruction{code: bpfReturn}
)

func blockOf(p netip.Prefix) (b block) {
	b.bits = p.Bits()
	for i, octet := range p.Addr().AsSlice() {
		b.words[i/4] = b.words[i/4]<<8 | uint32(octet)
	}
	return b
}

// item is a range of values of one word: what has one of them is dropped, or when rest
// has any depends on the words behind.
type item struct {
	low, high uint32
	rest      []block
}

// compileWord returns a program for blocks that are in order, apart from each other, and
// alike before a word, which is at an offset.
func compileWord(blocks []block, word int, at uint32) []instruction {
	if len(blocks) == 0 {
		return []instruction{keep}
	}
	var items []item
	for i, b := range blocks {
		v := b.words[word]
		last := len(items) - 1
		switch left := b.bits - 32*word; {
		case left > 32 && last >= 0 && items[last].rest != nil && items[last].low == v:
			items[last].rest = blocks[i-len(items[last].rest) : i+1]
		case left > 32:
			items = append(items, item{v, v, blocks[i : i+1]})
		default:
			high := v | uint32(uint64(math.MaxUint32)>>left)
			if last >= 0 && items[last].rest == nil && items[last].high+1 == v {
				items[last].high = high
			} else {
				items = append(items, item{low: v, high: high})
			}
		}
	}
	return append([]instruction{{code: bpfLoadWord, k: at + uint32(4*word)}}, compileTree(items, word, at)...) //nolint:gosec // of four words
}

// compileTree returns a program that finds out in which range the word is.
func compileTree(items []item, word int, at uint32) []instruction {
	if len(items) <= leafItems {
		return compileLeaf(items, word, at)
	}
	half := (len(items)/2 + leafItems - 1) / leafItems * leafItems // full leaves need least
	low, high := compileTree(items[:half], word, at), compileTree(items[half:], word, at)
	pivot := instruction{code: bpfGreater, k: items[half-1].high}
	var program []instruction
	if len(low) <= math.MaxUint8 {
		pivot.jt = uint8(len(low)) //nolint:gosec // it is at most that
		program = append(program, pivot)
	} else {
		pivot.jf = 1
		program = append(program, pivot, instruction{code: bpfJump, k: uint32(len(low))}) //nolint:gosec // it is short
	}
	return append(append(program, low...), high...)
}

// compileLeaf returns a program that tries a few ranges in order.
func compileLeaf(items []item, word int, at uint32) []instruction {
	if len(items) == 1 && items[0].rest != nil {
		return append([]instruction{{code: bpfEqual, k: items[0].low, jt: 1}, keep}, compileWord(items[0].rest, word+1, at)...)
	}
	tests := 0
	for _, i := range items {
		tests += i.tests()
	}
	var program, rest []instruction
	to := func(where int) uint8 { return uint8(where - len(program) - 1) } //nolint:gosec // from the next one, within the leaf
	toKeep, toDrop := tests, tests+1
	for _, i := range items {
		switch {
		case i.rest != nil:
			program = append(program, instruction{code: bpfEqual, k: i.low, jf: 1})
			program = append(program, instruction{code: bpfJump, k: uint32(tests + 2 + len(rest) - len(program) - 1)}) //nolint:gosec // it is short
			rest = append(rest, compileWord(i.rest, word+1, at)...)
		case i.low == i.high:
			program = append(program, instruction{code: bpfEqual, k: i.low, jt: to(toDrop)})
		default:
			program = append(program, instruction{code: bpfGreaterEqual, k: i.low, jf: to(toKeep)})
			program = append(program, instruction{code: bpfGreater, k: i.high, jf: to(toDrop)})
		}
	}
	return append(append(program, keep, drop), rest...)
}

// tests returns how many instructions try an item.
func (i *item) tests() int {
	if i.rest == nil && i.low == i.high {
		return 1
	}
	return 2
}
