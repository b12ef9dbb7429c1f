// Command bench measures libcrust beside raw TCP, Go's TLS and go-libp2p in one
// interleaved run, and tells which of libcrust's performance goals it reaches on
// this machine. It is a module of its own, so that libcrust does not depend on
// what it is compared with.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"time"

	"github.com/libcrust/libcrust/cmd/crust/benchkit"
	"github.com/libcrust/libcrust/cmd/crust/benchkit/sessions"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

func transports() []benchkit.Transport {
	all := []benchkit.Transport{benchkit.RawTCP(), benchkit.TLS()}
	return slices.Concat(all, sessions.Transports(), libp2pTransports())
}

// worker is this program as one end of a measurement.
func worker() *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		// Starting this command reports that it was not found.
		self = os.Args[0]
	}
	return exec.Command(self, "worker")
}

// settings are the flags.
type settings struct {
	json       bool
	strict     bool
	quiet      bool
	transports string
	tests      string
	programs   []string
	options    benchkit.Options
}

func parse(args []string, help io.Writer) (*settings, error) {
	s := &settings{options: benchkit.Options{Command: worker}}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(help)
	flags.BoolVar(&s.json, "json", false, "print one JSON object per result on standard output, and the goals on standard error")
	flags.BoolVar(&s.strict, "strict", false, "fail when a goal is missed or was not measured")
	flags.BoolVar(&s.quiet, "quiet", false, "do not tell the progress on standard error")
	flags.StringVar(&s.transports, "transports", "raw-tcp,tls,secure-tcp,secure-tcp-chacha,libp2p-noise,libp2p-tls",
		"what to measure, of "+strings.Join(benchkit.TransportNames(transports()), ", "))
	flags.StringVar(&s.tests, "tests", strings.Join(benchkit.TestNames(), ","), "which tests to run")
	flags.Func("program", "`command` that makes one run by itself and prints results as this program does with -json; repeatable",
		func(command string) error {
			if len(strings.Fields(command)) == 0 {
				return errors.New("the command is empty")
			}
			s.programs = append(s.programs, command)
			return nil
		})
	flags.IntVar(&s.options.Runs, "runs", 5, "runs of each test over each transport")
	flags.DurationVar(&s.options.Volume.Duration, "duration", time.Second, "about how long a run of a throughput or connect test lasts")
	flags.IntVar(&s.options.Volume.Connections, "connections", 500, "connections of a memory run")
	flags.StringVar(&s.options.ProfileDir, "profile", "", "existing directory for pprof processor profiles of each run")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("there is no argument %q; see -help", flags.Arg(0))
	}
	for name := range strings.SplitSeq(s.transports, ",") {
		transport, err := benchkit.FindTransport(transports(), name)
		if err != nil {
			return nil, err
		}
		s.options.Transports = append(s.options.Transports, transport)
	}
	for name := range strings.SplitSeq(s.tests, ",") {
		test, err := benchkit.FindTest(name)
		if err != nil {
			return nil, err
		}
		s.options.Tests = append(s.options.Tests, test)
	}
	return s, nil
}

func run(ctx context.Context, args []string, in io.Reader, out, notes io.Writer) error {
	if len(args) == 1 && args[0] == "worker" {
		return benchkit.Worker(ctx, transports(), in, out, worker)
	}
	s, err := parse(args, notes)
	if err != nil {
		return err
	}
	if !s.quiet {
		s.options.Progress = func(transport, test string, run, runs int) {
			if run == 1 {
				fmt.Fprintf(notes, "%s: %s over %s\n", time.Now().Format(time.TimeOnly), test, transport)
			}
		}
	}
	lines := json.NewEncoder(out)
	if s.json {
		s.options.Report = func(r benchkit.Result) {
			// A broken standard output shows at the goals below.
			_ = lines.Encode(r)
		}
	}
	results, failed := benchkit.Run(ctx, s.options)
	more, err := s.runPrograms(ctx, notes)
	failed = errors.Join(failed, err)
	for _, r := range more {
		results = append(results, r)
		if s.json {
			failed = errors.Join(failed, lines.Encode(r))
		}
	}
	return errors.Join(failed, s.write(results, out, notes))
}

// write writes the table and the goals.
func (s *settings) write(results []benchkit.Result, out, notes io.Writer) error {
	w := out
	if s.json {
		w = notes
	} else if err := benchkit.WriteTable(out, results); err != nil {
		return err
	}
	missed, unknown, err := benchkit.WriteGoals(w, goals, results)
	if err == nil && s.strict && missed+unknown > 0 {
		err = fmt.Errorf("%d goals missed, %d not measured", missed, unknown)
	}
	return err
}

// runPrograms runs the other programs in turns, as often as the tests run, and
// joins what each of them measured.
func (s *settings) runPrograms(ctx context.Context, notes io.Writer) ([]benchkit.Result, error) {
	var results []benchkit.Result
	failed := map[string]error{}
	for run := range s.options.Runs {
		for _, command := range s.programs {
			if failed[command] != nil {
				continue
			}
			if run == 0 && !s.quiet {
				fmt.Fprintf(notes, "%s: %s\n", time.Now().Format(time.TimeOnly), command)
			}
			more, err := runProgram(ctx, command)
			if err != nil {
				failed[command] = err
			}
			for _, r := range more {
				results = join(results, r)
			}
		}
	}
	return results, errors.Join(slices.Collect(maps.Values(failed))...)
}

// join adds the runs of a result to those of the same test and transport.
func join(results []benchkit.Result, r benchkit.Result) []benchkit.Result {
	for i := range results {
		if have := &results[i]; have.Transport == r.Transport && have.Test == r.Test {
			have.Runs = append(have.Runs, r.Runs...)
			have.Value = benchkit.Median(have.Runs)
			return results
		}
	}
	return append(results, r)
}

// runProgram runs a command and reads results from its standard output.
func runProgram(ctx context.Context, command string) ([]benchkit.Result, error) {
	words := strings.Fields(command)
	var said strings.Builder
	program := exec.CommandContext(ctx, words[0], words[1:]...)
	program.Stderr = &said
	output, err := program.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", command, err, strings.TrimSpace(said.String()))
	}
	var results []benchkit.Result
	for line := range strings.Lines(string(output)) {
		var r benchkit.Result
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			return results, fmt.Errorf("%s printed %q: %w", command, strings.TrimSpace(line), err)
		}
		if r.Test == "" || len(r.Runs) == 0 {
			return results, fmt.Errorf("%s printed %q, which is no result", command, strings.TrimSpace(line))
		}
		results = append(results, r)
	}
	if len(results) == 0 {
		return nil, fmt.Errorf("%s printed no result", command)
	}
	return results, nil
}
