package beacon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/endpoint"
	"github.com/libcrust/libcrust/core/internal/netio"
	"github.com/libcrust/libcrust/core/internal/secure"
	"github.com/libcrust/libcrust/core/internal/simnet"
	"github.com/libcrust/libcrust/core/internal/wire"
)

const port = 5484

// lan is a LAN of a simulated host.
type lan struct {
	host *simnet.Host
	wg   *sync.WaitGroup
}

func (l lan) Segments() ([]Segment, error) {
	all, err := l.host.Segments()
	var list []Segment
	for _, s := range all {
		list = append(list, Segment(s))
	}
	return list, err
}

type socket struct{ netio.CastConn }

func (s socket) Join(to Segment) error { return s.CastConn.Join(netio.Segment(to)) }

func (l lan) serve(conn netio.CastConn, err error, take Take) (Socket, error) {
	if err != nil {
		return nil, err
	}
	l.wg.Go(func() {
		buf := make([]byte, 2000)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			take(from, buf[:n])
		}
	})
	return socket{conn}, nil
}

func (l lan) Ear(six bool, port uint16, take Take) (Socket, error) {
	conn, err := l.host.ListenShared(context.Background(), six, port)
	return l.serve(conn, err, take)
}

func (l lan) Mouth(s Segment, take Take) (Socket, error) {
	conn, err := l.host.ListenCast(context.Background(), netio.Segment(s))
	return l.serve(conn, err, take)
}

// station is a beacon at work.
type station struct {
	*Beacon
	host  *simnet.Host
	key   *identity.Key
	seal  *secure.BeaconKey
	began time.Time
	end   context.CancelFunc
	wg    sync.WaitGroup
	log   logged

	mu    sync.Mutex
	facts []Fact
	when  []time.Duration // since it began
	own   Own
}

// logged keeps what is logged.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// at returns what a service tells that listens at endpoints.
func at(eps ...string) (own Own) {
	for _, text := range eps {
		ep, err := endpoint.Parse(text)
		if err != nil {
			panic(err)
		}
		own.Listen, own.Endpoints = append(own.Listen, ep), append(own.Endpoints, ep)
	}
	return own
}

// newKey makes an identity.
func newKey(t testing.TB) *identity.Key {
	key, err := identity.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// sealer makes the key of a network name.
func sealer(t testing.TB, network string) *secure.BeaconKey {
	k, err := (&secure.Config{Network: secure.NewNetwork(network)}).NewBeaconKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// newStation makes a beacon that does not run.
func newStation(t *testing.T, host *simnet.Host, network string, own Own, quiet bool) *station {
	s := &station{host: host, key: newKey(t), seal: sealer(t, network), own: own}
	s.Beacon = New(Config{
		Self: s.key.ID(), Sign: s.key.Sign, Seal: s.seal.Seal, Open: s.seal.Open, LAN: lan{host, &s.wg}, Port: port, Quiet: quiet,
		Own: func() Own {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.own
		},
		Tell: func(f Fact) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.facts, s.when = append(s.facts, f), append(s.when, time.Since(s.began))
		},
		Log: slog.New(slog.NewTextHandler(&s.log, nil)),
	})
	return s
}

// run starts it; stop ends it.
func (s *station) run() *station {
	ctx, end := context.WithCancel(context.Background())
	s.end, s.began = end, time.Now()
	s.wg.Go(func() { s.Run(ctx) })
	return s
}

func (s *station) stop() {
	s.end()
	s.wg.Wait()
}

// told returns the facts so far and when they came, and forgets them.
func (s *station) told() ([]Fact, []time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	facts, when := s.facts, s.when
	s.facts, s.when = nil, nil
	return facts, when
}

// wants checks the facts so far: each is "+" or "-" and a station.
func (s *station) wants(t *testing.T, what string, want ...any) []time.Duration {
	t.Helper()
	facts, when := s.told()
	var got []any
	for _, f := range facts {
		got = append(got, map[FactKind]string{Discovered: "+", Forgotten: "-"}[f.Kind], f.Peer.ID)
	}
	for i, w := range want {
		if o, ok := w.(*station); ok {
			want[i] = o.key.ID()
		}
	}
	if len(got) == 0 && len(want) == 0 || reflect.DeepEqual(got, want) {
		return when
	}
	t.Errorf("%s: told %v, want %v", what, got, want)
	return when
}

// TestDiscovery: two that begin one after the other find each other at once, over either
// family and both, on one host and on two, and at loopback addresses alone.
func TestDiscovery(t *testing.T) {
	for name, c := range map[string]struct {
		a, b    string // addresses; b is on the same host when empty
		at      [2]string
		first   [2]string // endpoint that is told of each
		network string    // of the second, when it is another
	}{
		"IPv4":                {"10.0.0.1", "10.0.0.2", [2]string{"tcp://0.0.0.0:1", "tcp://0.0.0.0:2"}, [2]string{"tcp://10.0.0.1:1", "tcp://10.0.0.2:2"}, ""},
		"IPv6":                {"fd00::1", "fd00::2", [2]string{"utp://[::]:1", "tcp://[::]:2"}, [2]string{"utp://[fd00::1]:1", "tcp://[fd00::2]:2"}, ""},
		"both":                {"10.0.0.1 fd00::1", "10.0.0.2 fd00::2", [2]string{"tcp://[::]:1", "tcp://[::]:2"}, [2]string{"tcp://10.0.0.1:1", "tcp://10.0.0.2:2"}, ""},
		"one host":            {"10.0.0.1", "", [2]string{"tcp://0.0.0.0:1", "tcp://0.0.0.0:2"}, [2]string{"tcp://10.0.0.1:1", "tcp://10.0.0.1:2"}, ""},
		"one host, offline":   {"", "", [2]string{"tcp://0.0.0.0:1", "tcp://0.0.0.0:2"}, [2]string{"tcp://127.0.0.1:1", "tcp://127.0.0.1:2"}, ""},
		"one host, loopback":  {"10.0.0.1", "", [2]string{"tcp://127.0.0.1:1", "tcp://127.0.0.1:2"}, [2]string{"tcp://127.0.0.1:1", "tcp://127.0.0.1:2"}, ""},
		"one of them on all":  {"10.0.0.1", "", [2]string{"tcp://127.0.0.1:1", "tcp://0.0.0.0:2"}, [2]string{"tcp://127.0.0.1:1", "tcp://10.0.0.1:2"}, ""},
		"other names":         {"10.0.0.1", "10.0.0.2", [2]string{"tcp://0.0.0.0:1", "tcp://0.0.0.0:2"}, [2]string{}, "other"},
		"other names, host":   {"10.0.0.1", "", [2]string{"tcp://0.0.0.0:1", "tcp://0.0.0.0:2"}, [2]string{}, "other"},
		"other networks":      {"10.0.0.1", "10.0.1.2", [2]string{"tcp://0.0.0.0:1", "tcp://0.0.0.0:2"}, [2]string{}, ""},
		"loopback, two hosts": {"10.0.0.1", "10.0.0.2", [2]string{"tcp://127.0.0.1:1", "tcp://127.0.0.1:2"}, [2]string{}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := simnet.New(1)
				net.SetDefaultLink(simnet.Link{Latency: time.Millisecond})
				ha := net.Host(strings.Fields(c.a)...)
				hb := ha
				if c.b != "" {
					hb = net.Host(strings.Fields(c.b)...)
				}
				network := "net"
				if c.network != "" {
					network = c.network
				}
				a := newStation(t, ha, "net", at(c.at[0]), false)
				b := newStation(t, hb, network, at(c.at[1]), false)
				a.setEndpoints(t, ha)
				b.setEndpoints(t, hb)
				a.run()
				defer a.stop()
				time.Sleep(30 * time.Second)
				a.wants(t, "alone")
				b.run()
				defer b.stop()
				time.Sleep(30 * time.Second)
				if c.first[0] == "" {
					a.wants(t, "the first")
					b.wants(t, "the second")
					if len(a.Peers())+len(b.Peers()) > 0 {
						t.Error("somebody was heard")
					}
					return
				}
				for i, s := range []*station{b, a} {
					facts, when := s.told()
					if len(facts) == 0 || facts[0].Kind != Discovered || facts[0].Peer.ID != []*station{a, b}[i].key.ID() || len(facts) > 2 {
						t.Fatalf("station %d was told %+v", 1-i, facts)
					}
					last := facts[len(facts)-1].Peer
					if last.Endpoints[0].String() != c.first[i] {
						t.Errorf("station %d: %v, want first %s", 1-i, last.Endpoints, c.first[i])
					}
					if s == b && when[0] > 250*time.Millisecond {
						t.Errorf("after %v", when[0])
					}
					if list := s.Peers(); len(list) != 1 || list[0].ID != last.ID || list[0].Endpoints[0] != last.Endpoints[0] || time.Since(list[0].Heard) > 30*time.Second {
						t.Errorf("%+v", list)
					}
				}
			})
		})
	}
}

// setEndpoints names the addresses of a host for what a station listens at.
func (s *station) setEndpoints(t *testing.T, h *simnet.Host) {
	addrs, err := h.Addrs()
	if err != nil {
		t.Fatal(err)
	}
	own := s.own
	own.Endpoints = nil
	for _, l := range own.Listen {
		for _, a := range addrs {
			covers := l.Addr.Addr() == a || l.Addr.Addr().IsUnspecified() && (a.Is4() || l.Addr.Addr().Is6())
			if covers && (!a.IsLoopback() || len(addrs) == 2 || l.Addr.Addr().IsLoopback()) {
				own.Endpoints = append(own.Endpoints, endpoint.New(l.Transport, netip.AddrPortFrom(a, l.Addr.Port())))
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.own = own
}

// sent is a datagram that was sent.
type sent struct {
	from, to netip.AddrPort
	data     []byte
	at       time.Time
}

// watched keeps what is sent.
type watched struct {
	mu   sync.Mutex
	list []sent
}

func watch(net *simnet.Net) *watched {
	w := new(watched)
	net.Watch(func(from, to netip.AddrPort, data []byte) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.list = append(w.list, sent{from, to, slices.Clone(data), time.Now()})
	})
	return w
}

// take returns what was sent from and to an address, and forgets all.
func (w *watched) take(from, to string) (list []sent) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.list {
		if (from == "" || s.from.Addr() == netip.MustParseAddr(from)) && (to == "" || s.to.Addr() == netip.MustParseAddr(to)) {
			list = append(list, s)
		}
	}
	w.list = nil
	return list
}

// pair is two stations in one network.
func pair(t *testing.T, f func(t *testing.T, net *simnet.Net, a, b *station)) {
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New(1)
		a := newStation(t, net.Host("10.0.0.1"), "net", at("tcp://10.0.0.1:1"), false)
		b := newStation(t, net.Host("10.0.0.2"), "net", at("tcp://10.0.0.2:2"), false)
		f(t, net, a, b)
	})
}

// TestGoodbye: who ends is forgotten at once; who falls silent, after 16 minutes, and
// nobody before that.
func TestGoodbye(t *testing.T) {
	pair(t, func(t *testing.T, net *simnet.Net, a, b *station) {
		a.run()
		b.run()
		time.Sleep(time.Second)
		a.wants(t, "the first", "+", b)
		b.wants(t, "the second", "+", a)
		b.stop()
		time.Sleep(time.Second)
		a.wants(t, "after the goodbye", "-", b)
		if len(a.Peers()) > 0 {
			t.Error(a.Peers())
		}
		c := newStation(t, net.Host("10.0.0.3"), "net", at("tcp://10.0.0.3:3"), false).run()
		defer c.stop()
		time.Sleep(time.Hour)
		a.wants(t, "of a third one", "+", c)
		c.wants(t, "the third one", "+", a)
		net.Cut(a.host, c.host)
		time.Sleep(10 * time.Minute)
		a.wants(t, "10 minutes after the cut")
		time.Sleep(7 * time.Minute)
		a.wants(t, "17 minutes after the cut", "-", c)
		net.Heal(a.host, c.host)
		time.Sleep(7 * time.Minute)
		a.wants(t, "healed", "+", c)
		a.stop()
		time.Sleep(time.Second)
	})
}

// TestQuiet: when nothing changes, an hour costs a dozen datagrams; a beacon in quiet
// mode sends none ever, and hears all.
func TestQuiet(t *testing.T) {
	pair(t, func(t *testing.T, net *simnet.Net, a, b *station) {
		w := watch(net)
		quiet := newStation(t, net.Host("10.0.0.3"), "net", at("tcp://10.0.0.3:3"), true).run()
		a.run()
		b.run()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		all := w.take("", "")
		of := func(to string) (n int) {
			for _, s := range all {
				if s.to.Addr() == netip.MustParseAddr(to) {
					n++
				}
				if len(s.data) < secure.MinBeacon || len(s.data) > secure.MaxBeacon || s.from.Addr() == netip.MustParseAddr("10.0.0.3") {
					t.Errorf("%d bytes from %v", len(s.data), s.from)
				}
			}
			return n
		}
		if hellos, loopback := of("10.0.0.255"), of("127.255.255.255"); hellos != 6 || loopback != 6 || len(all) > 12+6 {
			t.Errorf("two that begin: %d hellos, %d on the loopback network, of %d", hellos, loopback, len(all))
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		all = w.take("", "")
		if n := of("10.0.0.255"); n < 2*9 || n > 2*16 || len(all) > 2*n {
			t.Errorf("an hour of two: %d hellos of %d", n, len(all))
		}
		if facts, _ := quiet.told(); len(facts) != 2 || len(quiet.Peers()) != 2 {
			t.Errorf("the quiet one was told %+v", facts)
		}
		a.wants(t, "the first", "+", b)
		quiet.stop()
		a.stop()
		b.stop()
		if goodbyes := w.take("", "10.0.0.255"); len(goodbyes) != 2 {
			t.Errorf("%d goodbyes", len(goodbyes))
		}
	})
}

// TestLoss: half of the datagrams get lost, and two still find each other in a few
// seconds.
func TestLoss(t *testing.T) {
	missed := 0
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) {
			net := simnet.New(seed)
			net.SetDefaultLink(simnet.Link{Latency: time.Millisecond, Loss: 0.5})
			a := newStation(t, net.Host("10.0.0.1"), "net", at("tcp://10.0.0.1:1"), false).run()
			b := newStation(t, net.Host("10.0.0.2"), "net", at("tcp://10.0.0.2:2"), false).run()
			time.Sleep(5 * time.Second)
			missed += 2 - len(a.Peers()) - len(b.Peers())
			net.SetDefaultLink(simnet.Link{})
			net.SetLink(a.host, b.host, simnet.Link{})
			time.Sleep(7 * time.Minute)
			if len(a.Peers()) != 1 || len(b.Peers()) != 1 {
				t.Errorf("seed %d: 7 minutes later %d and %d were heard", seed, len(a.Peers()), len(b.Peers()))
			}
			a.stop()
			b.stop()
		})
	}
	if missed > 8 {
		t.Errorf("%d of 80 had not heard the other after 5 s", missed)
	}
}

// TestMany: thirty that begin at once all know each other within half a second.
func TestMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New(1)
		net.SetDefaultLink(simnet.Link{Latency: time.Millisecond})
		var all []*station
		for i := range 30 {
			all = append(all, newStation(t, net.Host(fmt.Sprintf("10.0.0.%d", i+1)), "net", at(fmt.Sprintf("tcp://10.0.0.%d:1", i+1)), false).run())
		}
		time.Sleep(500 * time.Millisecond)
		for i, s := range all {
			if n := len(s.Peers()); n != len(all)-1 {
				t.Errorf("station %d has heard %d", i, n)
			}
		}
		time.Sleep(time.Minute)
		for _, s := range all {
			s.stop()
		}
	})
}

// TestStorm: many that begin at once, as after a power cut, know each other, and do not
// answer each other more than their limits allow.
func TestStorm(t *testing.T) {
	usual := answering
	defer func() { answering = usual }()
	answering = limit{8, 1} // as if there were 16 times as many
	synctest.Test(t, func(t *testing.T) {
		const count = 25
		net := simnet.New(1)
		var all []*station
		w := watch(net)
		for i := range count {
			all = append(all, newStation(t, net.Host(fmt.Sprintf("10.0.0.%d", i+1)), "net", at(fmt.Sprintf("tcp://10.0.0.%d:1", i+1)), false).run())
		}
		time.Sleep(5 * time.Second)
		for i, s := range all {
			if n := len(s.Peers()); n != count-1 {
				t.Errorf("station %d has heard %d", i, n)
			}
		}
		answers := 0
		for _, s := range w.take("", "") {
			if s.to.Port() != port {
				answers++
			}
		}
		if most := count * int(answering.burst+6*answering.rate); answers > most {
			t.Errorf("%d answers, at most %d", answers, most)
		}
		for _, s := range all {
			s.end()
		}
		for _, s := range all {
			s.wg.Wait()
		}
	})
}

// TestChange: a new address is told at once, an old one is forgotten, and so is who was
// heard in a network that is left.
func TestChange(t *testing.T) {
	pair(t, func(t *testing.T, net *simnet.Net, a, b *station) {
		a.run()
		b.run()
		time.Sleep(time.Minute)
		a.wants(t, "the first", "+", b)
		b.wants(t, "the second", "+", a)
		b.host.Readdress("10.0.0.77")
		b.mu.Lock()
		b.own = at("tcp://10.0.0.77:2")
		b.mu.Unlock()
		b.Changed()
		time.Sleep(time.Second)
		facts, when := a.told()
		if len(facts) != 1 || facts[0].Kind != Discovered || facts[0].Peer.Endpoints[0].String() != "tcp://10.0.0.77:2" || when[0] > time.Minute+200*time.Millisecond {
			t.Errorf("%+v after %v", facts, when)
		}
		b.host.Readdress("10.9.9.9")
		b.mu.Lock()
		b.own = at("tcp://10.9.9.9:2")
		b.mu.Unlock()
		for range 100 { // a program may say so as often as it likes
			b.Changed()
			time.Sleep(time.Millisecond)
		}
		time.Sleep(30 * time.Second)
		if facts, _ := b.told(); len(facts) == 0 || facts[len(facts)-1].Kind != Forgotten || len(b.Peers()) > 0 {
			t.Errorf("in another network: %+v", facts)
		}
		b.host.Readdress("10.0.0.2")
		b.mu.Lock()
		b.own = at("tcp://10.0.0.2:2")
		b.mu.Unlock()
		b.Changed()
		time.Sleep(10 * time.Second)
		if len(a.Peers()) != 1 || len(b.Peers()) != 1 {
			t.Errorf("back again: %v, %v", a.Peers(), b.Peers())
		}
		a.stop()
		b.stop()
	})
}

// TestChangesCostLittle: however often one is told that something has changed, hellos are
// three seconds apart.
func TestChangesCostLittle(t *testing.T) {
	pair(t, func(t *testing.T, net *simnet.Net, a, _ *station) {
		w := watch(net)
		a.run()
		for range 6_000 {
			a.Changed()
			time.Sleep(10 * time.Millisecond)
		}
		if n := len(w.take("", "10.0.0.255")); n > 3*20+3 {
			t.Errorf("%d hellos in a minute", n)
		}
		a.stop()
	})
}

// TestNothingToTell: who accepts nobody hears the others, and is no peer of theirs.
func TestNothingToTell(t *testing.T) {
	pair(t, func(t *testing.T, net *simnet.Net, a, b *station) {
		b.own = Own{}
		a.run()
		time.Sleep(time.Minute)
		w := watch(net)
		b.run()
		time.Sleep(time.Second)
		b.wants(t, "who asks", "+", a)
		a.wants(t, "who is asked")
		time.Sleep(time.Minute)
		w.take("", "")
		time.Sleep(time.Hour)
		if n := len(w.take("10.0.0.2", "")); n > 0 {
			t.Errorf("%d datagrams of who has nothing to tell", n)
		}
		b.stop()
		if n := len(w.take("10.0.0.2", "")); n > 0 {
			t.Errorf("%d datagrams when it ends", n)
		}
		a.stop()
	})
}

// TestPortTaken: where another program has the port, one can still ask, and says so.
func TestPortTaken(t *testing.T) {
	pair(t, func(t *testing.T, net *simnet.Net, a, b *station) {
		other, err := b.host.ListenPacket(context.Background(), netip.MustParseAddrPort("0.0.0.0:5484"))
		if err != nil {
			t.Fatal(err)
		}
		a.run()
		time.Sleep(time.Minute)
		b.run()
		time.Sleep(time.Second)
		b.wants(t, "who cannot hear", "+", a)
		a.wants(t, "who can", "+", b)
		b.log.mu.Lock()
		text := b.log.text.String()
		b.log.mu.Unlock()
		if strings.Count(text, "beacons of others cannot be heard") != 1 || !strings.Contains(text, syscall.EADDRINUSE.Error()) || !strings.Contains(text, "5484") {
			t.Errorf("the log says %q", text)
		}
		other.Close()
		time.Sleep(10 * time.Minute)
		c := newStation(t, net.Host("10.0.0.3"), "net", at("tcp://10.0.0.3:3"), false).run()
		time.Sleep(time.Second)
		b.wants(t, "when the port is free", "+", c)
		for _, s := range []*station{a, b, c} {
			s.stop()
		}
	})
}

// TestNoNetworks: a machine whose networks cannot be listed has a silent beacon, that
// ends as it should.
func TestNoNetworks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStation(t, simnet.New(1).Host(), "net", at("tcp://127.0.0.1:1"), false)
		s.cfg.LAN = broken{}
		s.run()
		time.Sleep(time.Hour)
		s.stop()
		if text := s.log.text.String(); strings.Count(text, "no such luck") != 1 {
			t.Errorf("the log says %q", text)
		}
	})
}

type broken struct{ LAN }

func (broken) Segments() ([]Segment, error) { return nil, errors.New("no such luck") }

// TestUsable: which networks are used follows from where links are accepted.
func TestUsable(t *testing.T) {
	segment := func(number int, addr, all string) Segment {
		s := Segment{Interface: number, Addr: netip.MustParseAddr(addr)}
		if all != "" {
			s.All = netip.MustParseAddr(all)
		}
		return s
	}
	all := []Segment{
		segment(1, "127.0.0.1", "127.255.255.255"), segment(1, "::1", ""),
		segment(2, "10.0.0.1", "10.0.0.255"), segment(2, "fe80::1%eth0", "ff12::8000:156c%eth0"), segment(2, "2001:db8::1", ""),
		segment(3, "10.1.0.1", "10.1.0.255"), segment(3, "fe80::1%eth1", "ff12::8000:156c%eth1"),
	}
	for name, c := range map[string]struct {
		own  Own
		want []int
	}{
		"everywhere":          {at("tcp://[::]:1"), []int{0, 2, 3, 5, 6}},
		"IPv4":                {at("tcp://0.0.0.0:1"), []int{0, 2, 3, 5, 6}},
		"one address":         {at("utp://10.1.0.1:1"), []int{0, 5, 6}},
		"one address of IPv6": {at("utp://[2001:db8::1]:1"), []int{0, 2, 3}},
		"loopback":            {at("tcp://127.0.0.1:1", "tcp://[::1]:1"), []int{0}},
		"nowhere":             {Own{}, []int{0, 2, 3, 5, 6}},
	} {
		var want []Segment
		for _, i := range c.want {
			want = append(want, all[i])
		}
		if got := usable(all, c.own); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	var many []Segment
	for i := range 100 {
		many = append(many, segment(i, fmt.Sprintf("10.0.%d.1", i), fmt.Sprintf("10.0.%d.255", i)))
	}
	if n := len(usable(many, Own{})); n != maxSegments {
		t.Errorf("%d of 100 are used", n)
	}
	list := doors(at("tcp://[::]:1", "utp://0.0.0.0:2", "tcp://10.0.0.1:3", "tcp://10.0.0.1:1").Listen, netip.MustParseAddr("10.0.0.1"))
	if want := []wire.Door{{Transport: endpoint.TCP, Port: 1}, {Transport: endpoint.UTP, Port: 2}, {Transport: endpoint.TCP, Port: 3}}; !slices.Equal(list, want) {
		t.Errorf("%v", list)
	}
	if list := doors(at("tcp://0.0.0.0:1", "tcp://[fe80::1]:2").Listen, netip.MustParseAddr("fe80::1%eth0")); len(list) != 1 || list[0].Port != 2 {
		t.Errorf("%v", list)
	}
}
