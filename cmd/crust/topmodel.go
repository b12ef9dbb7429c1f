package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	crust "github.com/libcrust/libcrust/core"
)

// maxTopNews bounds the lines of what has happened that top keeps.
const maxTopNews = 64

// topColumn is what peers are sorted by.
type topColumn int

// The columns by which peers are sorted, in the order in which s goes through them.
const (
	byPeer topColumn = iota
	byState
	byEndpoint
	byRTT
	byIn
	byOut
	byQueue
	byAge
	topColumns
)

// topPeer is a session, and how fast it is.
type topPeer struct {
	peerLine
	in, out float64 // bytes of messages a second
}

// topModel is what top knows and shows. It has no clock, no terminal and no connection:
// lines of a control, keys and sizes go in, a screen comes out.
type topModel struct {
	source string // what is watched, in words

	self      crust.PeerID
	listeners []crust.Endpoint
	at        float64 // of the last stats, in milliseconds since the start of the peer
	stats     statsReport
	nat       natReport
	natKnown  bool
	rates     topRates
	peers     []topPeer // in the order of the screen
	before    map[crust.PeerID]peerLine
	beforeAt  float64
	news      []topNews // the last one last; at most maxTopNews
	over      string    // why nothing more comes; "" while it does

	column   topColumn
	backward bool
	paused   bool
	help     bool
	offset   int // of the first peer that is shown
	width    int
	height   int
	quit     bool
}

// topRates are of the whole peer, a second.
type topRates struct {
	inBytes, outBytes, inMessages, outMessages, wireIn, wireOut float64
	known                                                       bool
}

// topNews is something that has happened.
type topNews struct {
	at    float64 // in milliseconds since the start of the peer
	text  string
	alarm bool // it needs somebody's attention
}

func newTopModel(source string) *topModel {
	return &topModel{source: source, before: make(map[crust.PeerID]peerLine), column: byIn, width: 80, height: 24}
}

// line takes one line of a control. What it does not know it passes over.
func (m *topModel) line(text []byte) {
	var h header
	if json.Unmarshal(text, &h) != nil {
		return
	}
	if m.paused && (h.Event == "peers" || h.Event == "stats" || h.Event == "nat") {
		return
	}
	switch h.Event {
	case "started":
		var r startedReport
		if json.Unmarshal(text, &r) == nil {
			m.self = r.Peer
		}
	case "stats":
		var r statsReport
		if json.Unmarshal(text, &r) == nil {
			m.setStats(r)
		}
	case "peers":
		var r peersReport
		if json.Unmarshal(text, &r) == nil {
			m.setPeers(r)
		}
	case "nat":
		var r natReport
		if json.Unmarshal(text, &r) == nil {
			m.nat, m.natKnown = r, true
		}
	case "stopped":
		m.over = "the peer has stopped"
	default:
		m.happened(h, text)
	}
}

// perSecond is how much a counter has grown, a second; 0 when it was begun anew.
func perSecond(before, now uint64, ms float64) float64 {
	if ms <= 0 || now < before {
		return 0
	}
	return float64(now-before) * 1000 / ms
}

func (m *topModel) setStats(r statsReport) {
	if took := r.Since - m.stats.Since; m.stats.Event != "" && took > 0 {
		m.rates = topRates{
			perSecond(m.stats.ReceivedBytes, r.ReceivedBytes, took), perSecond(m.stats.SentBytes, r.SentBytes, took),
			perSecond(m.stats.ReceivedMessages, r.ReceivedMessages, took), perSecond(m.stats.SentMessages, r.SentMessages, took),
			perSecond(m.stats.WireReceivedBytes, r.WireReceivedBytes, took), perSecond(m.stats.WireSentBytes, r.WireSentBytes, took), true,
		}
	}
	m.stats, m.at = r, r.Since
}

func (m *topModel) setPeers(r peersReport) {
	took := r.Since - m.beforeAt
	before := m.before
	m.peers, m.before, m.beforeAt = m.peers[:0], make(map[crust.PeerID]peerLine, len(r.Peers)), r.Since
	for _, p := range r.Peers {
		one := topPeer{peerLine: p}
		if old, ok := before[p.Peer]; ok && p.Age >= old.Age {
			one.in, one.out = perSecond(old.ReceivedBytes, p.ReceivedBytes, took), perSecond(old.SentBytes, p.SentBytes, took)
		}
		m.before[p.Peer] = p
		m.peers = append(m.peers, one)
	}
	m.sort()
}

// happened notes an event in words.
func (m *topModel) happened(h header, text []byte) {
	r, alarm := newsOf(h.Event)
	if r == nil || json.Unmarshal(text, r) != nil {
		return
	}
	switch l := r.(type) {
	case *listenerStartedReport:
		if slices.Contains(m.listeners, l.Endpoint) {
			return
		}
		m.listeners = append(m.listeners, l.Endpoint)
	case *listenerStoppedReport:
		m.listeners = slices.DeleteFunc(m.listeners, func(ep crust.Endpoint) bool { return ep == l.Endpoint })
	}
	m.news = append(m.news, topNews{h.Since, printable(strings.Join(strings.Fields(r.text()), " ")), alarm})
	m.news = slices.Delete(m.news, 0, max(0, len(m.news)-maxTopNews))
}

// newsOf returns what an event is read into, nil when it is no news, and whether it
// needs attention.
func newsOf(event string) (r report, alarm bool) {
	switch event {
	case "alert":
		return &alertReport{}, true
	case "lost":
		return &lostReport{}, true
	case "suspended":
		return &suspendedReport{}, true
	case "clear":
		return &clearReport{}, true
	case "listener_failed":
		return &listenerFailedReport{}, true
	case "connect_failed":
		return &connectFailedReport{}, true
	case "bootstrap_failed":
		return &bootstrapFailedReport{}, true
	case "cache_trouble":
		return &cacheTroubleReport{}, true
	case "unmapped":
		return &unmappedReport{}, true
	case "error":
		return &errorReport{}, true
	case "network_changed":
		return &networkChangedReport{}, true
	case "connected":
		return &connectedReport{}, false
	case "resumed":
		return &resumedReport{}, false
	case "upgraded":
		return &upgradedReport{}, false
	case "mapped":
		return &mappedReport{}, false
	case "listener_started":
		return &listenerStartedReport{}, false
	case "listener_stopped":
		return &listenerStoppedReport{}, false
	case "bootstrapped":
		return &bootstrappedReport{}, false
	case "group":
		return &groupReport{}, false
	}
	return nil, false
}

// sort puts the peers into the order of the screen: numbers from the greatest, words
// from the first, unless it is backward. Equal ones are in the order of their ids.
func (m *topModel) sort() {
	by := func(a, b topPeer) int {
		switch m.column {
		case byState:
			return cmp.Compare(a.state(), b.state())
		case byEndpoint:
			return cmp.Or(cmp.Compare(a.Transport, b.Transport), a.Endpoint.Addr.Compare(b.Endpoint.Addr))
		case byRTT:
			return cmp.Compare(b.RTT, a.RTT)
		case byIn:
			return cmp.Compare(b.in, a.in)
		case byOut:
			return cmp.Compare(b.out, a.out)
		case byQueue:
			return cmp.Compare(b.Queued+b.Unacked, a.Queued+a.Unacked)
		case byAge:
			return cmp.Compare(b.Age, a.Age)
		}
		return 0
	}
	slices.SortFunc(m.peers, func(a, b topPeer) int {
		order := by(a, b)
		if order == 0 {
			order = bytes.Compare(a.Peer[:], b.Peer[:])
			if m.column != byPeer {
				return order
			}
		}
		if m.backward {
			return -order
		}
		return order
	})
}

// state is how the session is, in a word.
func (p *topPeer) state() string {
	switch {
	case p.Suspended:
		return "SUSP"
	case p.Endpoint.Transport == crust.Tracer:
		return "CLEAR"
	case p.How == crust.Relayed.String():
		return "relay"
	}
	return "ok"
}

// suspended counts the sessions that have no link.
func (m *topModel) suspended() (n int) {
	for _, p := range m.peers {
		if p.Suspended {
			n++
		}
	}
	return n
}

// topKey is a key that means something.
type topKey int

// The keys.
const (
	keyQuit topKey = iota + 1
	keyPause
	keySort
	keySortBack
	keyReverse
	keyHelp
	keyUp
	keyDown
	keyPageUp
	keyPageDown
	keyHome
	keyEnd
)

// key takes a key.
func (m *topModel) key(k topKey) {
	page := max(1, m.rows())
	switch k {
	case keyQuit:
		m.quit = true
	case keyPause:
		m.paused = !m.paused
	case keySort, keySortBack:
		step := topColumn(1)
		if k == keySortBack {
			step = topColumns - 1
		}
		m.column, m.backward = (m.column+step)%topColumns, false
		m.sort()
	case keyReverse:
		m.backward = !m.backward
		m.sort()
	case keyHelp:
		m.help = !m.help
	case keyUp:
		m.offset--
	case keyDown:
		m.offset++
	case keyPageUp:
		m.offset -= page
	case keyPageDown:
		m.offset += page
	case keyHome:
		m.offset = 0
	case keyEnd:
		m.offset = len(m.peers)
	}
}

// bytesText writes a number of bytes in at most 7 characters, with units of 1,000.
func bytesText(n float64) string {
	units := []string{"B", "kB", "MB", "GB", "TB", "PB", "EB"}
	for i, u := range units {
		if n < 999.5 || i == len(units)-1 {
			if i > 0 && n < 99.95 {
				return fmt.Sprintf("%.1f %s", n, u)
			}
			return fmt.Sprintf("%.0f %s", n, u)
		}
		n /= 1000
	}
	return ""
}

// countText writes a number in at most 6 characters.
func countText(n float64) string {
	for _, u := range []string{"", "k", "M", "G", "T"} {
		if n < 999.5 {
			if u != "" && n < 99.95 {
				return fmt.Sprintf("%.1f%s", n, u)
			}
			return fmt.Sprintf("%.0f%s", n, u)
		}
		n /= 1000
	}
	return "many"
}

// ageText writes a time in at most 6 characters.
func ageText(ms float64) string {
	d := time.Duration(ms * float64(time.Millisecond))
	switch {
	case d < 100*time.Second:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 100*time.Minute:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 100*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}
