package crust_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/internal/simnet"
)

// TestBannedHearsWhyOverASlowPath: who is banned is lost at once, and learns within 2 s
// that it is banned, however long the way is, whoever has dialled, and however much is
// under way in both directions.
func TestBannedHearsWhyOverASlowPath(t *testing.T) {
	for _, tr := range []crust.Transport{crust.TCP, crust.UTP} {
		for _, latency := range []time.Duration{90 * time.Millisecond, 200 * time.Millisecond} {
			for _, wait := range []time.Duration{0, 150 * time.Millisecond, 400 * time.Millisecond, 2 * time.Second} {
				for _, dials := range []bool{true, false} {
					name := fmt.Sprintf("%v/%v/%v/dials=%v", tr, latency, wait, dials)
					t.Run(name, func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) { banOverASlowPath(t, tr, latency, wait, dials) })
					})
				}
			}
		}
	}
}

func banOverASlowPath(t *testing.T, tr crust.Transport, latency, wait time.Duration, dials bool) {
	internet := simnet.New(1)
	internet.SetDefaultLink(simnet.Link{Latency: latency, Bandwidth: 10 << 20})
	var nodes [2]*node
	for i := range nodes {
		host := fmt.Sprint("10.0.0.", i+1)
		nodes[i] = newNode(t, crust.On(internet.Host(host), over(crust.Config{}, host, tr.String())))
		defer nodes[i].Close()
	}
	a, b := nodes[0], nodes[1]
	from, to, host := a, b, "10.0.0.2"
	if !dials {
		from, to, host = b, a, "10.0.0.1"
	}
	if err := from.ConnectEndpoint(contactOf(t, to, tr, host), 1); err != nil {
		t.Fatal(err)
	}
	a.awaits(t, crust.EventConnected)
	if wait > 0 { // else b is not told of its session yet when it accepts
		b.awaits(t, crust.EventConnected)
		if err := b.Send(a.ID(), make([]byte, crust.MaxMessage), 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Send(b.ID(), make([]byte, crust.MaxMessage), 1); err != nil {
		t.Fatal(err)
	}
	time.Sleep(wait)
	began := time.Now()
	a.ban(time.Hour, b.ID().String())
	if e := a.awaits(t, crust.EventLost); e.Code() != crust.CodeBanned || time.Since(began) > 10*time.Millisecond {
		t.Errorf("lost after %v: %v", time.Since(began), e.Err())
	}
	if wait == 0 {
		time.Sleep(time.Minute)
		for _, e := range b.waiting() {
			if (e.Type == crust.EventLost || e.Type == crust.EventConnectFailed) && e.Code() != crust.CodeBanned {
				t.Errorf("the banned one: %v", e.Err())
			}
		}
		if len(b.sessions()) > 0 {
			t.Error("the banned one is connected still")
		}
		return
	}
	if e := b.awaits(t, crust.EventLost); e.Code() != crust.CodeBanned || time.Since(began) > 2*time.Second {
		t.Errorf("the banned one, after %v: %v", time.Since(began), e.Err())
	}
	began = time.Now()
	a.Close()
	if d := time.Since(began); d > 2*time.Second {
		t.Errorf("Close took %v", d)
	}
}
