package conformance

import (
	"context"
	"strings"
	"testing"
	"time"

	crust "github.com/libcrust/libcrust/core"
)

// message makes message number k of the drivers' pattern.
func message(k, size int) []byte {
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(k*31 + i*7 + 3)
	}
	return data
}

// TestDriversNotice gives every driver what it must not call verified: one wrong
// bit, a wrong length, a wrong order. Without this the matrix would prove little.
func TestDriversNotice(t *testing.T) {
	w := newWorkshop(t)
	for _, language := range wanted(t) {
		p := w.build(t, language)
		for name, sent := range map[string][][]byte{
			"nothing wrong": {message(0, 64), message(1, 64)},
			"one bit":       {message(0, 64), append(message(1, 64)[:63], message(1, 64)[63]^1)},
			"short":         {message(0, 63), message(1, 64)},
			"order":         {message(1, 64), message(0, 64)},
		} {
			t.Run(language+"/"+name, func(t *testing.T) {
				notices(t, language, p, sent, name == "nothing wrong")
			})
		}
	}
}

// notices sends messages to a driver and asserts what it says of them.
func notices(t *testing.T, language string, p program, sent [][]byte, good bool) {
	network := "damage " + language
	d := start(t, language, p, network)
	service, err := crust.New(crust.Config{NetworkName: network, NoListen: true, CloseTimeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer service.Close()
	d.tell("info")
	ctx, cancel := context.WithTimeout(t.Context(), answerTime)
	defer cancel()
	if err := service.Connect(decode(t, strings.TrimPrefix(d.expect("info "), "info ")), 1); err != nil {
		t.Fatal(err)
	}
	connected := false
	for e := range service.Events(ctx) {
		if e.Type == crust.EventConnected {
			connected = true
			break
		}
		t.Fatalf("got %v: %v", e.Type, e.Err())
	}
	if !connected {
		t.Fatalf("not connected within %v", answerTime)
	}
	d.expectAll("connected " + service.ID().String() + " tcp")
	peer := service.Peers()[0].Peer
	for _, data := range sent {
		if err := service.Send(peer, data, 0); err != nil {
			t.Fatal(err)
		}
	}
	d.tell("verify %s %d %d", service.ID(), len(sent), 64)
	if good {
		d.expectAll("verified 2")
	} else {
		d.expect("error ")
	}
}
