package simnet

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/libcrust/libcrust/core/internal/netio"
)

// Readdress takes all addresses of the host away and gives it others of the same
// network. Whoever watches the host is told. Connections at an address that is gone
// do not notice: nothing passes them any more, as over a silent link that never
// heals. An address that is malformed or taken makes Readdress panic: the test is
// wrong.
func (h *Host) Readdress(addrs ...string) { h.Move(h.router, addrs...) }

// Move is Readdress into the network behind a router, or the one that is not
// behind any when r is nil.
func (h *Host) Move(r *Router, addrs ...string) {
	n := h.net
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, a := range h.addrs {
		n.withdraw(h, a)
	}
	h.addrs, h.router = nil, r
	for _, text := range addrs {
		a := netip.MustParseAddr(text).Unmap()
		if a.IsLoopback() {
			panic("simnet: " + text + " is every host's")
		}
		n.enter(h, a)
		h.addrs = append(h.addrs, a)
	}
	h.addrs = append(h.addrs, localhost4, netip.IPv6Loopback())
	for t, c := range h.conns {
		if !h.has(t.local.Addr()) {
			c.strand()
		}
	}
	for _, w := range h.watchers {
		w.changed.Broadcast()
	}
}

// withdraw takes an address away that enter gave. Called with the lock held.
func (n *Net) withdraw(h *Host, a netip.Addr) {
	for r := h.router; ; {
		space := n.space(r)
		if space[a] == h {
			delete(space, a)
		}
		if r == nil {
			return
		}
		h, r = r.node, r.node.router
	}
}

// strand lets nothing pass a connection any more, either way. Called with the lock
// held.
func (c *Conn) strand() {
	dead := &link{state: silent, ways: map[*way]struct{}{}, free: map[*Host]time.Time{}}
	for _, w := range []*way{c.out, c.peer.out} {
		w.stop()
		for _, l := range w.path {
			delete(l.ways, w)
		}
		w.path, w.routed = []leg{{dead, w.from.host}}, false
		w.enter()
	}
}

// watcher is a netio.Watcher of a host.
type watcher struct {
	host    *Host
	last    []netip.Addr
	closed  bool
	changed *sync.Cond
}

var _ netio.Watched = (*Host)(nil)

// Watch implements netio.Watched. Changes are told at once. A host never sleeps.
func (h *Host) Watch() (netio.Watcher, error) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	w := &watcher{host: h, last: netio.Usable(slices.Clone(h.addrs)), changed: sync.NewCond(&h.net.mu)}
	h.watchers = append(h.watchers, w)
	return w, nil
}

// Next implements netio.Watcher.
func (w *watcher) Next() (c netio.Change, err error) {
	w.host.net.mu.Lock()
	defer w.host.net.mu.Unlock()
	for {
		if w.closed {
			return c, net.ErrClosed
		}
		now := netio.Usable(slices.Clone(w.host.addrs))
		c.Came, c.Gone = netio.Differ(w.last, now)
		w.last = now
		if len(c.Came)+len(c.Gone) > 0 {
			return c, nil
		}
		w.changed.Wait()
	}
}

// Attend implements netio.Watcher.
func (w *watcher) Attend(bool) {}

// Close implements netio.Watcher.
func (w *watcher) Close() error {
	w.host.net.mu.Lock()
	defer w.host.net.mu.Unlock()
	w.closed = true
	w.host.watchers = slices.DeleteFunc(w.host.watchers, func(o *watcher) bool { return o == w })
	w.changed.Broadcast()
	return nil
}
