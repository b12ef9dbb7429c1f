// Package benchkit measures transports side by side: the same tests, both ends
// in processes of their own, and runs interleaved, so that a machine that slows
// down slows everybody.
//
// A transport is made known by implementing [Transport]. A program that wants
// to measure calls [Run], and answers its own re-execution with [Worker].
package benchkit

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Transport is one way of carrying messages between two processes.
type Transport interface {
	// Name is the transport's name in results, such as "raw-tcp".
	Name() string
	// Listen starts an accepting end at an address and any port. It calls serve,
	// each time in a goroutine of its own, for each connection that may speak, and
	// closes the connection when serve returns. A transport may wait with that call
	// until the first message.
	Listen(at netip.Addr, serve func(Conn)) (Server, error)
	// NewClient makes a dialling end with an identity of its own.
	NewClient() (Client, error)
}

// Server is an accepting end.
type Server interface {
	// Address is what a Client of the same transport dials; one line of text.
	Address() string
	// Close ends all connections and returns when nothing of the end is left.
	Close() error
}

// Client is a dialling end.
type Client interface {
	// Dial returns when this end knows that the other has accepted it, all
	// handshakes included.
	Dial(ctx context.Context, address string) (Conn, error)
	// Close ends all connections of the client.
	Close() error
}

// Conn is one connection. One goroutine may send while another receives.
type Conn interface {
	// SendAll sends count messages of size bytes as fast as the transport takes
	// them, and returns when it has taken them all.
	SendAll(count, size int) error
	// ReceiveAll takes count messages, each of size bytes.
	ReceiveAll(count, size int) error
	// Send sends one message without delay.
	Send(message []byte) error
	// Receive fills message with the next message, which must have its length.
	// It returns io.EOF when the other end has closed.
	Receive(message []byte) error
	// Close closes in order and returns when the same client may dial again.
	Close() error
}

// idler is a Conn that needs a goroutine of the program to notice what the
// other end does, as a program that waits for messages would have. Idle starts
// it; it ends with the connection.
type idler interface{ Idle() }

// MessageSize and BulkSize are the sizes in bytes of the messages of the tests.
const (
	MessageSize  = 64
	KilobyteSize = 1024
	BulkSize     = 64 << 10
)

// Test is one thing to measure.
type Test struct {
	Name string
	// Unit is the unit of the result: "MB/s" with 1 MB = 1e6 bytes, "msg/s",
	// "us", "conn/s", "KiB", "allocs/msg" or "%" of one core.
	Unit string
	// About says in a few words what is measured.
	About string
	// LessIsBetter is true where a smaller value wins.
	LessIsBetter bool
	// TwoProcesses is true when both ends in one process cannot be told apart.
	TwoProcesses bool

	size      int    // of a message
	workers   int    // that dial, or stream, at a time
	datagrams bool   // only for transports that have them
	direction string // of a stream of a Grid
	measure   func(context.Context, *bench) (Outcome, error)
}

// Tests are all tests, in the order in which they run.
var Tests = []Test{
	{Name: "bulk", Unit: "MB/s", About: "64 KiB messages, streamed", size: BulkSize, measure: measureStream},
	{Name: "bulk8", Unit: "MB/s", About: "64 KiB messages over 8 connections at once, in total", size: BulkSize, workers: 8, measure: measureStreams},
	{Name: "bulk64", Unit: "MB/s", About: "64 KiB messages over 64 connections at once, in total", size: BulkSize, workers: 64, measure: measureStreams},
	{Name: "msg64", Unit: "msg/s", About: "64-byte messages, sent without waiting", size: MessageSize, measure: measureStream},
	{Name: "msg1k", Unit: "msg/s", About: "1 KiB messages, sent without waiting", size: KilobyteSize, measure: measureStream},
	{Name: "ping", Unit: "us", About: "round trip of a 64-byte message, median", LessIsBetter: true, measure: measurePing},
	{
		Name: "datagram64", Unit: "msg/s", About: "unreliable datagrams of 64 bytes that arrive, where there are any", size: MessageSize,
		datagrams: true, measure: measureDatagrams,
	},
	{
		Name: "datagram", Unit: "msg/s", About: "unreliable datagrams of 1,100 bytes that arrive, where there are any", size: DatagramSize,
		datagrams: true, measure: measureDatagrams,
	},
	{Name: "connect", Unit: "conn/s", About: "new connections, one after another", workers: 1, measure: measureConnect},
	{Name: "connect8", Unit: "conn/s", About: "new connections, 8 at a time", workers: 8, measure: measureConnect},
	{
		Name: "memory", Unit: "KiB", About: "heap and stacks of an idle connection, the larger of its two ends",
		LessIsBetter: true, TwoProcesses: true, measure: measureMemory,
	},
	{
		Name: "allocs", Unit: "allocs/msg", About: "heap allocations of both ends for a 64-byte message",
		LessIsBetter: true, TwoProcesses: true, size: MessageSize, measure: measureAllocs,
	},
	{
		Name: "idle", Unit: "%", About: "processor time of two connected idle ends, of one core",
		LessIsBetter: true, TwoProcesses: true, measure: measureIdle,
	},
}

// FindTest returns the test of that name, of [Tests] or of a [Grid].
func FindTest(name string) (Test, error) {
	for _, t := range Tests {
		if t.Name == name {
			return t, nil
		}
	}
	if t, ok := gridTest(name); ok {
		return t, nil
	}
	return Test{}, fmt.Errorf("there is no test %q; the tests are %s", name, strings.Join(TestNames(), ", "))
}

// TestNames returns the names of all tests.
func TestNames() []string {
	names := make([]string, len(Tests))
	for i, t := range Tests {
		names[i] = t.Name
	}
	return names
}

// FindTransport returns the transport of that name among all.
func FindTransport(all []Transport, name string) (Transport, error) {
	if i := slices.IndexFunc(all, func(t Transport) bool { return t.Name() == name }); i >= 0 {
		return all[i], nil
	}
	return nil, fmt.Errorf("there is no transport %q; the transports are %s", name, strings.Join(TransportNames(all), ", "))
}

// TransportNames returns the names of transports.
func TransportNames(all []Transport) []string {
	names := make([]string, len(all))
	for i, t := range all {
		names[i] = t.Name()
	}
	return names
}

// Volume is how much one run does. A zero field means its default.
type Volume struct {
	// Duration is about how long a run of a throughput or connect test lasts.
	// Zero means 1 s.
	Duration time.Duration `json:"duration"`
	// Pings is the number of round trips of a ping run. Zero means 5,000.
	Pings int `json:"pings"`
	// Connections is the number of connections of a memory run. Zero means 500.
	Connections int `json:"connections"`
	// Idle is how long an idle run watches. Zero means 3 s.
	Idle time.Duration `json:"idle"`
}

func (v Volume) withDefaults() Volume {
	if v.Duration <= 0 {
		v.Duration = time.Second
	}
	if v.Pings <= 0 {
		v.Pings = 5000
	}
	if v.Connections <= 0 {
		v.Connections = 500
	}
	if v.Idle <= 0 {
		v.Idle = 3 * time.Second
	}
	return v
}
