//go:build unix

package crust_test

import (
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
)

// TestLentWakesNobodyWhenIdle: an idle session that a program reads for costs no
// processor time.
func TestLentWakesNobodyWhenIdle(t *testing.T) {
	lentOver(t, crust.Config{Heartbeat: time.Minute}, func(t *testing.T, a *node, b *consumer) {
		used := func() time.Duration {
			var u syscall.Rusage
			if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
				t.Fatal(err)
			}
			return time.Duration(u.Utime.Nano() + u.Stime.Nano())
		}
		synctest.Wait()
		before := used()
		time.Sleep(3 * time.Hour)
		if took := used() - before; took > time.Second {
			t.Fatalf("three idle hours took %v", took)
		} else {
			t.Log(took)
		}
		if !b.n.ReadsItself() {
			t.Fatal("the program does not read by itself any more")
		}
	})
}
