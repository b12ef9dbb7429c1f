package main

// #include "shim_internal.h"
import "C"

import (
	"fmt"
	"math"
	"strings"
	"unsafe"

	crust "github.com/libcrust/libcrust/core"
)

// withService finds a sound service and does something with it.
func withService(op string, h C.uint64_t, why *C.char, do func(*crust.Service) error) C.int32_t {
	s, err := sound(op, h)
	if err == nil {
		err = invalid(op, do(s.core))
	}
	return result(why, err)
}

// withEntry gives out one of a list of a service by its index, where there is one, and
// returns how many there are.
func withEntry[T any](op string, h C.uint64_t, index C.uint32_t, why *C.char, list func(*crust.Service) ([]T, error), give func(*T)) C.int32_t {
	count := 0
	rc := withService(op, h, why, func(s *crust.Service) error {
		all, err := list(s)
		if count = len(all); uint64(index) < uint64(count) {
			give(&all[index])
		}
		return err
	})
	if rc == C.CRUST_OK {
		rc = C.int32_t(count)
	}
	return rc
}

//export goCrustPrepareConnectionInfo
func goCrustPrepareConnectionInfo(h C.uint64_t, token C.uint64_t, why *C.char) (rc C.int32_t) {
	defer guard(h, why, &rc)
	return withService("crust_prepare_connection_info", h, why, func(s *crust.Service) error {
		return s.PrepareConnectionInfo(uint64(token))
	})
}

//export goCrustConnect
func goCrustConnect(h C.uint64_t, info unsafe.Pointer, n C.size_t, token C.uint64_t, why *C.char) (rc C.int32_t) {
	defer guard(h, why, &rc)
	return withService("crust_connect", h, why, func(s *crust.Service) error {
		return s.Connect(own(info, n), uint64(token))
	})
}

//export goCrustConnectEndpoint
func goCrustConnectEndpoint(h C.uint64_t, text *C.char, token C.uint64_t, why *C.char) (rc C.int32_t) {
	defer guard(h, why, &rc)
	return withService("crust_connect_endpoint", h, why, func(s *crust.Service) error {
		contact, err := crust.ParseContact(C.GoString(text))
		if err != nil {
			return err
		}
		return s.ConnectEndpoint(contact, uint64(token))
	})
}

//export goCrustConnectPeer
func goCrustConnectPeer(h C.uint64_t, peer *C.crust_peer_id, token C.uint64_t, why *C.char) (rc C.int32_t) {
	defer guard(h, why, &rc)
	return withService("crust_service_connect_peer", h, why, func(s *crust.Service) error {
		return s.ConnectPeer(*peerID(peer), uint64(token))
	})
}

//export goCrustConnectPeerWith
func goCrustConnectPeerWith(h C.uint64_t, peer *C.crust_peer_id, first *unsafe.Pointer, sizes *C.size_t, n C.size_t, token C.uint64_t, why *C.char) (rc C.int32_t) {
	defer guard(h, why, &rc)
	return withService("crust_service_connect_peer_with", h, why, func(s *crust.Service) error {
		list, at, lens := make([][]byte, n), unsafe.Slice(first, n), unsafe.Slice(sizes, n)
		for i := range list {
			list[i] = borrow(at[i], lens[i])
		}
		return s.ConnectPeer(*peerID(peer), uint64(token), list...)
	})
}

//export goCrustConnectionInfoPeer
func goCrustConnectionInfoPeer(info unsafe.Pointer, n C.size_t, out *C.crust_peer_id, why *C.char) (rc C.int32_t) {
	defer guard(0, why, &rc)
	id, _, err := crust.ParseConnectionInfo(own(info, n))
	if err == nil {
		*peerID(out) = id
	}
	return result(why, err)
}

//export goCrustDisconnect
func goCrustDisconnect(h C.uint64_t, peer *C.crust_peer_id, why *C.char) (rc C.int32_t) {
	defer guard(h, why, &rc)
	return withService("crust_disconnect", h, why, func(s *crust.Service) error { return s.Disconnect(*peerID(peer)) })
}

//export goCrustBootstrap
func goCrustBootstrap(h C.uint64_t, token C.uint64_t, why *C.char) (rc C.int32_t) {
	defer guard(h, why, &rc)
	return withService("crust_bootstrap", h, why, func(s *crust.Service) error { return s.Bootstrap(uint64(token)) })
}

//export goCrustBootstrapExcept
func goCrustBootstrapExcept(h C.uint64_t, except **C.char, n C.size_t, token C.uint64_t, why *C.char) (rc C.int32_t) {
	defer guard(h, why, &rc)
	return withService("crust_bootstrap_except", h, why, func(s *crust.Service) error {
		list := make([]crust.Contact, 0, n)
		for i, text := range unsafe.Slice(except, int(n)) {
			c, err := readExcept(C.GoString(text))
			if err != nil {
				return fmt.Errorf("contact %d: %w", i+1, err)
			}
			list = append(list, c)
		}
		return s.BootstrapExcept(uint64(token), list)
	})
}

// readExcept reads an endpoint, a peer after "#", or both.
func readExcept(text string) (c crust.Contact, err error) {
	if id, ok := strings.CutPrefix(text, "#"); ok {
		c.Peer, err = crust.ParsePeerID(id)
		return c, err
	}
	return crust.ParseContact(text)
}

//export goCrustStopBootstrap
func goCrustStopBootstrap(h C.uint64_t, why *C.char) (rc C.int32_t) {
	defer guard(h, why, &rc)
	return withService("crust_stop_bootstrap", h, why, func(s *crust.Service) error {
		s.StopBootstrap()
		return nil
	})
}

//export goCrustListen
func goCrustListen(h C.uint64_t, text *C.char, why *C.char) (rc C.int32_t) {
	defer guard(h, why, &rc)
	return withService("crust_listen", h, why, func(s *crust.Service) error {
		ep, err := crust.ParseEndpoint(C.GoString(text))
		if err != nil {
			return err
		}
		_, err = s.Listen(ep)
		return err
	})
}

//export goCrustStopListening
func goCrustStopListening(h C.uint64_t, text *C.char, why *C.char) (rc C.int32_t) {
	defer guard(h, why, &rc)
	return withService("crust_stop_listening", h, why, func(s *crust.Service) error {
		ep, err := crust.ParseEndpoint(C.GoString(text))
		if err != nil {
			return err
		}
		return s.StopListening(ep)
	})
}

//export goCrustListeners
func goCrustListeners(h C.uint64_t, buf *C.char, n *C.size_t, why *C.char) (rc C.int32_t) {
	defer guard(h, why, &rc)
	return withService("crust_listeners", h, why, func(s *crust.Service) error {
		var lines []string
		for _, ep := range s.Listeners() {
			lines = append(lines, ep.String())
		}
		text := strings.Join(lines, "\n")
		room, need := *n, C.size_t(len(text)+1)
		*n = need
		if buf == nil {
			return nil
		}
		if room < need {
			return failure("crust_listeners", crust.CodeBufferTooSmall, "the buffer has %d bytes, %d are needed", room, need)
		}
		out := unsafe.Slice((*byte)(unsafe.Pointer(buf)), int(need))
		out[copy(out, text)] = 0
		return nil
	})
}

//export goCrustSetAccept
func goCrustSetAccept(h C.uint64_t, accept C.int, why *C.char) (rc C.int32_t) {
	defer guard(h, why, &rc)
	return withService("crust_set_accept", h, why, func(s *crust.Service) error {
		s.SetAccept(accept == 1)
		return nil
	})
}

//export goCrustSetBeacon
func goCrustSetBeacon(h C.uint64_t, mode C.uint32_t, why *C.char) (rc C.int32_t) {
	defer guard(h, why, &rc)
	return withService("crust_set_beacon", h, why, func(s *crust.Service) error {
		return s.SetBeacon(crust.BeaconMode(min(mode, math.MaxUint8)))
	})
}

//export goCrustNetworkChanged
func goCrustNetworkChanged(h C.uint64_t, why *C.char) (rc C.int32_t) {
	defer guard(h, why, &rc)
	return withService("crust_service_network_changed", h, why, func(s *crust.Service) error {
		s.NetworkChanged()
		return nil
	})
}
