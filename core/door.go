package crust

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/libcrust/libcrust/core/internal/endpoint"
	"github.com/libcrust/libcrust/core/internal/nat/observe"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// doorGuests bounds the connections that a door has accepted.
const doorGuests = 8

// door is a TCP port of its own that peers may try to reach, for as long as something
// is measured.
type door struct {
	s  *Service
	ln net.Listener

	mu    sync.Mutex
	sent  map[netip.Addr]bool
	conns []net.Conn // by which it was shown: while they are there, so are its mappings
	inner int        // connections that were accepted
}

func (s *Service) openDoor(f observe.Flow) (*door, error) {
	ln, err := s.network.Listen(s.ctx, netip.AddrPortFrom(anywhere(f.IPv6), 0))
	if err != nil {
		return nil, err
	}
	d := &door{s: s, ln: ln, sent: make(map[netip.Addr]bool)}
	s.spawn(d.accept)
	return d, nil
}

// anywhere is the unspecified address of a family.
func anywhere(six bool) netip.Addr {
	if six {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}

func (d *door) local() netip.AddrPort { return endpointOf(endpoint.TCP, d.ln.Addr()).Addr }

func (d *door) knows(a netip.Addr) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.sent[a.Unmap()]
}

// close closes all that it has.
func (d *door) close() {
	d.ln.Close() //nolint:errcheck // it has served
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.conns {
		cutOff(c)
	}
	d.conns = nil
}

// cutOff closes a connection so that its two ends are free again at once.
func cutOff(conn net.Conn) {
	if c, ok := conn.(interface{ SetLinger(int) error }); ok {
		c.SetLinger(0) //nolint:errcheck // then they are not
	}
	conn.Close() //nolint:errcheck // it has served
}

// accept is the goroutine of a door.
func (d *door) accept() {
	for {
		conn, err := d.ln.Accept()
		if err != nil {
			return
		}
		d.mu.Lock()
		d.inner++
		full := d.inner > doorGuests
		d.mu.Unlock()
		if full {
			conn.Close() //nolint:errcheck // it carries nothing
			continue
		}
		d.s.spawn(func() {
			defer closeWith(d.s.ctx, conn)()
			conn.SetDeadline(time.Now().Add(reachPatience)) //nolint:errcheck // a closed connection shows in the first read
			d.s.asked(conn)                                 //nolint:errcheck // what it is about is told elsewhere
			cutOff(conn)                                    // the other end may be asked from here
		})
	}
}

// where returns where a peer answers.
func (d *door) where(a *asker) netip.AddrPort { return a.stream }

func (d *door) askEach(at map[*asker]netip.AddrPort) map[*asker]netip.AddrPort {
	type answer struct {
		a    *asker
		seen netip.AddrPort
		conn net.Conn
	}
	answers := make(chan answer, len(at))
	from := netip.AddrPortFrom(anywhere(d.local().Addr().Is6()), d.local().Port())
	for a, to := range at {
		d.mu.Lock()
		d.sent[to.Addr().Unmap()] = true
		d.mu.Unlock()
		d.s.spawn(func() {
			ctx, stop := context.WithTimeout(d.s.ctx, lookPatience)
			defer stop()
			v, conn, err := d.s.askTCPAt(ctx, a, to, from)
			if err != nil && conn != nil {
				cutOff(conn)
				conn = nil
			}
			answers <- answer{a, v.Seen, conn}
		})
	}
	seen := make(map[*asker]netip.AddrPort, len(at))
	for range at {
		got := <-answers
		if got.conn == nil {
			continue
		}
		d.mu.Lock()
		d.conns = append(d.conns, got.conn)
		d.mu.Unlock()
		if got.seen.IsValid() {
			seen[got.a] = got.seen
		}
	}
	return seen
}

// askSocketTCP asks peers about the port of the listener, or about new ones.
func (s *Service) askSocketTCP(f observe.Flow, fresh bool) bool {
	if f.IPv6 || len(s.lookers()) < 2 {
		return false
	}
	s.lookOnce(func(l netip.AddrPort) (netip.AddrPort, time.Duration, bool) {
		if fresh {
			l = netip.AddrPort{}
		}
		return l, 0, true
	})
	return true
}

// hairpinTCP dials our own listener by its external endpoint, and sees whether it is
// the service itself that answers.
func (s *Service) hairpinTCP(f observe.Flow) bool {
	w := &s.watch
	w.mu.Lock()
	v := w.machine.Verdict(f, time.Now())
	w.mu.Unlock()
	if v.Near || v.None || v.NAT.Mapping != wire.EndpointIndependent {
		return false
	}
	var at netip.AddrPort
	for _, l := range s.Listeners() {
		if l.Transport == TCP && !s.isOld(l) && !at.IsValid() {
			at = s.seenListener(f, l)
		}
	}
	if !at.IsValid() {
		return false
	}
	ctx, stop := context.WithTimeout(s.ctx, reachDial)
	defer stop()
	came := false
	if conn, err := s.network.Dial(ctx, netip.AddrPort{}, at); err == nil {
		link, err := s.shake(ctx, conn, endpoint.New(TCP, at), s.ID())
		if came = err == nil; came {
			link.Conn.Close() //nolint:errcheck // it is our own
		}
	}
	if s.ctx.Err() != nil {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.machine.SetHairpin(f, came, time.Now())
	return true
}
