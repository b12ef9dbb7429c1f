//go:build linux

package natlab

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/libcrust/libcrust/tests/natsim"
)

// told is what `crust doctor --json` prints, as far as kinds have facts of it.
type told struct {
	UDP, TCP toldFlow
	CGNAT    bool
	Kind     string
	Advice   []string
	Peers    int
}

type toldFlow struct {
	NAT                       string
	Mapping, Filtering, Ports string
	Step                      int
	Low, High                 int
	Double, Near, Blocked     bool
	Hairpin                   *bool
	Confidence                string
	External                  []string
}

// doctor runs `crust doctor` at a, with all public machines as peers.
func doctor(t *testing.T, crust string, l *Lab, k Kind) told {
	t.Helper()
	arguments := []string{"doctor", "--json", "--network", "natlab"}
	for _, m := range l.Public {
		p, err := m.Peer(crust, "--network", "natlab", "--listen", "tcp://[::]:0", "--listen", "utp://[::]:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := p.Stop(); err != nil {
				t.Error(m.Name, err, p)
			}
		})
		var at netip.AddrPort
		for !at.IsValid() {
			e, err := p.Await("listener_started", patience)
			if err != nil {
				t.Fatal(err)
			}
			text, isTCP := strings.CutPrefix(e.Text("endpoint"), "tcp://")
			if !isTCP {
				continue
			}
			if at, err = netip.ParseAddrPort(text); err != nil {
				t.Fatal(err)
			}
		}
		address := m.Addr()
		if k.IPv6 {
			address = m.Addr6()
		}
		arguments = append(arguments, "tcp://"+netip.AddrPortFrom(address, at.Port()).String())
	}
	command := exec.Command(crust, arguments...)
	command.Env = append(os.Environ(), "CRUST_PORTMAP=off", "CRUST_BEACON=off")
	var out, problems bytes.Buffer
	command.Stdout, command.Stderr = &out, &problems
	if err := l.A.Run(command); err != nil {
		t.Fatalf("%v: %s%s", err, out.String(), problems.String())
	}
	var d told
	if err := json.Unmarshal(out.Bytes(), &d); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	if testing.Verbose() {
		t.Log(out.String())
	}
	return d
}

var (
	dependsWords = map[natsim.Depends]string{
		natsim.Independent: "endpoint-independent", natsim.OnAddress: "address-dependent", natsim.OnAddressPort: "address-and-port-dependent",
	}
	// doctorKinds are doctor's words for kinds that have no other.
	doctorKinds = map[string]string{
		"public": "open", "kernel-home": "home", "home": "home", "home-punish": "home", "full-cone": "full-cone", "kernel-full-cone": "full-cone",
		"restricted": "restricted", "symmetric": "symmetric", "kernel-symmetric": "symmetric", "sequential": "sequential", "sequential-down": "sequential",
		"block": "block", "kernel-block": "block", "kernel-firewall": "firewall", "firewall": "firewall", "home-in-sequential": "sequential", "symmetric-address": "symmetric",
	}
)

// fits compares what doctor says of a protocol with a kind's facts.
func (f *toldFlow) fits(want Facts, nated bool) error {
	if want.Blocked {
		if !f.Blocked || len(f.External) != 0 {
			return fmt.Errorf("it does not say that it is blocked")
		}
		return nil
	}
	nat := "no"
	if nated {
		nat = "yes"
	}
	got := fmt.Sprint(f.NAT, f.Mapping, f.Filtering, f.Ports, f.Step, f.Blocked, f.Double, f.Near, f.Confidence)
	if expect := fmt.Sprint(nat, dependsWords[want.Mapping], dependsWords[want.Filtering], string(want.Ports), want.Step, false, false, false, "confirmed"); got != expect {
		return fmt.Errorf("it says %s, want %s", got, expect)
	}
	if measurable := nated && want.Mapping == natsim.Independent; measurable != (f.Hairpin != nil) || measurable && *f.Hairpin != want.Hairpin {
		return fmt.Errorf("hairpin differs")
	}
	if want.Ports == Block && (f.Low == 0 || f.High-f.Low >= 2048) {
		return fmt.Errorf("a block from %d to %d", f.Low, f.High)
	}
	return nil
}

// TestDoctor: crust doctor tells every kind of NAT.
func TestDoctor(t *testing.T) {
	crust, err := Build(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range Kinds {
		t.Run(k.Name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, Config{A: k, B: Kinds[0], Seed: 5, Hops: 8})
			d := doctor(t, crust, l, k)
			nated := l.A.nated()
			want := k.Want
			if strings.HasSuffix(k.Name, "udp-blocked") {
				want = Facts{Blocked: true}
			}
			if err := d.UDP.fits(want, nated); err != nil {
				t.Errorf("UDP: %v: %+v", err, d.UDP)
			}
			want = k.Want
			if want.Filtering != natsim.Independent {
				want.Hairpin = false // nothing was sent to the address from which we come to ourselves
			}
			if err := d.TCP.fits(want, nated); err != nil {
				t.Errorf("TCP: %v: %+v", err, d.TCP)
			}
			if kind := doctorKinds[k.Name]; kind != "" && d.Kind != kind {
				t.Errorf("doctor calls it %q", d.Kind)
			}
			if len(d.Advice) == 0 || d.CGNAT || d.Peers != publics {
				t.Errorf("%+v", d)
			}
		})
	}
}
