package pairs

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

const root = "../../../"

// TestDocument: the table in docs/NAT.md is what the recorded runs make.
func TestDocument(t *testing.T) {
	virtual, err := Read(root + Virtual)
	if err != nil {
		t.Fatal(err)
	}
	namespaces, err := Read(root + Namespaces)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(root + Document)
	if err != nil {
		t.Fatal(err)
	}
	want, err := Put(string(text), Table(virtual, namespaces))
	if err != nil {
		t.Fatal(err)
	}
	if string(text) != want {
		t.Errorf("%s is not what the runs say: go run ./tests/natlab/cmd/nattable", Document)
	}
}

// TestRows: names are of one row and one case each, and limits make sense.
func TestRows(t *testing.T) {
	rows := map[string]bool{}
	for _, r := range Rows {
		if rows[r.Name] || r.P50 <= 0 || r.P99 < r.P50 || r.Success <= 0 || r.Success > 1 || len(r.Cases) == 0 {
			t.Errorf("%s: %+v", r.Name, r)
		}
		rows[r.Name] = true
		cases := map[string]bool{}
		for _, c := range r.Cases {
			if cases[c.Name] || strings.Trim(c.Ways, "TUR") != "" || c.Ways == "" || (c.B == "") != (c.World == Neighbours) {
				t.Errorf("%s: %+v", r.Name, c)
			}
			cases[c.Name] = true
		}
		if len(r.InNamespaces()) == 0 {
			t.Errorf("%s is not for namespaces", r.Name)
		}
	}
}

// of makes runs of a row that took so many seconds each; a negative one failed.
func of(row string, seconds ...float64) (runs []Run) {
	r, _ := RowOf(row)
	for i, s := range seconds {
		run := Run{Date: "2026-01-02", Row: row, Case: r.Cases[0].Name, Seed: uint64(i), How: "punched", Transport: "utp", Took: s * 1000}
		if s < 0 {
			run.How, run.Transport, run.Took = "", "", 30_000
		}
		runs = append(runs, run)
	}
	return runs
}

func TestSummarise(t *testing.T) {
	row, err := RowOf("random")
	if err != nil {
		t.Fatal(err)
	}
	runs := of("random", 1, 3, -1, 2)
	runs = append(runs, of("block", 9)...)
	runs = append(runs, Run{Row: "random", Case: row.Cases[0].Name, How: "relayed", Transport: "tcp", Took: 100}) // not what it must be
	runs = append(runs, Run{Row: "random", Case: row.Cases[0].Name, Relay: true, First: 70, Connected: 50}, Run{Row: "random", Case: row.Cases[0].Name, Relay: true})
	runs = append(runs, Run{Row: "random", Case: row.Cases[1].Name, Relay: true, Given: true, First: 40, Connected: 40})
	s := Summarise(row, "", runs)
	if s.Runs != 5 || s.Succeeded != 3 || s.P50 != 2*time.Second || s.P99 != 3*time.Second || s.Ways["U"] != 3 || s.Ways["R"] != 1 {
		t.Errorf("%+v", s)
	}
	if s.First.Runs != 2 || s.First.Came != 1 || s.First.P99 != 70*time.Millisecond || s.First.Known != 1 || s.First.ConnectedP99 != 50*time.Millisecond {
		t.Errorf("%+v", s)
	}
	if s.Given != (First{Runs: 1, Came: 1, Known: 1, P50: 40 * time.Millisecond, P99: 40 * time.Millisecond, Connected: 40 * time.Millisecond, ConnectedP99: 40 * time.Millisecond}) {
		t.Errorf("%+v", s.Given)
	}
	if Summarise(row, row.Cases[1].Name, runs).Runs != 0 {
		t.Error("runs of another case count")
	}
}

// TestMisses: bad luck is forgiven, misses are not.
func TestMisses(t *testing.T) {
	row, _ := RowOf("random")
	mixed := func(n, failed, slow int) (seconds []float64) {
		for i := range n {
			switch {
			case i < failed:
				seconds = append(seconds, -1)
			case i < failed+slow:
				seconds = append(seconds, 13)
			default:
				seconds = append(seconds, 1)
			}
		}
		return seconds
	}
	for _, c := range []struct {
		n, failed, slow int
		want            string
	}{
		{20, 0, 0, ""},
		{20, 1, 1, ""},
		{20, 7, 0, "too few succeed"},
		{20, 0, 6, "the slowest take too long"},
		{1000, 30, 15, ""},
		{1000, 60, 0, "too few succeed"},
		{1000, 0, 600, "half of them take too long, the slowest take too long"},
	} {
		if got := strings.Join(row.Misses(of("random", mixed(c.n, c.failed, c.slow)...)), ", "); got != c.want {
			t.Errorf("%d runs, %d failed, %d slow: %q, want %q", c.n, c.failed, c.slow, got, c.want)
		}
	}
	always, _ := RowOf("udp-blocked")
	always.Success = 1
	if len(always.Misses(of("udp-blocked", 0.1, -1))) == 0 {
		t.Error("a failure where none may be is forgiven")
	}
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "runs.jsonl")
	out, err := Record(name)
	if err != nil {
		t.Fatal(err)
	}
	runs := append(of("random", 1, 2), of("home", 0.5)...)
	for _, r := range runs {
		if err := out.Add(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	read, err := Read(name)
	if err != nil || len(read) != 3 || read[0].Took != 1000 || read[0].Date != time.Now().Format(time.DateOnly) {
		t.Fatalf("%+v, %v", read, err)
	}
	all := Merge(of("random", 7, 8, 9), runs)
	if len(all) != 3 || all[0].Row != "home" || all[1].Took != 1000 {
		t.Errorf("%+v", all)
	}
	given := of("home", 0.1, 0.2, 0.3)
	for i := range given {
		given[i].Relay, given[i].Given = true, true
	}
	if both := Merge(all, given); len(both) != 6 || both[0].Given || !both[1].Given || both[4].Row != "random" || len(Merge(both, given[:1])) != 4 {
		t.Errorf("%+v", both)
	}
	packed := filepath.Join(dir, "runs.jsonl.gz")
	if err := Write(packed, all); err != nil {
		t.Fatal(err)
	}
	if again, err := Read(packed); err != nil || !reflect.DeepEqual(again, all) {
		t.Errorf("%+v, %v", again, err)
	}
	for _, bad := range []string{`{`, `{"date":"2026-01-02","row":"nobody"}`, `{"date":"2026-01-02","row":"home","case":"nobody"}`, `{"date":"today","row":"home","case":"home, home"}`, `{"date":"2026-01-02","row":"home","case":"home, home","took":1}`, `{"date":"2026-01-02","row":"home","case":"home, home","took_ms":-1}`} {
		if err := os.WriteFile(name, []byte(bad+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(name); err == nil || !strings.Contains(err.Error(), name+":1: ") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestTable(t *testing.T) {
	runs := append(of("random", 1, -1), of("home", 9)...)
	for _, r := range []Run{{First: 120, Connected: 80}, {First: 80, Connected: 80, Given: true}, {First: 100, Connected: 80, Given: true}} {
		r.Date, r.Row, r.Case, r.Relay = "2026-01-02", "random", "home, random", true
		runs = append(runs, r)
	}
	table := Table(runs, nil)
	for _, want := range []string{
		"| home × random symmetric | virtual | 1 | 0.08 s | 0.08 s | 0.09 s | 1 | 0.12 s | 0.12 s | 0.13 s | yes |\n\nWhen public peers relay, and the first message is given",
		"| home × random symmetric | virtual | 2 | 0.08 s | 0.08 s | 0.09 s | 2 | 0.08 s | 0.10 s | 0.09 s | **no** |",
		"Runs in virtual time: 6, of 2026-01-02. Runs between kernels: none.",
		"| home × random symmetric | U by birthday | virtual | 2 |  | 50 % |  | 1.00 s | 1.00 s | 50 % | 2 / 12 s, ≥ 98 % | **no: success** |",
		"| home × home, dropping routers | T and U both possible | virtual | 1 |  | 100 % |  | 9.00 s | 9.00 s | 100 % | 0.3 / 1.5 s, 100 % | **no: p50, p99** |",
		"|  |  | kernels | 0 |  |  |  |  |  |  | 0.3 / 1.5 s, 100 % | not run |",
		"| random | home, random | virtual | 2 |",
	} {
		if !strings.Contains(table, want) {
			t.Errorf("%q is not in\n%s", want, table)
		}
	}
	text, err := Put("a\n"+begin+"old\n"+end+"b\n", "new\n")
	if err != nil || text != "a\n"+begin+"\nnew\n\n"+end+"b\n" {
		t.Errorf("%q, %v", text, err)
	}
	if again, err := Put(text, "new\n"); err != nil || again != text {
		t.Errorf("%q, %v", again, err)
	}
	if _, err := Put("a\n", "new\n"); err == nil {
		t.Error("a document without a place is filled")
	}
}
