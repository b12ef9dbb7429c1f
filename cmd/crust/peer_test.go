package main

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	crust "github.com/libcrust/libcrust/core"
)

// The names of the fields are the contract.
func TestContractFields(t *testing.T) {
	a := start(t, "--app-id", "orchard/2")
	b := start(t)
	a.tell("info")
	info := a.next("info")
	has(t, info, "info")
	b.tell("connect %s", info.text("info"))
	dialed, accepted := b.next("connected"), a.next("connected")
	has(t, dialed, "peer", "app_id", "endpoint", "transport", "how", "took_ms")
	has(t, accepted, "peer", "app_id", "endpoint", "transport", "how", "took_ms")
	for key, want := range map[string]string{"peer": a.id, "app_id": "orchard/2", "endpoint": a.at, "transport": "tcp", "how": "dialed"} {
		if got := dialed.text(key); got != want {
			t.Errorf("connected: %s is %q, want %q", key, got, want)
		}
	}
	if accepted.text("how") != "accepted" || accepted.text("peer") != b.id || dialed.number("took_ms") <= 0 {
		t.Errorf("got %s and %s", accepted.raw, dialed.raw)
	}

	b.tell("send %s hello  there ", a.id)
	sent, message := b.next("sent"), a.next("message")
	has(t, sent, "peer", "count", "bytes", "took_ms")
	has(t, message, "peer", "priority", "len", "text")
	if message.text("text") != "hello  there " || message.number("len") != 13 || message.number("priority") != 1 || message.text("peer") != b.id {
		t.Errorf("got %s, want the rest of the line as text", message.raw)
	}
	if sent.number("count") != 1 || sent.number("bytes") != 13 || sent.text("peer") != a.id {
		t.Errorf("got %s, want count 1 and bytes 13", sent.raw)
	}

	b.tell("peers")
	peers := b.next("peers")
	has(t, peers, "peers")
	list := peers.fields["peers"].([]any)
	if len(list) != 1 {
		t.Fatalf("got %s, want one peer", peers.raw)
	}
	if i := strings.Index(peers.raw, `"peers":[`); !regexp.MustCompile(`^"peers":\[\{"peer":"[0-9a-f]{64}","endpoint":"[^"]+","transport":"tcp","how":"dialed","rtt_ms":[0-9.]+,"sent_bytes":13,"received_bytes":0,"sent_messages":1,"received_messages":0,"dropped_messages":0,"queued_bytes":[0-9]+,"unacked_bytes":[0-9]+,"suspended":false,"resumed":[0-9]+,"age_ms":[0-9.]+\}\]\}$`).MatchString(peers.raw[i:]) {
		t.Errorf("peers has other fields: %s", peers.raw)
	}

	b.tell("stats")
	stats := b.next("stats")
	has(t, stats, "peers", "listeners", "handshakes", "connects", "sessions_total", "handshakes_failed", "handshakes_evicted",
		"connects_failed", "sent_messages", "sent_bytes", "received_messages", "received_bytes", "dropped_messages",
		"wire_sent_bytes", "wire_received_bytes", "events_queued", "event_bytes_queued", "events_total", "backpressure_pauses",
		"sent_datagrams", "received_datagrams", "lost_datagrams", "circuits", "carried_bytes", "known",
		"refused_connections", "refused_handshakes", "refused_files", "refused_sessions", "shed_sessions", "rate_pauses", "alerts", "suppressed_alerts", "resumptions", "refused_banned", "memory_bytes", "refused_memory", "dropped_logs", "refused_help")
	if stats.number("peers") != 1 || stats.number("sent_bytes") != 13 {
		t.Errorf("got %s, want one peer and 13 bytes sent", stats.raw)
	}

	b.tell("nonsense")
	has(t, b.refuse("invalid"), "code", "error")
	b.tell("disconnect %s", a.id)
	lost := b.next("lost")
	has(t, lost, "peer", "code", "error", "count")
	if lost.text("code") != "disconnected" || lost.text("peer") != a.id {
		t.Errorf("got %s, want code disconnected", lost.raw)
	}
	if other := a.next("lost"); other.text("code") != "disconnected" || other.text("peer") != b.id {
		t.Errorf("got %s, want code disconnected", other.raw)
	}
	b.tell("connect tcp://127.0.0.1:1")
	failed := b.next("connect_failed")
	has(t, failed, "peer", "code", "error")
	if failed.fields["peer"] != "" || failed.text("code") != "refused" {
		t.Errorf("got %s, want peer \"\" and code refused", failed.raw)
	}
	a.tell("quit")
	has(t, a.next("stopped"))
	a.end()
	b.stops()
}

// Every counter of the library has a field, and none is mixed up.
func TestStatsAreComplete(t *testing.T) {
	var s crust.Stats
	from := reflect.ValueOf(&s).Elem()
	for i := range from.NumField() {
		if from.Field(i).CanInt() {
			from.Field(i).SetInt(int64(i + 1))
		} else {
			from.Field(i).SetUint(uint64(i + 1))
		}
	}
	to := reflect.ValueOf(statsOf(s)).Elem()
	for i := range from.NumField() {
		name := from.Type().Field(i).Name
		if field := to.FieldByName(name); !field.IsValid() || fmt.Sprint(field) != strconv.Itoa(i+1) {
			t.Errorf("the report of %s is %v, want %d", name, field, i+1)
		}
	}
}

func TestTextOnlyWhenItIsShortUTF8(t *testing.T) {
	a, b := start(t), start(t)
	join(a, b)
	for _, c := range []struct {
		text  string
		shown bool
	}{
		{"", true}, {strings.Repeat("x", 256), true}, {strings.Repeat("x", 257), false}, {"caf\u00e9 <&> \u2028", true}, {"caf\xe9", false},
	} {
		a.tell("send %s %s", b.id, c.text)
		a.next("sent")
		m := b.next("message")
		text, shown := m.fields["text"]
		if shown != c.shown || shown && text != c.text || m.number("len") != float64(len(c.text)) {
			t.Errorf("%.20q: got %.80s, want text shown: %v", c.text, m.raw, c.shown)
		}
	}
}

func TestBulkAndQuietMessages(t *testing.T) {
	a, b := start(t), start(t, "--quiet-messages")
	join(a, b)
	a.tell("bulk %s 500 257 0", b.id)
	if sent := a.next("sent"); sent.number("count") != 500 || sent.number("bytes") != 500*257 {
		t.Errorf("got %s, want 500 messages", sent.raw)
	}
	a.tell("bulk %s 2 256 0", b.id) // of the same priority, so they come last
	a.next("sent")
	for range 2 {
		m := b.next("message") // the first of all that is printed
		if _, text := m.fields["text"]; text || m.number("len") != 256 || m.number("priority") != 0 {
			t.Errorf("got %s, want 256 bytes that are no text", m.raw)
		}
	}
	if stats := b.counted("received_messages", 502); stats.number("received_messages") != 502 || stats.number("received_bytes") != 500*257+2*256 {
		t.Errorf("got %s, want 502 messages received", stats.raw)
	}
	a.tell("bulk %s 3 0 7", b.id)
	a.next("sent")
	for range 3 {
		if m := b.next("message"); m.number("len") != 0 || m.number("priority") != 7 || m.fields["text"] != "" {
			t.Errorf("got %s, want an empty text of priority 7", m.raw)
		}
	}
	a.tell("bulk %s 0 10", b.id)
	a.refuse("invalid")
	a.tell("bulk %s 1 2097153", b.id)
	a.refuse("too_big")
	a.tell("send %s unharmed", b.id)
	a.next("sent")
	b.next("message")
}

// More goes back and forth than all queues together hold.
func TestEcho(t *testing.T) {
	a, b := start(t, "--quiet-messages"), start(t, "--quiet-messages", "--echo")
	join(a, b)
	const count, size = 1500, 50_000
	a.tell("bulk %s %d %d 1", b.id, count, size)
	a.next("sent")
	a.tell("send %s that is all", b.id)
	a.next("sent")
	if m := b.next("message"); m.text("text") != "that is all" {
		t.Errorf("got %s", m.raw)
	}
	if m := a.next("message"); m.text("text") != "that is all" || m.number("priority") != 1 {
		t.Errorf("got %s, want the message back", m.raw)
	}
	if s := a.counted("received_messages", count+1); s.number("received_messages") != count+1 || s.number("received_bytes") != count*size+11 {
		t.Errorf("got %s, want %d messages back", s.raw, count+1)
	}
	a.stops()
	b.next("lost")
	b.stops()
}

// quit lets a bulk be accepted and delivered that has only begun.
func TestQuitFinishesWhatWasAsked(t *testing.T) {
	a, b := start(t), start(t, "--quiet-messages")
	join(a, b)
	a.tell("bulk %s 800 60000\nsend %s last\nquit", b.id, b.id)
	if sent := a.next("sent"); sent.number("count") != 800 {
		t.Errorf("got %s", sent.raw)
	}
	a.next("sent")
	if lost := a.next("lost"); lost.text("code") != "disconnected" {
		t.Errorf("got %s", lost.raw)
	}
	a.next("stopped")
	if rest, code := a.end(); len(rest) != 0 || code != exitOK {
		t.Errorf("exit code %d after stopped and %q, want 0 and nothing", code, rest)
	}
	if m := b.next("message"); m.text("text") != "last" {
		t.Errorf("got %s", m.raw)
	}
	b.next("lost")
	if s := b.counted("received_messages", 801); s.number("received_messages") != 801 {
		t.Errorf("got %s, want 801 messages", s.raw)
	}
}

// A bulk that cannot go on, because its reader does not read, must not keep the
// peer from ending.
func TestQuitGivesUpOnAPeerThatDoesNotRead(t *testing.T) {
	settings := filepath.Join(t.TempDir(), "settings.json")
	if err := os.WriteFile(settings, []byte(`{"close_timeout_ms":300}`), 0o600); err != nil {
		t.Fatal(err)
	}
	a := start(t, "--config", settings)
	service, err := crust.New(crust.Config{CloseTimeout: 300 * time.Millisecond, Listen: []crust.Endpoint{{Transport: crust.TCP, Addr: mustAddr(t, "127.0.0.1:0")}}})
	if err != nil {
		t.Fatal(err)
	}
	defer service.Close()
	a.tell("connect %s#%s", service.Listeners()[0], service.ID()) // nobody takes the events of service
	a.next("connected")
	a.tell("bulk %s 1000 1000000", service.ID())
	a.tell("stats") // the bulk waits, and commands go on
	a.next("stats")
	a.tell("quit")
	a.refuse("canceled")
	a.next("lost")
	a.next("stopped")
	if _, code := a.end(); code != exitOK {
		t.Errorf("exit code %d, want 0", code)
	}
}

func TestPrefixes(t *testing.T) {
	hub := start(t)
	spokes := map[string]*running{}
	for range 17 { // by then two ids begin with the same digit
		s := start(t)
		spokes[s.id] = s
		join(s, hub)
	}
	byDigit := map[string]int{}
	for id := range spokes {
		byDigit[id[:1]]++
	}
	for id, s := range spokes {
		hub.tell("send %s to you", id[:1])
		if byDigit[id[:1]] > 1 {
			if l := hub.refuse("invalid"); !strings.Contains(l.text("error"), fmt.Sprint(byDigit[id[:1]])) {
				t.Errorf("got %s, want the number of peers that it fits", l.raw)
			}
			hub.tell("send %s to you", strings.ToUpper(id[:20]))
		}
		if sent := hub.next("sent"); sent.text("peer") != id {
			t.Errorf("sent to %s, want %s", sent.text("peer"), id)
		}
		if m := s.next("message"); m.text("text") != "to you" {
			t.Errorf("got %s", m.raw)
		}
	}
}

// A connect to a peer that is connected already is answered and changes nothing.
func TestConnectAgain(t *testing.T) {
	a, b := start(t), start(t)
	join(a, b)
	for _, r := range []struct{ from, to *running }{{a, b}, {b, a}} {
		r.from.tell("connect %s#%s", r.to.at, r.to.id)
		r.from.refuse("connected")
	}
	a.stops()
	b.next("lost") // and nothing in between
	b.stops()
}

// Both sides connect at once. Each tells one session; besides, one is told that
// the peer is connected already if it reads its command only after the other's
// has connected.
func TestCrossedConnects(t *testing.T) {
	a, b := start(t), start(t)
	const rounds = 20
	late := map[*running]int{}
	next := func(r *running, event string) {
		t.Helper()
		l, err := parseLine(r.raw())
		for err == nil && (l.text("code") == "connected" || l.event() == "resumed") { // over the link that both keep
			if l.event() != "resumed" {
				late[r]++
			}
			l, err = parseLine(r.raw())
		}
		if err != nil || l.event() != event {
			t.Fatalf("got %s (%v), want the event %q", l.raw, err, event)
		}
	}
	for range rounds {
		a.tell("connect %s#%s", b.at, b.id)
		b.tell("connect %s#%s", a.at, a.id)
		next(a, "connected")
		next(b, "connected")
		a.tell("disconnect %s", b.id)
		next(a, "lost")
		next(b, "lost")
	}
	if late[a] > rounds || late[b] > rounds {
		t.Errorf("%d and %d answers that the peer is connected already in %d rounds", late[a], late[b], rounds)
	}
	a.stops()
	b.stops()
}

func TestNoAcceptAndRole(t *testing.T) {
	a, b := start(t, "--role", "client"), start(t, "--no-accept")
	a.tell("connect %s", b.at)
	if l := a.next("connect_failed"); l.text("code") != "not_allowed" {
		t.Errorf("got %s, want code not_allowed", l.raw)
	}
	b.tell("connect %s", a.at)
	b.next("connected")
	a.next("connected")
}

func TestBootstrap(t *testing.T) {
	a := start(t)
	b := start(t, "--contact", "127.0.0.1:1", "--contact", a.at+"#"+a.id, "--bootstrap")
	if l := b.next("connected"); l.text("peer") != a.id {
		t.Errorf("got %s", l.raw)
	}
	l := b.next("bootstrapped")
	has(t, l, "peer", "endpoint")
	if l.text("peer") != a.id || l.text("endpoint") != a.at {
		t.Errorf("got %s, want %s at %s", l.raw, a.id, a.at)
	}
	c := start(t, "--contact", "127.0.0.1:1", "--bootstrap")
	failed := c.next("bootstrap_failed")
	has(t, failed, "code", "error")
	if !strings.Contains(failed.text("error"), "127.0.0.1:1") || strings.Contains(failed.text("error"), "\n") {
		t.Errorf("got %s, want one sentence that names the endpoint", failed.raw)
	}
}

func TestIdentityAndConfig(t *testing.T) {
	dir := t.TempDir()
	id, settings := filepath.Join(dir, "id"), filepath.Join(dir, "settings.json")
	text := fmt.Sprintf(`{"identity_file":%q,"network":"of the file","app_id":"of the file","role":"client","listen":["tcp://127.0.0.1:0","tcp://127.0.0.1:0"]}`, id)
	if err := os.WriteFile(settings, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var first string
	for range 2 {
		r := startText(t, "--json", "--config", settings)
		peer := r.next("started").text("peer")
		r.next("listener_started")
		r.next("listener_started") // both of the file
		r.stops()
		if first == "" {
			first = peer
		} else if peer != first {
			t.Errorf("peer %s with the identity of peer %s", peer, first)
		}
	}
	if info, err := os.Stat(id); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the identity file: %v, %v, want mode 0600", info, err)
	}
	a := start(t, "--config", settings, "--network", "of the flag", "--identity", filepath.Join(dir, "other")) // one listener of the flag
	b := start(t, "--network", "of the flag")
	join(b, a)
	b.tell("connect %s", a.at)
	b.refuse("connected")
	if a.id == first {
		t.Error("the identity of the file was used, want that of the flag")
	}
	c := start(t, "--network", "of the file", "--app-id", "c")
	d := start(t, "--config", settings)
	c.tell("connect %s", d.at)
	if l := c.next("connected"); l.text("app_id") != "of the file" || l.text("peer") != first {
		t.Errorf("got %s, want the app id and identity of the file", l.raw)
	}
}

func TestLinesThatAreTooLong(t *testing.T) {
	r := start(t)
	r.tell("send %s", strings.Repeat("x", maxLine))
	r.refuse("too_big")
	r.tell("\n  \t\npeers\r") // empty lines are nothing, and the end of a line may be that of Windows
	r.next("peers")
}

func TestForPeople(t *testing.T) {
	a := startText(t, "--listen", "tcp://127.0.0.1:0", "--app-id", "a\x1b[31m")
	if text := a.raw(); !regexp.MustCompile(`^this is peer [0-9a-f]{64}; type help for the commands$`).MatchString(text) {
		t.Errorf("got %q", text)
	}
	at, ok := strings.CutPrefix(a.raw(), "listening on ")
	if !ok {
		t.Fatal("no line about the listener")
	}
	a.tell("help")
	for _, want := range []string{"info", "connect INFO", "dial PEER", "send PEER TEXT", "receipt PEER TEXT", "bulk PEER", "datagram PEER TEXT", "disconnect PEER", "ban PEER", "unban PEER", "bans", "netchange", "nat", "peers", "known", "stats", "quit", "PEER is"} {
		if text := a.raw(); !strings.HasPrefix(strings.TrimSpace(text), want) {
			t.Errorf("help says %q, want %q", text, want)
		}
	}
	b := startText(t, "--listen", "tcp://127.0.0.1:0")
	b.raw()
	b.raw()
	b.tell("connect %s", at)
	if text := b.raw(); !strings.HasPrefix(text, "connected ") || !strings.Contains(text, `"a\x1b[31m"`) {
		t.Errorf("got %q, want the app id quoted", text)
	}
	name := strings.Fields(a.raw())[1]
	a.tell("send %s \x1b[2Jhello", name)
	a.raw()
	if text := b.raw(); !strings.HasSuffix(text, `: "\x1b[2Jhello"`) {
		t.Errorf("got %q, want the text quoted", text)
	}
	a.tell("send %s hello", name)
	a.raw()
	if text := b.raw(); !strings.HasSuffix(text, ": hello") {
		t.Errorf("got %q, want the text as it is", text)
	}
	a.tell("peers\nstats\ndance")
	for _, want := range []string{name, "1 peers", "error: unknown command"} {
		if text := a.raw(); !strings.HasPrefix(text, want) {
			t.Errorf("got %q, want %q", text, want)
		}
	}
	if rest, code := a.end(); code != exitOK || len(rest) != 2 || rest[1] != "stopped" {
		t.Errorf("exit code %d after %q", code, rest)
	}
	if text := b.raw(); !strings.HasPrefix(text, "lost ") {
		t.Errorf("got %q", text)
	}
}
