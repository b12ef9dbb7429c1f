package crust

import (
	"crypto/rand"
	"net/netip"
	"time"

	"github.com/libcrust/libcrust/core/internal/nat/observe"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// window is an ear that peers may try to reach.
type window struct {
	*ear
	s    *Service
	sent map[netip.Addr]bool
}

func (s *Service) openWindow(f observe.Flow) (*window, error) {
	family := netip.IPv4Unspecified()
	if f.IPv6 {
		family = netip.IPv6Unspecified()
	}
	e, err := s.openEar(family)
	if err != nil {
		return nil, err
	}
	return &window{ear: e, s: s, sent: make(map[netip.Addr]bool)}, nil
}

func (w *window) knows(a netip.Addr) bool { return w.sent[a.Unmap()] }
func (w *window) local() netip.AddrPort   { return w.conn.LocalAddr() }

// where returns where a peer answers.
func (w *window) where(a *asker) netip.AddrPort { return a.at }

// askEach asks each where it answers, several times.
func (w *window) askEach(at map[*asker]netip.AddrPort) map[*asker]netip.AddrPort {
	seen := make(map[*asker]netip.AddrPort, len(at))
	for range echoTries {
		for a, to := range at {
			if _, known := seen[a]; known {
				continue
			}
			w.s.watch.mu.Lock()
			tag := a.theirs
			w.s.watch.mu.Unlock()
			if d, err := a.probe(tag, wire.Probe{Kind: wire.ProbeAsk}); err == nil {
				w.sent[to.Addr().Unmap()] = true
				w.send(d, to)
			}
		}
		timer := time.NewTimer(echoPause)
		for waiting := true; waiting && len(seen) < len(at); {
			select {
			case h := <-w.heard:
				if h.asker != nil && h.probe.Kind == wire.ProbeAnswer && h.probe.Seen.IsValid() && h.from == at[h.asker] {
					seen[h.asker] = h.probe.Seen
				}
			case <-timer.C:
				waiting = false
			case <-w.s.ctx.Done():
				timer.Stop()
				return seen
			}
		}
		timer.Stop()
		if len(seen) == len(at) {
			break
		}
	}
	return seen
}

const (
	// hairpinTries is how many datagrams go each way, hairpinPause between; the first
	// only opens the filter of the other side's mapping.
	hairpinTries = 3
	hairpinPause = 100 * time.Millisecond
	// hairpinSize bounds the datagrams, which are random bytes: nobody else can make one.
	leastHairpin = 96
	mostHairpin  = 160
)

// hairpin sends datagrams between two sockets of this machine by way of their external
// endpoints, and sees whether they come back. That is only done where those are on the
// Internet, and where one mapping is for everybody; else they mean nothing.
func (s *Service) hairpin(f observe.Flow) bool {
	if f.Proto == observe.TCP {
		return s.hairpinTCP(f)
	}
	list := s.observers(f)
	w := &s.watch
	w.mu.Lock()
	v := w.machine.Verdict(f, time.Now())
	w.mu.Unlock()
	ours := v.NAT.External
	if len(list) == 0 || v.Near || v.None || v.NAT.Mapping != wire.EndpointIndependent || !ours.IsValid() {
		return false
	}
	u, err := s.udpFor(ours.Addr())
	if err != nil {
		return false
	}
	e, err := s.openWindow(f)
	if err != nil {
		return false
	}
	defer e.close()
	var theirs netip.AddrPort
	for _, seen := range s.askFrom(e, list[:min(len(list), reachWidth)]) { // all see the same
		theirs = seen
	}
	if !theirs.IsValid() {
		return false
	}
	d := make([]byte, leastHairpin, mostHairpin)
	if _, err := rand.Read(d); err != nil {
		return false
	}
	d = d[:leastHairpin+int(d[0])%(mostHairpin-leastHairpin+1)]
	came := make(chan struct{}, 1)
	w.hairpin.Store(&loop{d, came})
	defer w.hairpin.Store(nil)
	back := false
	for range hairpinTries {
		e.send(d, ours)
		u.mux.WriteTo(d, theirs) //nolint:errcheck // it may get lost
		timer := time.NewTimer(hairpinPause)
		select {
		case <-came:
			back = true
		case <-timer.C:
		case <-s.ctx.Done():
			return false
		}
		timer.Stop()
		if back {
			break
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.machine.SetHairpin(f, back, time.Now())
	return true
}

// loop is a datagram that is sent to ourselves.
type loop struct {
	datagram []byte
	came     chan<- struct{}
}

// isHairpin takes a datagram if it is the one that we have sent to ourselves.
func (s *Service) isHairpin(d []byte) bool {
	l := s.watch.hairpin.Load()
	if l == nil || string(d) != string(l.datagram) {
		return false
	}
	select {
	case l.came <- struct{}{}:
	default:
	}
	return true
}
