package main

// #include "shim_internal.h"
import "C"

import (
	"sync/atomic"
	"unsafe"

	crust "github.com/libcrust/libcrust/core"
)

// gate is the program's function that decides about peers. The configuration, each
// service that was made of it and each call hold it; who lets go of it last calls
// on_release.
type gate struct {
	fn        C.crust_gate_fn
	onRelease C.crust_release_fn
	user      C.uintptr_t // the program's, never followed: no pointer for Go
	refs      atomic.Int32
}

func (g *gate) hold() *gate {
	if g != nil {
		g.refs.Add(1)
	}
	return g
}

// heldGate returns the gate of a configuration, held.
func (c *config) heldGate() *gate {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gate.hold()
}

func (g *gate) drop() {
	if g != nil && g.refs.Add(-1) == 0 && g.onRelease != nil {
		C.crust__release_number(g.onRelease, g.user)
	}
}

// ask calls the function. The service that asks holds the gate.
func (g *gate) ask(r crust.GateRequest) bool {
	defer g.hold().drop()
	id := r.Peer
	at := append([]byte(r.Endpoint.String()), 0)
	app := append(r.AppID, 0) // so that it has an address
	outbound := C.uint8_t(0)
	if r.Outbound {
		outbound = 1
	}
	return C.crust__ask(g.fn, g.user, (*C.crust_peer_id)(unsafe.Pointer(&id)), unsafe.Pointer(&app[0]), C.size_t(len(app)-1),
		(*C.char)(unsafe.Pointer(&at[0])), C.uint8_t(r.How), C.uint8_t(r.Role), outbound) == 1
}

//export goCrustConfigSetGate
func goCrustConfigSetGate(p C.uintptr_t, fn C.crust_gate_fn, user C.uintptr_t, onRelease C.crust_release_fn, why *C.char) (rc C.int32_t) {
	defer guard(0, why, &rc)
	var before *gate
	err := edit("crust_config_set_gate", p, func(c *config) error {
		before, c.gate = c.gate, nil
		if fn != nil {
			c.gate = (&gate{fn: fn, onRelease: onRelease, user: user}).hold()
		}
		return nil
	})
	before.drop()
	return result(why, err)
}
