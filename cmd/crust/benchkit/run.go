package benchkit

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"time"
)

// Options is what Run measures and how.
type Options struct {
	Transports []Transport
	Tests      []Test
	// Runs is how often each test runs over each transport. Zero means 5.
	Runs int
	// Volume is how much one run does.
	Volume Volume
	// InProcess puts both ends into this process, and leaves out the tests that
	// need two.
	InProcess bool
	// Command makes a command that executes this program again such that it
	// calls Worker with its standard input and output. Not needed InProcess.
	Command func() *exec.Cmd
	// Listen is the address at which servers listen. Zero means 127.0.0.1.
	Listen netip.Addr
	// Server are words put before the command of a server, such as those that run
	// it in another network namespace or, by ssh, on another machine. It must then
	// pass standard input and output on.
	Server []string
	// Remote, when not empty, is the address of an accepting end that is there already and
	// calls Serve. It needs InProcess, and takes only tests of a Grid. After a test that
	// failed there are no others.
	Remote string
	// ProfileDir, when not empty, is where each run leaves processor profiles of
	// both its processes, as TRANSPORT-TEST-RUN-client.pprof and -server.pprof.
	// It has no effect InProcess.
	ProfileDir string
	// Progress, when not nil, is called before each run: run of runs.
	Progress func(transport, test string, run, runs int)
	// Report, when not nil, is called with each result as soon as its last run
	// is over.
	Report func(Result)
	// Timeout bounds one run. Zero means 2 minutes.
	Timeout time.Duration
}

// Run measures and returns the results, in the order of tests and then of
// transports. The runs of one test take turns: each transport once, then each
// once more, and the one that begins changes. A transport that fails a test is
// left out of it; the error that Run returns then joins what went wrong.
func Run(ctx context.Context, o Options) ([]Result, error) {
	if o.Runs <= 0 {
		o.Runs = 5
	}
	if o.Timeout <= 0 {
		o.Timeout = 2 * time.Minute
	}
	if !o.Listen.IsValid() {
		o.Listen = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	o.Volume = o.Volume.withDefaults()
	var results []Result
	var errs []error
	for _, test := range o.Tests {
		if o.InProcess && test.TwoProcesses {
			continue
		}
		some, err := o.runTest(ctx, test)
		results = append(results, some...)
		errs = append(errs, err)
		if ctx.Err() != nil || err != nil && o.Remote != "" {
			break // what is not there does not come back
		}
	}
	return results, errors.Join(errs...)
}

func (o *Options) runTest(ctx context.Context, test Test) ([]Result, error) {
	outcomes := make([][]Outcome, len(o.Transports))
	failed := make([]error, len(o.Transports))
	for run := range o.Runs {
		for turn := range o.Transports {
			i := (turn + run) % len(o.Transports)
			if failed[i] != nil || test.datagrams && !carriesDatagrams(o.Transports[i]) {
				continue
			}
			if err := ctx.Err(); err != nil {
				return nil, context.Cause(ctx)
			}
			transport := o.Transports[i]
			if o.Progress != nil {
				o.Progress(transport.Name(), test.Name, run+1, o.Runs)
			}
			count := 0
			if run > 0 {
				count = outcomes[i][0].Count
			}
			outcome, err := o.runOnce(ctx, transport, test, run, count)
			if err != nil {
				failed[i] = fmt.Errorf("%s over %s: %w", test.Name, transport.Name(), err)
				continue
			}
			outcomes[i] = append(outcomes[i], outcome)
		}
	}
	var results []Result
	for i, transport := range o.Transports {
		if failed[i] != nil || len(outcomes[i]) == 0 {
			continue
		}
		result := Combine(transport.Name(), test, outcomes[i])
		results = append(results, result)
		if o.Report != nil {
			o.Report(result)
		}
	}
	return results, errors.Join(failed...)
}

// runOnce makes one run, in processes of its own unless InProcess.
func (o *Options) runOnce(ctx context.Context, transport Transport, test Test, run, count int) (outcome Outcome, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, o.Timeout, fmt.Errorf("no result within %v", o.Timeout))
	defer cancel()
	if o.InProcess {
		b := &bench{
			transport: transport, test: test, volume: o.Volume, count: count, together: true,
			serve: func(ends int) (serverEnd, error) { return startLocalServer(ctx, transport, o.Listen, ends) },
		}
		if o.Remote != "" {
			b.serve = func(int) (serverEnd, error) { return remoteEnd(o.Remote), nil }
		}
		outcome, err = test.measure(ctx, b)
		if ctx.Err() != nil {
			return outcome, context.Cause(ctx)
		}
		return outcome, err
	}
	command := o.Command
	if f, ok := transport.(foreign); ok {
		command = f.command
	}
	work := order{
		Role: "client", Transport: transport.Name(), Test: test.Name, Volume: o.Volume, Count: count,
		Listen: o.Listen, Server: o.Server,
	}
	if o.ProfileDir != "" {
		work.Profile = filepath.Join(o.ProfileDir, fmt.Sprintf("%s-%s-%d-client.pprof", transport.Name(), test.Name, run+1))
	}
	client, err := startProcess(ctx, command(), work)
	if err != nil {
		return outcome, err
	}
	answer, err := client.answer()
	err = errors.Join(err, client.Close())
	if ctx.Err() != nil {
		return outcome, context.Cause(ctx)
	}
	if err != nil {
		return outcome, err
	}
	if answer.Outcome == nil {
		return outcome, errors.New("the worker did not tell an outcome")
	}
	return *answer.Outcome, nil
}
