//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/libcrust/libcrust/cmd/crust/benchkit"
	"github.com/libcrust/libcrust/tests/linklab"
)

// cell is one link of the grid.
type cell struct {
	delay time.Duration
	loss  string
}

func (c cell) String() string { return fmt.Sprintf("%v %s", c.delay, c.loss) }

// column is one transport of the grid.
type column struct {
	name    string
	measure func(ctx context.Context, lab *linklab.Lab, duration time.Duration) (megabytes float64, err error)
}

// grid measures throughput over links of all delays and losses.
func grid(ctx context.Context, args []string, out, notes io.Writer) error {
	flags := newFlags("grid", notes)
	asJSON := flags.Bool("json", false, "print one JSON object per result; the test is bulk@DELAY,LOSS")
	names := flags.String("transports", "tcp-cubic,tcp-bbr,quic-go,libutp,libutp-tuned",
		"what to measure; crust-SCHEME is a pair of crust peers over that scheme, such as crust-tcp (by the kernel's default congestion control) or crust-utp")
	crust := flags.String("crust", "", "`path` of the crust tool, for transports of libcrust's")
	delays := flags.String("delays", "0,20ms,150ms", "delays of one way")
	losses := flags.String("losses", "0,1%,10%", "shares of packets lost, each way")
	link := flags.String("link", "rate=200mbit", "`words` with commas between, as of linklab tell set, of all links")
	seed := flags.Uint64("seed", 1, "repeats the losses")
	runs := flags.Int("runs", 5, "runs of each cell: BBR on a lossy link differs tenfold from run to run")
	duration := flags.Duration("duration", 5*time.Second, "how long a run counts, from the first byte on")
	if err := parseFlags(flags, args); err != nil {
		return err
	}
	columns, err := columnsOf(*names, *crust)
	if err != nil {
		return err
	}
	var cells []cell
	for delay := range strings.SplitSeq(*delays, ",") {
		d, err := time.ParseDuration(delay)
		if err != nil {
			return err
		}
		for loss := range strings.SplitSeq(*losses, ",") {
			cells = append(cells, cell{d, loss})
		}
	}
	if control, err := os.ReadFile("/proc/sys/net/ipv4/tcp_congestion_control"); err == nil {
		// crust-tcp takes it, and is to be compared with that column.
		fmt.Fprintf(notes, "TCP uses %s here where nothing else is asked for\n", bytes.TrimSpace(control))
	}
	var results []benchkit.Result
	lines := json.NewEncoder(out)
	for _, c := range cells {
		shape := linklab.Shape{Delay: c.delay}
		if err := shape.Set(append(strings.Split(*link, ","), "loss="+c.loss)...); err != nil {
			return err
		}
		fmt.Fprintf(notes, "%s: %v each way, %s lost\n", time.Now().Format(time.TimeOnly), c.delay, c.loss)
		for _, r := range measureCell(ctx, c, columns, shape, *seed, *runs, *duration, notes) {
			results = append(results, r)
			if *asJSON {
				if err := lines.Encode(r); err != nil {
					return err
				}
			}
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	if *asJSON {
		return nil
	}
	return writeGrid(out, cells, columns, results)
}

// measureCell measures all columns over one kind of link, in turns, each time over
// a link made anew. What fails is told on notes and left out.
func measureCell(
	ctx context.Context, c cell, columns []column, shape linklab.Shape, seed uint64, runs int, duration time.Duration, notes io.Writer,
) []benchkit.Result {
	results := make([]benchkit.Result, len(columns))
	for run := range runs {
		for i, column := range columns {
			config := linklab.Config{Seed: seed + uint64(run), Hosts: []linklab.HostConfig{{Name: "a", Up: shape, Down: shape}, {Name: "b"}}}
			value, err := measureOnce(ctx, config, column, duration)
			if err != nil {
				fmt.Fprintf(notes, "%s over %v: %v\n", column.name, c, err)
				continue
			}
			results[i].Runs = append(results[i].Runs, value)
		}
	}
	var good []benchkit.Result
	for i, r := range results {
		if len(r.Runs) > 0 {
			r.Transport, r.Test, r.Unit, r.Value = columns[i].name, c.test(), "MB/s", benchkit.Median(r.Runs)
			good = append(good, r)
		}
	}
	return good
}

func (c cell) test() string { return fmt.Sprintf("bulk@%v,%s", c.delay, c.loss) }

func measureOnce(ctx context.Context, config linklab.Config, c column, duration time.Duration) (value float64, err error) {
	lab, err := linklab.New(config)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, lab.Close()) }()
	return c.measure(ctx, lab, duration)
}

func columnsOf(names, crust string) ([]column, error) {
	var columns []column
	for name := range strings.SplitSeq(names, ",") {
		if scheme, ok := strings.CutPrefix(name, "crust-"); ok {
			if crust == "" {
				return nil, fmt.Errorf("%s needs the flag -crust", name)
			}
			columns = append(columns, column{name, func(ctx context.Context, lab *linklab.Lab, duration time.Duration) (float64, error) {
				return crustFlow(ctx, lab, crust, scheme, duration)
			}})
			continue
		}
		if _, err := findPeer(name); err != nil {
			return nil, err
		}
		columns = append(columns, column{name, func(ctx context.Context, lab *linklab.Lab, duration time.Duration) (float64, error) {
			a, b := lab.Host("a"), lab.Host("b")
			got, _, err := runFlow(ctx, b.Start, a.Start, duration, "-kind", "stream", "-transport", name, "-listen", b.Addr().String()+":0")
			return float64(got.Bytes) / 1e6 / got.Seconds, err
		}})
	}
	return columns, nil
}

// writeGrid writes a line for each link and a column for each transport: the median
// of the runs, and their range when there are several.
func writeGrid(out io.Writer, cells []cell, columns []column, results []benchkit.Result) error {
	var text strings.Builder
	fmt.Fprintf(&text, "%-8s%-8s", "delay", "loss")
	for _, c := range columns {
		fmt.Fprintf(&text, "%20s", c.name)
	}
	text.WriteString("   MB/s\n")
	for _, c := range cells {
		fmt.Fprintf(&text, "%-8v%-8s", c.delay, c.loss)
		for _, column := range columns {
			figure := "-"
			if r, ok := benchkit.Find(results, column.name, c.test()); ok {
				figure = fmt.Sprintf("%.2f", r.Value)
				if len(r.Runs) > 1 {
					figure += fmt.Sprintf(" (%.1f..%.1f)", slices.Min(r.Runs), slices.Max(r.Runs))
				}
			}
			fmt.Fprintf(&text, "%20s", figure)
		}
		text.WriteByte('\n')
	}
	_, err := io.WriteString(out, text.String())
	return err
}

// crustPeer is a running "crust peer --json".
type crustPeer struct {
	command *exec.Cmd
	input   io.WriteCloser
	lines   *bufio.Scanner
}

// crustEvent is what the tool says, as far as it is looked at.
type crustEvent struct {
	Event    string `json:"event"`
	Peer     string `json:"peer"`
	Error    string `json:"error"`
	Received int64  `json:"received_bytes"`
}

func startCrust(ctx context.Context, h *linklab.Host, path, listen string) (*crustPeer, error) {
	p := &crustPeer{command: exec.CommandContext(ctx, path, "peer", "--json", "--quiet-messages", "--network", "grid", "--listen", listen)}
	var err error
	if p.input, err = p.command.StdinPipe(); err != nil {
		return nil, err
	}
	output, err := p.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.lines = bufio.NewScanner(output)
	return p, h.Start(p.command)
}

func (p *crustPeer) close() {
	_ = p.command.Process.Kill()
	_ = p.command.Wait() // it was killed
}

func (p *crustPeer) say(line string) error {
	_, err := fmt.Fprintln(p.input, line)
	return err
}

// next waits for an event; failures meanwhile are errors.
func (p *crustPeer) next(event string) (crustEvent, error) {
	for p.lines.Scan() {
		var e crustEvent
		if err := json.Unmarshal(p.lines.Bytes(), &e); err != nil {
			return e, err
		}
		switch e.Event {
		case event:
			return e, nil
		case "error", "connect_failed", "listener_failed", "lost":
			return e, fmt.Errorf("crust said %s", p.lines.Text())
		}
	}
	return crustEvent{}, errors.Join(fmt.Errorf("crust ended before %s", event), p.lines.Err())
}

// crustFlow streams from a to b by the crust tool.
func crustFlow(ctx context.Context, lab *linklab.Lab, path, scheme string, duration time.Duration) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, duration+connectTime)
	defer cancel()
	a, b := lab.Host("a"), lab.Host("b")
	at := fmt.Sprintf("%s://%v:5483", scheme, b.Addr())
	to, err := startCrust(ctx, b, path, at)
	if err != nil {
		return 0, err
	}
	defer to.close()
	if _, err := to.next("listener_started"); err != nil {
		return 0, err
	}
	from, err := startCrust(ctx, a, path, fmt.Sprintf("%s://%v:0", scheme, a.Addr()))
	if err != nil {
		return 0, err
	}
	defer from.close()
	if err := from.say("connect " + at); err != nil {
		return 0, err
	}
	connected, err := from.next("connected")
	if err != nil {
		return 0, err
	}
	// More than any link carries.
	if err := from.say(fmt.Sprintf("bulk %s 10000000 %d", connected.Peer, chunk)); err != nil {
		return 0, err
	}
	var start time.Time
	for {
		if err := to.say("stats"); err != nil {
			return 0, err
		}
		stats, err := to.next("stats")
		if err != nil {
			return 0, err
		}
		if start.IsZero() && stats.Received > 0 {
			start = time.Now()
		}
		if took := time.Since(start); !start.IsZero() && took >= duration {
			return float64(stats.Received) / 1e6 / took.Seconds(), nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}
