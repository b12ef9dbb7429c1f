//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/libcrust/libcrust/cmd/crust/benchkit"
)

// self is this program with arguments.
func self(args ...string) *exec.Cmd {
	path, err := os.Executable()
	if err != nil {
		// Starting this command reports that it was not found.
		path = os.Args[0]
	}
	return exec.Command(path, args...)
}

// worker is this program as one end of a run.
func worker() *exec.Cmd { return self("worker") }

// work is one end of a run, as the order on in says.
func work(ctx context.Context, in io.Reader, out io.Writer) error {
	return benchkit.Worker(ctx, transports(), in, out, worker)
}

// libcrusts are the transports of crust bench that can run beside the others.
var libcrusts = []string{"secure-utp", "secure-utp-chacha", "secure-tcp", "secure-tcp-chacha"}

// findTransport finds a transport of this program, or of the crust tool when there
// is one.
func findTransport(name, crust string) (benchkit.Transport, error) {
	if !slices.Contains(libcrusts, name) {
		return benchkit.FindTransport(transports(), name)
	}
	if crust == "" {
		return nil, fmt.Errorf("%s needs the flag -crust", name)
	}
	return benchkit.Foreign(name, strings.HasPrefix(name, "secure-utp"), func() *exec.Cmd { return exec.Command(crust, "bench", "worker") }), nil
}

// bench runs benchkit's tests.
func bench(ctx context.Context, args []string, out, notes io.Writer) error {
	flags := newFlags("bench", notes)
	asJSON := flags.Bool("json", false, "print one JSON object per result on standard output, and the goals on standard error")
	strict := flags.Bool("strict", false, "fail when a goal is missed or was not measured")
	names := flags.String("transports", "", "what to measure, of "+strings.Join(benchkit.TransportNames(transports()), ", ")+
		", and with -crust "+strings.Join(libcrusts, ", ")+" (default: raw-udp, raw-udp-batch, raw-udp-gso, quic-go, libutp and secure-utp)")
	crust := flags.String("crust", "", "`path` of the crust tool, for transports of libcrust's")
	tests := flags.String("tests", "bulk,bulk64,msg64,msg1k,ping,datagram64,datagram,connect", "which tests to run, of "+strings.Join(benchkit.TestNames(), ", "))
	listen := flags.String("listen", "127.0.0.1", "IP `address` at which servers listen")
	server := flags.String("server", "", "`words` put before the command of a server, such as: linklab enter b --")
	o := benchkit.Options{Command: worker}
	flags.IntVar(&o.Runs, "runs", 5, "runs of each test over each transport")
	flags.DurationVar(&o.Volume.Duration, "duration", time.Second, "about how long a run of a throughput or connect test lasts")
	flags.IntVar(&o.Volume.Pings, "pings", 5000, "round trips of a ping run")
	flags.StringVar(&o.ProfileDir, "profile", "", "existing directory for pprof processor profiles of each run")
	if err := parseFlags(flags, args); err != nil {
		return err
	}
	if *names == "" {
		*names = "raw-udp,raw-udp-batch,raw-udp-gso,quic-go,libutp"
		if *crust != "" {
			*names += ",secure-utp"
		}
	}
	for name := range strings.SplitSeq(*names, ",") {
		t, err := findTransport(name, *crust)
		if err != nil {
			return err
		}
		o.Transports = append(o.Transports, t)
	}
	for name := range strings.SplitSeq(*tests, ",") {
		t, err := benchkit.FindTest(name)
		if err != nil {
			return err
		}
		o.Tests = append(o.Tests, t)
	}
	var err error
	if o.Listen, err = netip.ParseAddr(*listen); err != nil {
		return fmt.Errorf("-listen: %w", err)
	}
	o.Server = strings.Fields(*server)
	o.Progress = func(transport, test string, run, runs int) {
		if run == 1 {
			fmt.Fprintf(notes, "%s: %s over %s\n", time.Now().Format(time.TimeOnly), test, transport)
		}
	}
	if *asJSON {
		lines := json.NewEncoder(out)
		o.Report = func(r benchkit.Result) {
			_ = lines.Encode(r) // a broken output shows in the end
		}
	}
	results, err := benchkit.Run(ctx, o)
	w := notes
	if !*asJSON {
		w = out
		err = errors.Join(err, benchkit.WriteTable(out, results))
	}
	if *crust == "" {
		return err
	}
	return errors.Join(err, tellGoals(w, benchGoals, results, *strict))
}

// tellGoals writes what became of goals. With strict, all must be reached.
func tellGoals(w io.Writer, goals []benchkit.Goal, results []benchkit.Result, strict bool) error {
	missed, unknown, err := benchkit.WriteGoals(w, goals, results)
	if err == nil && strict && missed+unknown > 0 {
		err = fmt.Errorf("%d goals missed, %d not measured", missed, unknown)
	}
	return err
}
