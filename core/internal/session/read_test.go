package session

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libcrust/libcrust/core/internal/secure"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// script seals what a peer may send in one go: small messages, padding, a frame of
// an unknown type, a ping, an empty record, a message in pieces with a more
// urgent one between them. It returns the bytes and the messages in order.
func script(seal secure.Sealer, round int) (stream []byte, want [][]byte) {
	large := numbered(300, round)
	frames := wire.AppendMessage(nil, 1, numbered(20, round))
	frames = wire.AppendFrame(frames, wire.FramePad, make([]byte, 5)...)
	frames = wire.AppendFrame(frames, 200, 1, 2, 3)
	frames = wire.AppendMessage(frames, 0, nil)
	stream = sealFrames(seal, nil, frames)
	stream = sealControl(seal, stream, wire.AppendPing(wire.AppendFrame(nil, 201, 4), wire.FramePing, 7))
	stream = sealFrames(seal, stream, nil)
	stream = sealPiece(seal, stream, large[:100], 300, 4)
	stream = sealFrames(seal, stream, wire.AppendMessage(nil, 0, numbered(130, round)))
	stream = sealPiece(seal, stream, large[100:], 200, 4)
	stream = sealFrames(seal, stream, wire.AppendMessage(nil, 9, numbered(3, round)))
	return stream, [][]byte{numbered(20, round), nil, numbered(130, round), large, numbered(3, round)}
}

// TestSplitAtEveryByte: however the network cuts the stream of records, the same
// messages come out of it.
func TestSplitAtEveryByte(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		la, lb := links(t, 0, nil)
		o := new(owner)
		s := start(t, lb, usual, o)
		write := func(p []byte) {
			if _, err := la.Conn.Write(p); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		stream, want := script(la.Seal, 0)
		size := len(stream)
		write(stream)
		same(t, o.all("message"), want)
		for at := 1; at < size; at++ {
			stream, want := script(la.Seal, at)
			write(stream[:at])
			write(stream[at:])
			same(t, o.all("message"), want)
		}
		stream, want = script(la.Seal, 1)
		for _, b := range stream {
			write([]byte{b})
		}
		same(t, o.all("message"), want)
		if n := s.Counters().ReceivedMessages; n != uint64(len(want)*(size+1)) {
			t.Fatalf("counted %d messages", n)
		}
	})
}

// TestRestOfHandshake: what was read with the last flight counts as received.
func TestRestOfHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sample, _ := links(t, 0, nil)
		like, _ := script(sample.Seal, 1)
		for i, cut := range []int{1, 24, 25, len(like) / 2, len(like)} {
			la, lb := links(t, 0, nil)
			stream, want := script(la.Seal, i)
			lb.Rest = bytes.Clone(stream[:cut])
			o := new(owner)
			start(t, lb, usual, o)
			if _, err := la.Conn.Write(stream[cut:]); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			same(t, o.all("message"), want)
		}
	})
}

// TestHostilePeer: an authenticated peer that breaks the protocol loses the
// session, with the reason, after what it had sent before; others do not.
func TestHostilePeer(t *testing.T) {
	frames := func(b ...byte) func(secure.Sealer) []byte {
		return func(seal secure.Sealer) []byte { return sealFrames(seal, nil, b) }
	}
	control := func(b ...byte) func(secure.Sealer) []byte {
		return func(seal secure.Sealer) []byte { return sealControl(seal, nil, b) }
	}
	for name, c := range map[string]struct {
		send func(secure.Sealer) []byte
		why  error
	}{
		"half a frame":       {frames(1), ErrProtocol},
		"frame over the end": {frames(1, 50, 0), ErrProtocol},
		"endless length":     {frames(1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255), ErrProtocol},
		"no priority":        {frames(byte(wire.FrameMessage), 0), ErrProtocol},
		"short ping":         {control(byte(wire.FramePing), 1, 0), ErrProtocol},
		"short pong":         {control(byte(wire.FramePong), 1, 0), ErrProtocol},
		"short close":        {frames(byte(wire.FrameClose), 1, 0), ErrProtocol},
		"claim":              {control(wire.Claim{Seq: 1}.Append(nil)...), ErrProtocol},
		"chosen":             {control(byte(wire.FrameChosen), 0), ErrProtocol},
		"close":              {frames(wire.AppendReason(nil, wire.FrameClose, wire.ReasonDisconnect)...), ErrDisconnected},
		"close, stopping":    {frames(wire.AppendReason(nil, wire.FrameClose, wire.ReasonStopping)...), ErrStopped},
		"close, of a reason to come": {
			frames(wire.AppendReason(nil, wire.FrameClose, 999)...), ErrDisconnected,
		},
		"accused":   {frames(wire.AppendReason(nil, wire.FrameClose, wire.ReasonProtocol)...), ErrProtocol},
		"withdrawn": {control(wire.AppendReason(nil, wire.FrameRefused, wire.ReasonLimit)...), ErrDisconnected},
		"type 4": {func(seal secure.Sealer) []byte {
			return seal.Seal(nil, wire.Header{Type: 4}, []byte("body"))
		}, ErrProtocol},
		"short ack":           {control(byte(wire.FrameAck), 1, 0), ErrProtocol},
		"ack of nothing sent": {control(wire.AppendAck(nil, 1)...), ErrProtocol},
		"ping among content":  {frames(wire.AppendPing(nil, wire.FramePing, 1)...), ErrProtocol},
		"ack among content":   {frames(wire.AppendAck(nil, 0)...), ErrProtocol},
		"message in control":  {control(wire.AppendMessage(nil, 0, nil)...), ErrProtocol},
		"close in control":    {control(wire.AppendReason(nil, wire.FrameClose, 0)...), ErrProtocol},
		"control with a piece": {func(seal secure.Sealer) []byte {
			return seal.Seal(nil, wire.Header{Type: wire.TypeControl, Left: 1}, nil)
		}, ErrProtocol},
		"over": {control(wire.AppendReason(nil, wire.FrameRefused, wire.ReasonOver)...), ErrOver},
		"frames with a priority": {func(seal secure.Sealer) []byte {
			return seal.Seal(nil, wire.Header{Type: wire.TypeFrames, Priority: 1}, nil)
		}, ErrProtocol},
		"too large": {func(seal secure.Sealer) []byte {
			return sealPiece(seal, nil, []byte{1}, wire.MaxMessage+1, 0)
		}, ErrProtocol},
		"empty piece": {func(seal secure.Sealer) []byte { return sealPiece(seal, nil, nil, 5, 0) }, ErrProtocol},
		"piece over the end": {func(seal secure.Sealer) []byte {
			return sealPiece(seal, nil, make([]byte, 6), 5, 0)
		}, ErrProtocol},
		"pieces that do not go on": {func(seal secure.Sealer) []byte {
			return sealPiece(seal, sealPiece(seal, nil, make([]byte, 6), 50, 0), make([]byte, 6), 43, 0)
		}, ErrProtocol},
		"nine messages in pieces": {func(seal secure.Sealer) (out []byte) {
			for p := range wire.MaxOpenPieces + 1 {
				out = sealPiece(seal, out, []byte{1}, wire.MaxMessage, uint8(p))
			}
			return out
		}, ErrProtocol},
		"forged": {func(seal secure.Sealer) []byte {
			out := sealFrames(seal, nil, []byte("body"))
			out[len(out)-1] ^= 1
			return out
		}, secure.ErrForged},
		"forged header": {func(seal secure.Sealer) []byte {
			out := sealFrames(seal, nil, []byte("body"))
			out[3] ^= 1
			return out
		}, secure.ErrForged},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				la, lb := links(t, 0, nil)
				o := new(owner)
				s := start(t, lb, usual, o)
				stream, want := script(la.Seal, 1)
				if _, err := la.Conn.Write(append(stream, c.send(la.Seal)...)); err != nil {
					t.Fatal(err)
				}
				<-s.Done()
				events := o.take()
				last := events[len(events)-1]
				same(t, events[:len(events)-1], want)
				if last.what != "ended" || !errors.Is(last.why, c.why) {
					t.Fatalf("ended with %v", last.why)
				}
			})
		})
	}
}

// TestPingFlood: a peer that asks for answers and takes none costs no memory, and
// the last ping is answered when it reads.
func TestPingFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		la, lb := links(t, 2_000, nil)
		o := new(owner)
		s := start(t, lb, usual, o)
		var frames []byte
		for i := range uint64(1000) {
			frames = wire.AppendPing(frames, wire.FramePing, i+1)
		}
		for range 100 {
			if _, err := la.Conn.Write(sealControl(la.Seal, nil, frames)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		s.mu.Lock()
		n := len(s.control) + len(s.out)
		s.mu.Unlock()
		if n > 100 {
			t.Fatalf("%d bytes of answers wait", n)
		}
		peer := start(t, la, usual, new(owner))
		time.Sleep(3 * time.Second)
		if !s.Live() || !peer.Live() || peer.Counters().RTT == 0 {
			t.Fatal("the session did not live on")
		}
	})
}

// FuzzPeer feeds a session what an authenticated peer may send: arbitrary frames
// and pieces, correctly sealed. Input: records of type, priority, left (3 bytes),
// length, body.
func FuzzPeer(f *testing.F) {
	f.Add([]byte("\x01\x00\x00\x00\x00\x05\x01\x03\x00hi"))
	f.Add([]byte("\x02\x04\x00\x00\x06\x03abc\x02\x04\x00\x00\x03\x03abc"))
	f.Add([]byte("\x01\x00\x00\x00\x00\x04\x07\x02\x00\x01"))
	f.Fuzz(func(t *testing.T, input []byte) {
		synctest.Test(t, func(t *testing.T) {
			la, lb := links(t, 1<<20, nil)
			o := new(owner)
			s := start(t, lb, usual, o)
			bodies := 0
			var stream []byte
			for b := input; len(b) > 6; {
				h := wire.Header{Type: wire.RecordType(b[0]), Priority: b[1], Left: int(b[2])<<16 | int(b[3])<<8 | int(b[4])}
				n := min(int(b[5]), len(b)-6)
				stream = la.Seal.Seal(stream, h, b[6:6+n])
				b = b[6+n:]
				bodies += n
			}
			if _, err := la.Conn.Write(stream); err != nil {
				t.Skip(err)
			}
			synctest.Wait()
			total := 0
			for _, e := range o.take() {
				switch e.what {
				case "message", "datagram", "relay":
					total += len(e.data)
				case "ended":
					of := []error{ErrProtocol, ErrDisconnected, ErrStopped, ErrFull, ErrOver, ErrBanned, ErrAccused}
					if !slices.ContainsFunc(of, func(err error) bool { return errors.Is(e.why, err) }) {
						t.Fatalf("ended with %v", e.why)
					}
				default:
					t.Fatalf("told %+v", e)
				}
			}
			if total > bodies {
				t.Fatalf("%d bytes of messages came out of %d", total, bodies)
			}
			if s.Live() && len(s.in.partials) > wire.MaxOpenPieces {
				t.Fatalf("%d messages in pieces", len(s.in.partials))
			}
		})
	})
}
