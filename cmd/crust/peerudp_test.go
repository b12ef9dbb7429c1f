package main

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// startUTP runs `crust peer --json` with one listener on loopback, of uTP.
func startUTP(t *testing.T, arguments ...string) *running {
	t.Helper()
	r := startText(t, append([]string{"--json", "--listen", "utp://127.0.0.1:0"}, arguments...)...)
	r.id = r.next("started").text("peer")
	r.at = r.next("listener_started").text("endpoint")
	return r
}

func TestHelloOverUTP(t *testing.T) {
	a, b := startUTP(t), startUTP(t)
	a.tell("info")
	b.tell("connect %s", a.next("info").text("info"))
	dialed, accepted := b.next("connected"), a.next("connected")
	if dialed.text("transport") != "utp" || dialed.text("endpoint") != a.at || accepted.text("transport") != "utp" {
		t.Errorf("got %s and %s, want uTP", dialed.raw, accepted.raw)
	}
	for _, r := range []struct{ from, to *running }{{a, b}, {b, a}} {
		r.from.tell("send %s hello", r.to.id)
		r.from.next("sent")
		if m := r.to.next("message"); m.text("text") != "hello" || m.text("peer") != r.from.id {
			t.Errorf("got %s", m.raw)
		}
	}
	a.tell("bulk %s 200 100000", b.id)
	a.next("sent")
	for range 200 {
		if m := b.next("message"); m.number("len") != 100_000 {
			t.Fatalf("got %s", m.raw)
		}
	}
	a.stops()
	b.next("lost")
	b.stops()
}

// A datagram may be lost, so it is sent until one comes.
func TestDatagrams(t *testing.T) {
	a, b := startUTP(t), startUTP(t)
	join(a, b)
	for _, c := range []struct {
		text  string
		shown bool
	}{{"hello  there ", true}, {"", true}, {strings.Repeat("x", 257), false}} {
		a.tell("datagram %s %s", b.id, c.text)
		sent := a.next("sent")
		has(t, sent, "peer", "count", "bytes", "took_ms")
		if sent.number("count") != 1 || sent.number("bytes") != float64(len(c.text)) || sent.text("peer") != b.id {
			t.Errorf("got %s, want one datagram of %d bytes", sent.raw, len(c.text))
		}
		d := datagramAt(t, a, b, c.text)
		fields := []string{"peer", "len", "text"}
		if !c.shown {
			fields = fields[:2]
		}
		has(t, d, fields...)
		if d.text("peer") != a.id || d.number("len") != float64(len(c.text)) || c.shown && d.fields["text"] != c.text {
			t.Errorf("got %s, want %.20q", d.raw, c.text)
		}
	}
	a.tell("datagram %s %s", b.id, strings.Repeat("x", 70_000))
	if l := a.refuse("too_big"); !strings.Contains(l.text("error"), "70000 bytes") {
		t.Errorf("got %s, want the size", l.raw)
	}
	for _, wrong := range []string{"datagram", "datagram " + b.id} {
		a.tell("%s", wrong)
		if l := a.refuse("invalid"); !strings.Contains(l.text("error"), "datagram PEER TEXT") {
			t.Errorf("got %s, want the usage", l.raw)
		}
	}
	a.tell("datagram %s x", a.id)
	a.refuse("unknown_peer")
	c := start(t)
	a.tell("connect %s", c.at)
	a.next("connected")
	c.next("connected")
	a.tell("datagram %s over TCP", c.id)
	a.next("sent")
	if d := datagramAt(t, a, c, "over TCP"); d.text("text") != "over TCP" {
		t.Errorf("got %s", d.raw)
	}
	a.tell("stats")
	if s := a.next("stats"); s.number("sent_datagrams") < 3 || s.number("received_datagrams") != 0 || s.number("lost_datagrams") != 0 {
		t.Errorf("got %s", s.raw)
	}
}

// datagramAt waits for a datagram of from, which has sent one, at to. When none
// comes for a while from sends it again.
func datagramAt(t *testing.T, from, to *running, text string) line {
	t.Helper()
	for range 60 {
		timer := time.NewTimer(500 * time.Millisecond)
		select {
		case raw := <-to.lines:
			timer.Stop()
			l, err := parseLine(raw)
			if err != nil || l.event() != "datagram" {
				t.Fatalf("got %s (%v), want a datagram", raw, err)
			}
			if l.number("len") == float64(len(text)) {
				return l
			}
		case <-timer.C:
			from.tell("datagram %s %s", to.id, text)
			from.next("sent")
		}
	}
	t.Fatal("no datagram came")
	return line{}
}

func TestLivePort(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := fmt.Sprint(taken.Addr().(*net.TCPAddr).Port)
	udp, err := net.ListenPacket("udp", "127.0.0.1:"+port)
	if err != nil {
		t.Skip("the port is taken for UDP by another program:", err)
	}
	defer udp.Close()
	for _, begin := range []func(*testing.T, ...string) *running{start, startUTP} {
		if r := begin(t, "--live-port", port); strings.HasSuffix(r.at, ":"+port) {
			t.Errorf("a listener at %s, which is taken", r.at)
		}
	}
	taken.Close()
	udp.Close()
	for _, begin := range []func(*testing.T, ...string) *running{start, startUTP} {
		r := begin(t, "--live-port", port)
		if !strings.HasSuffix(r.at, ":"+port) {
			t.Errorf("a listener at %s, want port %s", r.at, port)
		}
		r.stops()
	}
}

func TestPortRotation(t *testing.T) {
	a, b := startUTP(t, "--port-rotation", "1s"), start(t)
	join(b, a)
	moved := a.next("listener_started")
	if moved.text("endpoint") == a.at {
		t.Errorf("the new port is the old one: %s", moved.raw)
	}
	stopped := a.past("listener_stopped", "listener_started") // at the next rotation, beside a new listener
	has(t, stopped, "endpoint")
	if stopped.text("endpoint") != a.at {
		t.Errorf("got %s, want %s", stopped.raw, a.at)
	}
	b.tell("send %s still here", a.id)
	b.next("sent")
	if m := a.past("message", "listener_started", "listener_stopped"); m.text("text") != "still here" {
		t.Errorf("got %s", m.raw)
	}
}

// TestNetchange: the word that the network has changed is answered, and harms
// nothing.
func TestNetchange(t *testing.T) {
	a, b := startUTP(t), start(t)
	join(b, a)
	a.mobile = true
	a.tell("netchange")
	has(t, a.next("network_changed"), "count")
	a.tell("netchange now")
	a.refuse("invalid")
	b.tell("send %s still here", a.id)
	b.next("sent")
	if m := a.past("message", "network_changed"); m.text("text") != "still here" {
		t.Errorf("got %s", m.raw)
	}
}

// past returns the next line that is this event, passing over some others.
func (r *running) past(event string, passed ...string) line {
	r.t.Helper()
	for {
		l, err := parseLine(r.raw())
		switch {
		case err == nil && l.event() == event:
			return l
		case err != nil || !slices.Contains(passed, l.event()):
			r.t.Fatalf("got %s (%v), want the event %q", l.raw, err, event)
		}
	}
}
