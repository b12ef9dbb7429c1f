package crust

import (
	"context"
	"log/slog"
	"strings"
	"time"
)

// eventRecords are what is logged of events; the name of the record, and its level.
// Others are not logged, above all what comes with each message.
var eventRecords = [...]struct {
	level   slog.Level
	message string
}{
	EventListenerStarted:  {slog.LevelInfo, "listener started"},
	EventListenerFailed:   {slog.LevelWarn, "listener failed"},
	EventListenerStopped:  {slog.LevelInfo, "listener stopped"},
	EventConnectionInfo:   {slog.LevelDebug, "connection info made"},
	EventConnected:        {slog.LevelInfo, "connected"},
	EventAlreadyConnected: {slog.LevelDebug, "already connected"},
	EventConnectFailed:    {slog.LevelInfo, "connect failed"},
	EventBootstrapped:     {slog.LevelInfo, "bootstrapped"},
	EventBootstrapFailed:  {slog.LevelWarn, "bootstrap failed"},
	EventSuspended:        {slog.LevelInfo, "link lost"},
	EventResumed:          {slog.LevelInfo, "link changed"},
	EventLost:             {slog.LevelInfo, "peer lost"},
	EventMessagesDropped:  {slog.LevelWarn, "messages dropped"},
	EventNetworkChanged:   {slog.LevelInfo, "network changed"},
	EventPortMapped:       {slog.LevelInfo, "port mapped"},
	EventPortUnmapped:     {slog.LevelInfo, "port unmapped"},
	EventCacheTrouble:     {slog.LevelWarn, "cache trouble"},
	EventDiscovered:       {slog.LevelDebug, "peer discovered"},
	EventForgotten:        {slog.LevelDebug, "peer forgotten"},
	EventGroup:            {slog.LevelDebug, "group changed"},
	EventAlert:            {slog.LevelWarn, "alert"},
}

// isLogged reports whether events of a type are logged.
func isLogged(t EventType) bool { return int(t) < len(eventRecords) && eventRecords[t].message != "" }

// logEvent logs an event of such a type. It may be called with any lock held but the event
// queue's.
func (s *Service) logEvent(e *Event) {
	if r := &eventRecords[e.Type]; s.log.Enabled(context.Background(), r.level) {
		s.log.LogAttrs(context.Background(), r.level, r.message, eventAttrs(e)...)
	}
}

// eventAttrs returns what an event says, as far as it says anything.
func eventAttrs(e *Event) []slog.Attr {
	d := e.more()
	attrs := make([]slog.Attr, 0, 8)
	text := func(key, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(key, value))
		}
	}
	number := func(key string, value uint64) {
		if value != 0 {
			attrs = append(attrs, slog.Uint64(key, value))
		}
	}
	took := func(key string, value time.Duration) {
		if value != 0 {
			attrs = append(attrs, slog.Duration(key, value))
		}
	}
	if !e.Peer.IsZero() {
		text("peer", e.Peer.Short())
	}
	for _, at := range []struct {
		key string
		ep  Endpoint
	}{{"endpoint", d.endpoint}, {"internal", d.internal}} {
		if !at.ep.IsZero() {
			text(at.key, at.ep.String())
		}
	}
	if d.how != 0 {
		text("how", d.how.String())
	}
	if e.Type == EventConnected || e.Type == EventDiscovered {
		text("role", d.role.String())
	}
	text("means", d.means.String())
	text("by", d.by.String())
	text("group", d.group)
	if d.state != 0 {
		text("state", d.state.String())
	}
	took("took_ms", d.took)
	took("lease_ms", d.lease)
	took("next_ms", d.next)
	number("count", d.count)
	number("wanted", d.wanted)
	number("bytes", d.bytes)
	if e.Type == EventMessagesDropped {
		number("priority", uint64(e.Priority))
	}
	if a := d.alert; a != nil {
		text("kind", a.Kind.String())
		if a.Address.IsValid() {
			text("address", BanTarget{Prefix: a.Address}.String())
		}
		number("count", a.Figures.Count)
		text("text", a.Text())
	}
	if d.err != nil {
		text("code", CodeOf(d.err).String())
		attrs = append(attrs, slog.Any("error", d.err))
	}
	return attrs
}

// logStarted logs what the service is and where it listens.
func (s *Service) logStarted() {
	if s.log.Enabled(context.Background(), slog.LevelInfo) {
		s.log.Info("service started", "id", s.ID(), "version", Version, "role", s.cfg.Role, "listeners", s.Listeners())
	}
}

// logStopped logs why the service has stopped.
func (s *Service) logStopped(why error) {
	if why != nil {
		s.log.Error("service stopped", "code", CodeOf(why).String(), "error", why)
		return
	}
	s.log.Info("service stopped")
}

// logNAT logs what is known of NATs when that has changed since the last time. Only the
// surveyor calls it.
func (s *Service) logNAT() {
	if !s.log.Enabled(context.Background(), slog.LevelInfo) {
		return
	}
	r := s.NAT()
	for i, f := range []*NATFlow{&r.UDP, &r.TCP} {
		if f.Confidence == "none" && !f.Blocked {
			continue
		}
		attrs := []slog.Attr{
			slog.String("protocol", []string{"udp", "tcp"}[i]), slog.String("confidence", f.Confidence), slog.Bool("none", f.None),
			slog.String("mapping", f.Mapping.String()), slog.String("filtering", f.Filtering.String()), slog.String("ports", f.Ports.String()),
			slog.Bool("blocked", f.Blocked), slog.Bool("twice", f.Double), slog.Bool("cgnat", r.CGNAT), slog.Bool("reachable", r.Reachable),
		}
		if len(f.External) > 0 {
			attrs = append(attrs, slog.String("external", f.External[0].Addr().String()))
		}
		var b strings.Builder
		for _, a := range attrs {
			b.WriteString(a.Value.String() + " ")
		}
		if text := b.String(); s.logs.nat[i] != text {
			s.logs.nat[i] = text
			s.log.LogAttrs(context.Background(), slog.LevelInfo, "nat", attrs...)
		}
	}
}

// logBegun logs that the program, or a group, wants a connection.
func (s *Service) logBegun(a *attempt) {
	if a.quiet || !s.log.Enabled(context.Background(), slog.LevelDebug) {
		return
	}
	attrs := []slog.Attr{slog.Int("endpoints", len(a.endpoints)), slog.Duration("within_ms", a.within)}
	if !a.peer.IsZero() {
		attrs = append(attrs, slog.String("peer", a.peer.Short()))
	}
	if a.bootstrap {
		s.log.LogAttrs(context.Background(), slog.LevelDebug, "bootstrap begun", attrs...)
		return
	}
	s.log.LogAttrs(context.Background(), slog.LevelDebug, "connect begun", attrs...)
}

// logAttempt logs what came of dialling an endpoint.
func (s *Service) logAttempt(ep Endpoint, expect PeerID, began time.Time, err error) {
	if !s.log.Enabled(context.Background(), slog.LevelDebug) {
		return
	}
	attrs := []slog.Attr{slog.String("endpoint", ep.String()), slog.Duration("took_ms", time.Since(began))}
	if !expect.IsZero() {
		attrs = append(attrs, slog.String("peer", expect.Short()))
	}
	if err != nil {
		attrs = append(attrs, slog.String("code", CodeOf(err).String()), slog.Any("error", err))
	}
	s.log.LogAttrs(context.Background(), slog.LevelDebug, "endpoint tried", attrs...)
}
