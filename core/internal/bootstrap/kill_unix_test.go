//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package bootstrap

import (
	"bufio"
	"errors"
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
)

// childRole is the environment variable that makes a process of this test program
// something else than a test.
const childRole = "CRUST_CACHE_TEST"

func TestMain(m *testing.M) {
	if role := os.Getenv(childRole); role != "" {
		os.Exit(child(role))
	}
	os.Exit(m.Run())
}

// child runs in a process of its own.
func child(role string) int {
	verb, rest, _ := strings.Cut(role, " ")
	switch verb {
	case "write":
		return childWrites(rest)
	case "full":
		return childOnFullDisk(rest)
	case "readonly":
		return childOnReadOnlyDisk(rest)
	case "nobody":
		return childAsNobody(rest)
	}
	fmt.Fprintf(os.Stderr, "unknown role %q\n", role)
	return 2
}

const (
	killedBooks = 2  // processes that write at once
	peersEach   = 30 // peers that one process writes about
	killedRoom  = 80 // room in the file: there are as many peers and more
)

// stamp is what the record of a peer says when it is written for the nth time: bytes
// that fit nothing else.
func stamp(peer int, n uint64) []byte {
	return fmt.Appendf(nil, "peer %d time %d %s", peer, n, strings.Repeat(string(rune('a'+n%26)), int(n%600)))
}

// childWrites writes about its own peers, over and over: "PATH FIRST COUNT". It says
// what it is about to write, and when that is done.
func childWrites(arguments string) int {
	var path string
	var first int
	var n uint64
	if _, err := fmt.Sscan(arguments, &path, &first, &n); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	c, err := Open(path, Options{Peers: killedRoom})
	if err != nil && !errors.Is(err, ErrBusy) {
		fmt.Fprintln(os.Stderr, "open:", err)
		return 1
	}
	r := rand.New(rand.NewPCG(n, uint64(first)))
	for {
		n++
		peer := first + r.IntN(peersEach)
		k := contact(peer)
		k.Record = stamp(peer, n)
		os.Stdout.WriteString(fmt.Sprintf("+%d %d\n", peer, n)) //nolint:errcheck // the reader may have killed us
		switch err := c.Reached(start.Add(time.Duration(n)*time.Millisecond), k); {
		case errors.Is(err, ErrBusy): // the other one waits for the disk; nothing was written
			continue
		case err != nil:
			fmt.Fprintln(os.Stderr, "reached:", err)
			return 1
		}
		os.Stdout.WriteString(fmt.Sprintf("=%d %d\n", peer, n)) //nolint:errcheck // the reader may have killed us
	}
}

// writer is such a process.
type writer struct {
	t       *testing.T
	path    string
	first   int
	n       uint64         // the last number it has begun to write
	begun   map[int]uint64 // of each peer, the last number that was begun
	done    map[int]uint64 // and the last one that was done
	writes  int
	process *exec.Cmd
	out     *bufio.Reader
	errors  strings.Builder
}

func (w *writer) start() {
	w.process = exec.Command(os.Args[0])
	w.process.Env = append(os.Environ(), fmt.Sprintf("%s=write %s %d %d", childRole, w.path, w.first, w.n), "GOMAXPROCS=1")
	w.process.Stderr = &w.errors
	out, err := w.process.StdoutPipe()
	if err == nil {
		err = w.process.Start()
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.out = bufio.NewReaderSize(out, 1<<20)
}

// take notes what the process has said, up to a number of lines, or to its end.
func (w *writer) take(lines int) {
	for range lines {
		line, err := w.out.ReadString('\n')
		if err != nil { // a line that is not whole says nothing
			if err != io.EOF {
				w.t.Fatal(err)
			}
			return
		}
		peer, number, _ := strings.Cut(strings.TrimSpace(line[1:]), " ")
		p, err1 := strconv.Atoi(peer)
		n, err2 := strconv.ParseUint(number, 10, 64)
		if err := errors.Join(err1, err2); err != nil {
			w.t.Fatalf("%q: %v", line, err)
		}
		if line[0] == '+' {
			w.n, w.begun[p] = n, n
			continue
		}
		w.done[p] = n
		w.writes++
	}
}

// kill ends the process where it is, and notes all that it has said before.
func (w *writer) kill() {
	if err := w.process.Process.Kill(); err != nil {
		w.t.Fatal(err)
	}
	w.take(1 << 30)
	if w.process.Wait(); w.errors.Len() > 0 { //nolint:errcheck // it was killed
		w.t.Fatalf("a process that writes: %s", w.errors.String())
	}
}

// check fails unless a list is one that could be there: whole entries, nobody twice,
// in order.
func check(t *testing.T, list []Entry) {
	t.Helper()
	seen := map[int]bool{}
	for i, e := range list {
		n := number(e.Peer)
		wrote := uint64(e.Success.Sub(start) / time.Millisecond)
		switch {
		case seen[n]:
			t.Fatalf("peer %d is in the list twice", n)
		case string(e.Record) != string(stamp(n, wrote)):
			t.Fatalf("peer %d was written the %dth time, and its record says %.40q", n, wrote, e.Record)
		case len(e.Endpoints) != 1 || e.Endpoints[0].Endpoint != at(n) || !e.Endpoints[0].Worked.Equal(e.Success):
			t.Fatalf("peer %d has endpoints %v", n, e.Endpoints)
		case i > 0 && list[i-1].order <= e.order:
			t.Fatalf("peer %d is out of order", n)
		}
		seen[n] = true
	}
}

// Two processes write at once and are killed (kill -9), one after the other, at
// random points: 200, or CRUST_CACHE_KILLS; 1,000 take 40 s, and twice as long under
// the race detector. After each, every peer is as it was
// written last, or as it was being written; meanwhile others read.
func TestKilledProcessesLoseNothing(t *testing.T) {
	kills := 200
	if v := os.Getenv("CRUST_CACHE_KILLS"); v != "" {
		var err error
		if kills, err = strconv.Atoi(v); err != nil {
			t.Fatal(err)
		}
	}
	path := place(t)
	reader := opened(t, path, Options{Peers: killedRoom})
	var writers []*writer
	for i := range killedBooks {
		w := &writer{t: t, path: path, first: i * peersEach, begun: map[int]uint64{}, done: map[int]uint64{}}
		w.start()
		t.Cleanup(func() { w.process.Process.Kill(); w.process.Wait() }) //nolint:errcheck // it may be gone
		writers = append(writers, w)
	}
	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	began, reads := time.Now(), 0
	for k := range kills {
		w, other := writers[k%killedBooks], writers[(k+1)%killedBooks]
		w.take(1 + r.IntN(60)) // so that it has begun, and is somewhere
		for range 1 + r.IntN(6) {
			list, err := reader.List()
			if err != nil {
				t.Fatal(err)
			}
			check(t, list)
			reads++
		}
		w.kill()
		list := inFile(t, path)
		check(t, list)
		for peer, n := range w.done {
			i := slices.IndexFunc(list, func(e Entry) bool { return e.Peer == id(peer) })
			if i < 0 {
				t.Fatalf("kill %d: peer %d is lost, which was written %d times", k, peer, n)
			}
			if wrote := uint64(list[i].Success.Sub(start) / time.Millisecond); wrote != n && wrote != w.begun[peer] {
				t.Fatalf("kill %d: peer %d is as it was the %dth time, the last one done was the %dth", k, peer, wrote, n)
			}
		}
		w.begun, w.done = settle(list, w), settle(list, w)
		other.take(1 + r.IntN(10))
		w.start()
	}
	took := time.Since(began)
	for _, w := range writers {
		w.kill()
	}
	report, err := Inspect(path)
	if err != nil {
		t.Fatal(err)
	}
	writes := writers[0].writes + writers[1].writes
	t.Logf("%d kills within %d writes and %d reads, in %v; %d torn copies are left", kills, writes, reads, took.Round(time.Millisecond), len(report.Damage))
}

// inFile returns what is in a file, however long the other process waits for the disk.
func inFile(t *testing.T, path string) []Entry {
	t.Helper()
	for {
		switch report, err := Inspect(path); {
		case err == nil:
			return report.Entries
		case !errors.Is(err, ErrBusy):
			t.Fatal(err)
		}
	}
}

// settle returns what is in the file of the peers of a writer: what it was about to
// write when it was killed is there, or never will be.
func settle(list []Entry, w *writer) map[int]uint64 {
	now := map[int]uint64{}
	for _, e := range list {
		if n := number(e.Peer); n >= w.first && n < w.first+peersEach {
			now[n] = uint64(e.Success.Sub(start) / time.Millisecond)
		}
	}
	return now
}
