package bootstrap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
	"slices"
	"time"

	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/endpoint"
)

// Specification constants: the form of the file, docs/PROTOCOL.md, "The bootstrap
// cache file".
const (
	magic   = "crustbc\x00"
	version = 1
	// blockSize is what a disk writes at once, at most: the two copies of a slot
	// have no block in common.
	blockSize  = 4096
	headerSize = 32
	slotSize   = 1024
	// endpointSize is the size of an endpoint in a slot.
	endpointSize = 28
	slotFixed    = 80
	slotCheck    = slotSize - 4

	// MaxPeers is the most peers that a file can hold.
	MaxPeers = 65536
	// MaxEndpoints is the most endpoints that are kept of one peer.
	MaxEndpoints = 8
	// MaxRecord is the size of the largest contact record that is kept, in bytes.
	MaxRecord = slotCheck - slotFixed - MaxEndpoints*endpointSize

	// maxSeq bounds the numbers of writings. Honest ones do not come near it: a
	// million a second take nine years.
	maxSeq = 1<<48 - 1

	kindEmpty = 0
	kindPeer  = 1
)

// castagnoli is the polynomial of checksum.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Errors of files and copies.
var (
	errForeign  = errors.New("it is no bootstrap cache")
	errChecksum = errors.New("its checksum is wrong")
)

// newerError is the error of a file of a version that is not ours.
type newerError struct{ version uint16 }

func (e newerError) Error() string {
	return fmt.Sprintf("it has version %d, this program knows version %d", e.version, version)
}

// header is what a file says of itself.
//
//	magic    [8]byte  "crustbc\x00"
//	version  uint16   1
//	reserved uint16   0
//	slotSize uint32   1024
//	count    uint32   slots, 1 to 65536
//	reserved [8]byte  0
//	check    uint32   CRC-32C of all before it
type header struct {
	count int
}

func (h header) append(b []byte) []byte {
	start := len(b)
	b = append(b, magic...)
	b = binary.BigEndian.AppendUint16(b, version)
	b = binary.BigEndian.AppendUint16(b, 0)
	b = binary.BigEndian.AppendUint32(b, slotSize)
	b = binary.BigEndian.AppendUint32(b, uint32(h.count))
	b = binary.BigEndian.AppendUint64(b, 0)
	return appendCheck(b, start)
}

// appendCheck appends the checksum of what begins at start.
func appendCheck(b []byte, start int) []byte {
	return binary.BigEndian.AppendUint32(b, checksum(b[start:]))
}

// checksum is CRC-32C (RFC 3720, appendix B.4).
func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// parseHeader reads one copy of the header. The version is looked at before the
// rest, which another version may have changed.
func parseHeader(b []byte) (header, error) {
	if len(b) < headerSize || string(b[:8]) != magic {
		return header{}, errForeign
	}
	if v := binary.BigEndian.Uint16(b[8:]); v > version {
		return header{}, newerError{v}
	}
	h := header{count: int(min(binary.BigEndian.Uint32(b[16:]), MaxPeers+1))}
	switch {
	case binary.BigEndian.Uint32(b[28:]) != checksum(b[:28]):
		return header{}, fmt.Errorf("header: %w", errChecksum)
	case binary.BigEndian.Uint16(b[8:]) != version || binary.BigEndian.Uint32(b[12:]) != slotSize || h.count < 1 || h.count > MaxPeers:
		return header{}, errors.New("header: it does not fit its version")
	}
	return h, nil
}

// half returns the size of a half of the file: one copy of each slot, in whole
// blocks.
func (h header) half() int { return (h.count*slotSize + blockSize - 1) / blockSize * blockSize }

// size returns the size of the file: at most 2*64 MiB and two blocks.
func (h header) size() int { return 2*blockSize + 2*h.half() }

// at returns where a copy of a slot begins. Both count from 0.
func (h header) at(slot, which int) int { return 2*blockSize + which*h.half() + slot*slotSize }

// Known is an endpoint of a peer.
type Known struct {
	Endpoint endpoint.Endpoint
	// Worked is when a link came about there the last time. Zero means never:
	// the peer has told of it.
	Worked time.Time
}

// Entry is what is known of one peer. Times are whole milliseconds.
type Entry struct {
	Peer identity.PeerID
	// Endpoints are where the peer may be, up to MaxEndpoints: first where it was
	// reached the last time, then what it told then, then where it was before.
	Endpoints []Known
	// Role and Flags are the caller's.
	Role, Flags uint8
	// Success is when the peer was reached the last time.
	Success time.Time
	// Failure is when the last failure was that counted, zero when there was none
	// since Success.
	Failure time.Time
	// Failures is how many have counted since Success.
	Failures int
	// Record is the peer's signed contact record, up to MaxRecord bytes, which are
	// the caller's to check. nil when there is none.
	Record []byte

	order  uint64 // the writing of Success
	failed uint64 // the writing of Failure
}

// clone returns a copy that has nothing in common with e.
func (e *Entry) clone() Entry {
	c := *e
	c.Endpoints, c.Record = slices.Clone(e.Endpoints), bytes.Clone(e.Record)
	return c
}

// appendSlot appends one copy of a slot. A nil entry means that the slot is empty.
//
//	seq       uint64    number of the writing, 1 to 2^48-1
//	kind      uint8     0 empty (all up to check is 0), 1 peer
//	role      uint8
//	flags     uint8
//	n         uint8     endpoints, up to 8
//	failures  uint16    in a row
//	record    uint16    size of the contact record, 0 for none
//	order     uint64    number of the writing that told of the last success
//	failed    uint64    number of the one that told of the last failure, 0 for none
//	success   uint64    milliseconds since 1970
//	failure   uint64    milliseconds since 1970, 0 for none
//	peer      [32]byte
//	endpoints n times: transport uint8, size uint8 (4 or 16), port uint16,
//	          address [16]byte (padded by 0), worked uint64 (milliseconds, 0 never)
//	record    as many bytes
//	zeros
//	check     uint32    CRC-32C of all before it
func appendSlot(b []byte, seq uint64, e *Entry) []byte {
	start := len(b)
	b = binary.BigEndian.AppendUint64(b, seq)
	if e != nil {
		b = append(b, kindPeer, e.Role, e.Flags, byte(len(e.Endpoints)))
		b = binary.BigEndian.AppendUint16(b, uint16(e.Failures))
		b = binary.BigEndian.AppendUint16(b, uint16(len(e.Record)))
		b = binary.BigEndian.AppendUint64(b, e.order)
		b = binary.BigEndian.AppendUint64(b, e.failed)
		b = binary.BigEndian.AppendUint64(b, millis(e.Success))
		b = binary.BigEndian.AppendUint64(b, millis(e.Failure))
		b = append(b, e.Peer[:]...)
		for _, k := range e.Endpoints {
			addr := k.Endpoint.Addr.Addr().AsSlice()
			b = append(b, byte(k.Endpoint.Transport), byte(len(addr)))
			b = binary.BigEndian.AppendUint16(b, k.Endpoint.Addr.Port())
			b = append(append(b, addr...), make([]byte, 16-len(addr))...)
			b = binary.BigEndian.AppendUint64(b, millis(k.Worked))
		}
		b = append(b, e.Record...)
	}
	b = append(b, make([]byte, slotCheck-(len(b)-start))...)
	return appendCheck(b, start)
}

// parseSlot reads one copy of a slot, slotSize bytes. A copy that was never written,
// all zeros, has seq 0. Endpoints of unknown transports are left out.
func parseSlot(b []byte) (seq uint64, e *Entry, err error) {
	if seq = binary.BigEndian.Uint64(b); seq == 0 {
		if !zeros(b) {
			return 0, nil, errors.New("it has no number and is not empty")
		}
		return 0, nil, nil
	}
	kind, n, size := b[8], int(b[11]), int(binary.BigEndian.Uint16(b[14:]))
	switch {
	case binary.BigEndian.Uint32(b[slotCheck:]) != checksum(b[:slotCheck]):
		return 0, nil, errChecksum
	case seq > maxSeq:
		return 0, nil, fmt.Errorf("its number %d is out of bounds", seq)
	case kind == kindEmpty && zeros(b[9:slotCheck]):
		return seq, nil, nil
	case kind != kindPeer:
		return 0, nil, fmt.Errorf("what it holds is unknown (%d)", kind)
	case n > MaxEndpoints || slotFixed+n*endpointSize+size > slotCheck:
		return 0, nil, fmt.Errorf("%d endpoints and a record of %d bytes do not fit", n, size)
	}
	e = &Entry{
		Peer: identity.PeerID(b[48:80]), Role: b[9], Flags: b[10], Failures: int(binary.BigEndian.Uint16(b[12:])),
		order: binary.BigEndian.Uint64(b[16:]), failed: binary.BigEndian.Uint64(b[24:]),
	}
	var ok [2]bool
	e.Success, ok[0] = moment(b[32:])
	e.Failure, ok[1] = moment(b[40:])
	switch {
	case e.Peer.IsZero():
		return 0, nil, errors.New("it names no peer")
	case e.order == 0 || e.order > seq || e.failed > seq || ok != [2]bool{true, true} || e.Success.IsZero():
		return 0, nil, errors.New("its numbers or times are out of bounds")
	}
	rest := b[slotFixed:]
	for range n {
		k, err := parseKnown(rest)
		if err != nil {
			return 0, nil, err
		}
		if rest = rest[endpointSize:]; k.Endpoint.Transport.Known() {
			e.Endpoints = append(e.Endpoints, k)
		}
	}
	if size > 0 {
		e.Record = bytes.Clone(rest[:size])
	}
	if !zeros(rest[size : len(rest)-4]) {
		return 0, nil, errors.New("there is something after its end")
	}
	return seq, e, nil
}

func parseKnown(b []byte) (Known, error) {
	n := int(b[1])
	if n != 4 && n != 16 || !zeros(b[4+n:20]) {
		return Known{}, fmt.Errorf("an address of %d bytes", n)
	}
	addr, _ := netip.AddrFromSlice(b[4 : 4+n])
	worked, ok := moment(b[20:])
	if !ok {
		return Known{}, errors.New("the time of an endpoint is out of bounds")
	}
	return Known{endpoint.New(endpoint.Transport(b[0]), netip.AddrPortFrom(addr, binary.BigEndian.Uint16(b[2:]))), worked}, nil
}

// maxMillis is the end of the year 9999, which is the last that has a text form.
const maxMillis = 253402300799999

// millis returns a time as the file has it: 0 for the zero time, and within
// bounds.
func millis(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(min(max(t.UnixMilli(), 1), maxMillis))
}

// moment reads a time.
func moment(b []byte) (time.Time, bool) {
	switch ms := binary.BigEndian.Uint64(b); {
	case ms == 0:
		return time.Time{}, true
	case ms > maxMillis:
		return time.Time{}, false
	default:
		return time.UnixMilli(int64(ms)), true
	}
}

// zeros reports whether all bytes are 0.
func zeros(b []byte) bool {
	for len(b) >= 8 {
		if binary.NativeEndian.Uint64(b) != 0 {
			return false
		}
		b = b[8:]
	}
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
