package crust_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/libcrust/libcrust/core/internal/secure"
)

// The attackers of a flood have a process of their own, and what they take of the
// processors for themselves is measured by a control: the same attackers flood a sink
// beside the same pair of peers. A sink is no service but a plain program that accepts,
// reads once and closes, or closes at once as a service does with those it has banned.

// helperEnv has this test binary be the attackers of a flood, or a sink.
const helperEnv = "CRUST_FLOOD_HELPER"

// runHelper is such a process.
func runHelper(what string) {
	switch word, rest, _ := strings.Cut(what, " "); word {
	case "attackers":
		runAttackers(rest)
	case "sink":
		runSink(rest == "reads")
	default:
		panic("there is no helper " + what)
	}
}

// raid is what attackers have done.
type raid struct {
	Made uint64        // connections
	Took time.Duration // of the processors
}

// runAttackers floods as the lines say that it reads: "flood RATE ADDRESS" until "stop".
func runAttackers(name string) {
	var use func(conn *net.TCPConn)
	var keys []*secure.Config
	for range 64 {
		c, err := anybody()
		if err != nil {
			panic(err)
		}
		keys = append(keys, c)
	}
	for _, f := range floods {
		if f.name == name {
			use = f.use(keys)
		}
	}
	var stop chan struct{}
	var before time.Duration
	made := make(chan uint64, 1)
	fmt.Println("ready")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		words := strings.Fields(in.Text())
		switch words[0] {
		case "flood":
			rate, err := strconv.Atoi(words[1])
			if err != nil {
				panic(err)
			}
			stop, before = make(chan struct{}), processorTime()
			go func() { made <- besieging(stop, rate, netip.MustParseAddrPort(words[2]), use) }()
		case "stop":
			close(stop)
			text, err := json.Marshal(raid{<-made, processorTime() - before})
			if err != nil {
				panic(err)
			}
			fmt.Println(string(text))
		}
	}
}

// runSink accepts connections until its input ends, and says first where.
func runSink(reads bool) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(l.Addr())
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.(*net.TCPConn).SetLinger(0) //nolint:errcheck // it is a socket
			if !reads {
				conn.Close()
				continue
			}
			go func() {
				conn.SetReadDeadline(time.Now().Add(2 * time.Second)) //nolint:errcheck // it is a socket
				conn.Read(make([]byte, 1024))                         //nolint:errcheck // it is a sink
				conn.Close()
			}()
		}
	}()
	io.Copy(io.Discard, os.Stdin) //nolint:errcheck // until it ends
	l.Close()
}

// helper is a process as the test sees it.
type helper struct {
	t   *testing.T
	in  io.WriteCloser
	out *bufio.Scanner
}

// again is this test program once more, with a variable in its environment.
func again(t *testing.T, variable string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), variable)
	return cmd
}

// start starts a program. Who closes in lets it end.
func start(t *testing.T, cmd *exec.Cmd) (in io.WriteCloser, out io.Reader) {
	t.Helper()
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if out, err = cmd.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return in, out
}

// startHelper starts one and returns its first line.
func startHelper(t *testing.T, what string) (*helper, string) {
	t.Helper()
	return helperBy(t, again(t, helperEnv+"="+what))
}

// helperBy starts a program that behaves as runHelper and returns its first line.
func helperBy(t *testing.T, cmd *exec.Cmd) (*helper, string) {
	t.Helper()
	in, out := start(t, cmd)
	h := &helper{t: t, in: in, out: bufio.NewScanner(out)}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
	})
	return h, h.line()
}

// line reads a line.
func (h *helper) line() string {
	h.t.Helper()
	if !h.out.Scan() {
		h.t.Fatalf("a helper has ended: %v", h.out.Err())
	}
	return h.out.Text()
}

// flood begins a flood.
func (h *helper) flood(rate int, at string) {
	fmt.Fprintln(h.in, "flood", rate, at) //nolint:errcheck // no answer comes then
}

// stop ends it.
func (h *helper) stop() (r raid) {
	h.t.Helper()
	fmt.Fprintln(h.in, "stop") //nolint:errcheck // no answer comes then
	if err := json.Unmarshal([]byte(h.line()), &r); err != nil {
		h.t.Fatal(err)
	}
	return r
}

// control returns what comes of the peer that sends while the attackers flood a sink,
// and what they have done; nothing when there is no time for it.
func control(v *victim, attackers *helper, reads bool, rate int, d time.Duration) (float64, raid) {
	v.t.Helper()
	if d == 0 {
		return 0, raid{}
	}
	kind := "sink closes"
	if reads {
		kind = "sink reads"
	}
	sink, at := startHelper(v.t, kind)
	defer sink.in.Close()
	attackers.flood(rate, at)
	got := rateOf(v, d)
	return got, attackers.stop()
}
