// Package metrics_test lets Prometheus scrape two peers that talk, and asks it what the
// board of docs/grafana asks.
package metrics_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	board    = "../../docs/grafana/crust.json"
	patience = 60 * time.Second // machines are busy
)

// program is the crust tool, built once.
var program string

func TestMain(m *testing.M) {
	for _, name := range []string{"CRUST_PORTMAP", "CRUST_BEACON"} { // of those that it starts, too
		if err := os.Setenv(name, "off"); err != nil {
			panic(err)
		}
	}
	dir, err := os.MkdirTemp("", "crust-metrics-")
	if err != nil {
		panic(err)
	}
	program = filepath.Join(dir, "crust")
	build := exec.Command("go", "build", "-o", program, "github.com/libcrust/libcrust/cmd/crust")
	if output, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, output)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// peer is a running crust peer.
type peer struct {
	t      *testing.T
	input  io.WriteCloser
	events chan map[string]any
	id, at string
	url    string // of its metrics
}

// start runs crust peer with metrics, and reads where it is.
func start(t *testing.T, arguments ...string) *peer {
	t.Helper()
	command := exec.Command(program, append([]string{"peer", "--json", "--listen", "tcp://127.0.0.1:0", "--metrics", "0"}, arguments...)...)
	command.Stderr = os.Stderr
	input, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	p := &peer{t: t, input: input, events: make(chan map[string]any, 10000)}
	go func() {
		defer close(p.events)
		for lines := bufio.NewScanner(output); lines.Scan(); {
			var e map[string]any
			if err := json.Unmarshal(lines.Bytes(), &e); err == nil {
				p.events <- e
			}
		}
	}()
	t.Cleanup(func() {
		input.Close()
		for range p.events {
		}
		if err := command.Wait(); err != nil {
			t.Errorf("crust peer: %v", err)
		}
	})
	p.id, _ = p.next("started")["peer"].(string)
	p.url, _ = p.next("metrics")["url"].(string)
	p.at, _ = p.next("listener_started")["endpoint"].(string)
	return p
}

func (p *peer) tell(format string, arguments ...any) {
	p.t.Helper()
	if _, err := fmt.Fprintf(p.input, format+"\n", arguments...); err != nil {
		p.t.Fatal(err)
	}
}

// next waits for an event and skips others.
func (p *peer) next(event string) map[string]any {
	p.t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		select {
		case e, ok := <-p.events:
			if !ok {
				p.t.Fatalf("crust peer ended before %q", event)
			}
			if e["event"] == event {
				return e
			}
		case <-timer.C:
			p.t.Fatalf("no %q within %v", event, patience)
		}
	}
}

// get asks over HTTP.
func get(url string) (string, error) {
	client := http.Client{Timeout: patience}
	answer, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %.300s", url, answer.Status, text)
	}
	return string(text), err
}

// eventually waits until check returns nil.
func eventually(t *testing.T, check func() error) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %v", patience, err)
		}
	}
}

// Whoever links the library links neither Prometheus nor what draws plots, and the
// library's own tool is where both are.
func TestTheLibraryDoesNotLinkPrometheus(t *testing.T) {
	linked := func(pkg string) []string {
		t.Helper()
		list := exec.Command("go", "list", "-deps", "github.com/libcrust/libcrust/"+pkg)
		output, err := list.Output()
		if err != nil {
			t.Fatal(err)
		}
		return slices.DeleteFunc(strings.Fields(string(output)), func(p string) bool { return !strings.Contains(p, "prometheus") && !strings.Contains(p, "gonum") })
	}
	for _, pkg := range []string{"core", "capi"} {
		if found := linked(pkg); len(found) > 0 {
			t.Errorf("%s links %q", pkg, found)
		}
	}
	if found := linked("cmd/crust"); len(found) == 0 {
		t.Error("the check cannot see what a program links")
	}
}

// talk lets b send the scripted messages to a, which echoes them, and returns how many
// and how many bytes there were.
func talk(t *testing.T, a, b *peer) (messages, bytes int) {
	t.Helper()
	b.tell("connect %s#%s", a.at, a.id)
	b.next("connected")
	for _, c := range []struct{ count, size int }{{1000, 64}, {50, 3000}, {3, 300_000}} {
		b.tell("bulk %s %d %d", a.id, c.count, c.size)
		b.next("sent")
		messages += c.count
		bytes += c.count * c.size
	}
	for _, text := range []string{"one", "two"} {
		b.tell("send %s %s", a.id, text)
		b.next("sent")
		messages++
		bytes += len(text)
	}
	return messages, bytes
}

// queries are the board's, with its variables and interval filled in.
func queries(t *testing.T) (exprs []query) {
	t.Helper()
	text, err := os.ReadFile(board)
	if err != nil {
		t.Fatal(err)
	}
	var b struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr, LegendFormat string }
		}
		Templating struct {
			List []struct{ Name, Type, Definition string }
		}
	}
	if err := json.Unmarshal(text, &b); err != nil {
		t.Fatal(err)
	}
	fill := strings.NewReplacer("$__rate_interval", "30s", "$job", ".*", "$instance", ".*")
	for _, p := range b.Panels {
		for _, target := range p.Targets {
			exprs = append(exprs, query{p.Title, fill.Replace(target.Expr), labels(target.LegendFormat)})
		}
	}
	for _, v := range b.Templating.List {
		if v.Type == "query" {
			m := regexp.MustCompile(`^label_values\((.*), (\w+)\)$`).FindStringSubmatch(v.Definition)
			if m == nil {
				t.Fatalf("the variable %s is asked for by %q", v.Name, v.Definition)
			}
			exprs = append(exprs, query{"variable " + v.Name, fill.Replace(m[1]), []string{m[2]}})
		}
	}
	if len(exprs) < 40 {
		t.Fatalf("the board has %d queries", len(exprs))
	}
	return exprs
}

// query is one of the board.
type query struct {
	panel  string
	expr   string
	labels []string // that its answers must have
}

// labels returns which labels a legend shows.
func labels(legend string) (names []string) {
	for _, m := range regexp.MustCompile(`\{\{(\w+)\}\}`).FindAllStringSubmatch(legend, -1) {
		names = append(names, m[1])
	}
	return names
}

// Without Prometheus: every series that the board names is in a scrape.
func TestTheBoardNamesWhatThereIs(t *testing.T) {
	a := start(t, "--echo")
	b := start(t, "--config", heartbeats(t))
	talk(t, a, b)
	var scrape string
	series := regexp.MustCompile(`\b(crust|go|process)_[a-z_]+`)
	eventually(t, func() (err error) {
		if scrape, err = get(b.url); err != nil {
			return err
		}
		for _, q := range queries(t) {
			for _, name := range series.FindAllString(q.expr, -1) {
				if !strings.Contains(scrape, "\n"+name+" ") && !strings.Contains(scrape, "\n"+name+"{") {
					return fmt.Errorf("%s: there is no series %s", q.panel, name)
				}
			}
		}
		return nil
	})
	if _, err := exec.LookPath("promtool"); err != nil {
		return
	}
	check := exec.Command("promtool", "check", "metrics")
	check.Stdin = strings.NewReader(scrape)
	if output, err := check.CombinedOutput(); err != nil {
		t.Errorf("promtool check metrics: %v\n%s", err, output)
	}
}

// heartbeats writes a configuration by which round trips are measured soon.
func heartbeats(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(name, []byte(`{"heartbeat_ms": 500}`), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// answer is what Prometheus says of a query.
type answer struct {
	Metric map[string]string
	Value  [2]any
}

func (a answer) number() float64 {
	text, _ := a.Value[1].(string)
	n, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return -1
	}
	return n
}

// prometheus runs Prometheus, which scrapes peers, and returns how to ask it.
func prometheus(t *testing.T, peers ...*peer) func(expr string) ([]answer, error) {
	t.Helper()
	dir := t.TempDir()
	var targets []string
	for _, p := range peers {
		targets = append(targets, strconv.Quote(strings.TrimSuffix(strings.TrimPrefix(p.url, "http://"), "/metrics")))
	}
	config := filepath.Join(dir, "prometheus.yml")
	text := fmt.Sprintf("global: {scrape_interval: 300ms, scrape_timeout: 300ms}\nscrape_configs:\n  - job_name: crust\n    static_configs: [{targets: [%s]}]\n", strings.Join(targets, ", "))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	base := launch(t, config, dir)
	return func(expr string) ([]answer, error) {
		var reply struct {
			Status string
			Error  string
			Data   struct{ Result []answer }
		}
		text, err := get(base + "/api/v1/query?query=" + escape(expr))
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal([]byte(text), &reply); err != nil || reply.Status != "success" {
			return nil, errors.Join(err, errors.New(reply.Error))
		}
		return reply.Data.Result, nil
	}
}

// The two peers' counters are, in Prometheus, exactly what was sent, and each query of
// the board has an answer with the labels that its legend shows.
func TestPrometheusScrapesAndTheBoardResolves(t *testing.T) {
	if _, err := exec.LookPath("prometheus"); err != nil {
		t.Skip("prometheus is not installed")
	}
	a := start(t, "--echo")
	b := start(t, "--config", heartbeats(t))
	ask := prometheus(t, a, b)
	eventually(t, func() error { return resolves(ask, query{expr: "count(up == 1) == 2"}) })
	messages, bytes := talk(t, a, b)

	// a has received all and sent it back; nothing else was sent by a program.
	exact := func() error {
		for expr, want := range map[string]int{
			"crust_sent_messages_total": messages, "crust_received_messages_total": messages,
			"crust_sent_bytes_total": bytes, "crust_received_bytes_total": bytes,
			"crust_sessions": 1, "crust_sessions_begun_total": 1, "crust_dropped_messages_total": 0,
			"crust_connects_failed_total": 0, "crust_sent_datagrams_total": 0,
		} {
			answers, err := ask(expr)
			if err != nil {
				return err
			}
			if len(answers) != 2 {
				return fmt.Errorf("%s has %d series, want one of each peer", expr, len(answers))
			}
			for _, got := range answers {
				if got.number() != float64(want) {
					return fmt.Errorf("%s of %s is %v, want %d", expr, got.Metric["instance"], got.number(), want)
				}
			}
		}
		return nil
	}
	eventually(t, exact)
	for _, q := range queries(t) {
		eventually(t, func() error { return resolves(ask, q) })
	}
	if err := exact(); err != nil { // and it stays
		t.Error(err)
	}
	if err := resolves(ask, query{expr: "rate(crust_no_such_total[30s])"}); err == nil {
		t.Error("a query of what does not exist resolves")
	}
	if err := resolves(ask, query{expr: "crust_sessions", labels: []string{"colour"}}); err == nil {
		t.Error("a label that does not exist is found")
	}
}

// resolves reports why a query has no answer.
func resolves(ask func(string) ([]answer, error), q query) error {
	answers, err := ask(q.expr)
	if err != nil {
		return fmt.Errorf("%s: %s: %w", q.panel, q.expr, err)
	}
	if len(answers) == 0 {
		return fmt.Errorf("%s: %s has no answer", q.panel, q.expr)
	}
	for _, name := range q.labels {
		if answers[0].Metric[name] == "" {
			return fmt.Errorf("%s: %s has no label %s", q.panel, q.expr, name)
		}
	}
	return nil
}
