package natlab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/libcrust/libcrust/tests/linklab"
	"github.com/libcrust/libcrust/tests/natsim"
)

// Config describes a laboratory: sides "a" and "b", and six public hosts in different
// networks, by the first 16 bits of IPv4 and the first 32 of IPv6.
type Config struct {
	A, B Kind
	// Same puts b behind the NAT of a, beside it. B is not used.
	Same bool
	// OneCarrier puts the NAT of b behind the carrier's of a.
	OneCarrier bool
	// Chain is how many more hosts there are, each behind a NAT as "home" is.
	Chain int
	// Delay is of each link to the middle, in each direction: from side to side it
	// takes twice as long. Zero means 10 ms.
	Delay time.Duration
	// Hops is how many routers of others are between two links.
	Hops int
	Seed uint64
}

const (
	defaultDelay = 10 * time.Millisecond
	publics      = 6
	outside      = "link0" // a kernel router's interfaces
	inside       = "lan"
)

// Machine is a host of a laboratory: where programs run.
type Machine struct {
	Name string
	*linklab.Namespace
	addr netip.Addr
	six  netip.Addr
	side *side
}

// Addr is the IPv4 address of the machine's interface, Addr6 the IPv6 address, which is
// not valid if it has none, and Public the IPv4 address by which others see it now.
func (m *Machine) Addr() netip.Addr  { return m.addr }
func (m *Machine) Addr6() netip.Addr { return m.six }
func (m *Machine) Public() netip.Addr {
	if m.side == nil {
		return m.addr
	}
	return m.side.public()
}

// side is the NAT before a machine.
type side struct {
	kind Kind
	host *linklab.Host      // the machine itself, or the kernel's router
	own  *linklab.Namespace // the machine behind a kernel's router
}

func (s *side) public() netip.Addr { return s.host.Public() }

// Lab is a laboratory at work.
type Lab struct {
	A, B   *Machine
	Public [publics]*Machine
	Chain  []*Machine
	links  *linklab.Lab
	spaces []*linklab.Namespace
}

// New builds a laboratory and starts it. The error wraps linklab.ErrUnavailable where
// the machine forbids what it needs, or has no nft or ip. Close ends it.
func New(c Config) (*Lab, error) {
	if c.Delay == 0 {
		c.Delay = defaultDelay
	}
	way := linklab.Shape{Delay: c.Delay}
	links := linklab.Config{Seed: c.Seed, Hops: c.Hops}
	kinds := []Kind{c.A, c.B}
	if c.Same {
		kinds = kinds[:1]
	}
	for i, k := range kinds {
		above := ""
		if c.OneCarrier && i > 0 {
			above = "carrier-a"
		}
		if err := addSide(&links, k, string(rune('a'+i)), above, c.Same, way); err != nil {
			return nil, fmt.Errorf("%s: %w", k.Name, err)
		}
	}
	for i := range c.Chain {
		if err := addSide(&links, Kind{Words: "home"}, chained(i), "", false, way); err != nil {
			return nil, err
		}
	}
	for i := range publics {
		links.Hosts = append(links.Hosts, linklab.HostConfig{
			Name: fmt.Sprint("public", i), Up: way, Down: way,
			Addr:  netip.AddrFrom4([4]byte{23, byte(i + 1), 0, 1}),
			Addr6: netip.AddrFrom16([16]byte{0: 0x2a, 1: 1, 2: byte(i + 1), 15: 1}),
		})
	}
	lab, err := linklab.New(links)
	if err != nil {
		return nil, err
	}
	l := &Lab{links: lab}
	for i := range publics {
		h := lab.Host(fmt.Sprint("public", i))
		l.Public[i] = &Machine{Name: h.Name(), Namespace: h.Namespace(), addr: h.Addr(), six: h.Addr6()}
	}
	for i := range c.Chain {
		m, err := l.machine(chained(i), Kind{Words: "home"}, nil)
		if err != nil {
			return nil, errors.Join(err, l.Close())
		}
		l.Chain = append(l.Chain, m)
	}
	if err := l.sides(c); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// chained names a host of the chain.
func chained(i int) string { return fmt.Sprint("chain", i) }

// addSide adds what a side needs of linklab, behind a router that is there already if
// above names one. With same there is a second host.
func addSide(links *linklab.Config, k Kind, name, above string, same bool, way linklab.Shape) error {
	near, far := way, linklab.Shape{}
	outer := above
	if above != "" {
		near = far
	}
	if k.Carrier != "" {
		nat, err := linklab.ParseNAT(strings.Fields(k.Carrier)...)
		if err != nil {
			return err
		}
		outer = "carrier-" + name
		links.Routers = append(links.Routers, linklab.RouterConfig{Name: outer, NAT: *nat, Up: way, Down: way})
		near = far
	}
	if k.Words == "" {
		links.Hosts = append(links.Hosts, linklab.HostConfig{Name: name, Up: near, Down: near, Behind: outer})
		if same && k.Rules == "" {
			links.Hosts = append(links.Hosts, linklab.HostConfig{Name: "b", Up: near, Down: near, Behind: outer})
		}
		return nil
	}
	nat, err := linklab.ParseNAT(strings.Fields(k.Words)...)
	if err != nil {
		return err
	}
	links.Routers = append(links.Routers, linklab.RouterConfig{Name: "nat-" + name, NAT: *nat, Up: near, Down: near, Behind: outer})
	links.Hosts = append(links.Hosts, linklab.HostConfig{Name: name, Behind: "nat-" + name})
	if same {
		links.Hosts = append(links.Hosts, linklab.HostConfig{Name: "b", Behind: "nat-" + name})
	}
	return nil
}

// sides makes the machines of both sides.
func (l *Lab) sides(c Config) (err error) {
	if l.A, err = l.machine("a", c.A, nil); err != nil {
		return err
	}
	if !c.Same {
		l.B, err = l.machine("b", c.B, nil)
	} else {
		l.B, err = l.machine("b", c.A, l.A)
	}
	return err
}

// machine makes one, behind the router of a neighbour if there is one.
func (l *Lab) machine(name string, k Kind, neighbour *Machine) (*Machine, error) {
	s := &side{kind: k, host: l.links.Host(name)}
	if k.Rules == "" {
		m := &Machine{Name: name, Namespace: s.host.Namespace(), addr: s.host.Addr(), six: s.host.Addr6(), side: s}
		if k.HostRules == "" {
			return m, nil
		}
		return m, shell(m.Namespace, "nft -f -", k.HostRules)
	}
	count := 2
	if neighbour == nil {
		if err := router(s.host, k.Rules); err != nil {
			return nil, fmt.Errorf("the kernel's router of %s: %w", name, err)
		}
		if k.Mapper != "" {
			if err := serve(s.host, k.Mapper); err != nil {
				return nil, err
			}
		}
	} else {
		s.host, count = neighbour.side.host, 3
	}
	space, err := linklab.NewNamespace()
	if err != nil {
		return nil, err
	}
	l.spaces = append(l.spaces, space)
	addr := netip.AddrFrom4([4]byte{192, 168, 1, byte(count)})
	commands := fmt.Sprintf(`ip link set lo up
		ip link add eth0 type veth peer name lan%d netns %s
		ip address add %v/24 dev eth0
		ip link set eth0 up`, count, s.host.Namespace().Path(), addr)
	if err := shell(space, commands, ""); err != nil {
		return nil, err
	}
	commands = fmt.Sprintf(`ip link set lan%d master lan
		ip link set lan%d up
		%s`, count, count, await("lan"))
	if err := shell(s.host.Namespace(), commands, ""); err != nil {
		return nil, err
	}
	if err := shell(space, "ip route add default via 192.168.1.1\n"+await("eth0"), ""); err != nil {
		return nil, err
	}
	s.own = space
	return &Machine{Name: name, Namespace: space, addr: addr, side: s}, nil
}

// await returns commands that wait until the kernel sends by an interface, which it
// may do up to a second after it was told to.
func await(name string) string {
	return "for i in $(seq 500); do ip -o link show dev " + name + " | grep -q 'state UP' && exit 0; sleep 0.01; done; echo " + name + " does not come up; exit 1"
}

// router makes a router of a host.
func router(h *linklab.Host, rules string) error {
	return shell(h.Namespace(), fmt.Sprintf(`ip link add %s type bridge
		ip address add 192.168.1.1/24 dev %s
		ip link set %s up
		echo 1 >/proc/sys/net/ipv4/ip_forward
		nft -f -`, inside, inside, inside), rules)
}

// shell runs commands in a namespace.
func shell(n *linklab.Namespace, commands, input string) error {
	command := exec.Command("sh", "-ec", commands)
	command.Stdin = strings.NewReader(input)
	var said strings.Builder
	command.Stdout, command.Stderr = &said, &said
	err := n.Run(command)
	if err == nil {
		return nil
	}
	for _, refusal := range []string{"not found", "not permitted", "not supported", "Unknown device type"} {
		if strings.Contains(said.String(), refusal) {
			return fmt.Errorf("%w: %s", linklab.ErrUnavailable, said.String())
		}
	}
	return fmt.Errorf("%w: %s", err, said.String())
}

// Close ends the laboratory. Commands that were started are killed.
func (l *Lab) Close() error {
	for _, s := range l.spaces {
		s.Close()
	}
	l.spaces = nil
	return l.links.Close()
}

// Reboot has the NAT of a side forget everything, and with address, which a kernel's
// cannot, get another address.
func (l *Lab) Reboot(m *Machine, address bool) error {
	switch s := m.side; {
	case s == nil || s.kind.Rules == "" && s.kind.Words == "":
		return fmt.Errorf("%s has no NAT", m.Name)
	case s.kind.Rules != "" && address:
		return errors.New("a kernel's router keeps its address")
	case s.kind.Rules != "":
		// Rules that are loaded anew forget what the dynamic maps hold; the entries of
		// conntrack end with a change of the zone that all packets are in.
		return shell(s.host.Namespace(), "nft flush ruleset && nft -f -", s.kind.Rules+forget(l.zone()))
	}
	l.links.Router("nat-" + m.Name).Reboot(address)
	return nil
}

// zone returns a number that was not given before.
func (l *Lab) zone() int { return int(time.Now().UnixNano()/1000%65535) + 1 }

// forget puts all packets into another zone of conntrack, in which nothing is known.
func forget(zone int) string {
	return fmt.Sprintf(`table ip natlabzone {
	chain early { type filter hook prerouting priority raw; ct zone set %d; }
	chain local { type filter hook output priority raw; ct zone set %d; }
}
`, zone, zone)
}

// Forward forwards an external port of a side's NAT that is linklab's to the machine.
func (l *Lab) Forward(m *Machine, p natsim.Protocol, port uint16, to netip.AddrPort) error {
	if r := l.links.Router("nat-" + m.Name); r == nil || !r.Forward(p, port, to) {
		return fmt.Errorf("port %d of %s cannot be forwarded", port, m.Name)
	}
	return nil
}

// Change changes the link of a side to the middle by words of linklab.
func (l *Lab) Change(m *Machine, words ...string) error {
	for _, name := range []string{"carrier-" + m.Name, "nat-" + m.Name} {
		if r := l.links.Router(name); r != nil {
			return r.Change(words...)
		}
	}
	return m.side.host.Change(words...)
}

// ListenUDP opens a UDP socket at an address of the machine.
func (m *Machine) ListenUDP(at netip.AddrPort) (conn *net.UDPConn, err error) {
	m.Do(func() { conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at)) })
	return conn, err
}

// Command prepares a program to be started at a machine.
func Command(words ...string) *exec.Cmd {
	command := exec.Command(words[0], words[1:]...)
	command.Stderr = os.Stderr
	return command
}
