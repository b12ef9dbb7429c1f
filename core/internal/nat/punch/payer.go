package punch

import (
	"slices"
	"time"
)

// Payer tells what the peer must have been paid, so that its Machine need not wait: it
// runs that very machine, which both sides can make of what they told each other, ahead
// of the time and with nobody answering. It is not safe for use by several goroutines.
type Payer struct {
	m     *Machine
	now   time.Time
	ends  []ending
	began int // what its account began with
	over  bool
}

// ending is when a dial that nobody answers ends.
type ending struct {
	at time.Time
	id int
}

// errUnanswered is how dials end.
var errUnanswered error = unanswered{}

type unanswered struct{}

func (unanswered) Error() string { return "nobody answers" }
func (unanswered) Timeout() bool { return true }

// endless is more than a machine can spend.
const endless = 1 << 30

// NewPayer returns a payer for the peer's machine, made of what ours is made of. It
// shoots at once: the peer does as soon as it gets the next letter.
func NewPayer(c Config, now time.Time) *Payer {
	theirs := Config{
		Mine: c.Theirs, Theirs: c.Mine, Larger: !c.Larger, RTT: c.RTT, Waits: !c.Waits, Seed: ^c.Seed, UDP: c.UDP, TCP: c.TCP, Account: &Account{},
	}
	theirs.Account.Earn(endless)
	p := &Payer{m: New(theirs, now), now: now, began: theirs.Account.Left()}
	p.m.Shoot(now)
	return p
}

// Until returns how many bytes the peer's machine will have sent by then to addresses
// that stay silent. Times must not go back.
func (p *Payer) Until(at time.Time) (bytes int) {
	for !p.over && !p.now.After(at) {
		acts, next := p.m.Poll(p.now)
		opened := 0
		for _, act := range acts {
			switch act := act.(type) {
			case Open:
				opened = act.Sockets
			case Dial:
				p.ends = append(p.ends, ending{p.now.Add(max(act.Timeout, time.Millisecond)), act.ID})
			case Stop:
				p.ends = slices.DeleteFunc(p.ends, func(e ending) bool { return e.id == act.ID })
			}
		}
		if opened > 0 {
			p.m.Opened(p.now, opened)
			continue
		}
		for _, e := range p.ends {
			next = sooner(next, e.at)
		}
		if p.over = next.IsZero(); p.over || next.After(at) {
			break
		}
		p.now = latest(p.now, next)
		p.ends = slices.DeleteFunc(p.ends, func(e ending) bool {
			if e.at.After(p.now) {
				return false
			}
			p.m.Dialled(p.now, e.id, errUnanswered)
			return true
		})
	}
	return p.began - p.m.account.Left()
}
