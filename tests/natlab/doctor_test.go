//go:build linux

package natlab

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/tests/linklab"
	"github.com/libcrust/libcrust/tests/natlab/sites"
	"github.com/libcrust/libcrust/tests/natsim"
)

// told is what `crust doctor --json` prints, as far as kinds have facts of it.
type told struct {
	UDP, TCP     toldFlow
	CGNAT        bool
	Kind, Health string
	Advice       []string
	Peers        int
	Mapped       []struct {
		Endpoint *string
		Means    string
		Lease    float64 `json:"lease_ms"`
		Error    string
	}
	Expect  []struct{ Peer, Way string }
	Helpers []struct{ Contact, Peer, Code, Error string }
	Seen    []struct {
		Peer, Endpoint string
		From           netip.AddrPort
	}
	Interfaces []struct {
		Name      string
		MTU       int
		Out       bool
		Addresses []struct{ Address, Scope string }
	}
	MTU struct {
		Interface, Path int
		To              string
		Confirmed       bool
	}
	Clock struct {
		Time         string
		Synchronized *bool
		Plausible    bool
	}

	exit int
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
	command.Env = environment("off")
	if k.Mapper != "" {
		command.Env = environment("") // the router in the laboratory may be asked
	}
	return listen(t, l.A.Namespace, command)
}

// environment is ours, but for what it says of routers.
func environment(portMap string) []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "CRUST_PORTMAP=") })
	return append(env, "CRUST_PORTMAP="+portMap, "CRUST_BEACON=off")
}

// listen runs a doctor with --json in a namespace, and returns what it says. Its exit
// code must be that of what it says.
func listen(t *testing.T, n *linklab.Namespace, command *exec.Cmd) told {
	t.Helper()
	var out, problems bytes.Buffer
	command.Stdout, command.Stderr = &out, &problems
	var exit *exec.ExitError
	if err := n.Run(command); err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v: %s%s", err, out.String(), problems.String())
	}
	d := told{exit: command.ProcessState.ExitCode()}
	if err := json.Unmarshal(out.Bytes(), &d); err != nil || problems.Len() > 0 {
		t.Fatalf("%v: %s%s", err, out.String(), problems.String())
	}
	if testing.Verbose() {
		t.Log(out.String())
	}
	if want, ok := map[string]int{"healthy": 0, "limited": 3, "broken": 4}[d.Health]; !ok || d.exit != want || len(d.Advice) == 0 {
		t.Errorf("health %q, exit code %d, advice %q", d.Health, d.exit, d.Advice)
	}
	return d
}

// words say what a flow is like, without what differs from run to run.
func (f *toldFlow) words() string {
	switch {
	case f.Blocked:
		return "blocked"
	case f.NAT == "no":
		return "no NAT, filtering " + f.Filtering
	}
	text := "mapping " + f.Mapping + ", filtering " + f.Filtering + ", ports " + f.Ports
	if f.Step != 0 {
		text += fmt.Sprintf(" by %+d", f.Step)
	}
	if f.Hairpin != nil && *f.Hairpin {
		text += ", hairpin"
	}
	return text
}

// row is what is recorded of it.
func (d *told) row(k Kind) sites.Row {
	r := sites.Row{Site: k.Name, Kind: d.Kind, Health: d.Health, Code: d.exit, UDP: d.UDP.words(), TCP: d.TCP.words(), Expect: map[string]string{}}
	for _, m := range d.Mapped {
		if m.Endpoint != nil { // through which others come or not, as they happen to: that is no fact of the NAT
			r.Mapped, r.UDP, r.TCP = m.Means, "mapping "+d.UDP.Mapping, "mapping "+d.TCP.Mapping
		}
	}
	for _, x := range d.Expect {
		r.Expect[x.Peer] = x.Way
	}
	return r
}

var (
	dependsWords = map[natsim.Depends]string{
		natsim.Independent: "endpoint-independent", natsim.OnAddress: "address-dependent", natsim.OnAddressPort: "address-and-port-dependent",
	}
	// doctorKinds are doctor's words for kinds that have no other.
	doctorKinds = map[string]string{
		"public": "open", "kernel-home": "home", "home": "home", "home-punish": "home", "full-cone": "full-cone", "kernel-full-cone": "full-cone",
		"restricted": "restricted", "symmetric": "symmetric", "kernel-symmetric": "symmetric", "sequential": "sequential", "sequential-down": "sequential",
		"kernel-symmetric-upnp": "mapped", "kernel-symmetric-nat-pmp": "mapped", "kernel-symmetric-pcp": "mapped",
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

// fitsSite compares what doctor says of the machine and of what it can expect with the
// laboratory.
func (d *told) fitsSite(l *Lab, k Kind) error {
	if d.exit != map[bool]int{true: 0, false: 3}[k.direct()] {
		return fmt.Errorf("exit code %d", d.exit)
	}
	out := 0
	for _, i := range d.Interfaces {
		if i.Out {
			out = i.MTU
			if !slices.ContainsFunc(i.Addresses, func(a struct{ Address, Scope string }) bool {
				return strings.HasPrefix(a.Address, l.A.Addr().String()+"/") || k.IPv6 && strings.HasPrefix(a.Address, l.A.Addr6().String()+"/")
			}) {
				return fmt.Errorf("interfaces %+v", d.Interfaces)
			}
		}
	}
	if out == 0 || d.MTU.Interface != out || d.MTU.Path < 1280 || d.MTU.Path > out {
		return fmt.Errorf("MTU %+v of interfaces %+v", d.MTU, d.Interfaces)
	}
	for _, h := range d.Helpers {
		if h.Code != "ok" || h.Peer == "" {
			return fmt.Errorf("helper %+v", h)
		}
	}
	if len(d.Helpers) != publics || len(d.Seen) < publics || !d.Clock.Plausible || d.Clock.Synchronized == nil {
		return fmt.Errorf("helpers %+v, seen %+v, clock %+v", d.Helpers, d.Seen, d.Clock)
	}
	for _, s := range d.Seen {
		at, err := crust.ParseEndpoint(s.Endpoint)
		if err != nil || !k.IPv6 && at.Addr.Addr() != l.A.Public() || k.IPv6 && at.Addr.Addr() != l.A.Addr6() {
			return fmt.Errorf("seen %+v, at %v", s, l.A.Public())
		}
	}
	for _, m := range d.Mapped {
		if m.Endpoint == nil || m.Lease <= 0 || m.Error != "" || !strings.Contains(k.Name, strings.SplitN(m.Means, "-igd", 2)[0]) {
			return fmt.Errorf("mapped %+v", m)
		}
	}
	if (k.Mapper != "") != (len(d.Mapped) > 0) {
		return fmt.Errorf("%d ports are mapped", len(d.Mapped))
	}
	return nil
}

// direct reports whether others reach a machine in a site of this kind.
func (k Kind) direct() bool {
	return k.Mapper != "" || k.Want.Filtering == natsim.Independent
}

// expects returns how a machine in a site of this kind meets those of others, by what
// packets have shown of the NAT.
func (k Kind) expects(peer string) string {
	class := map[Ports]string{Preserving: "home", Sequential: "sequential", Block: "block", Random: "symmetric"}[k.Want.Ports]
	switch {
	case k.direct() || peer == "reachable":
		return "direct"
	case class == "home" || peer == "home" || class == "sequential" && peer == "sequential":
		return "punched"
	}
	return "relayed"
}

// TestDoctor: crust doctor tells every kind of NAT, and what docs/DOCTOR.md says that
// it tells.
func TestDoctor(t *testing.T) {
	crust, err := Build(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	recorded, err := sites.Read("../../" + sites.Recorded)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var rows []sites.Row
	if name := os.Getenv("CRUST_DOCTOR_OUT"); name != "" {
		t.Cleanup(func() {
			if err := sites.Write(name, rows); err != nil {
				t.Error(err)
			}
		})
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
			if err := d.UDP.fits(want, nated); err != nil && k.Mapper == "" { // through a mapped port everybody is let in
				t.Errorf("UDP: %v: %+v", err, d.UDP)
			}
			want = k.Want
			if want.Filtering != natsim.Independent {
				want.Hairpin = false // nothing was sent to the address from which we come to ourselves
			}
			if err := d.TCP.fits(want, nated); err != nil && k.Mapper == "" {
				t.Errorf("TCP: %v: %+v", err, d.TCP)
			}
			if kind := doctorKinds[k.Name]; kind != "" && d.Kind != kind {
				t.Errorf("doctor calls it %q", d.Kind)
			}
			if d.CGNAT || d.Peers != publics {
				t.Errorf("%+v", d)
			}
			if err := d.fitsSite(l, k); err != nil {
				t.Error(err)
			}
			row := d.row(k)
			for _, peer := range sites.Peers {
				if row.Expect[peer] != k.expects(peer) {
					t.Errorf("of a peer that is %s it expects to be %q, want %q", peer, row.Expect[peer], k.expects(peer))
				}
			}
			if i := slices.IndexFunc(recorded, func(r sites.Row) bool { return r.Site == k.Name }); i < 0 || !recorded[i].Equal(row) {
				t.Errorf("%s does not say so: %+v", sites.Document, row)
			}
			mu.Lock()
			defer mu.Unlock()
			rows = append(rows, row)
		})
	}
}

// TestDoctorNarrow: where a router on the way has a smaller MTU, doctor says which.
func TestDoctorNarrow(t *testing.T) {
	crust, err := Build(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	k := named(t, "kernel-home")
	l := newLab(t, Config{A: k, B: Kinds[0], Seed: 5, Hops: 8})
	if err := shell(l.A.side.host.Namespace(), "ip link set "+outside+" mtu 1400", ""); err != nil {
		t.Fatal(err)
	}
	if d := doctor(t, crust, l, k); d.MTU.Interface != 1500 || d.MTU.Path != 1400 || d.Kind != "home" {
		t.Errorf("%q, MTU %+v", d.Kind, d.MTU)
	}
}
