package ban

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/libcrust/libcrust/core/identity"
)

var start = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func entry(t testing.TB, text string) Entry {
	t.Helper()
	e, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func addr(text string) netip.Addr { return netip.MustParseAddr(text) }

// TestParse: what is read is written the same, in one form.
func TestParse(t *testing.T) {
	id := strings.Repeat("ab", 32)
	for text, want := range map[string]string{
		id: id, "192.0.2.1": "192.0.2.1", "192.0.2.77/24": "192.0.2.0/24", "::ffff:192.0.2.1": "192.0.2.1", "::ffff:192.0.2.1/120": "192.0.2.0/24",
		"fe80::1%eth0": "fe80::1", "2001:DB8::1/32": "2001:db8::/32", "2001:db8::1/128": "2001:db8::1", "0.0.0.0/0": "0.0.0.0/0", "::/0": "::/0",
	} {
		e, err := Parse(text)
		if err != nil || e.Subject() != want {
			t.Errorf("%s: %s, %v", text, e.Subject(), err)
		}
		if again, err := Parse(e.Subject()); err != nil || again != e {
			t.Errorf("%s comes back as %v, %v", want, again, err)
		}
	}
	for _, text := range []string{"", "x", strings.Repeat("0", 64), strings.Repeat("g", 64), id[1:], "192.0.2.1/33", "192.0.2/24", "1.2.3.4:5", "::ffff:1.2.3.4/90", "fe80::1%eth0/64", "/", "tcp://1.2.3.4:5"} {
		if e, err := Parse(text); err == nil {
			t.Errorf("%q is read as %s", text, e.Subject())
		}
	}
	for _, e := range []Entry{{}, {Peer: identity.PeerID{1}, Prefix: netip.MustParsePrefix("1.0.0.0/8")}, {Peer: identity.PeerID{1}, Reason: strings.Repeat("x", MaxReason+1)}} {
		if _, err := e.Clean(); err == nil {
			t.Errorf("%v is taken", e)
		}
	}
}

// TestLookup: whoever an entry says is found, in any clothes, and nobody else.
func TestLookup(t *testing.T) {
	s := Set{Max: 100}
	list := []Entry{entry(t, strings.Repeat("ab", 32)), entry(t, "192.0.2.0/24"), entry(t, "198.51.100.7"), entry(t, "2001:db8::/32"), entry(t, "fe80::1")}
	for i := range list {
		list[i].Reason = fmt.Sprint("number ", i)
	}
	if err := s.Add(start, list); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"192.0.2.0": "number 1", "192.0.2.255": "number 1", "::ffff:192.0.2.9": "number 1", "192.0.3.0": "", "198.51.100.7": "number 2", "198.51.100.6": "",
		"2001:db8:ffff::1": "number 3", "2001:db9::": "", "fe80::1%eth0": "number 4", "fe80::2": "", "::c000:201": "",
	} {
		if e, ok := s.Addr(start, addr(text)); ok != (want != "") || e.Reason != want {
			t.Errorf("%s: %v %v", text, e, ok)
		}
	}
	if e, ok := s.Peer(start, list[0].Peer); !ok || e != list[0] {
		t.Error("the peer is not found")
	}
	if _, ok := s.Peer(start, identity.PeerID{1}); ok {
		t.Error("somebody else is found")
	}
	if _, ok := s.Addr(start, netip.Addr{}); ok {
		t.Error("no address is found")
	}
	a, id, now := addr("203.0.113.9"), identity.PeerID{9}, start
	if n := testing.AllocsPerRun(100, func() { s.Addr(now, a); s.Peer(now, id) }); n != 0 {
		t.Errorf("a look-up allocates %v times", n)
	}
}

// TestTime: an entry ends when it is to, a shorter prefix that lasts longer holds on,
// and the same again replaces it.
func TestTime(t *testing.T) {
	s := Set{Max: 10}
	narrow, wide, who := entry(t, "192.0.2.1"), entry(t, "192.0.2.0/24"), entry(t, strings.Repeat("cd", 32))
	narrow.Until, wide.Until, who.Until = start.Add(time.Second), start.Add(time.Minute), start.Add(time.Second)
	if err := s.Add(start, []Entry{narrow, wide, who}); err != nil {
		t.Fatal(err)
	}
	if e, _ := s.Addr(start, addr("192.0.2.1")); e != narrow {
		t.Fatal("the longest prefix does not count", e)
	}
	later := start.Add(time.Second)
	if e, _ := s.Addr(later, addr("192.0.2.1")); e != wide {
		t.Fatal("the wider one does not hold", e)
	}
	if _, ok := s.Peer(later, who.Peer); ok {
		t.Fatal("it does not end")
	}
	if list := s.List(later); len(list) != 1 || list[0] != wide {
		t.Fatal(list)
	}
	if peers, prefixes := s.Len(); peers != 0 || prefixes != 1 {
		t.Fatal("what has ended is kept", peers, prefixes)
	}
	wide.Until = time.Time{}
	if err := s.Add(later, []Entry{wide}); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Addr(start.Add(1e6*time.Hour), addr("192.0.2.1")); !ok {
		t.Fatal("it ends, though it is for good now")
	}
	if !s.Remove(later, wide) || s.Remove(later, wide) || s.Remove(later, who) {
		t.Fatal("what is lifted is told wrongly")
	}
	if _, ok := s.Addr(later, addr("192.0.2.1")); ok {
		t.Fatal("it is not lifted")
	}
}

// TestFull: a full list says so, and takes all or nothing; what is there already, or has
// ended, takes no room.
func TestFull(t *testing.T) {
	s := Set{Max: 4}
	many := func(first, n int, until time.Time) (list []Entry) {
		for i := range n {
			list = append(list, Entry{Peer: identity.PeerID{1, byte(first + i)}, Until: until})
		}
		return list
	}
	if err := s.Add(start, many(0, 3, start.Add(time.Minute))); err != nil {
		t.Fatal(err)
	}
	if err := s.Add(start, many(10, 2, time.Time{})); !errors.Is(err, ErrFull) {
		t.Fatal(err)
	}
	if n := len(s.List(start)); n != 3 {
		t.Fatal("a refused call has added some", n)
	}
	if err := s.Add(start, append(many(0, 3, start.Add(time.Minute)), many(20, 1, time.Time{})...)); err != nil {
		t.Fatal("those that are there are counted twice:", err)
	}
	if err := s.Add(start.Add(time.Minute), many(30, 3, time.Time{})); err != nil {
		t.Fatal("those that have ended take room:", err)
	}
}

// TestListOrder: the order does not depend on the order of adding.
func TestListOrder(t *testing.T) {
	want := []string{strings.Repeat("01", 32), strings.Repeat("02", 32), "9.0.0.0/8", "10.0.0.0/8", "10.0.0.0/16", "10.0.0.0", "::1", "2001:db8::/32", "2001:db8::/48"}
	for turn := range want {
		s := Set{Max: 100}
		for i := range want {
			if err := s.Add(start, []Entry{entry(t, want[(i+turn)%len(want)])}); err != nil {
				t.Fatal(err)
			}
		}
		for i, e := range s.List(start) {
			if e.Subject() != want[i] {
				t.Fatalf("%d: %s instead of %s", i, e.Subject(), want[i])
			}
		}
	}
}

// FuzzParse: no text makes it panic, and what is read is written and read the same.
func FuzzParse(f *testing.F) {
	for _, text := range []string{"192.0.2.1", "::ffff:1.2.3.4/100", "fe80::1%x", strings.Repeat("ab", 32), "0/0", "::/0"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		e, err := Parse(text)
		if err != nil {
			return
		}
		if again, err := Parse(e.Subject()); err != nil || again != e {
			t.Fatalf("%q: %v, %v", text, again, err)
		}
	})
}

// TestTwins: whoever is banned by one of the two ids of a key is by the other one, too,
// and there is one entry.
func TestTwins(t *testing.T) {
	now := time.Now()
	id := identity.PeerID{1, 2, 3}
	twin := id
	twin[len(twin)-1] ^= 0x80
	s := Set{Max: 1}
	if err := s.Add(now, []Entry{{Peer: id}}); err != nil {
		t.Fatal(err)
	}
	if e, ok := s.Peer(now, twin); !ok || e.Peer != id {
		t.Errorf("the twin: %v, %v", e, ok)
	}
	if err := s.Add(now, []Entry{{Peer: twin}}); err != nil {
		t.Fatal(err)
	}
	if list := s.List(now); len(list) != 1 || list[0].Peer != twin {
		t.Errorf("%v", list)
	}
	if !s.Remove(now, Entry{Peer: id}) {
		t.Error("it was not there")
	}
	if _, ok := s.Peer(now, twin); ok {
		t.Error("the twin is still banned")
	}
}
