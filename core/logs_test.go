package crust_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/netio"
	"github.com/libcrust/libcrust/core/internal/simnet"
)

// logBook is a handler that keeps what it gets.
type logBook struct {
	mu      sync.Mutex
	records []slog.Record
	before  func() // each record is kept
}

func (b *logBook) Enabled(context.Context, slog.Level) bool { return true }
func (b *logBook) WithAttrs([]slog.Attr) slog.Handler       { return b }
func (b *logBook) WithGroup(string) slog.Handler            { return b }

func (b *logBook) Handle(_ context.Context, r slog.Record) error {
	if b.before != nil {
		b.before()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.records = append(b.records, r)
	return nil
}

// all returns what has been kept.
func (b *logBook) all() []slog.Record {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.records)
}

// names returns how often each record of a level or above has come.
func (b *logBook) names(level slog.Level) map[string]int {
	names := map[string]int{}
	for _, r := range b.all() {
		if r.Level >= level {
			names[r.Message]++
		}
	}
	return names
}

// loggedTo returns cfg for a service whose records of a level go to a book.
func loggedTo(b *logBook, level slog.Level, cfg crust.Config) crust.Config {
	cfg.Logger, cfg.LogLevel = slog.New(b), level
	return cfg
}

// attrsOf returns the attributes of a record as text.
func attrsOf(r slog.Record) map[string]string {
	attrs := map[string]string{}
	r.Attrs(func(a slog.Attr) bool {
		attrs[a.Key] = a.Value.String()
		return true
	})
	return attrs
}

// TestLogs: at level info a session is a handful of records that say who, where and why,
// and the last record of a service is that it has stopped.
func TestLogs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var book logBook
		internet := simnet.New(1)
		a := newNode(t, loggedTo(&book, slog.LevelInfo, crust.On(internet.Host("10.0.0.1"), over(crust.Config{}, "0.0.0.0", "tcp"))))
		b := newNode(t, crust.On(internet.Host("10.0.0.2"), over(crust.Config{}, "0.0.0.0", "tcp")))
		defer b.Close()
		const sessions = 5
		for range sessions {
			link(t, a, b)
			for range 100 {
				if err := a.Send(b.ID(), []byte("hello"), 1); err != nil {
					t.Fatal(err)
				}
				b.next(crust.EventMessage)
			}
			time.Sleep(time.Minute)
			if err := a.Disconnect(b.ID()); err != nil {
				t.Fatal(err)
			}
			a.next(crust.EventLost)
			b.next(crust.EventLost)
		}
		a.Close()
		records := book.all()
		if first, last := records[0], records[len(records)-1]; first.Message != "listener started" || last.Message != "service stopped" || last.Level != slog.LevelInfo {
			t.Errorf("from %q to %q", first.Message, last.Message)
		}
		want := map[string]int{"listener started": 1, "service started": 1, "connected": sessions, "peer lost": sessions, "service stopped": 1}
		if got := book.names(slog.LevelDebug); !maps.Equal(got, want) {
			t.Errorf("records %v, want %v", got, want)
		}
		for _, r := range records {
			got := attrsOf(r)
			switch r.Message {
			case "service started":
				if got["id"] != a.ID().Short() || got["listeners"] != a0(records, "listener started")["endpoint"] || got["role"] != "node" || got["version"] != crust.Version {
					t.Errorf("%v", got)
				}
			case "connected":
				if got["peer"] != b.ID().Short() || got["how"] != "dialed" || !strings.HasPrefix(got["endpoint"], "tcp://10.0.0.2:") || got["role"] != "node" {
					t.Errorf("%v", got)
				}
			case "peer lost":
				if got["peer"] != b.ID().Short() || got["code"] != "disconnected" || got["error"] == "" {
					t.Errorf("%v", got)
				}
			}
		}
		time.Sleep(time.Hour)
		if n := len(book.all()); n != len(records) {
			t.Errorf("%d records came after Close", n-len(records))
		}
		if n := a.Stats().DroppedLogs; n != 0 {
			t.Errorf("%d records were dropped", n)
		}
	})
}

// oldKernel is a network whose sockets take one datagram at a time.
type oldKernel struct{ *simnet.Host }

func (k oldKernel) ListenPacket(ctx context.Context, at netip.AddrPort) (netio.PacketConn, error) {
	conn, err := k.Host.ListenPacket(ctx, at)
	return oldSocket{conn}, err
}

type oldSocket struct{ netio.PacketConn }

func (oldSocket) Single() error { return os.NewSyscallError("recvmmsg", syscall.ENOSYS) }

// TestLogsOfAnOldKernel: what a system lacks is told once, with the reason.
func TestLogsOfAnOldKernel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var book logBook
		host := simnet.New(1).Host("10.0.0.1")
		a := newNode(t, loggedTo(&book, slog.LevelInfo, crust.On(oldKernel{host}, over(crust.Config{}, "0.0.0.0", "utp"))))
		a.Close()
		const name = "each datagram takes a system call"
		if got := a0(book.all(), name); book.names(slog.LevelInfo)[name] != 1 || !strings.Contains(got["error"], "recvmmsg") || got["at"] == "" {
			t.Errorf("%v: %v", book.names(slog.LevelInfo), got)
		}
	})
}

// a0 returns the attributes of the first record of a name.
func a0(records []slog.Record, name string) map[string]string {
	for _, r := range records {
		if r.Message == name {
			return attrsOf(r)
		}
	}
	return nil
}

// TestLogEvents: records come as events, too, with attributes that are an object of JSON,
// and before the last event.
func TestLogEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(1)
		a := newNode(t, crust.On(internet.Host("10.0.0.1"), over(crust.Config{LogEvents: true, LogLevel: slog.LevelDebug}, "0.0.0.0", "tcp")))
		if err := a.ConnectEndpoint(crust.Contact{Endpoint: endpointAt("tcp://10.0.0.9:1")}, 3); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		time.Sleep(time.Minute)
		a.Close()
		names := map[string]map[string]any{}
		var last crust.EventType
		for e := range a.Events(t.Context()) {
			if last = e.Type; last != crust.EventLog {
				continue
			}
			r, attrs := e.Log(), map[string]any{}
			if err := json.Unmarshal(r.Attrs, &attrs); err != nil {
				t.Fatalf("%s of %q: %v", r.Attrs, r.Message, err)
			}
			if d := r.Time.Sub(began); d < -time.Minute || d > 2*time.Minute {
				t.Errorf("%q at %v", r.Message, r.Time)
			}
			names[r.Message] = attrs
		}
		if last != crust.EventStopped {
			t.Errorf("the last event is %v", last)
		}
		for _, name := range []string{"service started", "connect begun", "endpoint tried", "connect failed", "service stopped"} {
			if names[name] == nil {
				t.Errorf("no %q in %v", name, slices.Sorted(maps.Keys(names)))
			}
		}
		if got := names["connect failed"]; got["code"] != "timeout" && got["code"] != "refused" && got["code"] != "unreachable" || got["error"] == nil || got["endpoint"] != "tcp://10.0.0.9:1" {
			t.Errorf("%v", got)
		}
	})
}

// TestLogsSlowHandler: a handler that does not return holds nobody up, nor a panicking one;
// what finds no room is counted, and Close waits for it no longer than it says.
func TestLogsSlowHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(1)
		b := newNode(t, crust.On(internet.Host("10.0.0.2"), over(crust.Config{}, "0.0.0.0", "tcp")))
		defer b.Close()
		stuck := make(chan struct{})
		book := logBook{before: func() { <-stuck }}
		a := newNode(t, loggedTo(&book, slog.LevelDebug, crust.On(internet.Host("10.0.0.1"), over(crust.Config{CloseTimeout: time.Second}, "0.0.0.0", "tcp"))))
		link(t, a, b)
		for range 1500 {
			if err := a.PrepareConnectionInfo(1); err != nil {
				t.Fatal(err)
			}
			a.next(crust.EventConnectionInfo)
		}
		if err := a.Send(b.ID(), []byte("hello"), 1); err != nil {
			t.Fatal(err)
		}
		b.next(crust.EventMessage)
		if n := a.Stats().DroppedLogs; n < 400 || n > 600 {
			t.Errorf("of some 1,500 records, 1,024 may wait; %d were dropped", n)
		}
		began := time.Now()
		a.Close()
		if took := time.Since(began); took < time.Second || took > 2*time.Second {
			t.Errorf("Close took %v", took)
		}
		close(stuck)
		synctest.Wait()
		if n := len(book.all()); n != 1 {
			t.Errorf("%d records were handed on, want the one that was under way", n)
		}

		broken := logBook{before: func() { panic("a bug of the program's") }}
		c := newNode(t, loggedTo(&broken, slog.LevelInfo, crust.On(internet.Host("10.0.0.3"), over(crust.Config{}, "0.0.0.0", "tcp"))))
		if err := c.Connect(b.info2(), 1); err != nil {
			t.Fatal(err)
		}
		c.next(crust.EventConnected)
		c.Close()
		if e := c.next(crust.EventStopped, crust.EventLost); e.Err() != nil && e.Code() != crust.CodeDisconnected {
			t.Errorf("%v", e.Err())
		}
		if n := c.Stats().DroppedLogs; n < 4 {
			t.Errorf("%d records were lost by panics", n)
		}
	})
}

// TestLogsCallBack: a handler may call the service.
func TestLogsCallBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a *node
		ready := make(chan struct{})
		book := logBook{before: func() {
			<-ready
			a.Stats()
			a.Peers()
			a.NAT()
		}}
		internet := simnet.New(1)
		a = newNode(t, loggedTo(&book, slog.LevelDebug, crust.On(internet.Host("10.0.0.1"), over(crust.Config{}, "0.0.0.0", "tcp"))))
		close(ready)
		b := newNode(t, crust.On(internet.Host("10.0.0.2"), over(crust.Config{}, "0.0.0.0", "tcp")))
		defer b.Close()
		link(t, a, b)
		a.Close()
		if names := book.names(slog.LevelDebug); names["connected"] != 1 || names["service stopped"] != 1 {
			t.Errorf("%v", names)
		}
	})
}

// busyRun is a network in which much goes on and wrong, all of it logged at debug.
func busyRun(t *testing.T, book *logBook, name string, secret []byte, keys []*identity.Key) {
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(1)
		var hosts []*simnet.Host
		for i := range keys {
			hosts = append(hosts, internet.Host(fmt.Sprint("10.0.0.", i+1)))
		}
		cfg := func(i int, network string) crust.Config {
			c := over(crust.Config{
				Identity: keys[i], NetworkName: network, AppID: []byte(secret), Relay: crust.RelayData,
				ConnectTimeout: 20 * time.Second, Cache: filepath.Join(t.TempDir(), "cache"),
			}, "0.0.0.0", "tcp", "utp")
			c.Gossip = crust.GossipOn
			return loggedTo(book, slog.LevelDebug, crust.On(hosts[i], c))
		}
		var nodes []*node
		for i := range keys[:4] {
			nodes = append(nodes, newNode(t, cfg(i, name)))
		}
		stranger := newNode(t, cfg(4, name+"!"))
		a, b, c, d := nodes[0], nodes[1], nodes[2], nodes[3]
		at := func(n *node, transport crust.Transport) crust.Contact {
			return contactOf(t, n, transport, fmt.Sprint("10.0.0.", slices.Index(append(nodes, stranger), n)+1))
		}
		for i, to := range []crust.Contact{at(b, crust.TCP), at(c, crust.UTP), at(stranger, crust.TCP), {Endpoint: endpointAt("tcp://10.0.0.99:7")}, {Endpoint: at(d, crust.TCP).Endpoint, Peer: stranger.ID()}} {
			if err := a.ConnectEndpoint(to, uint64(i)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(30 * time.Second)
		if err := d.ConnectPeer(a.ID(), 9); err != nil {
			t.Fatal(err)
		}
		for range 50 {
			for _, id := range []crust.PeerID{b.ID(), c.ID()} {
				if err := a.Send(id, secret, 1); err != nil {
					t.Fatal(err)
				}
				if err := a.SendReceipt(id, secret, 2, 1); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := b.Connect(a.info2(), 8); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		internet.Reset(hosts[0], hosts[1])
		a.NetworkChanged()
		time.Sleep(time.Minute)
		if err := a.Ban([]crust.BanEntry{{Peer: c.ID(), Reason: "rude"}, banOf(t, "10.0.0.4")}, time.Hour); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Unban([]crust.BanEntry{{Peer: c.ID()}}); err != nil {
			t.Fatal(err)
		}
		if err := d.ConnectEndpoint(at(a, crust.TCP), 4); err != nil {
			t.Fatal(err)
		}
		if err := b.Bootstrap(5); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		for _, n := range append(nodes, stranger) {
			n.Close()
		}
	})
}

// info2 is info of a node whose other events are of no interest.
func (n *node) info2() []byte {
	if err := n.PrepareConnectionInfo(1); err != nil {
		n.t.Fatal(err)
	}
	return n.nextBut(crust.EventConnectionInfo).Data
}

// logRow is a row of docs/LOGS.md.
type logRow struct {
	levels string
	keys   []string
}

func logTable(t *testing.T) map[string]logRow {
	text, err := os.ReadFile("../docs/LOGS.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]logRow{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| ([a-z, ]+) \\|([^|]*)\\|").FindAllStringSubmatch(string(text), -1) {
		var keys []string
		for _, key := range strings.Fields(m[3]) {
			keys = append(keys, strings.Trim(key, "`"))
		}
		rows[m[1]] = logRow{m[2], keys}
	}
	return rows
}

// TestLogsTellNoSecrets: no record of a busy run has the name of the network, a key, the
// app id, a peer's whole id, or anything of a message; and each is as docs/LOGS.md says.
func TestLogsTellNoSecrets(t *testing.T) {
	var book logBook
	const name = "orchard-behind-the-house"
	secret := []byte("what the gardener said to the hedgehog")
	never := map[string]string{"the name of the network": name, "a message": string(secret)}
	var keys []*identity.Key
	for i := range 5 {
		key, err := identity.Generate()
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
		id, static := key.ID(), key.Static()
		for what, b := range map[string][]byte{"the key": key.Seed(), "the whole id": id[:], "the static key": static[:]} {
			never[fmt.Sprint(what, " of ", i, " in hex")] = hex.EncodeToString(b)[8:24]
			never[fmt.Sprint(what, " of ", i, " in base64")] = base64.StdEncoding.EncodeToString(b)[2:18]
			never[fmt.Sprint(what, " of ", i)] = string(b)
		}
	}
	busyRun(t, &book, name, secret, keys)
	table, names := logTable(t), book.names(slog.LevelDebug)
	for _, want := range []string{
		"connect begun", "endpoint tried", "connected", "connect failed", "link lost", "link changed", "peer lost", "peer discovered", "network changed",
		"banned", "bans lifted", "connections refused", "bootstrap begun", "accepted connection gave no session",
	} {
		if names[want] == 0 {
			t.Errorf("the run was not busy enough: no %q in %v", want, names)
		}
	}
	for _, r := range book.all() {
		var text bytes.Buffer
		for _, h := range []slog.Handler{slog.NewTextHandler(&text, &slog.HandlerOptions{Level: slog.LevelDebug}), slog.NewJSONHandler(&text, nil)} {
			if err := h.Handle(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
		for what, part := range never {
			if strings.Contains(text.String(), part) {
				t.Errorf("%s is in %q", what, text.String())
			}
		}
		row, known := table[r.Message]
		if !known || !strings.Contains(row.levels, strings.ToLower(r.Level.String())) {
			t.Errorf("docs/LOGS.md has no %q at level %v", r.Message, r.Level)
		}
		r.Attrs(func(a slog.Attr) bool {
			if !slices.Contains(row.keys, a.Key) {
				t.Errorf("docs/LOGS.md has no key %q of %q", a.Key, r.Message)
			}
			if a.Value.Kind() == slog.KindAny {
				if _, ok := a.Value.Any().(error); !ok {
					t.Errorf("%q of %q is a %T", a.Key, r.Message, a.Value.Any())
				}
			}
			return true
		})
	}
}

// TestLogsAreListed: docs/LOGS.md has the records that are in the source, and no others.
func TestLogsAreListed(t *testing.T) {
	inSource := map[string][]string{}
	patterns := []*regexp.Regexp{
		regexp.MustCompile(`\.[lL]og\.(Debug|Info|Warn|Error)\("([^"]+)"`),
		regexp.MustCompile(`slog\.Level(Debug|Info|Warn|Error), "([^"]+)"`),
		regexp.MustCompile(`\.(complain)\("([^"]+)"`),
	}
	err := filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.HasPrefix(path, "internal/simnet") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, p := range patterns {
			for _, m := range p.FindAllStringSubmatch(string(text), -1) {
				level := strings.ToLower(m[1])
				if level == "complain" {
					level = "warn"
				}
				inSource[m[2]] = append(inSource[m[2]], level)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	table := logTable(t)
	for name, levels := range inSource {
		row, ok := table[name]
		if !ok {
			t.Errorf("docs/LOGS.md lacks %q", name)
			continue
		}
		if said, used := strings.Split(row.levels, ", "), slices.Compact(slices.Sorted(slices.Values(levels))); !slices.Equal(slices.Sorted(slices.Values(said)), used) {
			t.Errorf("%q is logged at %v, docs/LOGS.md says %v", name, used, said)
		}
	}
	for name := range table {
		if inSource[name] == nil {
			t.Errorf("nothing logs %q", name)
		}
	}
	if len(inSource) < 50 {
		t.Errorf("%d records were found, which cannot be all", len(inSource))
	}
}

// TestLogsOffCost: events cost no more where nobody wants records, and those that come with
// messages never do.
func TestLogsOffCost(t *testing.T) {
	with := func(cfg crust.Config, e crust.EventType) float64 {
		cfg.NoListen, cfg.NoNetworkWatch = true, true
		s, err := crust.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		return testing.AllocsPerRun(2000, func() { crust.Push(s, e) })
	}
	var book logBook
	logged := loggedTo(&book, slog.LevelDebug, crust.Config{})
	for _, c := range []struct {
		cfg crust.Config
		e   crust.EventType
	}{{crust.Config{}, crust.EventConnected}, {crust.Config{}, crust.EventDelivered}, {logged, crust.EventDelivered}, {logged, crust.EventWritable}} {
		if n := with(c.cfg, c.e); n > 1 { // what is to be called afterwards
			t.Errorf("%v takes %v allocations", c.e, n)
		}
	}
	if n := with(logged, crust.EventConnected); n <= 1 {
		t.Error("a record takes no allocations: the test does not see them")
	}
}
