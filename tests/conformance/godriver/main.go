// Command godriver is the Go end of the conformance matrix: it obeys commands on
// standard input and answers on standard output, one line each, exactly as the
// drivers of the other languages do. See the package conformance.
package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"

	crust "github.com/libcrust/libcrust/core"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: godriver NETWORKNAME [LISTEN...]")
		os.Exit(2)
	}
	if err := drive(os.Args[1], os.Args[2:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "godriver: %v\n", err)
		os.Exit(1)
	}
}

// driver is one service and what is known of its peers.
type driver struct {
	service  *crust.Service
	out      *lines
	patterns chan pattern
	starting int // listeners that have not started

	mu    sync.Mutex
	peers map[crust.PeerID]*peer // guarded by mu
}

// peer is the running numbers of one peer.
type peer struct {
	toSend   int      // number of the next message to it
	checked  int      // number of the next message from it to be checked
	received [][]byte // messages from it that nobody has asked about yet
	asked    []verify // questions that wait for messages, in order
}

// verify is the question whether count messages of size bytes came as expected.
type verify struct{ count, size int }

// pattern is an order to send.
type pattern struct {
	to                 crust.PeerID
	first, count, size int
	priority           uint8
}

// lines writes whole lines at once from several goroutines.
type lines struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lines) printf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(l.w, format+"\n", args...)
}

// fill makes message number k.
func fill(k, size int) []byte {
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(k*31 + i*7 + 3)
	}
	return data
}

func drive(network string, listen []string, in io.Reader, out io.Writer) error {
	if len(listen) == 0 {
		listen = []string{"tcp://127.0.0.1:0"}
	}
	config := crust.Config{NetworkName: network}
	for _, text := range listen {
		local, err := crust.ParseEndpoint(text)
		if err != nil {
			return err
		}
		config.Listen = append(config.Listen, local)
	}
	service, err := crust.New(config)
	if err != nil {
		return err
	}
	d := &driver{
		service: service, out: &lines{w: out}, patterns: make(chan pattern, 1024),
		starting: len(listen), peers: make(map[crust.PeerID]*peer),
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(d.events)
	running.Go(func() { d.send(ctx) })
	commands := bufio.NewScanner(in)
	commands.Buffer(nil, 1<<20)
	for commands.Scan() && commands.Text() != "quit" {
		if err := d.execute(strings.Fields(commands.Text())); err != nil {
			d.out.printf("error %v", err)
		}
	}
	close(d.patterns)
	cancel()
	err = service.Close()
	running.Wait()
	d.out.printf("bye")
	return err
}

// events handles everything that happens, until the service has stopped.
func (d *driver) events() {
	for e := range d.service.Events(context.Background()) {
		switch e.Type {
		case crust.EventListenerStarted:
			if d.starting--; d.starting == 0 {
				d.out.printf("ready %s", d.service.ID())
			}
		case crust.EventListenerFailed:
			d.out.printf("error %v", e.Err())
		case crust.EventConnectionInfo:
			d.out.printf("info %s", base64.RawURLEncoding.EncodeToString(e.Data))
		case crust.EventConnected:
			d.out.printf("connected %s %v", e.Peer, e.Endpoint().Transport)
		case crust.EventAlreadyConnected:
			d.out.printf("error already connected to %s", e.Peer)
		case crust.EventConnectFailed:
			d.out.printf("connect_failed %s %v", e.Code().String(), e.Err())
		case crust.EventLost:
			d.lost(e.Peer)
			d.out.printf("lost %s %s", e.Peer, e.Code().String())
		case crust.EventMessage:
			d.message(e.Peer, e.Data)
		case crust.EventMessagesDropped:
			d.out.printf("error %d messages to %s were dropped", e.Count(), e.Peer)
		}
	}
}

// execute obeys one command.
func (d *driver) execute(words []string) error {
	if len(words) == 0 {
		return nil
	}
	switch arguments := words[1:]; words[0] {
	case "info":
		return d.service.PrepareConnectionInfo(0)
	case "connect":
		return d.connect(arguments)
	case "pattern":
		to, n, err := numbers(arguments, 3)
		if err != nil {
			return err
		}
		if n[2] > 255 {
			return fmt.Errorf("priority %d is over 255", n[2])
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		p := d.peer(to)
		d.patterns <- pattern{to, p.toSend, n[0], n[1], uint8(n[2])}
		p.toSend += n[0]
	case "verify":
		from, n, err := numbers(arguments, 2)
		if err != nil {
			return err
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		p := d.peer(from)
		p.asked = append(p.asked, verify{n[0], n[1]})
		d.answer(p)
	case "toobig":
		to, _, err := numbers(arguments, 0)
		if err != nil {
			return err
		}
		if err := d.service.Send(to, make([]byte, crust.MaxMessage+1), 0); err == nil {
			return fmt.Errorf("a message of %d bytes was accepted", crust.MaxMessage+1)
		} else {
			d.out.printf("refused %s", crust.CodeOf(err).String())
		}
	case "disconnect":
		who, _, err := numbers(arguments, 0)
		if err != nil {
			return err
		}
		return d.service.Disconnect(who)
	default:
		return fmt.Errorf("unknown command %q", words[0])
	}
	return nil
}

// connect obeys "connect BASE64URL". What the service refuses at once is told
// as every other failure to connect.
func (d *driver) connect(arguments []string) error {
	if len(arguments) != 1 {
		return fmt.Errorf("connect takes one word")
	}
	info, err := base64.RawURLEncoding.DecodeString(arguments[0])
	if err != nil {
		return fmt.Errorf("connection info is not base64url: %w", err)
	}
	if err := d.service.Connect(info, 1); err != nil {
		d.out.printf("connect_failed %s %v", crust.CodeOf(err).String(), err)
	}
	return nil
}

// numbers reads a peer id and count whole numbers.
func numbers(arguments []string, count int) (crust.PeerID, []int, error) {
	if len(arguments) != 1+count {
		return crust.PeerID{}, nil, fmt.Errorf("want a peer id and %d numbers", count)
	}
	id, err := crust.ParsePeerID(arguments[0])
	if err != nil {
		return id, nil, err
	}
	n := make([]int, count)
	for i, text := range arguments[1:] {
		if n[i], err = strconv.Atoi(text); err != nil || n[i] < 0 {
			return id, nil, fmt.Errorf("%q is not a whole number of 0 or more", text)
		}
	}
	return id, n, nil
}

// send sends the patterns in the order in which they were asked for.
func (d *driver) send(ctx context.Context) {
	for p := range d.patterns {
		var err error
		for k := 0; k < p.count && err == nil; k++ {
			err = d.service.SendWait(ctx, p.to, fill(p.first+k, p.size), p.priority)
		}
		if err != nil {
			d.out.printf("error %v", err)
		} else {
			d.out.printf("sent %d", p.count)
		}
	}
}

// peer returns the numbers of a peer. The caller holds d.mu.
func (d *driver) peer(id crust.PeerID) *peer {
	p := d.peers[id]
	if p == nil {
		p = &peer{}
		d.peers[id] = p
	}
	return p
}

func (d *driver) message(from crust.PeerID, data []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.peer(from)
	p.received = append(p.received, data)
	d.answer(p)
}

// lost answers the questions that can no longer be answered well.
func (d *driver) lost(id crust.PeerID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.peer(id)
	for _, q := range p.asked {
		d.out.printf("error the peer is lost and sent %d messages of the %d to verify", len(p.received), q.count)
	}
	p.asked = nil
}

// answer checks what can be checked. The caller holds d.mu.
func (d *driver) answer(p *peer) {
	for len(p.asked) > 0 && len(p.received) >= p.asked[0].count {
		q := p.asked[0]
		p.asked = p.asked[1:]
		wrong := 0
		for _, data := range p.received[:q.count] {
			if string(data) != string(fill(p.checked, q.size)) {
				wrong++
			}
			p.checked++
		}
		p.received = p.received[q.count:]
		if wrong > 0 {
			d.out.printf("error %d of %d messages differ from the pattern", wrong, q.count)
		} else {
			d.out.printf("verified %d", q.count)
		}
	}
}
