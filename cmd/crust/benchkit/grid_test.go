package benchkit

import (
	"bytes"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestGridNames(t *testing.T) {
	tests := Grid{}.Tests()
	seen := map[string]bool{}
	for _, test := range tests {
		if seen[test.Name] {
			t.Errorf("%s comes twice", test.Name)
		}
		seen[test.Name] = true
		found, err := FindTest(test.Name)
		if err != nil || found.size != test.size || found.workers != test.workers || found.direction != test.direction || found.About != test.About {
			t.Errorf("%s leads to %+v, %v; want %+v", test.Name, found, err, test)
		}
	}
	for _, name := range []string{"out-64-1", "in-65536-64", "rtt-1024", "dial-8"} {
		if !seen[name] {
			t.Errorf("there is no %s", name)
		}
	}
	for _, name := range []string{
		"", "out", "out-64", "out-64-0", "out-0-1", "out-064-1", "out--1", "in-64-1-1", "rtt", "rtt-", "rtt-64-1", "dial-0", "dial-x", "both-64-1",
		"out-2097153-1", "out-64-513", "rtt-2097153", "dial-513", "out-99999999999999999999-1",
	} {
		if test, err := FindTest(name); err == nil {
			t.Errorf("%q leads to %+v", name, test)
		}
	}
}

func TestWhatGridTestsAre(t *testing.T) {
	if direction, size, n, ok := Stream("in-65536-8"); direction != In || size != 65536 || n != 8 || !ok {
		t.Errorf("%q %d %d %v", direction, size, n, ok)
	}
	if size, ok := RoundTrip("rtt-1024"); size != 1024 || !ok {
		t.Errorf("%d %v", size, ok)
	}
	if n, ok := Dialled("dial-8"); n != 8 || !ok {
		t.Errorf("%d %v", n, ok)
	}
	for _, name := range []string{"bulk", "ping", "connect"} {
		_, _, _, stream := Stream(name)
		_, trip := RoundTrip(name)
		_, dialled := Dialled(name)
		if stream || trip || dialled {
			t.Errorf("%s is taken for a test of a grid", name)
		}
	}
	for n, want := range map[int]string{64: "64 B", 1000: "1000 B", 1024: "1 KiB", 1536: "1536 B", 8 << 10: "8 KiB", 2 << 20: "2 MiB"} {
		if got := SizeText(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}

// small is a grid that is over at once.
var small = Grid{Sizes: []int{1, 64, 1400, 1401, 64 << 10, 200_000}, Streams: []int{3}, Pings: []int{1, 64, 20_000}}

func TestGridOverRawSockets(t *testing.T) {
	transports := append(builtIn(), RawUDP()...)
	results, err := Run(t.Context(), Options{Transports: transports, Tests: small.Tests(), Runs: 2, Volume: tiny, InProcess: true})
	if err != nil {
		t.Fatal(err)
	}
	if want := len(transports) * len(small.Tests()); len(results) != want {
		t.Errorf("%d results, want %d", len(results), want)
	}
	for _, r := range results {
		if r.Value <= 0 || len(r.Runs) != 2 {
			t.Errorf("%+v", r)
		}
		_, size, _, stream := Stream(r.Test)
		if speed := r.Extra["mb_s"]; stream != (speed > 0) || stream && (speed < 0.5*r.Value*float64(size)/1e6 || speed > 2*r.Value*float64(size)/1e6) {
			t.Errorf("%s over %s: %v a second and %v MB/s", r.Test, r.Transport, r.Value, speed)
		}
		if p99, ok := r.Extra["p99"]; ok == stream || !stream && p99 < r.Value/2 {
			t.Errorf("%s over %s: %v, and p99 is %v", r.Test, r.Transport, r.Value, p99)
		}
	}
}

func TestGridInTwoProcesses(t *testing.T) {
	results, err := Run(t.Context(), Options{
		Transports: []Transport{RawTCP()}, Tests: Grid{Sizes: []int{64}, Streams: []int{2}, Pings: []int{64}}.Tests(), Runs: 1, Volume: tiny, Command: testWorker,
	})
	if err != nil || len(results) != 9 {
		t.Errorf("%d results, %v", len(results), err)
	}
}

func sampleDocument() *Document {
	d := NewDocument("1.2.3", time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), Volume{})
	for i, transport := range []string{"raw-tcp", "secure-tcp"} {
		for k, test := range (Grid{Sizes: []int{64, 64 << 10}}).Tests() {
			v := float64(1000 * (1 + k) / (1 + i))
			extra := map[string]float64{"p99": 2 * v}
			if _, size, _, ok := Stream(test.Name); ok {
				extra = map[string]float64{"mb_s": v * float64(size) / 1e6}
			}
			d.Results = append(d.Results, Combine(transport, test, []Outcome{{Value: v, Extra: extra}, {Value: 2 * v, Extra: extra}, {Value: 3 * v, Extra: extra}}))
		}
	}
	return d
}

func TestDocuments(t *testing.T) {
	d := sampleDocument()
	var text bytes.Buffer
	if err := d.Write(&text); err != nil {
		t.Fatal(err)
	}
	back, err := ReadDocument(bytes.NewReader(text.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	var again bytes.Buffer
	if err := back.Write(&again); err != nil || again.String() != text.String() {
		t.Errorf("read back and written: %v\n%s\nwant\n%s", err, again.String(), text.String())
	}
	if lines := strings.Count(text.String(), "\n    {"); lines != len(d.Results) {
		t.Errorf("%d lines of results, want %d:\n%s", lines, len(d.Results), text.String())
	}
	// Lines, as crust bench --json prints them, are a document too.
	var lines []byte
	for _, r := range d.Results {
		line, err := r.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		lines = append(append(lines, line...), '\n')
	}
	if back, err := ReadDocument(bytes.NewReader(lines)); err != nil || len(back.Results) != len(d.Results) {
		t.Errorf("%v", err)
	}
	// No prefix is a document, but those that end behind a line.
	for n := range text.Len() - 1 {
		if _, err := ReadDocument(bytes.NewReader(text.Bytes()[:n])); err == nil && n < text.Len()-2 {
			t.Fatalf("the first %d of %d bytes are taken for a document", n, text.Len())
		}
	}
	for _, bad := range []string{
		"", "[]", "{}", `{"results":[]}`, `{"schema":1,"results":[]}`, `{"schema":1,"results":[{}]}`, `{"schema":1}`, `{"transport":"a","test":"b"}`, `{"schema":1,"results":7}`, "null", "\x00",
		`{"schema":2,"results":[{"transport":"a","test":"b","runs":[1]}]}`, `{"schema":0,"results":[{"transport":"a","test":"b","runs":[1]}]}`, `{"results":[{"transport":"a","test":"b","runs":[1]}]}`,
		`{"transport":"a","test":"b","unit":"x","runs":[1]}{"transport":"a","test":"b","unit":"y","runs":[1]}`,
	} {
		if d, err := ReadDocument(strings.NewReader(bad)); err == nil {
			t.Errorf("%q is taken for %+v", bad, d)
		}
	}
}

// Lines of several runs in one file are more runs of the same tests.
func TestDocumentsOfSeveralRuns(t *testing.T) {
	d, err := ReadDocument(strings.NewReader(`{"transport":"a","test":"b","value":2,"unit":"us","runs":[1,2,3],"p99":10}
{"transport":"a","test":"c","value":7,"unit":"us","runs":[7]}
{"transport":"a","test":"b","value":6,"unit":"us","runs":[5,6,7],"p99":20}`))
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Results) != 2 || d.Results[0].Value != 4 || !slices.Equal(d.Results[0].Runs, []float64{1, 2, 3, 5, 6, 7}) || d.Results[0].Extra["p99"] != 15 || d.Results[1].Value != 7 {
		t.Errorf("%+v", d.Results)
	}
}

// What strangers may ask for has bounds.
func TestServeRefuses(t *testing.T) {
	for _, asked := range []task{{taskReceive, MaxGridSize + 1, 1}, {taskEchoSized, MaxGridSize + 1, 1}, {taskEchoSized, -1, 1}, {taskSend, MaxGridSize + 1, 1}, {0, 1, 1}, {taskEchoSized + 1, 1, 1}, {taskDatagrams, 64, 1}} {
		here, there := net.Pipe()
		served := make(chan error, 1)
		go func() { served <- Serve(NewStreamConn(there, there.Close)) }()
		conn := NewStreamConn(here, here.Close)
		if err := conn.Send(asked.message()); err != nil {
			t.Fatal(err)
		}
		if asked.kind == taskDatagrams {
			if err := conn.Receive(make([]byte, MessageSize)); err != nil {
				t.Fatal(err)
			}
		}
		if err := <-served; err == nil {
			t.Errorf("%+v was done", asked)
		}
		here.Close()
		there.Close()
	}
}

func FuzzReadDocument(f *testing.F) {
	var text bytes.Buffer
	if err := sampleDocument().Write(&text); err != nil {
		f.Fatal(err)
	}
	f.Add(text.Bytes())
	f.Add([]byte(`{"transport":"raw-tcp","test":"out-64-1","value":1,"unit":"msg/s","runs":[1]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := ReadDocument(bytes.NewReader(text))
		if err != nil {
			return
		}
		if err := WriteReport(&bytes.Buffer{}, d); err != nil {
			t.Error(err)
		}
		if err := WriteShort(&bytes.Buffer{}, d); err != nil {
			t.Error(err)
		}
	})
}

func TestReports(t *testing.T) {
	var long, short bytes.Buffer
	d := sampleDocument()
	if err := WriteReport(&long, d); err != nil {
		t.Fatal(err)
	}
	if err := WriteShort(&short, d); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"libcrust 1.2.3, go", "on 2026-01-02", "**Messages per second to the other end, one connection, by the size of messages**\n\n| | 64 B | 64 KiB |\n|---|---|---|\n| secure-tcp |",
		"**MB/s from the other end, messages of 64 KiB, by connections at once**\n\n| | 1 | 8 | 64 |", "| 1 at a time | 1 at a time, p99 |",
	} {
		if !strings.Contains(long.String(), want) {
			t.Errorf("there is no %q in\n%s", want, long.String())
		}
	}
	if lines := strings.Split(short.String(), "\n"); len(lines) != 5 || !strings.HasPrefix(lines[2], "| secure-tcp | 1,000 |") || !strings.HasPrefix(lines[3], "| raw-tcp | 2,000 |") {
		t.Errorf("%s", short.String())
	}
}
