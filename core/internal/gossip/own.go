package gossip

import (
	"fmt"
	"slices"
	"time"

	"github.com/libcrust/libcrust/core/internal/endpoint"
	"github.com/libcrust/libcrust/core/internal/wire"
)

const (
	// renewLeast and renewMost bound after how long our record is made anew. In between
	// it is as many seconds as there are peers, so that an overlay makes about one
	// record a second.
	renewLeast = 30 * time.Minute
	renewMost  = 8 * time.Hour
	// lifeExtra is how much longer than twice that a record lives.
	lifeExtra = 15 * time.Minute
	// ownGap and ownBurst bound the records that we make: some at once, then one
	// in each gap.
	ownGap   = time.Minute
	ownBurst = 3
)

// own is our own record.
type own struct {
	record  *record // nil before the first
	want    wire.Contact
	set     bool // want is worth telling
	changed bool // record is not what want says, or others have a later one
	leaving bool
	floor   uint64 // greatest seq of ours that there is
	renewAt moment
	pace    moment // when ownBurst records may be made again
	until   uint64 // when the last of our records ends, in milliseconds since 1970
}

// Own says where we can be reached, at most wire.MaxContactEndpoints endpoints of which
// count, and our role and flags (wire.Contact*). A record of it is made at once, or as
// soon as the last ones are old enough, and again whenever half of its life is over. Without
// endpoints, what was told last stays.
func (m *Machine) Own(now time.Time, endpoints []endpoint.Endpoint, role, flags uint8) {
	if m.cfg.Mode == Off || len(endpoints) == 0 || m.own.leaving {
		return
	}
	c := wire.Contact{Peer: m.cfg.Self, Role: role, Flags: flags}
	c.Endpoints = slices.Clone(endpoints[:min(len(endpoints), wire.MaxContactEndpoints)])
	if m.own.set && sameContent(m.own.want, c) {
		return
	}
	m.own.want, m.own.set, m.own.changed = c, true, true
	m.renew(m.enter(now))
}

// Rest says that nobody is to dial us any more: our record ends and is not made anew,
// until Own says where we are.
func (m *Machine) Rest() { m.own.set = false }

// Depart makes a record that says that we are gone: the next Tick sends it to all
// peers. Nothing is made after it.
func (m *Machine) Depart(now time.Time) {
	if m.cfg.Mode == Off || m.own.leaving || m.own.record == nil {
		return
	}
	m.own.leaving, m.own.changed, m.own.set = true, true, true
	m.own.want = wire.Contact{Peer: m.cfg.Self, Role: m.own.want.Role}
	m.own.pace = 0
	m.renew(m.enter(now))
}

// OwnRecord returns our own record and its bytes, which must not be changed.
func (m *Machine) OwnRecord() (c wire.Contact, raw []byte, ok bool) {
	if m.own.record == nil {
		return wire.Contact{}, nil, false
	}
	return m.own.record.contact, m.own.record.raw, true
}

// renew makes our record, if that is due.
func (m *Machine) renew(at moment) {
	o := &m.own
	switch {
	case !o.set:
		return
	case !o.changed && at < o.renewAt:
		m.wake(o.renewAt)
		return
	case o.pace-at > (ownBurst-1)*ownGap:
		m.wake(o.pace - (ownBurst-1)*ownGap)
		return
	}
	every := min(max(time.Duration(m.Len())*time.Second, renewLeast), renewMost)
	now := m.millis()
	c := o.want
	c.Seq = max(now, o.floor+1)
	c.Life = uint32((2*every + lifeExtra) / time.Second)
	if o.leaving { // not before what it replaces
		c.Life = uint32(min(max((int64(o.until)-int64(c.Seq))/1000+1, int64(lifeExtra/time.Second)), wire.MaxContactLife))
	}
	r := newRecord(c, c.Append(nil, m.cfg.Sign))
	news := o.record == nil || !sameContent(o.record.contact, c)
	o.record, o.floor, o.changed = r, c.Seq, false
	o.until = max(o.until, c.Expires())
	o.pace = max(o.pace, at) + ownGap
	o.renewAt = at + m.between(every*9/10, every)
	if o.leaving {
		o.renewAt = never
	}
	m.wake(o.renewAt)
	m.table.put(r, nil, at, m.ends(r, at))
	m.tellOwn(r, news, at)
}

// tellOwn tells our record: to all peers at once when it says something new.
func (m *Machine) tellOwn(r *record, news bool, at moment) {
	if m.cfg.Mode != On {
		return
	}
	for _, l := range m.order {
		if !l.peer.News || !l.mayHave(r) || news && l.push(r) {
			continue
		}
		l.tell(r.key, at+m.between(renewDelay/2, renewDelay*3/2))
	}
}

// ownCame takes a record of ourselves: who has begun anew, with a clock that was set
// back, hears of its former self.
func (m *Machine) ownCame(l *link, raw []byte, seq uint64, at moment) error {
	if seq <= m.own.floor {
		if m.own.record != nil && seq < m.own.record.key.Seq {
			m.announce(l, m.own.record)
		}
		return nil
	}
	r, err := m.read(raw)
	if err != nil {
		return fmt.Errorf("gossip: %w", err)
	}
	if !l.looks.take(1, at) {
		m.stats.Unchecked++
		return nil
	}
	if sound, err := m.check(r, at); !sound {
		return err
	}
	m.own.floor, m.own.until = r.key.Seq, max(m.own.until, r.contact.Expires())
	m.own.changed = true
	m.renew(at)
	return nil
}
