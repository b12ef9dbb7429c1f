//go:build linux

package natlab

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/libcrust/libcrust/tests/linklab"
	"github.com/libcrust/libcrust/tests/natsim"
)

func newLab(t *testing.T, c Config) *Lab {
	t.Helper()
	l, err := New(c)
	if errors.Is(err, linklab.ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// TestKindsAreWhatTheySay proves each kind of NAT by measurement.
func TestKindsAreWhatTheySay(t *testing.T) {
	for _, k := range Kinds {
		t.Run(k.Name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, Config{A: k, B: Kinds[0], Seed: 5})
			udp, tcp, err := l.Measure(l.A)
			if err != nil {
				t.Fatal(err)
			}
			wantUDP, wantTCP := k.Want, k.Want
			if strings.HasSuffix(k.Name, "udp-blocked") {
				wantUDP = Facts{Blocked: true}
			}
			if wantTCP.Strangers == Polluted {
				wantTCP.Strangers = Refused // a refused SYN leaves nothing
			}
			if wantTCP.Strangers == Punished {
				wantTCP.Strangers = Dropped
			}
			wantTCP.Hairpin = false // not measured
			if udp != wantUDP {
				t.Errorf("UDP:\n%+v, want\n%+v", udp, wantUDP)
			}
			if tcp != wantTCP {
				t.Errorf("TCP:\n%+v, want\n%+v", tcp, wantTCP)
			}
		})
	}
}

func named(t *testing.T, name string) Kind {
	t.Helper()
	k, err := ByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// echo returns from where a datagram of one machine arrives at another.
func echo(t *testing.T, l *Lab, from *net.UDPConn, at *Machine) netip.AddrPort {
	t.Helper()
	socket, err := at.ListenUDP(netip.AddrPortFrom(at.Addr(), 0))
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	source, err := seen(from, socket)
	if err != nil {
		t.Fatal(err)
	}
	return source
}

func socketAt(t *testing.T, m *Machine) *net.UDPConn {
	t.Helper()
	c, err := m.ListenUDP(netip.AddrPortFrom(m.Addr(), 0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestNeighbours: two machines behind one NAT see each other, and share its address.
func TestNeighbours(t *testing.T) {
	for _, name := range []string{"kernel-home", "home", "home-in-carrier"} {
		l := newLab(t, Config{A: named(t, name), Same: true})
		a, b := socketAt(t, l.A), socketAt(t, l.B)
		if from := echo(t, l, a, l.B); from != addrOf(a) {
			t.Errorf("%s: the neighbour comes from %v, not %v", name, from, addrOf(a))
		}
		one, other := echo(t, l, a, l.Public[0]), echo(t, l, b, l.Public[0])
		if one.Addr() != other.Addr() || one == other || one.Addr() != l.A.Public() || l.B.Public() != l.A.Public() {
			t.Errorf("%s: they come from %v and %v, by %v and %v", name, one, other, l.A.Public(), l.B.Public())
		}
	}
}

// TestReboot: a NAT that has forgotten lets in nobody who was let in before.
func TestReboot(t *testing.T) {
	for name, address := range map[string]bool{"kernel-home": false, "kernel-full-cone": false, "home": false, "full-cone": true} {
		l := newLab(t, Config{A: named(t, name), B: named(t, "public")})
		from, at := socketAt(t, l.A), socketAt(t, l.Public[0])
		external, err := seen(from, at)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := arrives(at, external, from, quiet); err != nil || !back.IsValid() {
			t.Errorf("%s: no answer arrives, %v", name, err)
		}
		if err := l.Reboot(l.A, address); err != nil {
			t.Fatal(err)
		}
		if back, err := arrives(at, external, from, quiet); err != nil || back.IsValid() {
			t.Errorf("%s: an answer arrives after a reboot, %v", name, err)
		}
		if again, err := seen(from, at); err != nil || (again.Addr() != external.Addr()) != address {
			t.Errorf("%s: it comes from %v, before from %v, %v", name, again, external, err)
		}
		if l.Reboot(l.B, false) == nil || l.Reboot(l.Public[0], false) == nil {
			t.Error("a public host was rebooted")
		}
	}
}

func TestForward(t *testing.T) {
	l := newLab(t, Config{A: named(t, "symmetric"), B: named(t, "kernel-home")})
	at, from := socketAt(t, l.A), socketAt(t, l.B)
	if err := l.Forward(l.A, natsim.UDP, 4000, addrOf(at)); err != nil {
		t.Fatal(err)
	}
	source, err := arrives(from, netip.AddrPortFrom(l.A.Public(), 4000), at, patience)
	if err != nil || source.Addr() != l.B.Public() {
		t.Errorf("through a forward comes %v, %v", source, err)
	}
	if l.Forward(l.B, natsim.UDP, 4000, addrOf(from)) == nil {
		t.Error("a kernel's router forwards")
	}
}

// TestPeers lets a peer behind a NAT talk to a public one.
func TestPeers(t *testing.T) {
	crust, err := Build(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	l := newLab(t, Config{A: named(t, "kernel-home"), B: named(t, "public")})
	start := func(m *Machine) *Peer {
		p, err := m.Peer(crust, "--network", "natlab", "--listen", "tcp://0.0.0.0:0", "--listen", "utp://0.0.0.0:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := p.Stop(); err != nil {
				t.Error(err)
			}
		})
		return p
	}
	a, b := start(l.A), start(l.B)
	await := func(p *Peer, name string, fields ...string) Event {
		e, err := p.Await(name, 4*patience, fields...)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	tell := func(p *Peer, format string, arguments ...any) {
		if err := p.Tell(format, arguments...); err != nil {
			t.Fatal(err)
		}
	}
	tell(b, "info")
	tell(a, "connect %s", await(b, "info").Text("info"))
	await(a, "connected", "peer", b.ID)
	if e := await(b, "connected", "peer", a.ID); !strings.Contains(e.Text("endpoint"), l.A.Public().String()) {
		t.Errorf("it comes from %v, not from %v", e, l.A.Public())
	}
	tell(b, "send %s hello", a.ID)
	await(a, "message", "peer", b.ID, "text", "hello")
	if _, err := a.Await("no such event", quiet); err == nil || !strings.Contains(err.Error(), "connected") {
		t.Errorf("waiting in vain says %v", err)
	}
}
