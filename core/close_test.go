package crust_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
)

// TestCloseInTime: a service whose peers, over TCP, uTP and relays, do not answer any more is
// closed within CloseTimeout and a second, whatever is queued, and whether it has noticed.
func TestCloseInTime(t *testing.T) {
	for _, transport := range []string{"tcp", "utp"} {
		for _, after := range []time.Duration{0, 100 * time.Millisecond, 12 * time.Second} {
			for _, size := range []int{0, 100, 300 << 10} {
				t.Run(fmt.Sprint(transport, " ", after, " ", size), func(t *testing.T) {
					relayWorld(t, 0, 2, transport, crust.Config{LostAfter: 10 * time.Second, Heartbeat: 2 * time.Second}, crust.Config{}, func(t *testing.T, w *relayed) {
						w.meet()
						for _, h := range w.hosts {
							w.Silence(w.ha, h)
						}
						for _, n := range append(w.relays, w.b) {
							if size > 0 {
								if err := w.a.Send(n.ID(), filled(size, 1), 1); err != nil {
									t.Fatal(err)
								}
							}
						}
						time.Sleep(after)
						synctest.Wait()
						began := time.Now()
						w.a.Close()
						if took := time.Since(began); took > 6*time.Second {
							t.Errorf("closed after %v", took)
						}
					})
				})
			}
		}
	}
}
