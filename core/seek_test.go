package crust_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/internal/simnet"
)

// TestSuspendedAreIntroducedAgain: a session over a punched link, which dies while both NATs forget it,
// goes on within ten seconds of the path's return over another one that the two punch when a peer introduces them, though none relays.
func TestSuspendedAreIntroducedAgain(t *testing.T) {
	for _, transport := range []string{"tcp", "utp"} {
		for seed := range uint64(6) {
			synctest.Test(t, func(t *testing.T) {
				internet := simnet.New(seed)
				internet.SetDefaultLink(simnet.Link{Latency: 20 * time.Millisecond, Hops: 8})
				cfg := crust.Config{Heartbeat: time.Second, LostAfter: 4 * time.Second, ResumeWindow: 20 * time.Second}
				hub := newNode(t, crust.On(internet.Host("198.51.100.1"), over(cfg, "0.0.0.0", transport)))
				defer hub.Close()
				nodes, routers := behindNATs(t, internet, "home", cfg, []string{transport}, hub)
				a, b := nodes[seed%2], nodes[1-seed%2]
				if err := a.ConnectPeer(b.ID(), 1); err != nil {
					t.Fatal(err)
				}
				if e := a.final(t, 1); e.Type != crust.EventConnected {
					t.Fatalf("%v", e.Err())
				}
				b.pastMoves(crust.EventConnected)
				time.Sleep(time.Minute)
				synctest.Wait()
				a.waiting()
				began := time.Now()
				internet.Silence(routers[0].Node(), routers[1].Node())
				go func() {
					time.Sleep(6 * time.Second)
					routers[0].Reboot(false)
					routers[1].Reboot(false)
					internet.Heal(routers[0].Node(), routers[1].Node())
				}()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				for e := range a.Events(ctx) {
					if e.Peer != b.ID() {
						continue
					}
					if e.Type == crust.EventLost {
						t.Fatalf("%s %d: lost after %v: %v", transport, seed, time.Since(began), e.Err())
					}
					if e.Type == crust.EventResumed {
						if took := time.Since(began); took > 16*time.Second || e.How() != crust.Punched {
							t.Errorf("%s %d: resumed after %v by %v", transport, seed, took, e.How())
						}
						return
					}
				}
				t.Errorf("%s %d: neither lost nor resumed", transport, seed)
			})
		}
	}
}
