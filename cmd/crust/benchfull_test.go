package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/libcrust/libcrust/cmd/crust/benchkit"
)

// tinyFull is a full run that is over at once.
var tinyFull = []string{"--full", "--in-process", "--runs", "4", "--duration", "2ms", "--pings", "20", "--sizes", "64,65536", "--streams", "2"}

func TestBenchFullSavesDrawsComparesAndReports(t *testing.T) {
	dir := t.TempDir()
	file, plots := filepath.Join(dir, "full.json"), filepath.Join(dir, "plots")
	code, out, errs := bench(append(tinyFull, "--save", file, "--plot", plots)...)
	if code != 0 || !strings.HasPrefix(errs, "drawn: ") {
		t.Fatalf("exit code %d, %q on standard error", code, errs)
	}
	d, err := benchkit.ReadDocumentFile(file)
	if err != nil {
		t.Fatal(err)
	}
	names := fullTransports()
	if len(names) < 3 {
		t.Errorf("a full run is of %q", names)
	}
	for _, transport := range names {
		for _, test := range (benchkit.Grid{Sizes: []int{64, 65536}, Streams: []int{2}}).Tests() {
			r, ok := benchkit.Find(d.Results, transport, test.Name)
			if !ok || len(r.Runs) != 4 {
				t.Errorf("%s over %s: %v, %+v", test.Name, transport, ok, r)
			}
			if !strings.Contains(out, test.Name+": "+test.About) {
				t.Errorf("the table has no %s", test.Name)
			}
		}
	}
	if d.Version == "" || d.Cores < 1 || d.Began.IsZero() {
		t.Errorf("%+v", d)
	}
	for _, name := range []string{"messages", "bytes", "connections", "latency", "connect"} {
		for _, form := range []string{".svg", ".png"} {
			if info, err := os.Stat(filepath.Join(plots, name+form)); err != nil || info.Size() < 1000 {
				t.Errorf("%s%s: %v", name, form, err)
			}
		}
	}
	if code, out, errs := bench("compare", file, file); code != 0 || !strings.Contains(out, "0 better, 0 worse") || errs != "" {
		t.Errorf("compare with itself: exit code %d, %q\n%s", code, errs, out)
	}
	if code, out, _ := bench("compare", "--json", file, file); code != 0 || strings.Count(out, "\n") != len(d.Results) {
		t.Errorf("exit code %d, %s", code, out)
	}
	if code, out, _ := bench("report", file); code != 0 || !strings.Contains(out, "| raw-tcp |") {
		t.Errorf("exit code %d, %s", code, out)
	}
	if code, out, _ := bench("plot", file, filepath.Join(dir, "again")); code != 0 || !strings.Contains(out, "latency.png") {
		t.Errorf("exit code %d, %s", code, out)
	}
}

func TestBenchRefusesWrongUseOfFullRuns(t *testing.T) {
	dir := t.TempDir()
	empty, newer, other := filepath.Join(dir, "empty"), filepath.Join(dir, "newer.json"), filepath.Join(dir, "other.json")
	for name, text := range map[string]string{
		empty: "", newer: `{"schema":2,"version":"9.0.0","results":{"of":"another form"}}`, other: `{"results":[]}`,
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for args, want := range map[string]struct {
		code  int
		words string
	}{
		"--full --tests bulk":                     {exitUsage, "--full and --tests exclude each other"},
		"--full --sizes 0":                        {exitUsage, "--sizes is 0, not from 1 to 2097152"},
		"--full --streams 1000":                   {exitUsage, "--streams is 1000, not from 1 to 512"},
		"--remote nobody":                         {exitUsage, `"nobody" is neither an endpoint such as`},
		"--remote tcp://host:1":                   {exitUsage, "--remote: "},
		"--remote tcp://127.0.0.1:1 --server a":   {exitUsage, "--remote and --server exclude each other"},
		"--remote tcp://127.0.0.1:1 --tests idle": {exitUsage, `and dial-AT_A_TIME, not "idle"`},
		"--serve --listen home":                   {exitUsage, `--listen is "home", not an IP address`},
		"--serve --save x":                        {exitUsage, "--serve and --save exclude each other"},
		"compare a":                               {exitUsage, "compare takes two files"},
		"plot a":                                  {exitUsage, "plot takes a file and a directory"},
		"report":                                  {exitUsage, "report takes one file"},
		"compare /nowhere/a /nowhere/b":           {exitFailure, "no such file"},
		"report " + empty:                         {exitFailure, "there are no results"},
		"--sizes 64":                              {exitUsage, "--sizes is for --full alone"},
		"--streams 2 --tests rtt-64":              {exitUsage, "--streams is for --full alone"},
		"--port 1":                                {exitUsage, "--port is for --serve alone"},
		"--tracer --full":                         {exitUsage, "--tracer is for --serve alone"},
		"--network x":                             {exitUsage, "--network is for --serve or --remote alone"},
		"--serve --runs 3":                        {exitUsage, "--serve and --runs exclude each other"},
		"--plot " + empty + " --tests ping":       {exitUsage, "--plot draws tests of --full, and there is none among these"},
		"--full --plot " + empty:                  {exitFailure, "not a directory"},
		"--full --save /nowhere/full.json":        {exitFailure, "open /nowhere/full.json"},
		"compare " + newer + " " + newer:          {exitFailure, `newer.json: the results are of schema 2, by libcrust "9.0.0": this program reads up to 1`},
		"plot " + other + " x":                    {exitFailure, "other.json: this is not what crust bench writes: it has no schema"},
	} {
		code, out, errs := bench(strings.Fields(args)...)
		if code != want.code || out != "" || !strings.Contains(errs, want.words) {
			t.Errorf("bench %s: exit code %d, %q, %q; want %d and %q", args, code, out, errs, want.code, want.words)
		}
	}
}

// One that serves, and others that measure to it: by its endpoints and by its word.
func TestBenchServesOthers(t *testing.T) {
	where, stop := serveOthers(t)
	if len(where.Endpoints) != 3 || !strings.HasPrefix(where.Endpoints[0], "tcp://") || !strings.HasPrefix(where.Endpoints[1], "utp://") || !strings.HasPrefix(where.Endpoints[2], "tracer://") {
		t.Fatalf("it listens at %q", where.Endpoints)
	}
	names := []string{"secure-tcp", "secure-utp", "tracer", "secure"}
	for i, to := range append(where.Endpoints, where.Info) {
		code, out, errs := bench("--json", "--network", "orchard", "--remote", to, "--runs", "1", "--duration", "2ms", "--pings", "20",
			"--tests", "out-64-1,in-64-1,in-65536-2,rtt-64,dial-1")
		if code != 0 || strings.Count(out, "\n") != 5 {
			t.Errorf("to %.40s: exit code %d, %q\n%s", to, code, errs, out)
		}
		if strings.Count(out, `"transport":"`+names[i]+`"`) != 5 {
			t.Errorf("to %.40s: not all is over %s:\n%s", to, names[i], out)
		}
	}
	// Without --tests it is a full run, over the transport of the endpoint alone.
	code, out, errs := bench("--json", "--network", "orchard", "--remote", where.Endpoints[2], "--runs", "1", "--duration", "1ms", "--pings", "5", "--sizes", "64", "--streams", "2")
	if all := len((benchkit.Grid{Sizes: []int{64}, Streams: []int{2}}).Tests()); code != 0 || strings.Count(out, `"transport":"tracer"`) != all {
		t.Errorf("a full run: exit code %d, %q\n%s", code, errs, out)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// place is where a bench serves.
type place struct {
	Endpoints []string
	Info      string
}

// serveOthers serves in the network orchard until stop, which says how that ended.
func serveOthers(t *testing.T) (where place, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	output, printed := io.Pipe()
	served := make(chan error, 1)
	o := &benchOptions{json: true, listen: "127.0.0.1", network: "orchard", tracer: true}
	go func() {
		served <- o.serveBench(ctx, printed)
		printed.Close()
	}()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-served
	})
	t.Cleanup(func() { _ = stop() }) // who stops it looks at the error
	if err := json.NewDecoder(output).Decode(&where); err != nil {
		t.Fatal(err)
	}
	return where, stop
}

// lineFunc is called with what is written.
type lineFunc func(string)

func (f lineFunc) Write(p []byte) (int, error) {
	f(string(p))
	return len(p), nil
}

// When the other end goes in mid-run, the run ends, says so, and keeps what it has.
func TestBenchEndsWhenTheOtherEndGoes(t *testing.T) {
	for i := range 3 {
		where, stop := serveOthers(t)
		file := filepath.Join(t.TempDir(), "some.json")
		lines := 0
		out := lineFunc(func(string) {
			if lines++; lines == 1 {
				if err := stop(); err != nil {
					t.Error(err)
				}
			}
		})
		var errs bytes.Buffer
		code := run([]string{
			"bench", "--json", "--network", "orchard", "--remote", where.Endpoints[i], "--runs", "1", "--duration", "1ms", "--pings", "5", "--save", file,
			"--tests", "out-64-1,in-64-1,rtt-64,dial-1",
		}, strings.NewReader(""), out, &errs)
		if code != exitFailure || lines != 1 || strings.Count(errs.String(), "in-64-1 over ") != 1 || strings.Contains(errs.String(), "rtt-64") {
			t.Errorf("exit code %d, %d results, %q", code, lines, errs.String())
		}
		if d, err := benchkit.ReadDocumentFile(file); err != nil || len(d.Results) != 1 || d.Results[0].Test != "out-64-1" {
			t.Errorf("what was measured is not kept: %+v, %v", d, err)
		}
	}
}

// What is checked in as the last full run is what the pages say.
func TestPagesHaveTheLastFullRun(t *testing.T) {
	d, err := benchkit.ReadDocumentFile("../../docs/bench/full.json")
	if err != nil {
		t.Fatal(err)
	}
	for page, write := range map[string]func(io.Writer, *benchkit.Document) error{
		"../../docs/BENCHMARKS.md": benchkit.WriteReport, "../../README.md": benchkit.WriteShort,
	} {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		var want bytes.Buffer
		if err := write(&want, d); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), want.String()) {
			t.Errorf("%s does not have what docs/bench/full.json has: run tests/bench/run.sh pages", page)
		}
	}
	if d.Seconds > 300 {
		t.Errorf("the full run took %.0f s, more than five minutes", d.Seconds)
	}
	for _, transport := range []string{"raw-tcp", "raw-udp", "secure-tcp", "secure-utp", "tracer"} {
		for _, test := range (benchkit.Grid{}).Tests() {
			if r, ok := benchkit.Find(d.Results, transport, test.Name); !ok || len(r.Runs) < fullRuns {
				t.Errorf("docs/bench/full.json has %d runs of %s over %s", len(r.Runs), test.Name, transport)
			}
		}
	}
}
