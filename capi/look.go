package main

// #include "shim_internal.h"
import "C"

import (
	"time"
	"unsafe"

	crust "github.com/libcrust/libcrust/core"
)

//export goCrustPeers
func goCrustPeers(h C.uint64_t, ids *C.crust_peer_id, n *C.size_t, why *C.char) (rc C.int32_t) {
	defer guard(h, why, &rc)
	return withService("crust_peers", h, why, func(s *crust.Service) error {
		peers := s.Peers()
		room := *n
		*n = C.size_t(len(peers))
		if ids == nil {
			return nil
		}
		if room < C.size_t(len(peers)) {
			return failure("crust_peers", crust.CodeBufferTooSmall, "there is room for %d ids, %d are needed", room, len(peers))
		}
		out := unsafe.Slice((*crust.PeerID)(unsafe.Pointer(ids)), len(peers))
		for i := range peers {
			out[i] = peers[i].Peer
		}
		return nil
	})
}

// Numbers of crust_peer_info.cipher.
const (
	cipherChaCha20Poly1305 = 1
	cipherAES256GCM        = 2
)

//export goCrustPeer
func goCrustPeer(h C.uint64_t, peer *C.crust_peer_id, out *C.crust_peer_info, why *C.char) (rc C.int32_t) {
	defer guard(h, why, &rc)
	return withService("crust_peer", h, why, func(s *crust.Service) error {
		info, ok := s.Peer(*peerID(peer))
		if !ok {
			return &crust.Error{Op: "crust_peer", Peer: *peerID(peer), Code: crust.CodeUnknownPeer}
		}
		fillPeer(out, &info)
		return nil
	})
}

func fillPeer(out *C.crust_peer_info, info *crust.PeerInfo) {
	out.how = C.uint8_t(info.How)
	out.role = C.uint8_t(info.Role)
	switch info.Cipher {
	case "ChaCha20-Poly1305":
		out.cipher = cipherChaCha20Poly1305
	case "AES-256-GCM":
		out.cipher = cipherAES256GCM
	}
	*peerID(&out.peer) = info.Peer
	putText(out.endpoint[:], fit(info.Endpoint.String(), len(out.endpoint)-1))
	out.rtt_us = C.uint64_t(max(info.RTT.Microseconds(), 0))
	out.age_us = C.uint64_t(max(time.Since(info.Since).Microseconds(), 0))
	out.sent_messages, out.sent_bytes = C.uint64_t(info.SentMessages), C.uint64_t(info.SentBytes)
	out.received_messages, out.received_bytes = C.uint64_t(info.ReceivedMessages), C.uint64_t(info.ReceivedBytes)
	out.dropped_messages = C.uint64_t(info.DroppedMessages)
	out.queued_bytes = C.uint64_t(info.QueuedBytes)
	out.unacked_bytes = C.uint64_t(info.UnackedBytes)
	if info.Suspended {
		out.suspended = 1
	}
	out.resumed = C.uint64_t(info.Resumed)
}

//export goCrustServiceStats
func goCrustServiceStats(h C.uint64_t, out *C.crust_stats, why *C.char) (rc C.int32_t) {
	defer guard(h, why, &rc)
	return withService("crust_service_stats", h, why, func(s *crust.Service) error {
		fillStats(out, s.Stats())
		return nil
	})
}

func fillStats(out *C.crust_stats, st crust.Stats) {
	out.peers, out.listeners = C.uint64_t(st.Peers), C.uint64_t(st.Listeners)
	out.handshakes, out.connects = C.uint64_t(st.Handshakes), C.uint64_t(st.Connects)
	out.sessions_total = C.uint64_t(st.SessionsTotal)
	out.handshakes_failed = C.uint64_t(st.HandshakesFailed)
	out.handshakes_evicted = C.uint64_t(st.HandshakesEvicted)
	out.connects_failed = C.uint64_t(st.ConnectsFailed)
	out.sent_messages, out.sent_bytes = C.uint64_t(st.SentMessages), C.uint64_t(st.SentBytes)
	out.received_messages, out.received_bytes = C.uint64_t(st.ReceivedMessages), C.uint64_t(st.ReceivedBytes)
	out.dropped_messages = C.uint64_t(st.DroppedMessages)
	out.wire_sent_bytes, out.wire_received_bytes = C.uint64_t(st.WireSentBytes), C.uint64_t(st.WireReceivedBytes)
	out.events_queued, out.event_bytes_queued = C.uint64_t(st.EventsQueued), C.uint64_t(st.EventBytesQueued)
	out.events_total = C.uint64_t(st.EventsTotal)
	out.backpressure_pauses = C.uint64_t(st.BackpressurePauses)
	out.sent_datagrams, out.received_datagrams = C.uint64_t(st.SentDatagrams), C.uint64_t(st.ReceivedDatagrams)
	out.lost_datagrams = C.uint64_t(st.LostDatagrams)
	out.circuits, out.carried_bytes = C.uint64_t(st.Circuits), C.uint64_t(st.CarriedBytes)
	out.known = C.uint64_t(st.Known)
	out.refused_connections = C.uint64_t(st.RefusedConnections)
	out.refused_handshakes = C.uint64_t(st.RefusedHandshakes)
	out.refused_files = C.uint64_t(st.RefusedFiles)
	out.refused_sessions = C.uint64_t(st.RefusedSessions)
	out.shed_sessions = C.uint64_t(st.ShedSessions)
	out.rate_pauses = C.uint64_t(st.RatePauses)
	out.alerts = C.uint64_t(st.Alerts)
	out.suppressed_alerts = C.uint64_t(st.SuppressedAlerts)
	out.resumptions = C.uint64_t(st.Resumptions)
	out.refused_banned = C.uint64_t(st.RefusedBanned)
	out.memory_bytes = C.uint64_t(st.MemoryBytes)
	out.refused_memory = C.uint64_t(st.RefusedMemory)
	out.dropped_logs = C.uint64_t(st.DroppedLogs)
	out.refused_help = C.uint64_t(st.RefusedHelp)
}
