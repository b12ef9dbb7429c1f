package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	crust "github.com/libcrust/libcrust/core"
)

// maxShownText is the longest message, in bytes, whose text is told.
const maxShownText = 256

// The reports of the contract. Field names and their meaning are stable; the
// lines for people are not.
type (
	startedReport struct {
		header
		Peer crust.PeerID `json:"peer"`
	}
	listenerStartedReport struct {
		header
		Endpoint crust.Endpoint `json:"endpoint"`
	}
	listenerFailedReport struct {
		header
		Endpoint crust.Endpoint `json:"endpoint"`
		Error    string         `json:"error"`
	}
	listenerStoppedReport struct {
		header
		Endpoint crust.Endpoint `json:"endpoint"`
	}
	cacheTroubleReport struct {
		header
		Error string `json:"error"`
	}
	discoveredReport struct {
		header
		Peer     crust.PeerID   `json:"peer"`
		Endpoint crust.Endpoint `json:"endpoint"`
		By       string         `json:"by"`
	}
	forgottenReport struct {
		header
		Peer crust.PeerID `json:"peer"`
		By   string       `json:"by"`
	}
	clearReport struct {
		header
		Peer     crust.PeerID   `json:"peer"`
		Endpoint crust.Endpoint `json:"endpoint"`
		How      string         `json:"how"`
	}
	groupReport struct {
		header
		Group  string  `json:"group"`
		State  string  `json:"state"` // up, down, trying, failed or dropped
		Peer   string  `json:"peer"`  // "" for the search of a group of any
		Up     uint64  `json:"up"`
		Wanted uint64  `json:"wanted"`
		Next   float64 `json:"next_ms"` // until the next attempt; 0: none is due
		Code   string  `json:"code"`
		Error  string  `json:"error"` // "" when up or trying
	}
	alertReport struct {
		header
		Kind    string       `json:"kind"`
		Peer    string       `json:"peer"`    // "" when it is the address that is accused
		Address string       `json:"address"` // or a prefix; "" when it is not known
		Figures alertFigures `json:"figures"`
		Suggest *alertBan    `json:"suggest"` // null for nothing
	}
	networkChangedReport struct {
		header
		Count uint64 `json:"count"`
	}
	mappedReport struct {
		header
		Endpoint crust.Endpoint `json:"endpoint"`
		Internal crust.Endpoint `json:"internal"`
		Means    string         `json:"means"`
		Lease    float64        `json:"lease_ms"` // 0: for ever
		Code     string         `json:"code"`
		Error    string         `json:"error"` // "" unless peers cannot use it
	}
	unmappedReport struct {
		header
		Endpoint crust.Endpoint `json:"endpoint"`
		Internal crust.Endpoint `json:"internal"`
		Means    string         `json:"means"`
		Code     string         `json:"code"`
		Error    string         `json:"error"` // "" when it was not wanted any more
	}
	infoReport struct {
		header
		Info string `json:"info"`
	}
	connectedReport struct {
		header
		Peer      crust.PeerID   `json:"peer"`
		AppID     string         `json:"app_id"`
		Endpoint  crust.Endpoint `json:"endpoint"`
		Transport string         `json:"transport"`
		How       string         `json:"how"`
		Took      float64        `json:"took_ms"`
	}
	connectFailedReport struct {
		header
		Peer  string `json:"peer"` // "" when not known
		Code  string `json:"code"`
		Error string `json:"error"`
	}
	bootstrappedReport struct {
		header
		Peer     crust.PeerID   `json:"peer"`
		Endpoint crust.Endpoint `json:"endpoint"`
	}
	bootstrapFailedReport struct {
		header
		Code  string `json:"code"`
		Error string `json:"error"`
	}
	messageReport struct {
		header
		Peer     crust.PeerID `json:"peer"`
		Priority uint8        `json:"priority"`
		Len      int          `json:"len"`
		Text     *string      `json:"text,omitempty"`
	}
	datagramReport struct {
		header
		Peer crust.PeerID `json:"peer"`
		Len  int          `json:"len"`
		Text *string      `json:"text,omitempty"`
	}
	sentReport struct {
		header
		Peer  crust.PeerID `json:"peer"`
		Count uint64       `json:"count"`
		Bytes uint64       `json:"bytes"`
		Took  float64      `json:"took_ms"`
	}
	lostReport struct {
		header
		Peer  crust.PeerID `json:"peer"`
		Code  string       `json:"code"`
		Error string       `json:"error"`
		Count uint64       `json:"count"` // messages of which it is not known that they arrived
	}
	suspendedReport struct {
		header
		Peer  crust.PeerID `json:"peer"`
		Code  string       `json:"code"`
		Error string       `json:"error"`
	}
	resumedReport struct {
		header
		Peer      crust.PeerID   `json:"peer"`
		Endpoint  crust.Endpoint `json:"endpoint"`
		Transport string         `json:"transport"`
		How       string         `json:"how"`
	}
	upgradedReport struct {
		header
		Peer crust.PeerID `json:"peer"`
		From string       `json:"from"` // relayed, utp or tcp
		To   string       `json:"to"`
	}
	deliveredReport struct {
		header
		Peer  crust.PeerID `json:"peer"`
		Len   int          `json:"len"`
		Took  float64      `json:"took_ms"`
		Code  string       `json:"code"`
		Error string       `json:"error"` // "" when it has arrived
	}
	peersReport struct {
		header
		Peers []peerLine `json:"peers"`
	}
	peerLine struct {
		Peer          crust.PeerID   `json:"peer"`
		Endpoint      crust.Endpoint `json:"endpoint"`
		Transport     string         `json:"transport"`
		How           string         `json:"how"`
		RTT           float64        `json:"rtt_ms"` // 0 when not yet measured
		SentBytes     uint64         `json:"sent_bytes"`
		ReceivedBytes uint64         `json:"received_bytes"`

		SentMessages     uint64  `json:"sent_messages"`
		ReceivedMessages uint64  `json:"received_messages"`
		DroppedMessages  uint64  `json:"dropped_messages"`
		Queued           int     `json:"queued_bytes"`
		Unacked          int     `json:"unacked_bytes"`
		Suspended        bool    `json:"suspended"`
		Resumed          uint64  `json:"resumed"`
		Age              float64 `json:"age_ms"`
	}
	knownReport struct {
		header
		Known []knownLine `json:"known"`
	}
	knownLine struct {
		Peer      crust.PeerID     `json:"peer"`
		Role      string           `json:"role"`
		Endpoints []crust.Endpoint `json:"endpoints"`
		Expires   float64          `json:"expires_ms"`
	}
	errorReport struct {
		header
		Code  string `json:"code"`
		Error string `json:"error"`
	}
	stoppedReport struct{ header }
)

// statsReport is crust.Stats with the names of the contract.
type statsReport struct {
	header
	Peers              int    `json:"peers"`
	Listeners          int    `json:"listeners"`
	Handshakes         int    `json:"handshakes"`
	Connects           int    `json:"connects"`
	SessionsTotal      uint64 `json:"sessions_total"`
	HandshakesFailed   uint64 `json:"handshakes_failed"`
	HandshakesEvicted  uint64 `json:"handshakes_evicted"`
	ConnectsFailed     uint64 `json:"connects_failed"`
	SentMessages       uint64 `json:"sent_messages"`
	SentBytes          uint64 `json:"sent_bytes"`
	ReceivedMessages   uint64 `json:"received_messages"`
	ReceivedBytes      uint64 `json:"received_bytes"`
	DroppedMessages    uint64 `json:"dropped_messages"`
	WireSentBytes      uint64 `json:"wire_sent_bytes"`
	WireReceivedBytes  uint64 `json:"wire_received_bytes"`
	EventsQueued       int    `json:"events_queued"`
	EventBytesQueued   int    `json:"event_bytes_queued"`
	EventsTotal        uint64 `json:"events_total"`
	BackpressurePauses uint64 `json:"backpressure_pauses"`
	SentDatagrams      uint64 `json:"sent_datagrams"`
	ReceivedDatagrams  uint64 `json:"received_datagrams"`
	LostDatagrams      uint64 `json:"lost_datagrams"`
	Circuits           int    `json:"circuits"`
	CarriedBytes       uint64 `json:"carried_bytes"`
	Known              int    `json:"known"`
	RefusedConnections uint64 `json:"refused_connections"`
	RefusedHandshakes  uint64 `json:"refused_handshakes"`
	RefusedFiles       uint64 `json:"refused_files"`
	RefusedSessions    uint64 `json:"refused_sessions"`
	ShedSessions       uint64 `json:"shed_sessions"`
	RatePauses         uint64 `json:"rate_pauses"`
	Alerts             uint64 `json:"alerts"`
	SuppressedAlerts   uint64 `json:"suppressed_alerts"`
	Resumptions        uint64 `json:"resumptions"`
	RefusedBanned      uint64 `json:"refused_banned"`
	MemoryBytes        int    `json:"memory_bytes"`
	RefusedMemory      uint64 `json:"refused_memory"`
	DroppedLogs        uint64 `json:"dropped_logs"`
	RefusedHelp        uint64 `json:"refused_help"`
}

func (*startedReport) name() string         { return "started" }
func (*listenerStartedReport) name() string { return "listener_started" }
func (*listenerFailedReport) name() string  { return "listener_failed" }
func (*listenerStoppedReport) name() string { return "listener_stopped" }
func (*cacheTroubleReport) name() string    { return "cache_trouble" }
func (*discoveredReport) name() string      { return "discovered" }
func (*forgottenReport) name() string       { return "forgotten" }
func (*clearReport) name() string           { return "clear" }
func (*groupReport) name() string           { return "group" }
func (*alertReport) name() string           { return "alert" }
func (*networkChangedReport) name() string  { return "network_changed" }
func (*mappedReport) name() string          { return "mapped" }
func (*unmappedReport) name() string        { return "unmapped" }
func (*infoReport) name() string            { return "info" }
func (*connectedReport) name() string       { return "connected" }
func (*connectFailedReport) name() string   { return "connect_failed" }
func (*bootstrappedReport) name() string    { return "bootstrapped" }
func (*bootstrapFailedReport) name() string { return "bootstrap_failed" }
func (*messageReport) name() string         { return "message" }
func (*datagramReport) name() string        { return "datagram" }
func (*sentReport) name() string            { return "sent" }
func (*lostReport) name() string            { return "lost" }
func (*suspendedReport) name() string       { return "suspended" }
func (*resumedReport) name() string         { return "resumed" }
func (*upgradedReport) name() string        { return "upgraded" }
func (*deliveredReport) name() string       { return "delivered" }
func (*peersReport) name() string           { return "peers" }
func (*knownReport) name() string           { return "known" }
func (*statsReport) name() string           { return "stats" }
func (*errorReport) name() string           { return "error" }
func (*stoppedReport) name() string         { return "stopped" }

func (r *startedReport) text() string {
	return "this is peer " + r.Peer.String() + "; type help for the commands"
}
func (r *listenerStartedReport) text() string { return "listening on " + r.Endpoint.String() }
func (r *listenerFailedReport) text() string {
	return "cannot listen on " + r.Endpoint.String() + ": " + r.Error
}
func (r *listenerStoppedReport) text() string {
	return "no longer listening on " + r.Endpoint.String()
}
func (r *cacheTroubleReport) text() string { return "trouble with the cache: " + r.Error }
func (r *discoveredReport) text() string {
	return fmt.Sprintf("discovered %s at %s by %s", r.Peer.Short(), r.Endpoint, r.By)
}
func (r *forgottenReport) text() string {
	return fmt.Sprintf("forgotten %s, which was discovered by %s", r.Peer.Short(), r.By)
}
func (r *clearReport) text() string {
	return fmt.Sprintf("THE SESSION WITH %s IS IN CLEAR, at %s, %s: whoever is between the two reads all of it, and can change it", r.Peer.Short(), r.Endpoint, r.How)
}
func (r *groupReport) text() string {
	text := fmt.Sprintf("group %s, %d of %d connected: %s", printable(r.Group), r.Up, r.Wanted, r.State)
	if r.Peer != "" {
		text += " " + r.Peer[:min(8, len(r.Peer))]
	}
	if r.Error != "" {
		text += ": " + r.Error
	}
	if r.Next > 0 {
		text += fmt.Sprintf("; next attempt in %.1f s", r.Next/1000)
	}
	return text
}
func (r *alertReport) text() string {
	who := r.Address
	if r.Peer != "" {
		who = "peer " + r.Peer[:min(8, len(r.Peer))]
	}
	f := r.Figures
	text := fmt.Sprintf("alert: %s by %s, %d times; %d of all kinds, %.0f ms of processor time, %d messages delivered", r.Kind, who, f.Count, f.Total, f.CPU, f.Messages)
	if r.Suggest != nil {
		text += fmt.Sprintf("; suggested: ban %s %d", r.Suggest.Ban, r.Suggest.Seconds)
	}
	return text
}
func (r *networkChangedReport) text() string {
	return fmt.Sprintf("the network has changed: %d addresses came or went", r.Count)
}
func (r *mappedReport) text() string {
	text := fmt.Sprintf("a router passes %s on to %s (%s)", r.Endpoint, r.Internal, r.Means)
	if r.Error != "" {
		text += ", of no use to peers: " + r.Error
	}
	return text
}
func (r *unmappedReport) text() string {
	text := fmt.Sprintf("no router passes %s on to %s any more", r.Endpoint, r.Internal)
	if r.Error != "" {
		text += ": " + r.Error
	}
	return text
}
func (r *infoReport) text() string { return "info for the other peer: " + r.Info }
func (r *connectedReport) text() string {
	app := ""
	if r.AppID != "" {
		app = ", app id " + printable(r.AppID)
	}
	return fmt.Sprintf("connected %s at %s (%s in %.1f ms%s)", r.Peer.Short(), r.Endpoint, r.How, r.Took, app)
}
func (r *connectFailedReport) text() string { return "not connected: " + r.Error }
func (r *bootstrappedReport) text() string {
	return fmt.Sprintf("bootstrapped from %s at %s", r.Peer.Short(), r.Endpoint)
}
func (r *bootstrapFailedReport) text() string { return "not bootstrapped: " + r.Error }
func (r *messageReport) text() string {
	if r.Text != nil {
		return r.Peer.Short() + ": " + printable(*r.Text)
	}
	return fmt.Sprintf("%s: %d bytes of priority %d", r.Peer.Short(), r.Len, r.Priority)
}
func (r *datagramReport) text() string {
	if r.Text != nil {
		return r.Peer.Short() + " by datagram: " + printable(*r.Text)
	}
	return fmt.Sprintf("%s by datagram: %d bytes", r.Peer.Short(), r.Len)
}
func (r *sentReport) text() string {
	return fmt.Sprintf("sent %d messages (%d bytes) to %s in %.1f ms", r.Count, r.Bytes, r.Peer.Short(), r.Took)
}
func (r *lostReport) text() string {
	if r.Count > 0 {
		return fmt.Sprintf("lost %s: %s; %d messages may not have arrived", r.Peer.Short(), r.Error, r.Count)
	}
	return fmt.Sprintf("lost %s: %s", r.Peer.Short(), r.Error)
}
func (r *suspendedReport) text() string {
	return fmt.Sprintf("suspended %s: %s", r.Peer.Short(), r.Error)
}
func (r *resumedReport) text() string {
	return fmt.Sprintf("resumed %s at %s (%s)", r.Peer.Short(), r.Endpoint, r.How)
}
func (r *upgradedReport) text() string {
	return fmt.Sprintf("%s is now connected over %s, no longer %s", r.Peer.Short(), r.To, r.From)
}
func (r *deliveredReport) text() string {
	if r.Error != "" {
		return fmt.Sprintf("%d bytes may not have arrived at %s: %s", r.Len, r.Peer.Short(), r.Error)
	}
	return fmt.Sprintf("%d bytes have arrived at %s in %.1f ms", r.Len, r.Peer.Short(), r.Took)
}
func (r *peersReport) text() string {
	if len(r.Peers) == 0 {
		return "no peers"
	}
	var b strings.Builder
	for i, p := range r.Peers {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%s  %s  %s  rtt %.1f ms  sent %d  received %d bytes", p.Peer, p.Endpoint, p.How, p.RTT, p.SentBytes, p.ReceivedBytes)
	}
	return b.String()
}
func (r *knownReport) text() string {
	if len(r.Known) == 0 {
		return "no known peers"
	}
	var b strings.Builder
	for i, k := range r.Known {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%s  %s ", k.Peer, k.Role)
		for _, ep := range k.Endpoints {
			fmt.Fprintf(&b, " %s", ep)
		}
	}
	return b.String()
}
func (r *statsReport) text() string {
	return fmt.Sprintf("%d peers, %d ever; sent %d messages, %d bytes; received %d messages, %d bytes; dropped %d; on the wire %d out, %d in",
		r.Peers, r.SessionsTotal, r.SentMessages, r.SentBytes, r.ReceivedMessages, r.ReceivedBytes, r.DroppedMessages, r.WireSentBytes, r.WireReceivedBytes)
}
func (r *errorReport) text() string   { return "error: " + r.Error }
func (r *stoppedReport) text() string { return "stopped" }

// printable keeps what a peer sent from driving the terminal: text with other
// than printable characters is quoted.
func printable(text string) string {
	for _, r := range text {
		if !strconv.IsPrint(r) || r == utf8.RuneError {
			return strconv.Quote(text)
		}
	}
	return text
}

// reportOf turns an event of the service into a report, nil when the contract
// has none for it.
func reportOf(e *crust.Event) report {
	switch e.Type {
	case crust.EventMessage:
		return &messageReport{Peer: e.Peer, Priority: e.Priority, Len: len(e.Data), Text: shownText(e.Data)}
	case crust.EventDatagram:
		return &datagramReport{Peer: e.Peer, Len: len(e.Data), Text: shownText(e.Data)}
	case crust.EventListenerStarted:
		return &listenerStartedReport{Endpoint: e.Endpoint()}
	case crust.EventListenerFailed:
		return &listenerFailedReport{Endpoint: e.Endpoint(), Error: why(e)}
	case crust.EventListenerStopped:
		return &listenerStoppedReport{Endpoint: e.Endpoint()}
	case crust.EventCacheTrouble:
		return &cacheTroubleReport{Error: why(e)}
	case crust.EventDiscovered:
		return &discoveredReport{Peer: e.Peer, Endpoint: e.Endpoint(), By: e.By().String()}
	case crust.EventForgotten:
		return &forgottenReport{Peer: e.Peer, By: e.By().String()}
	case crust.EventClear:
		return &clearReport{Peer: e.Peer, Endpoint: e.Endpoint(), How: e.How().String()}
	case crust.EventGroup:
		g := &groupReport{
			Group: e.Group(), State: e.State().String(), Up: e.Count(), Wanted: e.Wanted(), Next: milliseconds(e.Next()), Code: e.Code().String(), Error: why(e),
		}
		if !e.Peer.IsZero() {
			g.Peer = e.Peer.String()
		}
		return g
	case crust.EventAlert:
		return alertOf(e.Alert())
	case crust.EventNetworkChanged:
		return &networkChangedReport{Count: e.Count()}
	case crust.EventPortMapped:
		return &mappedReport{
			Endpoint: e.Endpoint(), Internal: e.Internal(), Means: e.Means().String(), Lease: milliseconds(e.Lease()), Code: e.Code().String(), Error: why(e),
		}
	case crust.EventPortUnmapped:
		return &unmappedReport{Endpoint: e.Endpoint(), Internal: e.Internal(), Means: e.Means().String(), Code: e.Code().String(), Error: why(e)}
	case crust.EventConnectionInfo:
		return &infoReport{Info: infoWord.EncodeToString(e.Data)}
	case crust.EventConnected:
		return &connectedReport{
			Peer: e.Peer, AppID: string(e.AppID()), Endpoint: e.Endpoint(), Transport: e.Endpoint().Transport.String(),
			How: e.How().String(), Took: milliseconds(e.Took()),
		}
	case crust.EventConnectFailed:
		failed := &connectFailedReport{Code: e.Code().String(), Error: why(e)}
		if !e.Peer.IsZero() {
			failed.Peer = e.Peer.String()
		}
		return failed
	case crust.EventBootstrapped:
		return &bootstrappedReport{Peer: e.Peer, Endpoint: e.Endpoint()}
	case crust.EventBootstrapFailed:
		return &bootstrapFailedReport{Code: e.Code().String(), Error: why(e)}
	case crust.EventLost:
		return &lostReport{Peer: e.Peer, Code: e.Code().String(), Error: why(e), Count: e.Count()}
	case crust.EventSuspended:
		return &suspendedReport{Peer: e.Peer, Code: e.Code().String(), Error: why(e)}
	case crust.EventResumed:
		return &resumedReport{Peer: e.Peer, Endpoint: e.Endpoint(), Transport: e.Endpoint().Transport.String(), How: e.How().String()}
	case crust.EventMessagesDropped:
		return &errorReport{Code: crust.CodeExpired.String(), Error: fmt.Sprintf(
			"%d messages (%d bytes) of priority %d to %s grew too old in the queue and were dropped", e.Count(), e.Bytes(), e.Priority, e.Peer.Short())}
	}
	return nil
}

// shownText returns what is told of a message's text, nil when it is long or none.
func shownText(data []byte) *string {
	if len(data) > maxShownText || !utf8.Valid(data) {
		return nil
	}
	text := string(data)
	return &text
}

// why says the event's error in one sentence.
func why(e *crust.Event) string {
	if e.Err() == nil {
		return ""
	}
	return oneLine(e.Err())
}

// errorOf reports an error of a command.
func errorOf(err error) report {
	return &errorReport{Code: crust.CodeOf(err).String(), Error: oneLine(err)}
}

// statsOf gives the counters their names.
func statsOf(s crust.Stats) report {
	return &statsReport{
		Peers: s.Peers, Listeners: s.Listeners, Handshakes: s.Handshakes, Connects: s.Connects,
		SessionsTotal: s.SessionsTotal, HandshakesFailed: s.HandshakesFailed, HandshakesEvicted: s.HandshakesEvicted,
		ConnectsFailed: s.ConnectsFailed, SentMessages: s.SentMessages, SentBytes: s.SentBytes,
		ReceivedMessages: s.ReceivedMessages, ReceivedBytes: s.ReceivedBytes, DroppedMessages: s.DroppedMessages,
		WireSentBytes: s.WireSentBytes, WireReceivedBytes: s.WireReceivedBytes, EventsQueued: s.EventsQueued,
		EventBytesQueued: s.EventBytesQueued, EventsTotal: s.EventsTotal, BackpressurePauses: s.BackpressurePauses,
		SentDatagrams: s.SentDatagrams, ReceivedDatagrams: s.ReceivedDatagrams, LostDatagrams: s.LostDatagrams,
		Circuits: s.Circuits, CarriedBytes: s.CarriedBytes, Known: s.Known,
		RefusedConnections: s.RefusedConnections, RefusedHandshakes: s.RefusedHandshakes, RefusedFiles: s.RefusedFiles,
		RefusedSessions: s.RefusedSessions, ShedSessions: s.ShedSessions, RatePauses: s.RatePauses,
		Alerts: s.Alerts, SuppressedAlerts: s.SuppressedAlerts, Resumptions: s.Resumptions,
		RefusedBanned: s.RefusedBanned, MemoryBytes: s.MemoryBytes, RefusedMemory: s.RefusedMemory, DroppedLogs: s.DroppedLogs, RefusedHelp: s.RefusedHelp,
	}
}

// knownOf lists the peers of which gossip has told.
func knownOf(known []crust.KnownPeer) report {
	lines := make([]knownLine, 0, len(known)) // none are [], not null
	for _, k := range known {
		eps := append([]crust.Endpoint{}, k.Endpoints...)
		lines = append(lines, knownLine{Peer: k.Peer, Role: k.Role.String(), Endpoints: eps, Expires: milliseconds(time.Until(k.Expires))})
	}
	return &knownReport{Known: lines}
}

// peersOf lists the sessions.
func peersOf(peers []crust.PeerInfo) report {
	lines := make([]peerLine, 0, len(peers)) // no peers are [], not null
	for _, p := range peers {
		lines = append(lines, peerLine{
			Peer: p.Peer, Endpoint: p.Endpoint, Transport: p.Endpoint.Transport.String(), How: p.How.String(),
			RTT: milliseconds(p.RTT), SentBytes: p.SentBytes, ReceivedBytes: p.ReceivedBytes, SentMessages: p.SentMessages,
			ReceivedMessages: p.ReceivedMessages, DroppedMessages: p.DroppedMessages, Queued: p.QueuedBytes, Unacked: p.UnackedBytes,
			Suspended: p.Suspended, Resumed: p.Resumed, Age: milliseconds(time.Since(p.Since)),
		})
	}
	return &peersReport{Peers: lines}
}
