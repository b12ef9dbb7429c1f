package crust

import (
	"encoding/binary"
	"net/netip"

	"github.com/libcrust/libcrust/core/internal/netio"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// earQueue bounds what an ear has heard and nobody has looked at.
const earQueue = 64

// ear is a UDP socket of its own, for as long as something is measured. What no peer
// has sealed for us is not heard, but for answers of servers.
type ear struct {
	conn  netio.PacketConn
	heard chan heard
}

// heard is a probe of a peer, with its nonce and size, or the answer of a server.
type heard struct {
	from  netip.AddrPort
	asker *asker // nil: of a server
	probe wire.Probe
	nonce []byte
	size  int // of the datagram
	stun  wire.STUN
}

// openEar opens a socket of an address's family.
func (s *Service) openEar(family netip.Addr) (*ear, error) {
	any := netip.IPv4Unspecified()
	if family.Is6() {
		any = netip.IPv6Unspecified()
	}
	conn, err := s.network.ListenPacket(s.ctx, netip.AddrPortFrom(any, 0))
	if err != nil {
		return nil, err
	}
	e := &ear{conn: conn, heard: make(chan heard, earQueue)}
	s.spawn(func() { s.listenTo(e) })
	return e, nil
}

// close ends its goroutine as well.
func (e *ear) close() { e.conn.Close() } //nolint:errcheck // it has served

// send sends one datagram. What cannot be sent is lost.
func (e *ear) send(d []byte, to netip.AddrPort) {
	e.conn.WriteBatch([]netio.Packets{{Buf: d, N: len(d), Segment: len(d), Addr: to}}) //nolint:errcheck // it may get lost
}

// listenTo is the goroutine of an ear.
func (s *Service) listenTo(e *ear) {
	ps := []netio.Packets{{Buf: make([]byte, netio.ReadSize)}}
	for {
		n, err := e.conn.ReadBatch(ps)
		if err != nil {
			return
		}
		for at := 0; n > 0 && at < ps[0].N && !s.barredAt(ps[0].Addr.Addr()); at += ps[0].Segment {
			h, ok := s.understand(ps[0].Addr, ps[0].Buf[at:min(at+ps[0].Segment, ps[0].N)])
			if !ok || h.asker != nil && h.probe.Kind == wire.ProbeReach && s.reached(h.asker, h.probe.Nonce, h.from) {
				continue
			}
			select {
			case e.heard <- h:
			default:
			}
		}
	}
}

// understand opens what a peer has sealed for us, and reads what a server has sent.
func (s *Service) understand(from netip.AddrPort, d []byte) (heard, bool) {
	if s.isHairpin(d) {
		return heard{}, false
	}
	if m, err := wire.ParseSTUN(d); err == nil {
		return heard{from: from, stun: m}, m.Type != wire.STUNRequest
	}
	if len(d) < wire.EchoTag {
		return heard{}, false
	}
	s.watch.mu.Lock()
	a := s.watch.asks[binary.BigEndian.Uint64(d)]
	s.watch.mu.Unlock()
	if a == nil {
		return heard{}, false
	}
	p, err := a.key.Open(d[wire.EchoTag:])
	if err != nil {
		return heard{}, false
	}
	return heard{from: from, asker: a, probe: p, nonce: append([]byte(nil), d[wire.EchoTag:wire.EchoTag+16]...), size: len(d)}, true
}
