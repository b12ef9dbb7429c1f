package natlab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/libcrust/libcrust/tests/natsim"
)

const (
	// patience is for what should come, quiet for what should not, in one try.
	patience = 5 * time.Second
	quiet    = 300 * time.Millisecond
	again    = 500 * time.Millisecond // a datagram is sent again that has not come
	// samples is how many new mappings show how ports are chosen.
	samples = 16
	// mostBlock is the largest spread of ports that counts as a block, mostStep the
	// longest step that counts as one, and mostTaken how many steps lie between two
	// mappings of a sequence at most, when others make some, too.
	mostBlock, mostStep, mostTaken = 2048, 16, 64
)

// Measure finds out what the NAT of a machine does to UDP and to TCP, as RFC 5780
// does: mapping and ports by sending from one socket to two addresses and two ports,
// filtering by probes from elsewhere. Of TCP it tells only whether strangers are
// refused, dropped or admitted. A NAT that punishes strangers punishes four of the
// six public hosts for a while.
func (l *Lab) Measure(m *Machine) (udp, tcp Facts, err error) {
	g := &gauge{lab: l, m: m}
	defer g.close()
	steps := []func() error{
		func() error { return g.udpMapping(&udp) },
		func() error { return g.tcpMapping(&tcp) },
		func() error { return g.tcpFiltering(&tcp) },
		func() error { return g.udpHairpin(&udp) },
		func() error { return g.udpFiltering(&udp) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return udp, tcp, err
		}
	}
	return udp, tcp, nil
}

// gauge is what one measurement has open.
type gauge struct {
	lab  *Lab
	m    *Machine
	open []interface{ Close() error }
}

func (g *gauge) close() {
	for _, c := range g.open {
		_ = c.Close() // some are closed already
	}
}

// addr is the address of a machine of the family that is measured.
func (g *gauge) addr(m *Machine) netip.Addr {
	if g.m.side != nil && g.m.side.kind.IPv6 {
		return m.six
	}
	return m.addr
}

func (g *gauge) udp(m *Machine, port uint16) (*net.UDPConn, error) {
	c, err := m.ListenUDP(netip.AddrPortFrom(g.addr(m), port))
	if err == nil {
		g.open = append(g.open, c)
	}
	return c, err
}

func addrOf(c *net.UDPConn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }

// arrives sends a datagram and returns from where it arrives; the zero AddrPort if it
// does not in time.
func arrives(from *net.UDPConn, to netip.AddrPort, at *net.UDPConn, wait time.Duration) (netip.AddrPort, error) {
	text := fmt.Sprint("natlab ", time.Now().UnixNano())
	for deadline := time.Now().Add(wait); ; {
		if _, err := from.WriteToUDPAddrPort([]byte(text), to); err != nil && !errors.Is(err, syscall.EPERM) {
			return netip.AddrPort{}, err
		}
		if err := at.SetReadDeadline(time.Now().Add(min(wait, again))); err != nil {
			return netip.AddrPort{}, err
		}
		buffer := make([]byte, 100)
		for {
			n, source, err := at.ReadFromUDPAddrPort(buffer)
			if err == nil && string(buffer[:n]) == text {
				return source, nil
			}
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
				return netip.AddrPort{}, err
			}
		}
		if !time.Now().Before(deadline) {
			return netip.AddrPort{}, nil
		}
	}
}

// seen is arrives of what must arrive.
func seen(from, at *net.UDPConn) (netip.AddrPort, error) {
	source, err := arrives(from, addrOf(at), at, patience)
	if err == nil && !source.IsValid() {
		err = fmt.Errorf("nothing from %v arrives at %v", addrOf(from), addrOf(at))
	}
	return source, err
}

func (g *gauge) udpMapping(f *Facts) error {
	var at [3]*net.UDPConn // two ports of one observer, one of another
	for i := range at {
		var err error
		if at[i], err = g.udp(g.lab.Public[i/2], 0); err != nil {
			return err
		}
	}
	from, err := g.udp(g.m, 0)
	if err != nil {
		return err
	}
	first, err := arrives(from, addrOf(at[0]), at[0], 2*again)
	if err != nil {
		return err
	}
	if f.Blocked = !first.IsValid(); f.Blocked {
		return nil
	}
	second, err := seen(from, at[1])
	if err != nil {
		return err
	}
	third, err := seen(from, at[2])
	if err != nil {
		return err
	}
	f.Mapping = mapping(first, second, third)
	var locals, externals []int
	for range samples {
		from, err := g.udp(g.m, 0)
		if err != nil {
			return err
		}
		source, err := seen(from, at[0])
		if err != nil {
			return err
		}
		locals, externals = append(locals, int(addrOf(from).Port())), append(externals, int(source.Port()))
	}
	f.Ports, f.Step = choice(locals, externals)
	return nil
}

// mapping judges by what two ports of one observer and another observer see.
func mapping(first, second, third netip.AddrPort) natsim.Depends {
	switch {
	case first != second:
		return natsim.OnAddressPort
	case first != third:
		return natsim.OnAddress
	}
	return natsim.Independent
}

// choice judges how external ports of mappings made one after another are chosen.
func choice(locals, externals []int) (Ports, int) {
	preserved, least, most := 0, externals[0], externals[0]
	for i, p := range externals {
		if p == locals[i] {
			preserved++
		}
		least, most = min(least, p), max(most, p)
	}
	step := stepOf(externals)
	switch {
	case preserved > len(locals)/2: // the others found their port taken
		return Preserving, 0
	case step != 0 && step <= mostStep && step >= -mostStep:
		return Sequential, step
	case most-least < mostBlock:
		return Block, 0
	}
	return Random, 0
}

// stepOf returns the step of a sequence of which others may take some, 0 for none.
func stepOf(ports []int) int {
	step := 0
	for i := range ports[1:] {
		if d := ports[i+1] - ports[i]; step == 0 || max(d, -d) < max(step, -step) {
			step = d
		}
	}
	for i := range ports[1:] {
		if d := ports[i+1] - ports[i]; step == 0 || d%step != 0 || d/step < 1 || d/step > mostTaken {
			return 0
		}
	}
	return step
}

// nated reports whether the machine has a NAT that translates, as its name for itself
// and for others tells.
func (m *Machine) nated() bool { return !m.side.kind.IPv6 && m.Public() != m.addr }

// udpHairpin tries it with two sockets of the machine, of a NAT whose mappings mean
// anything to others.
func (g *gauge) udpHairpin(f *Facts) error {
	if f.Blocked || f.Mapping != natsim.Independent || !g.m.nated() {
		return nil
	}
	var socket [2]*net.UDPConn
	var external [2]netip.AddrPort
	at, err := g.udp(g.lab.Public[0], 0)
	if err != nil {
		return err
	}
	for i := range socket {
		if socket[i], err = g.udp(g.m, 0); err != nil {
			return err
		}
		if external[i], err = seen(socket[i], at); err != nil {
			return err
		}
	}
	for i := range socket {
		source, err := arrives(socket[i], external[1-i], socket[1-i], quiet)
		if err != nil {
			return err
		}
		f.Hairpin = f.Hairpin || source.IsValid()
	}
	return nil
}

// udpFiltering probes a mapping from an address that was not sent to, and from
// another port of one that was.
func (g *gauge) udpFiltering(f *Facts) error {
	if f.Blocked {
		return nil
	}
	asked, err := g.udp(g.lab.Public[2], 0)
	if err != nil {
		return err
	}
	port, err := g.udp(g.lab.Public[2], 0)
	if err != nil {
		return err
	}
	stranger := g.lab.Public[3]
	from, err := g.udp(g.m, 0)
	if err != nil {
		return err
	}
	external, err := seen(from, asked)
	if err != nil {
		return err
	}
	// A connected socket hears ICMP.
	var conn net.Conn
	stranger.Do(func() { conn, err = net.Dial("udp", external.String()) })
	if err != nil {
		return err
	}
	at := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	admitted, told, err := probe(conn, from)
	if err = errors.Join(err, conn.Close()); err != nil {
		return err
	}
	if admitted {
		f.Filtering, f.Strangers = natsim.Independent, Admitted
		return nil
	}
	f.Filtering = natsim.OnAddressPort
	if source, err := arrives(port, external, from, quiet); err != nil {
		return err
	} else if source.IsValid() {
		f.Filtering = natsim.OnAddress
	}
	return g.aftermath(f, from, external, stranger, at, told)
}

// probe sends from a connected socket and reports whether it arrives and whether the
// sender is told that it does not.
func probe(conn net.Conn, at *net.UDPConn) (admitted, told bool, err error) {
	const text = "who is there?"
	if _, err := conn.Write([]byte(text)); err != nil {
		return false, false, err
	}
	if err := at.SetReadDeadline(time.Now().Add(quiet)); err != nil {
		return false, false, err
	}
	buffer := make([]byte, 100)
	n, _, err := at.ReadFromUDPAddrPort(buffer)
	if err == nil && string(buffer[:n]) == text {
		return true, false, nil
	}
	if err := conn.SetReadDeadline(time.Now().Add(quiet)); err != nil {
		return false, false, err
	}
	_, err = conn.Read(buffer)
	return false, errors.Is(err, syscall.ECONNREFUSED), nil
}

// aftermath looks at what a stranger's probe has left behind.
func (g *gauge) aftermath(f *Facts, from *net.UDPConn, external netip.AddrPort, stranger *Machine, at netip.AddrPort, told bool) error {
	f.Strangers = Dropped
	if told {
		f.Strangers = Refused
	}
	socket, err := g.udp(stranger, at.Port())
	if err != nil {
		return err
	}
	bent, err := seen(from, socket)
	if err != nil {
		return err
	}
	back, err := arrives(socket, bent, from, quiet)
	switch {
	case err != nil:
		return err
	case !back.IsValid():
		f.Strangers = Punished
	case bent != external && f.Mapping == natsim.Independent:
		f.Strangers = Polluted
	}
	return nil
}

// reuse lets sockets share a port.
func reuse(_, _ string, c syscall.RawConn) (err error) {
	return errors.Join(c.Control(func(fd uintptr) {
		err = errors.Join(unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
	}), err)
}

func (g *gauge) listen(m *Machine, port uint16) (l net.Listener, err error) {
	config := net.ListenConfig{Control: reuse}
	m.Do(func() {
		l, err = config.Listen(context.Background(), "tcp", netip.AddrPortFrom(g.addr(m), port).String())
	})
	if err == nil {
		g.open = append(g.open, l)
	}
	return l, err
}

// dial connects from a port of a machine; 0 means any.
func (g *gauge) dial(m *Machine, port uint16, to string, wait time.Duration) (conn net.Conn, err error) {
	dialer := net.Dialer{Control: reuse, LocalAddr: &net.TCPAddr{IP: g.addr(m).AsSlice(), Port: int(port)}, Timeout: wait}
	m.Do(func() { conn, err = dialer.Dial("tcp", to) })
	if err == nil {
		g.open = append(g.open, conn)
	}
	return conn, err
}

// dialled connects and returns from which port of the machine, and how that looks.
func (g *gauge) dialled(port uint16, at net.Listener) (local uint16, source netip.AddrPort, err error) {
	conn, err := g.dial(g.m, port, at.Addr().String(), patience)
	if err != nil {
		return 0, source, err
	}
	accepted, err := at.Accept()
	if err != nil {
		return 0, source, err
	}
	g.open = append(g.open, accepted)
	return conn.LocalAddr().(*net.TCPAddr).AddrPort().Port(), accepted.RemoteAddr().(*net.TCPAddr).AddrPort(), nil
}

func (g *gauge) tcpMapping(f *Facts) error {
	var external [3]netip.AddrPort
	var port uint16
	var first net.Listener
	for i := range external {
		at, err := g.listen(g.lab.Public[i/2], 0)
		if err != nil {
			return err
		}
		if i == 0 {
			first = at
		}
		if port, external[i], err = g.dialled(port, at); err != nil {
			return err
		}
	}
	f.Mapping = mapping(external[0], external[1], external[2])
	var locals, externals []int
	for range samples {
		local, source, err := g.dialled(0, first)
		if err != nil {
			return err
		}
		locals, externals = append(locals, int(local)), append(externals, int(source.Port()))
	}
	f.Ports, f.Step = choice(locals, externals)
	return nil
}

func (g *gauge) tcpFiltering(f *Facts) error {
	inner, err := g.listen(g.m, 0)
	if err != nil {
		return err
	}
	at, err := g.listen(g.lab.Public[4], 0)
	if err != nil {
		return err
	}
	_, external, err := g.dialled(inner.Addr().(*net.TCPAddr).AddrPort().Port(), at)
	if err != nil {
		return err
	}
	f.Filtering, f.Strangers = natsim.OnAddressPort, Dropped
	_, err = g.dial(g.lab.Public[5], 0, external.String(), quiet)
	switch {
	case err == nil:
		f.Filtering, f.Strangers = natsim.Independent, Admitted
		return nil
	case errors.Is(err, syscall.ECONNREFUSED):
		f.Strangers = Refused
	}
	if _, err = g.dial(g.lab.Public[4], 0, external.String(), quiet); err == nil {
		f.Filtering = natsim.OnAddress
	}
	return nil
}
