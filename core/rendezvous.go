package crust

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/libcrust/libcrust/core/internal/dial"
	"github.com/libcrust/libcrust/core/internal/nat/punch"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// Connect dials the endpoints of a connection info. Where the peer cannot be dialled
// there are two more ways, which begin a little later, so that a direct TCP link is
// favoured, and which end with the call: peers that are connected to both introduce
// the two, or relay, as for ConnectPeer; and both sides punch, without anybody in
// between, when both call Connect with what the other has made. For that an info
// tells what its maker knew of its NATs.
//
// What is told so is old. External ports of a NAT that gives each peer another one are
// worth nothing then, so ports are never guessed here: a transport is punched when
// both sides' NATs have one port for all, or one side's lets everybody in. Both sides
// find the same from the two infos: each takes the peer's, and its own as it made it
// last. The two calls need not come together: each side punches again and again, in
// bursts with growing pauses that are not longer than a burst.
//
// Whoever has made an info may have named addresses of others in it. Nobody pays for
// what goes there, as the writer of a letter does (pay.go): one handshake is more than
// three times an info, and it is the program that has the addresses tried. So what
// one call sends to one address that does not answer is bounded by constants instead,
// to 64 KiB, however long the call lasts and however many endpoints the info has there:
// by mostDialed, and for punching by besideBytes; and for as long as there is a session
// with who has made the info, by infoMost. A program that takes infos of
// strangers decides how many calls it makes.

const (
	// besideHead is the head start of the endpoints of an info.
	besideHead = 200 * time.Millisecond
	// besideMost bounds how long peers are asked for the peer of an info.
	besideMost = 15 * time.Second
	// burstLife bounds one burst: a Machine sends for 10 s at most, of plans without guesses.
	burstLife = 10 * time.Second
	// burstPause is the first pause between bursts, doubled each time up to burstMost.
	burstPause = time.Second
	burstMost  = 8 * time.Second
	// burstPackets, burstDials and burstBytes bound a burst, the last as an Account does,
	// for addresses that have not answered. Nobody pays for them: it is the program
	// that has the addresses tried.
	burstPackets = 256
	burstDials   = 128
	burstBytes   = 6 << 10
	// besideBytes bounds all bursts of a call together, and leastBurst is what one is
	// worth beginning for: with 6 KiB each, the bursts of the first minute.
	besideBytes = 30 << 10
	leastBurst  = 1 << 10
	// infoMost is what dials of endpoints of an info may cost while there is a session,
	// in bytes, beside what the peer has paid for: as much as the call itself may send.
	infoMost = 64 << 10
)

// mostDialed is how many endpoints of one address are dialled in one attempt, of those
// that somebody has told of one peer. Peers have one port of each transport there, or
// two while it changes.
var mostDialed = map[Transport]int{TCP: 4, UTP: 2}

// moderate leaves those steps, in their order, that are dialled.
func moderate(steps []dial.Step) []dial.Step {
	type place struct {
		transport Transport
		addr      netip.Addr
	}
	count := make(map[place]int)
	return slices.DeleteFunc(steps, func(step dial.Step) bool {
		at := place{step.Endpoint.Transport, step.Endpoint.Addr.Addr()}
		count[at]++
		most, bounded := mostDialed[at.transport]
		return bounded && count[at] > most
	})
}

// Why a way beside the endpoints of an info was not gone.
var (
	errNoPeers    = errors.New("no peer is connected that could introduce the two or relay")
	errNotTold    = errors.New("the connection info does not tell of a NAT that could be opened")
	errOldFacts   = errors.New("the NATs give each peer another port, which only peers in between could tell in time")
	errNobodyCame = errors.New("nothing came from the peer, which must call as well")
)

// told is what an info tells beside endpoints. The zero value tells nothing.
func (i infoFacts) told() bool { return i.udp.External.IsValid() || i.tcp.External.IsValid() }

// infoFacts are the facts of the NATs in an info.
type infoFacts struct{ udp, tcp wire.NAT }

// beside is the ways of an attempt beside the endpoints of its info.
type beside struct {
	over chan struct{} // closed when they have ended
	why  []error       // set before that
}

// goBeside begins the ways of an attempt beside the endpoints of its info. It returns
// nil when there is none.
func (s *Service) goBeside(a *attempt) *beside {
	peers := len(s.some(1, a.peer)) > 0
	if !peers && !a.facts.told() {
		return nil
	}
	b := &beside{over: make(chan struct{})}
	s.spawn(func() {
		defer close(b.over)
		if !s.rest(a.ctx, besideHead) {
			return
		}
		why, sought := []error{errNoPeers, errNotTold}, make(chan struct{})
		s.spawn(func() {
			defer close(sought)
			if peers {
				why[0] = s.seekBeside(a)
			}
		})
		if a.facts.told() {
			why[1] = s.punchBeside(a)
		}
		<-sought
		b.why = why
	})
	return b
}

// besides waits for the ways beside an info's endpoints, and adds to what became of
// those why the others were of no use.
func (s *Service) besides(a *attempt, b *beside, err error) error {
	select {
	case <-b.over:
	case <-a.ctx.Done():
		<-b.over // soon
	}
	return &Error{Op: "connect", Peer: a.peer, Code: CodeOf(err), Err: sentences(append([]error{err}, b.why...))}
}

// seekBeside seeks the peer of an attempt as ConnectPeer does, in an attempt of its
// own, and returns why that was in vain.
func (s *Service) seekBeside(a *attempt) error {
	sought := &attempt{peer: a.peer, meets: true, quiet: true, gone: make(chan struct{})}
	s.mu.Lock()
	err := s.register(sought, min(besideMost, s.cfg.ConnectTimeout), s.runConnect)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	var answer <-chan time.Time
	if a.kept {
		timer := time.NewTimer(keepSeek)
		defer timer.Stop()
		answer = timer.C
	}
	for going := true; going; {
		select {
		case <-sought.gone:
			going = false
		case <-answer:
			s.mu.Lock()
			going = sought.endpoints != nil // a letter has come
			s.mu.Unlock()
			answer = nil
		case <-a.ctx.Done():
			going = false
		}
	}
	sought.cancel(CodeCanceled)
	<-sought.gone
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Errorf("by peers: %w", cmp.Or[error](sought.why, errNobody))
}

// punchBeside punches with the peer of an attempt until there is a session or the
// attempt has ended.
func (s *Service) punchBeside(a *attempt) error {
	if !s.allows(Punched) {
		return s.notAllowed(a.peer, Endpoint{})
	}
	s.mu.Lock()
	mine := s.made
	s.mu.Unlock()
	if !mine.told() {
		mine.udp, mine.tcp = s.facts()
	}
	ours := wire.Letter{UDP: mine.udp, TCP: mine.tcp}
	theirs := wire.Letter{Endpoints: a.endpoints[:min(len(a.endpoints), wire.MaxLetterEndpoints)], UDP: a.facts.udp, TCP: a.facts.tcp}
	udp, tcp := opens(ours.UDP, theirs.UDP), opens(ours.TCP, theirs.TCP)
	if !udp && !tcp {
		return errOldFacts
	}
	id := meetingID(a.peer[:])
	for i, b := range s.ID() { // the same on both sides
		if i < len(id) {
			id[i] ^= b
		}
	}
	cfg := punch.Config{UDP: udp, TCP: tcp, Budget: punch.Budget{Packets: burstPackets, Dials: burstDials}}
	left := besideBytes
	for pause := burstPause; ; pause = min(2*pause, burstMost) {
		if left < leastBurst {
			<-a.ctx.Done()
			return errNobodyCame
		}
		pays, err := s.newAccount(a.peer, id)
		if err != nil {
			return err
		}
		most := min(left, burstBytes)
		pays.earn(most)
		if p := s.punchWith(a, id, ours, theirs, cfg, burstLife, pays, math.MaxInt/2, func([]byte) {}); p != nil {
			p.start()
			p.begin()
			select {
			case <-p.done:
			case <-a.ctx.Done():
			}
		}
		left -= max(0, most-pays.left())
		if !s.rest(a.ctx, pause) {
			return errNobodyCame
		}
	}
}

// opens reports whether two NATs can be opened by what is known of them for long.
func opens(mine, theirs wire.NAT) bool {
	return theirs.External.IsValid() && punch.Plan(mine, theirs, true).Strategy == punch.Direct
}
