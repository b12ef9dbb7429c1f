package observe

import (
	"slices"
	"time"

	"github.com/libcrust/libcrust/core/internal/wire"
)

// Probe is something that can be measured.
type Probe uint8

const (
	// AskVotes: ask observers of different networks what they see (Observe).
	AskVotes Probe = iota
	// AskSample: send to three or more observers at once from a new socket, or from one
	// that has not sent to them before (Sample).
	AskSample
	// AskPort: ask an observer from which we have a vote, at another port of the same
	// address (Observe).
	AskPort
	// AskStranger: have an address that we never sent to send a probe (Arrived, Missed).
	AskStranger
	// AskNeighbour: have an observer that we have sent to send a probe from another
	// port (Arrived, Missed).
	AskNeighbour
	// AskHairpin: send a probe to our own external endpoint (SetHairpin).
	AskHairpin
	// AskSocket: ask observers of different networks about one socket (Observe).
	AskSocket
)

// String returns the name without "Ask", in lower case.
func (p Probe) String() string {
	return [...]string{"votes", "sample", "port", "stranger", "neighbour", "hairpin", "socket"}[min(p, AskSocket)]
}

// Wish is what should be measured, not before At.
type Wish struct {
	Probe Probe
	At    time.Time
}

const (
	// wantSequential and wantOther are how many samples tell enough: two a second
	// apart for a step and a rate, three for the bounds of a block.
	wantSequential = 2
	wantOther      = 3
	// samplePause is the time between them.
	samplePause = time.Second
	// voteRenewal is the age at which votes and samples are asked for again.
	voteRenewal = VoteLife / 2
)

// Wishes returns what should be measured of a flow, the earliest first and of equal
// ones the most useful; what cannot be had may be left out. Those that wait for
// others are not listed: ask again after each answer.
func (m *Machine) Wishes(f Flow, now time.Time) []Wish {
	if f.Proto >= protos {
		return nil
	}
	k, v := m.widest(f, now)
	if v == nil || !k.realm.wide() {
		return []Wish{{AskVotes, now}}
	}
	j := m.judge(k, v, now)
	var out []Wish
	wish := func(p Probe, at time.Time) {
		if at.Before(now) {
			at = now
		}
		out = append(out, Wish{p, at})
	}
	if dialled, _ := v.voters(); len(dialled) < electing {
		wish(AskVotes, now)
	} else {
		wish(AskVotes, dialled[electing-1].at.Add(voteRenewal))
	}
	if j.NAT.Mapping == wire.DependsUnknown && len(v.dialled)+len(v.inbound) > 0 {
		wish(AskSocket, now)
	}
	if j.NAT.Mapping >= wire.AddressDependent {
		wish(AskSample, v.nextSample(j.ports, now))
		if !j.pairs {
			wish(AskPort, now)
		}
	}
	if j.NAT.Filtering != wire.EndpointIndependent {
		switch filtered := v.filter.filtered(Stranger); {
		case !filtered:
			wish(AskStranger, now)
		case j.NAT.Filtering == wire.DependsUnknown:
			wish(AskNeighbour, now)
		}
	}
	if !j.HairpinKnown && !j.None && j.NAT.External.IsValid() {
		wish(AskHairpin, now)
	}
	slices.SortStableFunc(out, func(a, b Wish) int { return a.At.Compare(b.At) })
	return out
}

// nextSample returns when the next sample tells something.
func (v *view) nextSample(a allocation, now time.Time) time.Time {
	if len(v.samples) == 0 {
		return now
	}
	s := v.samples[len(v.samples)-1]
	last := s[len(s)-1].at
	enough := wantOther
	if a.rule == wire.PortsSequential {
		enough = wantSequential
	}
	if a.samples < enough {
		return last.Add(samplePause)
	}
	return last.Add(voteRenewal)
}
