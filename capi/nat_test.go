package main

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"unsafe"

	crust "github.com/libcrust/libcrust/core"
)

// linesOf returns the lines of a flow's text up to the NUL.
func linesOf(f *natFlow) []string {
	text, _, found := strings.Cut(string(unsafe.Slice((*byte)(unsafe.Pointer(&f.external[0])), len(f.external))), "\x00")
	if !found {
		return []string{"no NUL"}
	}
	return strings.Split(text, "\n")
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
