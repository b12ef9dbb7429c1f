package utp

import (
	"context"
	"encoding/binary"
	"sync"
	"testing"
)

// script cuts data into packets of up to 255 bytes, each after its length. When
// the top bit of a packet's first byte is set, the packet becomes one of the
// connection: version, identifier, and numbers relative to what is expected.
func script(data []byte, p *Port, each func([]byte)) {
	for len(data) > 1 {
		n := min(int(data[0]), len(data)-1)
		packet := append([]byte(nil), data[1:1+n]...)
		data = data[1+n:]
		if n >= 20 && packet[0]&0x80 != 0 {
			p.mu.Lock()
			if e := p.engine; e != nil {
				packet[0] = packet[0]&0x70 | 1
				binary.BigEndian.PutUint16(packet[2:], uint16(e.receive_id))
				binary.BigEndian.PutUint16(packet[16:], uint16(e.next)+binary.BigEndian.Uint16(packet[16:]))
				binary.BigEndian.PutUint16(packet[18:], uint16(e.sent)-binary.BigEndian.Uint16(packet[18:]))
			}
			p.mu.Unlock()
		}
		each(packet)
	}
}

// FuzzInput gives packets of a peer that may do anything to a connection that
// is up, to one that waits and to one that dials. Nothing may abort, and what
// is held stays within the window.
func FuzzInput(f *testing.F) {
	data := make([]byte, 24)
	data[0] = 0x80
	copy(data[20:], "data")
	fin := make([]byte, 20)
	fin[0] = 0x90
	reset := make([]byte, 20)
	reset[0] = 0xb0
	early := append([]byte(nil), data...)
	early[17] = 2
	pack := func(packets ...[]byte) (out []byte) {
		for _, p := range packets {
			out = append(append(out, byte(len(p))), p...)
		}
		return out
	}
	f.Add(pack(data, data, fin, data))
	f.Add(pack(early, early, fin, data, data, reset))
	f.Add(pack([]byte{0x41, 0, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, []byte{0x81, 1, 0, 0}))
	f.Fuzz(func(t *testing.T, script1 []byte) {
		up, upPeer, _, upBack := ports(t, Config{Window: minWindow, MaxWindow: minWindow})
		c, _ := connect(t, up, upPeer)
		c.Write([]byte("in flight"))
		upBack.to = nil
		waits, _, _, _ := ports(t, Config{})
		dials, _, dialLane, _ := ports(t, Config{})
		dialLane.to = nil
		ctx, cancel := context.WithCancel(t.Context())
		var group sync.WaitGroup
		dialling := make(chan struct{}, 1)
		dialLane.sent = func([]byte) bool { pulse(dialling); return true }
		group.Go(func() { dials.Dial(ctx) })
		<-dialling
		for _, p := range []*Port{up, waits, dials} {
			script(script1, p, func(packet []byte) {
				p.Input(packet)
				p.tick()
				p.mu.Lock()
				defer p.mu.Unlock()
				if e := p.engine; e != nil && e.unread+e.early > e.window {
					t.Errorf("%d bytes are held, window %d", e.unread+e.early, e.window)
				}
			})
		}
		c.TryWrite(make([]byte, 1000))
		c.Close()
		cancel()
		group.Wait()
	})
}
