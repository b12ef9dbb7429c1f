package crust_test

import (
	"bytes"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/internal/simnet"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// introducer is a peer of a, b and c, the only one by whom a can find b, that does with letters what it likes.
type introducer struct {
	*evilRelay
	t       *testing.T
	a, b, c *node
	posts   sync.Mutex
	held    []post // what it delivers again
	taken   []post // all that it was given
}

// post is a letter on its way to a peer.
type post struct {
	to     crust.PeerID
	seek   bool
	id     [wire.MeetingID]byte
	letter []byte
}

// send delivers a letter to who it is for, or to whom it likes.
func (x *introducer) send(p post) {
	frame := wire.Reply{ID: p.id, Letter: p.letter}.Append(nil)
	if p.seek {
		frame = wire.Seek{ID: p.id, To: p.to, Hops: 1, Letter: p.letter}.Append(nil)
	}
	x.mu.Lock()
	sess := x.sessions[p.to]
	x.mu.Unlock()
	if sess != nil {
		sess.SendControl(frame)
	}
}

// TestLyingIntroducer: whatever who carries their letters does to them, the one that seeks a peer finds that peer or
// nobody; nobody else is connected to anybody, and no session of others ends.
func TestLyingIntroducer(t *testing.T) {
	late := func(x *introducer, p post, d time.Duration) { time.AfterFunc(d, func() { x.send(p) }) }
	const may, must, never = 0, 1, 2
	for name, c := range map[string]struct {
		do   func(x *introducer, p post)
		then int
	}{
		"carries": {func(x *introducer, p post) { x.send(p) }, must},
		"doubles": {func(x *introducer, p post) { x.send(p); x.send(p); late(x, p, time.Second); late(x, p, 90*time.Second) }, must},
		"delays":  {func(x *introducer, p post) { late(x, p, 2*time.Second) }, must},
		"drops":   {func(*introducer, post) {}, never},
		"drops what seeks": {func(x *introducer, p post) {
			if !p.seek {
				x.send(p)
			}
		}, never},
		"drops replies": {func(x *introducer, p post) {
			if p.seek {
				x.send(p)
			}
		}, may},
		"reorders": {func(x *introducer, p post) {
			late(x, p, time.Duration(4-len(x.taken)%4)*time.Second)
		}, may},
		"harms": {func(x *introducer, p post) {
			p.letter = bytes.Clone(p.letter)
			p.letter[len(p.letter)/2] ^= 1
			x.send(p)
		}, never},
		"harms the ends": {func(x *introducer, p post) {
			p.letter = append(bytes.Clone(p.letter[1:]), 0)
			x.send(p)
		}, never},
		"calls the meeting another": {func(x *introducer, p post) { p.id[0] ^= 1; x.send(p) }, never},
		"gives it to somebody else": {func(x *introducer, p post) {
			if p.seek {
				p.to = x.c.ID()
			}
			x.send(p)
		}, never},
		"says that it is for somebody else": {func(x *introducer, p post) {
			if p.seek {
				for _, n := range []*node{x.a, x.c} {
					q := p
					q.to = n.ID()
					x.send(q)
				}
			}
		}, never},
		"answers itself": {func(x *introducer, p post) {
			if p.seek {
				x.answer(p, "10.0.0.9:9")
			}
		}, never},
		"answers itself, and carries": {func(x *introducer, p post) {
			if p.seek {
				x.answer(p, "10.0.0.9:9")
			}
			late(x, p, 100*time.Millisecond)
		}, must},
		"sends it back": {func(x *introducer, p post) {
			p.to = map[crust.PeerID]crust.PeerID{x.a.ID(): x.b.ID(), x.b.ID(): x.a.ID()}[p.to]
			x.send(p)
		}, never},
		"sends old ones": {func(x *introducer, p post) {
			if x.a.Stats().SessionsTotal == 1 { // the first meeting
				x.send(p)
				return
			}
			for _, q := range x.held {
				x.send(q)
			}
		}, may},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := newIntroducer(t, c.do)
				defer x.end()
				if name == "sends old ones" {
					x.seek(1, must)
					x.posts.Lock()
					x.held = slices.Clone(x.taken)
					x.posts.Unlock()
					if err := x.a.Disconnect(x.b.ID()); err != nil {
						t.Fatal(err)
					}
					x.a.next(crust.EventLost)
					x.b.next(crust.EventLost)
					time.Sleep(2 * time.Minute)
				}
				x.seek(2, c.then)
			})
		})
	}
}

// newIntroducer connects three nodes to an introducer.
func newIntroducer(t *testing.T, do func(x *introducer, p post)) *introducer {
	internet := simnet.New(1)
	internet.SetDefaultLink(simnet.Link{Latency: 10 * time.Millisecond})
	keys := sortedKeys(t, 4)
	x := &introducer{t: t, evilRelay: newEvilRelay(t, internet.Host("10.0.0.9"), keys[3], nil)}
	x.see = func(wire.FrameType, []byte) {}
	x.signal = func(from crust.PeerID, kind wire.FrameType, body []byte) {
		p := post{to: x.b.ID()}
		if from == p.to {
			p.to = x.a.ID()
		}
		switch kind {
		case wire.FrameSeek:
			s, err := wire.ParseSeek(body)
			if err != nil || s.To != x.b.ID() {
				return
			}
			p.seek, p.id, p.letter = true, s.ID, bytes.Clone(s.Letter)
		case wire.FrameReply:
			r, err := wire.ParseReply(body)
			if err != nil {
				return
			}
			p.id, p.letter = r.ID, bytes.Clone(r.Letter)
		default:
			return
		}
		x.posts.Lock()
		defer x.posts.Unlock()
		x.taken = append(x.taken, p)
		do(x, p)
	}
	for i, n := range []**node{&x.a, &x.b, &x.c} {
		cfg := over(crust.Config{Identity: keys[i], ConnectTimeout: 20 * time.Second}, "0.0.0.0", "tcp")
		*n = newNode(t, crust.On(internet.Host("10.0.0."+string(rune('1'+i))), cfg))
		if err := (*n).ConnectEndpoint(crust.Contact{Endpoint: endpointAt("10.0.0.9:9"), Peer: x.id}, 1); err != nil {
			t.Fatal(err)
		}
		(*n).next(crust.EventConnected)
	}
	return x
}

// answer writes an answer in its own name, that tells where it is itself.
func (x *introducer) answer(p post, at string) {
	w := wire.Letter{Kind: wire.LetterAnswer, ID: p.id, Written: uint64(time.Now().UnixMilli()), Endpoints: []crust.Endpoint{endpointAt(at)}}
	sealed, err := x.secure.SealLetter(nil, x.a.ID(), w.Append(nil))
	if err != nil {
		x.t.Fatal(err)
	}
	x.send(post{to: x.a.ID(), id: p.id, letter: sealed})
}

// seek has a look for b, and holds what must be so afterwards.
func (x *introducer) seek(token uint64, then int) {
	x.t.Helper()
	if err := x.a.ConnectPeer(x.b.ID(), token); err != nil {
		x.t.Fatal(err)
	}
	e := x.a.final(x.t, token)
	found := e.Type == crust.EventConnected
	if found && e.Peer != x.b.ID() || found && then == 2 || !found && then == 1 {
		x.t.Errorf("%v with %v: %v", e.Type, e.Peer.Short(), e.Err())
	}
	x.posts.Lock()
	letters := len(x.taken)
	x.posts.Unlock()
	if letters == 0 {
		x.t.Error("no letter was sent: this test shows nothing")
	}
	time.Sleep(3 * time.Minute)
	for n, others := range map[*node][]crust.PeerID{x.a: {x.b.ID()}, x.b: {x.a.ID()}, x.c: nil} {
		for _, e := range n.rest() {
			if (e.Type != crust.EventConnected || !slices.Contains(others, e.Peer)) && token != 1 {
				x.t.Errorf("%v of %v: %v", e.Type, e.Peer.Short(), e.Err())
			}
		}
		if p, ok := n.Peer(x.id); !ok || p.Suspended || p.Resumed != 0 {
			x.t.Errorf("the session of %v with who carries letters has ended", n.ID().Short())
		}
		for _, p := range n.Peers() {
			if p.Peer != x.id && !slices.Contains(others, p.Peer) {
				x.t.Errorf("%v has a session with %v", n.ID().Short(), p.Peer.Short())
			}
		}
	}
}

// end closes all.
func (x *introducer) end() {
	for _, n := range []*node{x.a, x.b, x.c} {
		n.Close()
	}
	x.close()
}
