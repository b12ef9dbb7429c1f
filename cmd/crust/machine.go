package main

import (
	"cmp"
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"
)

// networkInterface is an interface of this machine that is up.
type networkInterface struct {
	Name      string         `json:"name"`
	MTU       int            `json:"mtu"` // in bytes
	Addresses []localAddress `json:"addresses"`
	Out       bool           `json:"out"` // what goes to the helper, or to the Internet, leaves here
}

// localAddress is an address of this machine.
type localAddress struct {
	Address string `json:"address"` // with the bits of its network
	Scope   string `json:"scope"`   // loopback, link, private, cgnat or global
}

// maxInterfaces bounds what doctor lists.
const maxInterfaces = 64

// scopes of addresses.
const (
	scopeLoopback = "loopback"
	scopeLink     = "link"
	scopePrivate  = "private"
	scopeCGNAT    = "cgnat"
	scopeGlobal   = "global"
)

var carriers = netip.MustParsePrefix("100.64.0.0/10") // RFC 6598

// scopeOf says how far an address reaches.
func scopeOf(a netip.Addr) string {
	a = a.Unmap()
	switch {
	case a.IsLoopback():
		return scopeLoopback
	case a.IsLinkLocalUnicast():
		return scopeLink
	case a.IsPrivate():
		return scopePrivate
	case carriers.Contains(a):
		return scopeCGNAT
	}
	return scopeGlobal
}

// localInterfaces lists the interfaces that are up and have addresses. The error is
// the system's.
func localInterfaces() ([]networkInterface, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	list := []networkInterface{}
	for _, i := range all {
		addresses, err := i.Addrs()
		if err != nil || i.Flags&net.FlagUp == 0 {
			continue // it went away meanwhile
		}
		one := networkInterface{Name: i.Name, MTU: i.MTU}
		for _, a := range addresses {
			if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().IsMulticast() {
				one.Addresses = append(one.Addresses, localAddress{p.String(), scopeOf(p.Addr())})
			}
		}
		if len(one.Addresses) > 0 && len(list) < maxInterfaces {
			list = append(list, one)
		}
	}
	return list, nil
}

// connected reports whether an address of some interface reaches farther than a cable.
func connected(list []networkInterface) bool {
	return slices.ContainsFunc(list, func(i networkInterface) bool {
		return slices.ContainsFunc(i.Addresses, func(a localAddress) bool { return a.Scope != scopeLoopback && a.Scope != scopeLink })
	})
}

// holder returns the interface that has an address, nil when none has.
func holder(list []networkInterface, addr netip.Addr) *networkInterface {
	for i := range list {
		for _, a := range list[i].Addresses {
			if p, err := netip.ParsePrefix(a.Address); err == nil && p.Addr() == addr.Unmap().WithZone("") {
				return &list[i]
			}
		}
	}
	return nil
}

// clockReport is what is known of this machine's clock.
type clockReport struct {
	Time string `json:"time"` // RFC 3339, UTC
	// Synchronized says whether the system holds its clock to be set by others, null
	// when it does not tell.
	Synchronized *bool `json:"synchronized"`
	// Error bounds how wrong the clock is, as the system estimates it; null when it
	// does not tell, or is not synchronized.
	Error *float64 `json:"error_ms"`
	// Stepped is by how much the clock was set while doctor looked.
	Stepped float64 `json:"stepped_ms"`
	// Plausible is false when the clock shows a time before this program was written.
	Plausible bool `json:"plausible"`
}

// written is a time before which no clock is right that this program sees.
var written = time.Date(2026, time.November, 1, 0, 0, 0, 0, time.UTC)

// clockStep is how much the clock may seem to be set by chance.
const clockStep = 20 * time.Millisecond

// lookAtClock says what is known of the clock, since a moment of this process.
func lookAtClock(since, now time.Time) clockReport {
	r := clockReport{Time: now.UTC().Format(time.RFC3339Nano), Plausible: now.After(written)}
	if step := now.Round(0).Sub(since.Round(0)) - now.Sub(since); step.Abs() >= clockStep { // Round takes the monotonic clock off
		r.Stepped = milliseconds(step)
	}
	if synchronized, most, ok := systemClock(); ok {
		r.Synchronized = &synchronized
		if synchronized {
			ms := milliseconds(most)
			r.Error = &ms
		}
	}
	return r
}

// mtuReport is how large a packet may be.
type mtuReport struct {
	// Interface is of the interface that leads out, 0 when it is not known.
	Interface int `json:"interface"`
	// Path is of the way to the address To: the largest IP packet that no router on
	// the way has refused, 0 when it was not measured.
	Path int    `json:"path"`
	To   string `json:"to"`
	// Confirmed says that a packet of that size is known to have arrived.
	Confirmed bool `json:"confirmed"`
}

// anywhere is an address on the Internet that is asked for the way to it alone;
// nothing is sent there (RFC 5737).
var anywhere = netip.MustParseAddrPort("192.0.2.1:9")

// lookAtWay fills in what leads out, and how large packets on the way to a helper may
// be; to is not valid when there is none.
func lookAtWay(list []networkInterface, to netip.AddrPort) (m mtuReport) {
	target := to
	if !to.IsValid() {
		target = anywhere
	}
	from, err := sourceTo(target)
	if i := holder(list, from); err == nil && i != nil {
		i.Out, m.Interface = true, i.MTU
	}
	if to.IsValid() && m.Interface > 0 {
		if path, confirmed, err := pathMTU(to); err == nil {
			m.Path, m.To, m.Confirmed = path, to.Addr().Unmap().String(), confirmed
		}
	}
	return m
}

// sourceTo returns the address of this machine from which it sends to another one, or
// why there is no way to it. Nothing is sent.
func sourceTo(to netip.AddrPort) (netip.Addr, error) {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	var dial *net.OpError
	if errors.As(err, &dial) {
		err = dial.Err // that it was UDP is nobody's business
	}
	if err != nil {
		return netip.Addr{}, err
	}
	defer conn.Close() //nolint:errcheck // nothing was sent
	local, err := netip.ParseAddrPort(conn.LocalAddr().String())
	return local.Addr(), err
}

// byUse orders interfaces: those that lead out first, then by name.
func byUse(a, b networkInterface) int {
	switch {
	case a.Out == b.Out:
		return cmp.Compare(a.Name, b.Name)
	case a.Out:
		return -1
	}
	return 1
}
