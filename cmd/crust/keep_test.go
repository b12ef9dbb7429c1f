package main

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestKeep(t *testing.T) {
	b := start(t)
	a := start(t, "--keep", b.at+"#"+b.id)
	l := a.next("group")
	has(t, l, "group", "state", "peer", "up", "wanted", "next_ms", "code", "error")
	if l.text("group") != "peers" || l.text("state") != "trying" || l.text("peer") != b.id || l.number("up") != 0 || l.number("wanted") != 1 {
		t.Fatal(l.raw)
	}
	a.next("connected")
	if l = a.next("group"); l.text("state") != "up" || l.number("up") != 1 || l.text("code") != "ok" || l.text("error") != "" || l.number("next_ms") != 0 {
		t.Fatal(l.raw)
	}
	b.next("connected")
	a.tell("disconnect %s", b.id)
	a.next("lost")
	if l = a.next("group"); l.text("state") != "dropped" || l.text("code") != "disconnected" {
		t.Fatal(l.raw)
	}
	b.next("lost")
	join(a, b)
	if l = a.next("group"); l.text("state") != "up" {
		t.Fatal(l.raw)
	}
	b.stops()
	a.next("lost")
	if l = a.next("group"); l.text("state") != "down" || l.number("next_ms") <= 0 || l.number("up") != 0 {
		t.Fatal(l.raw)
	}
	if _, code := a.end(); code != exitOK {
		t.Fatal(code)
	}
}

func TestKeepAnyNodes(t *testing.T) {
	b, c := start(t), start(t, "--role", "client")
	a := startText(t, "--listen", "tcp://127.0.0.1:0", "--contact", c.at, "--contact", b.at, "--keep", "1")
	for {
		if text := a.raw(); strings.HasPrefix(text, "group nodes, 1 of 1 connected: up "+b.id[:8]) {
			break
		}
	}
	if _, code := a.end(); code != exitOK {
		t.Fatal(code)
	}
}

func TestKeepOfWhatIsWrong(t *testing.T) {
	for _, c := range [][]string{
		{"0", "--keep N is given once, for 1 to 4096"}, {"4097", "1 to 4096"}, {"x", "a peer id, ENDPOINT#PEER or a number"},
		{"127.0.0.1:1", "a peer id"}, {"127.0.0.1:1#x", "--keep"},
	} {
		if stdout, stderr, code := invoke("peer", "--keep", c[0]); code != exitUsage || stdout != "" || !strings.Contains(stderr, c[1]) {
			t.Errorf("--keep %s: %d %q %q", c[0], code, stdout, stderr)
		}
	}
	if _, stderr, code := invoke("peer", "--keep", "1", "--keep", "2"); code != exitUsage || !strings.Contains(stderr, "given once") {
		t.Errorf("%d %q", code, stderr)
	}
}

// process is `crust peer --json` as a process of its own.
type process struct {
	t       *testing.T
	command *exec.Cmd
	input   io.WriteCloser
	lines   chan line
	id, at  string
	began   time.Time
	ready   time.Time // when it accepted connections
}

// launch starts a process, whose output is read in order; see, if it is not nil, sees
// each line as well.
func launch(t *testing.T, see func(line), arguments ...string) *process {
	t.Helper()
	p := &process{t: t, command: exec.Command(os.Args[0], append([]string{"peer", "--json"}, arguments...)...), lines: make(chan line, 1<<16), began: time.Now()}
	p.command.Env = append(os.Environ(), asCommand+"=1")
	var err error
	if p.input, err = p.command.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.command.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.lines)
		for reader := bufio.NewScanner(out); reader.Scan(); {
			l, err := parseLine(reader.Text())
			if err != nil {
				continue // it was killed while it wrote
			}
			if see != nil {
				see(l)
			}
			p.lines <- l
		}
	}()
	t.Cleanup(p.kill)
	p.id = p.await("started").text("peer")
	p.at = p.await("listener_started").text("endpoint")
	p.ready = time.Now()
	return p
}

// await returns the next line of an event.
func (p *process) await(event string) line {
	p.t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		select {
		case l, ok := <-p.lines:
			if !ok {
				p.t.Fatalf("the process ended before %s", event)
			}
			if l.event() == event {
				return l
			}
		case <-timer.C:
			p.t.Fatalf("no %s within %v", event, patience)
		}
	}
}

// kill ends the process with SIGKILL.
func (p *process) kill() {
	if p.command.ProcessState != nil {
		return
	}
	p.command.Process.Kill() //nolint:errcheck // it may have ended
	for range p.lines {
	}
	p.command.Wait() //nolint:errcheck // it was killed
}

// A node of an overlay that is killed and started again with its identity and its
// cache, and nothing else, is back at once.
func TestBackByTheCacheInASecond(t *testing.T) {
	const peers, runs = 3, 5
	dir := t.TempDir()
	arguments := []string{"--listen", "tcp://127.0.0.1:0", "--identity", filepath.Join(dir, "identity"), "--cache", filepath.Join(dir, "cache")}
	first := slices.Clone(arguments)
	for range peers {
		p := launch(t, nil, "--listen", "tcp://127.0.0.1:0")
		first = append(first, "--keep", p.at+"#"+p.id)
	}
	a := launch(t, nil, first...)
	for up := 0; up < peers; {
		if a.await("group").text("state") == "up" {
			up++
		}
	}
	cached := func() int {
		stdout, _, _ := invoke("cache", "list", "--cache", filepath.Join(dir, "cache"))
		return strings.Count(stdout, "\n")
	}
	for end := time.Now().Add(patience); cached() < peers; time.Sleep(10 * time.Millisecond) { // they are written down a moment later
		if time.Now().After(end) {
			t.Fatalf("%d of %d peers are in the cache", cached(), peers)
		}
	}
	a.kill()
	var took []time.Duration
	for range runs {
		a = launch(t, nil, append(slices.Clone(arguments), "--bootstrap")...)
		a.await("bootstrapped")
		took = append(took, time.Since(a.began))
		a.kill()
	}
	slices.Sort(took)
	t.Logf("back in the overlay, from the start of the process: median %v of %v", took[runs/2], took)
	if took[runs/2] > time.Second {
		t.Errorf("back after a median of %v", took[runs/2])
	}
}

// Eight processes are kept while each is killed and started again at random, in real
// time: CRUST_CHURN=2m has it run for two minutes.
func TestKeptThroughRealChurn(t *testing.T) {
	lasts, err := time.ParseDuration(os.Getenv("CRUST_CHURN"))
	if err != nil {
		t.Skip("CRUST_CHURN is not set to a time")
	}
	const peers = 8
	var mu sync.Mutex                // guards what follows
	var back []time.Duration         // from a peer's listening to its session
	linked := map[string]time.Time{} // since when
	up := map[string]time.Duration{}
	alive := map[string]time.Duration{}
	awaited := map[string]time.Time{} // who is back and not connected, since when
	unlink := func(id string) {
		if since, ok := linked[id]; ok {
			up[id] += time.Since(since)
			delete(linked, id)
		}
	}
	see := func(l line) {
		mu.Lock()
		defer mu.Unlock()
		id := l.text("peer")
		switch l.event() {
		case "connected", "resumed":
			linked[id] = time.Now()
			if since, ok := awaited[id]; ok {
				back = append(back, time.Since(since))
				delete(awaited, id)
			}
		case "suspended", "lost":
			unlink(id)
		}
	}
	dir := t.TempDir()
	var ids []string
	var wg sync.WaitGroup
	keep := []string{"--listen", "tcp://127.0.0.1:0"}
	procs := make([]*process, peers)
	for i := range peers {
		procs[i] = launch(t, nil, "--listen", "tcp://127.0.0.1:0", "--identity", filepath.Join(dir, fmt.Sprint(i)))
		keep = append(keep, "--keep", procs[i].at+"#"+procs[i].id)
		ids = append(ids, procs[i].id)
	}
	end := time.Now().Add(lasts)
	a := launch(t, see, keep...)
	go func() {
		for range a.lines { // see has seen them
		}
	}()
	for i, p := range procs {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(7, uint64(i)))
			for {
				lives := min(5*time.Second+time.Duration(random.ExpFloat64()*25*float64(time.Second)), time.Until(end))
				born := p.ready
				time.Sleep(time.Until(p.ready.Add(lives)))
				p.kill()
				mu.Lock()
				unlink(p.id)
				delete(awaited, p.id)
				alive[p.id] += time.Since(born)
				mu.Unlock()
				dead := time.Second + time.Duration(random.ExpFloat64()*9*float64(time.Second))
				if time.Now().Add(dead).After(end) {
					return
				}
				time.Sleep(dead)
				p = launch(t, nil, "--listen", p.at, "--identity", filepath.Join(dir, fmt.Sprint(i)))
				mu.Lock()
				if _, ok := linked[p.id]; !ok {
					awaited[p.id] = p.ready
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	a.kill()
	var allUp, allAlive time.Duration
	for _, id := range ids {
		t.Logf("%s: connected %.1f %% of the %v that it was alive", id[:8], 100*float64(up[id])/float64(alive[id]), alive[id].Round(time.Second))
		allUp, allAlive = allUp+up[id], allAlive+alive[id]
	}
	slices.Sort(back)
	if len(back) == 0 {
		t.Fatal("nobody came back")
	}
	share := float64(allUp) / float64(allAlive)
	median, p99 := back[len(back)/2], back[min(len(back)*99/100, len(back)-1)]
	t.Logf("connected %.1f %% altogether; %d times back, after a median of %v, 99 %% after %v", 100*share, len(back), median, p99)
	if share < 0.75 || median > 5*time.Second {
		t.Errorf("connected %.1f %% of the time, back after a median of %v", 100*share, median)
	}
}
