//go:build linux

// Package segments lets peers of three network segments find each other, in network
// namespaces.
//
//	L1 10.71.1.0/24 ── router, with a peer ── L2 10.71.2.0/24 ── router, with a peer ── L3 10.71.3.0/24
//
// Beacons stop at the routers. A peer on each is in two segments, and hears and is
// heard in both; that is all that joins them. Every peer connects to a few whose beacons
// it hears, as a program would, and gets to know the others by gossip.
package segments

import (
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libcrust/libcrust/tests/linklab"
	"github.com/libcrust/libcrust/tests/natlab"
)

const (
	perSegment = 3
	// few is to how many of those whose beacons it hears a peer connects.
	few = 3
	// patience is for a machine that has much else to do. In virtual time core's
	// TestThreeSegments holds it to 5 s.
	patience = 60 * time.Second
)

// place is a machine with a peer.
type place struct {
	name     string
	segments []int
	*natlab.Machine

	peer  *natlab.Peer
	seen  int             // of the peer's events
	tried map[string]bool // peers that it was told to connect to
	heard map[string]bool // by beacon
	known map[string]bool // and by gossip, or connected
	up    map[string]bool // connected
	dials bool
}

func TestThreeSegments(t *testing.T) {
	t.Setenv("CRUST_BEACON", "") // they are alone in their namespaces
	t.Setenv("CRUST_PORTMAP", "off")
	program, err := natlab.Build(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	places := build(t)
	began := time.Now()
	byID := map[string]*place{}
	for _, p := range places {
		peer, err := p.Peer(program, "--network", "segments", "--listen", "tcp://0.0.0.0:0", "--listen", "utp://0.0.0.0:0")
		if err != nil {
			t.Fatal(err)
		}
		p.peer, byID[peer.ID] = peer, p
	}
	started := time.Since(began)
	var knew, all time.Duration
	for all == 0 {
		if time.Since(began) > patience {
			for _, p := range places {
				t.Errorf("%s: %d known, %d connected, of %d\n%s", p.name, len(p.known), len(p.up), len(places)-1, p.peer)
			}
			t.FailNow()
		}
		known, up := true, true
		for _, p := range places {
			p.listen()
			known = known && len(p.known) == len(places)-1
			up = up && len(p.up) == len(places)-1
		}
		if known && knew == 0 {
			knew = time.Since(began)
		}
		for _, p := range places {
			if knew > 0 && !p.dials {
				p.dials = true
				for id := range byID {
					if id != p.peer.ID && !p.up[id] {
						if err := p.peer.Tell("dial %s", id); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
		}
		if up {
			all = time.Since(began)
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Logf("%d peers: started after %v, all knew all after %v, all were connected to all after %v", len(places), started, knew, all)
	for _, p := range places {
		for id := range p.heard {
			if other := byID[id]; !slices.ContainsFunc(p.segments, func(s int) bool { return slices.Contains(other.segments, s) }) {
				t.Errorf("a beacon of %s was heard by %s, which is in another segment", other.name, p.name)
			}
		}
	}
	for _, p := range places {
		if err := p.peer.Stop(); err != nil {
			t.Errorf("%s: %v", p.name, err)
		}
	}
}

// listen takes what the peer has printed, and has it connect to a few that it hears.
func (p *place) listen() {
	events := p.peer.Events()
	for _, e := range events[p.seen:] {
		id := e.Text("peer")
		switch e.Name() {
		case "discovered":
			p.known[id] = true
			if e.Text("by") != "beacon" {
				continue
			}
			p.heard[id] = true
			if len(p.tried) < few && !p.tried[id] {
				p.tried[id] = true
				_ = p.peer.Tell("connect %s#%s", e.Text("endpoint"), id) // its end shows in the events
			}
		case "connected":
			p.known[id], p.up[id] = true, true
		case "lost":
			delete(p.up, id)
		}
	}
	p.seen = len(events)
}

// build makes the namespaces.
func build(t *testing.T) (places []*place) {
	t.Helper()
	wires := namespace(t)
	must(t, wires, `ip link set lo up
		for i in 1 2 3; do ip link add L$i type bridge; ip link set L$i up; done`)
	router := func(name string, segments []int, addrs map[int]string, route string) {
		p := &place{name: name, segments: segments}
		places = append(places, p)
		p.plug(t, wires, addrs)
		must(t, p.Namespace, "echo 1 >/proc/sys/net/ipv4/ip_forward\nip route add "+route)
	}
	router("router12", []int{1, 2}, map[int]string{1: "10.71.1.1", 2: "10.71.2.1"}, "10.71.3.0/24 via 10.71.2.2")
	router("router23", []int{2, 3}, map[int]string{2: "10.71.2.2", 3: "10.71.3.1"}, "10.71.1.0/24 via 10.71.2.1")
	routes := map[int]string{
		1: "ip route add default via 10.71.1.1", 3: "ip route add default via 10.71.3.1",
		2: "ip route add 10.71.1.0/24 via 10.71.2.1\nip route add 10.71.3.0/24 via 10.71.2.2",
	}
	for segment := 1; segment <= 3; segment++ {
		for i := range perSegment {
			p := &place{name: fmt.Sprintf("peer %d of L%d", i+1, segment), segments: []int{segment}}
			places = append(places, p)
			p.plug(t, wires, map[int]string{segment: fmt.Sprintf("10.71.%d.%d", segment, i+10)})
			must(t, p.Namespace, routes[segment])
		}
	}
	return places
}

// plug gives a place a namespace with an interface in each of its segments.
func (p *place) plug(t *testing.T, wires *linklab.Namespace, addrs map[int]string) {
	t.Helper()
	p.tried, p.heard, p.known, p.up = map[string]bool{}, map[string]bool{}, map[string]bool{}, map[string]bool{}
	p.Machine = &natlab.Machine{Name: p.name, Namespace: namespace(t)}
	must(t, p.Namespace, "ip link set lo up")
	for _, segment := range slices.Sorted(maps.Keys(addrs)) {
		end := "v" + strings.ReplaceAll(strings.TrimPrefix(addrs[segment], "10.71."), ".", "x")
		must(t, p.Namespace, fmt.Sprintf(`ip link add eth%[1]d type veth peer name %[2]s netns %[3]s
			ip address add %[4]s/24 broadcast + dev eth%[1]d
			ip link set eth%[1]d up`, segment, end, wires.Path(), addrs[segment]))
		must(t, wires, fmt.Sprintf("ip link set %[1]s master L%[2]d\nip link set %[1]s up", end, segment))
		must(t, p.Namespace, fmt.Sprintf("for i in $(seq 500); do ip -o link show dev eth%d | grep -q 'state UP' && exit 0; sleep 0.01; done; exit 1", segment))
	}
}

func namespace(t *testing.T) *linklab.Namespace {
	t.Helper()
	n, err := linklab.NewNamespace()
	if errors.Is(err, linklab.ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	return n
}

// must runs commands in a namespace.
func must(t *testing.T, n *linklab.Namespace, commands string) {
	t.Helper()
	command := exec.Command("sh", "-ec", commands)
	var said strings.Builder
	command.Stdout, command.Stderr = &said, &said
	err := n.Run(command)
	for _, refusal := range []string{"not found", "not permitted", "not supported", "Unknown device type"} {
		if err != nil && strings.Contains(said.String(), refusal) {
			t.Skip(said.String())
		}
	}
	if err != nil {
		t.Fatalf("%s: %v: %s", commands, err, said.String())
	}
}
