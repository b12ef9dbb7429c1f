package secure

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// The handshake over streams is a function of what comes in and of randomness. So all
// that an attacker on the path can do with a few handshakes at once is a finite
// graph: whatever has been sent, and what he can make of it, may go into whichever
// end, in any order, twice or never; and at any moment an end may run out of time. He knows the name of
// the network, so that he can take flights apart and put them together again, and is
// a member of it himself; he has no key of the others.

// seat is one end of one handshake.
type seat struct {
	name      string
	cfg       *Config
	initiator bool
	expect    identity.PeerID
	seed      byte
	gets      *wire.OneTimeKey // of an initiator: right behind its first flight
	has       *OneTime         // of a responder: what it answers with
}

// came is how far a seat has got with what has come.
type came struct {
	in      string // all of it
	flights []int  // what it has sent, as numbers of messages
	link    *Link
	err     error
	// The Noise messages of the first flight that it has read, and sent.
	read, sent string
	early      *early // what it has made of a one-time key
	class      int    // what is the same for all that may follow
	then       map[int]*came
}

func (c *came) waits() bool { return c.link == nil && errors.Is(c.err, os.ErrDeadlineExceeded) }

// early is a link that a one-time key has made, and the message that is made up for it.
type early struct {
	link   *Link
	second string
}

// view returns what a seat has read, and the link of that: when nothing has come yet, what it
// has made up.
func (c *came) view() (read string, link *Link) {
	if c.link == nil && c.early != nil {
		return c.early.second, c.early.link
	}
	return c.read, c.link
}

// tape is a connection over which something has come, in pieces of so many bytes,
// and then nothing until the deadline.
type tape struct {
	script
	piece   int
	flights []string
}

func (s *tape) Read(b []byte) (int, error) {
	if s.in.Len() == 0 {
		return 0, os.ErrDeadlineExceeded
	}
	return s.in.Read(b[:min(len(b), s.piece)])
}

func (s *tape) Write(b []byte) (int, error) {
	s.flights = append(s.flights, string(b))
	return len(b), nil
}

// play runs a seat with all that has come, and returns what it has sent. When the
// key of what has come was seen before, blind is set.
func (s *seat) play(in string, blind bool, piece int) (link *Link, made *early, flights []string, err error) {
	cfg := *s.cfg
	cfg.Random, cfg.Seen = deterministic(s.seed), new(Seen)
	if blind {
		message, _ := noiseOf(s.cfg, in)
		cfg.Seen.Add([]byte(message))
	}
	conn := &tape{script: *replay([]byte(in)), piece: piece}
	switch {
	case s.gets != nil:
		var c *Call
		if c, err = NewCall(conn, &cfg, s.expect); err != nil {
			return nil, nil, nil, err
		}
		made = new(early)
		if made.link, err = c.Early(s.gets, madeAt); err != nil {
			return nil, nil, nil, err
		}
		made.second = string(c.second)
		var was bool
		link, _, was, err = c.Shake()
		conn.flights = append(conn.flights, string(made.link.First))
		if was {
			return link, made, conn.flights, err
		}
	case s.initiator:
		link, err = Initiate(conn, &cfg, s.expect)
	case s.has != nil:
		key := *s.has
		key.pair.Private = slices.Clone(key.pair.Private)
		link, err = RespondOnce(conn, &cfg, &key)
	default:
		link, err = Respond(conn, &cfg)
	}
	if link != nil && s.initiator {
		conn.flights = append(conn.flights, string(link.First))
	}
	return link, made, conn.flights, err
}

// explorer walks the graph of a few seats.
type explorer struct {
	t        *testing.T
	seats    []*seat
	messages []string
	numbers  map[string]int
	bent     map[int][]int
	strange  []int  // messages of other handshakes
	seen     string // the keys of those that the services have answered
	played   map[string]*came
	classes  map[string]int
	visited  map[state]bool
	steps    int
	complete map[string]int // how often which seats were complete together
}

// state is what each seat has come to, and its classes tell states apart.
type (
	node  [4]*came
	state [4]int
)

func newExplorer(t *testing.T, seats []*seat, strange []string) *explorer {
	x := &explorer{
		t: t, seats: seats, numbers: map[string]int{}, bent: map[int][]int{}, played: map[string]*came{},
		classes: map[string]int{}, visited: map[state]bool{}, complete: map[string]int{},
	}
	for _, m := range strange {
		x.strange = append(x.strange, x.number(m))
	}
	return x
}

// number names a message.
func (x *explorer) number(m string) int {
	n, ok := x.numbers[m]
	if !ok {
		n = len(x.messages)
		x.messages = append(x.messages, m)
		x.numbers[m] = n
	}
	return n
}

// run plays a seat, or remembers how that went.
func (x *explorer) run(i int, in string, blind bool) *came {
	key := fmt.Sprint(i, blind, in)
	if c := x.played[key]; c != nil {
		return c
	}
	c := &came{in: in, then: map[int]*came{}}
	link, made, flights, err := x.seats[i].play(in, blind, 1<<16)
	c.link, c.early, c.err = link, made, err
	if link != nil || len(x.played)%8 == 0 { // however the bytes come
		if again, _, other, _ := x.seats[i].play(in, blind, 7); !slices.Equal(flights, other) || (again == nil) != (link == nil) {
			x.t.Errorf("%s: the bytes came in pieces, and it makes a difference", x.seats[i].name)
		}
	}
	c.read, _ = x.noiseOf(in)
	for k, f := range flights {
		c.flights = append(c.flights, x.number(f))
		if k == 0 {
			c.sent, _ = x.noiseOf(f)
		}
	}
	// What has gone into a seat that is done is of no consequence any more, nor is
	// how the flights looked that one has read which waits for the next.
	what := "done"
	if c.waits() {
		what = "waits"
		if !x.seats[i].initiator && len(c.flights) > 0 {
			what += c.read[:ephemeral]
		}
	} else if c.link != nil {
		what = "linked" + string(c.link.Open.half.key[:])
	}
	class := fmt.Sprint(i, c.flights, what)
	n, ok := x.classes[class]
	if !ok {
		n = len(x.classes)
		x.classes[class] = n
	}
	c.class = n
	x.played[key] = c
	return c
}

// next has a message come to a seat.
func (x *explorer) next(n node, i, message int) *came {
	c := n[i].then[message]
	if c == nil {
		c = x.run(i, n[i].in+x.messages[message], false)
		n[i].then[message] = c
	}
	if x.seats[i].initiator || len(n[i].flights) > 0 || len(c.flights) == 0 {
		return c
	}
	key := c.read[:ephemeral] // it answers: is the key new?
	used := strings.Contains(x.seen, key)
	for k, other := range n {
		if k != i && x.seats[k].cfg == x.seats[i].cfg && !x.seats[k].initiator && len(other.flights) > 0 {
			used = used || other.read[:ephemeral] == key
		}
	}
	if used {
		return x.run(i, c.in, true)
	}
	return c
}

// bend returns what an attacker makes of a flight: changed in its nonce, its length, the first and
// last byte of the Noise message, cut, and the same Noise message in another flight.
func (x *explorer) bend(flight int) []int {
	if out, ok := x.bent[flight]; ok {
		return out
	}
	const head = wire.FlightNonce + wire.FlightHeader
	message, ok := x.noiseOf(x.messages[flight])
	if !ok {
		x.t.Fatal("a flight of ours is none")
	}
	other := *x.seats[0].cfg
	other.Random = deterministic(99)
	again, err := other.appendFlight(nil, []byte(message))
	if err != nil {
		x.t.Fatal(err)
	}
	out := []int{x.number(x.messages[flight][:head+len(message)-1]), x.number(string(again))}
	for _, at := range []int{0, wire.FlightNonce, head, head + len(message) - 1} {
		b := []byte(x.messages[flight])
		b[at] ^= 1
		out = append(out, x.number(string(b)))
	}
	x.bent[flight] = out
	return out
}

// noiseOf returns the Noise message of the flight at the begin of in.
func (x *explorer) noiseOf(in string) (string, bool) { return noiseOf(x.seats[0].cfg, in) }

// ephemeral is the size of the key that a first message begins with.
const ephemeral = 32

// noiseOf returns the Noise message of the flight at the begin of in.
func noiseOf(cfg *Config, in string) (string, bool) {
	h := &handshake{cfg: cfg, conn: replay([]byte(in)), buf: make([]byte, 0, flightBuffer)}
	message, _, err := h.readFlight()
	return string(message), err == nil
}

// explore walks on from a node, with the messages that there are.
func (x *explorer) explore(n node) {
	at := state{n[0].class, n[1].class, n[2].class, n[3].class}
	if x.visited[at] {
		return
	}
	x.visited[at] = true
	x.check(n)
	pool := slices.Clone(x.strange)
	for _, c := range n {
		for _, f := range c.flights {
			pool = append(append(pool, f), x.bend(f)...)
		}
	}
	for i, c := range n {
		if c.waits() {
			x.deliver(n, i, pool, 2)
		}
	}
}

// deliver has each message come to a seat. After one that it has taken for a part of a flight
// only, which changes nothing for others, more may come, up to some number.
func (x *explorer) deliver(n node, i int, pool []int, more int) {
	for _, m := range pool {
		x.steps++
		c, to := x.next(n, i, m), n
		to[i] = c
		if c.waits() && len(c.flights) == len(n[i].flights) {
			if more > 1 {
				x.deliver(to, i, pool, more-1)
			}
			continue
		}
		x.explore(to)
	}
}

// check holds what must be so in every node.
func (x *explorer) check(n node) {
	var names []string
	for i, c := range n {
		s := x.seats[i]
		if !s.initiator && len(c.flights) > 0 {
			x.silent(n, i)
		}
		if c.link == nil {
			continue
		}
		names = append(names, s.name)
		if !s.expect.IsZero() && c.link.Remote.Peer != s.expect {
			x.t.Fatalf("%s is linked with another peer than it wanted", s.name)
		}
		x.agree(n, i)
	}
	x.complete[strings.Join(names, " ")]++
}

// silent: a responder says nothing but to a first flight that an initiator of its
// network has made, and that its service has not answered before.
func (x *explorer) silent(n node, i int) {
	key := n[i].read[:ephemeral]
	for k, other := range n {
		if k != i && x.seats[k].cfg == x.seats[i].cfg && !x.seats[k].initiator && len(other.flights) > 0 && other.read[:ephemeral] == key {
			x.t.Fatalf("%s has answered what %s has", x.seats[i].name, x.seats[k].name)
		}
	}
	if strings.Contains(x.seen, key) {
		x.t.Fatalf("%s has answered what its service has", x.seats[i].name)
	}
	for _, m := range x.strange {
		if noise, ok := x.noiseOf(x.messages[m]); ok && noise == n[i].read {
			return
		}
	}
	for k, c := range n {
		if x.seats[k].initiator && c.sent == n[i].read {
			return
		}
	}
	x.t.Fatalf("%s has answered what nobody has asked", x.seats[i].name)
}

// agree: who is linked has one partner, which is who it takes it for, and of which each has
// read what the other has sent. The partner of a responder is linked with it, under
// the same keys; so is that of an initiator, when it is linked.
func (x *explorer) agree(n node, i int) {
	s, c := x.seats[i], n[i]
	partners := 0
	for k, d := range n {
		r := x.seats[k]
		read, link := d.view()
		if r.initiator == s.initiator || r.cfg.Key.ID() != c.link.Remote.Peer || read == "" || read != c.sent || c.read != d.sent {
			continue
		}
		partners++
		switch {
		case link == nil && !s.initiator:
			x.t.Fatalf("%s is linked with %s, which is not", s.name, r.name)
		case link == nil:
		case link.Remote.Peer != s.cfg.Key.ID():
			x.t.Fatalf("%s takes %s for another one", r.name, s.name)
		case link.Seal.half.key != c.link.Open.half.key || link.Open.half.key != c.link.Seal.half.key || link.Cipher != c.link.Cipher:
			x.t.Fatalf("%s and %s have different keys", s.name, r.name)
		}
	}
	if partners != 1 {
		x.t.Fatalf("%s is linked, with %d partners", s.name, partners)
	}
}

// recordedHandshake is the three flights of a handshake that is over.
func recordedHandshake(t *testing.T, a, b *Config) (flights []string) {
	t.Helper()
	initiator := &seat{cfg: a, initiator: true, expect: b.Key.ID(), seed: 31}
	responder := &seat{cfg: b, seed: 32}
	_, _, sent, _ := initiator.play("", false, 1<<16)
	_, _, answer, _ := responder.play(sent[0], false, 1<<16)
	_, _, sent, _ = initiator.play(answer[0], false, 1<<16)
	if link, _, _, err := responder.play(strings.Join(sent, ""), false, 1<<16); link == nil {
		t.Fatal("there is nothing to record: ", err)
	}
	return append(sent, answer...)
}

// TestStatesOfStreams walks through all states of handshakes that an attacker can bring about,
// and holds in each that the ends agree, that nobody is taken for another, that a
// responder is silent until it has been asked, and that no key encrypts two texts under
// one number.
func TestStatesOfStreams(t *testing.T) {
	ledger := watch(t)
	images := new(Images)
	member := func(fill byte, network string) *Config {
		c := seeded(t, fill, network)
		c.Images = images
		return c
	}
	a, b, c, evil := member(1, "n"), member(2, "n"), member(3, "n"), member(4, "n")
	anybody := identity.PeerID{}
	recorded, elsewhere := recordedHandshake(t, a, b), recordedHandshake(t, member(1, "m"), member(2, "m"))
	goroutines := runtime.NumGoroutine()
	states, steps, ends := 0, 0, 0
	seed := byte(40)
	key, secret := oneTime(t, b)
	unused, _ := oneTime(t, b)
	settings := map[string][]*seat{
		"two of one": {
			{name: "A1", cfg: a, initiator: true, expect: b.Key.ID()}, {name: "A2", cfg: a, initiator: true, expect: b.Key.ID()},
			{name: "B1", cfg: b}, {name: "B2", cfg: b},
		},
		"of two": {
			{name: "A", cfg: a, initiator: true, expect: b.Key.ID()}, {name: "C", cfg: c, initiator: true, expect: anybody},
			{name: "B1", cfg: b}, {name: "B2", cfg: b},
		},
		"to two": {
			{name: "A to B", cfg: a, initiator: true, expect: b.Key.ID()}, {name: "A to C", cfg: a, initiator: true, expect: c.Key.ID()},
			{name: "B", cfg: b}, {name: "C", cfg: c},
		},
		"to each other": {
			{name: "A", cfg: a, initiator: true, expect: b.Key.ID()}, {name: "B", cfg: b, initiator: true, expect: a.Key.ID()},
			{name: "B accepts", cfg: b}, {name: "A accepts", cfg: a},
		},
		"an insider between": {
			{name: "A", cfg: a, initiator: true, expect: b.Key.ID()}, {name: "E", cfg: evil, initiator: true, expect: anybody},
			{name: "B", cfg: b}, {name: "E accepts", cfg: evil},
		},
		"by a one-time key": {
			{name: "A", cfg: a, initiator: true, expect: b.Key.ID(), gets: &key}, {name: "E", cfg: evil, initiator: true, expect: anybody},
			{name: "B with the key", cfg: b, has: secret}, {name: "B", cfg: b},
		},
		"two by one key": {
			{name: "A", cfg: a, initiator: true, expect: b.Key.ID(), gets: &key}, {name: "C", cfg: c, initiator: true, expect: b.Key.ID(), gets: &key},
			{name: "B with the key", cfg: b, has: secret}, {name: "B", cfg: b},
		},
		"by another key": {
			{name: "A", cfg: a, initiator: true, expect: b.Key.ID(), gets: &unused}, {name: "C", cfg: c, initiator: true, expect: b.Key.ID(), gets: &key},
			{name: "B with a key", cfg: b, has: secret}, {name: "B", cfg: b},
		},
		"an insider, and whoever answers": {
			{name: "A", cfg: a, initiator: true, expect: anybody}, {name: "E", cfg: evil, initiator: true, expect: anybody},
			{name: "B", cfg: b}, {name: "E accepts", cfg: evil},
		},
	}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		seats := settings[name]
		if !thorough && name != "two of one" && name != "an insider between" && name != "by a one-time key" {
			continue
		}
		for _, s := range seats { // nothing random is the same twice
			s.seed = seed
			seed++
		}
		for _, restarted := range []bool{false, true} {
			if !thorough && restarted {
				continue
			}
			x := newExplorer(t, seats, slices.Concat(recorded, elsewhere[:1]))
			if !restarted {
				message, _ := noiseOf(a, recorded[0])
				x.seen = message[:ephemeral]
			}
			var begin node
			for i := range begin {
				begin[i] = x.run(i, "", false)
			}
			x.explore(begin)
			t.Logf("%s, restarted %v: %d states, %d steps, %d runs of an end; linked: %v", name, restarted, len(x.visited), x.steps, len(x.played), x.complete)
			if len(x.complete) < 4 {
				t.Errorf("%s: so few are linked: %v", name, x.complete)
			}
			states, steps, ends = states+len(x.visited), steps+x.steps, ends+len(x.played)
		}
	}
	if n := runtime.NumGoroutine(); n > goroutines {
		t.Errorf("%d goroutines are left of %d", n, goroutines)
	}
	t.Logf("%d states, %d steps between them, %d runs of an end, %d texts encrypted", states, steps, ends, len(ledger.sealed))
}
