package main

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unsafe"

	crust "github.com/libcrust/libcrust/core"
)

func TestGroupsFitTheirStructs(t *testing.T) {
	var out groupInfo
	fillGroup(&out, &crust.GroupInfo{
		Name: strings.Repeat("n", crust.MaxGroupName), Any: 3, Role: crust.Client, Up: 1, Wanted: 3, Next: 1500 * time.Microsecond,
		Err: &crust.Error{Op: strings.Repeat("x", 1000), Code: crust.CodeTimeout},
	})
	if got := fmt.Sprint(out.any, out.role, out.up, out.wanted, out.next_ms, out.code); got != "3 1 1 3 1 -6" {
		t.Errorf("%q", got)
	}
	if got := textOf(unsafe.Pointer(&out.name), unsafe.Sizeof(out.name)); got != strings.Repeat("n", crust.MaxGroupName) {
		t.Errorf("the name is %q", got)
	}
	if got := textOf(unsafe.Pointer(&out.text), unsafe.Sizeof(out.text)); len(got) != len(out.text)-1 {
		t.Errorf("the text is %q", got)
	}
	var one groupPeer
	fillGroupPeer(&one, &crust.GroupPeer{Peer: crust.PeerID{7}, State: crust.GroupFailed, Tries: 4, Next: time.Nanosecond, Err: &crust.Error{Op: "keep", Code: crust.CodeRefused}})
	if got := fmt.Sprint(one.state, one.tries, one.next_ms, one.code, one.peer.bytes[0]); got != "4 4 1 -24 7" {
		t.Errorf("%q", got)
	}
	if got := textOf(unsafe.Pointer(&one.text), unsafe.Sizeof(one.text)); got != "keep: refused" {
		t.Errorf("the text is %q", got)
	}
	one = groupPeer{}
	fillGroupPeer(&one, &crust.GroupPeer{State: crust.GroupUp})
	if one.code != 0 || one.text[0] != 0 || one.next_ms != 0 {
		t.Errorf("%+v", one)
	}
}
