package crust

import (
	"time"

	"github.com/libcrust/libcrust/core/internal/endpoint"
)

// EventType tells what happened. Numbers are shared with the C ABI and only
// ever appended; ignore types you do not know.
type EventType uint32

const (
	// EventMessage brings a message: Peer, Data, Priority.
	EventMessage EventType = 1
	// EventWritable says that a send queue that refused a message
	// (CodeWouldBlock) has drained to half: Peer. Once per refusal.
	EventWritable EventType = 2
	// EventListenerStarted says that a listener accepts connections: Endpoint,
	// with the port it really got.
	EventListenerStarted EventType = 3
	// EventListenerFailed says that a listener could not start or has died:
	// Endpoint as asked for, Err.
	EventListenerFailed EventType = 4
	// EventConnectionInfo answers PrepareConnectionInfo: Token, and in Data
	// what to give to the other peer out of band.
	EventConnectionInfo EventType = 5
	// EventConnected says that a peer has proved its identity and the session
	// stands, or that it has said that it would take one, which it may still refuse
	// with an EventLost: Peer, Role, How, Endpoint, AppID, Took, and the Token of the
	// Connect that it answers, zero when there was none. Exactly one per
	// session, before any message of it.
	EventConnected EventType = 6
	// EventAlreadyConnected is the final event of a Connect whose peer was
	// connected already, or became so through another Connect: Token, Peer.
	EventAlreadyConnected EventType = 7
	// EventConnectFailed is the final event of a Connect: Token, Peer and
	// Endpoint as far as known, Err.
	EventConnectFailed EventType = 8
	// EventBootstrapped says that one contact answered: Token, Peer, Endpoint.
	// It follows that peer's EventConnected. The other attempts were given up.
	EventBootstrapped EventType = 9
	// EventBootstrapFailed says that no contact answered: Token, Err, which
	// joins one cause per contact.
	EventBootstrapFailed EventType = 10
	// EventLost is the last event of a session: Peer, Err, and in Count how many
	// messages Send had accepted of which it is not known that they arrived.
	// CodeDisconnected means that one side asked for it. A session that could be
	// resumed is lost only when no other link came in time.
	EventLost EventType = 11
	// EventMessagesDropped says that messages accepted by Send will not
	// arrive, because they grew too old in the queue: Peer, Priority, Count, Bytes.
	EventMessagesDropped EventType = 12
	// EventStopped is the last event of the service. Err is nil after Close,
	// and says why when the service had to stop by itself.
	EventStopped EventType = 13
	// EventSuspended says that the link of a session is gone: Peer, Endpoint,
	// Err. The session takes messages as before and waits for another link.
	// EventResumed or EventLost follows.
	EventSuspended EventType = 14
	// EventResumed says that a session goes on over another link: Peer,
	// Endpoint, How. Every message arrives, once and in order. Without an
	// EventSuspended before it the link was given up for a better one, or the
	// peer noticed first that it had broken.
	EventResumed EventType = 15
	// EventDelivered is the final event of SendReceipt: Peer, Token, and Err
	// when it is not known that the message has arrived.
	EventDelivered EventType = 16
	// EventDatagram brings a datagram of SendDatagram: Peer, Data.
	EventDatagram EventType = 17
	// EventListenerStopped says that a listener was given up for a new one, by
	// Config.PortRotation: Endpoint. Sessions live on.
	EventListenerStopped EventType = 18
	// EventNetworkChanged says that addresses, interfaces or routes of this machine
	// have changed, that it has slept, or that NetworkChanged was called: in Count
	// how many addresses came or went. Several changes may be told as one.
	EventNetworkChanged EventType = 19
	// EventPortMapped says that a router passes a port on to a listener: Endpoint,
	// where others reach it now, Internal, where it leads, Means, and Lease, for how
	// long, which is renewed in time. Err is nil, or CodeUnreachable when another NAT
	// is in front of the router: then peers are not told of the endpoint. It comes
	// again when another router, or another means, has taken over.
	EventPortMapped EventType = 20
	// EventPortUnmapped says that a router does not any more: Endpoint, Internal and
	// Means as before, and Err, why: nil when it was not wanted any more, CodeReplaced
	// when another endpoint is passed on instead.
	EventPortUnmapped EventType = 21
	// EventCacheTrouble says that the bootstrap cache of Config.Cache is not what it
	// should be, and in Err why and what was done about it: the file was set aside and
	// begun anew, or mended, or the service goes on with a cache in memory only.
	EventCacheTrouble EventType = 22
	// EventDiscovered says that there is a peer: Peer, Endpoint, where it may be, Role, and
	// By. Nothing is proved of it until somebody connects, but that it holds its key. It
	// comes once for each By, and again when Endpoint or Role have become others; ByGossip
	// it does not come for connected peers. It and EventForgotten are left out while 65,536
	// events wait; Known and PeersOnLAN have all.
	EventDiscovered EventType = 23
	// EventForgotten says that a discovered peer has said goodbye, or that nothing was
	// heard of it for too long: Peer, By. A session with it is not touched.
	EventForgotten EventType = 24
	// EventGroup says that something has changed in a group of Keep: Group, State, Peer,
	// and in Count how many peers of the group are connected and in Wanted how many
	// should be. GroupDown and GroupFailed have Err, why, and Next, when the next attempt is due;
	// GroupDropped has Err. Of a group of Any, GroupTrying and GroupFailed are of the
	// search for more peers and have no Peer. It comes after the peer's EventConnected
	// or EventLost.
	EventGroup EventType = 25
	// EventAlert says that somebody makes this service work for nothing: Alert, and Peer
	// when it has proved who it is. Of one offender and kind one comes in 10 s at most, with
	// what has happened since the last one. It is left out while 65,536 events wait.
	EventAlert EventType = 26
	// EventClear says that the session with a peer is in clear, over Tracer: whoever is
	// between the two reads all, and can change it: Peer, Endpoint, How. It follows the
	// peer's EventConnected, before any message, since only what Config.Tracer allowed and
	// somebody asked for comes about so.
	EventClear EventType = 27
	// EventLog is a record of Config.LogEvents: Log. It is left out while 65,536 events wait,
	// and counted in Stats.DroppedLogs.
	EventLog EventType = 28
)

var eventNames = [...]string{
	EventMessage: "message", EventWritable: "writable", EventListenerStarted: "listener_started",
	EventListenerFailed: "listener_failed", EventConnectionInfo: "info", EventConnected: "connected",
	EventAlreadyConnected: "already_connected", EventConnectFailed: "connect_failed", EventBootstrapped: "bootstrapped",
	EventBootstrapFailed: "bootstrap_failed", EventLost: "lost", EventMessagesDropped: "messages_dropped",
	EventStopped: "stopped", EventSuspended: "suspended", EventResumed: "resumed", EventDelivered: "delivered",
	EventDatagram: "datagram", EventListenerStopped: "listener_stopped",
	EventNetworkChanged: "network_changed", EventPortMapped: "port_mapped", EventPortUnmapped: "port_unmapped",
	EventCacheTrouble: "cache_trouble", EventDiscovered: "discovered", EventForgotten: "forgotten",
	EventGroup: "group", EventAlert: "alert", EventClear: "clear", EventLog: "log",
}

// String returns the name in snake_case.
func (t EventType) String() string {
	if int(t) < len(eventNames) && eventNames[t] != "" {
		return eventNames[t]
	}
	return "unknown"
}

// How tells by which way a session came about.
type How uint8

const (
	Dialed   How = 1 // we connected to the peer
	Accepted How = 2 // the peer connected to us, at whatever endpoint
	Mapped   How = 3 // we connected to the peer at a port that its router passes on to it, as it said
	Punched  How = 4 // both sides opened their NATs
	Relayed  How = 5 // another peer relays
)

// String returns "dialed", "accepted", "mapped", "punched" or "relayed".
func (h How) String() string {
	if names := [...]string{"", "dialed", "accepted", "mapped", "punched", "relayed"}; int(h) < len(names) {
		return names[h]
	}
	return "unknown"
}

// Means is how a router was asked for a port.
type Means uint8

const (
	MeansPCP         Means = 1 // RFC 6887
	MeansUPnPIGD2    Means = 2
	MeansUPnPPinhole Means = 3 // UPnP, to open a firewall for IPv6
	MeansNATPMP      Means = 4 // RFC 6886
	MeansUPnPIGD1    Means = 5
)

// String returns "pcp", "upnp-igd2", "upnp-pinhole", "nat-pmp", "upnp-igd1", or ""
// for none.
func (m Means) String() string {
	return wordOf(m, "", "pcp", "upnp-igd2", "upnp-pinhole", "nat-pmp", "upnp-igd1")
}

// By is how a peer was discovered.
type By uint8

const (
	ByBeacon By = 1 // its beacon was heard on a network of this machine: see Config.Beacon
	ByGossip By = 2 // connected peers have told of it
)

// String returns "beacon", "gossip", or "" for neither.
func (b By) String() string { return wordOf(b, "", "beacon", "gossip") }

// Role tells what a peer is to the network.
type Role uint8

const (
	Node   Role = 0 // a full member
	Client Role = 1 // a user of the network
)

// String returns "node" or "client".
func (r Role) String() string {
	if r == Client {
		return "client"
	}
	return "node"
}

// Event is something that happened. Which fields mean something is said at each
// EventType; the others are zero. Events of one peer come in order: connected,
// messages, lost; suspended comes after the messages that came by the link that
// is gone, resumed before those that come by the next one.
type Event struct {
	Type     EventType
	Priority uint8
	Token    uint64
	Peer     PeerID
	Data     []byte // owned as the way of receiving says: see Service.Events and Batch
	detail   *detail
}

// detail holds what rare events say, so that a message's Event stays small.
type detail struct {
	err      error
	appID    []byte
	endpoint endpoint.Endpoint
	internal endpoint.Endpoint
	means    Means
	took     time.Duration
	lease    time.Duration
	count    uint64
	bytes    uint64
	wanted   uint64
	next     time.Duration
	group    string
	how      How
	role     Role
	by       By
	state    GroupState
	alert    *Alert
	log      *LogRecord
}

var noDetail detail

func (e *Event) more() *detail {
	if e.detail == nil {
		return &noDetail
	}
	return e.detail
}

// Err returns why: an *Error, or nil.
func (e *Event) Err() error { return e.more().err }

// Code returns the code of Err.
func (e *Event) Code() Code { return CodeOf(e.more().err) }

// AppID returns what the peer's program attached to its service, up to
// MaxAppID bytes, authenticated by the handshake.
func (e *Event) AppID() []byte { return e.more().appID }

// Endpoint returns the endpoint the event is about.
func (e *Event) Endpoint() Endpoint { return e.more().endpoint }

// Internal returns where a router passes a port on to: an address of this machine,
// and the port of a listener.
func (e *Event) Internal() Endpoint { return e.more().internal }

// Means returns how a router was asked.
func (e *Event) Means() Means { return e.more().means }

// Lease returns for how long a router has given a port, from the event on; 0 means
// for ever.
func (e *Event) Lease() time.Duration { return e.more().lease }

// Took returns how long a connection took, from the call or the accepted
// connection to the session.
func (e *Event) Took() time.Duration { return e.more().took }

// Count returns a number: of messages, addresses or peers.
func (e *Event) Count() uint64 { return e.more().count }

// Bytes returns a number of bytes.
func (e *Event) Bytes() uint64 { return e.more().bytes }

// How returns by which way a session came about.
func (e *Event) How() How { return e.more().how }

// Role returns the peer's role.
func (e *Event) Role() Role { return e.more().role }

// By returns how a peer was discovered.
func (e *Event) By() By { return e.more().by }

// Group returns the name of a group.
func (e *Event) Group() string { return e.more().group }

// State returns how it stands with a peer of a group.
func (e *Event) State() GroupState { return e.more().state }

// Wanted returns how many peers of a group should be connected.
func (e *Event) Wanted() uint64 { return e.more().wanted }

// Alert returns who makes this service work for nothing, the zero Alert for other
// events.
func (e *Event) Alert() Alert {
	if a := e.more().alert; a != nil {
		return *a
	}
	return Alert{}
}

// Log returns a record of what happened, the zero LogRecord for other events.
func (e *Event) Log() LogRecord {
	if r := e.more().log; r != nil {
		return *r
	}
	return LogRecord{}
}

// Next returns until the next attempt for a group; 0 means that none is due.
func (e *Event) Next() time.Duration { return e.more().next }
