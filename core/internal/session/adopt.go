package session

import (
	"fmt"

	"github.com/libcrust/libcrust/core/internal/secure"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// maxAdoption bounds a record before a link is chosen.
const maxAdoption = 4 << 10

// Tell writes what the link still owes of its handshake, and a record of control
// frames unless there are none, in one write.
func Tell(link *secure.Link, frames []byte) error {
	out := link.First
	link.First = nil
	if len(frames) > 0 {
		out = sealControl(link.Seal, out, frames)
	}
	_, err := link.Conn.Write(out)
	return err
}

// Ask writes what the link still owes of its handshake, and an empty record: the
// other side may now say what it wants to say first.
func Ask(link *secure.Link) error {
	out := sealControl(link.Seal, link.First, nil)
	link.First = nil
	_, err := link.Conn.Write(out)
	return err
}

// Await reads from a link that carries no session yet until a Claim, Chosen or
// Refused frame comes, which is the last frame of its record. Pings and padding
// before it are passed over. What was read beyond stays in link.Rest.
func Await(link *secure.Link) (wire.FrameType, []byte, error) {
	for {
		if t, body, err := First(link); t != wire.FramePad || err != nil {
			return t, body, err
		}
	}
}

// First is Await, but reads one record, and returns FramePad when none of these
// frames is in it.
func First(link *secure.Link) (wire.FrameType, []byte, error) {
	buf := link.Rest
	fill := func(n int) error {
		for len(buf) < n {
			part := make([]byte, maxAdoption)
			m, err := link.Conn.Read(part)
			buf = append(buf, part[:m]...)
			if err != nil && len(buf) < n {
				return broken(err)
			}
		}
		return nil
	}
	if err := fill(wire.SealedHeader); err != nil {
		return 0, nil, err
	}
	h, err := link.Open.Header(buf[:wire.SealedHeader])
	if err != nil {
		return 0, nil, protocol(err)
	}
	if h.Type != wire.TypeControl || h.Len > maxAdoption {
		return 0, nil, protocol(fmt.Errorf("a record of type %d and %d bytes before the link is chosen", h.Type, h.Len))
	}
	end := wire.SealedHeader + h.Len + wire.TagSize
	if err := fill(end); err != nil {
		return 0, nil, err
	}
	frames, err := link.Open.Body(nil, buf[wire.SealedHeader:end])
	if err != nil {
		return 0, nil, protocol(err)
	}
	link.Rest = append([]byte(nil), buf[end:]...)
	for len(frames) > 0 {
		t, body, rest, err := wire.NextFrame(frames)
		switch {
		case err != nil:
			return 0, nil, protocol(err)
		case !t.In(wire.TypeControl) || t == wire.FrameAck:
			return 0, nil, protocol(fmt.Errorf("frame %d before the link is chosen", t))
		case t != wire.FrameClaim && t != wire.FrameChosen && t != wire.FrameRefused:
			frames = rest
			continue
		case len(rest) > 0:
			return 0, nil, protocol(fmt.Errorf("frames after frame %d in its record", t))
		}
		return t, body, nil
	}
	return wire.FramePad, nil, nil
}
