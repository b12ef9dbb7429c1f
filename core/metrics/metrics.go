// Package metrics shows the counters of a service to Prometheus. It is apart from
// package crust, so that a program that wants no metrics does not link Prometheus.
//
//	registry := prometheus.NewRegistry()
//	registry.MustRegister(metrics.NewCollector(service, metrics.Options{}))
//	http.Handle("/metrics", metrics.Handler(registry))
//
// A collector asks the service when it is scraped, and costs nothing otherwise. The
// series that it makes are few and bounded, whoever the peers are: docs/METRICS.md
// lists them.
package metrics

import (
	"cmp"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	crust "github.com/libcrust/libcrust/core"
)

// MaxPeers is the greatest Options.Peers.
const MaxPeers = 1000

// Source is what a collector asks: a *crust.Service.
type Source interface {
	ID() crust.PeerID
	Stats() crust.Stats
	Peers() []crust.PeerInfo
	NAT() crust.NATReport
}

// Options are what a collector does beyond the counters. The zero value is good.
type Options struct {
	// Labels are put on every series, such as the name of a service in a program that
	// has several, which one registry takes only when their labels differ. nil means none.
	Labels prometheus.Labels
	// Peers is for how many peers there are series of their own, labelled with the
	// peer's id: those whose sessions are the oldest. Zero, the default, means none,
	// since ids come and go, and each one is new series that Prometheus keeps. Below
	// zero is as zero, over MaxPeers as MaxPeers.
	Peers int
}

// Collector is a prometheus.Collector of one service. Any goroutine may use it. It
// outlives its service: then the counters stand still.
type Collector struct {
	source  Source
	options Options

	info, links, suspended, queued, unacked, roundTrip *prometheus.Desc
	reachable, behind, ports                           *prometheus.Desc
	peerRoundTrip, peerMessages, peerBytes             *prometheus.Desc
	counters                                           []*prometheus.Desc // of counters
}

// NewCollector makes a collector of a service.
func NewCollector(source Source, o Options) *Collector {
	o.Peers = min(max(o.Peers, 0), MaxPeers)
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("crust_"+name, help, labels, o.Labels)
	}
	c := &Collector{
		source: source, options: o,
		info:          desc("info", "The version of the library and who the service is; always 1.", "version", "peer"),
		links:         desc("links", "Sessions that have a link now, by what the link is and how it came about.", "transport", "how"),
		suspended:     desc("sessions_suspended", "Sessions without a link now, which wait for another one."),
		queued:        desc("send_queue_bytes", "Bytes of messages that wait to be sent, of all sessions."),
		unacked:       desc("unacked_bytes", "Bytes that were sent and are kept in case a link breaks, of all sessions."),
		roundTrip:     desc("round_trip_seconds", "Last measured round trips of the sessions: the median, the 90th percentile and the longest.", "rank"),
		reachable:     desc("reachable", "1 when somebody on the Internet has reached the service unasked within the last hour, 0 when nobody has."),
		behind:        desc("nat_info", "What is known of the NAT in front of the service, for each protocol; always 1.", "protocol", "mapping", "filtering", "ports", "confidence"),
		ports:         desc("mapped_ports", "Ports of listeners that a router passes on."),
		peerRoundTrip: desc("peer_round_trip_seconds", "The last measured round trip of one session.", "peer"),
		peerMessages:  desc("peer_messages_total", "Messages of one session.", "peer", "direction"),
		peerBytes:     desc("peer_bytes_total", "Bytes of messages of one session, without overhead.", "peer", "direction"),
	}
	for _, n := range counters {
		c.counters = append(c.counters, desc(n.name, n.help))
	}
	return c
}

// Describe tells what series there can be.
func (c *Collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.info, c.links, c.suspended, c.queued, c.unacked, c.roundTrip, c.reachable, c.behind, c.ports} {
		to <- d
	}
	for _, d := range c.counters {
		to <- d
	}
	if c.options.Peers > 0 {
		for _, d := range []*prometheus.Desc{c.peerRoundTrip, c.peerMessages, c.peerBytes} {
			to <- d
		}
	}
}

// Collect asks the service.
func (c *Collector) Collect(to chan<- prometheus.Metric) {
	stats := c.source.Stats()
	for i, n := range counters {
		to <- prometheus.MustNewConstMetric(c.counters[i], n.kind, n.of(&stats))
	}
	gauge(to, c.info, 1, crust.Version, c.source.ID().String())
	c.collectPeers(to, c.source.Peers())
	c.collectNAT(to, c.source.NAT())
}

// gauge sends the value of a moment.
func gauge(to chan<- prometheus.Metric, d *prometheus.Desc, value float64, labels ...string) {
	to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
}

// collectPeers tells of sessions, in sums and, when asked for, one by one.
func (c *Collector) collectPeers(to chan<- prometheus.Metric, peers []crust.PeerInfo) {
	type kind struct{ transport, how string }
	links := map[kind]int{}
	var suspended, queued, unacked int
	var times []time.Duration
	for i := range peers {
		p := &peers[i]
		queued += p.QueuedBytes
		unacked += p.UnackedBytes
		if p.RTT > 0 {
			times = append(times, p.RTT)
		}
		if p.Suspended {
			suspended++
			continue
		}
		links[kind{p.Endpoint.Transport.String(), p.How.String()}]++
	}
	for k, n := range links {
		gauge(to, c.links, float64(n), k.transport, k.how)
	}
	gauge(to, c.suspended, float64(suspended))
	gauge(to, c.queued, float64(queued))
	gauge(to, c.unacked, float64(unacked))
	slices.Sort(times)
	if last := len(times) - 1; last >= 0 {
		gauge(to, c.roundTrip, times[last/2].Seconds(), "median")
		gauge(to, c.roundTrip, times[last*9/10].Seconds(), "p90")
		gauge(to, c.roundTrip, times[last].Seconds(), "max")
	}
	slices.SortStableFunc(peers, func(a, b crust.PeerInfo) int { return cmp.Compare(a.Since.UnixNano(), b.Since.UnixNano()) })
	for _, p := range peers[:min(len(peers), c.options.Peers)] {
		id := p.Peer.String()
		if p.RTT > 0 {
			gauge(to, c.peerRoundTrip, p.RTT.Seconds(), id)
		}
		count := func(d *prometheus.Desc, sent, received uint64) {
			to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(sent), id, "sent")
			to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(received), id, "received")
		}
		count(c.peerMessages, p.SentMessages, p.ReceivedMessages)
		count(c.peerBytes, p.SentBytes, p.ReceivedBytes)
	}
}

// collectNAT tells how others reach the service.
func (c *Collector) collectNAT(to chan<- prometheus.Metric, nat crust.NATReport) {
	reachable, mapped := 0.0, 0
	if nat.Reachable {
		reachable = 1
	}
	for _, p := range nat.Mapped {
		if p.Err == nil {
			mapped++
		}
	}
	gauge(to, c.reachable, reachable)
	gauge(to, c.ports, float64(mapped))
	for protocol, f := range map[string]crust.NATFlow{"udp": nat.UDP, "tcp": nat.TCP} {
		mapping := f.Mapping.String()
		if f.None {
			mapping = "none"
		}
		gauge(to, c.behind, 1, protocol, mapping, f.Filtering.String(), f.Ports.String(), f.Confidence)
	}
}
