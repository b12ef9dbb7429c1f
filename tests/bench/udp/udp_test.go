//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/libcrust/libcrust/cmd/crust/benchkit"
	"github.com/libcrust/libcrust/tests/linklab"
)

// TestMain lets the test program be the ends that it starts.
func TestMain(m *testing.M) {
	for _, name := range []string{"CRUST_PORTMAP", "CRUST_BEACON"} { // of those that it starts, too
		if err := os.Setenv(name, "off"); err != nil {
			panic(err)
		}
	}
	if os.Getenv(endVariable) != "" || len(os.Args) == 2 && os.Args[1] == "worker" {
		main()
		return
	}
	// An end with the race detector would wait a second before it exits.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=0"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// pair connects two ends of a peer.
func pair(t *testing.T, p peer) (near, far io.ReadWriteCloser) {
	t.Helper()
	in, err := p.listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	d, err := p.newDialer()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	accepted := make(chan io.ReadWriteCloser, 1)
	go func() {
		stream, err := in.Accept()
		if err == nil {
			_, err = stream.Write([]byte{1})
		}
		if err != nil {
			t.Error(err)
		}
		accepted <- stream
	}()
	near, err = dialAccepted(t.Context(), d, in.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far = <-accepted
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

func TestPeersCarryBytesBothWays(t *testing.T) {
	for _, p := range peers() {
		t.Run(p.name, func(t *testing.T) {
			if p.name == "tcp-bbr" {
				if in, err := p.listen("127.0.0.1:0"); err != nil {
					t.Skip(err)
				} else {
					in.Close()
				}
			}
			near, far := pair(t, p)
			data := make([]byte, 5<<20+77)
			random := rand.NewChaCha8([32]byte{1})
			_, _ = random.Read(data)
			for _, way := range [][2]io.ReadWriteCloser{{near, far}, {far, near}} {
				failed := make(chan error, 1)
				go func() {
					for left := data; len(left) > 0; {
						n, err := way[0].Write(left[:min(len(left), 100_001)])
						if err != nil {
							failed <- err
							return
						}
						left = left[n:]
					}
					failed <- nil
				}()
				got := make([]byte, len(data))
				if _, err := io.ReadFull(way[1], got); err != nil {
					t.Fatal(err)
				}
				if err := <-failed; err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, data) {
					t.Fatal("other bytes arrived")
				}
			}
		})
	}
}

func TestBenchMeasuresAllPeers(t *testing.T) {
	// Not 8 connections at a time: go-libutp refuses more than 5 that wait.
	var tests []benchkit.Test
	for _, name := range []string{"bulk", "msg64", "ping", "connect"} {
		test, err := benchkit.FindTest(name)
		if err != nil {
			t.Fatal(err)
		}
		tests = append(tests, test)
	}
	results, err := benchkit.Run(t.Context(), benchkit.Options{
		Transports: transports(), Tests: tests, Runs: 1, InProcess: true,
		Volume: benchkit.Volume{Duration: 5 * time.Millisecond, Pings: 20},
	})
	if err != nil && !strings.Contains(err.Error(), "has no bbr") {
		t.Fatal(err)
	}
	for _, p := range peers() {
		for _, test := range tests {
			if r, ok := benchkit.Find(results, p.name, test.Name); p.name != "tcp-bbr" && (!ok || r.Value <= 0) {
				t.Errorf("%s over %s is %v", test.Name, p.name, r.Value)
			}
		}
	}
}

// lines reads results.
func lines(t *testing.T, text string) []benchkit.Result {
	t.Helper()
	var all []benchkit.Result
	for line := range strings.Lines(text) {
		var r benchkit.Result
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		all = append(all, r)
	}
	return all
}

func TestBenchInTwoProcesses(t *testing.T) {
	var out, notes bytes.Buffer
	args := "bench -json -runs 2 -duration 20ms -pings 20 -tests bulk,ping -transports tcp-cubic,raw-udp-batch -listen 127.0.0.2"
	if err := dispatch(t.Context(), strings.Fields(args), nil, &out, &notes); err != nil {
		t.Fatal(err)
	}
	if results := lines(t, out.String()); len(results) != 4 || len(results[3].Runs) != 2 {
		t.Errorf("the results are %+v", results)
	}
}

func TestDatagramsAreCounted(t *testing.T) {
	var out bytes.Buffer
	args := "bench -json -runs 1 -duration 100ms -tests datagram64,datagram -transports libutp,raw-udp,raw-udp-batch,raw-udp-gso,quic-go"
	if err := dispatch(t.Context(), strings.Fields(args), nil, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	results := lines(t, out.String())
	if len(results) != 8 {
		t.Fatalf("the results are %+v", results)
	}
	for i, name := range []string{"raw-udp", "raw-udp-batch", "raw-udp-gso", "quic-go"} {
		for _, r := range []benchkit.Result{results[i], results[4+i]} {
			if r.Transport != name || r.Value < 100 || r.Extra["sent"] < 100 {
				t.Errorf("a result is %+v, not %s's", r, name)
			}
		}
	}
}

func TestRawUDPSaysWhatIsLost(t *testing.T) {
	for _, how := range []way{singly, batches, runs} {
		near, far := pair(t, rawPeer("raw", how))
		if _, err := near.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		near.(*rawStream).sent += 10 // as if they had been sent
		if _, err := near.Write([]byte("world")); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(far)
		if string(got) != "hello" || err == nil || !strings.Contains(err.Error(), "10 bytes were lost") {
			t.Errorf("got %q, %v", got, err)
		}
	}
}

func TestStreamsEnd(t *testing.T) {
	for _, p := range peers() {
		if p.name == "tcp-bbr" {
			continue // as tcp-cubic
		}
		near, far := pair(t, p)
		near.Close()
		if n, err := far.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("%s: after the end: %d, %v", p.name, n, err)
		}
	}
}

// needLab skips where there is no laboratory.
func needLab(t *testing.T) {
	t.Helper()
	lab, err := linklab.New(linklab.Config{Hosts: []linklab.HostConfig{{Name: "a"}}})
	if errors.Is(err, linklab.ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	lab.Close()
}

func TestGrid(t *testing.T) {
	needLab(t)
	crust := filepath.Join(t.TempDir(), "crust")
	build := exec.Command("go", "build", "-o", crust, "./cmd/crust")
	build.Dir = "../../.."
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build crust: %v\n%s", err, output)
	}
	var out, notes bytes.Buffer
	args := "grid -json -runs 1 -duration 1s -delays 2ms -losses 0 -link rate=20mbit -transports tcp-cubic,quic-go,libutp,secure-tcp,secure-utp -crust " + crust
	if err := dispatch(t.Context(), strings.Fields(args), nil, &out, &notes); err != nil {
		t.Fatal(err)
	}
	results := lines(t, out.String())
	if len(results) != 5 {
		t.Fatalf("the results are %+v\n%s", results, notes.String())
	}
	for _, r := range results {
		// 20 Mbit/s are 2.5 MB/s.
		if r.Test != "bulk@2ms,0" || r.Unit != "MB/s" || r.Value < 0.3 || r.Value > 2.7 {
			t.Errorf("the result is %+v", r)
		}
	}
	out.Reset()
	args = "grid -runs 1 -duration 500ms -delays 1ms -losses 0,100% -transports tcp-cubic"
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := dispatch(ctx, strings.Fields(args), nil, &out, &notes); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a link that loses everything gave %v and\n%s", err, out.String())
	}
}

func TestGridTable(t *testing.T) {
	cells := []cell{{0, "0"}, {20 * time.Millisecond, "1%"}}
	columns := []column{{name: "tcp-cubic"}, {name: "secure-utp"}}
	results := []benchkit.Result{
		{Transport: "tcp-cubic", Test: "bulk@0s,0", Value: 24.123, Runs: []float64{24.123}},
		{Transport: "secure-utp", Test: "bulk@20ms,1%", Value: 9, Runs: []float64{9, 1.04, 15}},
	}
	var text strings.Builder
	if err := writeGrid(&text, cells, columns, results); err != nil {
		t.Fatal(err)
	}
	want := `delay   loss               tcp-cubic          secure-utp   MB/s
0s      0                      24.12                   -
20ms    1%                         -    9.00 (1.0..15.0)
`
	if text.String() != want {
		t.Errorf("got\n%s\nwant\n%s", text.String(), want)
	}
}

func TestWrongUse(t *testing.T) {
	for args, want := range map[string]string{
		"dance":                        `no command "dance"`,
		"bench -transports swan":       `no transport "swan"`,
		"bench -tests taste":           `no test "taste"`,
		"bench at all":                 `no argument "at"`,
		"grid -transports swan":        `no transport "swan"`,
		"grid -transports secure-tcp":  "needs the flag -crust",
		"grid -delays soon":            "invalid duration",
		"grid -losses lots":            "invalid syntax",
		"bench -transports secure-utp": "needs the flag -crust",
		"bench -listen here":           "unable to parse IP",
		"bench -runs 1 -tests ping -transports raw-udp -server /no/such": "no such file",
		"sink -listen here": "here",
	} {
		err := dispatch(t.Context(), strings.Fields(args), nil, io.Discard, io.Discard)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s gave %v, want %q", args, err, want)
		}
	}
	var help bytes.Buffer
	if err := dispatch(t.Context(), []string{"grid", "-help"}, nil, io.Discard, &help); !errors.Is(err, flag.ErrHelp) || !strings.Contains(help.String(), "-crust") {
		t.Errorf("-help gave %v and %q", err, help.String())
	}
	// A port that nobody holds refuses TCP at once.
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free.Close()
	if err := dispatch(t.Context(), []string{"source", "-dial", free.Addr().String()}, nil, io.Discard, io.Discard); err == nil {
		t.Error("dialling nobody succeeds")
	}
}
