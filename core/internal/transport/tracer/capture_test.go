package tracer

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/libcrust/libcrust/core/internal/endpoint"
	"github.com/libcrust/libcrust/core/internal/secure"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// captures is where those are kept that tests/tracer shows to the dissector.
const captures = "../../../../tests/tracer/testdata"

// pcap is a capture of one TCP connection, in the classic format of libpcap.
type pcap struct {
	bytes.Buffer
	ports   [2]uint16
	seq     [2]uint32
	packets int
}

func newPcap(port uint16) *pcap {
	p := &pcap{ports: [2]uint16{port, 7777}, seq: [2]uint32{1000, 2000}}
	for _, v := range []uint32{0xa1b2c3d4, 2 | 4<<16, 0, 0, 65535, 101} { // 101: IP without a link layer
		binary.Write(p, binary.LittleEndian, v) //nolint:errcheck // into memory
	}
	p.packet(0, 0x02, nil)
	p.packet(1, 0x12, nil)
	p.packet(0, 0x10, nil)
	return p
}

// packet appends a segment of a side, with flags.
func (p *pcap) packet(side int, flags byte, data []byte) {
	b := make([]byte, 40, 40+len(data))
	b[0], b[8], b[9] = 0x45, 64, 6
	binary.BigEndian.PutUint16(b[2:], uint16(40+len(data)))
	copy(b[12:], []byte{192, 0, 2, byte(1 + side), 192, 0, 2, byte(2 - side)})
	binary.BigEndian.PutUint16(b[20:], p.ports[side])
	binary.BigEndian.PutUint16(b[22:], p.ports[1-side])
	binary.BigEndian.PutUint32(b[24:], p.seq[side])
	if flags&0x10 != 0 {
		binary.BigEndian.PutUint32(b[28:], p.seq[1-side])
	}
	b[32], b[33] = 0x50, flags
	binary.BigEndian.PutUint16(b[34:], 65535)
	b = append(b, data...)
	p.seq[side] += uint32(len(data))
	if flags&0x03 != 0 {
		p.seq[side]++
	}
	for _, v := range []uint32{1_800_000_000, uint32(p.packets * 1000), uint32(len(b)), uint32(len(b))} {
		binary.Write(p, binary.LittleEndian, v) //nolint:errcheck // into memory
	}
	p.Write(b)
	p.packets++
}

// say appends data of a side, in segments of at most size bytes.
func (p *pcap) say(side, size int, data []byte) {
	for len(data) > 0 {
		n := min(size, len(data))
		p.packet(side, 0x18, data[:n])
		data = data[n:]
	}
}

// check compares a file with what is to be in it, or writes it.
func check(t *testing.T, name string, want []byte) {
	t.Helper()
	path := filepath.Join(captures, name)
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s has changed (%v); -update writes it, and tests/tracer shows whether it is still read", path, err)
	}
}

// control is a run of frames of every kind that goes into a record of control.
func control(t *testing.T) []byte {
	key := seeded(t, 3, "net").Key
	at := func(text string) endpoint.Endpoint {
		ep, err := endpoint.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		return ep
	}
	record := wire.Contact{
		Peer: key.ID(), Seq: 1_800_000_000_000, Life: 3600, Role: 1, Flags: 3,
		Endpoints: []endpoint.Endpoint{at("tcp://203.0.113.5:5483"), at("utp://[2001:db8::1]:40000")},
	}.Append(nil, key.Sign)
	id := [16]byte(bytes.Repeat([]byte{0xab}, 16))
	keys := []wire.ContactKey{{Position: 0x0102030405060708, Seq: 7}, {Position: 0xff02030405060708, Seq: 8}}
	b := wire.AppendSeen(nil, netip.MustParseAddrPort("198.51.100.7:4242"))
	b = wire.AppendSeen(b, netip.MustParseAddrPort("[2001:db8::7]:4243"))
	b = wire.Echo{Tag: 0x1122334455667788, Port: 4001, TCP: 4002}.Append(b)
	b = wire.Seek{ID: id, To: key.ID(), Hops: 5, Letter: []byte("a sealed letter")}.Append(b)
	b = wire.Reply{ID: id, Letter: []byte("another one")}.Append(b)
	b = wire.RelayOpen{ID: 9, From: true, Peer: key.ID()}.Append(b)
	b = wire.AppendRelayData(b, 9, []byte("sealed bytes of others"))
	b = wire.AppendRelayCredit(b, 9, 65536)
	b = wire.AppendRelayClose(b, 9, wire.RelayLimit)
	b = wire.Reach{Nonce: id, Transport: endpoint.UTP, Port: 4003}.Append(b)
	b = wire.Reached{Nonce: id, From: 4004, To: netip.MustParseAddr("198.51.100.9")}.Append(b)
	b = wire.Doors{TCP: 4005, UTP: 4006, MappedTCP: true}.Append(b)
	b = wire.Gossip{Kind: wire.GossipNews, Contacts: [][]byte{record, record}}.Append(b)
	b = wire.Gossip{Kind: wire.GossipHave, Keys: keys}.Append(b)
	b = wire.Gossip{Kind: wire.GossipRanges, Clock: 1_800_000_000_123, Nonce: id, First: 5, Ranges: []wire.Range{
		{Last: 100, Mode: wire.RangeSkip}, {Last: 1 << 62, Mode: wire.RangeSum, Sum: 77}, {Last: 1<<64 - 1, Mode: wire.RangeKeys, Keys: keys[1:]},
	}}.Append(b)
	b = wire.AppendFrame(b, wire.FrameDatagram, []byte("a datagram")...)
	b = wire.AppendFrame(b, 99, []byte("of a later version")...)
	return wire.AppendFrame(b, wire.FramePad, make([]byte, 5)...)
}

// talk is what both sides say after the handshake.
func talk(t *testing.T, p *pcap, a, b *secure.Link) {
	frames := func(l *secure.Link, dst []byte, kind wire.RecordType, body []byte) []byte {
		return l.Seal.Seal(dst, wire.Header{Type: kind}, body)
	}
	session := wire.SessionID(bytes.Repeat([]byte{0xcd}, 16))
	p.say(0, 1400, frames(a, a.First, wire.TypeControl, wire.Claim{Seq: 3, Begun: true, Session: session, Past: 2, Held: []uint64{1, 2}}.Append(nil)))
	p.say(1, 1400, frames(b, nil, wire.TypeControl, wire.Chosen{Session: session, Order: 6, Past: 1}.Append(nil)))
	two := wire.AppendMessage(wire.AppendMessage(nil, 0, []byte("an urgent word")), 200, nil)
	p.say(0, 1400, frames(a, frames(a, nil, wire.TypeFrames, two), wire.TypeControl, wire.AppendPing(nil, wire.FramePing, 7)))
	p.say(1, 1400, frames(b, nil, wire.TypeControl, wire.AppendAck(wire.AppendPing(nil, wire.FramePong, 7), 1)))
	p.say(0, 1400, frames(a, nil, wire.TypeControl, control(t)))
	large := bytes.Repeat([]byte("all work and no play "), 2000)
	var out []byte
	for rest := large; len(rest) > 0; {
		n := min(16384, len(rest))
		out = b.Seal.Seal(out, wire.Header{Type: wire.TypePiece, Priority: 3, Left: len(rest)}, rest[:n])
		rest = rest[n:]
		out = frames(b, out, wire.TypeFrames, wire.AppendMessage(nil, 1, []byte("between the pieces")))
	}
	p.say(1, 1000, out)
	p.say(0, 1400, frames(a, nil, wire.TypeFrames, wire.AppendReason(nil, wire.FrameClose, wire.ReasonStopping)))
	p.say(1, 1400, frames(b, nil, wire.TypeControl, wire.AppendReason(nil, wire.FrameRefused, wire.ReasonBanned)))
	p.packet(0, 0x11, nil)
	p.packet(1, 0x11, nil)
	p.packet(0, 0x10, nil)
}

// shakes runs a handshake and returns both links and what was said.
func shakes(t *testing.T, i, r *secure.Config, respond func(net.Conn, *secure.Config) (*secure.Link, error), initiate func(net.Conn, *secure.Config) (*secure.Link, error)) (a, b *secure.Link, said [2][]byte) {
	pa, pb := net.Pipe()
	x, y := &tap{Conn: pa}, &tap{Conn: pb}
	for _, c := range []net.Conn{x, y} {
		c.SetDeadline(time.Now().Add(20 * time.Second)) //nolint:errcheck // of a pipe
	}
	done := make(chan result, 1)
	go func() {
		l, err := respond(y, r)
		done <- result{l, err}
	}()
	a, err := initiate(x, i)
	if err != nil {
		t.Fatal(err)
	}
	said[0] = bytes.Clone(x.out.Bytes())
	if _, err := x.Write(a.First); err != nil {
		t.Fatal(err)
	}
	got := <-done
	if got.err != nil {
		t.Fatal(got.err)
	}
	return a, got.link, [2][]byte{said[0], y.out.Bytes()}
}

// TestCapture: the captures that tests/tracer has are what is said now.
func TestCapture(t *testing.T) {
	i, r := seeded(t, 1, "net"), seeded(t, 2, "net")
	a, b, said := shakes(t, i, r, Respond, func(c net.Conn, cfg *secure.Config) (*secure.Link, error) { return Initiate(c, cfg, r.Key.ID()) })
	p := newPcap(40001)
	p.say(0, 1400, said[0])
	p.say(1, 100, said[1])
	talk(t, p, a, b)
	check(t, "conversation.pcap", p.Bytes())

	for name, ciphers := range map[string]uint8{"chacha": wire.CipherChaCha20Poly1305, "aes": wire.CipherChaCha20Poly1305 | wire.CipherAES256GCM} {
		var log bytes.Buffer
		i, r := seeded(t, 1, "net"), seeded(t, 2, "net")
		i.KeyLog, i.Hello.Ciphers, r.Hello.Ciphers = func(b []byte) { log.Write(b) }, ciphers, ciphers
		i.Random, r.Random = io.MultiReader(bytes.NewReader(bytes.Repeat([]byte{0x21}, 57)), repeated(0x41)), repeated(0x31)
		a, b, said := shakes(t, i, r, secure.Respond, func(c net.Conn, cfg *secure.Config) (*secure.Link, error) {
			return secure.Initiate(c, cfg, r.Key.ID())
		})
		p := newPcap(40002)
		p.say(0, 1400, said[0])
		p.say(1, 100, said[1])
		talk(t, p, a, b)
		check(t, name+".pcap", p.Bytes())
		check(t, name+".keys", log.Bytes())
	}
}
