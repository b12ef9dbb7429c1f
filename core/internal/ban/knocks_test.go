package ban

import (
	"net/netip"
	"slices"
	"testing"
)

// TestKnocks: who is turned away often is not heard any more, until it is not banned; when
// there is no room for more, the first stay, and others come in when one of them goes.
func TestKnocks(t *testing.T) {
	var k Knocks
	a, b, c := netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/64"), netip.MustParsePrefix("192.0.2.7/32")
	knock := func(p netip.Prefix, times int) (due bool) {
		for range times {
			due = k.Refused(p) || due
		}
		return due
	}
	want := func(list ...netip.Prefix) {
		t.Helper()
		if !slices.Equal(k.Mute(), list) {
			t.Errorf("%v are not heard, want %v", k.Mute(), list)
		}
	}
	if knock(a, heardKnocks-1) || knock(b, heardKnocks-1) {
		t.Error("not heard too soon")
	}
	want()
	if !knock(b, 1) || !knock(a, 1) || knock(a, 5) {
		t.Error("not heard too late, or twice")
	}
	want(b, a)
	knock(c, heardKnocks)
	want(b, a, c)
	before := k.Mute()
	k.Full(2)
	want(b, a)
	if knock(c, 100) {
		t.Error("more than there is room for")
	}
	k.Keep(func(netip.Prefix) bool { return true })
	if knock(c, 1) {
		t.Error("more than there is room for, though none has gone")
	}
	k.Keep(func(p netip.Prefix) bool { return p != b })
	want(a)
	if !knock(c, 1) {
		t.Error("nobody comes in though there is room")
	}
	want(a, c)
	if !slices.Equal(before, []netip.Prefix{b, a, c}) {
		t.Error("a list that was given out has changed")
	}
	if knock(b, heardKnocks-1) || !knock(b, 1) {
		t.Error("who was forgotten does not begin anew")
	}
	k.Keep(func(netip.Prefix) bool { return false })
	want()
	if len(k.counts) != 0 {
		t.Errorf("%d are kept that are not banned", len(k.counts))
	}
}
