package portmap

import (
	"net/netip"
	"os/exec"
	"testing"
	"time"

	lab "github.com/libcrust/libcrust/tests/portmap"
)

// A port at one address is asked for from that address, and others from the one
// that the interface has for them; an address that is not there asks for nothing.
func TestBoundAddress(t *testing.T) {
	l := newLab(t)
	start(t, l)
	if err := exec.Command("ip", "addr", "add", lab.Neighbour+"/24", "dev", "eth0").Run(); err != nil {
		t.Fatal(err)
	}
	client := newClient(t, Config{})
	client.Want(
		Want{Protocol: TCP, Port: 45000, Addr: netip.MustParseAddr(lab.Neighbour)},
		Want{Protocol: UDP, Port: 45001, Family: IPv4},
		Want{Protocol: UDP, Port: 45002, Addr: netip.MustParseAddr(lab.Host)},
		Want{Protocol: UDP, Port: 45003, Addr: netip.MustParseAddr("192.168.77.99")},
	)
	got := client.await(t, 8*time.Second, "map", count(3))
	for i, want := range []string{lab.Neighbour + ":45000", lab.Host + ":45001", lab.Host + ":45002"} {
		if got[i].Internal.String() != want {
			t.Errorf("mapped %+v, want %s", got[i], want)
		}
	}
	reach(t, l, got)
	client.Want()
	client.await(t, 5*time.Second, "give all back", count(0))
	clean(t, l)
}

// What is not wanted any more at the very end is given back, too.
func TestWantLessAndClose(t *testing.T) {
	for _, without := range [][]Means{{IGD2}, {PCP, NATPMP}} {
		l := newLab(t)
		start(t, l)
		for i := range 24 {
			client := newClient(t, Config{Without: without})
			client.Want(both...)
			client.await(t, 5*time.Second, "map", count(2))
			client.Want(both[1+i%2:]...)
			pause(time.Duration(i) * 100 * time.Microsecond) // what a request takes
			client.Close()
			clean(t, l)
		}
		l.Close()
	}
}
