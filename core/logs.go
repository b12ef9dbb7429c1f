package crust

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// What is worth knowing is logged from everywhere, also with locks held and by those who
// read and write links. So a record only goes into a queue of bounded length, and the one
// goroutine that empties it hands it on:
//
//	everybody ──slog──▶ logHandler ──queue──▶ tellLogs ──▶ Config.Logger
//	                                                   └─▶ EventLog
//
// docs/LOGS.md lists the records. Their names and keys are part of what is promised.

// logRoom is how many records may wait to be handed on.
const logRoom = 1024

// LogRecord is what an EventLog says.
type LogRecord struct {
	Time    time.Time // when it happened
	Level   slog.Level
	Message string // its name, as docs/LOGS.md lists it
	Attrs   []byte // an object of JSON
}

// logs is the queue of records and who gets them.
type logs struct {
	// constant after New
	queue chan *slog.Record // nil: nothing is logged
	to    slog.Handler      // nil: nobody
	tells bool              // EventLog
	level slog.Level

	lives   lives         // the goroutine's
	end     chan struct{} // closed when no more comes
	done    chan struct{} // closed when the goroutine is gone
	over    atomic.Bool   // what waits is not handed on any more
	dropped atomic.Uint64
	refused [refusals]rationed
	nat     [2]string // what was logged last of UDP and TCP; the surveyor's
}

// openLogs makes the queue, if anybody wants records.
func (s *Service) openLogs() {
	l := &s.logs
	s.log = slog.New(slog.DiscardHandler)
	if s.cfg.Logger == nil && !s.cfg.LogEvents {
		return
	}
	l.tells, l.level = s.cfg.LogEvents, s.cfg.LogLevel
	if s.cfg.Logger != nil {
		l.to = s.cfg.Logger.Handler()
	}
	l.queue, l.end, l.done = make(chan *slog.Record, logRoom), make(chan struct{}), make(chan struct{})
	s.log = slog.New(&logHandler{logs: l})
	s.events.log = s.logEvent
}

// startLogs starts the goroutine. What was logged before waits for it.
func (s *Service) startLogs() {
	if s.logs.queue != nil {
		s.begin(&s.logs.lives, s.tellLogs)
	}
}

// closeLogs hands on what waits, and ends the goroutine. Who takes longer than
// Config.CloseTimeout misses the rest.
func (s *Service) closeLogs() {
	l := &s.logs
	if l.queue == nil {
		return
	}
	close(l.end)
	timer := time.NewTimer(s.cfg.CloseTimeout)
	defer timer.Stop()
	select {
	case <-l.done:
	case <-timer.C:
		l.over.Store(true)
	}
}

// tellLogs is the goroutine that hands records on.
func (s *Service) tellLogs() {
	l := &s.logs
	defer close(l.done)
	for {
		select {
		case r := <-l.queue:
			s.tellLog(r)
			continue
		default:
		}
		select {
		case r := <-l.queue:
			s.tellLog(r)
		case <-l.end:
			for len(l.queue) > 0 {
				s.tellLog(<-l.queue)
			}
			return
		}
	}
}

// tellLog hands one record on.
func (s *Service) tellLog(r *slog.Record) {
	l := &s.logs
	switch {
	case l.over.Load(), l.to != nil && !handOn(l.to, *r):
		l.dropped.Add(1)
		return
	case !l.tells:
		return
	}
	told := &LogRecord{Time: r.Time, Level: r.Level, Message: r.Message, Attrs: attrsJSON(r)}
	if !s.events.pushNews(Event{Type: EventLog, detail: &detail{log: told}}) {
		l.dropped.Add(1)
	}
}

// handOn calls the program's handler, which has the last word on levels, and reports
// whether it has taken the record. When it panics, the record is lost and nothing else.
func handOn(h slog.Handler, r slog.Record) (taken bool) {
	defer func() {
		if recover() != nil {
			taken = false
		}
	}()
	return !h.Enabled(context.Background(), r.Level) || h.Handle(context.Background(), r) == nil
}

// logHandler puts records into the queue. Nothing is called out and nothing waits.
type logHandler struct {
	logs  *logs
	attrs []slog.Attr
}

// Enabled reports whether records of a level are wanted.
func (h *logHandler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.logs.level }

// Handle queues a record, or counts it where there is no room.
func (h *logHandler) Handle(_ context.Context, r slog.Record) error {
	out := slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
	add := func(a slog.Attr) bool {
		if a.Value.Any() != nil { // no error
			out.AddAttrs(tidy(a))
		}
		return true
	}
	for _, a := range h.attrs {
		add(a)
	}
	r.Attrs(add)
	select {
	case h.logs.queue <- &out:
	default:
		h.logs.dropped.Add(1)
	}
	return nil
}

// WithAttrs returns a handler whose records have these attributes first.
func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &logHandler{logs: h.logs, attrs: append(h.attrs[:len(h.attrs):len(h.attrs)], attrs...)}
}

// WithGroup returns the handler itself: no record of ours has groups.
func (h *logHandler) WithGroup(string) slog.Handler { return h }

// tidy makes the value of an attribute what docs/LOGS.md says: peers in short, errors
// with their values, and other things as the text that they have.
func tidy(a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		return slog.Int64(a.Key, a.Value.Duration().Milliseconds())
	}
	if a.Value.Kind() != slog.KindAny {
		return a
	}
	switch v := a.Value.Any().(type) {
	case PeerID:
		return slog.String(a.Key, v.Short())
	case error:
		return a
	case []Endpoint:
		texts := make([]string, len(v))
		for i, ep := range v {
			texts[i] = ep.String()
		}
		return slog.String(a.Key, strings.Join(texts, " "))
	case fmt.Stringer:
		return slog.String(a.Key, v.String())
	}
	return slog.String(a.Key, fmt.Sprint(a.Value.Any()))
}

// attrsJSON returns the attributes of a record as an object of JSON, in their order.
func attrsJSON(r *slog.Record) []byte {
	b := []byte{'{'}
	r.Attrs(func(a slog.Attr) bool {
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = append(appendJSON(b, a.Key), ':')
		v := a.Value.Any()
		if err, ok := v.(error); ok {
			v = err.Error()
		}
		if f, ok := v.(float64); ok && (math.IsNaN(f) || math.IsInf(f, 0)) {
			v = fmt.Sprint(f)
		}
		b = appendJSON(b, v)
		return true
	})
	return append(b, '}')
}

// appendJSON appends a value that tidy has left.
func appendJSON(b []byte, v any) []byte {
	text, ok := v.(string)
	if ok && !utf8.ValidString(text) {
		v = strings.ToValidUTF8(text, "\uFFFD")
	}
	out, err := json.Marshal(v)
	if err != nil {
		return append(b, "null"...)
	}
	return append(b, out...)
}

// refusal causes that are logged now and then, not each time.
const (
	refusedRate  = iota // connections over MaxAcceptsPerSecond or MaxAcceptsPerAddress
	refusedFiles        // connections over ReservedFiles
	refusedBusy         // handshakes over HandshakePercent
	refusedLists        // connections from addresses on the blacklist, or on no whitelist

	refusedPeers   // sessions over MaxPeers
	refusedInbound // sessions over MaxInbound
	refusedPlace   // sessions over MaxPeersPerAddress
	refusedArea    // sessions over MaxPeersPerPrefix
	refusedEvents  // sessions while too many events wait for the program
	refusals
)

// refusedWhy is what is logged of them.
var refusedWhy = [refusals]string{
	"too many connections", "few descriptors", "too little processor time", "blacklist or whitelist",
	"max_peers", "max_inbound", "max_peers_per_address", "max_peers_per_prefix", "too many events wait for the program",
}

// logEvery is how often the like of it is logged at most.
const logEvery = 10 * time.Second

// rationed counts what is logged now and then.
type rationed struct {
	mu    sync.Mutex // innermost
	next  time.Time
	count uint64
}

// logRefused counts what was refused, and logs how much that is since the last time.
func (s *Service) logRefused(cause int, from netip.Addr) {
	if count := s.logs.refuse(cause); count > 0 {
		s.log.Warn("connections refused", "why", refusedWhy[cause], "count", count, "from", from)
	}
}

// logCrowded is logRefused for sessions.
func (s *Service) logCrowded(cause int, peer PeerID) {
	if count := s.logs.refuse(cause); count > 0 {
		s.log.Warn("sessions refused", "why", refusedWhy[cause], "count", count, "peer", peer.Short())
	}
}

// refuse counts what was refused, and returns how much that is since the last time, 0 when that is
// not to be logged yet.
func (l *logs) refuse(cause int) uint64 {
	if l.queue == nil {
		return 0
	}
	r, now := &l.refused[cause], time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count++
	if now.Before(r.next) {
		return 0
	}
	count := r.count
	r.count, r.next = 0, now.Add(logEvery)
	return count
}
