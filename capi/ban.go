package main

// #include "shim_internal.h"
import "C"

import (
	"fmt"
	"math"
	"net/netip"
	"time"
	"unsafe"

	crust "github.com/libcrust/libcrust/core"
)

// readTexts reads an array of texts, each by parse.
func readTexts[T any](what string, texts **C.char, n C.size_t, parse func(string) (T, error)) ([]T, error) {
	list := make([]T, 0, n)
	for i, text := range unsafe.Slice(texts, int(n)) {
		v, err := parse(C.GoString(text))
		if err != nil {
			return nil, fmt.Errorf("%s %d: %w", what, i+1, err)
		}
		list = append(list, v)
	}
	return list, nil
}

//export goCrustBan
func goCrustBan(h C.uint64_t, who **C.char, n C.size_t, ms C.uint64_t, reason, why *C.char) (rc C.int32_t) {
	defer guard(h, why, &rc)
	return withService("crust_ban", h, why, func(s *crust.Service) error {
		list, err := readTexts("entry", who, n, crust.ParseBan)
		if err != nil {
			return err
		}
		if ms > math.MaxInt64/C.uint64_t(time.Millisecond) {
			return fmt.Errorf("%d ms are too many", ms)
		}
		text := C.GoString(reason)
		for i := range list {
			list[i].Reason = text
		}
		return s.Ban(list, time.Duration(ms)*time.Millisecond)
	})
}

//export goCrustUnban
func goCrustUnban(h C.uint64_t, who **C.char, n C.size_t, why *C.char) (rc C.int32_t) {
	defer guard(h, why, &rc)
	lifted := 0
	rc = withService("crust_unban", h, why, func(s *crust.Service) error {
		list, err := readTexts("entry", who, n, crust.ParseBan)
		if err == nil {
			lifted, err = s.Unban(list)
		}
		return err
	})
	if rc == C.CRUST_OK {
		rc = C.int32_t(lifted)
	}
	return rc
}

//export goCrustBans
func goCrustBans(h C.uint64_t, bans *C.crust_ban_info, size C.uint32_t, n *C.size_t, why *C.char) (rc C.int32_t) {
	defer guard(h, why, &rc)
	return withService("crust_bans", h, why, func(s *crust.Service) error {
		list := s.Bans()
		room := *n
		*n = C.size_t(len(list))
		if bans == nil {
			return nil
		}
		if room < C.size_t(len(list)) {
			return failure("crust_bans", crust.CodeBufferTooSmall, "there is room for %d bans, %d are needed", room, len(list))
		}
		now := time.Now()
		for i := range list {
			var out C.crust_ban_info
			putText(out.who[:], list[i].String())
			putText(out.reason[:], list[i].Reason)
			if !list[i].Until.IsZero() {
				out.left_ms = C.uint64_t(max(list[i].Until.Sub(now).Milliseconds(), 1))
			}
			C.crust__give_ban(bans, size, C.size_t(i), &out)
		}
		return nil
	})
}

//export goCrustSetAllowed
func goCrustSetAllowed(h C.uint64_t, nodes **C.char, nNodes C.size_t, clients **C.char, nClients C.size_t, why *C.char) (rc C.int32_t) {
	defer guard(h, why, &rc)
	return withService("crust_set_allowed", h, why, func(s *crust.Service) error {
		var lists [2][]netip.Prefix
		var err error
		if lists[0], err = readTexts("prefix of nodes", nodes, nNodes, crust.ParsePrefix); err != nil {
			return err
		}
		if lists[1], err = readTexts("prefix of clients", clients, nClients, crust.ParsePrefix); err != nil {
			return err
		}
		return s.SetAllowed(lists[0], lists[1])
	})
}

//export goCrustConfigAddBan
func goCrustConfigAddBan(p C.uintptr_t, who, why *C.char) (rc C.int32_t) {
	defer guard(0, why, &rc)
	return result(why, edit("crust_config_add_ban", p, func(c *config) error {
		e, err := crust.ParseBan(C.GoString(who))
		if err == nil {
			c.cfg.Bans = append(c.cfg.Bans, e)
		}
		return err
	}))
}

//export goCrustConfigAddAllowed
func goCrustConfigAddAllowed(p C.uintptr_t, role C.uint32_t, prefix, why *C.char) (rc C.int32_t) {
	defer guard(0, why, &rc)
	return result(why, edit("crust_config_add_allowed", p, func(c *config) error {
		at, err := crust.ParsePrefix(C.GoString(prefix))
		switch {
		case err != nil:
			return err
		case role == C.CRUST_ROLE_NODE:
			c.cfg.AllowNodes = append(c.cfg.AllowNodes, at)
		case role == C.CRUST_ROLE_CLIENT:
			c.cfg.AllowClients = append(c.cfg.AllowClients, at)
		default:
			return fmt.Errorf("role %d is unknown", role)
		}
		return nil
	}))
}
