//go:build linux

// Package lan_test lets services discover each other on networks of the kernel: network
// namespaces that a bridge joins.
package lan_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/libcrust/libcrust/tests/linklab"
)

// runs is how often each discovery is tried: CRUST_LAN_RUNS, 2 unless set.
func runs(t *testing.T) int {
	text := os.Getenv("CRUST_LAN_RUNS")
	if text == "" {
		return 2
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("CRUST_LAN_RUNS is %q, want a number", text)
	}
	return n
}

// network is a bridge and machines at it.
type network struct {
	t        *testing.T
	bridge   *linklab.Namespace
	machines []*linklab.Namespace
}

// sh runs commands in a namespace.
func sh(t *testing.T, n *linklab.Namespace, commands string) {
	t.Helper()
	command := exec.Command("sh", "-ec", commands)
	var out strings.Builder
	command.Stdout, command.Stderr = &out, &out
	if err := n.Run(command); err != nil {
		t.Fatalf("%s: %v: %s", commands, err, out.String())
	}
}

// namespace makes one that ends with the test.
func namespace(t *testing.T) *linklab.Namespace {
	t.Helper()
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip(err)
	}
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

// newNetwork makes a bridge without machines.
func newNetwork(t *testing.T) *network {
	n := &network{t: t, bridge: namespace(t)}
	sh(t, n.bridge, `echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6
		ip link add lan type bridge
		ip link set lan up`)
	return n
}

// machine adds a machine with an IPv4 address, IPv6 (link-local addresses alone), or both;
// up says whether its interface is up.
func (n *network) machine(four, six, up bool) *linklab.Namespace {
	n.t.Helper()
	m := namespace(n.t)
	number := len(n.machines) + 1
	n.machines = append(n.machines, m)
	commands := "ip link set lo up\n"
	if six { // addresses can be used at once
		commands += "echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad\n"
	} else {
		commands += "echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6\necho 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6\n"
	}
	commands += fmt.Sprintf("ip link add eth0 type veth peer name lan%d netns %s\n", number, n.bridge.Path())
	if four {
		commands += fmt.Sprintf("ip addr add 10.77.0.%d/24 dev eth0\n", number)
	}
	sh(n.t, m, commands)
	sh(n.t, n.bridge, fmt.Sprintf("ip link set lan%d master lan\nip link set lan%d up", number, number))
	if up {
		sh(n.t, m, "ip link set eth0 up\n"+await("eth0"))
		sh(n.t, n.bridge, await("lan"))
		if six {
			usable(n.t, m)
		}
	}
	return m
}

// await returns commands that wait until the kernel sends by an interface, which it may
// do up to a second after it was told to.
func await(name string) string {
	return "for i in $(seq 500); do ip -o link show dev " + name + " | grep -q 'state UP' && exit 0; sleep 0.01; done; echo " + name + " does not come up; exit 1"
}

// usable waits until a machine's link-local address can be used.
func usable(t *testing.T, m *linklab.Namespace) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		command := exec.Command("ip", "-6", "addr", "show", "dev", "eth0", "scope", "link", "-tentative")
		var out strings.Builder
		command.Stdout = &out
		if err := m.Run(command); err == nil && strings.Contains(out.String(), "fe80::") {
			return
		} else if time.Now().After(end) {
			t.Fatalf("there is no link-local address: %v %s", err, out.String())
		}
	}
}

// took says how long discoveries took.
type took []float64

func (d took) String() string {
	s := slices.Sorted(slices.Values(d))
	return fmt.Sprintf("%d discoveries: median %.0f ms, most %.0f ms", len(s), s[len(s)/2], s[len(s)-1])
}

// judge says how long they took, and when they were asked for whether that is too long:
// otherwise the machine may be busy with other tests.
func (d took) judge(t *testing.T) {
	t.Log(d)
	if median := slices.Sorted(slices.Values(d))[len(d)/2]; median > 1000 && os.Getenv("CRUST_LAN_RUNS") != "" {
		t.Errorf("a median of %.0f ms is over a second", median)
	}
}

// meet has two peers, of which the first is there, discover each other, and returns how
// long that took each from when the second one began, and where the second one is.
func meet(t *testing.T, first, second *peer) (d took, at string) {
	t.Helper()
	for _, pair := range [][2]*peer{{second, first}, {first, second}} {
		e := pair[0].await("discovered", pair[1].id)
		if e.By != "beacon" || e.Endpoint == "" {
			t.Errorf("discovered: %+v", e)
		}
		d, at = append(d, e.At-second.began), e.Endpoint
	}
	return d, at
}

// pause lets the first of two have said its first hello in every other run, so that it is
// heard by its answer to the second one.
func pause(run int) { time.Sleep(time.Duration(run%2) * 300 * time.Millisecond) }

// TestSegment: two machines of one network, for each family and both: each discovers the
// other, and can connect to where it has discovered it; when one ends, the other is told.
// A peer of another network name neither hears nor is heard.
func TestSegment(t *testing.T) {
	for name, family := range map[string][2]bool{"IPv4": {true, false}, "IPv6": {false, true}, "both": {true, true}} {
		t.Run(name, func(t *testing.T) {
			n := newNetwork(t)
			a, b := n.machine(family[0], family[1], true), n.machine(family[0], family[1], true)
			stranger := start(t, a, "another")
			var all took
			for run := range runs(t) {
				first := start(t, a, "lan")
				pause(run)
				second := start(t, b, "lan")
				d, at := meet(t, first, second)
				all = append(all, d...)
				first.say("connect %s#%s", at, second.id)
				if e := first.await("connected", second.id); e.Endpoint != at {
					t.Errorf("connected at %s, want %s", e.Endpoint, at)
				}
				second.end()
				if e := first.await("forgotten", second.id); e.By != "beacon" {
					t.Errorf("forgotten: %+v", e)
				}
				first.end()
			}
			stranger.end()
			if e, found := stranger.has("discovered"); found {
				t.Errorf("a peer of another network name has discovered %+v", e)
			}
			all.judge(t)
		})
	}
}

// TestHost: two on one machine, in two processes and in one; also where the machine has no
// network but its own, and where they listen at loopback addresses alone.
func TestHost(t *testing.T) {
	n := newNetwork(t)
	offline := namespace(t)
	sh(t, offline, "ip link set lo up")
	for name, c := range map[string]struct {
		machine *linklab.Namespace
		listen  []string
	}{
		"with a network": {n.machine(true, true, true), nil},
		"offline":        {offline, nil},
		"loopback":       {offline, []string{"tcp://127.0.0.1:0"}},
	} {
		t.Run(name, func(t *testing.T) {
			var all took
			for run := range runs(t) {
				first := start(t, c.machine, "lan", c.listen...)
				pause(run)
				second := start(t, c.machine, "lan", c.listen...)
				d, _ := meet(t, first, second)
				all = append(all, d...)
				second.say("another") // in the same process
				third := second.await("started", "")
				for _, e := range []event{
					first.await("discovered", third.Peer), second.await("discovered", third.Peer),
					second.await("discovered", first.id), second.await("discovered", second.id),
				} {
					if e.By != "beacon" || e.Endpoint == "" || e.Peer != third.Peer && e.Self != third.Peer {
						t.Errorf("discovered: %+v", e)
					}
					all = append(all, e.At-third.At)
				}
				first.end()
				second.end()
			}
			all.judge(t)
		})
	}
}

// TestInterface: an interface that comes up later is noticed, and so is that it goes.
func TestInterface(t *testing.T) {
	n := newNetwork(t)
	a, b := n.machine(true, false, true), n.machine(true, false, false)
	first, second := start(t, a, "lan"), start(t, b, "lan")
	time.Sleep(300 * time.Millisecond) // it has begun without a network
	if e, found := second.has("discovered"); found {
		t.Errorf("discovered without a network: %+v", e)
	}
	sh(t, b, "ip link set eth0 up")
	for _, pair := range [][2]*peer{{first, second}, {second, first}} {
		pair[0].await("discovered", pair[1].id)
	}
	sh(t, b, "ip link set eth0 down")
	second.await("forgotten", first.id)
	second.end()
	first.end()
}
