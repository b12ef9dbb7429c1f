package main

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
)

// relay carries TCP connections to a listener, and cuts them when told.
type relay struct {
	listener net.Listener
	running  sync.WaitGroup

	mu   sync.Mutex
	ends []net.Conn // guarded by mu
}

func startRelay(t *testing.T, target string) *relay {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{listener: listener}
	r.running.Go(func() { r.accept(strings.TrimPrefix(target, "tcp://")) })
	t.Cleanup(func() {
		listener.Close()
		r.cut()
		r.running.Wait()
	})
	return r
}

func (r *relay) at() string { return "tcp://" + r.listener.Addr().String() }

func (r *relay) accept(target string) {
	for {
		in, err := r.listener.Accept()
		if err != nil {
			r.cut() // what came after the cleanup's
			return
		}
		out, err := net.Dial("tcp", target)
		if err != nil {
			in.Close()
			continue
		}
		r.mu.Lock()
		r.ends = append(r.ends, in, out)
		r.mu.Unlock()
		for _, way := range [][2]net.Conn{{in, out}, {out, in}} {
			r.running.Go(func() {
				io.Copy(way[0], way[1]) //nolint:errcheck // the end is the end
				in.Close()
				out.Close()
			})
		}
	}
}

// cut ends the connections that there are.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, end := range r.ends {
		end.Close()
	}
	r.ends = nil
}

// throughRelay connects b to a, which listens, through a relay.
func throughRelay(t *testing.T, a, b *running) *relay {
	t.Helper()
	r := startRelay(t, a.at)
	b.tell("connect %s#%s", r.at(), a.id)
	b.next("connected")
	a.next("connected")
	return r
}

func TestSuspendedAndResumed(t *testing.T) {
	a, b := start(t, "--quiet-messages"), start(t, "--resume-window", "1m")
	r := throughRelay(t, a, b)
	const cuts, count = 3, 300
	for i := range cuts {
		b.tell("bulk %s %d 1000", a.id, count)
		b.next("sent")
		r.cut()
		suspended := b.next("suspended")
		has(t, suspended, "peer", "code", "error")
		if suspended.text("peer") != a.id || suspended.text("code") != "reset" || suspended.text("error") == "" {
			t.Errorf("got %s, want code reset", suspended.raw)
		}
		b.tell("send %s after cut %d", a.id, i)
		resumed := b.past("resumed", "sent")
		has(t, resumed, "peer", "endpoint", "transport", "how")
		for key, want := range map[string]string{"peer": a.id, "endpoint": r.at(), "transport": "tcp", "how": "dialed"} {
			if got := resumed.text(key); got != want {
				t.Errorf("resumed: %s is %q, want %q", key, got, want)
			}
		}
		if m := a.past("message", "suspended", "resumed"); m.text("text") != fmt.Sprintf("after cut %d", i) {
			t.Errorf("got %s", m.raw)
		}
		b.tell("receipt %s here", a.id)
		b.past("delivered", "sent")
		a.past("message", "suspended", "resumed")
	}
	if s := a.counted("received_messages", cuts*(count+2)); s.number("received_messages") != cuts*(count+2) {
		t.Errorf("got %s, want each message once", s.raw)
	}
}

func TestNoResume(t *testing.T) {
	a, b := start(t), start(t, "--no-resume")
	r := throughRelay(t, a, b)
	r.cut()
	if lost := b.next("lost"); lost.text("code") != "reset" || lost.number("count") != 0 {
		t.Errorf("got %s, want code reset", lost.raw)
	}
	a.next("lost") // neither side waits, since one would not
}

func TestReceipts(t *testing.T) {
	a, b := start(t), start(t)
	join(a, b)
	a.tell("receipt %s have you  got it? ", b.id)
	sent := a.next("sent")
	has(t, sent, "peer", "count", "bytes", "took_ms")
	delivered := a.next("delivered")
	has(t, delivered, "peer", "len", "took_ms", "code", "error")
	if delivered.text("peer") != b.id || delivered.number("len") != 18 || delivered.text("code") != "ok" || delivered.fields["error"] != "" || delivered.number("took_ms") <= 0 {
		t.Errorf("got %s, want code ok and 18 bytes", delivered.raw)
	}
	if m := b.next("message"); m.text("text") != "have you  got it? " || m.number("priority") != 1 {
		t.Errorf("got %s", m.raw)
	}
	a.tell("receipt %s", b.id)
	if l := a.refuse("invalid"); !strings.Contains(l.text("error"), "receipt PEER TEXT") {
		t.Errorf("got %s, want the usage", l.raw)
	}
	a.tell("receipt %s x", a.id)
	a.refuse("unknown_peer")
}

// Many receipts at once, and the end right behind them: each has one answer, in
// order, and never before its "sent".
func TestManyReceiptsBeforeQuit(t *testing.T) {
	a, b := start(t), start(t, "--quiet-messages")
	join(a, b)
	const count = 2000
	var commands strings.Builder
	for i := range count {
		fmt.Fprintf(&commands, "receipt %s %s\n", b.id, strings.Repeat("x", 300+i))
	}
	go fmt.Fprint(a.input, commands.String()+"quit\n")
	sent, delivered := 0, 0
	for {
		l, err := parseLine(a.raw())
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case l.event() == "sent" && l.number("bytes") == float64(300+sent):
			sent++
			continue
		case l.event() == "delivered" && l.number("len") == float64(300+delivered) && l.text("code") == "ok" && delivered < sent:
			delivered++
			continue
		case l.event() == "lost" && sent == count && delivered == count:
			a.next("stopped")
			return
		}
		t.Fatalf("got %s after %d sent and %d delivered", l.raw, sent, delivered)
	}
}

// TestUpgraded: a session that has begun over uTP goes over to TCP once the peer's TCP
// endpoint is known, and the peer tells so.
func TestUpgraded(t *testing.T) {
	a, b := start(t, "--listen", "utp://127.0.0.1:0"), start(t)
	utp := a.next("listener_started").text("endpoint")
	b.tell("connect %s#%s", utp, a.id)
	if c := b.next("connected"); c.text("transport") != "utp" {
		t.Fatalf("got %s", c.raw)
	}
	a.next("connected")
	b.tell("connect %s#%s", a.at, a.id)
	b.past("resumed", "error")
	up := b.past("upgraded", "error")
	has(t, up, "peer", "from", "to")
	if up.text("peer") != a.id || up.text("from") != "utp" || up.text("to") != "tcp" {
		t.Errorf("got %s", up.raw)
	}
	a.past("upgraded", "resumed")
}
