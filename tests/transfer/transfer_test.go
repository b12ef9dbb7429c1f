//go:build linux

// Package transfer_test sends much over links that break again and again.
package transfer_test

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/libcrust/libcrust/tests/linklab"
)

var whole = flag.Bool("whole", false, "transfer 1 GiB over 200 cuts, 6 switches and 10 changes of address instead of 128 MiB, 40, 2 and 4")

func TestMain(m *testing.M) {
	for _, name := range []string{"CRUST_PORTMAP", "CRUST_BEACON"} { // of those that it starts, too
		if err := os.Setenv(name, "off"); err != nil {
			panic(err)
		}
	}
	if runProgram() {
		return
	}
	os.Exit(m.Run())
}

// patience is how long anything may take that the test waits for.
const patience = 60 * time.Second

// program is one end of a transfer at work.
type program struct {
	t     *testing.T
	name  string
	host  *linklab.Host
	in    io.Writer
	lines chan string
	said  map[string]string // the last of each word that is not awaited
	over  string            // the transport of its session's link
	moves map[string]int    // events

	shares int           // that have come
	stall  time.Duration // the longest silence in those since pass
}

func start(t *testing.T, host *linklab.Host, j *job) *program {
	t.Helper()
	p := &program{t: t, name: j.role, host: host, lines: make(chan string, 1024), said: map[string]string{}, moves: map[string]int{}}
	command := exec.Command("/proc/self/exe")
	command.Env = j.environment()
	var stderr bytes.Buffer
	command.Stderr = &stderr
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if p.in, err = command.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := host.Start(command); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer close(p.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			p.lines <- s.Text()
		}
	}()
	t.Cleanup(func() {
		command.Process.Kill() //nolint:errcheck // it has ended, if all went well
		go func() {
			for range p.lines {
			}
		}()
		<-ended
		if err := command.Wait(); err != nil && t.Failed() {
			t.Logf("%s: %v\n%s", p.name, err, stderr.String())
		}
	})
	return p
}

// hear takes one line, and reports whether there was one before the time.
func (p *program) hear(until <-chan time.Time) bool {
	p.t.Helper()
	select {
	case line, ok := <-p.lines:
		if !ok {
			return false
		}
		word, rest, _ := strings.Cut(line, " ")
		switch word {
		case "fault":
			p.t.Fatalf("%s: %s", p.name, rest)
		case "event":
			kind, transport, _ := strings.Cut(rest, " ")
			p.moves[kind]++
			p.over = transport
			if kind == "suspended" {
				p.over = ""
			}
		case "at":
			var silence time.Duration
			if _, err := fmt.Sscan(rest, &p.shares, (*int64)(&silence)); err != nil {
				p.t.Fatalf("%s: %q: %v", p.name, line, err)
			}
			p.stall = max(p.stall, silence)
		default:
			p.said[word] = rest
		}
		return true
	case <-until:
		return false
	}
}

// await hears until a condition holds.
func (p *program) await(what string, holds func() bool) {
	p.t.Helper()
	until := time.After(patience)
	for !holds() {
		if !p.hear(until) {
			p.t.Fatalf("%s: no %s; it said %v, the session is over %q", p.name, what, p.said, p.over)
		}
	}
}

// catchUp hears what has been said already.
func (p *program) catchUp() {
	now := make(chan time.Time)
	close(now)
	for len(p.lines) > 0 {
		p.hear(now)
	}
}

// pass waits until n more shares have come whole, and returns the longest silence
// since the last call.
func (p *program) pass(n int) time.Duration {
	p.t.Helper()
	p.catchUp()
	from := p.shares
	p.await("progress", func() bool { return p.shares >= from+n })
	defer func() { p.stall = 0 }()
	return p.stall
}

// word waits for a word that has not been heard, and returns the rest of its line.
func (p *program) word(word string) string {
	p.t.Helper()
	p.await(word, func() bool { _, ok := p.said[word]; return ok })
	rest := p.said[word]
	delete(p.said, word)
	return rest
}

// run runs a tool in a host.
func run(t *testing.T, h *linklab.Host, words ...string) {
	t.Helper()
	if out, err := output(h, words...); err != nil {
		t.Fatalf("%v: %v\n%s", words, err, out)
	}
}

func output(h *linklab.Host, words ...string) (string, error) {
	var out bytes.Buffer
	command := exec.Command(words[0], words[1:]...)
	command.Stdout, command.Stderr = &out, &out
	err := h.Run(command)
	return out.String(), err
}

// size is how much a transfer is, and what happens to it. The link carries rate
// bits a second: so little that there is traffic whenever something happens.
type size struct{ bytes, cuts, switches, addresses, rate int }

// torture is a transfer at work.
type torture struct {
	*testing.T
	random             *rand.Rand
	client, server     *linklab.Host
	sender, receiver   *program
	counts             map[string]int
	stalls             map[string][]time.Duration
	switches, rebounds int
}

// killTCP resets every TCP connection of a host.
func (w *torture) killTCP(h *linklab.Host) { run(w.T, h, "ss", "-K", "-t", "-H", "state", "connected") }

// cut breaks the session's way at once, by one means or another, and returns which.
func (w *torture) cut(address bool) string {
	way := "path cut for up to 300 ms"
	switch {
	case address:
		way = "change of address over " + w.receiver.over
		if err := w.client.Rebind(true); err != nil {
			w.Fatal(err)
		}
	case w.receiver.over == "tcp" && w.random.IntN(8) != 0:
		way = "reset by the client's side"
		h := w.client
		if w.random.IntN(2) == 0 {
			way, h = "reset by the server's side", w.server
		}
		w.killTCP(h)
	default:
		if err := w.client.Change("cut=on"); err != nil {
			w.Fatal(err)
		}
		time.Sleep(time.Duration(w.random.IntN(300)) * time.Millisecond)
		if err := w.client.Change("cut=off"); err != nil {
			w.Fatal(err)
		}
	}
	w.counts[way]++
	return way
}

// flip blocks TCP, or opens it, and waits until the session has gone over.
func (w *torture) flip() string {
	if w.switches++; w.switches%2 == 1 {
		run(w.T, w.server, "ip", "rule", "add", "ipproto", "tcp", "blackhole")
		w.killTCP(w.client)
		w.killTCP(w.server)
		w.both("utp")
		return "TCP blocked"
	}
	run(w.T, w.server, "ip", "rule", "del", "ipproto", "tcp", "blackhole")
	if w.switches > 2 { // the first time it finds out by itself
		if _, err := fmt.Fprintln(w.sender.in, "again"); err != nil {
			w.Fatal(err)
		}
	}
	w.both("tcp")
	return "TCP opened"
}

// both waits until both sides' sessions are over a transport.
func (w *torture) both(transport string) {
	w.Helper()
	for _, p := range []*program{w.sender, w.receiver} {
		p.await("session over "+transport, func() bool { return p.over == transport })
	}
}

func newTorture(t *testing.T, s size) *torture {
	t.Helper()
	for _, tool := range []string{"ip", "ss"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	link := linklab.Shape{Delay: 5 * time.Millisecond, Rate: int64(s.rate), Queue: 2 << 20}
	lab, err := linklab.New(linklab.Config{Seed: 5, Hosts: []linklab.HostConfig{
		{Name: "client", Up: link, Down: link, NAT: &linklab.NAT{Filter: linklab.OnAddressPort, Addresses: 16}}, {Name: "server"},
	}})
	if errors.Is(err, linklab.ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	w := &torture{
		T: t, random: rand.New(rand.NewPCG(1, 2)), client: lab.Host("client"), server: lab.Host("server"),
		counts: map[string]int{}, stalls: map[string][]time.Duration{},
	}
	if out, err := output(w.server, "ip", "rule", "add", "ipproto", "tcp", "blackhole"); err != nil {
		t.Skipf("this kernel does not block TCP by a rule: %v %s", err, out)
	}
	run(t, w.server, "ip", "rule", "del", "ipproto", "tcp", "blackhole")
	j := job{role: "receive", listen: w.server.Addr().String() + ":5483", info: "-", seed: 11, total: s.bytes / messageSize, shares: 5 * (s.cuts + s.switches)}
	w.receiver = start(t, w.server, &j)
	j.role, j.listen, j.info = "send", w.client.Addr().String()+":5483", w.receiver.word("info")
	w.sender = start(t, w.client, &j)
	w.both("tcp")
	return w
}

// TestTransfer: much goes from one process to another, through a NAT, while the
// connection is reset by either side, the path is cut, the NAT gives other
// addresses and ports, and TCP is blocked and opened. All comes, in order, once.
func TestTransfer(t *testing.T) {
	s := size{bytes: 128 << 20, cuts: 40, switches: 2, addresses: 4, rate: 50_000_000}
	if *whole {
		s = size{bytes: 1 << 30, cuts: 200, switches: 6, addresses: 10, rate: 200_000_000}
	}
	w := newTorture(t, s)
	began := time.Now()
	steps := s.cuts + s.switches
	way := ""
	for step := 1; step <= steps; step++ {
		stall := w.receiver.pass(2)
		if way != "" {
			w.stalls[way] = append(w.stalls[way], stall)
		}
		w.sender.catchUp()
		if w.receiver.over == "" { // the last cut is not over for all
			w.receiver.await("link", func() bool { return w.receiver.over != "" })
		}
		if step*(s.switches+1)/(steps+1) > w.switches {
			way = w.flip()
			continue
		}
		address := step*(s.addresses+1)/(steps+1) > w.rebounds
		if address {
			w.rebounds++
		}
		way = w.cut(address)
	}
	w.stalls[way] = append(w.stalls[way], w.receiver.pass(1))
	sent, got := w.sender.word("sum"), w.receiver.word("sum")
	took := time.Since(began)
	if sent != got || len(got) != 64 {
		t.Errorf("the hash of what was sent is %s, of what came %s", sent, got)
	}
	w.report(s, took)
}

// report tells what was measured, and checks its bounds.
func (w *torture) report(s size, took time.Duration) {
	w.Logf("%d MiB in %v, %d switches, %d changes of address; sender: %v; receiver: %v", s.bytes>>20, took.Round(time.Millisecond), w.switches, w.rebounds, w.sender.moves, w.receiver.moves)
	if w.switches != s.switches || w.rebounds != s.addresses || w.receiver.moves["connected"] != 1 || w.receiver.moves["lost"] != 1 {
		w.Errorf("not what was asked for")
	}
	var all []time.Duration
	total := 0
	for _, n := range w.counts {
		total += n
	}
	if total != s.cuts {
		w.Errorf("%d cuts, want %d", total, s.cuts)
	}
	ways := make([]string, 0, len(w.stalls))
	for way, stalls := range w.stalls {
		ways = append(ways, way)
		if !strings.HasPrefix(way, "TCP ") {
			all = append(all, stalls...)
		}
	}
	slices.Sort(ways)
	for _, way := range ways {
		w.Logf("%-32s %s", way, quantiles(w.stalls[way]))
	}
	w.Logf("%-32s %s", "all cuts", quantiles(all))
	number := func(p *program, word string) int {
		n, err := strconv.Atoi(p.word(word))
		if err != nil {
			w.Fatal(err)
		}
		return n
	}
	unacked, out, in := number(w.sender, "unacked"), number(w.sender, "memory"), number(w.receiver, "memory")
	w.Logf("kept for resending: %.1f MiB at most; resident: sender %d MiB, receiver %d MiB", float64(unacked)/(1<<20), out>>20, in>>20)
	if unacked > resendBuffer {
		w.Errorf("%d bytes were kept, at most %d are allowed", unacked, resendBuffer)
	}
	const bound = 160 << 20 // the queues, what the collector leaves lying, and the libraries
	if out > bound || in > bound || out <= 0 || in <= 0 {
		w.Errorf("too much memory")
	}
	slices.Sort(all)
	if median := all[len(all)/2]; median > time.Second {
		w.Errorf("half of the cuts stop the transfer for %v and more", median)
	}
	if worst := all[len(all)-1]; worst > 15*time.Second {
		w.Errorf("a cut stopped the transfer for %v", worst)
	}
}

// quantiles describes stalls.
func quantiles(stalls []time.Duration) string {
	s := slices.Sorted(slices.Values(stalls))
	if len(s) == 0 {
		return "none"
	}
	at := func(q float64) time.Duration { return s[min(len(s)-1, int(q*float64(len(s))))].Round(time.Millisecond) }
	return fmt.Sprintf("%3d: median %v, p99 %v, worst %v", len(s), at(0.5), at(0.99), s[len(s)-1].Round(time.Millisecond))
}
