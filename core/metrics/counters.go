package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	crust "github.com/libcrust/libcrust/core"
)

// Kinds of numbers.
const (
	now  = prometheus.GaugeValue
	ever = prometheus.CounterValue // since the service was made
)

// counter is a number of crust.Stats.
type counter struct {
	name string // after "crust_"
	kind prometheus.ValueType
	help string
	of   func(*crust.Stats) float64
}

// counters are all numbers of crust.Stats, in its order.
var counters = []counter{
	{"sessions", now, "Sessions with peers, suspended ones included.", func(s *crust.Stats) float64 { return float64(s.Peers) }},
	{"listeners", now, "Listeners that accept connections.", func(s *crust.Stats) float64 { return float64(s.Listeners) }},
	{"handshakes", now, "Accepted connections that are not authenticated yet.", func(s *crust.Stats) float64 { return float64(s.Handshakes) }},
	{"connects", now, "Connection attempts in flight.", func(s *crust.Stats) float64 { return float64(s.Connects) }},
	{"sessions_begun_total", ever, "Sessions that were begun.", func(s *crust.Stats) float64 { return float64(s.SessionsTotal) }},
	{"handshakes_failed_total", ever, "Accepted connections that did not authenticate.", func(s *crust.Stats) float64 { return float64(s.HandshakesFailed) }},
	{"handshakes_evicted_total", ever, "Of the failed handshakes, those that were given up to make room.", func(s *crust.Stats) float64 { return float64(s.HandshakesEvicted) }},
	{"connects_failed_total", ever, "Connection attempts that failed.", func(s *crust.Stats) float64 { return float64(s.ConnectsFailed) }},
	{"sent_messages_total", ever, "Messages that were sent.", func(s *crust.Stats) float64 { return float64(s.SentMessages) }},
	{"sent_bytes_total", ever, "Bytes of sent messages, without overhead.", func(s *crust.Stats) float64 { return float64(s.SentBytes) }},
	{"received_messages_total", ever, "Messages that were received.", func(s *crust.Stats) float64 { return float64(s.ReceivedMessages) }},
	{"received_bytes_total", ever, "Bytes of received messages, without overhead.", func(s *crust.Stats) float64 { return float64(s.ReceivedBytes) }},
	{"dropped_messages_total", ever, "Messages that grew too old in a queue and were not sent.", func(s *crust.Stats) float64 { return float64(s.DroppedMessages) }},
	{"wire_sent_bytes_total", ever, "Bytes written to links, with overhead.", func(s *crust.Stats) float64 { return float64(s.WireSentBytes) }},
	{"wire_received_bytes_total", ever, "Bytes read from links, with overhead.", func(s *crust.Stats) float64 { return float64(s.WireReceivedBytes) }},
	{"sent_datagrams_total", ever, "Datagrams that were sent.", func(s *crust.Stats) float64 { return float64(s.SentDatagrams) }},
	{"received_datagrams_total", ever, "Datagrams that were received.", func(s *crust.Stats) float64 { return float64(s.ReceivedDatagrams) }},
	{"lost_datagrams_total", ever, "Received datagrams for which the event queue had no room, or over the bounds of their peer.", func(s *crust.Stats) float64 { return float64(s.LostDatagrams) }},
	{"events_queued", now, "Events that the program has not taken yet.", func(s *crust.Stats) float64 { return float64(s.EventsQueued) }},
	{"event_queue_bytes", now, "Bytes of these events.", func(s *crust.Stats) float64 { return float64(s.EventBytesQueued) }},
	{"events_total", ever, "Events.", func(s *crust.Stats) float64 { return float64(s.EventsTotal) }},
	{"circuits", now, "Links carried for other peers.", func(s *crust.Stats) float64 { return float64(s.Circuits) }},
	{"carried_bytes_total", ever, "Bytes carried for other peers.", func(s *crust.Stats) float64 { return float64(s.CarriedBytes) }},
	{"backpressure_pauses_total", ever, "Times that reading stopped because the event queue was full.", func(s *crust.Stats) float64 { return float64(s.BackpressurePauses) }},
	{"known_peers", now, "Peers of which gossip has told.", func(s *crust.Stats) float64 { return float64(s.Known) }},
	{"refused_connections_total", ever, "Connections closed unread, over a limit of accepting.", func(s *crust.Stats) float64 { return float64(s.RefusedConnections) }},
	{"refused_handshakes_total", ever, "Handshakes not answered, over the share of the processor that they may have.", func(s *crust.Stats) float64 { return float64(s.RefusedHandshakes) }},
	{"refused_files_total", ever, "Connections closed unread for want of file descriptors.", func(s *crust.Stats) float64 { return float64(s.RefusedFiles) }},
	{"refused_sessions_total", ever, "Sessions refused, over a limit of peers.", func(s *crust.Stats) float64 { return float64(s.RefusedSessions) }},
	{"shed_sessions_total", ever, "Sessions ended to make room for those that are worth more.", func(s *crust.Stats) float64 { return float64(s.ShedSessions) }},
	{"rate_pauses_total", ever, "Times that a peer was not read for a while because it sends too fast.", func(s *crust.Stats) float64 { return float64(s.RatePauses) }},
	{"alerts_total", ever, "Alerts raised.", func(s *crust.Stats) float64 { return float64(s.Alerts) }},
	{"suppressed_alerts_total", ever, "Alerts that came too fast to be raised.", func(s *crust.Stats) float64 { return float64(s.SuppressedAlerts) }},
	{"resumptions_total", ever, "Times that a session went over to another link.", func(s *crust.Stats) float64 { return float64(s.Resumptions) }},
	{"refused_banned_total", ever, "Connections and sessions refused for the blacklist or the whitelists; what the system drops before, of banned addresses, is not counted.", func(s *crust.Stats) float64 { return float64(s.RefusedBanned) }},
	{"memory_bytes", now, "Bytes that queues and buffers hold of MaxMemory, and beyond it.", func(s *crust.Stats) float64 { return float64(s.MemoryBytes) }},
	{"refused_memory_total", ever, "Times that MaxMemory had no room.", func(s *crust.Stats) float64 { return float64(s.RefusedMemory) }},
	{"dropped_logs_total", ever, "Records of the log for which there was no room.", func(s *crust.Stats) float64 { return float64(s.DroppedLogs) }},
	{"refused_help_total", ever, "Letters, circuits and tests of reachability that peers asked for too often, or without leave.", func(s *crust.Stats) float64 { return float64(s.RefusedHelp) }},
}
