// Package arq makes datagrams reliable enough to carry packets of up to 64 KiB.
// It is the machine between sealed datagrams below, each of which may be lost,
// doubled or late, and uTP above, whose packets are far larger than a datagram.
//
// The packets of one direction form a stream: each is preceded by its length,
// and the stream is cut into datagrams of one size, so that runs of them can go
// in one system call. What is lost is sent again until it arrives; packets come
// out whole and in order. Beside the stream go unreliable datagrams of the
// program, ahead of packets and never again. docs/PROTOCOL.md has the bytes, and
// package wire slices them.
//
// The machine is pure: it gets bytes and the time, and gives bytes and a
// deadline. It knows no sockets, no keys and no addresses:
//
//	Send, SendDatagram ──▶ Conn ──Next──▶ seal, write
//	Packet, Datagram  ◀── Conn ◀─Receive── read, open
//	                         └──Deadline──▶ when to ask Next again
//
// After Send, SendDatagram, Ping, after a batch of Receive and when Deadline is
// reached, its owner calls Next until that says no; then it sets its timer to
// Deadline.
//
// Loss is detected as in RFC 9002, with thresholds that grow when the path
// reorders. Congestion control is rate-based in the manner of BBR
// (draft-cardwell-iccrg-bbr-congestion-control): see rate.go. The size of
// datagrams is searched as in RFC 8899: see mtu.go.
package arq

import (
	"errors"
	"time"

	"github.com/libcrust/libcrust/core/internal/wire"
)

// Reason is why a peer closed; see wire.Reason.
type Reason = wire.Reason

const (
	// MaxPacket is the largest packet in bytes: its length goes as a uint16.
	MaxPacket = 65535
	// MinMTU is the least that Config.MTU may be, in bytes of plaintext.
	MinMTU = 256
	// MaxMTU is the most that Config.MaxMTU may be, in bytes of plaintext.
	MaxMTU = 65000
	// DatagramOverhead is what a program's datagram costs in its plaintext, at
	// most: type and length.
	DatagramOverhead = 1 + 3
)

// Errors of SendDatagram; the first is wrapped.
var (
	ErrTooBig = errors.New("the datagram is larger than the path takes")
	ErrClosed = errors.New("closed")
)

// ErrProtocol is wrapped by every error of Receive: the peer sent what no
// correct peer sends.
var ErrProtocol = errors.New("the peer broke the datagram protocol")

// Config sizes a Conn. The zero value of each field means its default.
type Config struct {
	// MTU is the plaintext in bytes that every path takes: what is left of 1280
	// bytes below headers, header block and tag. Default 1200.
	MTU int
	// MaxMTU is the largest plaintext that is tried. Default MTU: no search.
	MaxMTU int
	// SendBuffer bounds packets that are not acknowledged, in bytes. Memory is
	// taken as it is needed. Default 16 MiB.
	SendBuffer int
	// ReceiveBuffer bounds what is held until what was lost before it comes
	// again, in bytes. Default 16 MiB, at least wire.InitialLimit.
	ReceiveBuffer int
	// DatagramBuffer bounds unreliable datagrams that wait, in bytes.
	// Default 256 KiB.
	DatagramBuffer int
	// RTT is the round trip that the handshake measured. Zero: unknown.
	RTT time.Duration
	// Seed makes runs differ that should; any number.
	Seed uint64
}

// Handler takes what Receive finds. The slices are valid during the call only.
// It must not call the Conn.
type Handler interface {
	// Packet is a packet of the peer's Send, whole, in order.
	Packet(p []byte)
	// Datagram is one of the peer's SendDatagram.
	Datagram(p []byte)
	// Response is the answer to a Challenge of this token, if there was one.
	Response(token uint64)
	// Closed says that the peer is gone; nothing comes after it.
	Closed(reason Reason)
}

// Stats are figures of a Conn. Sizes are bytes of plaintext, counts are since
// New.
type Stats struct {
	RTT           time.Duration // smoothed; zero before the first measurement
	MinRTT        time.Duration // least of the last seconds
	RTTVar        time.Duration // mean deviation
	Rate          uint64        // estimated bottleneck, bytes a second
	Window        int           // what may be in flight
	InFlight      int           // what is
	Queued        int           // packets, with their lengths, not acknowledged
	Sent          uint64        // datagrams
	Received      uint64        // datagrams
	Lost          uint64        // datagrams declared lost
	Spurious      uint64        // of these, those that had arrived
	Retransmitted uint64        // bytes of the stream sent again
	Dropped       uint64        // unreliable datagrams dropped from the full queue
	Refused       uint64        // packets refused since the send buffer was full
	MTU           int           // largest plaintext now
	MaxDatagram   int           // largest datagram that SendDatagram takes now
}
