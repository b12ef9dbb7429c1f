package crust_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
)

// TestLastIsTold: who is connected says one thing and closes at once, before the peer has
// said that it has the session. The peer has read all when it closes in turn, and so nothing is
// told to be lost.
func TestLastIsTold(t *testing.T) {
	for name, c := range map[string]struct {
		by    string
		relay bool
	}{"relay": {"tcp", true}, "TCP": {"tcp", false}, "uTP": {"utp", false}} {
		for seed := range uint64(2) {
			t.Run(fmt.Sprint(name, seed), func(t *testing.T) {
				firstMessages(t, seed, c.by, c.relay, func(t *testing.T, a, b *node, connect func(token uint64) error) {
					if err := connect(7); err != nil {
						t.Fatal(err)
					}
					a.next(crust.EventConnected)
					if err := a.Send(b.ID(), []byte("good bye"), 1); err != nil {
						t.Fatal(err)
					}
					if err := a.Disconnect(b.ID()); err != nil {
						t.Fatal(err)
					}
					if e := a.next(crust.EventLost); e.Count() != 0 {
						t.Errorf("%d messages are said to be lost", e.Count())
					}
					b.next(crust.EventConnected)
					if e := b.next(crust.EventMessage); string(e.Data) != "good bye" {
						t.Errorf("got %q", e.Data)
					}
					b.next(crust.EventLost)
					time.Sleep(time.Second)
					synctest.Wait()
				})
			})
		}
	}
}
