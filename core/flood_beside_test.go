package crust_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// The same floods, and the same coming and going of peers, against libcrust and against
// another library, whose part a program does that speaks as the processes here do: for
// go-libp2p tests/bench/flood. go-libp2p does not bound what comes from loopback
// addresses, so this wants a network of its own in which others are this machine's:
//
//	(cd tests/bench && go build -o /tmp/libp2pflood ./flood)
//	unshare -n sh -c 'ip link set lo up && ip route add local 10.0.0.0/8 dev lo && CRUST_FLOOD_NET=10 \
//		CRUST_FLOOD_BESIDE=/tmp/libp2pflood CRUST_FLOOD=20s go test ./core -run TestFloodBeside -v -timeout 30m'

// side is one of the two libraries.
type side struct {
	name      string
	victim    func(t *testing.T) *victim
	attackers func(t *testing.T, kind string) *helper
	// send has a peer send as much as it can until it is stopped.
	send func(t *testing.T, v *victim) (stop func())
	// come connects peers, one after another, from addresses of a group, with pauses.
	come func(t *testing.T, v *victim, group byte, stop <-chan struct{}, every time.Duration) []time.Duration
	// where is the TCP address in what the victim says.
	where func(v *victim) netip.AddrPort
}

func crustSide() side {
	return side{
		name:   "libcrust",
		victim: func(t *testing.T) *victim { return startVictim(t, 0) },
		attackers: func(t *testing.T, kind string) *helper {
			h, _ := startHelper(t, "attackers "+kind)
			return h
		},
		send: func(t *testing.T, v *victim) func() {
			n := sender(t, v)
			return func() { n.Close() }
		},
		come:  newcomers,
		where: func(v *victim) netip.AddrPort { return v.at.Addr },
	}
}

// otherSide is what a program does.
func otherSide(program string) side {
	run := func(t *testing.T, words ...string) *exec.Cmd {
		return exec.CommandContext(t.Context(), program, words...)
	}
	return side{
		name:   "the other",
		victim: func(t *testing.T) *victim { return victimBy(t, run(t, "victim", floodAddr(0, 0, 1).String())) },
		attackers: func(t *testing.T, kind string) *helper {
			if kind == "junk" { // nobody's own
				return crustSide().attackers(t, kind)
			}
			h, _ := helperBy(t, run(t, "attackers", kind))
			return h
		},
		send: func(t *testing.T, v *victim) func() {
			h, _ := helperBy(t, run(t, "sender", v.where))
			return func() { h.in.Close() }
		},
		come: func(t *testing.T, v *victim, group byte, stop <-chan struct{}, every time.Duration) (took []time.Duration) {
			h, _ := helperBy(t, run(t, "newcomers", v.where))
			defer h.in.Close()
			for i := 0; ; i++ {
				select {
				case <-stop:
					return took
				case <-time.After(every):
				}
				fmt.Fprintln(h.in, "from", floodAddr(group, byte(i>>8), byte(i))) //nolint:errcheck // no answer comes then
				d, err := strconv.ParseInt(h.line(), 10, 64)
				if err != nil {
					t.Error(err)
				}
				took = append(took, time.Duration(d))
			}
		},
		where: func(v *victim) netip.AddrPort {
			words := strings.Split(v.where, "/") // "", "ip4", ADDRESS, "tcp", PORT, "p2p", ID
			return netip.MustParseAddrPort(words[2] + ":" + words[4])
		},
	}
}

func TestFloodBeside(t *testing.T) {
	program := os.Getenv("CRUST_FLOOD_BESIDE")
	if program == "" {
		t.Skip("it measures beside the program CRUST_FLOOD_BESIDE")
	}
	long, err := time.ParseDuration(os.Getenv("CRUST_FLOOD"))
	if err != nil {
		t.Fatal("CRUST_FLOOD says for how long:", err)
	}
	sides := []side{crustSide(), otherSide(program)}
	for _, f := range floods {
		for _, s := range sides {
			t.Run(f.name+" "+s.name, func(t *testing.T) { besideFlood(t, s, f.name, long, 5000) })
		}
	}
	for _, s := range sides {
		t.Run("coming and going "+s.name, func(t *testing.T) { besideChurn(t, s, long/2) })
	}
}

// besideFlood measures one library in one flood.
func besideFlood(t *testing.T, s side, kind string, long time.Duration, rate int) {
	v := s.victim(t)
	attackers := s.attackers(t, kind)
	defer s.send(t, v)()
	at := s.where(v).String()
	quiet, alone := rateOf(v, long/4), coming(t, s, v, 2, long/4)
	before, began := v.state(), time.Now()
	attackers.flood(rate, at)
	came := make(chan []time.Duration, 1)
	go func() { came <- coming(t, s, v, 1, long) }()
	under := rateOf(v, long)
	took := <-came
	after, lasted := v.state(), time.Since(began)
	siege := attackers.stop()
	fmt.Fprintln(v.in, "ban", netip.PrefixFrom(floodAddr(66, 0, 0), 24)) //nolint:errcheck // no answer comes then
	<-v.banned
	attackers.flood(rate, at)
	<-time.After(time.Second)
	freed := rateOf(v, long/2)
	attackers.stop()
	t.Logf("quiet: %.0f MB/s, %s", quiet/1e6, newcomersText(alone))
	t.Logf("%d connections in %v: %.0f MB/s (%.0f %%), %s; memory at most %d MiB; it took %.0f %% of a processor", siege.Made, lasted.Round(time.Second),
		under/1e6, 100*under/quiet, newcomersText(took), v.state().Peak>>20, 100*float64(after.Took-before.Took)/float64(lasted))
	t.Logf("banned: %.0f MB/s (%.0f %%)", freed/1e6, 100*freed/quiet)
}

// besideChurn measures one library while four peers at a time connect and leave.
func besideChurn(t *testing.T, s side, long time.Duration) {
	v := s.victim(t)
	defer s.send(t, v)()
	quiet := rateOf(v, long/2)
	before := v.state()
	stop, all := make(chan struct{}), make([][]time.Duration, 4)
	var wg sync.WaitGroup
	for i := range all {
		wg.Go(func() { all[i] = s.come(t, v, byte(10+i), stop, 0) })
	}
	under := rateOf(v, long)
	after := v.state()
	close(stop)
	wg.Wait()
	var took []time.Duration
	for _, one := range all {
		took = append(took, one...)
	}
	t.Logf("%.0f peers a second came and went: %.0f MB/s, quiet %.0f (%.0f %%), %s; memory at most %d MiB, %d before; it took %.0f %% of a processor",
		float64(len(took))/long.Seconds(), under/1e6, quiet/1e6, 100*under/quiet, newcomersText(took), after.Peak>>20, before.Peak>>20, 100*float64(after.Took-before.Took)/float64(long))
}

// coming has peers connect one after another for that long.
func coming(t *testing.T, s side, v *victim, group byte, long time.Duration) []time.Duration {
	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	return s.come(t, v, group, ctx.Done(), 100*time.Millisecond)
}

// newcomersText says how long newcomers took.
func newcomersText(took []time.Duration) string {
	failed, p99 := sortNewcomers(took)
	if len(took) == 0 {
		return "no newcomers"
	}
	ms := func(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }
	return fmt.Sprintf("%d newcomers, median %v, p99 %v, longest %v, %d failed", len(took), ms(took[len(took)/2]), ms(p99), ms(took[len(took)-1]), failed)
}
