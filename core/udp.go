package crust

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libcrust/libcrust/core/internal/endpoint"
	"github.com/libcrust/libcrust/core/internal/guard"
	"github.com/libcrust/libcrust/core/internal/netio"
	"github.com/libcrust/libcrust/core/internal/secure"
	"github.com/libcrust/libcrust/core/internal/session"
	"github.com/libcrust/libcrust/core/internal/transport/utp"
	"github.com/libcrust/libcrust/core/internal/udpmux"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// udpSocket is one UDP socket with all that runs over it. It belongs to a
// listener, or was opened to dial; either way dials leave from it, so that all
// share one mapping of a NAT. One that no longer listens serves its sessions on.
type udpSocket struct {
	s       *Service
	mux     *udpmux.Mux
	conn    netio.PacketConn
	ep      Endpoint
	lost    atomic.Bool // the address it is bound to is gone
	accept  atomic.Bool
	retired atomic.Bool // it listened, and was told to stop
	hole    int         // its number in the punch that it was opened for; 0: none
}

// udpIdle is how much longer than Config.LostAfter the association under a link
// waits for a sign of life: the session's verdict comes first.
const udpIdle = 30 * time.Second

// openUDP opens a socket and what runs over it.
func (s *Service) openUDP(addr netip.AddrPort, accept bool) (*udpSocket, error) {
	conn, err := s.network.ListenPacket(s.ctx, addr)
	if err != nil {
		return nil, err
	}
	if c, ok := conn.(netio.SingleReader); ok && accept {
		if err := c.Single(); err != nil {
			s.log.Info("each datagram takes a system call", "at", conn.LocalAddr(), "error", err)
		}
	}
	return s.wrapUDP(conn, accept)
}

// wrapUDP lets a socket carry associations.
func (s *Service) wrapUDP(conn netio.PacketConn, accept bool) (u *udpSocket, err error) {
	u = &udpSocket{s: s, conn: conn, ep: endpoint.New(UTP, conn.LocalAddr())}
	u.accept.Store(accept)
	u.mux, err = udpmux.New(conn, udpmux.Config{
		Secure: s.secure, Go: s.spawnBelow, Log: s.log,
		HalfOpen: s.cfg.MaxHandshakes, HalfOpenPerAddress: s.cfg.MaxHandshakesPerAddress, HandshakeTimeout: s.cfg.HandshakeTimeout,
		Associations: 2*s.cfg.MaxPeers + s.cfg.MaxHandshakes + s.cfg.MaxConnects, IdleTimeout: s.cfg.LostAfter + udpIdle,
		Accept: u.accepted, Stray: u.stray, Barred: s.barredAt, Knocked: s.knocked, Drained: s.reapUDP,
	})
	if err != nil {
		return nil, err
	}
	u.mux.SetAccept(accept)
	s.mutes(conn)
	return u, nil
}

// listenUDP starts a listener over UDP.
func (s *Service) listenUDP(ep Endpoint) (*listener, error) {
	s.udpMu.Lock()
	defer s.udpMu.Unlock()
	for _, u := range s.sockets { // one that stopped listening and still serves
		if u.ep == ep && u.accept.CompareAndSwap(false, true) {
			u.retired.Store(false)
			u.mux.SetAccept(true)
			return &listener{udp: u, ep: u.ep}, nil
		}
	}
	u, err := s.openUDP(ep.Addr, true)
	if err != nil {
		return nil, err
	}
	s.sockets = append([]*udpSocket{u}, s.sockets...) // before those that were opened to dial
	return &listener{udp: u, ep: u.ep}, nil
}

// stop stops accepting. The socket is closed when its last session is gone.
func (u *udpSocket) stop() {
	u.mux.SetAccept(false)
	u.accept.Store(false)
	u.retired.Store(true)
	u.s.reapUDP()
}

// close closes the socket.
func (u *udpSocket) close() {
	u.mux.Close(wire.ReasonStopping) //nolint:errcheck // there is nothing to do about it
}

// udpFor returns the socket to dial an address from, and opens one if there is
// none of its family.
func (s *Service) udpFor(addr netip.Addr) (*udpSocket, error) {
	s.udpMu.Lock()
	defer s.udpMu.Unlock()
	if found := s.udpOpen(addr); found != nil {
		return found, nil
	}
	unspecified := netip.IPv4Unspecified()
	if addr.Is6() {
		unspecified = netip.IPv6Unspecified()
	}
	u, err := s.openUDP(netip.AddrPortFrom(unspecified, 0), false)
	if err != nil {
		return nil, err
	}
	s.sockets = append(s.sockets, u)
	return u, nil
}

// udpOpen returns the socket to dial an address from, nil when there is none yet.
// udpMu is held.
func (s *Service) udpOpen(addr netip.Addr) (found *udpSocket) {
	for _, u := range s.sockets {
		if !u.retired.Load() && !u.lost.Load() && u.mux.Reaches(addr) && (found == nil || u.accept.Load() && !found.accept.Load()) {
			found = u
		}
	}
	return found
}

// closeUDP closes all sockets, when no session is left.
func (s *Service) closeUDP() {
	s.udpMu.Lock()
	sockets := s.sockets
	s.sockets = nil
	s.udpMu.Unlock()
	for _, u := range sockets {
		u.close()
	}
	s.stack.Close() //nolint:errcheck // it returns nothing but nil
}

// accepted takes an association that a peer has begun. It must not block.
func (u *udpSocket) accepted(a *udpmux.Assoc) {
	c := u.s.newUTP(a)
	g := u.s.halls.enter(c, u.s.isHot(c))
	if g == nil {
		c.Close() //nolint:errcheck // the service stops
		return
	}
	u.s.spawn(func() { u.s.respondUDP(g, c) })
}

// respondUDP is the goroutine of one accepted association, until it is a session
// or closed.
func (s *Service) respondUDP(g *guest, c *utpConn) {
	began := time.Now()
	err := c.accept(began.Add(s.cfg.HandshakeTimeout))
	if err == nil {
		admit := func() bool { return s.halls.admit(g) }
		from := endpoint.New(UTP, c.assoc.RemoteAddr())
		how := Accepted
		if s.opened(from.Addr) {
			how = Punched
		}
		_, err = s.adopt(c.link(), adoption{how: how, began: began, linked: began, endpoint: from, admit: admit})
	} else {
		if !s.halls.gone(g) { // it has answered what we sent there
			s.charge(guard.Who{Addr: c.assoc.RemoteAddr().Addr()}, AlertHandshakes, 1, 0, answerCost+finishCost)
		}
		c.Close() //nolint:errcheck // it carries nothing
	}
	s.halls.leave(g)
	if err != nil {
		s.log.Debug("accepted association gave no session", "from", c.RemoteAddr(), "error", err)
	}
}

// dialUDP shakes hands over UDP, up to the point where we know the peer and it
// does not know us.
func (s *Service) dialUDP(ctx context.Context, ep Endpoint, expect PeerID) (*secure.Link, error) {
	u, err := s.udpFor(ep.Addr.Addr())
	if err != nil {
		return nil, err
	}
	began := time.Now()
	a, err := u.mux.Dial(ctx, ep.Addr, expect)
	if errors.Is(err, secure.ErrNoAnswer) { // over TCP somebody would have taken the connection
		err = &Error{
			Op: "connect", Peer: expect, Endpoint: ep, Code: CodeTimeout,
			Err: fmt.Errorf("no answer within %v: nobody is there, or has another network name", time.Since(began).Round(time.Millisecond)),
		}
	}
	if err != nil {
		return nil, err
	}
	return s.newUTP(a).link(), nil
}

// utpConn is the connection of a link over UDP: an association, and a uTP
// connection through it. On the side that dialled it comes up with the first
// Write: until then the peer does not know who we are.
type utpConn struct {
	*utp.Conn // nil until it is up
	s         *Service
	assoc     *udpmux.Assoc
	port      *utp.Port
	borrower  *udpmux.Borrower // who reads; nil until it is up

	err error // why it did not come up; set before rising is closed

	mu       sync.Mutex
	rising   chan struct{} // closed when it is up or never will be; nil before
	risen    bool
	deadline time.Time // for coming up
	closed   bool
}

// newUTP puts uTP over an association.
func (s *Service) newUTP(a *udpmux.Assoc) *utpConn {
	c := &utpConn{s: s, assoc: a}
	c.port = s.stack.Add(a, net.UDPAddrFromAddrPort(a.LocalAddr()), net.UDPAddrFromAddrPort(a.RemoteAddr()))
	a.SetHandlers(udpmux.Handlers{
		Packet: c.port.Input, Ready: c.port.Ready, Datagram: c.onDatagram,
		Closed: c.severed,
	})
	return c
}

// link returns the link over the connection: its datagrams are sealed, so its
// records are not.
func (c *utpConn) link() *secure.Link {
	seal, open := secure.Plain()
	return &secure.Link{
		Conn: c, Remote: c.assoc.Remote(), Initiator: c.assoc.Initiator(), Cipher: c.assoc.Cipher(), Seal: seal, Open: open,
	}
}

// accept waits for the peer's uTP connection.
func (c *utpConn) accept(until time.Time) (err error) {
	return c.rise(func() {
		ctx, cancel := context.WithDeadline(c.s.ctx, until)
		defer cancel()
		c.up(c.port.Accept(ctx))
		c.SetDeadline(until) //nolint:errcheck // a closed connection shows in the next read
	})
}

// rise lets the first who wants to use the connection bring it up, and the others
// wait for that.
func (c *utpConn) rise(bring func()) error {
	c.mu.Lock()
	rising := c.rising
	if rising == nil {
		c.rising = make(chan struct{})
		c.mu.Unlock()
		defer close(c.rising)
		bring()
		return c.err
	}
	c.mu.Unlock()
	<-rising
	return c.err
}

// up takes the connection that has come up, or why it has not.
func (c *utpConn) up(conn *utp.Conn, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Conn, c.err = conn, err
	if err == nil {
		c.risen = true
		c.borrower = c.assoc.Borrower(conn.Ready)
		conn.SetDeadline(c.deadline) //nolint:errcheck // a closed connection shows in the next read
	}
}

// dial comes up, if it has not, and says why it cannot.
func (c *utpConn) dial() error {
	return c.rise(func() {
		c.mu.Lock()
		deadline := c.deadline
		c.mu.Unlock()
		ctx, cancel := c.s.ctx, context.CancelFunc(func() {})
		if !deadline.IsZero() {
			ctx, cancel = context.WithDeadline(ctx, deadline)
		}
		defer cancel()
		if err := c.assoc.Commit(); err != nil {
			c.up(nil, err)
			return
		}
		c.up(c.port.Dial(ctx))
	})
}

// Write brings the connection up and writes.
func (c *utpConn) Write(p []byte) (int, error) {
	if err := c.dial(); err != nil || len(p) == 0 {
		return 0, err
	}
	return c.Conn.Write(p)
}

// Read brings the connection up and reads.
func (c *utpConn) Read(p []byte) (int, error) {
	if err := c.dial(); err != nil {
		return 0, err
	}
	c.borrower.Rest()
	return c.Conn.Read(p)
}

// ReadLazy is for a connection that is up.
func (c *utpConn) ReadLazy(get func() []byte) (int, error) {
	c.borrower.Rest()
	return c.Conn.ReadLazy(get)
}

// ReadSoon is for a connection that is up, on which a Read has returned: it reads
// what has come, or from the service's socket for as long as patience, without
// sleeping. It returns 0 and no error when nothing has come, and session.ErrLater when
// somebody else reads from the socket.
func (c *utpConn) ReadSoon(p []byte, patience time.Duration) (int, error) {
	n, err := c.Conn.ReadNow(p)
	if n > 0 || err != nil {
		return n, err
	}
	if !c.borrower.Read(patience) {
		return 0, session.ErrLater
	}
	return c.Conn.ReadNow(p)
}

// SetDeadline bounds also the coming up.
func (c *utpConn) SetDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	if c.risen {
		return c.Conn.SetDeadline(t)
	}
	return nil
}

// LocalAddr returns where the socket is.
func (c *utpConn) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(c.assoc.LocalAddr()) }

// RemoteAddr returns where the peer is now.
func (c *utpConn) RemoteAddr() net.Addr { return net.UDPAddrFromAddrPort(c.assoc.RemoteAddr()) }

// Close closes the connection in order, if it is up, and the association when
// that is done.
func (c *utpConn) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	risen := c.risen
	c.mu.Unlock()
	if !risen {
		c.port.Close()
		c.assoc.Close(wire.ReasonDisconnect)
		return nil
	}
	err := c.Conn.Close()
	c.s.spawnBelow(func() {
		<-c.port.Done()
		c.assoc.Close(wire.ReasonDisconnect)
	})
	return err
}

var _ netio.TryWriter = (*utpConn)(nil)
