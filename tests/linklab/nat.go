package linklab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"
)

// Depends says on what of the other end a mapping or a filter depends, in the
// words of RFC 4787 sections 4.1 and 5.
type Depends byte

const (
	// Independent: one mapping for everybody; anybody may answer.
	Independent Depends = iota
	// OnAddress: by the other end's address.
	OnAddress
	// OnAddressPort: by the other end's address and port.
	OnAddressPort
)

// ParseDepends reads "independent", "address" or "address-port".
func ParseDepends(text string) (Depends, error) {
	switch text {
	case "independent":
		return Independent, nil
	case "address":
		return OnAddress, nil
	case "address-port":
		return OnAddressPort, nil
	}
	return 0, fmt.Errorf("%q is none of independent, address and address-port", text)
}

// of returns the part of the other end on which it depends.
func (d Depends) of(remote netip.AddrPort) netip.AddrPort {
	switch d {
	case OnAddress:
		return netip.AddrPortFrom(remote.Addr(), 0)
	case OnAddressPort:
		return remote
	}
	return netip.AddrPort{}
}

// NAT describes one between a host and its link. It translates UDP and TCP over
// IPv4; all else, fragments too, it drops, and so it does with IPv6.
type NAT struct {
	// Mapping and Filter: the zero values make a "full cone".
	Mapping, Filter Depends
	// Timeout ends a UDP mapping after which nothing went out for so long. Zero
	// means 30 s. What comes in does not prolong it.
	Timeout time.Duration
	// TCPTimeout is the same for TCP. Zero means 2 h 4 min (RFC 5382 REQ-5).
	TCPTimeout time.Duration
	// KeepPort maps to the same port outside where that is free.
	KeepPort bool
	// Addresses is the number of public addresses, of which Rebind takes the next.
	// Zero means 2. At most 200.
	Addresses int
}

const (
	defaultUDPTimeout = 30 * time.Second
	defaultTCPTimeout = 2*time.Hour + 4*time.Minute
	defaultPublic     = 2
	mostPublic        = 200
	mostMappings      = 1 << 14
	mostPeers         = 1 << 12 // of one mapping's filter
	firstPort         = 1024
)

// ParseNAT reads words of the form key=value: "mapping=address-port",
// "filter=address", "timeout=30s", "tcp-timeout=1h", "keep-port=on", "addresses=4".
// The words "cone" and "symmetric" stand for the two usual kinds.
func ParseNAT(words ...string) (*NAT, error) {
	n := &NAT{}
	for _, word := range words {
		key, value, _ := strings.Cut(word, "=")
		var err error
		switch key {
		case "cone":
			n.Mapping, n.Filter = Independent, OnAddressPort
		case "symmetric":
			n.Mapping, n.Filter = OnAddressPort, OnAddressPort
		case "mapping":
			n.Mapping, err = ParseDepends(value)
		case "filter":
			n.Filter, err = ParseDepends(value)
		case "timeout":
			n.Timeout, err = time.ParseDuration(value)
		case "tcp-timeout":
			n.TCPTimeout, err = time.ParseDuration(value)
		case "keep-port":
			n.KeepPort, err = parseSwitch(value)
		case "addresses":
			n.Addresses, err = parseSize(value)
		default:
			err = errors.New("there are cone, symmetric, mapping, filter, timeout, tcp-timeout, keep-port and addresses")
		}
		if err != nil {
			return nil, fmt.Errorf("%q: %w", word, err)
		}
	}
	return n, n.check()
}

func (n *NAT) check() error {
	if n.Timeout < 0 || n.TCPTimeout < 0 {
		return errors.New("a NAT's timeouts are at least 0")
	}
	if n.Addresses < 0 || n.Addresses > mostPublic {
		return fmt.Errorf("a NAT has at most %d addresses", mostPublic)
	}
	return nil
}

func (n NAT) withDefaults() NAT {
	if n.Timeout == 0 {
		n.Timeout = defaultUDPTimeout
	}
	if n.TCPTimeout == 0 {
		n.TCPTimeout = defaultTCPTimeout
	}
	if n.Addresses == 0 {
		n.Addresses = defaultPublic
	}
	return n
}

// inner is what a mapping is found by from inside, outer from outside.
type inner struct {
	protocol byte
	local    netip.AddrPort
	remote   netip.AddrPort // as far as the mapping depends on it
}

type outer struct {
	protocol byte
	public   netip.AddrPort
}

type mapping struct {
	inner  inner
	public netip.AddrPort
	until  int64
	peers  map[netip.AddrPort]int64 // until when they may answer, as far as the filter depends on them
}

// translator is a NAT at work. Times are in nanoseconds.
type translator struct {
	nat      NAT
	public   []netip.Addr
	current  int // of public
	random   *rand.Rand
	inside   map[inner]*mapping
	outside  map[outer]*mapping
	previous map[uint16]bool // ports that mappings had before a rebinding
}

func newTranslator(n NAT, public []netip.Addr, seed, stream uint64) *translator {
	return &translator{
		nat: n.withDefaults(), public: public, random: rand.New(rand.NewPCG(seed, stream)),
		inside: map[inner]*mapping{}, outside: map[outer]*mapping{}, previous: map[uint16]bool{},
	}
}

// ports returns protocol and both ends of a packet that the NAT can translate.
func ports(p []byte) (protocol byte, from, to netip.AddrPort, segment []byte, ok bool) {
	if len(p) < ipv4Header || p[0]>>4 != 4 {
		return
	}
	header := int(p[0]&15) * 4
	if header < ipv4Header || len(p) < header+8 || binary.BigEndian.Uint16(p[6:])&0x3fff != 0 {
		return // a fragment, or no packet at all
	}
	protocol, segment = p[9], p[header:]
	if protocol != protocolUDP && (protocol != protocolTCP || len(segment) < 20) {
		return
	}
	from = netip.AddrPortFrom(netip.AddrFrom4([4]byte(p[12:16])), binary.BigEndian.Uint16(segment))
	to = netip.AddrPortFrom(netip.AddrFrom4([4]byte(p[16:20])), binary.BigEndian.Uint16(segment[2:]))
	return protocol, from, to, segment, true
}

// out translates a packet that leaves; false means to drop it.
func (t *translator) out(now int64, p []byte) bool {
	protocol, from, to, segment, ok := ports(p)
	if !ok {
		return false
	}
	key := inner{protocol, from, t.nat.Mapping.of(to)}
	m := t.inside[key]
	if m != nil && m.until <= now {
		t.remove(m)
		m = nil
	}
	if m == nil {
		if m = t.add(now, key); m == nil {
			return false
		}
	}
	timeout := t.nat.Timeout
	if protocol == protocolTCP {
		timeout = t.nat.TCPTimeout
	}
	m.until = now + int64(timeout)
	if t.nat.Filter != Independent {
		peer := t.nat.Filter.of(to)
		if _, known := m.peers[peer]; !known && len(m.peers) >= mostPeers {
			return false
		}
		m.peers[peer] = m.until
	}
	rewrite(p, segment, protocol, 12, 0, m.public)
	return true
}

// in translates a packet that arrives; false means to drop it.
func (t *translator) in(now int64, p []byte) bool {
	protocol, from, to, segment, ok := ports(p)
	if !ok {
		return false
	}
	m := t.outside[outer{protocol, to}]
	if m == nil || m.until <= now {
		return false
	}
	if t.nat.Filter != Independent && m.peers[t.nat.Filter.of(from)] <= now {
		return false
	}
	rewrite(p, segment, protocol, 16, 2, m.inner.local)
	return true
}

// add makes a mapping, or returns nil when there are too many.
func (t *translator) add(now int64, key inner) *mapping {
	if len(t.inside) >= mostMappings {
		for _, m := range t.inside {
			if m.until <= now {
				t.remove(m)
			}
		}
	}
	if len(t.inside) >= mostMappings {
		return nil
	}
	m := &mapping{inner: key, peers: map[netip.AddrPort]int64{}}
	for try := 0; ; try++ {
		port := uint16(firstPort + t.random.IntN(1<<16-firstPort))
		if t.nat.KeepPort && try == 0 {
			port = key.local.Port()
		}
		m.public = netip.AddrPortFrom(t.public[t.current], port)
		if _, taken := t.outside[outer{key.protocol, m.public}]; !taken && !t.previous[port] {
			break
		}
	}
	t.inside[key] = m
	t.outside[outer{key.protocol, m.public}] = m
	return m
}

func (t *translator) remove(m *mapping) {
	delete(t.inside, m.inner)
	delete(t.outside, outer{m.inner.protocol, m.public})
}

// rebind forgets all mappings, so that what goes out next gets another port, and
// with address another address as well.
func (t *translator) rebind(address bool) {
	clear(t.previous)
	for _, m := range t.inside {
		t.previous[m.public.Port()] = true
	}
	clear(t.inside)
	clear(t.outside)
	if address {
		t.current = (t.current + 1) % len(t.public)
		clear(t.previous) // the address differs already
	}
}

// rewrite puts address and port at their places in packet and segment, and mends
// the checksums by the difference (RFC 1624).
func rewrite(p, segment []byte, protocol byte, addressAt, portAt int, to netip.AddrPort) {
	a := to.Addr().As4()
	// Equation 3: HC' = ~(~HC + ~m + m').
	address := uint32(0)
	for i := 0; i < 4; i += 2 {
		address += uint32(^binary.BigEndian.Uint16(p[addressAt+i:])) + uint32(binary.BigEndian.Uint16(a[i:]))
	}
	port := uint32(^binary.BigEndian.Uint16(segment[portAt:])) + uint32(to.Port())
	copy(p[addressAt:], a[:])
	binary.BigEndian.PutUint16(segment[portAt:], to.Port())
	mend(p[10:], address)
	if protocol == protocolTCP {
		mend(segment[16:], address+port)
	} else if binary.BigEndian.Uint16(segment[6:]) != 0 {
		mend(segment[6:], address+port)
		if binary.BigEndian.Uint16(segment[6:]) == 0 {
			binary.BigEndian.PutUint16(segment[6:], 0xffff) // zero means none (RFC 768)
		}
	}
}

func mend(checksum []byte, difference uint32) {
	binary.BigEndian.PutUint16(checksum, fold(uint32(^binary.BigEndian.Uint16(checksum))+difference))
}
