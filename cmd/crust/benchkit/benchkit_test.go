package benchkit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// workerVariable makes the test program a worker, as a bench program's own
// option would.
const workerVariable = "BENCHKIT_TEST_WORKER"

func TestMain(m *testing.M) {
	for _, name := range []string{"CRUST_PORTMAP", "CRUST_BEACON"} { // of those that it starts, too
		if err := os.Setenv(name, "off"); err != nil {
			panic(err)
		}
	}
	if os.Getenv(workerVariable) == "" {
		os.Exit(m.Run())
	}
	if err := Worker(context.Background(), builtIn(), os.Stdin, os.Stdout, testWorker); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func testWorker() *exec.Cmd {
	command := exec.Command(os.Args[0], "-test.run=^$")
	// A program with the race detector would wait a second before it exits.
	command.Env = append(os.Environ(), workerVariable+"=1", "GORACE=atexit_sleep_ms=0")
	return command
}

func builtIn() []Transport { return []Transport{RawTCP(), TLS()} }

// tiny is a volume that is over at once.
var tiny = Volume{Duration: time.Millisecond, Pings: 20, Connections: 3, Idle: time.Millisecond}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{
		{[]float64{7}, 7},
		{[]float64{9, 1, 5}, 5},
		{[]float64{4, 1, 3, 2}, 2.5},
		{[]float64{5, 5, 1, 1, 1000}, 5},
	} {
		given := slices.Clone(c.values)
		if got := Median(c.values); got != c.want {
			t.Errorf("Median(%v) = %v, want %v", c.values, got, c.want)
		}
		if !slices.Equal(given, c.values) {
			t.Errorf("Median changed its argument from %v to %v", given, c.values)
		}
	}
	if got := Median(nil); !math.IsNaN(got) {
		t.Errorf("Median(nil) = %v, want NaN", got)
	}
}

func TestQuantile(t *testing.T) {
	sorted := make([]float64, 100)
	for i := range sorted {
		sorted[i] = float64(i)
	}
	for q, want := range map[float64]float64{0: 0, 0.5: 50, 0.99: 99, 1: 99} {
		if got := quantile(sorted, q); got != want {
			t.Errorf("quantile(%v) = %v, want %v", q, got, want)
		}
	}
}

func TestResultJSONHasTheContractsShape(t *testing.T) {
	ping, err := FindTest("ping")
	if err != nil {
		t.Fatal(err)
	}
	result := Combine("raw-tcp", ping, []Outcome{
		{Value: 23.4567, Extra: map[string]float64{"p99": 138}},
		{Value: 22, Extra: map[string]float64{"p99": 140}},
		{Value: 31234.56, Extra: map[string]float64{"p99": 0.01234}},
	})
	line, err := json.Marshal(result)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"transport":"raw-tcp","test":"ping","value":23.46,"unit":"us","runs":[23.46,22.00,31235],"p99":138.0}`
	if string(line) != want {
		t.Errorf("got  %s\nwant %s", line, want)
	}
	var back Result
	if err := json.Unmarshal(line, &back); err != nil {
		t.Fatal(err)
	}
	if back.Transport != "raw-tcp" || back.Value != 23.46 || len(back.Runs) != 3 || len(back.Extra) != 1 || back.Extra["p99"] != 138 {
		t.Errorf("read back %+v", back)
	}
}

func TestNumbersForPeople(t *testing.T) {
	for value, want := range map[float64]string{
		0: "0.0000", 0.1234567: "0.1235", 1.5: "1.500", 999.94: "999.9", 1234: "1,234", 22400123.4: "22,400,123",
		-1234567: "-1,234,567", -123: "-123.0", math.Inf(1): "null",
	} {
		if got := Figure(value); got != want {
			t.Errorf("Figure(%v) = %q, want %q", value, got, want)
		}
	}
}

func TestTableGivesRatiosToRawTCP(t *testing.T) {
	bulk, err := FindTest("bulk")
	if err != nil {
		t.Fatal(err)
	}
	results := []Result{
		Combine("raw-tcp", bulk, []Outcome{{Value: 2000}, {Value: 1900}, {Value: 2100}}),
		Combine("tls", bulk, []Outcome{{Value: 1000, Extra: map[string]float64{"p99": 3}}}),
	}
	var text bytes.Buffer
	if err := WriteTable(&text, results); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(text.String(), "\n")
	if !strings.HasPrefix(lines[0], "bulk: 64 KiB messages") {
		t.Errorf("the title is %q", lines[0])
	}
	for i, want := range [][]string{
		{"raw-tcp", "2,000", "MB/s", "1.00", "x", "raw", "1,900", "..", "2,100"},
		{"tls", "1,000", "MB/s", "0.50", "x", "raw", "1,000", "..", "1,000", "p99", "3.000"},
	} {
		if got := strings.Fields(lines[i+1]); !slices.Equal(got, want) {
			t.Errorf("line %d is %q, want %q", i+1, got, want)
		}
	}
	if strings.Index(lines[1], "MB/s") != strings.Index(lines[2], "MB/s") {
		t.Errorf("the columns are not aligned:\n%s", text.String())
	}
}

func TestBuiltInTransportsInProcess(t *testing.T) {
	results, err := Run(t.Context(), Options{
		Transports: builtIn(), Tests: Tests, Runs: 2, Volume: tiny, InProcess: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	checkResults(t, results, 2, []string{"bulk", "bulk8", "bulk64", "msg64", "msg1k", "ping", "connect", "connect8"})
}

func TestBuiltInTransportsInTwoProcesses(t *testing.T) {
	var order []string
	results, err := Run(t.Context(), Options{
		Transports: builtIn(), Tests: Tests, Runs: 2, Volume: tiny, Command: testWorker,
		Progress: func(transport, test string, run, runs int) {
			if test == "ping" {
				order = append(order, fmt.Sprintf("%s %d/%d", transport, run, runs))
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	without := slices.DeleteFunc(TestNames(), func(name string) bool { return strings.HasPrefix(name, "datagram") })
	checkResults(t, results, 2, without)
	if want := []string{"raw-tcp 1/2", "tls 1/2", "tls 2/2", "raw-tcp 2/2"}; !slices.Equal(order, want) {
		t.Errorf("the runs came as %q, want %q", order, want)
	}
	if memory, ok := Find(results, "tls", "memory"); !ok || memory.Extra["accepting"] < 1 || memory.Extra["dialling"] < 1 {
		t.Errorf("a TLS connection takes %+v KiB, want more than 1 at each end", memory)
	}
}

// checkResults checks that there is a sensible result of each test for each
// transport, in order.
func checkResults(t *testing.T, results []Result, runs int, tests []string) {
	t.Helper()
	var got, want []string
	for _, r := range results {
		got = append(got, r.Test+" "+r.Transport)
		if len(r.Runs) != runs {
			t.Errorf("%s over %s has %d runs, want %d", r.Test, r.Transport, len(r.Runs), runs)
		}
		// An idle pair may use no measurable time.
		if math.IsNaN(r.Value) || r.Value < 0 || (r.Value == 0 && r.Test != "idle") {
			t.Errorf("%s over %s is %v", r.Test, r.Transport, r.Value)
		}
	}
	for _, test := range tests {
		for _, transport := range builtIn() {
			want = append(want, test+" "+transport.Name())
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("the results are %q, want %q", got, want)
	}
}

func TestForeignTransportsAndServersElsewhere(t *testing.T) {
	ping, err := FindTest("ping")
	if err != nil {
		t.Fatal(err)
	}
	here := func() *exec.Cmd { t.Error("this program was asked"); return testWorker() }
	raw := Foreign("raw-tcp", false, testWorker)
	o := Options{
		Transports: []Transport{raw}, Tests: []Test{ping}, Runs: 1, Volume: tiny, Command: here,
		Listen: netip.MustParseAddr("127.0.0.2"), Server: []string{"env"},
	}
	results, err := Run(t.Context(), o)
	if err != nil || len(results) != 1 || results[0].Transport != "raw-tcp" {
		t.Errorf("got %+v, %v", results, err)
	}
	o.Server = []string{"false"}
	if _, err := Run(t.Context(), o); err == nil {
		t.Error("a server that does not start gives a result")
	}
	o.InProcess = true
	if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "runs only in processes of its own") {
		t.Errorf("in this process: %v", err)
	}
	server, err := RawTCP().Listen(netip.MustParseAddr("127.0.0.2"), func(Conn) {})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(server.Address(), "127.0.0.2:") {
		t.Errorf("a server listens at %s", server.Address())
	}
	if err := server.Close(); err != nil {
		t.Error(err)
	}
}

func TestProfilesAreWritten(t *testing.T) {
	ping, err := FindTest("ping")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if _, err := Run(t.Context(), Options{
		Transports: []Transport{RawTCP()}, Tests: []Test{ping}, Runs: 1, Volume: tiny, Command: testWorker, ProfileDir: dir,
	}); err != nil {
		t.Fatal(err)
	}
	for _, end := range []string{"client", "server"} {
		info, err := os.Stat(filepath.Join(dir, "raw-tcp-ping-1-"+end+".pprof"))
		if err != nil {
			t.Error(err)
		} else if info.Size() == 0 {
			t.Errorf("the %s's profile is empty", end)
		}
	}
}

// broken is a transport that cannot do one thing.
type broken struct {
	Transport
	listen, dial error
}

func (b broken) Name() string { return "broken" }

func (b broken) Listen(at netip.Addr, serve func(Conn)) (Server, error) {
	if b.listen != nil {
		return nil, b.listen
	}
	return b.Transport.Listen(at, serve)
}

func (b broken) NewClient() (Client, error) {
	if b.dial != nil {
		return nil, b.dial
	}
	return b.Transport.NewClient()
}

func TestFailureNamesTransportAndTestAndSparesTheOthers(t *testing.T) {
	ping, err := FindTest("ping")
	if err != nil {
		t.Fatal(err)
	}
	cause := errors.New("no sockets today")
	for name, b := range map[string]broken{
		"listen": {Transport: RawTCP(), listen: cause},
		"dial":   {Transport: RawTCP(), dial: cause},
	} {
		t.Run(name, func(t *testing.T) {
			results, err := Run(t.Context(), Options{
				Transports: []Transport{b, RawTCP()}, Tests: []Test{ping}, Runs: 2, Volume: tiny, InProcess: true,
			})
			if !errors.Is(err, cause) || !strings.Contains(err.Error(), "ping over broken") {
				t.Errorf("the error is %v", err)
			}
			if len(results) != 1 || results[0].Transport != "raw-tcp" || len(results[0].Runs) != 2 {
				t.Errorf("the results are %+v", results)
			}
		})
	}
}

func TestWorkerErrorsReachTheCaller(t *testing.T) {
	ping, err := FindTest("ping")
	if err != nil {
		t.Fatal(err)
	}
	// The worker process does not know the transport "broken".
	_, err = Run(t.Context(), Options{
		Transports: []Transport{broken{Transport: RawTCP()}}, Tests: []Test{ping}, Runs: 1, Volume: tiny, Command: testWorker,
	})
	if err == nil || !strings.Contains(err.Error(), `there is no transport "broken"`) {
		t.Errorf("the error is %v", err)
	}
}

// mute is a server that accepts and never answers.
type mute struct{ Transport }

func (m mute) Name() string { return "mute" }

func (m mute) Listen(at netip.Addr, _ func(Conn)) (Server, error) {
	return m.Transport.Listen(at, func(conn Conn) {
		for conn.Receive(make([]byte, 1)) == nil {
		}
	})
}

func TestRunThatHangsEndsAtItsTimeout(t *testing.T) {
	ping, err := FindTest("ping")
	if err != nil {
		t.Fatal(err)
	}
	_, err = Run(t.Context(), Options{
		Transports: []Transport{mute{RawTCP()}}, Tests: []Test{ping}, Runs: 1, Volume: tiny, InProcess: true,
		Timeout: 50 * time.Millisecond,
	})
	if err == nil || !strings.Contains(err.Error(), "ping over mute: no result within 50ms") {
		t.Errorf("the error is %v", err)
	}
}

func TestWorkerRefusesBadOrders(t *testing.T) {
	for order, want := range map[string]string{
		"":                                    "needs an order",
		"{":                                   "malformed",
		`{"transport":"carrier-pigeon"}`:      `no transport "carrier-pigeon"`,
		`{"transport":"tls","role":"umpire"}`: `no worker of role \"umpire\"`,
		`{"transport":"tls","role":"client","test":"taste"}`: `no test \"taste\"`,
	} {
		var out bytes.Buffer
		err := Worker(t.Context(), builtIn(), strings.NewReader(order), &out, testWorker)
		if said := fmt.Sprint(err) + out.String(); !strings.Contains(said, want) {
			t.Errorf("order %q was answered by %q, want %q", order, said, want)
		}
	}
}

func TestTaskRoundTrip(t *testing.T) {
	want := task{kind: taskReceive, size: 65536, count: math.MaxInt}
	message := want.message()
	if len(message) != MessageSize {
		t.Fatalf("a task takes %d bytes, want %d", len(message), MessageSize)
	}
	if got, err := parseTask(message); err != nil || got != want {
		t.Errorf("parseTask = %+v, %v, want %+v", got, err, want)
	}
	for name, spoil := range map[string]func([]byte){
		"kind":  func(m []byte) { m[0] = 9 },
		"size":  func(m []byte) { m[1] = 0xff },
		"count": func(m []byte) { m[5] = 0xff },
	} {
		spoiled := want.message()
		spoil(spoiled)
		if got, err := parseTask(spoiled); err == nil {
			t.Errorf("a task with a bad %s was read as %+v", name, got)
		}
	}
}

// pipe is a stream whose bytes come from one buffer and go to another.
type pipe struct {
	io.Reader
	io.Writer
}

func TestStreamConnChecksWhatArrives(t *testing.T) {
	var wire bytes.Buffer
	sender := NewStreamConn(pipe{nil, &wire}, func() error { return nil })
	if err := sender.SendAll(3, MessageSize); err != nil {
		t.Fatal(err)
	}
	if want := 3 * (4 + MessageSize); wire.Len() != want {
		t.Fatalf("3 messages took %d bytes, want %d", wire.Len(), want)
	}
	sent := wire.Bytes()
	receive := func(count, size int, bytes []byte) error {
		return NewStreamConn(pipe{strings.NewReader(string(bytes)), nil}, func() error { return nil }).ReceiveAll(count, size)
	}
	if err := receive(3, MessageSize, sent); err != nil {
		t.Errorf("3 messages: %v", err)
	}
	if err := receive(3, KilobyteSize, sent); err == nil || !strings.Contains(err.Error(), "64 bytes") {
		t.Errorf("messages of another size: %v", err)
	}
	if err := receive(4, MessageSize, sent); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a message that is missing: %v", err)
	}
	if err := receive(3, MessageSize, sent[:len(sent)-1]); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a byte that is missing: %v", err)
	}
	if err := receive(1, BulkSize, make([]byte, BulkSize-1)); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a byte of a large message that is missing: %v", err)
	}
}

func TestUsageGrowsWithUse(t *testing.T) {
	before, err := takeUsage(detailLive)
	if err != nil {
		t.Fatal(err)
	}
	kept := make([]byte, 8<<20)
	for i := range kept {
		kept[i] = byte(i)
	}
	after, err := takeUsage(detailCounts)
	if err != nil {
		t.Fatal(err)
	}
	if after.Heap < before.Heap+uint64(len(kept))*9/10 || after.Mallocs <= before.Mallocs || after.CPU < before.CPU || after.Stack == 0 {
		t.Errorf("use went from %+v to %+v for 8 MiB", before, after)
	}
	if kept[1] != 1 {
		t.Error("the memory was lost")
	}
}

func TestProcessorTimeOfMessagesIsTold(t *testing.T) {
	bulk, err := FindTest("bulk")
	if err != nil {
		t.Fatal(err)
	}
	results, err := Run(t.Context(), Options{
		Transports: []Transport{TLS()}, Tests: []Test{bulk}, Runs: 1, Volume: tiny, Command: testWorker,
	})
	if err != nil {
		t.Fatal(err)
	}
	// Sealing and opening 64 KiB takes microseconds on any machine.
	if extra := results[0].Extra; extra["send_ns"] < 1000 || extra["receive_ns"] < 1000 {
		t.Errorf("a message of 64 KiB takes %v", extra)
	}
}
