//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/libcrust/libcrust/cmd/crust/benchkit"
)

// serverVariable names the environment variable with the words put before the
// command of a server, such as those that enter a namespace.
const serverVariable = "UDPBENCH_SERVER"

// self is this program with arguments.
func self(args ...string) *exec.Cmd {
	path, err := os.Executable()
	if err != nil {
		// Starting this command reports that it was not found.
		path = os.Args[0]
	}
	return exec.Command(path, args...)
}

// client is this program as the measuring end of a run.
func clientCommand() *exec.Cmd { return self("worker") }

// serverCommand is this program as the other end, wherever it should be.
func serverCommand() *exec.Cmd {
	command := clientCommand()
	if words := strings.Fields(os.Getenv(serverVariable)); len(words) > 0 {
		command = exec.Command(words[0], append(words[1:], command.Args...)...)
	}
	return command
}

// work is one end of a run, as the order on in says.
func work(ctx context.Context, in io.Reader, out io.Writer) error {
	return benchkit.Worker(ctx, transports(), in, out, serverCommand)
}

// bench runs benchkit's tests.
func bench(ctx context.Context, args []string, out, notes io.Writer) error {
	flags := newFlags("bench", notes)
	asJSON := flags.Bool("json", false, "print one JSON object per result")
	names := flags.String("transports", strings.Join(benchkit.TransportNames(transports()), ","), "what to measure")
	tests := flags.String("tests", "bulk,msg64,ping,connect", "which tests to run, of "+strings.Join(benchkit.TestNames(), ", "))
	listen := flags.String("listen", "127.0.0.1:0", "`address` at which servers listen")
	server := flags.String("server", "", "`words` put before the command of a server, such as: linklab enter b --")
	o := benchkit.Options{Command: clientCommand}
	flags.IntVar(&o.Runs, "runs", 5, "runs of each test over each transport")
	flags.DurationVar(&o.Volume.Duration, "duration", time.Second, "about how long a run of a throughput or connect test lasts")
	flags.IntVar(&o.Volume.Pings, "pings", 5000, "round trips of a ping run")
	flags.StringVar(&o.ProfileDir, "profile", "", "existing directory for pprof processor profiles of each run")
	if err := parseFlags(flags, args); err != nil {
		return err
	}
	for name := range strings.SplitSeq(*names, ",") {
		t, err := benchkit.FindTransport(transports(), name)
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
	// The workers inherit where to listen.
	if err := errors.Join(os.Setenv(listenVariable, *listen), os.Setenv(serverVariable, *server)); err != nil {
		return err
	}
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
	if !*asJSON {
		err = errors.Join(err, benchkit.WriteTable(out, results))
	}
	return err
}
