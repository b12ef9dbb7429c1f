package crust_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/internal/simnet"
	"github.com/libcrust/libcrust/tests/natlab/pairs"
	"github.com/libcrust/libcrust/tests/natsim"
)

// pairWorld is a pair of the table in virtual time: two sides, and who knows both.
// Everybody is 20 ms from everybody else, but for neighbours behind one NAT.
type pairWorld struct {
	t        *testing.T
	internet *simnet.Net
	c        pairs.Case
	relay    bool
	routers  map[*simnet.Host]*simnet.Router // of hosts behind one NAT
	a, b     *node
	between  []*node
}

// pairOf builds the world of a case, lets its NATs be found out, and hands it over.
func pairOf(t *testing.T, c pairs.Case, seed uint64, relay bool, f func(w *pairWorld)) {
	synctest.Test(t, func(t *testing.T) {
		w := &pairWorld{t: t, internet: simnet.New(seed), c: c, relay: relay || c.Relay, routers: map[*simnet.Host]*simnet.Router{}}
		w.internet.SetDefaultLink(simnet.Link{Latency: 20 * time.Millisecond, Hops: 8})
		if c.Chain == 0 {
			w.publics()
		} else {
			w.chain()
		}
		ha, hb := w.sides()
		w.a, w.b = w.side("a", ha), w.side("b", hb)
		if c.Chain == 0 {
			for _, p := range w.between {
				link(t, w.a, p)
				link(t, w.b, p)
			}
		} else {
			w.reach(w.a, 0)
			w.reach(w.b, c.Chain-1)
		}
		defer func() {
			for _, n := range append([]*node{w.a, w.b}, w.between...) {
				n.Close()
			}
		}()
		time.Sleep(3 * time.Second) // the echoes
		f(w)
	})
}

// publics makes four public peers in different networks.
func (w *pairWorld) publics() {
	cfg := over(crust.Config{}, w.anywhere(), "tcp", "utp")
	if w.relay {
		cfg.Relay = crust.RelayData
	}
	for i := range 4 {
		host := w.internet.Host(fmt.Sprintf("23.%d.0.1", i+1), fmt.Sprintf("2a01:%d::1", i+1))
		w.between = append(w.between, newNode(w.t, crust.On(host, cfg)))
	}
}

// chain makes peers of which each knows the next. Each is behind a NAT that forwards
// one port to it.
func (w *pairWorld) chain() {
	for i := range w.c.Chain {
		r := w.internet.NAT(natsim.MustParse("home"), chained(i))
		host := r.Host("192.168.1.2")
		w.between = append(w.between, newNode(w.t, crust.On(host, over(crust.Config{}, "0.0.0.0", "tcp", "utp"))))
		inside := contactOf(w.t, w.between[i], crust.TCP, "192.168.1.2").Endpoint.Addr
		if !r.Forward(natsim.TCP, inside.Port(), inside) {
			w.t.Fatal("the port is taken")
		}
		if i > 0 {
			w.reach(w.between[i], i-1)
		}
	}
}

func chained(i int) string { return fmt.Sprintf("23.%d.0.1", i+1) }

// reach connects a node to a peer of the chain by its forwarded port.
func (w *pairWorld) reach(n *node, i int) {
	w.t.Helper()
	if err := n.ConnectEndpoint(contactOf(w.t, w.between[i], crust.TCP, chained(i)), 1); err != nil {
		w.t.Fatal(err)
	}
	n.next(crust.EventConnected)
	w.between[i].next(crust.EventConnected)
}

// sides makes the hosts of both.
func (w *pairWorld) sides() (a, b *simnet.Host) {
	if w.c.World == pairs.Neighbours {
		r := w.internet.NAT(natsim.MustParse(w.c.A), "81.2.0.1")
		return r.Host("192.168.1.2"), r.Host("192.168.1.3")
	}
	inner, outer, double := strings.Cut(w.c.A, " in ")
	if w.c.World == pairs.OneCarrier {
		carrier := w.internet.NAT(natsim.MustParse(outer), "81.2.0.1")
		return carrier.NAT(natsim.MustParse(inner), "100.64.0.1").Host("192.168.1.2"), carrier.NAT(natsim.MustParse(w.c.B), "100.64.0.2").Host("192.168.1.2")
	}
	place := func(nat, address, six string) *simnet.Host {
		addresses := []string{"192.168.1.2"}
		if w.c.IPv6 {
			addresses = []string{six}
		}
		inner, outer, double = strings.Cut(nat, " in ")
		switch {
		case nat == "public":
			return w.internet.Host(address)
		case double:
			return w.internet.NAT(natsim.MustParse(outer), address).NAT(natsim.MustParse(inner), "100.64.0.1").Host(addresses...)
		}
		r := w.internet.NAT(natsim.MustParse(nat), address)
		h := r.Host(addresses...)
		w.routers[h] = r
		return h
	}
	return place(w.c.A, "81.2.0.1", "2a0b:1::1"), place(w.c.B, "91.3.0.1", "2a0b:2::1")
}

// side makes a node that listens as the case wants.
func (w *pairWorld) side(name string, h *simnet.Host) *node {
	transports := []string{"tcp", "utp"}
	if w.c.Listen != "" {
		transports = []string{w.c.Listen}
	}
	cfg := over(crust.Config{ConnectTimeout: 30 * time.Second}, w.anywhere(), transports...)
	if w.c.Mapped == name {
		cfg = giving(cfg, w.routers[h])
	}
	n := newNode(w.t, crust.On(h, cfg))
	if w.c.Mapped == name {
		for range transports {
			n.next(crust.EventPortMapped)
		}
	}
	return n
}

// anywhere is where nodes of the world listen.
func (w *pairWorld) anywhere() string {
	if w.c.IPv6 {
		return "[::]"
	}
	return "0.0.0.0"
}

// connect has a call b, with its first message given with the call or sent when it is
// connected, and returns what came of it.
func (w *pairWorld) connect(row string, seed uint64, given bool) pairs.Run {
	run := pairs.Run{Row: row, Case: w.c.Name, Seed: seed, Relay: w.relay && (given || !w.c.Relay), Given: given}
	var first [][]byte
	if given {
		first = [][]byte{[]byte("hello")}
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), 40*time.Second)
	defer cancel()
	began := time.Now()
	there := make(chan time.Duration, 1)
	go func() {
		defer close(there)
		for e := range w.b.Events(ctx) {
			if e.Type == crust.EventMessage && string(e.Data) == "hello" {
				there <- time.Since(began)
				return
			}
		}
	}()
	if err := w.a.ConnectPeer(w.b.ID(), 7, first...); err != nil {
		w.t.Fatal(err)
	}
	e := w.a.final(w.t, 7)
	run.Took = pairs.Milliseconds(time.Since(began))
	if e.Type != crust.EventConnected {
		run.Error = fmt.Sprint(e.Err())
		cancel()
		<-there
		return run
	}
	if !given {
		if err := w.a.Send(w.b.ID(), []byte("hello"), 1); err != nil {
			w.t.Error(err)
		}
	}
	run.How, run.Transport = e.How().String(), e.Endpoint().Transport.String()
	if run.Relay {
		run.Connected = run.Took
	}
	run.First = pairs.Milliseconds(<-there)
	if run.Relay && !w.c.Relay {
		w.upgrade(&run, began)
	}
	return run
}

// upgrade waits until the session is over a direct link, or for long.
func (w *pairWorld) upgrade(run *pairs.Run, began time.Time) {
	for ; time.Since(began) < 30*time.Second; time.Sleep(5 * time.Millisecond) {
		if p, ok := w.a.Peer(w.b.ID()); ok && !p.Suspended {
			run.How, run.Transport = p.How.String(), p.Endpoint.Transport.String()
			if p.How != crust.Relayed {
				break
			}
		}
	}
	run.Took = pairs.Milliseconds(time.Since(began))
}

// TestPairs runs the table of pairs in virtual time: some seeds of each row, or as many
// as CRUST_PAIRS_SEEDS says, which CRUST_PAIRS_OUT then records. With
// every fourth seed two more runs tell how soon a message comes over a relay: one that is sent
// when the caller is connected, and one that is given with the call.
func TestPairs(t *testing.T) {
	seeds, _ := strconv.Atoi(os.Getenv("CRUST_PAIRS_SEEDS")) // 0 when it is not given
	out, err := pairs.Record(os.Getenv("CRUST_PAIRS_OUT"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	for _, row := range pairs.Rows {
		t.Run(row.Name, func(t *testing.T) {
			t.Setenv("CRUST_PORTMAP", "") // what is not a double asks nobody: it has no kernel
			runs := pairsOf(t, row, seeds, out)
			s := pairs.Summarise(row, "", runs)
			t.Logf("%d of %d, %v, half of them within %v, 99 of 100 within %v; over a relay %v, given with the call %v",
				s.Succeeded, s.Runs, s.Ways, s.P50, s.P99, s.First, s.Given)
			for _, miss := range row.Misses(runs) {
				t.Error(miss)
			}
		})
	}
}

// pairsOf runs the cases of a row.
func pairsOf(t *testing.T, row pairs.Row, seeds int, out *pairs.Recorder) (runs []pairs.Run) {
	var mu sync.Mutex
	one := func(t *testing.T, c pairs.Case, seed uint64, relay, given bool) {
		pairOf(t, c, seed, relay, func(w *pairWorld) {
			run := w.connect(row.Name, seed, given)
			if run.How == "" {
				t.Logf("%s, seed %d: %s", c.Name, seed, run.Error)
			}
			connected, there := pairs.ConnectedMost, pairs.FirstMost
			switch {
			case given && c.Cuts:
				connected, there = row.P50, row.P50
			case given:
				there = pairs.GivenMost
			}
			if relay && (run.First == 0 || run.First > pairs.Milliseconds(there) || run.Connected > pairs.Milliseconds(connected)) {
				t.Errorf("%s, seed %d, given with the call %v: connected after %v ms, and the first message was there after %v; at most %v and %v are allowed",
					c.Name, seed, given, run.Connected, run.First, connected, there)
			}
			mu.Lock()
			defer mu.Unlock()
			runs = append(runs, run)
			if err := out.Add(run); err != nil {
				t.Error(err)
			}
		})
	}
	if seeds == 0 {
		seeds = slowly(16)
	}
	t.Run("seeds", func(t *testing.T) {
		for seed := range uint64(seeds) {
			t.Run(fmt.Sprint(seed), func(t *testing.T) {
				t.Parallel()
				count := uint64(len(row.Cases))
				c := row.Cases[seed%count]
				one(t, c, seed, false, false)
				if seed/count%4 == 0 && c.Chain == 0 {
					if !c.Relay { // else it has just been done
						one(t, c, seed, true, false)
					}
					one(t, c, seed, true, true)
				}
			})
		}
	})
	return runs
}
