package crust

import (
	"context"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/libcrust/libcrust/core/internal/session"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// peer is one session in the table.
type peer struct {
	id       PeerID
	sess     *session.Session
	instance uint64
	since    time.Time

	// guarded by Service.mu and lookup for writing, by either for reading
	claim    uint64 // seq of the claim that the session's link was chosen by; 0: not known yet
	endpoint Endpoint
	how      How

	// Memory comes in steps, and there may be thousands of peers: so what is small lies
	// together, whoever it is guarded by.
	inbound  bool        // the peer has begun the session: constant after insert
	unwanted atomic.Bool // the program has ended the session, or we have for want of room

	// guarded by Service.mu
	redialing bool               // a goroutine dials it
	resting   bool               // which waits for its time
	fresh     bool               // it was lost, or this machine's network has changed, since the last try began
	unsure    bool               // the session was begun at once, and the peer is not known to have it
	theirs    wire.SessionID     // the name that the peer had begun the session by, when it is another one
	elsewhere bool               // its link was refused for another one, which must show soon
	leaving   bool               // it is being ended to make room
	seeking   bool               // other peers are asked for it while it is suspended
	hidden    bool               // the session has begun early, and nobody is told yet: see early.go
	appeared  bool               // it was told of when it went over to a link, which is not told then
	endpoints []Endpoint         // where the peer may be dialled, the newest last
	mapped    []Endpoint         // which of these a router passes on, or would
	seen      netip.Addr         // as whom the peer sees us
	doors     [2]Endpoint        // which of the endpoints it told by its last Doors, and nobody else
	sought    time.Time          // when we looked for a better link there
	giveUp    context.CancelFunc // ends a try of that
	loss      loss               // of its link
	upgrade   upgrade            // the search for a better link
	echo      *asker             // guarded by watch.mu
	naming    []uint64           // seqs of our claims that name the session, and may have been granted without us knowing
	order     uint64             // of the decider's choice of the link; 0: not known yet, or we decide
	told      []Endpoint         // of endpoints, those that only a letter or an info has told
	proven    []netip.Addr       // from which its links have come
	knocked   uint64             // bytes that dials of the former may have cost
	allowed   uint64             // of these, those that it need not pay for
	says      [2]netip.Addr      // what our external address is, over TCP and UDP; guarded by watch.mu
	saw       [2]netip.AddrPort  // as what it has seen us last, by observe.Proto; guarded by watch.mu
	known     chan struct{}      // closed when it is not unsure any more; nil when nobody waits
	why       error              // of its loss
	from      netip.Addr         // whose address it counts for; not valid over a relay

	decided <-chan struct{} // of a session that began early: closed when it has its answer; constant after insert

	pacer *pacer                     // the reader's own; nil until there is a bound to hold the peer to
	loose atomic.Pointer[loosePacer] // of datagrams; nil likewise
}
