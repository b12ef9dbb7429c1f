package utp

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// late is a Path that takes its time, for each packet another.
type late struct {
	to             *Port
	delay, jitter  time.Duration
	dead           bool
	packets, bytes int
}

func (l *late) SendPacket(packet []byte) bool {
	l.packets++
	l.bytes += len(packet)
	packet = bytes.Clone(packet)
	if !l.dead {
		time.AfterFunc(l.delay+rand.N(l.jitter+1), func() { l.to.Input(packet) })
	}
	return true
}

// latePorts returns Ports with 20 ms each way. Only in a bubble.
func latePorts(t *testing.T, jitter time.Duration) (a, b *Port, ab, ba *late) {
	ab, ba = &late{delay: 20 * time.Millisecond, jitter: jitter}, &late{delay: 20 * time.Millisecond, jitter: jitter}
	// Sequence numbers begin short of their end: the dialler's is its second
	// number, the other side's its first.
	a = stack(t, Config{}).add(ab, name("a"), name("b"), seedOf(2, 0xff00, 0xfff0))
	b = stack(t, Config{}).add(ba, name("b"), name("a"), seedOf(1, 0xfffc, 0xfffe))
	ab.to, ba.to = b, a
	return a, b, ab, ba
}

func TestVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, ab, ba := latePorts(t, 0)
		begin := time.Now()
		c, d := connect(t, a, b)
		if took := time.Since(begin); took != 60*time.Millisecond {
			t.Errorf("connecting took %v, not one round trip and a half", took)
		}
		// The first 10 MiB: nothing grows by a packet a round trip. The window
		// begins at 1 MiB and doubles.
		begin = time.Now()
		want := noise(10 << 20)
		go func() {
			c.Write(want)
			c.Close()
		}()
		got, err := io.ReadAll(d)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("read %d bytes, %v", len(got), err)
		}
		if took := time.Since(begin); took > 300*time.Millisecond {
			t.Errorf("10 MiB took %v with a round trip of 40 ms", took)
		}
		if few := 10<<20/MaxPacket*3/2 + 20; ab.packets > few {
			t.Errorf("%d packets for 10 MiB", ab.packets)
		}
		if ba.packets > ab.packets/2 {
			t.Errorf("%d packets back for %d", ba.packets, ab.packets)
		}
		d.Close()
		<-a.Done()
		<-b.Done()
	})
}

func TestPacketsInAnyOrder(t *testing.T) {
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			a, b, _, _ := latePorts(t, 30*time.Millisecond)
			c, d := connect(t, a, b)
			want := noise(3 << 20)
			go func() {
				for rest := want; len(rest) > 0; {
					n := min(len(rest), 1+rand.IntN(20_000))
					c.Write(rest[:n])
					rest = rest[n:]
				}
				c.CloseWrite()
			}()
			go func() {
				for i := range 10 {
					d.Write(want[i*10_000 : (i+1)*10_000])
				}
				d.CloseWrite()
			}()
			back := make(chan []byte, 1)
			go func() {
				got, _ := io.ReadAll(c)
				back <- got
			}()
			if got, err := io.ReadAll(d); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("read %d bytes, %v", len(got), err)
			}
			if got := <-back; !bytes.Equal(got, want[:100_000]) {
				t.Fatalf("read %d bytes back", len(got))
			}
			c.Close()
			d.Close()
			<-a.Done()
			<-b.Done()
		})
	}
}

func TestShortMessagesCostNoOtherPackets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, ab, ba := latePorts(t, 0)
		c, d := connect(t, a, b)
		synctest.Wait()
		to, from := ab.packets, ba.packets
		begin := time.Now()
		p := make([]byte, 64)
		for range 10 {
			// Two messages at once: the second must not wait for the first.
			c.Write(p)
			c.Write(p)
			io.ReadFull(d, make([]byte, 128))
			d.Write(p)
			io.ReadFull(c, p)
		}
		if to, from = ab.packets-to, ba.packets-from; to != 20 || from != 10 {
			t.Errorf("%d and %d packets for 20 and 10 messages", to, from)
		}
		if took := time.Since(begin); took != 400*time.Millisecond {
			t.Errorf("ten round trips of 40 ms took %v", took)
		}
	})
}

func TestIdleConnectionIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, ab, ba := latePorts(t, 0)
		c, d := connect(t, a, b)
		synctest.Wait()
		packets := ab.packets + ba.packets
		time.Sleep(time.Hour)
		if n := ab.packets + ba.packets - packets; n != 0 {
			t.Errorf("%d packets in an idle hour", n)
		}
		c.Write([]byte("x"))
		if n, err := d.Read(make([]byte, 2)); n != 1 || err != nil {
			t.Errorf("after an hour: %d, %v", n, err)
		}
	})
}

func TestDialGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _, ab, _ := latePorts(t, 0)
		ab.dead = true
		begin := time.Now()
		if _, err := a.Dial(context.Background()); !errors.Is(err, syscall.ETIMEDOUT) {
			t.Errorf("Dial: %v", err)
		}
		if took := time.Since(begin).Round(time.Second); took != 21*time.Second || ab.packets != 4 { // three SYN and a RST
			t.Errorf("after %v and %d packets", took, ab.packets)
		}
	})
}

func TestLingerIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, ab, _ := latePorts(t, 0)
		c, _ := connect(t, a, b)
		ab.dead = true
		c.Write([]byte("lost"))
		begin := time.Now()
		c.Close()
		if took := time.Since(begin); took != 0 {
			t.Errorf("Close waited %v", took)
		}
		<-a.Done()
		if took := time.Since(begin).Round(100 * time.Millisecond); took != 5*time.Second {
			t.Errorf("lingered %v", took)
		}
		if _, err := c.Read(nil); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Read: %v", err)
		}
	})
}
