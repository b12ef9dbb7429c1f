package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/libcrust/libcrust/cmd/crust/benchkit"
)

// bench runs crust bench and returns its exit code and what it printed.
func bench(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(append([]string{"bench"}, args...), strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

func TestBenchPrintsOneJSONObjectPerResult(t *testing.T) {
	code, out, errs := bench("--json", "--in-process", "--runs", "3", "--duration", "2ms", "--pings", "30", "--tests", "bulk,ping")
	if code != 0 || errs != "" {
		t.Fatalf("exit code %d, %q on standard error", code, errs)
	}
	units := map[string]string{"bulk": "MB/s", "ping": "us"}
	seen := map[string]bool{}
	for line := range strings.Lines(out) {
		var object map[string]any
		if err := json.Unmarshal([]byte(line), &object); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		test, _ := object["test"].(string)
		transport, _ := object["transport"].(string)
		value, _ := object["value"].(float64)
		runs, _ := object["runs"].([]any)
		if object["unit"] != units[test] || value <= 0 || len(runs) != 3 {
			t.Errorf("a line is %q", line)
		}
		if _, ok := object["p99"].(float64); ok != (test == "ping") {
			t.Errorf("p99 is in the wrong line or missing: %q", line)
		}
		seen[test+" "+transport] = true
	}
	for _, test := range []string{"bulk", "ping"} {
		for _, transport := range []string{"raw-tcp", "tls", "secure-tcp", "secure-tcp-chacha", "secure-utp"} {
			if !seen[test+" "+transport] {
				t.Errorf("there is no result of %s over %s in\n%s", test, transport, out)
			}
		}
	}
}

func TestBenchPrintsATableForPeople(t *testing.T) {
	code, out, errs := bench("--in-process", "--runs", "1", "--pings", "30", "--tests", "ping", "--transports", "raw-tcp,secure-tcp")
	if code != 0 || errs != "" {
		t.Fatalf("exit code %d, %q on standard error", code, errs)
	}
	lines := strings.Split(out, "\n")
	if len(lines) < 3 || !strings.HasPrefix(lines[0], "ping: round trip") ||
		!strings.Contains(lines[1], "raw-tcp") || !strings.Contains(lines[1], "1.00 x raw") ||
		!strings.Contains(lines[2], "secure-tcp") || !strings.Contains(lines[2], "x raw") {
		t.Errorf("the table is\n%s", out)
	}
}

func TestBenchRefusesWrongUse(t *testing.T) {
	for args, want := range map[string]string{
		"--tests taste":              `there is no test "taste"; the tests are ` + strings.Join(benchkit.TestNames(), ", "),
		"--transports pigeon":        `there is no transport "pigeon"; the transports are raw-tcp`,
		"--runs 0":                   "--runs is 0, not from 1 to 1000",
		"--duration 2h":              "--duration is 2h0m0s, not over 0 and up to 1m",
		"--idle -1s":                 "--idle is -1s, not over 0 and up to 1m",
		"--pings 0":                  "--pings is 0, not from 1 to 1000000",
		"--connections 100000":       "--connections is 100000, not from 1 to 4000",
		"--listen home":              `--listen is "home", not an IP address`,
		"--in-process --server true": "--in-process and --server exclude each other",
		"everything":                 "bench takes no arguments",
	} {
		code, out, errs := bench(strings.Fields(args)...)
		if code != exitUsage || out != "" || !strings.Contains(errs, want) {
			t.Errorf("bench %s: exit code %d, %q, %q; want 2 and %q", args, code, out, errs, want)
		}
	}
}
