package udpmux

import (
	"sync/atomic"
	"time"

	"github.com/libcrust/libcrust/core/internal/arq"
)

// Stats counts what went through a socket since New. Bytes are those of
// datagrams, without IP and UDP headers.
type Stats struct {
	Associations      int // now, with those being made
	Sent, SentBytes   uint64
	Received          uint64
	ReceivedBytes     uint64
	Dialled, Accepted uint64 // handshakes that were completed
	Moved             uint64 // associations whose peer's address changed

	// What was received and dropped, by cause.
	Strays   uint64 // belonged to nothing; given to Config.Stray
	Forged   uint64 // named an association and did not authenticate
	Replayed uint64 // came twice or too late
	Flights  uint64 // of handshakes that do not exist, or that the peer got wrong
	Overload uint64 // flights over what is opened or answered in time
	Ended    uint64 // for an association that has just ended
	Barred   uint64 // runs of datagrams from blacklisted addresses
}

// counters are the Stats that are counted.
type counters struct {
	sentCount, sentBytes, received, receivedBytes             atomic.Uint64
	dialled, accepted, moved                                  atomic.Uint64
	strays, forged, replayed, refusedFlights, overload, ended atomic.Uint64
	barred                                                    atomic.Uint64
}

func (c *counters) sent(datagrams, size int) {
	c.sentCount.Add(uint64(datagrams))
	c.sentBytes.Add(uint64(size))
}

// Stats returns the counts so far.
func (m *Mux) Stats() Stats {
	m.mu.RLock()
	held := m.held
	m.mu.RUnlock()
	c := &m.stats
	return Stats{
		Associations: held,
		Sent:         c.sentCount.Load(), SentBytes: c.sentBytes.Load(),
		Received: c.received.Load(), ReceivedBytes: c.receivedBytes.Load(),
		Dialled: c.dialled.Load(), Accepted: c.accepted.Load(), Moved: c.moved.Load(),
		Strays: c.strays.Load(), Forged: c.forged.Load(), Replayed: c.replayed.Load(),
		Flights: c.refusedFlights.Load(), Overload: c.overload.Load(), Ended: c.ended.Load(),
		Barred: c.barred.Load(),
	}
}

// AssocStats are figures of one association.
type AssocStats struct {
	arq.Stats
	// Idle is how long nothing has been heard.
	Idle time.Duration
	// Moves is how often the peer's address changed.
	Moves uint64
}
