package main

// #include "shim_internal.h"
import "C"

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unsafe"

	crust "github.com/libcrust/libcrust/core"
)

//export goCrustServiceNAT
func goCrustServiceNAT(h C.uint64_t, out *C.crust_nat, udp, tcp *C.crust_nat_flow, why *C.char) (rc C.int32_t) {
	defer guard(h, why, &rc)
	return withService("crust_service_nat", h, why, func(s *crust.Service) error {
		r := s.NAT()
		out.reachable, out.cgnat, out.pending = flag(r.Reachable), flag(r.CGNAT), flag(r.Pending)
		putText(out.why[:], fit(r.Why, len(out.why)-1))
		fillFlow(udp, &r.UDP)
		fillFlow(tcp, &r.TCP)
		return nil
	})
}

// natFlow gives the type a name outside of cgo.
type natFlow = C.crust_nat_flow

// confidences are the words of crust.NATFlow.Confidence by their numbers in C.
var confidences = []string{"none", "tentative", "confirmed"}

func fillFlow(out *natFlow, f *crust.NATFlow) {
	out.confidence = C.uint8_t(max(slices.Index(confidences, f.Confidence), 0))
	out.none, out.nearby, out.twice, out.blocked = flag(f.None), flag(f.Near), flag(f.Double), flag(f.Blocked)
	out.hairpin = C.uint8_t(f.Hairpin)
	out.mapping, out.filtering, out.ports = C.uint8_t(f.Mapping), C.uint8_t(f.Filtering), C.uint8_t(f.Ports)
	out.step = C.int16_t(f.Step)
	out.low, out.high = C.uint16_t(f.Low), C.uint16_t(f.High)
	putLines(out.external[:], f.External)
}

// putLines writes things, each on a line, into a field of fixed size: as many as there is
// room for.
func putLines[T fmt.Stringer](field []C.char, things []T) {
	text := ""
	for _, thing := range things {
		line := thing.String()
		if len(text)+len(line)+1 > len(field) {
			break
		}
		text += line + "\n"
	}
	putText(field, strings.TrimSuffix(text, "\n"))
}

//export goCrustServiceNATServer
func goCrustServiceNATServer(h C.uint64_t, index C.uint32_t, out *C.crust_nat_server, why *C.char) (rc C.int32_t) {
	defer guard(h, why, &rc)
	return withEntry("crust_service_nat_server", h, index, why,
		func(s *crust.Service) ([]crust.NATServer, error) { return s.NAT().Servers, nil },
		func(e *crust.NATServer) { fillServer(out, e) })
}

// natServer gives the type a name outside of cgo.
type natServer = C.crust_nat_server

func fillServer(out *natServer, v *crust.NATServer) {
	putText(out.server[:], fit(v.Server, len(out.server)-1))
	if v.Seen.IsValid() {
		putText(out.seen[:], v.Seen.String())
	}
	if v.Err != nil {
		putText(out.error[:], fit(v.Err.Error(), len(out.error)-1))
	}
}

//export goCrustServiceNATPort
func goCrustServiceNATPort(h C.uint64_t, index C.uint32_t, out *C.crust_nat_port, why *C.char) (rc C.int32_t) {
	defer guard(h, why, &rc)
	return withEntry("crust_service_nat_port", h, index, why,
		func(s *crust.Service) ([]crust.MappedPort, error) { return s.NAT().Mapped, nil },
		func(e *crust.MappedPort) { fillPort(out, e, time.Now()) })
}

//export goCrustServiceNATSeen
func goCrustServiceNATSeen(h C.uint64_t, index C.uint32_t, out *C.crust_nat_seen, why *C.char) (rc C.int32_t) {
	defer guard(h, why, &rc)
	return withEntry("crust_service_nat_seen", h, index, why,
		func(s *crust.Service) ([]crust.NATSeen, error) { return s.NAT().Seen, nil },
		func(e *crust.NATSeen) { fillSeen(out, e) })
}

// natSeen gives the type a name outside of cgo.
type natSeen = C.crust_nat_seen

func fillSeen(out *natSeen, v *crust.NATSeen) {
	*peerID(&out.peer) = v.Peer
	putText(out.from[:], fit(v.From.String(), len(out.from)-1))
	putText(out.at[:], fit(v.At.String(), len(out.at)-1))
}

//export goCrustServiceLANPeer
func goCrustServiceLANPeer(h C.uint64_t, index C.uint32_t, out *C.crust_lan_peer, why *C.char) (rc C.int32_t) {
	defer guard(h, why, &rc)
	return withEntry("crust_service_lan_peer", h, index, why,
		func(s *crust.Service) ([]crust.LANPeer, error) { return s.PeersOnLAN(), nil },
		func(e *crust.LANPeer) { fillLANPeer(out, e, time.Now()) })
}

// lanPeer gives the type a name outside of cgo.
type lanPeer = C.crust_lan_peer

func fillLANPeer(out *lanPeer, p *crust.LANPeer, now time.Time) {
	out.role = C.uint32_t(p.Role)
	*peerID(&out.peer) = p.Peer
	out.heard_ms = C.uint64_t(max(now.Sub(p.Heard).Milliseconds(), 0))
	putLines(out.endpoints[:], p.Endpoints)
}

//export goCrustServiceKnown
func goCrustServiceKnown(h C.uint64_t, after *C.crust_peer_id, list *C.crust_known_peer, stride C.uint32_t, n *C.size_t, why *C.char) (rc C.int32_t) {
	defer guard(h, why, &rc)
	room := *n
	*n = 0
	return withService("crust_service_known", h, why, func(s *crust.Service) error {
		known := s.Known()
		if after != nil {
			known = knownAfter(known, *peerID(after))
		}
		if list != nil {
			known = known[:min(room, C.size_t(len(known)))]
			giveKnown(unsafe.Pointer(list), int(stride), known, time.Now())
		}
		*n = C.size_t(len(known))
		return nil
	})
}

// knownAfter returns those of a list in the order of ids whose ids come after one.
func knownAfter(known []crust.KnownPeer, id crust.PeerID) []crust.KnownPeer {
	i, found := slices.BinarySearchFunc(known, id, func(k crust.KnownPeer, id crust.PeerID) int { return k.Peer.Compare(id) })
	if found {
		i++
	}
	return known[i:]
}

// knownPeer gives the type a name outside of cgo.
type knownPeer = C.crust_known_peer

// giveKnown writes structs of a program's size, which may be less or more than ours.
func giveKnown(to unsafe.Pointer, stride int, known []crust.KnownPeer, now time.Time) {
	for i := range known {
		var k knownPeer
		fillKnown(&k, &known[i], now)
		k.struct_size = C.uint32_t(stride)
		field := unsafe.Slice((*byte)(unsafe.Add(to, i*stride)), stride)
		ours := unsafe.Slice((*byte)(unsafe.Pointer(&k)), unsafe.Sizeof(k))
		clear(field[copy(field, ours):])
	}
}

func fillKnown(out *knownPeer, p *crust.KnownPeer, now time.Time) {
	out.role, out.direct, out.relays = C.uint8_t(p.Role), flag(p.Direct), flag(p.Relays)
	*peerID(&out.peer) = p.Peer
	out.expires_ms = C.uint64_t(max(p.Expires.Sub(now).Milliseconds(), 1))
	putLines(out.endpoints[:], p.Endpoints)
}

// natPort gives the type a name outside of cgo.
type natPort = C.crust_nat_port

func fillPort(out *natPort, m *crust.MappedPort, now time.Time) {
	out.twice = C.uint32_t(flag(m.Double))
	if !m.Expires.IsZero() {
		out.expires_ms = C.uint64_t(max(m.Expires.Sub(now).Milliseconds(), 1))
	}
	putText(out.internal[:], m.Internal.String())
	if m.External.Addr.IsValid() {
		putText(out.external[:], m.External.String())
	}
	if m.Gateway.IsValid() {
		putText(out.gateway[:], fit(m.Gateway.String(), len(out.gateway)-1))
	}
	putText(out.means[:], fit(m.Means.String(), len(out.means)-1))
	if m.Err != nil {
		out.code = C.int32_t(crust.CodeOf(m.Err))
		putText(out.text[:], fit(m.Err.Error(), len(out.text)-1))
	}
}

func flag(b bool) C.uint8_t {
	if b {
		return 1
	}
	return 0
}

// putText writes text and a NUL into a field of fixed size that has room for both.
func putText(field []C.char, text string) {
	to := unsafe.Slice((*byte)(unsafe.Pointer(&field[0])), len(field))
	to[copy(to, text)] = 0
}
