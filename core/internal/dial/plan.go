// Package dial decides in which order to try a peer's endpoints, and tries them:
// Plan is a pure function, Race runs what it returned and keeps the first
// success.
package dial

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/libcrust/libcrust/core/internal/endpoint"
)

const (
	// MaxSteps bounds a plan. What a peer lists beyond it is not tried, so that
	// nobody can make us knock at many doors.
	MaxSteps = 32
	// Stagger is the time between two attempts of one group (RFC 8305, section
	// 5, "Connection Attempt Delay").
	Stagger = 250 * time.Millisecond
	// HeadStart is how much later uTP endpoints are tried than TCP ones of the
	// same group.
	HeadStart = 500 * time.Millisecond
	// Grace is how long a success over uTP waits for TCP attempts that are under
	// way: they began earlier by the head start, so they are nearly there or
	// will not come.
	Grace = 100 * time.Millisecond
)

// Step is one attempt: where, and how long after the start of the race unless
// an earlier attempt has failed before.
type Step struct {
	Endpoint endpoint.Endpoint
	Delay    time.Duration
}

// Plan orders the endpoints that a peer lists. ours are the addresses of this
// machine.
//
// Endpoints that cannot be dialled are left out: no address, no port, an
// unknown transport, an IPv6 link-local address without a zone; so are
// repetitions, tracer endpoints unless there are no others, since what is in clear must
// win no race against what is not; and loopback addresses unless the peer can be on this machine:
// it lists one of our own addresses, or nothing but loopback.
//
// There are two groups, tried at the same time, because which of them is right
// is not known: near (loopback, private, link-local) and far (carrier-grade NAT,
// global). Within a group IPv6 and IPv4 alternate beginning with IPv6 (RFC 8305,
// section 4), one step each Stagger; each family begins with loopback, then
// with addresses that share the longest prefix with one of ours, near only,
// then in the peer's order. uTP follows HeadStart after TCP. The result is
// sorted by delay, near first, and has at most MaxSteps steps.
func Plan(endpoints []endpoint.Endpoint, ours []netip.Addr) []Step {
	var groups [2][2][]endpoint.Endpoint // near, far; stream, uTP
	for _, e := range diallable(endpoints, ours) {
		far, utp := 0, 0
		if e.Scope() >= endpoint.CGNAT {
			far = 1
		}
		if e.Transport == endpoint.UTP {
			utp = 1
		}
		groups[far][utp] = append(groups[far][utp], e)
	}
	slices.SortStableFunc(groups[0][0], closest(ours))
	slices.SortStableFunc(groups[0][1], closest(ours))
	var steps []Step
	for _, group := range groups {
		for i, e := range interleave(group[0]) {
			steps = append(steps, Step{e, time.Duration(i) * Stagger})
		}
		head := HeadStart
		if len(group[0]) == 0 {
			head = 0
		}
		for i, e := range interleave(group[1]) {
			steps = append(steps, Step{e, head + time.Duration(i)*Stagger})
		}
	}
	slices.SortStableFunc(steps, func(a, b Step) int { return cmp.Compare(a.Delay, b.Delay) })
	return steps[:min(len(steps), MaxSteps)]
}

// diallable returns what is worth trying, each endpoint once, in order.
func diallable(endpoints []endpoint.Endpoint, ours []netip.Addr) []endpoint.Endpoint {
	var out []endpoint.Endpoint
	seen := map[endpoint.Endpoint]bool{}
	here, only := false, true // it lists one of our addresses; nothing but loopback
	secure := slices.ContainsFunc(endpoints, func(e endpoint.Endpoint) bool { return e.Transport != endpoint.Tracer })
	for _, e := range endpoints {
		e = endpoint.New(e.Transport, e.Addr)
		a, scope := e.Addr.Addr(), e.Scope()
		zoneless := a.Is6() && scope == endpoint.LinkLocal && a.Zone() == ""
		if scope == endpoint.Unusable || zoneless || e.Addr.Port() == 0 || !e.Transport.Known() || seen[e] || secure && e.Transport == endpoint.Tracer {
			continue
		}
		seen[e] = true
		out = append(out, e)
		if scope != endpoint.Loopback {
			only = false
			here = here || slices.ContainsFunc(ours, func(o netip.Addr) bool { return o.Unmap() == a })
		}
	}
	if here || only {
		return out
	}
	return slices.DeleteFunc(out, func(e endpoint.Endpoint) bool { return e.Scope() == endpoint.Loopback })
}

// closest orders near endpoints: loopback, then by the prefix in common with
// one of ours.
func closest(ours []netip.Addr) func(a, b endpoint.Endpoint) int {
	rank := func(e endpoint.Endpoint) int {
		if e.Scope() == endpoint.Loopback {
			return 129
		}
		best := 0
		for _, o := range ours {
			best = max(best, common(e.Addr.Addr(), o.Unmap()))
		}
		return best
	}
	return func(a, b endpoint.Endpoint) int { return cmp.Compare(rank(b), rank(a)) }
}

// common returns how many leading bits two addresses of one family share.
func common(a, b netip.Addr) int {
	if a.BitLen() != b.BitLen() {
		return 0
	}
	bits := 0
	for bits < a.BitLen() {
		prefix, err := a.Prefix(bits + 1)
		if err != nil || !prefix.Contains(b.WithZone("")) {
			break
		}
		bits++
	}
	return bits
}

// interleave alternates families, IPv6 first, and keeps the order within each.
func interleave(endpoints []endpoint.Endpoint) []endpoint.Endpoint {
	var six, four []endpoint.Endpoint
	for _, e := range endpoints {
		if e.Addr.Addr().Is6() {
			six = append(six, e)
		} else {
			four = append(four, e)
		}
	}
	out := make([]endpoint.Endpoint, 0, len(endpoints))
	for len(six) > 0 || len(four) > 0 {
		if len(six) > 0 {
			out, six = append(out, six[0]), six[1:]
		}
		if len(four) > 0 {
			out, four = append(out, four[0]), four[1:]
		}
	}
	return out
}
