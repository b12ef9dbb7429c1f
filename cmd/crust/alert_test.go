package main

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/identity"
)

// Who connects again and again and says nothing is told of, once, with figures; what is suggested can be given
// to ban as it is, and then holds.
func TestAlert(t *testing.T) {
	a := start(t)
	at := strings.TrimPrefix(a.at, "tcp://")
	for range 200 {
		conn, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	l := a.next("alert")
	has(t, l, "kind", "peer", "address", "figures", "suggest")
	figures, _ := l.fields["figures"].(map[string]any)
	suggest, _ := l.fields["suggest"].(map[string]any)
	if l.text("kind") != "garbage" || l.text("peer") != "" || l.text("address") != "127.0.0.1" || suggest["ban"] != "127.0.0.1" || suggest["seconds"] != 600.0 {
		t.Errorf("got %s", l.raw)
	}
	if n, _ := figures["count"].(float64); n < 64 || n > 200 || figures["total"] != n || len(figures) != 8 {
		t.Errorf("the figures are %v", figures)
	}
	a.tell("ban %v %v", suggest["ban"], suggest["seconds"])
	if l := a.next("banned"); l.text("who") != "127.0.0.1" || l.fields["seconds"] != 600.0 {
		t.Errorf("got %s", l.raw)
	}
	conn, err := net.Dial("tcp", at)
	if err != nil { // it is refused, or closed unread
		return
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(patience)) //nolint:errcheck // a socket of the kernel has deadlines
	if n, err := io.Copy(io.Discard, conn); n > 0 || errorIsTimeout(err) {
		t.Errorf("who is banned has %d bytes, %v", n, err)
	}
}

func errorIsTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

// An alert about a peer names its key; one without a suggestion says null.
func TestAlertOfAPeer(t *testing.T) {
	key, err := identity.Generate()
	if err != nil {
		t.Fatal(err)
	}
	id := key.ID()
	r, ok := alertOf(crust.Alert{Kind: crust.AlertFlood, Peer: id, Suggest: crust.BanTarget{Peer: id}, For: time.Hour}).(*alertReport)
	if !ok || r.Kind != "flood" || r.Peer != id.String() || r.Address != "" || r.Suggest == nil || *r.Suggest != (alertBan{id.String(), 3600}) {
		t.Errorf("%+v", r)
	}
	if r, ok := alertOf(crust.Alert{Kind: crust.AlertGarbage}).(*alertReport); !ok || r.Suggest != nil || r.Peer != "" {
		t.Errorf("%+v", r)
	}
}
