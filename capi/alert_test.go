package main

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	crust "github.com/libcrust/libcrust/core"
)

// Somebody who connects again and again and says nothing is told of.
func TestPackAlert(t *testing.T) {
	ep, err := crust.ParseEndpoint("tcp://127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	service, err := crust.New(crust.Config{Listen: []crust.Endpoint{ep}})
	if err != nil {
		t.Fatal(err)
	}
	defer service.Close()
	for range 200 {
		conn, err := net.Dial("tcp", service.Listeners()[0].Addr.String())
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for e := range service.Events(ctx) {
		if e.Type != crust.EventAlert {
			continue
		}
		s := source{}
		s.refill(crust.Batch{Events: []crust.Event{e}})
		m, release := packOnce(t, &s, 0)
		defer release()
		got := &m.events[0]
		if got.kind != 26 || got.code != 0 || got.how != uint8(crust.AlertGarbage) || got.peer != 0 || got.count < 64 || got.count > 200 || got.tookUS != 600_000_000 {
			t.Errorf("the event is %+v", *got)
		}
		if text := string(at(t, m, got.data, int(got.size))); text != "127.0.0.1" {
			t.Errorf("to ban is suggested %q", text)
		}
		if text := string(at(t, m, got.endpoint, len("127.0.0.1")+1)); text != "127.0.0.1\x00" {
			t.Errorf("the address is %q", text)
		}
		if want := e.Alert().Text(); string(at(t, m, got.text, len(want))) != want || !strings.HasPrefix(want, "garbage: ") || !strings.Contains(want, "times by 127.0.0.1, ") {
			t.Errorf("the text is not %q", want)
		}
		return
	}
	t.Fatal("no alert")
}
