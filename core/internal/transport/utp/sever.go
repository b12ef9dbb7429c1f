package utp

/*
#include "engine.h"
*/
import "C"

// Sever says that the path has ended: nothing comes or goes any more. What has
// been received can still be read; then, and for writes at once, the error is
// syscall.ECONNRESET, unless the peer had closed in order before.
func (p *Port) Sever() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.engine == nil || p.doomed {
		return
	}
	if p.engine.error == C.CRUST_UTP_FINE {
		p.engine.error = C.CRUST_UTP_RESET
	}
	pulse(p.readable)
	pulse(p.writable)
	p.settle()
}
