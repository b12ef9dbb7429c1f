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

	"github.com/spf13/cobra"

	"github.com/libcrust/libcrust/cmd/crust/benchkit"
	"github.com/libcrust/libcrust/cmd/crust/benchkit/sessions"
	crust "github.com/libcrust/libcrust/core"
)

// benchTransports are all that crust bench knows. Some run only when asked for.
func benchTransports() []benchkit.Transport {
	return slices.Concat([]benchkit.Transport{benchkit.RawTCP(), benchkit.TLS()}, benchkit.RawUDP(), sessions.Transports())
}

// benchOptions are the flags of crust bench.
type benchOptions struct {
	json       bool
	inProcess  bool
	transports []string
	tests      []string
	runs       int
	volume     benchkit.Volume
	profile    string
	listen     string
	server     string
	grid       bool // --full
	sizes      []int
	streams    []int
	save       string
	plot       string
	remote     string
	remoteHost string // of the same, without port and peer
	serve      bool
	network    string
	port       uint16
	tracer     bool // of --serve
}

// newBenchCommand makes crust bench, which measures libcrust beside raw TCP and
// Go's TLS on this machine.
func newBenchCommand() *cobra.Command {
	o := benchOptions{
		transports: []string{"raw-tcp", "tls", "secure-tcp", "secure-tcp-chacha", "secure-utp"},
		tests:      benchkit.TestNames(),
	}
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure libcrust beside raw TCP and TLS",
		Long: `bench measures libcrust's encrypted sessions, over TCP and over UDP, beside raw TCP
and Go's TLS 1.3, over the loopback interface, with the two ends in processes of
their own. Runs of the transports take turns, so that a machine that slows down
slows all of them, and each figure is the median of its runs.

The accepting ends may be elsewhere: --server has the words before their command,
and --listen the address at which they listen there.

` + benchTestHelp() + `
With --full the tests are instead, for sessions over TCP, over UDP and in clear (tracer), and
for the raw sockets beside them,

  out-SIZE-CONNECTIONS  messages per second to the other end, and "mb_s"
  in-SIZE-CONNECTIONS   the same from the other end
  rtt-SIZE              round trip of one message, median, "p90" and "p99"
  dial-AT_A_TIME        time of a new connection, the same

and --plot draws them. Such names may be given to --tests, too. With --remote, a peer that
runs bench --serve is the other end.

With --json, each line of output is one result:

  {"transport":"secure-tcp","test":"bulk","value":N,"unit":"MB/s","runs":[N,...]}

"value" is the median of "runs". Further figures are fields beside it: the 99th
percentile of a ping ("p99"), the nanoseconds of processor time that a message
takes at each end ("send_ns", "receive_ns"), and memory and allocs of each end.

` + exitCodeHelp,
		Example: `  crust bench
  crust bench --json --tests bulk,ping
  crust bench --transports raw-tcp,secure-tcp --tests msg64 --profile /tmp/profiles
  crust bench --full --save full.json --plot plots
  crust bench compare before.json after.json
  crust bench --serve --listen 203.0.113.5
  crust bench --server "ssh other.example" --listen 203.0.113.5 --transports secure-utp --tests bulk`,
		Args: arguments(0, "takes no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := interrupted()
			defer stop()
			given := cmd.Flags().Changed
			if err := o.settle(given); err != nil {
				return err
			}
			if o.serve {
				return o.serveBench(ctx, cmd.OutOrStdout())
			}
			return o.run(ctx, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&o.json, "json", false, "print one JSON object per result instead of a table")
	flags.BoolVar(&o.inProcess, "in-process", false, "keep both ends in one process (leaves out memory, allocs and idle)")
	flags.StringSliceVar(&o.transports, "transports", o.transports,
		"what to measure, of "+strings.Join(benchkit.TransportNames(benchTransports()), ", "))
	flags.StringSliceVar(&o.tests, "tests", o.tests, "which tests to run")
	flags.IntVar(&o.runs, "runs", 5, "runs of each test over each transport, from 1 to 1000; 6 with --full")
	flags.DurationVar(&o.volume.Duration, "duration", time.Second, "about how long a run of a throughput or connect test lasts; 150ms with --full")
	flags.IntVar(&o.volume.Pings, "pings", 5000, "round trips of a ping run; 1000 with --full")
	flags.IntVar(&o.volume.Connections, "connections", 500, "connections of a memory run")
	flags.DurationVar(&o.volume.Idle, "idle", 3*time.Second, "how long an idle run watches")
	flags.StringVar(&o.profile, "profile", "", "existing directory in which each run leaves a pprof processor profile of both processes")
	flags.StringVar(&o.listen, "listen", "127.0.0.1", "IP address at which accepting ends listen, on any port")
	flags.StringVar(&o.server, "server", "", `words put before the command of accepting ends, such as "ssh HOST" or "ip netns exec NAME"`)
	flags.BoolVar(&o.grid, "full", false, "measure each size of messages and several numbers of connections, both ways, beside raw TCP and UDP, in less than five minutes")
	flags.IntSliceVar(&o.sizes, "sizes", nil, "sizes in bytes of the messages of --full (default 64,256,1024,8192,65536,524288)")
	flags.IntSliceVar(&o.streams, "streams", nil, "numbers of connections at once of --full, beside one (default 8,64)")
	flags.StringVar(&o.save, "save", "", "`FILE` for the results and what they were measured on, as JSON, for compare, plot and report; what was measured before an error is in it, too")
	flags.StringVar(&o.plot, "plot", "", "`DIR` for plots of --full, as SVG and PNG")
	flags.StringVar(&o.remote, "remote", "", "measure over sessions with a `PEER` that runs bench --serve: ENDPOINT[#PEER], or the word that it has printed")
	flags.BoolVar(&o.serve, "serve", false, "let others measure with --remote, over sessions, until interrupted; whoever knows the network name can keep this machine busy")
	flags.StringVar(&o.network, "network", sessions.Network, "network `NAME` of --serve and --remote, the same on both sides")
	flags.Uint16Var(&o.port, "port", 0, "`PORT` of --serve, of TCP and of UDP (default random ones)")
	flags.BoolVar(&o.tracer, "tracer", false, "let others measure with --serve IN CLEAR, too, by the tracer transport, at a random port")
	cmd.AddCommand(newBenchCompareCommand(), newBenchPlotCommand(), newBenchReportCommand())
	cmd.AddCommand(newBenchWorkerCommand(), newBenchSinkCommand(), newBenchSourceCommand())
	return cmd
}

// benchTestHelp lists the tests with what they measure.
func benchTestHelp() string {
	var text strings.Builder
	for _, t := range benchkit.Tests {
		fmt.Fprintf(&text, "  %-10s %s (%s)\n", t.Name, t.About, t.Unit)
	}
	return text.String()
}

// newBenchWorkerCommand makes the command by which bench runs itself for the
// ends of its connections.
func newBenchWorkerCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "worker",
		Short:  "Be one end of a measurement, as told on standard input",
		Hidden: true,
		Args:   arguments(0, "takes no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return benchkit.Worker(cmd.Context(), benchTransports(), cmd.InOrStdin(), cmd.OutOrStdout(), benchWorker)
		},
	}
}

// newBenchSinkCommand and newBenchSourceCommand make the commands that are the
// ends of one flow, for links between two network namespaces or machines.
func newBenchSinkCommand() *cobra.Command {
	var transport, listen string
	var duration time.Duration
	cmd := &cobra.Command{
		Use:    "sink",
		Short:  "Receive one flow, check it and count it",
		Hidden: true,
		Args:   arguments(0, "takes no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			at, err := netip.ParseAddr(listen)
			if err != nil {
				return usagef("--listen is %q, not an IP address", listen)
			}
			return sessions.Sink(cmd.Context(), transport, at, duration, cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&transport, "transport", "secure-utp", "by what")
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1", "IP address at which to listen")
	cmd.Flags().DurationVar(&duration, "duration", 5*time.Second, "how long to count, from the first byte on")
	return cmd
}

func newBenchSourceCommand() *cobra.Command {
	var transport, dial string
	var duration time.Duration
	cmd := &cobra.Command{
		Use:    "source",
		Short:  "Send one flow",
		Hidden: true,
		Args:   arguments(0, "takes no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return sessions.Source(cmd.Context(), transport, dial, duration)
		},
	}
	cmd.Flags().StringVar(&transport, "transport", "secure-utp", "by what")
	cmd.Flags().StringVar(&dial, "dial", "", "address that the sink has told")
	cmd.Flags().DurationVar(&duration, "duration", 5*time.Second, "how long to send")
	return cmd
}

func benchWorker() *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		// Starting this command reports that it was not found.
		self = os.Args[0]
	}
	return exec.Command(self, "bench", "worker")
}

// selection checks the flags and turns them into what benchkit runs.
func (o *benchOptions) selection() (benchkit.Options, error) {
	options := benchkit.Options{
		Runs: o.runs, Volume: o.volume, InProcess: o.inProcess, Command: benchWorker, ProfileDir: o.profile,
		Server: strings.Fields(o.server),
	}
	var err error
	if options.Listen, err = netip.ParseAddr(o.listen); err != nil {
		return options, usagef("--listen is %q, not an IP address", o.listen)
	}
	if options.Remote = o.remote; o.remote != "" {
		options.Transports = []benchkit.Transport{sessions.Remote(o.transports[0], o.network)}
		o.transports = nil
	}
	for _, name := range o.transports {
		transport, err := benchkit.FindTransport(benchTransports(), name)
		if err != nil {
			return options, usageError{err}
		}
		options.Transports = append(options.Transports, transport)
	}
	if o.grid {
		if options.Tests, err = o.gridTests(); err != nil {
			return options, err
		}
		o.tests = nil
	}
	for _, name := range o.tests {
		test, err := benchkit.FindTest(name)
		if err != nil {
			return options, usageError{err}
		}
		options.Tests = append(options.Tests, test)
	}
	switch {
	case o.inProcess && o.server != "":
		return options, usagef("--in-process and --server exclude each other")
	case o.runs < 1 || o.runs > 1000:
		return options, usagef("--runs is %d, not from 1 to 1000", o.runs)
	case o.volume.Duration <= 0 || o.volume.Duration > time.Minute:
		return options, usagef("--duration is %v, not over 0 and up to 1m", o.volume.Duration)
	case o.volume.Idle <= 0 || o.volume.Idle > time.Minute:
		return options, usagef("--idle is %v, not over 0 and up to 1m", o.volume.Idle)
	case o.volume.Pings < 1 || o.volume.Pings > 1_000_000:
		return options, usagef("--pings is %d, not from 1 to 1000000", o.volume.Pings)
	case o.volume.Connections < 1 || o.volume.Connections > 4000:
		return options, usagef("--connections is %d, not from 1 to 4000", o.volume.Connections)
	}
	return options, nil
}

// run measures and prints: results to out, progress to progress when that is a
// terminal.
func (o *benchOptions) run(ctx context.Context, out, progress io.Writer) error {
	options, err := o.selection()
	if err != nil {
		return err
	}
	if isTerminal(progress) {
		options.Progress = func(transport, test string, run, runs int) {
			fmt.Fprintf(progress, "\r\x1b[K%s over %s, run %d of %d", test, transport, run, runs)
		}
		defer fmt.Fprint(progress, "\r\x1b[K")
	}
	var unwritten error
	if o.json {
		lines := json.NewEncoder(out)
		options.Report = func(r benchkit.Result) {
			if err := lines.Encode(r); err != nil && unwritten == nil {
				unwritten = err
			}
		}
	}
	if err := o.prepare(options.Tests); err != nil {
		return err
	}
	document := benchkit.NewDocument(crust.Version, time.Now(), options.Volume)
	document.Remote = o.remoteHost
	results, err := benchkit.Run(ctx, options)
	if err != nil && len(results) == 0 {
		return err
	}
	if !o.json {
		if isTerminal(progress) {
			fmt.Fprint(progress, "\r\x1b[K")
		}
		unwritten = benchkit.WriteTable(out, results)
	}
	if err == nil {
		err = unwritten
	}
	return errors.Join(err, o.keep(document, results, progress))
}

// isTerminal tells whether w is a terminal or something like it.
func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
