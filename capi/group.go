package main

// #include "shim_internal.h"
import "C"

import (
	"fmt"
	"slices"
	"time"
	"unsafe"

	crust "github.com/libcrust/libcrust/core"
)

// group gives the type a name outside of cgo.
type group = C.crust_group

//export goCrustServiceKeep
func goCrustServiceKeep(h C.uint64_t, g *C.crust_group, why *C.char) (rc C.int32_t) {
	defer guard(h, why, &rc)
	return withService("crust_service_keep", h, why, func(s *crust.Service) error {
		k, err := readGroup(g)
		if err != nil {
			return err
		}
		return s.Keep(k)
	})
}

// readGroup copies a group whose pointers and lengths the shim has checked.
func readGroup(g *group) (crust.Group, error) {
	k := crust.Group{Name: C.GoString(g.name), Any: int(g.any)}
	if g.role > C.CRUST_ROLE_CLIENT {
		return k, fmt.Errorf("role %d is unknown", g.role)
	}
	k.Role = crust.Role(g.role)
	k.Peers = slices.Clone(unsafe.Slice((*crust.PeerID)(unsafe.Pointer(g.peers)), int(g.n_peers)))
	for i, text := range unsafe.Slice(g.contacts, int(g.n_contacts)) {
		c, err := crust.ParseContact(C.GoString(text))
		if err != nil {
			return k, fmt.Errorf("contact %d: %w", i+1, err)
		}
		k.Contacts = append(k.Contacts, c)
	}
	lens := unsafe.Slice(g.info_lens, int(g.n_infos))
	for i, info := range unsafe.Slice(g.infos, int(g.n_infos)) {
		k.Infos = append(k.Infos, own(info, lens[i]))
	}
	return k, nil
}

//export goCrustServiceRelease
func goCrustServiceRelease(h C.uint64_t, name *C.char, why *C.char) (rc C.int32_t) {
	defer guard(h, why, &rc)
	return withService("crust_service_release", h, why, func(s *crust.Service) error { return s.Release(C.GoString(name)) })
}

//export goCrustServiceGroup
func goCrustServiceGroup(h C.uint64_t, index C.uint32_t, out *C.crust_group_info, why *C.char) (rc C.int32_t) {
	defer guard(h, why, &rc)
	return withEntry("crust_service_group", h, index, why,
		func(s *crust.Service) ([]crust.GroupInfo, error) { return s.Groups(), nil },
		func(e *crust.GroupInfo) { fillGroup(out, e) })
}

// groupInfo gives the type a name outside of cgo.
type groupInfo = C.crust_group_info

func fillGroup(out *groupInfo, g *crust.GroupInfo) {
	out.any, out.role = C.uint32_t(g.Any), C.uint32_t(g.Role)
	out.up, out.wanted = C.uint32_t(g.Up), C.uint32_t(g.Wanted)
	out.next_ms = wholeMillis(g.Next)
	putText(out.name[:], fit(g.Name, len(out.name)-1))
	if g.Err != nil {
		out.code = C.int32_t(crust.CodeOf(g.Err))
		putText(out.text[:], fit(g.Err.Error(), len(out.text)-1))
	}
}

//export goCrustServiceGroupPeer
func goCrustServiceGroupPeer(h C.uint64_t, name *C.char, index C.uint32_t, out *C.crust_group_peer, why *C.char) (rc C.int32_t) {
	defer guard(h, why, &rc)
	return withEntry("crust_service_group_peer", h, index, why,
		func(s *crust.Service) ([]crust.GroupPeer, error) { return groupPeers(s.Groups(), C.GoString(name)) },
		func(e *crust.GroupPeer) { fillGroupPeer(out, e) })
}

func groupPeers(groups []crust.GroupInfo, name string) ([]crust.GroupPeer, error) {
	i := slices.IndexFunc(groups, func(g crust.GroupInfo) bool { return g.Name == name })
	if i < 0 {
		return nil, failure("crust_service_group_peer", crust.CodeInvalid, "there is no group %.80q", name)
	}
	return groups[i].Peers, nil
}

// groupPeer gives the type a name outside of cgo.
type groupPeer = C.crust_group_peer

func fillGroupPeer(out *groupPeer, p *crust.GroupPeer) {
	out.state, out.tries = C.uint32_t(p.State), C.uint32_t(p.Tries)
	out.next_ms = wholeMillis(p.Next)
	*peerID(&out.peer) = p.Peer
	if p.Err != nil {
		out.code = C.int32_t(crust.CodeOf(p.Err))
		putText(out.text[:], fit(p.Err.Error(), len(out.text)-1))
	}
}

// wholeMillis is a time in milliseconds, at least one unless it is zero.
func wholeMillis(d time.Duration) C.uint64_t {
	if d <= 0 {
		return 0
	}
	return C.uint64_t(max(d.Milliseconds(), 1))
}
