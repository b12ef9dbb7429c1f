// Package endpoint says where a peer may be: a transport, an IP address and a
// port, the scope of the address, and a total order over endpoints.
package endpoint

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"
	"unicode"
)

// Transport is the protocol under a link. Numbers are part of the wire format
// and only ever appended.
type Transport uint8

const (
	TCP    Transport = 1 // secure TCP
	UTP    Transport = 2 // uTP (BEP 29) inside sealed datagrams
	Tracer Transport = 3 // TCP in clear
)

var names = [...]string{TCP: "tcp", UTP: "utp", Tracer: "tracer"}

// String returns "tcp", "utp" or "tracer".
func (t Transport) String() string {
	if int(t) < len(names) && names[t] != "" {
		return names[t]
	}
	return fmt.Sprintf("transport(%d)", uint8(t))
}

// Known reports whether t is a transport of this version.
func (t Transport) Known() bool { return t >= TCP && t <= Tracer }

// Endpoint is comparable; the zero Endpoint is invalid.
type Endpoint struct {
	Transport Transport
	Addr      netip.AddrPort
}

// New returns the endpoint with IPv4-mapped IPv6 addresses unmapped.
func New(t Transport, addr netip.AddrPort) Endpoint {
	return Endpoint{t, netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())}
}

// IsZero reports whether e is the zero Endpoint.
func (e Endpoint) IsZero() bool { return e == Endpoint{} }

// String returns the text form, such as tcp://203.0.113.5:5483 or
// tcp://[2001:db8::1]:5483, or "" for the zero Endpoint.
func (e Endpoint) String() string {
	if e.IsZero() {
		return ""
	}
	return e.Transport.String() + "://" + e.Addr.String()
}

// MarshalText implements encoding.TextMarshaler.
func (e Endpoint) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. Empty text is the zero
// Endpoint, as MarshalText writes it.
func (e *Endpoint) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*e = Endpoint{}
		return nil
	}
	parsed, err := Parse(string(text))
	if err != nil {
		return err
	}
	*e = parsed
	return nil
}

// Parse reads the text form. Without "transport://" in front it means TCP.
// Host names are not accepted: a name says nothing about where a peer is until
// it is resolved, and resolving is the program's business.
func Parse(text string) (Endpoint, error) {
	scheme, rest, found := strings.Cut(text, "://")
	if !found {
		scheme, rest = "tcp", text
	}
	var t Transport
	switch scheme {
	case "tcp":
		t = TCP
	case "utp":
		t = UTP
	case "tracer":
		t = Tracer
	default:
		return Endpoint{}, fmt.Errorf("endpoint %q: unknown transport %q, want tcp, utp or tracer", text, scheme)
	}
	addr, err := netip.ParseAddrPort(rest)
	if err != nil || strings.ContainsFunc(addr.Addr().Zone(), notInZone) {
		return Endpoint{}, fmt.Errorf("endpoint %q: want [transport://]IP:PORT, such as tcp://203.0.113.5:5483 or tcp://[2001:db8::1]:5483", text)
	}
	return New(t, addr), nil
}

// notInZone reports runes that no zone may have here, because they would make
// the text form ambiguous where it stands among other text.
func notInZone(r rune) bool {
	return r == ']' || r == '#' || unicode.IsSpace(r) || !unicode.IsPrint(r)
}

// Scope tells how far an address reaches. Greater reaches farther.
type Scope uint8

const (
	Unusable  Scope = iota // unspecified, multicast, invalid
	Loopback               // this machine
	LinkLocal              // this segment (fe80::/10, 169.254.0.0/16)
	Private                // this site (RFC 1918, RFC 4193)
	CGNAT                  // this provider (RFC 6598, 100.64.0.0/10)
	Global                 // the Internet
)

var cgnat = netip.MustParsePrefix("100.64.0.0/10")

// Scope returns the scope of the address.
func (e Endpoint) Scope() Scope {
	a := e.Addr.Addr().Unmap()
	switch {
	case !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return Unusable
	case a.IsLoopback():
		return Loopback
	case a.IsLinkLocalUnicast():
		return LinkLocal
	case a.IsPrivate():
		return Private
	case cgnat.Contains(a):
		return CGNAT
	}
	return Global
}

// Compare is a total order: by transport, then address, then port.
func Compare(a, b Endpoint) int {
	return cmp.Or(cmp.Compare(a.Transport, b.Transport), a.Addr.Compare(b.Addr))
}
