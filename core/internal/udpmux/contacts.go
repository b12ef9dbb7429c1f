package udpmux

import (
	"net/netip"
	"sync"
)

// contactGeneration is how many addresses are remembered before the older ones are
// forgotten: from 4,096 to 8,192 are known.
const contactGeneration = 4096

// contacts are the addresses that the socket has sent to: filters of NATs may let in
// what comes from there.
type contacts struct {
	mu       sync.Mutex
	now, old map[netip.Addr]struct{}
}

func (c *contacts) note(a netip.Addr) {
	a = a.Unmap()
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, known := c.now[a]; known {
		return
	}
	if c.now == nil || len(c.now) >= contactGeneration {
		c.old, c.now = c.now, make(map[netip.Addr]struct{})
	}
	c.now[a] = struct{}{}
}

func (c *contacts) has(a netip.Addr) bool {
	a = a.Unmap()
	c.mu.Lock()
	defer c.mu.Unlock()
	_, now := c.now[a]
	_, old := c.old[a]
	return now || old
}

// Contacted reports whether the socket has sent anything to an address lately, or has
// an association there.
func (m *Mux) Contacted(a netip.Addr) bool {
	if m.contacts.has(a) {
		return true
	}
	m.mu.RLock()
	all := make([]*Assoc, 0, len(m.table))
	for _, assoc := range m.table {
		all = append(all, assoc)
	}
	m.mu.RUnlock()
	for _, assoc := range all {
		if assoc.RemoteAddr().Addr().Unmap() == a.Unmap() {
			return true
		}
	}
	return false
}
