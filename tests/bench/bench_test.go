package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libcrust/libcrust/cmd/crust/benchkit"
)

// TestMain lets the test program be the worker that it starts.
func TestMain(m *testing.M) {
	for _, name := range []string{"CRUST_PORTMAP", "CRUST_BEACON"} { // of those that it starts, too
		if err := os.Setenv(name, "off"); err != nil {
			panic(err)
		}
	}
	if len(os.Args) == 2 && os.Args[1] == "worker" {
		main()
		return
	}
	// A worker with the race detector would wait a second before it exits.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=0"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

func TestLibp2pMeasures(t *testing.T) {
	results, err := benchkit.Run(t.Context(), benchkit.Options{
		Transports: libp2pTransports(), Tests: benchkit.Tests, Runs: 1, InProcess: true,
		Volume: benchkit.Volume{Duration: 5 * time.Millisecond, Pings: 50},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []string{"bulk", "bulk8", "bulk64", "msg64", "msg1k", "ping", "connect", "connect8"} {
		for _, transport := range []string{"libp2p-noise", "libp2p-tls"} {
			if r, ok := benchkit.Find(results, transport, test); !ok || r.Value <= 0 {
				t.Errorf("%s over %s is %v", test, transport, r.Value)
			}
		}
	}
}

func TestAllTransportsHaveNamesOfTheirOwn(t *testing.T) {
	names := benchkit.TransportNames(transports())
	for i, name := range names {
		if slices.Contains(names[:i], name) {
			t.Errorf("two transports are named %q", name)
		}
	}
	for _, g := range goals {
		for _, name := range []string{g.Transport, g.Beside} {
			if name != "" && !slices.Contains(names, name) {
				t.Errorf("the goal %q names the transport %q, which does not exist", g.About, name)
			}
		}
	}
}

// reaching returns results that reach every goal exactly.
func reaching() []benchkit.Result {
	var results []benchkit.Result
	set := func(transport, test string, value float64) {
		results = append(results, benchkit.Result{Transport: transport, Test: test, Value: value, Runs: []float64{value}})
	}
	for _, test := range []string{"bulk", "msg64", "msg1k", "ping", "connect", "connect8"} {
		set("secure-tcp", test, 6e6)
	}
	set("secure-tcp-chacha", "bulk", 3.5e6)
	set("secure-tcp", "msg64-c", 3e6)
	set("secure-tcp", "msg64-python", 6e5)
	set("secure-tcp", "allocs", 0.1)
	set("secure-tcp", "idle", 0.1)
	set("secure-tcp", "memory", 12)
	set("raw-tcp", "bulk", 6e6/0.62)
	set("raw-tcp", "ping", 3e6)
	set("tls", "connect", 5e6)
	set("tls", "connect8", 5e6)
	for _, transport := range []string{"libp2p-noise", "libp2p-tls"} {
		set(transport, "bulk", 2.5e6)
		set(transport, "msg64", 6e6)
		set(transport, "msg1k", 6e6)
		set(transport, "ping", 8e6)
		set(transport, "connect", 2.4e6)
		set(transport, "connect8", 2.4e6)
	}
	return results
}

func TestGoalsAreMarked(t *testing.T) {
	results := reaching()
	// The rounding of a quotient must not decide.
	for i := range results {
		if results[i].Transport == "secure-tcp-chacha" {
			results[i].Value *= 1.001
		}
		if results[i].Transport == "raw-tcp" && results[i].Test == "bulk" {
			results[i].Value *= 0.999
		}
	}
	var text bytes.Buffer
	missed, unknown, err := benchkit.WriteGoals(&text, goals, results)
	if err != nil || missed != 0 || unknown != 0 {
		t.Errorf("with all goals reached: %d missed, %d unknown, %v\n%s", missed, unknown, err, text.String())
	}
	if got := strings.Count(text.String(), "pass"); got != len(goals) {
		t.Errorf("%d goals are marked as passed, want %d", got, len(goals))
	}

	results[0].Value /= 100 // bulk of secure-tcp
	results = slices.DeleteFunc(results, func(r benchkit.Result) bool { return r.Test == "memory" || r.Test == "msg64-c" })
	text.Reset()
	missed, unknown, err = benchkit.WriteGoals(&text, goals, results)
	if err != nil || missed != 2 || unknown != 2 {
		t.Errorf("without speed and memory: %d missed, %d unknown, %v, want 2 and 2\n%s", missed, unknown, err, text.String())
	}
	if !strings.Contains(text.String(), "MISS    bulk, of raw TCP") || strings.Count(text.String(), "not measured    at") != 2 {
		t.Errorf("the goals read\n%s", text.String())
	}
}

// script writes a shell script and returns the command that runs it.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program.sh")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return "sh " + path
}

func TestProgramsAreJoined(t *testing.T) {
	counter := filepath.Join(t.TempDir(), "runs")
	program := script(t, `echo x >>`+counter+`
n=$(wc -l <`+counter+` | tr -d ' ')
echo '{"transport":"secure-tcp","test":"msg64-c","value":'$n',"unit":"msg/s","runs":['$n']}'`)
	var out, notes bytes.Buffer
	if err := run(t.Context(), []string{
		"-quiet", "-json", "-transports", "raw-tcp,libp2p-noise", "-tests", "memory", "-connections", "2", "-runs", "2",
		"-program", program,
	}, strings.NewReader(""), &out, &notes); err != nil {
		t.Fatal(err)
	}
	var results []benchkit.Result
	for line := range strings.Lines(out.String()) {
		var r benchkit.Result
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		results = append(results, r)
	}
	if r, ok := benchkit.Find(results, "secure-tcp", "msg64-c"); !ok || !slices.Equal(r.Runs, []float64{1, 2}) || r.Value != 1.5 {
		t.Errorf("the joined result is %+v", r)
	}
	for _, transport := range []string{"raw-tcp", "libp2p-noise"} {
		if r, ok := benchkit.Find(results, transport, "memory"); !ok || len(r.Runs) != 2 {
			t.Errorf("memory over %s is %+v", transport, r)
		}
	}
	if !strings.Contains(notes.String(), "64-byte messages, C to C") {
		t.Errorf("the goals are not among the notes: %q", notes.String())
	}
}

func TestProgramsThatFailAreNamed(t *testing.T) {
	for text, want := range map[string]string{
		"echo cannot find it >&2; exit 3": "exit status 3: cannot find it",
		"echo fast":                       `printed "fast"`,
		"echo '{}'":                       "which is no result",
		"true":                            "printed no result",
	} {
		command := script(t, text)
		_, err := runProgram(t.Context(), command)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), command) {
			t.Errorf("%q gave %v, want %q", text, err, want)
		}
	}
}

func TestWrongUseIsRefused(t *testing.T) {
	for args, want := range map[string]string{
		"-tests taste":      `there is no test "taste"`,
		"-transports swan":  `there is no transport "swan"`,
		"-program= -quiet":  "the command is empty",
		"everything at all": `there is no argument "everything"`,
	} {
		var out, notes bytes.Buffer
		err := run(context.Background(), strings.Fields(args), strings.NewReader(""), &out, &notes)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s gave %v, want %q", args, err, want)
		}
	}
	var help bytes.Buffer
	if _, err := parse([]string{"-help"}, &help); !errors.Is(err, flag.ErrHelp) || !strings.Contains(help.String(), "-strict") {
		t.Errorf("-help gave %v and %q", err, help.String())
	}
}
