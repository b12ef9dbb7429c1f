package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unsafe"

	crust "github.com/libcrust/libcrust/core"
)

// textOf returns a text up to the NUL in memory of that size.
func textOf(at unsafe.Pointer, size uintptr) string {
	text, _, found := strings.Cut(string(unsafe.Slice((*byte)(at), size)), "\x00")
	if !found {
		return "no NUL"
	}
	return text
}

// linesOf returns the lines of a flow's text.
func linesOf(f *natFlow) []string {
	return strings.Split(textOf(unsafe.Pointer(&f.external), unsafe.Sizeof(f.external)), "\n")
}

// TestNATServer and TestNATPort check the same of lists.
func TestNATServer(t *testing.T) {
	var out natServer
	fillServer(&out, &crust.NATServer{Server: "stun.example.org:3478", Seen: netip.MustParseAddrPort("[2001:db8::1]:7"), Err: errors.New("no\nanswer")})
	got := fmt.Sprint(textOf(unsafe.Pointer(&out.server), unsafe.Sizeof(out.server)), " ", textOf(unsafe.Pointer(&out.seen), unsafe.Sizeof(out.seen)), " ", textOf(unsafe.Pointer(&out.error), unsafe.Sizeof(out.error)))
	if got != "stun.example.org:3478 [2001:db8::1]:7 no answer" {
		t.Errorf("%q", got)
	}
	out = natServer{}
	fillServer(&out, &crust.NATServer{Server: strings.Repeat("x", 1000)})
	if got := textOf(unsafe.Pointer(&out.server), unsafe.Sizeof(out.server)); len(got) != len(out.server)-1 || out.seen[0] != 0 || out.error[0] != 0 {
		t.Errorf("%q", got)
	}
}

func TestNATSeen(t *testing.T) {
	at, err := crust.ParseEndpoint("utp://[2001:db8::1]:40000")
	if err != nil {
		t.Fatal(err)
	}
	var out natSeen
	fillSeen(&out, &crust.NATSeen{Peer: crust.PeerID{1, 2}, From: netip.MustParseAddrPort("203.0.113.5:7"), At: at})
	got := fmt.Sprint(*peerID(&out.peer) == crust.PeerID{1, 2}, " ", textOf(unsafe.Pointer(&out.from), unsafe.Sizeof(out.from)), " ", textOf(unsafe.Pointer(&out.at), unsafe.Sizeof(out.at)))
	if got != "true 203.0.113.5:7 utp://[2001:db8::1]:40000" {
		t.Errorf("%q", got)
	}
}

func TestNATPort(t *testing.T) {
	var out natPort
	now := time.Now()
	ep := func(text string) crust.Endpoint {
		ep, err := crust.ParseEndpoint(text)
		if err != nil {
			t.Fatal(err)
		}
		return ep
	}
	fillPort(&out, &crust.MappedPort{
		Internal: ep("tcp://192.168.1.2:5483"), External: ep("tcp://203.0.113.5:7"), Means: crust.MeansPCP, Gateway: netip.MustParseAddr("192.168.1.1"),
		Expires: now.Add(time.Minute), Double: true, Err: &crust.Error{Op: "map", Code: crust.CodeTimeout},
	}, now)
	text := fmt.Sprint(out.code, out.twice, out.expires_ms)
	for _, f := range []struct {
		at   unsafe.Pointer
		size uintptr
	}{
		{unsafe.Pointer(&out.internal), unsafe.Sizeof(out.internal)}, {unsafe.Pointer(&out.external), unsafe.Sizeof(out.external)},
		{unsafe.Pointer(&out.gateway), unsafe.Sizeof(out.gateway)}, {unsafe.Pointer(&out.means), unsafe.Sizeof(out.means)},
	} {
		text += " " + textOf(f.at, f.size)
	}
	if text != "-6 1 60000 tcp://192.168.1.2:5483 tcp://203.0.113.5:7 192.168.1.1 pcp" || out.text[0] == 0 {
		t.Errorf("%q", text)
	}
	out = natPort{}
	fillPort(&out, &crust.MappedPort{Internal: ep("tcp://192.168.1.2:5483")}, now)
	if out.code != 0 || out.external[0] != 0 || out.gateway[0] != 0 || out.text[0] != 0 || out.expires_ms != 0 {
		t.Errorf("%+v", out)
	}
}

// TestNATFlow checks that C is told all that Go knows.
func TestNATFlow(t *testing.T) {
	f := crust.NATFlow{
		Confidence: "confirmed", None: true, Mapping: crust.NATAddressDependent, Filtering: crust.NATAddressPortDependent, Ports: crust.NATPortsBlock,
		Step: -2, Low: 1024, High: 2047, Near: true, Double: true, Blocked: true, Hairpin: crust.NATHairpinYes,
	}
	var want []string
	for i := range 16 { // the longest there are, and of both families
		f.External = append(f.External, netip.MustParseAddrPort(fmt.Sprintf("[2001:db8:aaaa:bbbb:cccc:dddd:eeee:%x]:65535", 0xff00+i)))
		if i == 7 {
			f.External[i] = netip.MustParseAddrPort("203.0.113.5:7")
		}
		want = append(want, f.External[i].String())
	}
	var out natFlow
	fillFlow(&out, &f)
	got := fmt.Sprint(out.confidence, out.none, out.nearby, out.twice, out.blocked, out.hairpin, out.mapping, out.filtering, out.ports, out.step, out.low, out.high)
	if got != "2 1 1 1 1 2 2 3 3 -2 1024 2047" {
		t.Errorf("%s", got)
	}
	if lines := linesOf(&out); strings.Join(lines, " ") != strings.Join(want, " ") {
		t.Errorf("external: %q, want %q", lines, want)
	}
	f.External = append(f.External, f.External...) // more than there can be, and no room
	fillFlow(&out, &f)
	if lines := linesOf(&out); len(lines) < 16 || lines[len(lines)-1] != f.External[len(lines)-1].String() {
		t.Errorf("without room: %q", lines)
	}
	fillFlow(&out, &crust.NATFlow{})
	if lines := linesOf(&out); out.confidence != 0 || len(lines) != 1 || lines[0] != "" {
		t.Errorf("nothing is known: %d, %q", out.confidence, lines)
	}
}

// TestKnown checks that C is told all that Go knows, in structs of whatever size, and that
// a list goes on after any id.
func TestKnown(t *testing.T) {
	now := time.Now()
	var known []crust.KnownPeer
	for i := range 5 {
		k := crust.KnownPeer{Peer: crust.PeerID{byte(2 * i), 1}, Role: crust.Client, Direct: i%2 == 0, Relays: i%2 == 1, Expires: now.Add(time.Duration(i) * time.Minute)}
		for n := range 8 { // the longest there are
			ep, err := crust.ParseEndpoint(fmt.Sprintf("utp://[2001:db8:aaaa:bbbb:cccc:dddd:eeee:%x]:65535", 0xff00+n))
			if err != nil {
				t.Fatal(err)
			}
			k.Endpoints = append(k.Endpoints, ep)
		}
		known = append(known, k)
	}
	size := int(unsafe.Sizeof(knownPeer{}))
	for _, stride := range []int{8, 40, size, size + 64} {
		room := make([]byte, (len(known)+1)*stride)
		for i := range room {
			room[i] = 0xaa
		}
		giveKnown(unsafe.Pointer(&room[0]), stride, known, now)
		for i := range known {
			var out knownPeer
			raw := room[i*stride : (i+1)*stride]
			beyond := raw[copy(unsafe.Slice((*byte)(unsafe.Pointer(&out)), size), raw):]
			if int(out.struct_size) != stride || int(out.role) != int(crust.Client) || out.direct != flag(i%2 == 0) || out.relays != flag(i%2 == 1) || out.reserved != 0 ||
				strings.Trim(string(beyond), "\x00") != "" {
				t.Errorf("stride %d, peer %d: % x", stride, i, raw[:8])
			}
			if stride < size {
				continue
			}
			if id := *(*crust.PeerID)(unsafe.Pointer(&out.peer)); id != known[i].Peer || int(out.expires_ms) != max(60000*i, 1) {
				t.Errorf("stride %d, peer %d: %v for %d ms", stride, i, id, out.expires_ms)
			}
			text := textOf(unsafe.Pointer(&out.endpoints), unsafe.Sizeof(out.endpoints))
			if lines := strings.Split(text, "\n"); len(lines) != 8 || lines[7] != known[i].Endpoints[7].String() {
				t.Errorf("stride %d, peer %d: %q", stride, i, lines)
			}
		}
		if strings.Trim(string(room[len(known)*stride:]), "\xaa") != "" {
			t.Errorf("stride %d: more was written than there is room for", stride)
		}
	}
	for first, want := range map[byte]int{0: 4, 1: 4, 2: 3, 7: 1, 8: 0, 9: 0} {
		if got := len(knownAfter(known, crust.PeerID{first, 1})); got != want {
			t.Errorf("%d come after %d, want %d", got, first, want)
		}
	}
}
