package main

// #include "shim_internal.h"
import "C"

import (
	"context"
	"errors"
	"sync"
	"time"
	"unsafe"

	crust "github.com/libcrust/libcrust/core"
)

// sendRun is how many messages of crust_send_batch go to core at once.
const sendRun = 256

var sendRuns = sync.Pool{New: func() any { return new([sendRun]crust.Message) }}

//export goCrustSend
func goCrustSend(h C.uint64_t, peer *C.crust_peer_id, data unsafe.Pointer, n C.size_t, priority C.uint8_t, why *C.char) (rc C.int32_t) {
	defer guard(h, why, &rc)
	s, err := sound("crust_send", h)
	if err != nil {
		return result(why, err)
	}
	return result(why, s.core.Send(*peerID(peer), borrow(data, n), uint8(priority)))
}

//export goCrustSendWait
func goCrustSendWait(h C.uint64_t, peer *C.crust_peer_id, data unsafe.Pointer, n C.size_t, priority C.uint8_t, timeoutMS C.int32_t, why *C.char) (rc C.int32_t) {
	defer guard(h, why, &rc)
	s, err := sound("crust_send_wait", h)
	if err != nil {
		return result(why, err)
	}
	limit := patience{limit: time.Duration(timeoutMS) * time.Millisecond}
	defer limit.stop()
	return result(why, s.core.SendWait(&limit, *peerID(peer), borrow(data, n), uint8(priority)))
}

//export goCrustSendReceipt
func goCrustSendReceipt(h C.uint64_t, peer *C.crust_peer_id, data unsafe.Pointer, n C.size_t, priority C.uint8_t, token C.uint64_t, why *C.char) (rc C.int32_t) {
	defer guard(h, why, &rc)
	s, err := sound("crust_send_receipt", h)
	if err != nil {
		return result(why, err)
	}
	return result(why, s.core.SendReceipt(*peerID(peer), borrow(data, n), uint8(priority), uint64(token)))
}

//export goCrustSendDatagram
func goCrustSendDatagram(h C.uint64_t, peer *C.crust_peer_id, data unsafe.Pointer, n C.size_t, why *C.char) (rc C.int32_t) {
	defer guard(h, why, &rc)
	s, err := sound("crust_send_datagram", h)
	if err != nil {
		return result(why, err)
	}
	return result(why, s.core.SendDatagram(*peerID(peer), borrow(data, n)))
}

//export goCrustMaxDatagram
func goCrustMaxDatagram(h C.uint64_t, peer *C.crust_peer_id, why *C.char) (rc C.int32_t) {
	defer guard(h, why, &rc)
	s, err := sound("crust_max_datagram", h)
	if err != nil {
		return result(why, err)
	}
	fits, err := s.core.MaxDatagram(*peerID(peer))
	if err != nil {
		return result(why, err)
	}
	return C.int32_t(fits)
}

// patience is a context that ends when limit has passed since Done was first
// called, and never when limit is negative. A SendWait that need not wait
// starts no timer.
type patience struct {
	limit time.Duration

	once   sync.Once
	ctx    context.Context
	cancel context.CancelFunc
}

func (p *patience) begin() {
	p.once.Do(func() {
		if p.limit < 0 {
			p.ctx, p.cancel = context.Background(), func() {}
		} else {
			p.ctx, p.cancel = context.WithTimeout(context.Background(), p.limit)
		}
	})
}

func (p *patience) stop() {
	if p.cancel != nil {
		p.cancel()
	}
}

// Done implements context.Context.
func (p *patience) Done() <-chan struct{} {
	p.begin()
	return p.ctx.Done()
}

// Err implements context.Context.
func (p *patience) Err() error {
	if p.cancel == nil {
		return nil
	}
	return p.ctx.Err()
}

// Deadline implements context.Context.
func (p *patience) Deadline() (time.Time, bool) {
	p.begin()
	return p.ctx.Deadline()
}

// Value implements context.Context.
func (p *patience) Value(any) any { return nil }

//export goCrustSendBatch
func goCrustSendBatch(h C.uint64_t, messages *C.crust_message, n C.size_t, code *C.int32_t, why *C.char) (rc C.int32_t) {
	defer guard(h, why, &rc)
	s, err := sound("crust_send_batch", h)
	if err != nil {
		return result(why, err)
	}
	sent, err := s.sendBatch(unsafe.Slice(messages, int(n)))
	*code = result(why, err)
	return C.int32_t(sent)
}

// sendBatch sends until a message is refused. The messages' memory is C's; core
// copies what it accepts before it returns.
func (s *service) sendBatch(messages []C.crust_message) (sent int, err error) {
	run := sendRuns.Get().(*[sendRun]crust.Message)
	used := 0
	defer func() {
		clear(run[:used])
		sendRuns.Put(run)
	}()
	for sent < len(messages) {
		part := messages[sent:min(sent+sendRun, len(messages))]
		n, bad := convert(run[:len(part)], part)
		used = max(used, n)
		accepted, err := s.core.SendBatch(run[:n])
		sent += accepted
		if err != nil || bad != nil {
			return sent, errors.Join(err, bad)
		}
	}
	return sent, nil
}

var zeros [7]C.uint8_t

// convert turns messages of C into messages of Go until one is malformed, and
// returns how many and why.
func convert(to []crust.Message, from []C.crust_message) (int, error) {
	for i := range from {
		m := &from[i]
		switch {
		case m.peer == nil:
			return i, failure("crust_send_batch", crust.CodeInvalid, "the message's peer is NULL")
		case m.data == nil && m.len != 0:
			return i, failure("crust_send_batch", crust.CodeInvalid, "the message's data is NULL but its len is %d", uint64(m.len))
		case m.reserved != zeros:
			return i, failure("crust_send_batch", crust.CodeInvalid, "the message's reserved bytes are not 0")
		case m.len > crust.MaxMessage:
			return i, failure("crust_send_batch", crust.CodeTooBig, "the message has %d bytes, at most %d are allowed", uint64(m.len), crust.MaxMessage)
		}
		to[i] = crust.Message{Peer: *peerID(m.peer), Data: borrow(m.data, C.size_t(m.len)), Priority: uint8(m.priority)}
	}
	return len(from), nil
}
