package crust_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/netio"
	"github.com/libcrust/libcrust/core/internal/secure"
)

// Floods over the kernel's loopback, against a service in a process of its own. CI has
// the short form. The long one is asked for by
//
//	CRUST_FLOOD=60s CRUST_FLOOD_RATE=5000 go test ./core -run 'TestFlood$' -v -timeout 30m
//
// and prints figures: each flood for that long, at that many connections a second, from
// 250 addresses of 127.66.0.0/24, while a peer at 127.0.0.1 sends as much as it can
// and others connect from 127.1.0.0/16. Attackers, service and peer share the processors.
// So what the peer keeps is told beside a control, in which the same attackers flood a
// program that does nothing: what is missing then is what the service itself spends on the
// flood. The long form also asks for the promises of time and throughput, which hold only
// on a machine that does nothing else.

// floodEnv has this test binary be the service under attack.
const floodEnv = "CRUST_FLOOD_VICTIM"

// floodState is what the victim says of itself.
type floodState struct {
	Bytes uint64 // received by the program
	Peak  uint64 // resident memory, the most, in bytes
	Stats crust.Stats
	Files bool          // the program can still open some
	Took  time.Duration // of the processors, ever
}

// runVictim is the process of the service under attack. It says what happens, one line
// each, and does what it reads: "state", or "ban WHAT...".
func runVictim() {
	limitFiles(os.Getenv(floodEnv))
	ep := crust.Endpoint{Transport: crust.TCP, Addr: netip.AddrPortFrom(floodAddr(0, 0, 1), 0)}
	s, err := crust.New(crust.Config{Listen: []crust.Endpoint{ep}, CloseTimeout: time.Second})
	if err != nil {
		panic(err)
	}
	var bytes atomic.Uint64
	var out sync.Mutex
	say := func(word string, v any) {
		text, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		out.Lock()
		defer out.Unlock()
		fmt.Printf("%s %s\n", word, text)
	}
	go func() {
		for {
			b, err := s.NextBatch(context.Background(), 0)
			if err != nil {
				return
			}
			for i := range b.Events {
				switch e := &b.Events[i]; e.Type {
				case crust.EventMessage:
					bytes.Add(uint64(len(e.Data)))
				case crust.EventAlert:
					a := e.Alert()
					say("alert", [4]string{a.Kind.String(), crust.BanTarget{Peer: a.Peer, Prefix: a.Address}.String(), a.Address.String(), a.Suggest.String()})
				}
			}
			b.Release()
		}
	}()
	say("at", s.Listeners()[0].String())
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 4<<20)
	for in.Scan() {
		word, rest, _ := strings.Cut(in.Text(), " ")
		switch word {
		case "state":
			say("state", floodState{bytes.Load(), peakMemory(), s.Stats(), canOpen(20), processorTime()})
		case "ban":
			say("banned", banAll(s, strings.Fields(rest)).String())
		}
	}
	s.Close()
}

// canOpen reports whether n files can be opened.
func canOpen(n int) bool {
	for range n {
		f, err := os.Open(os.DevNull)
		if err != nil {
			return false
		}
		defer f.Close()
	}
	return true
}

// peakMemory returns the most resident memory of this process so far, 0 where the
// system does not tell.
func peakMemory() uint64 {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmHWM:" {
			n, _ := strconv.ParseUint(f[1], 10, 64) //nolint:errcheck // 0 then
			return n << 10
		}
	}
	return 0
}

// victim is the process as this one sees it.
type victim struct {
	t      *testing.T
	in     io.Writer
	where  string         // as it says itself
	at     crust.Endpoint // the same, of libcrust
	states chan floodState
	banned chan string

	mu     sync.Mutex
	alerts map[[4]string]int
}

func startVictim(t *testing.T, files int) *victim {
	t.Helper()
	v := victimBy(t, again(t, floodEnv+"="+strconv.Itoa(files)))
	v.at = endpointAt(strings.TrimPrefix(v.where, "tcp://"))
	return v
}

// victimBy starts a program that behaves as runVictim.
func victimBy(t *testing.T, cmd *exec.Cmd) *victim {
	t.Helper()
	in, out := start(t, cmd)
	v := &victim{t: t, in: in, states: make(chan floodState, 1), banned: make(chan string, 1), alerts: map[[4]string]int{}}
	at, ended := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(ended)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			word, text, _ := strings.Cut(lines.Text(), " ")
			v.heard(word, []byte(text), at)
		}
	}()
	t.Cleanup(func() {
		in.Close()
		<-ended
		if err := cmd.Wait(); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
	})
	select {
	case v.where = <-at:
	case <-time.After(20 * time.Second):
		t.Fatal("the service under attack does not start")
	}
	return v
}

// heard takes a line of the victim.
func (v *victim) heard(word string, text []byte, at chan string) {
	var one string
	var alert [4]string
	var state floodState
	var err error
	switch word {
	case "at":
		err = json.Unmarshal(text, &one)
		at <- one
	case "banned":
		err = json.Unmarshal(text, &one)
		v.banned <- one
	case "state":
		err = json.Unmarshal(text, &state)
		v.states <- state
	case "alert":
		err = json.Unmarshal(text, &alert)
		v.mu.Lock()
		v.alerts[alert]++
		v.mu.Unlock()
	}
	if err != nil {
		v.t.Error(err)
	}
}

// state asks the victim how it is.
func (v *victim) state() floodState {
	v.t.Helper()
	fmt.Fprintln(v.in, "state") //nolint:errcheck // no answer comes then
	select {
	case s := <-v.states:
		return s
	case <-time.After(30 * time.Second):
		v.t.Fatal("the service under attack does not answer")
		return floodState{}
	}
}

// from is the kernel's network as seen by who has an address.
type from struct {
	netio.Network
	addr netip.Addr
}

// Dial implements netio.Network.
func (f from) Dial(ctx context.Context, _, remote netip.AddrPort) (net.Conn, error) {
	return f.Network.Dial(ctx, netip.AddrPortFrom(f.addr, 0), remote)
}

// once is a connection of which what is written first is answered by the end.
type once struct{ net.Conn }

func (once) Read([]byte) (int, error) { return 0, io.EOF }

const attackers = 250

func attacker(n int) netip.Addr { return floodAddr(66, 0, byte(1+n%attackers)) }

// floodAddr returns an address of the network of a flood: loopback, or that of which
// CRUST_FLOOD_NET is the first octet.
func floodAddr(b, c, d byte) netip.Addr {
	octet := uint64(127)
	if text := os.Getenv("CRUST_FLOOD_NET"); text != "" {
		var err error
		if octet, err = strconv.ParseUint(text, 10, 8); err != nil {
			panic(err)
		}
	}
	return netip.AddrFrom4([4]byte{byte(octet), b, c, d})
}

// besieging makes rate connections a second until stop, and returns how many it made.
func besieging(stop <-chan struct{}, rate int, at netip.AddrPort, use func(conn *net.TCPConn)) (made uint64) {
	var n atomic.Uint64
	var wg sync.WaitGroup
	slots := make(chan struct{}, max(512, 3*rate)) // who gets no answer waits for 2 s
	began := time.Now()
	for i := 0; ; {
		select {
		case <-stop:
			wg.Wait()
			return n.Load()
		case <-time.After(time.Millisecond):
		}
		for due := int(time.Since(began).Seconds() * float64(rate)); i < due; i++ {
			select {
			case slots <- struct{}{}:
			default: // it is not quick enough: what is due is not made up for
				continue
			}
			who := attacker(i)
			wg.Go(func() {
				defer func() { <-slots }()
				d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(who, 0)), Timeout: 2 * time.Second}
				conn, err := d.Dial("tcp", at.String())
				n.Add(1)
				if err != nil {
					return
				}
				defer conn.Close()
				tcp := conn.(*net.TCPConn)
				tcp.SetLinger(0)                                 //nolint:errcheck // ports run out then
				tcp.SetDeadline(time.Now().Add(2 * time.Second)) //nolint:errcheck // it is a socket
				use(tcp)
			})
		}
	}
}

// outwait reads until the other side ends, so that what was written has been looked at.
func outwait(conn *net.TCPConn, most time.Duration) {
	conn.SetReadDeadline(time.Now().Add(most)) //nolint:errcheck // it is a socket
	io.Copy(io.Discard, conn)                  //nolint:errcheck // only the waiting counts
}

// floods are the ways to attack.
var floods = []struct {
	name  string
	kinds []string // of alerts that may come
	use   func(keys []*secure.Config) func(conn *net.TCPConn)
}{
	{"junk", []string{"garbage", "connections"}, func([]*secure.Config) func(conn *net.TCPConn) {
		return func(conn *net.TCPConn) {
			junk := make([]byte, 300)
			rand.Read(junk)  //nolint:errcheck // it never fails
			conn.Write(junk) //nolint:errcheck // it may be refused
			outwait(conn, 20*time.Millisecond)
		}
	}},
	{"first flights", []string{"handshakes", "garbage", "connections"}, func(keys []*secure.Config) func(conn *net.TCPConn) {
		return func(conn *net.TCPConn) {
			secure.Initiate(once{conn}, keys[0], identity.PeerID{}) //nolint:errcheck // it is not to succeed
			var one [1]byte
			conn.Read(one[:]) //nolint:errcheck // it may be refused
		}
	}},
	{"authenticated spammers", []string{"handshakes", "sessions", "garbage", "connections"}, func(keys []*secure.Config) func(conn *net.TCPConn) {
		var next atomic.Uint64
		return func(conn *net.TCPConn) {
			link, err := secure.Initiate(conn, keys[next.Add(1)%uint64(len(keys))], identity.PeerID{})
			if err != nil {
				return
			}
			conn.Write(append(link.First, make([]byte, 100)...)) //nolint:errcheck // it may be refused
			outwait(conn, 20*time.Millisecond)
		}
	}},
}

// sender is a peer that sends as much as it can.
func sender(t *testing.T, v *victim) *node {
	t.Helper()
	n := newNode(t, crust.Config{NoListen: true})
	if err := n.ConnectEndpoint(crust.Contact{Endpoint: v.at}, 1); err != nil {
		t.Fatal(err)
	}
	id := n.next(crust.EventConnected).Peer
	n.t = t
	data := make([]byte, 64<<10)
	go func() {
		for n.SendWait(context.Background(), id, data, 1) == nil {
		}
	}()
	return n
}

// newcomers connects one peer after another from addresses of their own, and returns how
// long each took, 0 when it failed.
func newcomers(t *testing.T, v *victim, group byte, stop <-chan struct{}, every time.Duration) (took []time.Duration) {
	for i := 0; ; i++ {
		select {
		case <-stop:
			return took
		case <-time.After(every):
		}
		addr := floodAddr(group, byte(i>>8), byte(i))
		s, err := crust.New(crust.On(from{netio.System, addr}, crust.Config{NoListen: true, ConnectTimeout: 5 * time.Second}))
		if err != nil {
			t.Error(err)
			return took
		}
		began := time.Now()
		if err := s.ConnectEndpoint(crust.Contact{Endpoint: v.at}, 1); err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		for e := range s.Events(ctx) {
			if e.Type == crust.EventConnected {
				took = append(took, time.Since(began))
				break
			}
			if e.Type == crust.EventConnectFailed {
				t.Logf("newcomer %d: %v", i, e.Err())
				took = append(took, 0)
				break
			}
		}
		cancel()
		s.Close()
	}
}

// rateOf returns how many bytes a second the victim gets within a time.
func rateOf(v *victim, d time.Duration) float64 {
	before, began := v.state(), time.Now()
	<-time.After(d)
	return float64(v.state().Bytes-before.Bytes) / time.Since(began).Seconds()
}

func TestFlood(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only there all of 127.0.0.0/8 are addresses of loopback")
	}
	long, rate := time.Duration(0), 400
	if text := os.Getenv("CRUST_FLOOD"); text != "" {
		var err error
		if long, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
		rate = 5000
	}
	if text := os.Getenv("CRUST_FLOOD_RATE"); text != "" {
		var err error
		if rate, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range floods {
		t.Run(f.name, func(t *testing.T) { oneFlood(t, f.name, f.kinds, long, rate) })
	}
}

// oneFlood is one flood of all. long is zero for the short form, which has no control.
func oneFlood(t *testing.T, name string, kinds []string, long time.Duration, rate int) {
	v := startVictim(t, 0)
	attackers, _ := startHelper(t, "attackers "+name)
	first := sender(t, v)
	defer first.Close()
	quiet := rateOf(v, max(long/6, 200*time.Millisecond))
	beside, alone := control(v, attackers, true, rate, long/12)
	before, began := v.state(), time.Now()
	attackers.flood(rate, v.at.Addr.String())
	enough, came := make(chan struct{}), make(chan []time.Duration, 1)
	go func() { came <- newcomers(t, v, 1, enough, max(long/120, 200*time.Millisecond)) }()
	under := rateOf(v, max(long, 2*time.Second))
	close(enough)
	took := <-came
	after, lasted := v.state(), time.Since(began)
	siege := attackers.stop()
	named := v.named(t, kinds)
	freed, besideBan, banning := 0.0, 0.0, time.Duration(0)
	if long > 0 {
		fmt.Fprintln(v.in, "ban "+strings.Join(named, " ")) //nolint:errcheck // no answer comes then
		var err error
		if banning, err = time.ParseDuration(<-v.banned); err != nil {
			t.Fatal(err)
		}
		for range 4 { // in turns: what else the machine does is beside both
			attackers.flood(rate, v.at.Addr.String())
			freed += rateOf(v, long/24) / 4
			attackers.stop()
			one, _ := control(v, attackers, false, rate, long/24)
			besideBan += one / 4
		}
		again, _ := control(v, attackers, true, rate, long/12)
		beside = (beside + again) / 2
	}
	state := v.state()
	failed, p99 := sortNewcomers(took)
	t.Logf("%d connections, %d refused unread, %d handshakes refused, %d evicted; newcomers %d, failed %d, median %v, p99 %v, longest %v",
		siege.Made, state.Stats.RefusedConnections, state.Stats.RefusedHandshakes, state.Stats.HandshakesEvicted, len(took), failed,
		took[len(took)/2].Round(time.Millisecond), p99.Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond))
	t.Logf("throughput %.0f MB/s, under the flood %.0f (%.0f %%); memory at most %d MiB; %d alerts, %d accused; the service took %.0f %% of a processor",
		quiet/1e6, under/1e6, 100*under/quiet, state.Peak>>20, state.Stats.Alerts, len(named), 100*float64(after.Took-before.Took)/float64(lasted))
	if failed > 0 || len(took) == 0 {
		t.Errorf("%d of %d newcomers could not connect", failed, len(took))
	}
	if under == 0 {
		t.Error("nothing came of the peer that was connected")
	}
	if long == 0 {
		return
	}
	t.Logf("beside the same attackers of a sink %.0f MB/s (they took %.0f %% of a processor): under the flood %.0f %% of that",
		beside/1e6, 100*float64(alone.Took)/float64(long/12), 100*under/beside)
	t.Logf("offenders banned in %v: %.0f MB/s (%.0f %% of quiet); beside the same attackers of a sink that closes at once %.0f: %.0f %% of that",
		banning, freed/1e6, 100*freed/quiet, besideBan/1e6, 100*freed/besideBan)
	if p99 > time.Second || under < beside/2 || state.Peak > 512<<20 {
		t.Error("a promise was not kept: newcomers within a second, half of the throughput that the attackers leave, 512 MiB")
	}
	if banning > 100*time.Millisecond || freed < 0.95*besideBan {
		t.Error("a promise was not kept: offenders are banned within 100 ms, and 95 % of the throughput that they leave is back")
	}
}

// sortNewcomers sorts how long newcomers took, and returns how many failed and what 99 %
// of them stayed below.
func sortNewcomers(took []time.Duration) (failed int, p99 time.Duration) {
	for _, d := range took {
		if d == 0 {
			failed++
		}
	}
	slices.Sort(took)
	if len(took) > 0 {
		p99 = took[len(took)*99/100]
	}
	return failed, p99
}

// named returns who was accused, all of whom must be offenders.
func (v *victim) named(t *testing.T, kinds []string) (list []string) {
	t.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	offenders, seen := netip.PrefixFrom(floodAddr(66, 0, 0), 24), map[string]bool{}
	for a := range v.alerts {
		at, err := netip.ParsePrefix(a[2])
		if err != nil || !offenders.Contains(at.Addr()) || at.Bits() < 24 || !slices.Contains(kinds, a[0]) {
			t.Errorf("an innocent is accused, or of what it has not done: %v", a)
		}
		if a[3] != "" && !seen[a[3]] {
			seen[a[3]] = true
			list = append(list, a[3])
		}
	}
	if len(list) == 0 {
		t.Error("nobody is accused")
	}
	return list
}
