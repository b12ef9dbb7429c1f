package simnet

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libcrust/libcrust/core/internal/netio"
	"github.com/libcrust/libcrust/tests/natsim"
)

// TestCast: what is sent to all reaches every shared socket of the segment, the sender's
// own machine's too, and nobody elsewhere.
func TestCast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(1)
		n.SetDefaultLink(Link{Latency: time.Millisecond})
		router := n.NAT(natsim.Config{}, "10.0.0.254")
		hosts := map[string]*Host{
			"sender": n.Host("10.0.0.1", "fd00::1"), "near": n.Host("10.0.0.2", "fd00::2"), "far": n.Host("10.0.1.3", "fd00:0:0:1::3"),
			"inside": router.Host("10.0.0.4"), "cut off": n.Host("10.0.0.5", "fd00::5"),
		}
		n.Cut(hosts["sender"], hosts["cut off"])
		var mu sync.Mutex
		heard := map[string]int{}
		var ears []netio.CastConn
		for name, h := range hosts {
			for _, six := range []bool{false, true, false} {
				ear, err := h.ListenShared(context.Background(), six, 5)
				if err != nil {
					t.Fatal(err)
				}
				ears = append(ears, ear)
				go func() {
					b := make([]byte, 100)
					for {
						k, from, err := ear.ReadFrom(b)
						if err != nil {
							return
						}
						mu.Lock()
						heard[name+" "+from.Addr().String()+" "+string(b[:k])]++
						mu.Unlock()
					}
				}()
			}
		}
		all, err := hosts["sender"].Segments()
		if err != nil || len(all) != 4 {
			t.Fatal(all, err)
		}
		for _, s := range all {
			if !s.All.IsValid() {
				continue
			}
			c, err := hosts["sender"].ListenCast(context.Background(), s)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.WriteTo([]byte("hi"), netip.AddrPortFrom(s.All, 5)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			c.Close()
			if err := c.WriteTo(nil, netip.AddrPortFrom(s.All, 5)); !errors.Is(err, net.ErrClosed) {
				t.Errorf("written to what is closed: %v", err)
			}
		}
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		want := map[string]int{"sender 127.0.0.1 hi": 2, "sender 10.0.0.1 hi": 2, "sender fd00::1 hi": 1, "near 10.0.0.1 hi": 2, "near fd00::1 hi": 1}
		for what, count := range want {
			if heard[what] != count {
				t.Errorf("%s: %d times, want %d", what, heard[what], count)
			}
			delete(heard, what)
		}
		if len(heard) > 0 {
			t.Errorf("also %v", heard)
		}
		if _, err := hosts["near"].ListenPacket(context.Background(), netip.MustParseAddrPort("0.0.0.0:5")); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("the port is shared with who does not share: %v", err)
		}
		for _, ear := range ears {
			ear.Close()
			if err := ear.Join(all[0]); !errors.Is(err, net.ErrClosed) {
				t.Errorf("joined by what is closed: %v", err)
			}
		}
		if c, err := hosts["near"].ListenPacket(context.Background(), netip.MustParseAddrPort("0.0.0.0:5")); err != nil {
			t.Error(err)
		} else if _, err := hosts["near"].ListenShared(context.Background(), false, 5); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("a taken port is shared: %v", err)
		} else {
			c.Close()
		}
		for name, h := range hosts {
			if h.InUse() != 0 {
				t.Errorf("%s: %d sockets are left", name, h.InUse())
			}
		}
	})
}
