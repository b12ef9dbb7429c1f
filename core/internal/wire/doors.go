package wire

import (
	"encoding/binary"
	"fmt"

	"github.com/libcrust/libcrust/core/internal/endpoint"
)

// Doors are at which ports the sender of the frame can be dialled, at the address
// that its link comes from: those of its listeners, or those that its router passes
// on to them.
//
//	tcp    uint16   0: none
//	utp    uint16   0: none
//	flags  uint8    1 a router passes tcp on, 2 a router passes utp on; others are ignored
type Doors struct {
	TCP, UTP             uint16
	MappedTCP, MappedUTP bool
}

const doorsSize = 2 + 2 + 1

// Append appends the FrameDoors.
func (r Doors) Append(b []byte) []byte {
	body := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, r.TCP), r.UTP)
	flags := byte(0)
	if r.MappedTCP {
		flags |= 1
	}
	if r.MappedUTP {
		flags |= 2
	}
	return AppendFrame(b, FrameDoors, append(body, flags)...)
}

// ParseDoors reads the body of a FrameDoors.
func ParseDoors(body []byte) (Doors, error) {
	if len(body) < doorsSize {
		return Doors{}, fmt.Errorf("doors: %w", ErrShort)
	}
	flags := body[4]
	return Doors{
		TCP: binary.BigEndian.Uint16(body), UTP: binary.BigEndian.Uint16(body[2:]),
		MappedTCP: flags&1 != 0, MappedUTP: flags&2 != 0,
	}, nil
}

// fieldMapped is a field of connection info and of letters:
//
//	mapped  uint32   bit i, from the lowest on: a router passes on what comes to endpoint i
const fieldMapped = 1

// appendMapped appends the field, unless no bit of the first n is set.
func appendMapped(b []byte, mapped uint32, n int) []byte {
	if mapped &= 1<<n - 1; mapped == 0 {
		return b
	}
	return appendField(b, fieldMapped, binary.BigEndian.AppendUint32(nil, mapped))
}

// parseMapped reads the fields behind endpoints, of which kept are those that were
// not left out, by their place.
func parseMapped(rest []byte, kept []int) (mapped uint32, err error) {
	err = fields(rest, func(tag uint8, v []byte) error {
		if tag != fieldMapped {
			return nil
		}
		if err := want("mapped", v, 4); err != nil {
			return err
		}
		bits := binary.BigEndian.Uint32(v)
		for i, at := range kept {
			mapped |= bits >> at & 1 << i
		}
		return nil
	})
	return mapped, err
}

// parseEndpoints reads n endpoints. Those of unknown transports are left out; kept
// says which are not, by their place.
func parseEndpoints(b []byte, n int) (eps []endpoint.Endpoint, kept []int, rest []byte, err error) {
	for i := range n {
		ep, tail, err := parseEndpoint(b)
		if err != nil {
			return nil, nil, nil, err
		}
		if b = tail; ep.Transport.Known() {
			eps, kept = append(eps, ep), append(kept, i)
		}
	}
	return eps, kept, b, nil
}
