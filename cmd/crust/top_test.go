package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/gdamore/tcell/v2"

	crust "github.com/libcrust/libcrust/core"
)

var update = flag.Bool("update", false, "write the screens of testdata/top anew")

// said is a report as a line of a control.
func said(t *testing.T, r report, at float64) []byte {
	t.Helper()
	r.stamp(r.name(), at)
	line, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return line
}

// someone is a peer id that begins with a number.
func someone(n int) (id crust.PeerID) {
	id[0], id[1], id[2], id[3] = byte(n>>8), byte(n), 0xab, 0xcd
	return id
}

// someoneAt is a session, with counters that have grown for so many seconds.
func someoneAt(n int, seconds uint64) peerLine {
	transports, hows := []crust.Transport{crust.TCP, crust.UTP}, []string{"dialed", "accepted", "punched", "relayed"}
	at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(n)}), uint16(40000+n))
	if n%5 == 4 {
		at = netip.AddrPortFrom(netip.MustParseAddr("2001:db8:1234:5678:9abc:def0:1234:5678"), uint16(40000+n))
	}
	transport := transports[n%2]
	return peerLine{
		Peer: someone(n), Endpoint: crust.Endpoint{Transport: transport, Addr: at}, Transport: transport.String(), How: hows[n%4], RTT: float64(n) * 7.25,
		SentBytes: 1000 + seconds*uint64(n)*1000, ReceivedBytes: 5000 + seconds*uint64(200-n)*20_000, Queued: n % 3 * 40_000, Unacked: n, Age: float64(60_000*n + 1000*int(seconds)),
	}
}

// watchedModel is a model of so many peers, after two looks.
func watchedModel(t *testing.T, peers int) *topModel {
	t.Helper()
	m := newTopModel("own peer")
	m.line(said(t, &startedReport{Peer: someone(0xbeef)}, 1))
	at := netip.MustParseAddrPort("203.0.113.77:5483")
	m.line(said(t, &listenerStartedReport{Endpoint: crust.Endpoint{Transport: crust.TCP, Addr: netip.MustParseAddrPort("0.0.0.0:5483")}}, 2))
	for look := range uint64(2) {
		ms := 61_000 + 1000*float64(look)
		m.line(said(t, &statsReport{Peers: peers, Listeners: 2, SessionsTotal: 321, Known: 17, ReceivedBytes: 5_000_000 * look, ReceivedMessages: 2500 * look,
			SentBytes: 100 * look, SentMessages: look, WireReceivedBytes: 5_100_000 * look, WireSentBytes: 900 * look, EventsQueued: 3, EventBytesQueued: 4096}, ms))
		list := &peersReport{}
		for n := range peers {
			list.Peers = append(list.Peers, someoneAt(n, look))
		}
		m.line(said(t, list, ms))
		m.line(said(t, natOf(crust.NATReport{Why: "x", UDP: crust.NATFlow{External: []netip.AddrPort{at}, Mapping: crust.NATEndpointIndependent, Filtering: crust.NATAddressPortDependent}, TCP: crust.NATFlow{Blocked: true}}), ms))
	}
	return m
}

// golden compares a screen with that of testdata/top.
func golden(t *testing.T, m *topModel, name string) {
	t.Helper()
	var b strings.Builder
	for _, l := range m.view() {
		if w := utf8.RuneCountInString(l.String()); w > m.width {
			t.Errorf("%s: a line of %d characters: %q", name, w, l)
		}
		b.WriteString(strings.TrimRight(l.String(), " ") + "\n")
	}
	file := filepath.Join("testdata", "top", name+".txt")
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("%s:\n%s\nwant\n%s", name, b.String(), want)
	}
	if n := len(m.view()); n != m.height {
		t.Errorf("%s: %d lines of %d", name, n, m.height)
	}
}

// The screens of top.
func TestTopScreens(t *testing.T) {
	golden(t, newTopModel("attached to /run/x"), "nothing")
	m := watchedModel(t, 7)
	golden(t, m, "few")
	m = watchedModel(t, 200)
	golden(t, m, "many")
	m.key(keyPageDown)
	m.key(keyDown)
	golden(t, m, "many-down")
	m.key(keyEnd)
	m.width, m.height = 132, 40
	golden(t, m, "many-wide-end")
	m.width, m.height = 70, 12
	golden(t, m, "least")
	m.height = 11
	golden(t, m, "too-small")
	m.width, m.height = 80, 24
	m.key(keyHelp)
	golden(t, m, "help")

	m = watchedModel(t, 5)
	lost := &peersReport{}
	for n := range 5 {
		p := someoneAt(n, 2)
		p.Suspended = n > 1
		lost.Peers = append(lost.Peers, p)
	}
	m.line(said(t, &networkChangedReport{Count: 1}, 62_500))
	m.line(said(t, &suspendedReport{Peer: someone(3), Error: "the peer is silent"}, 62_700))
	m.line(said(t, &alertReport{Kind: "garbage", Address: "203.0.113.9"}, 62_900))
	m.line(said(t, &errorReport{Error: "a\nb\x1b[2Jc"}, 62_950))
	m.line(said(t, lost, 63_000))
	m.line(said(t, &statsReport{Peers: 5, Alerts: 1}, 63_000))
	golden(t, m, "lost-network")
	m.key(keyPause)
	m.line(said(t, &peersReport{}, 64_000))
	golden(t, m, "paused")
	m.key(keyPause)
	m.line(said(t, &stoppedReport{}, 65_000))
	golden(t, m, "stopped")
}

// A session in clear is not to be overlooked.
func TestTopClear(t *testing.T) {
	m := newTopModel("")
	p := someoneAt(1, 0)
	p.Endpoint.Transport = crust.Tracer
	m.line(said(t, &peersReport{Peers: []peerLine{p}}, 1000))
	m.line(said(t, &clearReport{Peer: p.Peer, Endpoint: p.Endpoint}, 1000))
	warnings := ""
	for _, l := range m.view() {
		for _, s := range l {
			if s.style == styleWarning {
				warnings += s.text + "\n"
			}
		}
	}
	if !strings.HasPrefix(warnings, "0001abcd CLEAR tracer://203.0.113.1:40") || !strings.Contains(warnings, "! THE SESSION WITH 0001abcd IS IN CLEAR") {
		t.Errorf("warnings %q", warnings)
	}
}

// Each column sorts, and backward; the order does not depend on that before.
func TestTopSort(t *testing.T) {
	m := watchedModel(t, 40)
	value := map[topColumn]func(p topPeer) float64{
		byRTT: func(p topPeer) float64 { return p.RTT }, byIn: func(p topPeer) float64 { return p.in }, byOut: func(p topPeer) float64 { return p.out },
		byQueue: func(p topPeer) float64 { return float64(p.Queued + p.Unacked) }, byAge: func(p topPeer) float64 { return p.Age },
	}
	for range 2 * int(topColumns) {
		m.key(keySort)
		if f := value[m.column]; f != nil {
			for i := 1; i < len(m.peers); i++ {
				if f(m.peers[i-1]) < f(m.peers[i]) {
					t.Fatalf("column %d: %v before %v", m.column, m.peers[i-1], m.peers[i])
				}
			}
		}
		first := m.peers[0].Peer
		m.key(keyReverse)
		last := m.peers[len(m.peers)-1].Peer
		if m.column == byPeer && first != last || m.peers[0].Peer == first {
			t.Errorf("column %d: reversing changes nothing", m.column)
		}
		m.key(keyReverse)
	}
	column := m.column
	m.key(keySort)
	m.key(keySortBack)
	if m.column != column {
		t.Error("back is not where it was")
	}
}

// Rates are of the time between two looks, and of sessions that are the same.
func TestTopRates(t *testing.T) {
	m := newTopModel("")
	p := someoneAt(1, 0)
	look := func(at float64, received uint64, age float64) float64 {
		p.ReceivedBytes, p.Age = received, age
		m.line(said(t, &peersReport{Peers: []peerLine{p}}, at))
		return m.peers[0].in
	}
	for _, c := range []struct {
		at       float64
		received uint64
		age      float64
		want     float64
	}{{1000, 500, 10, 0}, {1500, 1500, 510, 2000}, {1500, 1600, 510, 0}, {2500, 1600, 1510, 0}, {3500, 100, 2510, 0}, {4500, 90_000, 5, 0}} {
		if got := look(c.at, c.received, c.age); got != c.want {
			t.Errorf("at %v: %v, want %v", c.at, got, c.want)
		}
	}
	for n, want := range map[float64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 99_900: "99.9 kB", 99_960: "100 kB", 999_700: "1.0 MB", 5e18: "5.0 EB"} {
		if got := bytesText(n); got != want {
			t.Errorf("%v is %q, want %q", n, got, want)
		}
	}
	for ms, want := range map[float64]string{0: "0s", 99_000: "99s", 100_000: "1m", 5_999_000: "99m", 6_000_000: "1h", 359_000_000: "99h", 360_000_000: "4d"} {
		if got := ageText(ms); got != want {
			t.Errorf("%v ms is %q, want %q", ms, got, want)
		}
	}
}

// What is kept has a bound, whatever comes; nothing of a peer drives the terminal.
func FuzzTopLine(f *testing.F) {
	for _, line := range []string{`{"event":"stats","t_ms":1}`, `{"event":"peers","peers":[{"endpoint":"tcp://1.2.3.4:5"}]}`, `{"event":"connected","app_id":"\u001b[2J"}`,
		`{"event":"alert","figures":{"count":3}}`, `{"event":"group","peer":"ab"}`, `{"event":"alert","peer":"a"}`, `{"event":"nat","udp":{"nat":"yes"}}`, `{"event":"started","peer":"x"}`, `{`, ``, `[]`} {
		f.Add([]byte(line), uint8(80), uint8(24))
	}
	f.Fuzz(func(t *testing.T, line []byte, width, height uint8) {
		m := newTopModel("x")
		m.width, m.height = int(width), int(height)
		for range 3 {
			m.line(line)
			m.key(topKey(len(line) % 14))
			view := m.view()
			if len(view) != m.height || len(m.news) > maxTopNews {
				t.Fatalf("%d lines of %d, %d news", len(view), m.height, len(m.news))
			}
			for _, l := range view {
				text := l.String()
				if utf8.RuneCountInString(text) > m.width || strings.ContainsAny(text, "\x1b\r\n\x00") {
					t.Fatalf("the line %q of %d", text, m.width)
				}
			}
		}
	})
}

// The screen is what the model shows, asks again when it was answered, and ends by a
// key, giving the terminal back.
func TestTopScreen(t *testing.T) {
	screen := &keptScreen{SimulationScreen: tcell.NewSimulationScreen("UTF-8")}
	if err := screen.Init(); err != nil {
		t.Fatal(err)
	}
	screen.SetSize(80, 24)
	ours, theirs := net.Pipe()
	done := make(chan error, 1)
	go func() { done <- newTopScreen(screen, ours, time.Hour, "a test").run(t.Context()) }()
	asked := bufio.NewScanner(theirs)
	for _, q := range topQuestions {
		if !asked.Scan() || asked.Text() != q {
			t.Fatalf("asked %q, want %q: %v", asked.Text(), q, asked.Err())
		}
	}
	go func() {
		for asked.Scan() { // no more is asked for, but nothing must hang on it
			continue
		}
	}()
	for _, line := range [][]byte{said(t, &startedReport{Peer: someone(0xbeef)}, 1), said(t, &statsReport{Peers: 1}, 5000), said(t, &peersReport{Peers: []peerLine{someoneAt(7, 1)}}, 5000)} {
		if _, err := theirs.Write(append(line, '\n')); err != nil {
			t.Fatal(err)
		}
	}
	shows(t, screen, "crust top  beefabcd  1 peers  up 0:00:05  (a test)")
	shows(t, screen, "0007abcd relay utp://203.0.113.7:")
	theirs.Close()
	shows(t, screen, "ENDED: the connection to the peer is gone")
	screen.InjectKey(tcell.KeyRune, '?', tcell.ModNone)
	shows(t, screen, "crust top: help")
	screen.InjectKey(tcell.KeyRune, 'q', tcell.ModNone)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// keptScreen keeps what was shown last.
type keptScreen struct {
	tcell.SimulationScreen
	mu   sync.Mutex
	text string // guarded by mu
}

// Show shows, and keeps it.
func (k *keptScreen) Show() {
	k.SimulationScreen.Show()
	cells, width, _ := k.GetContents()
	var b strings.Builder
	for i, c := range cells {
		if i%width == 0 {
			b.WriteByte('\n')
		}
		b.WriteString(string(c.Runes))
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.text = b.String()
}

// shows waits until the screen shows a text.
func shows(t *testing.T, screen *keptScreen, want string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		screen.mu.Lock()
		text := screen.text
		screen.mu.Unlock()
		if strings.Contains(text, want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the screen does not show %q but%s", want, text)
		}
	}
}

// Without a terminal, and with flags that do not go together, top says so.
func TestTopRefuses(t *testing.T) {
	if stdout, stderr, code := invoke("top"); code != exitFailure || stdout != "" || !strings.Contains(stderr, "needs a terminal") || !strings.Contains(stderr, "crust peer --json") {
		t.Errorf("no terminal: exit code %d, %q, %q", code, stdout, stderr)
	}
	for _, wrong := range [][]string{{"x"}, {"--interval", "1ms"}, {"--interval", "2m"}, {"--attach", ""}, {"--attach", "x", "--network", "y"}, {"--json"}, {"--role", "king"}} {
		want := exitUsage
		if wrong[0] == "--role" {
			want = exitFailure // the terminal is looked at first
		}
		if _, stderr, code := invoke(append([]string{"top"}, wrong...)...); code != want || stderr == "" {
			t.Errorf("top %q: exit code %d, %q", wrong, code, stderr)
		}
	}
	if stdout, _, _ := invoke("__complete", "top", "--relay", ""); !strings.HasPrefix(stdout, "off\nsignal\ndata\n") {
		t.Errorf("--relay completes to %q", stdout)
	}
}
