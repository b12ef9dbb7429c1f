package main

// #include "shim_internal.h"
import "C"

import (
	"slices"
	"strings"
	"unsafe"

	crust "github.com/libcrust/libcrust/core"
)

//export goCrustServiceNAT
func goCrustServiceNAT(h C.uint64_t, out *C.crust_nat, udp, tcp *C.crust_nat_flow, why *C.char) (rc C.int32_t) {
	defer guard(h, why, &rc)
	return withService("crust_service_nat", h, why, func(s *crust.Service) error {
		r := s.NAT()
		out.reachable, out.cgnat = flag(r.Reachable), flag(r.CGNAT)
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
	lines := ""
	for _, at := range f.External {
		line := at.String() + "\n"
		if len(lines)+len(line) > len(out.external) {
			break
		}
		lines += line
	}
	putText(out.external[:], strings.TrimSuffix(lines, "\n"))
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
