//go:build linux

package soak

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/identity"
)

// asNode is the environment variable by which the test's program is a node of the soak.
const asNode = "CRUST_SOAK_NODE"

// orders is what a process of the soak is told at its start, as JSON on its standard
// input. A line with a command follows for each thing that it shall do, and it answers
// each with a line of JSON, a state.
type orders struct {
	Node, Life int      // which node, and how often it has started before
	Seeds      [][]byte // of the identities of all nodes
	Keep       []int    // to whom it stays connected
	At         map[int]string
	Listen     []string
	Relay      bool
	Journal    string // the file for what happens
	Cache      string
	// Disk is the size of a file system of its own for the cache, in bytes; 0: none.
	Disk  int
	Every time.Duration // between two messages, on average
}

// state is an answer.
type state struct {
	Peers, Up   int      // sessions, and of these not suspended
	Kept        int      // of the peers to which it stays connected, how many are up
	Queued      int      // bytes that are not sent or not acknowledged
	Waiting     []string `json:",omitempty"` // to whom
	Goroutines  int
	Descriptors int
	Heap        uint64 // bytes, after a collection
	Leaks       string `json:",omitempty"` // of Close: what it has left behind
	Err         string `json:",omitempty"`
}

// node is such a process.
type node struct {
	orders
	service *crust.Service
	ids     map[crust.PeerID]int
	peers   []crust.PeerID // by node
	journal *os.File
	random  *rand.Rand
	up      map[int]bool
	next    [][priorities]uint32 // by receiver: the number of its next message
	quiet   bool
	filler  string
}

// priorities are those that messages have: 0 and 1 must arrive, 2 may grow too old.
const priorities = 3

// header of a message: the sender's node and life, the receiver's node, priority,
// number, and a checksum of all. The rest follows from these.
const header = 20

// message makes the message of that number.
func message(b []byte, from, life, to, priority int, number uint32) []byte {
	binary.BigEndian.PutUint16(b[4:], uint16(from))
	binary.BigEndian.PutUint32(b[6:], uint32(life))
	binary.BigEndian.PutUint16(b[10:], uint16(to))
	b[12], b[13] = byte(priority), 0
	binary.BigEndian.PutUint32(b[14:], number)
	binary.BigEndian.PutUint16(b[18:], 0)
	for i := header; i < len(b); i++ {
		b[i] = byte(number) + byte(i*7) + byte(from)
	}
	binary.BigEndian.PutUint32(b, crc32.ChecksumIEEE(b[4:]))
	return b
}

// serve is what the test's program does when it is a process of the soak.
func serve() error {
	input := bufio.NewScanner(os.Stdin)
	input.Buffer(nil, 1<<20)
	if !input.Scan() {
		return errors.New("no orders")
	}
	n := &node{ids: map[crust.PeerID]int{}, up: map[int]bool{}}
	if err := json.Unmarshal(input.Bytes(), &n.orders); err != nil {
		return err
	}
	before, err := warm()
	if err != nil {
		return err
	}
	if err := n.start(); err != nil {
		return err
	}
	asked := make(chan string)
	go func() {
		defer close(asked)
		for input.Scan() {
			asked <- input.Text()
		}
	}()
	if n.run(asked); n.service == nil {
		return nil
	}
	err = n.service.Close()
	n.drain()
	now := measure(false)
	for range 100 { // what has ended a moment ago may still be counted
		if now.Leaks = leaks(before, now); now.Leaks == "" {
			break
		}
		time.Sleep(20 * time.Millisecond)
		now = measure(false)
	}
	if err != nil {
		now.Err = err.Error()
	}
	return json.NewEncoder(os.Stdout).Encode(now)
}

// warm has the runtime open what it opens once, and measures what there is before the
// service.
func warm() (state, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return state{}, err
	}
	err = l.Close()
	return measure(true), err
}

// measure looks at the process.
func measure(collect bool) (s state) {
	if collect {
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		s.Err = err.Error() // it may open no more
	}
	return state{Goroutines: runtime.NumGoroutine(), Descriptors: len(fds), Heap: m.HeapAlloc, Err: s.Err}
}

// leaks says what there is now that was not there before.
func leaks(before, now state) string {
	// The journal, and the goroutine that reads the commands.
	if now.Descriptors <= before.Descriptors+1 && now.Goroutines <= before.Goroutines+1 {
		return ""
	}
	stacks := make([]byte, 64<<10)
	stacks = stacks[:runtime.Stack(stacks, true)]
	var open []string
	list, _ := os.ReadDir("/proc/self/fd")
	for _, e := range list {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			open = append(open, to)
		}
	}
	return fmt.Sprintf("%d goroutines and %d descriptors were %d and %d before the service: %s\n%s",
		now.Goroutines, now.Descriptors, before.Goroutines, before.Descriptors, strings.Join(open, " "), stacks)
}

// start starts the service.
func (n *node) start() (err error) {
	n.random = rand.New(rand.NewPCG(uint64(n.Node), uint64(n.Life)))
	n.next = make([][priorities]uint32, len(n.Seeds))
	if n.journal, err = os.OpenFile(n.Journal, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		return err
	}
	if n.Disk > 0 {
		if err := unix.Mount("soak", filepath.Dir(n.Cache), "tmpfs", 0, fmt.Sprintf("size=%d", n.Disk)); err != nil {
			return fmt.Errorf("mount a small disk: %w", err)
		}
		n.filler = filepath.Join(filepath.Dir(n.Cache), "filler")
	}
	config := crust.Config{
		NetworkName: "soak", Cache: n.Cache, Beacon: crust.BeaconOff, PortMap: crust.PortMapOff,
		Heartbeat: heartbeat, LostAfter: lostAfter, ResumeWindow: window, MessageMaxAge: 5 * time.Second,
	}
	if n.Relay {
		config.Relay = crust.RelayData
	}
	var own *identity.Key
	for i, seed := range n.Seeds {
		key, err := identity.FromSeed(seed)
		if err != nil {
			return err
		}
		if n.ids[key.ID()] = i; i == n.Node {
			own = key
		}
		n.peers = append(n.peers, key.ID())
	}
	config.Identity = own
	for _, text := range n.Listen {
		ep, err := crust.ParseEndpoint(text)
		if err != nil {
			return err
		}
		config.Listen = append(config.Listen, ep)
	}
	group := crust.Group{Name: "soak"}
	for _, i := range n.Keep {
		if n.At[i] == "" {
			group.Peers = append(group.Peers, n.peers[i])
			continue
		}
		ep, err := crust.ParseEndpoint(n.At[i])
		if err != nil {
			return err
		}
		group.Contacts = append(group.Contacts, crust.Contact{Endpoint: ep, Peer: n.peers[i]})
	}
	config.Contacts = group.Contacts
	if n.service, err = crust.New(config); err != nil {
		return err
	}
	if len(n.Keep) == 0 {
		return nil
	}
	return n.service.Keep(group)
}

// run does what there is to do until there are no more commands.
func (n *node) run(asked <-chan string) {
	events := make(chan crust.Batch)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			b, err := n.service.NextBatch(ctx, 256)
			if err != nil {
				return
			}
			events <- b // whoever has ended us takes them until we are done
		}
	}()
	defer func() {
		for cancel(); ; {
			select {
			case b := <-events:
				n.take(&b)
			case <-done:
				return
			}
		}
	}()
	timer := time.NewTimer(n.pause())
	defer timer.Stop()
	for {
		select {
		case command, more := <-asked:
			if !more || command == "close" {
				return
			}
			n.obey(command)
		case b := <-events:
			n.take(&b)
		case <-timer.C:
			n.send()
			timer.Reset(n.pause())
		}
	}
}

func (n *node) pause() time.Duration {
	return n.Every/2 + time.Duration(n.random.Int64N(int64(n.Every)))
}

// obey does what it is told, and answers.
func (n *node) obey(command string) {
	var failed error
	switch command {
	case "report":
	case "hush":
		n.quiet = true
	case "fill":
		failed = fill(n.filler)
	case "free":
		failed = os.Remove(n.filler)
	default:
		failed = fmt.Errorf("unknown command %q", command)
	}
	s := measure(true)
	for _, p := range n.service.Peers() {
		s.Peers++
		if p.QueuedBytes+p.UnackedBytes > 0 {
			s.Queued += p.QueuedBytes + p.UnackedBytes
			s.Waiting = append(s.Waiting, fmt.Sprintf("%d to node %d and %d unacknowledged (%v %v, suspended %v)",
				p.QueuedBytes, n.ids[p.Peer], p.UnackedBytes, p.How, p.Endpoint, p.Suspended))
		}
		if !p.Suspended {
			s.Up++
		}
	}
	for _, i := range n.Keep {
		if p, ok := n.service.Peer(n.peers[i]); ok && !p.Suspended {
			s.Kept++
		}
	}
	if failed != nil {
		s.Err = failed.Error()
	}
	_ = json.NewEncoder(os.Stdout).Encode(s) // nobody there: the test has ended
}

// fill writes a file that leaves no room on its disk.
func fill(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, unix.ENOSPC) {
		return errors.Join(err, f.Close())
	}
	return f.Close()
}

// note writes a line into the journal, at once: it is there even if the process is
// killed next.
func (n *node) note(format string, arguments ...any) {
	line := fmt.Appendf(nil, "%d "+format+"\n", append([]any{time.Now().UnixMicro()}, arguments...)...)
	if _, err := n.journal.Write(line); err != nil {
		panic(err) // without it nothing is accounted for
	}
}

// take takes events.
func (n *node) take(b *crust.Batch) {
	defer b.Release()
	for i := range b.Events {
		n.event(&b.Events[i])
	}
}

func (n *node) event(e *crust.Event) {
	peer, known := n.ids[e.Peer]
	if !known {
		peer = -1
	}
	switch e.Type {
	case crust.EventConnected:
		n.up[peer] = true
		n.note("connected %d %v %v", peer, e.How(), e.Endpoint())
	case crust.EventSuspended:
		n.note("suspended %d %v", peer, e.Code())
	case crust.EventResumed:
		n.note("resumed %d %v %v", peer, e.How(), e.Endpoint())
	case crust.EventLost:
		delete(n.up, peer)
		n.note("lost %d %d %v %q", peer, e.Count(), e.Code().String(), fmt.Sprint(e.Err()))
	case crust.EventMessagesDropped:
		n.note("dropped %d %d %d", peer, e.Priority, e.Count())
	case crust.EventCacheTrouble:
		n.note("cache %q", fmt.Sprint(e.Err()))
	case crust.EventListenerFailed, crust.EventStopped:
		n.note("%v %q", e.Type, fmt.Sprint(e.Err()))
	case crust.EventMessage:
		n.received(e, peer)
	}
}

// received checks a message and notes it.
func (n *node) received(e *crust.Event, peer int) {
	if len(e.Data) < header {
		n.note("corrupt %d of %d bytes", peer, len(e.Data))
		return
	}
	life, number := int(binary.BigEndian.Uint32(e.Data[6:])), binary.BigEndian.Uint32(e.Data[14:])
	want := message(make([]byte, len(e.Data)), peer, life, n.Node, int(e.Priority), number)
	if string(want) != string(e.Data) {
		n.note("corrupt %d of %d bytes: %x", peer, len(e.Data), e.Data[:header])
		return
	}
	n.note("received %d %d %d %d", peer, life, e.Priority, number)
}

// send sends one message to one of the peers.
func (n *node) send() {
	if n.quiet || len(n.up) == 0 {
		return
	}
	to := n.random.IntN(len(n.peers))
	for !n.up[to] {
		to = (to + 1) % len(n.peers)
	}
	size := header + n.random.IntN(500)
	switch n.random.IntN(100) {
	case 0:
		size = header + n.random.IntN(300<<10)
	case 1, 2, 3, 4:
		size = header + n.random.IntN(20<<10)
	}
	priority := n.random.IntN(priorities)
	number := n.next[to][priority]
	err := n.service.Send(n.peers[to], message(make([]byte, size), n.Node, n.Life, to, priority, number), uint8(priority))
	switch {
	case err == nil:
		n.next[to][priority]++
		n.note("accepted %d %d %d", to, priority, number)
	case !errors.Is(err, crust.CodeWouldBlock) && !errors.Is(err, crust.CodeUnknownPeer):
		n.note("refused %d %q", to, err.Error())
	}
}

// drain takes the events that Close has left.
func (n *node) drain() {
	for {
		b, err := n.service.TryNextBatch(1024)
		if err != nil || len(b.Events) == 0 {
			return
		}
		n.take(&b)
	}
}
