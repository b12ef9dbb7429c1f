package session

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libcrust/libcrust/core/internal/wire"
)

// parts is usual with connections that stay when a session is expelled.
func parts() Config {
	c := usual
	c.Partings = new(Partings)
	return c
}

// TestExpelledHearsWhy: a session that is expelled ends at once, though its writer is held
// up and its peer writes, too; the peer learns why when it reads again, and the
// connection is gone then.
func TestExpelledHearsWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		la, lb := links(t, 10_000, nil)
		cfg, oa, ob := parts(), new(owner), &owner{gate: make(chan struct{})}
		a, b := start(t, la, cfg, oa), start(t, lb, cfg, ob)
		for i := range 30 {
			if err := errors.Join(a.Send(numbered(60_000, i), 1), b.Send(numbered(60_000, i), 1)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		began := time.Now()
		a.Expel(wire.ReasonBanned, ErrDisconnected)
		<-a.Done()
		if d := time.Since(began); d != 0 || a.Live() {
			t.Errorf("ended after %v", d)
		}
		if n := a.Counters().Queued; n != 0 || cfg.Partings.now.Load() != 1 {
			t.Errorf("%d bytes are queued, and %d connections stay", n, cfg.Partings.now.Load())
		}
		time.Sleep(partingLeast / 2)
		close(ob.gate)
		<-b.Done()
		if ended := ob.all("ended"); len(ended) != 1 || !errors.Is(ended[0].why, ErrBanned) {
			t.Errorf("the peer was told %v", ended)
		}
		oa.wg.Wait()
		if d := time.Since(began); d > partingLeast || cfg.Partings.now.Load() != 0 {
			t.Errorf("after %v %d connections stay", d, cfg.Partings.now.Load())
		}
	})
}

// TestExpelledWhoDoesNotRead: the connection of an expelled peer that does not read and
// does not close stays for partingMost at most, and for Config.CloseTimeout; so does that
// of one that writes without end, of which little is read.
func TestExpelledWhoDoesNotRead(t *testing.T) {
	for timeout, want := range map[time.Duration]time.Duration{5 * time.Second: partingMost, 300 * time.Millisecond: 300 * time.Millisecond, 1: dismissGrace} {
		for _, floods := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				la, lb := links(t, 10_000, nil)
				defer lb.Conn.Close()
				cfg, oa := parts(), new(owner)
				cfg.CloseTimeout = timeout
				a := start(t, la, cfg, oa)
				if floods {
					junk := make(chan int)
					go func() {
						n := 0
						for frames := wire.AppendMessage(nil, 1, make([]byte, 10_000)); ; {
							m, err := lb.Conn.Write(sealFrames(lb.Seal, nil, frames))
							if n += m; err != nil {
								junk <- n
								return
							}
							time.Sleep(time.Millisecond)
						}
					}()
					time.Sleep(10 * time.Millisecond)
					defer func() {
						if n := <-junk; n > partingBytes+300_000 {
							t.Errorf("%d bytes were read", n)
						}
					}()
					defer lb.Conn.Close()
				} else if err := a.Send(make([]byte, 100_000), 1); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				began := time.Now()
				a.Expel(wire.ReasonBanned, ErrDisconnected)
				<-a.Done()
				if time.Since(began) != 0 {
					t.Error("the session did not end at once")
				}
				oa.wg.Wait()
				if d := time.Since(began); d != want || cfg.Partings.now.Load() != 0 {
					t.Errorf("the connection stayed for %v, and %d stay", d, cfg.Partings.now.Load())
				}
			})
		}
	}
}

// TestPartingsAreFew: when maxPartings connections stay, the next is closed at once, and
// there is room again when one has gone.
func TestPartingsAreFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := parts()
		for range maxPartings {
			if !cfg.Partings.begin() {
				t.Fatal("there is no room")
			}
		}
		for _, room := range []bool{false, true} {
			if room {
				cfg.Partings.end()
			}
			la, lb := links(t, 10_000, nil)
			defer lb.Conn.Close()
			oa := new(owner)
			a := start(t, la, cfg, oa)
			if err := a.Send(make([]byte, 100_000), 1); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			began := time.Now()
			a.Expel(wire.ReasonBanned, ErrDisconnected)
			oa.wg.Wait()
			if d := time.Since(began); (d > 0) != room || cfg.Partings.now.Load() != maxPartings-map[bool]int32{true: 1}[room] {
				t.Errorf("room %v: closed after %v, %d stay", room, d, cfg.Partings.now.Load())
			}
		}
	})
}
