package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The plaintext of a sealed datagram is a run of inner frames:
//
//	type     uint8
//	body               as the type says
//
// A Pad or a Stream reaches to the end of the datagram. An empty plaintext is
// allowed. An unknown type is an error, since its length is unknown.

// InnerType tells what an inner frame is.
type InnerType uint8

const (
	InnerPad       InnerType = 0 // the rest, any bytes
	InnerPing      InnerType = 1 // empty: acknowledge this datagram at once
	InnerAck       InnerType = 2 // Ack
	InnerStream    InnerType = 3 // offset uvarint, data to the end, not empty
	InnerDatagram  InnerType = 4 // len uvarint, data
	InnerChallenge InnerType = 5 // token uint64, to be sent back
	InnerResponse  InnerType = 6 // token uint64 of the challenge
	InnerClose     InnerType = 7 // Reason
)

// Specification constants of inner frames.
const (
	// MaxAckRanges is the largest number of ranges in an Ack.
	MaxAckRanges = 64
	// InitialLimit is how many bytes of its stream each side may send before
	// the first Ack.
	InitialLimit = 1 << 20
	// MaxAckDelay is how long an acknowledgement may wait, in milliseconds.
	MaxAckDelay = 5
	// MinAckRoom is how many bytes an InnerAck of one range may take.
	MinAckRoom = 2 + 4*9
	// MaxOffset bounds offsets and lengths of the stream, and numbers of datagrams.
	MaxOffset = 1 << 62
)

// AckRange is a run of datagram numbers, both ends included.
type AckRange struct{ First, Last uint64 }

// Ack says which datagrams have arrived.
//
//	largest  uvarint   largest number that has arrived
//	delay    uvarint   microseconds since it came
//	limit    uvarint   offset before which the peer's stream must stay
//	more     uint8     number of ranges after the first
//	first    uvarint   numbers in the first range, which ends with largest, less one
//	more times:
//	  gap    uvarint   numbers missing below the range before, less one
//	  size   uvarint   numbers in this range, less one
type Ack struct {
	Delay  uint64
	Limit  uint64
	N      int                    // ranges in use, at least one
	Ranges [MaxAckRanges]AckRange // the largest first, apart by one number at least
}

// Inner is a parsed inner frame. Data is a part of the input.
type Inner struct {
	Type  InnerType
	Value uint64 // InnerStream: offset; InnerChallenge, InnerResponse: token; InnerClose: Reason
	Data  []byte // InnerStream, InnerDatagram, InnerPad
	Ack   Ack    // InnerAck
}

// AppendInnerPing appends an InnerPing.
func AppendInnerPing(b []byte) []byte { return append(b, byte(InnerPing)) }

// AppendInnerPad appends an InnerPad with n bytes of zeros after its type.
func AppendInnerPad(b []byte, n int) []byte {
	b = append(b, byte(InnerPad))
	for ; n > len(zeros); n -= len(zeros) {
		b = append(b, zeros[:]...)
	}
	return append(b, zeros[:n]...)
}

var zeros [512]byte

// AppendInnerStream appends the head of an InnerStream; its data follows.
func AppendInnerStream(b []byte, offset uint64) []byte {
	return binary.AppendUvarint(append(b, byte(InnerStream)), offset)
}

// InnerStreamHead returns how many bytes AppendInnerStream appends.
func InnerStreamHead(offset uint64) int { return 1 + uvarintLen(offset) }

// AppendInnerDatagram appends the head of an InnerDatagram; its n bytes follow.
func AppendInnerDatagram(b []byte, n int) []byte {
	return binary.AppendUvarint(append(b, byte(InnerDatagram)), uint64(n))
}

// InnerDatagramHead returns how many bytes AppendInnerDatagram appends.
func InnerDatagramHead(n int) int { return 1 + uvarintLen(uint64(n)) }

// AppendInnerToken appends an InnerChallenge or InnerResponse.
func AppendInnerToken(b []byte, t InnerType, token uint64) []byte {
	return binary.BigEndian.AppendUint64(append(b, byte(t)), token)
}

// AppendInnerClose appends an InnerClose.
func AppendInnerClose(b []byte, r Reason) []byte {
	return append(b, byte(InnerClose), byte(r>>8), byte(r))
}

// AppendInnerAck appends an InnerAck of ranges, of which there is one at least,
// the lowest first. The lowest that do not fit into room bytes, or are over
// MaxAckRanges, are left out; room must be MinAckRoom at least.
func AppendInnerAck(b []byte, delay, limit uint64, ranges []AckRange, room int) []byte {
	end := len(b) + room
	r := ranges[len(ranges)-1]
	b = append(b, byte(InnerAck))
	b = binary.AppendUvarint(b, r.Last)
	b = binary.AppendUvarint(b, delay)
	b = binary.AppendUvarint(b, limit)
	more := len(b)
	b = append(b, 0)
	b = binary.AppendUvarint(b, r.Last-r.First)
	before := r.First
	for i := len(ranges) - 2; i >= 0 && len(ranges)-i <= MaxAckRanges; i-- {
		r = ranges[i]
		gap, size := before-r.Last-2, r.Last-r.First
		if len(b)+uvarintLen(gap)+uvarintLen(size) > end {
			break
		}
		b = binary.AppendUvarint(b, gap)
		b = binary.AppendUvarint(b, size)
		b[more]++
		before = r.First
	}
	return b
}

// uvarintLen returns how many bytes a uvarint takes.
func uvarintLen(v uint64) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}

// uvarint splits a uvarint off b. Values of MaxOffset and more are refused, and
// so are encodings longer than need be.
func uvarint(b []byte) (v uint64, rest []byte, err error) {
	if len(b) > 0 && b[0] < 0x80 {
		return uint64(b[0]), b[1:], nil
	}
	v, n := binary.Uvarint(b)
	switch {
	case n == 0:
		return 0, nil, ErrShort
	case n < 0 || v >= MaxOffset:
		return 0, nil, errors.New("a number is out of bounds")
	case b[n-1] == 0:
		return 0, nil, errors.New("a number is longer than need be")
	}
	return v, b[n:], nil
}

// NextInner splits the first inner frame off b, which is not empty, into f. Of
// f, only the fields of its type are set.
func NextInner(b []byte, f *Inner) (rest []byte, err error) {
	if len(b) == 0 {
		return nil, fmt.Errorf("inner frame: %w", ErrShort)
	}
	f.Type, rest = InnerType(b[0]), b[1:]
	switch f.Type {
	case InnerPad:
		f.Data, rest = rest, nil
	case InnerPing:
	case InnerAck:
		rest, err = f.Ack.parse(rest)
	case InnerStream:
		if f.Value, f.Data, err = uvarint(rest); err == nil && len(f.Data) == 0 {
			err = ErrShort
		}
		if err == nil && f.Value+uint64(len(f.Data)) > MaxOffset {
			err = errors.New("the stream is too long")
		}
		rest = nil
	case InnerDatagram:
		var n uint64
		if n, rest, err = uvarint(rest); err == nil && n > uint64(len(rest)) {
			err = ErrShort
		}
		if err == nil {
			f.Data, rest = rest[:n:n], rest[n:]
		}
	case InnerChallenge, InnerResponse:
		if len(rest) < 8 {
			err = ErrShort
			break
		}
		f.Value, rest = binary.BigEndian.Uint64(rest), rest[8:]
	case InnerClose:
		if len(rest) < 2 {
			err = ErrShort
			break
		}
		f.Value, rest = uint64(binary.BigEndian.Uint16(rest)), rest[2:]
	default:
		err = errors.New("unknown")
	}
	if err != nil {
		return nil, fmt.Errorf("inner frame of type %d: %w", b[0], err)
	}
	return rest, nil
}

// parse reads the body of an InnerAck.
func (a *Ack) parse(b []byte) (rest []byte, err error) {
	var largest, size, gap uint64
	if largest, b, err = uvarint(b); err != nil {
		return nil, err
	}
	if a.Delay, b, err = uvarint(b); err != nil {
		return nil, err
	}
	if a.Limit, b, err = uvarint(b); err != nil {
		return nil, err
	}
	if len(b) == 0 {
		return nil, ErrShort
	}
	a.N, b = 1+int(b[0]), b[1:]
	if a.N > MaxAckRanges {
		return nil, fmt.Errorf("%d ranges", a.N)
	}
	for i := range a.N {
		if i > 0 {
			if gap, b, err = uvarint(b); err != nil {
				return nil, err
			}
			if gap+2 > a.Ranges[i-1].First {
				return nil, errors.New("a range below zero")
			}
			largest = a.Ranges[i-1].First - gap - 2
		}
		if size, b, err = uvarint(b); err != nil {
			return nil, err
		}
		if size > largest {
			return nil, errors.New("a range below zero")
		}
		a.Ranges[i] = AckRange{First: largest - size, Last: largest}
	}
	return b, nil
}
