package main

// #include "shim_internal.h"
import "C"

import (
	"math"
	"sync"
	"unsafe"

	crust "github.com/libcrust/libcrust/core"
)

const (
	// maxBatchEvents bounds a batch, so that indexes and sizes stay small.
	maxBatchEvents = 1 << 16
	// fetchEvents is how many events are fetched from core at once when the
	// program sets no limit.
	fetchEvents = 4096
	// targetBytes is where a batch ends: the block of 256 KiB less its header.
	// Such a block stays in a core's second-level cache between filling and
	// reading. A message larger than that has a batch of its own.
	targetBytes = 256<<10 - C.sizeof_struct_crust_batch
)

// event is crust_event as Go sees it: with numbers where C has pointers, so that
// the garbage collector never looks at memory of C.
type event struct {
	kind      uint32
	code      int32
	priority  uint8
	role      uint8
	how       uint8
	reserved0 uint8
	count     uint32
	token     uint64
	peer      uintptr
	data      uintptr
	size      uint64
	endpoint  uintptr
	text      uintptr
	tookUS    uint64
	bytes     uint64
	reserved1 uint64
}

// The two layouts are one: each line fails to compile when they differ.
const (
	_ = -(unsafe.Sizeof(event{}) ^ unsafe.Sizeof(C.crust_event{}))
	_ = -(unsafe.Offsetof(event{}.code) ^ unsafe.Offsetof(C.crust_event{}.code))
	_ = -(unsafe.Offsetof(event{}.priority) ^ unsafe.Offsetof(C.crust_event{}.priority))
	_ = -(unsafe.Offsetof(event{}.role) ^ unsafe.Offsetof(C.crust_event{}.role))
	_ = -(unsafe.Offsetof(event{}.how) ^ unsafe.Offsetof(C.crust_event{}.how))
	_ = -(unsafe.Offsetof(event{}.count) ^ unsafe.Offsetof(C.crust_event{}.count))
	_ = -(unsafe.Offsetof(event{}.token) ^ unsafe.Offsetof(C.crust_event{}.token))
	_ = -(unsafe.Offsetof(event{}.peer) ^ unsafe.Offsetof(C.crust_event{}.peer))
	_ = -(unsafe.Offsetof(event{}.data) ^ unsafe.Offsetof(C.crust_event{}.data))
	_ = -(unsafe.Offsetof(event{}.size) ^ unsafe.Offsetof(C.crust_event{}.len))
	_ = -(unsafe.Offsetof(event{}.endpoint) ^ unsafe.Offsetof(C.crust_event{}.endpoint))
	_ = -(unsafe.Offsetof(event{}.text) ^ unsafe.Offsetof(C.crust_event{}.text))
	_ = -(unsafe.Offsetof(event{}.tookUS) ^ unsafe.Offsetof(C.crust_event{}.took_us))
	_ = -(unsafe.Offsetof(event{}.bytes) ^ unsafe.Offsetof(C.crust_event{}.bytes))
	_ = -(unsafe.Offsetof(event{}.reserved1) ^ unsafe.Offsetof(C.crust_event{}.reserved1))
	_ = -(unsafe.Sizeof(crust.PeerID{}) ^ unsafe.Sizeof(C.crust_peer_id{}))
)

const eventSize = int(unsafe.Sizeof(event{}))

// source holds the events that were fetched from core and not yet packed for the
// program.
type source struct {
	mu    sync.Mutex
	batch crust.Batch
	at    int // events of batch that are packed
}

// fetchLimit is how many events to fetch for a program that wants limit, 0
// meaning any number.
func fetchLimit(limit int) int {
	if limit == 0 {
		return fetchEvents
	}
	return limit
}

func (s *source) empty() bool { return s.at == len(s.batch.Events) }

// refill replaces what is used up.
func (s *source) refill(batch crust.Batch) {
	s.batch.Release()
	s.batch, s.at = batch, 0
}

// release gives everything back to core.
func (s *source) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refill(crust.Batch{})
}

// pack moves events into memory of C: at most limit unless limit is 0, and about
// targetBytes. stopped says that the service's last event is among them.
func (s *source) pack(limit int) (b *C.crust_batch, n int, stopped bool, err error) {
	events := s.batch.Events[s.at:]
	if limit > 0 && limit < len(events) {
		events = events[:limit]
	}
	n, size := measure(events)
	if n == 0 {
		return nil, 0, false, nil
	}
	b = C.crust__batch_new(C.size_t(size))
	if b == nil {
		return nil, 0, false, failure("crust_poll", crust.CodeNoMemory, "no memory for a batch of %d bytes", size)
	}
	fill(b, events[:n], size)
	stopped = events[n-1].Type == crust.EventStopped
	s.at += n
	if s.empty() {
		s.refill(crust.Batch{})
	}
	return b, n, stopped, nil
}

// batchPointer gives the type a name outside of cgo.
type batchPointer = *C.crust_batch

// eventsOf returns where a batch's events are, and behind them all they point to.
func eventsOf(b *C.crust_batch) unsafe.Pointer {
	return unsafe.Add(unsafe.Pointer(b), C.sizeof_struct_crust_batch)
}

// freeBatch gives a batch back that no program has seen.
func freeBatch(b *C.crust_batch) { C.crust_batch_free(b) }

// rounded is the room that n bytes take: everything begins at a multiple of 8.
func rounded(n int) int { return (n + 7) &^ 7 }

// measure returns how many of events go into one batch and the memory they need.
func measure(events []crust.Event) (n, size int) {
	size = 8 // so that the data of an empty message points into the memory too
	var last *crust.PeerID
	for i := range events {
		e := &events[i]
		need := eventSize + rounded(len(e.Data))
		if last == nil || *last != e.Peer {
			need += rounded(len(e.Peer))
		}
		if !common(e) {
			need += rareSize(e)
		}
		if n > 0 && (size+need > targetBytes || n == maxBatchEvents) {
			break
		}
		last = &e.Peer
		size += need
		n++
	}
	return n, size
}

// common says that an event may come by the million and carries nothing but a
// peer, data and a priority.
func common(e *crust.Event) bool {
	return e.Type == crust.EventMessage || e.Type == crust.EventDatagram
}

// rare is what only rare events carry.
type rare struct {
	data           []byte
	endpoint, text string
}

func rareOf(e *crust.Event) rare {
	r := rare{data: e.Data, endpoint: e.Endpoint().String()}
	switch e.Type {
	case crust.EventConnected:
		r.data = e.AppID()
	case crust.EventPortMapped, crust.EventPortUnmapped:
		r.data = []byte(e.Internal().String())
	case crust.EventGroup:
		r.data = []byte(e.Group())
	case crust.EventLog:
		r.data, r.text = e.Log().Attrs, fit(e.Log().Message, math.MaxInt)
	case crust.EventAlert:
		a := e.Alert()
		r.data, r.endpoint, r.text = []byte(a.Suggest.String()), crust.BanTarget{Prefix: a.Address}.String(), a.Text()
	}
	if err := e.Err(); err != nil {
		r.text = fit(err.Error(), math.MaxInt)
	}
	return r
}

// rareSize is the room for what measure has not counted.
func rareSize(e *crust.Event) int {
	r := rareOf(e)
	return rounded(len(r.data)) - rounded(len(e.Data)) + rounded(len(r.endpoint)+1) + rounded(len(r.text)+1)
}

// region is the memory behind the events of a batch.
type region struct {
	bytes []byte // from the events on
	base  uintptr
	at    int
}

// put copies data into the region and returns its address.
func (r *region) put(data []byte) uintptr {
	at := r.at
	copy(r.bytes[at:], data)
	r.at = at + rounded(len(data))
	return r.base + uintptr(at)
}

// putString copies text and a NUL; no text is the null pointer.
func (r *region) putString(text string) uintptr {
	if text == "" {
		return 0
	}
	at := r.at
	r.bytes[at+copy(r.bytes[at:], text)] = 0
	r.at = at + rounded(len(text)+1)
	return r.base + uintptr(at)
}

// fill writes events into b, whose memory measure has found.
func fill(b *C.crust_batch, events []crust.Event, size int) {
	base := eventsOf(b)
	out := unsafe.Slice((*event)(base), len(events))
	mem := region{bytes: unsafe.Slice((*byte)(base), size), base: uintptr(base), at: len(events) * eventSize}
	var last *crust.PeerID
	var peer uintptr
	for i := range events {
		e := &events[i]
		if last == nil || *last != e.Peer {
			peer = 0
			if !e.Peer.IsZero() {
				peer = mem.put(e.Peer[:])
			}
			last = &e.Peer
		}
		o := &out[i]
		if common(e) {
			*o = event{
				kind: uint32(e.Type), priority: e.Priority, peer: peer,
				size: uint64(len(e.Data)), data: mem.put(e.Data),
			}
			continue
		}
		fillRare(o, e, &mem)
		o.peer = peer
	}
	b.events = C.size_t(len(events))
	b.used = C.size_t(size)
}

// packStopped makes a batch of one STOPPED, nil when there is no memory.
func packStopped(code crust.Code, text string) *C.crust_batch {
	text = fit(text, 4<<10)
	size := eventSize + rounded(len(text)+1)
	b := C.crust__batch_new(C.size_t(size))
	if b == nil {
		return nil
	}
	base := eventsOf(b)
	mem := region{bytes: unsafe.Slice((*byte)(base), size), base: uintptr(base), at: eventSize}
	*(*event)(base) = event{kind: uint32(crust.EventStopped), code: int32(code), text: mem.putString(text)}
	b.events, b.used = 1, C.size_t(size)
	return b
}

// fillRare writes all of an event that is not common, but for its peer.
func fillRare(o *event, e *crust.Event, mem *region) {
	r := rareOf(e)
	*o = event{
		kind: uint32(e.Type), code: int32(e.Code()), priority: e.Priority,
		role: uint8(e.Role()), how: uint8(e.How()), count: uint32(min(e.Count(), math.MaxUint32)),
		token: e.Token, size: uint64(len(r.data)), tookUS: uint64(max(e.Took().Microseconds(), 0)), bytes: e.Bytes(),
		endpoint: mem.putString(r.endpoint), text: mem.putString(r.text),
	}
	if means := e.Means(); means != 0 {
		o.count, o.tookUS = uint32(means), uint64(max(e.Lease().Microseconds(), 0))
	}
	if by := e.By(); by != 0 {
		o.count = uint32(by)
	}
	if state := e.State(); state != 0 {
		o.how, o.bytes, o.tookUS = uint8(state), e.Wanted(), uint64(max(e.Next().Microseconds(), 0))
	}
	if e.Type == crust.EventLog {
		o.priority, o.tookUS = logLevel(e.Log().Level), uint64(max(e.Log().Time.UnixMicro(), 0))
	}
	if a := e.Alert(); a.Kind != 0 {
		o.how, o.count, o.bytes = uint8(a.Kind), uint32(min(a.Figures.Count, math.MaxUint32)), a.Figures.Bytes
		o.token, o.tookUS = uint64(max(a.Figures.CPU.Microseconds(), 0)), uint64(max(a.For.Microseconds(), 0))
	}
	if len(r.data) > 0 {
		o.data = mem.put(r.data)
	}
}
