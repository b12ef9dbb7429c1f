package main

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// topStyle is how a piece of a line looks. No style carries what words do not.
type topStyle int

// The styles.
const (
	stylePlain   topStyle = iota
	styleTitle            // the bars at the top, over the table and at the bottom
	styleFaint            // names of figures
	styleWarning          // what needs attention
)

// topSpan is a piece of a line in one style.
type topSpan struct {
	text  string
	style topStyle
}

// topLine is a line of the screen.
type topLine []topSpan

// String is the text of the line.
func (l topLine) String() string {
	var b strings.Builder
	for _, s := range l {
		b.WriteString(s.text)
	}
	return b.String()
}

const (
	// leastWidth and leastHeight are the smallest terminal that has room.
	leastWidth, leastHeight = 70, 12
	// topAbove are the lines above the peers, topBelow those below, without news.
	topAbove, topBelow = 6, 2
)

// newsRows is how many lines of news there are.
func (m *topModel) newsRows() int {
	return min(8, max(2, m.height/6))
}

// rows is how many peers there is room for.
func (m *topModel) rows() int { return max(0, m.height-topAbove-topBelow-m.newsRows()) }

// view returns the screen: as many lines as it has, none wider than it is.
func (m *topModel) view() []topLine {
	if m.width < leastWidth || m.height < leastHeight {
		return m.fit([]topLine{{{fmt.Sprintf("crust top needs %dx%d, this is %dx%d; q quits", leastWidth, leastHeight, m.width, m.height), stylePlain}}})
	}
	if m.help {
		return m.fit(m.helpLines())
	}
	m.offset = max(0, min(m.offset, len(m.peers)-m.rows()))
	lines := m.head()
	shown := m.peers[m.offset:min(len(m.peers), m.offset+m.rows())]
	for i := range shown {
		lines = append(lines, m.peerRow(&shown[i]))
	}
	if len(m.peers) == 0 {
		lines = append(lines, topLine{{"  no peers", styleFaint}})
	}
	for len(lines) < topAbove+m.rows() {
		lines = append(lines, nil)
	}
	lines = append(lines, m.newsBar())
	for _, n := range m.news[max(0, len(m.news)-m.newsRows()):] {
		style, mark := stylePlain, "  "
		if n.alarm {
			style, mark = styleWarning, "! "
		}
		lines = append(lines, topLine{{fmt.Sprintf("%9s  ", clock(n.at)), styleFaint}, {mark + n.text, style}})
	}
	for len(lines) < m.height-1 {
		lines = append(lines, nil)
	}
	return m.fit(append(lines, bar("q quit  space pause  s sort  r reverse  arrows scroll  ? help", "", m.width)))
}

// fit makes the lines as wide and as many as the screen.
func (m *topModel) fit(lines []topLine) []topLine {
	for len(lines) < m.height {
		lines = append(lines, nil)
	}
	lines = lines[:max(0, m.height)]
	for i, l := range lines {
		room := m.width
		for j, s := range l {
			l[j].text = cut(s.text, room)
			room -= utf8.RuneCountInString(l[j].text)
		}
		lines[i] = l
	}
	return lines
}

// cut shortens a text to so many characters, of which the last says that it is.
func cut(text string, most int) string {
	if utf8.RuneCountInString(text) <= most {
		return text
	}
	if most <= 0 {
		return ""
	}
	return string([]rune(text)[:most-1]) + "~"
}

// pad makes a text exactly so wide.
func pad(text string, width int) string {
	text = cut(text, width)
	return text + strings.Repeat(" ", width-utf8.RuneCountInString(text))
}

// bar is a line across the screen, with something at its right end.
func bar(left, right string, width int) topLine {
	room := max(0, width-utf8.RuneCountInString(right))
	return topLine{{pad(left, room) + cut(right, width), styleTitle}}
}

// clock writes a time since the start.
func clock(ms float64) string {
	d := time.Duration(ms * float64(time.Millisecond))
	return fmt.Sprintf("%d:%02d:%02d", int(d.Hours()), int(d.Minutes())%60, int(d.Seconds())%60)
}

// figure is a name and what it stands for.
func figure(name, value string) topLine {
	return topLine{{name + " ", styleFaint}, {value + "   ", stylePlain}}
}

// head is what is above the peers.
func (m *topModel) head() []topLine {
	state := ""
	switch {
	case m.over != "":
		state = " ENDED: " + m.over + "; q quits "
	case m.paused:
		state = " PAUSED "
	}
	id := "..."
	if !m.self.IsZero() {
		id = m.self.Short()
	}
	peers := fmt.Sprintf("%d peers", m.stats.Peers)
	title := fmt.Sprintf("crust top  %s  %s  up %s  (%s)", id, peers, clock(m.at), m.source)
	lines := []topLine{bar(title, state, m.width)}

	s, r := &m.stats, &m.rates
	if n := m.suspended(); n > 0 {
		lines = append(lines, topLine{{fmt.Sprintf("! %d of %d sessions are SUSPENDED: they have no link now   ", n, len(m.peers)), styleWarning}})
	} else {
		lines = append(lines, joinSpans(figure("listeners", fmt.Sprint(s.Listeners)), figure("connecting", fmt.Sprint(s.Connects)),
			figure("sessions ever", fmt.Sprint(s.SessionsTotal)), figure("known", fmt.Sprint(s.Known)), figure("circuits", fmt.Sprint(s.Circuits))))
	}
	lines = append(lines, joinSpans(
		figure("in", bytesText(r.inBytes)+"/s "+countText(r.inMessages)+" msg/s"), figure("out", bytesText(r.outBytes)+"/s "+countText(r.outMessages)+" msg/s"),
		figure("wire", bytesText(r.wireIn)+"/s "+bytesText(r.wireOut)+"/s")))
	queue := joinSpans(figure("events", fmt.Sprintf("%d (%s)", s.EventsQueued, bytesText(float64(s.EventBytesQueued)))), figure("pauses", fmt.Sprint(s.BackpressurePauses)),
		figure("dropped", fmt.Sprint(s.DroppedMessages+s.LostDatagrams)),
		figure("refused", fmt.Sprint(s.RefusedConnections+s.RefusedHandshakes+s.RefusedFiles+s.RefusedSessions)))
	if s.Alerts > 0 {
		queue = append(queue, topSpan{fmt.Sprintf("! alerts %d", s.Alerts), styleWarning})
	} else {
		queue = append(queue, figure("alerts", "0")...)
	}
	return append(lines, queue, m.natLine(), m.tableBar())
}

func joinSpans(parts ...topLine) (l topLine) {
	for _, p := range parts {
		l = append(l, p...)
	}
	return l
}

// natLine says what is known of the NATs in front of the peer.
func (m *topModel) natLine() topLine {
	if !m.natKnown {
		return topLine{{"NAT ", styleFaint}, {"...", stylePlain}}
	}
	l := topLine{{"NAT ", styleFaint}, {"UDP " + flowText(&m.nat.UDP) + ", TCP " + flowText(&m.nat.TCP), stylePlain}}
	if n := mappedPorts(m.nat.Mapped); n > 0 {
		l = append(l, topSpan{fmt.Sprintf(", %d ports mapped", n), stylePlain})
	}
	if m.nat.Reachable {
		return append(l, topSpan{"   reachable", stylePlain})
	}
	return append(l, topSpan{"   not known to be reachable", stylePlain})
}

func mappedPorts(list []mappedPort) (n int) {
	for _, p := range list {
		if p.Endpoint != nil && !p.Double {
			n++
		}
	}
	return n
}

// flowText says in a word or two what a NAT is like.
func flowText(f *natFlow) string {
	short := map[string]string{"endpoint-independent": "any", "address-dependent": "address", "address-and-port-dependent": "port"}
	switch {
	case f.Blocked:
		return "blocked"
	case f.NAT == "unknown" || f.NAT == "":
		return "unknown"
	case f.NAT == "no":
		return "no NAT"
	case f.Mapping == "endpoint-independent" && f.Filtering == "endpoint-independent":
		return "full cone"
	case f.Mapping == "endpoint-independent":
		return "cone (lets in " + word(short, f.Filtering) + ")"
	case f.Mapping == "unknown":
		return "NAT"
	}
	return "symmetric (" + f.Ports + ")"
}

func word(words map[string]string, text string) string {
	if w, ok := words[text]; ok {
		return w
	}
	return text
}

// columns of the table at a width: the endpoint has what is left.
var topTable = []struct {
	name  string
	width int // 0: what is left
	right bool
	by    topColumn
}{
	{"PEER", 8, false, byPeer}, {"STATE", 5, false, byState}, {"ENDPOINT", 0, false, byEndpoint}, {"RTT ms", 7, true, byRTT},
	{"IN/s", 8, true, byIn}, {"OUT/s", 8, true, byOut}, {"QUEUE", 8, true, byQueue}, {"AGE", 5, true, byAge},
}

// maxEndpoint is as wide as endpoints get.
const maxEndpoint = 48

// cells makes a row of the table.
func (m *topModel) cells(texts []string) string {
	room := m.width - len(topTable) + 1
	for _, c := range topTable {
		room -= c.width
	}
	room = max(8, min(room, maxEndpoint))
	parts := make([]string, len(texts))
	for i, c := range topTable {
		width := c.width
		if width == 0 {
			width = room
		}
		parts[i] = pad(texts[i], width)
		if c.right {
			parts[i] = strings.Repeat(" ", max(0, width-utf8.RuneCountInString(texts[i]))) + cut(texts[i], width)
		}
	}
	return strings.Join(parts, " ")
}

// tableBar names the columns; that by which peers are sorted is marked.
func (m *topModel) tableBar() topLine {
	var names []string
	for _, c := range topTable {
		name := c.name
		if c.by == m.column {
			mark := "<"
			if m.backward {
				mark = ">"
			}
			name += mark
		}
		names = append(names, name)
	}
	return bar(m.cells(names), "", m.width)
}

// peerRow is a session.
func (m *topModel) peerRow(p *topPeer) topLine {
	rtt := "-"
	if p.RTT > 0 {
		rtt = fmt.Sprintf("%.1f", p.RTT)
	}
	style := stylePlain
	if state := p.state(); state == "SUSP" || state == "CLEAR" {
		style = styleWarning
	}
	return topLine{{m.cells([]string{
		p.Peer.Short(), p.state(), p.Endpoint.String(), rtt, bytesText(p.in), bytesText(p.out), bytesText(float64(p.Queued + p.Unacked)), ageText(p.Age),
	}), style}}
}

// newsBar is between the peers and the news, and says which peers are shown.
func (m *topModel) newsBar() topLine {
	shown := ""
	if len(m.peers) > 0 {
		shown = fmt.Sprintf("peers %d-%d of %d", m.offset+1, min(len(m.peers), m.offset+m.rows()), len(m.peers))
	}
	return bar("what has happened", shown, m.width)
}

// helpLines explain the screen.
func (m *topModel) helpLines() []topLine {
	lines := []topLine{bar("crust top: help", "any key goes back", m.width)}
	for _, text := range []string{
		"q, Ctrl-C   quit", "space       pause: the screen stays, the peer goes on", "s, S        sort by the next, the previous column",
		"r           the other way round", "arrows, page up, page down, home, end   scroll the peers", "",
		"STATE  ok, relay (a third peer carries the link), SUSP (no link now)",
		"       or CLEAR (not encrypted: a tracer that somebody asked for)", "RTT    the last round trip that was measured",
		"IN/s, OUT/s  bytes of messages", "QUEUE  bytes that wait to be sent, or have not arrived for sure",
		"wire   bytes with overhead, in and out", "pauses times that reading stopped since events were not taken",
		"NAT    lets in port: answers only; address: any port of it; any: everybody",
	} {
		lines = append(lines, topLine{{"  " + text, stylePlain}})
	}
	return lines
}
