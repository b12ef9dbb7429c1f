//go:build linux

package soak

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libcrust/libcrust/tests/linklab"
)

func TestMain(m *testing.M) {
	if os.Getenv(asNode) != "" {
		if err := serve(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// number reads an environment variable that is a number.
func number(t *testing.T, name string, otherwise uint64) uint64 {
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n == 0 {
		t.Fatalf("%s is %q, want a number", name, text)
	}
	return n
}

// length reads one that is a duration.
func length(t *testing.T, name string, otherwise time.Duration) time.Duration {
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < time.Second {
		t.Fatalf("%s is %q, want a duration of at least a second", name, text)
	}
	return d
}

// TestSoak is the soak: of CRUST_SOAK_NODES processes, 10 unless set, who are maltreated
// for CRUST_SOAK_TIME, 2 min unless set, as CRUST_SOAK_SEED has it, 1 unless set.
// CRUST_SOAK_DIR is where to leave the journals.
func TestSoak(t *testing.T) {
	p := plan{seed: number(t, "CRUST_SOAK_SEED", 1), nodes: int(number(t, "CRUST_SOAK_NODES", 10)), chaos: length(t, "CRUST_SOAK_TIME", 2*time.Minute)}
	p.every = 20 * time.Second / time.Duration(p.nodes)
	directory := t.TempDir()
	if own := os.Getenv("CRUST_SOAK_DIR"); own != "" {
		var err error
		if directory, err = os.MkdirTemp(own, "soak"); err != nil {
			t.Fatal(err)
		}
		t.Log(directory)
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip(err)
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f, err := build(p, program, directory, 150*time.Millisecond*time.Duration(p.nodes)/10)
	if errors.Is(err, linklab.ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := f.lab.Close(); err != nil {
			t.Error(err)
		}
	}()
	s := p.write()
	t.Logf("seed %d: %d nodes, %d faults in %v", p.seed, p.nodes, len(s.faults), p.chaos)
	for _, line := range s.faults {
		if t.Failed() || testing.Verbose() && len(s.faults) < 100 {
			t.Log(line)
		}
	}
	began := time.Now()
	f.each(t, func(n *process) error {
		time.Sleep(s.starts[n.Node])
		return n.start()
	})
	f.whole(t, "at the beginning")
	time.Sleep(3 * time.Second) // of what it is like when nothing is wrong
	before := f.states(t, "report")
	watch := f.watch(p.chaos)
	chaos := time.Now()
	f.each(t, func(n *process) error {
		for _, fault := range s.faults {
			if fault.node != n.Node {
				continue
			}
			time.Sleep(time.Until(chaos.Add(fault.at)))
			if err := n.suffer(fault); err != nil {
				return err
			}
		}
		return nil
	})
	samples := watch()
	f.whole(t, "after the faults")
	f.still(t)
	after := f.least(t, before)
	end := time.Now()
	f.each(t, (*process).close)
	if t.Failed() {
		return
	}
	f.compare(t, before, after)
	slope(t, samples, p.chaos)
	a, spans, err := f.accounts()
	if err != nil {
		t.Fatal(err)
	}
	a.settle()
	a.losses(spans, end)
	for _, wrong := range a.faults {
		t.Error(wrong)
	}
	t.Logf("%v: %d messages accepted, %d received; not received: %d of announced losses, %d because a process was killed; sessions: %d suspended, %d resumed, %d lost",
		time.Since(began).Round(time.Second), a.accepted, a.received, a.missing, a.byKill, a.suspended, a.resumed, a.lost)
	if a.received < 100*p.nodes || a.suspended == 0 || a.resumed == 0 || a.lost == 0 {
		t.Error("that is too little to prove anything")
	}
}

// each does something with all nodes at once.
func (f *field) each(t *testing.T, do func(*process) error) {
	t.Helper()
	var wg sync.WaitGroup
	errs := make([]error, len(f.nodes))
	for i, n := range f.nodes {
		wg.Go(func() { errs[i] = do(n) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// states asks all nodes.
func (f *field) states(t *testing.T, command string) []state {
	t.Helper()
	all := make([]state, len(f.nodes))
	f.each(t, func(n *process) (err error) {
		all[n.Node], err = n.ask(command)
		return err
	})
	return all
}

// whole waits until all are connected to all to whom they stay connected.
func (f *field) whole(t *testing.T, when string) {
	t.Helper()
	const wait = 2 * time.Minute
	began := time.Now()
	for {
		var missing []string
		for i, s := range f.states(t, "report") {
			if want := len(f.nodes[i].Keep); s.Kept < want {
				missing = append(missing, fmt.Sprintf("node %d has %d of %d", i, s.Kept, want))
			}
		}
		if len(missing) == 0 {
			t.Logf("%s all were connected after %v", when, time.Since(began).Round(time.Millisecond))
			return
		}
		if time.Since(began) > wait {
			t.Fatalf("%s: not all are connected after %v: %s", when, wait, strings.Join(missing, ", "))
		}
		time.Sleep(500 * time.Millisecond)
	}
}

// still has nobody send, and waits until everything has arrived.
func (f *field) still(t *testing.T) {
	t.Helper()
	const wait = time.Minute
	began := time.Now()
	f.states(t, "hush")
	for {
		queued, where := 0, ""
		for i, s := range f.states(t, "report") {
			if queued += s.Queued; s.Queued > 0 {
				where += fmt.Sprintf("\nnode %d: %s", i, strings.Join(s.Waiting, "; "))
			}
		}
		if queued == 0 {
			return
		}
		if time.Since(began) > wait {
			t.Fatalf("%d bytes have not arrived %v after the last message was sent:%s", queued, wait, where)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// sample is what a node was like at a time since the beginning of the faults.
type sample struct {
	at     time.Duration
	node   int
	life   int
	states state
}

// watch asks those nodes to which nothing is being done, now and then, until the
// function is called that it returns.
func (f *field) watch(chaos time.Duration) func() []sample {
	var list []sample
	stop, done := make(chan struct{}), make(chan struct{})
	began := time.Now()
	go func() {
		defer close(done)
		tick := time.NewTicker(max(5*time.Second, chaos/100))
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			for _, n := range f.nodes {
				if !n.mu.TryLock() {
					continue
				}
				if !n.busy {
					if s, err := n.tell("report"); err == nil {
						list = append(list, sample{time.Since(began), n.Node, n.Life, s})
					}
				}
				n.mu.Unlock()
			}
		}
	}()
	return func() []sample {
		close(stop)
		<-done
		return list
	}
}

// What a node may have more at the end than at the beginning, with as many sessions:
// links that are about to be replaced or closed, and messages on their way.
const (
	moreDescriptors = 16
	moreGoroutines  = 24
	moreHeap        = 8 << 20
)

// grown reports whether a has more than a node may that had b.
func grown(b, a state) bool {
	return a.Descriptors > b.Descriptors+moreDescriptors || a.Goroutines > b.Goroutines+moreGoroutines || a.Heap > b.Heap+moreHeap
}

// least returns the least that each node has within half a minute, which ends early when
// that is no more than it may have: calls and surveys take sockets for a while, and a
// leak is there at all times.
func (f *field) least(t *testing.T, before []state) []state {
	t.Helper()
	least := f.states(t, "report")
	for began := time.Now(); time.Since(began) < 30*time.Second; time.Sleep(time.Second) {
		if !slices.ContainsFunc(f.nodes, func(n *process) bool { return grown(before[n.Node], least[n.Node]) }) {
			break
		}
		for i, s := range f.states(t, "report") {
			l := &least[i]
			l.Descriptors, l.Goroutines, l.Heap = min(l.Descriptors, s.Descriptors), min(l.Goroutines, s.Goroutines), min(l.Heap, s.Heap)
		}
	}
	return least
}

// compare holds what nodes have against what they had before the faults.
func (f *field) compare(t *testing.T, before, after []state) {
	t.Helper()
	for i, a := range after {
		b := before[i]
		if grown(b, a) {
			t.Errorf("node %d has %d sessions, %d descriptors, %d goroutines and %d KiB after the faults, and had %d, %d, %d and %d before",
				i, a.Peers, a.Descriptors, a.Goroutines, a.Heap>>10, b.Peers, b.Descriptors, b.Goroutines, b.Heap>>10)
		}
	}
}

// slope compares what those who lived from the beginning to the end had on average in the
// second quarter of the faults with what they had in the last one: in a long soak that
// is enough to see whether anything grows.
func slope(t *testing.T, samples []sample, chaos time.Duration) {
	t.Helper()
	var early, late [3]float64 // descriptors, goroutines, KiB
	var n, m float64
	for _, s := range samples {
		if s.node%2 == 0 {
			continue
		}
		of := [3]float64{float64(s.states.Descriptors), float64(s.states.Goroutines), float64(s.states.Heap >> 10)}
		switch 4 * s.at / chaos {
		case 1:
			n++
			for i := range of {
				early[i] += of[i]
			}
		case 3:
			m++
			for i := range of {
				late[i] += of[i]
			}
		}
	}
	for i := range early {
		early[i], late[i] = early[i]/n, late[i]/m
	}
	t.Logf("on average %.1f descriptors, %.1f goroutines and %.0f KiB in the second quarter of the faults, and %.1f, %.1f and %.0f in the last (%.0f and %.0f samples)",
		early[0], early[1], early[2], late[0], late[1], late[2], n, m)
	if chaos < 10*time.Minute {
		return
	}
	for i, more := range [3]float64{2, 2, 512} {
		if !(late[i] <= early[i]+more) {
			t.Errorf("%s have grown from %.1f to %.1f in %v", [3]string{"descriptors", "goroutines", "KiB"}[i], early[i], late[i], chaos/2)
		}
	}
}
