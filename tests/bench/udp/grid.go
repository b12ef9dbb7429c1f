//go:build linux

package main

import (
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
	strict := flags.Bool("strict", false, "fail when a goal is missed or was not measured")
	names := flags.String("transports", "tcp-cubic,tcp-bbr,quic-go,libutp,libutp-tuned",
		"what to measure; with -crust also "+strings.Join(libcrusts, ", ")+" (over TCP by the kernel's default congestion control)")
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
		// secure-tcp takes it, and is to be compared with that column.
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
	w := notes
	if !*asJSON {
		w = out
		if err := writeGrid(out, cells, columns, results); err != nil {
			return err
		}
	}
	if *crust == "" {
		return nil
	}
	return tellGoals(w, gridGoals, results, *strict)
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
		program := self
		if slices.Contains(libcrusts, name) {
			if crust == "" {
				return nil, fmt.Errorf("%s needs the flag -crust", name)
			}
			program = func(args ...string) *exec.Cmd { return exec.Command(crust, append([]string{"bench"}, args...)...) }
		} else if _, err := findPeer(name); err != nil {
			return nil, err
		}
		columns = append(columns, column{name, func(ctx context.Context, lab *linklab.Lab, duration time.Duration) (float64, error) {
			a, b := lab.Host("a"), lab.Host("b")
			got, err := runFlow(ctx, b.Start, a.Start, program, name, b.Addr().String(), duration)
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
