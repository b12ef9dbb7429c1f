package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/libcrust/libcrust/cmd/crust/benchdiff"
	"github.com/libcrust/libcrust/cmd/crust/benchkit"
	"github.com/libcrust/libcrust/cmd/crust/benchkit/sessions"
	"github.com/libcrust/libcrust/cmd/crust/benchplot"
	crust "github.com/libcrust/libcrust/core"
)

// fullTransports are those of a full run: the limits, and what libcrust has.
func fullTransports() []string {
	var names []string
	for _, t := range benchTransports() {
		switch t.Name() {
		case "raw-tcp", "raw-udp", "secure-tcp", "secure-utp", "tracer":
			names = append(names, t.Name())
		}
	}
	return names
}

// Defaults of a full run, by which it takes less than five minutes on two cores.
const (
	fullRuns     = 6 // the fewest of which an interval holds the median with 95 %
	fullDuration = 150 * time.Millisecond
	fullPings    = 1000
)

// settle checks the flags beside each other, and makes the options of --full and --remote
// of them.
func (o *benchOptions) settle(given func(string) bool) error {
	if o.serve {
		for _, flag := range []string{
			"transports", "tests", "runs", "duration", "pings", "connections", "idle", "server", "in-process", "profile", "full", "save", "plot", "remote", "sizes", "streams",
		} {
			if given(flag) {
				return usagef("--serve and --%s exclude each other", flag)
			}
		}
	}
	if o.remote != "" {
		if err := o.toRemote(given); err != nil {
			return err
		}
	}
	if o.grid && given("tests") {
		return usagef("--full and --tests exclude each other")
	}
	for _, c := range []struct {
		flag  string
		works bool
		with  string
	}{
		{"sizes", o.grid, "--full"}, {"streams", o.grid, "--full"}, {"port", o.serve, "--serve"}, {"tracer", o.serve, "--serve"},
		{"network", o.serve || o.remote != "", "--serve or --remote"},
	} {
		if given(c.flag) && !c.works {
			return usagef("--%s is for %s alone", c.flag, c.with)
		}
	}
	if o.grid {
		o.full(given)
	}
	return nil
}

// full turns the options into those of a full run, where they were not given.
func (o *benchOptions) full(given func(string) bool) {
	if !given("transports") && o.remote == "" {
		o.transports = fullTransports()
	}
	if !given("runs") {
		o.runs = fullRuns
	}
	if !given("duration") {
		o.volume.Duration = fullDuration
	}
	if !given("pings") {
		o.volume.Pings = fullPings
	}
}

// gridTests returns the tests of --full.
func (o *benchOptions) gridTests() ([]benchkit.Test, error) {
	for _, c := range []struct {
		flag   string
		values []int
		most   int
	}{{"sizes", o.sizes, benchkit.MaxGridSize}, {"streams", o.streams, benchkit.MaxGridStreams}} {
		for _, v := range c.values {
			if v < 1 || v > c.most {
				return nil, usagef("--%s is %d, not from 1 to %d", c.flag, v, c.most)
			}
		}
	}
	g := benchkit.Grid{Sizes: o.sizes, Streams: o.streams}
	return g.Tests(), nil
}

// toRemote measures over sessions with a peer elsewhere, which runs crust bench --serve.
func (o *benchOptions) toRemote(given func(string) bool) error {
	for _, flag := range []string{"transports", "server", "listen", "in-process", "profile"} {
		if given(flag) {
			return usagef("--remote and --%s exclude each other", flag)
		}
	}
	address, name, err := remoteAddress(o.remote)
	if err != nil {
		return err
	}
	o.remoteHost = "by any way"
	if contact, err := crust.ParseContact(address); err == nil {
		o.remoteHost = contact.Endpoint.Transport.String() + "://" + contact.Endpoint.Addr.Addr().String()
	}
	o.remote, o.transports, o.inProcess = address, []string{name}, true
	if given("tests") {
		for _, test := range o.tests {
			if _, _, _, ok := benchkit.Stream(test); !ok && !strings.HasPrefix(test, "rtt-") && !strings.HasPrefix(test, "dial-") {
				return usagef("--remote measures out-SIZE-CONNECTIONS, in-SIZE-CONNECTIONS, rtt-SIZE and dial-AT_A_TIME, not %q", test)
			}
		}
		return nil
	}
	o.grid = true
	return nil
}

// remoteAddress reads what --remote names, and says by which transport it is reached.
func remoteAddress(text string) (address, transport string, err error) {
	if strings.Contains(text, ":") {
		contact, err := crust.ParseContact(text)
		if err != nil {
			return "", "", usagef("--remote: %w", err)
		}
		name := sessions.Over(contact.Endpoint.Transport)
		if name == "" {
			return "", "", usagef("--remote: bench has no transport for %s", contact.Endpoint)
		}
		return text, name, nil
	}
	info, err := infoWord.DecodeString(strings.TrimRight(text, "="))
	if err == nil {
		_, _, err = crust.ParseConnectionInfo(info)
	}
	if err != nil {
		return "", "", usagef("--remote: %.40q is neither an endpoint such as tcp://203.0.113.5:5483#PEER nor a word that bench --serve printed", text)
	}
	return sessions.InfoAddress(info), sessions.AnyName, nil
}

// serveBench lets others measure over sessions with this machine, until it is interrupted.
func (o *benchOptions) serveBench(ctx context.Context, out io.Writer) error {
	at, err := netip.ParseAddr(o.listen)
	if err != nil {
		return usagef("--listen is %q, not an IP address", o.listen)
	}
	place := sessions.Place{Network: o.network, Listen: at, Port: o.port, Clear: o.tracer}
	return sessions.Serve(ctx, place, func(endpoints []string, info []byte) error {
		word := infoWord.EncodeToString(info)
		if o.json {
			return json.NewEncoder(out).Encode(map[string]any{"endpoints": endpoints, "info": word})
		}
		for _, ep := range endpoints {
			if _, err := fmt.Fprintf(out, "crust bench --network %s --remote %s\n", o.network, ep); err != nil {
				return err
			}
		}
		_, err := fmt.Fprintf(out, "or, by whatever way gets through:\ncrust bench --network %s --remote %s\n", o.network, word)
		return err
	})
}

// prepare finds out whether keep will be able to write, before minutes are spent.
func (o *benchOptions) prepare(tests []benchkit.Test) error {
	if o.plot != "" {
		if !slices.ContainsFunc(tests, func(t benchkit.Test) bool { return benchkit.InGrid(t.Name) }) {
			return usagef("--plot draws tests of --full, and there is none among these")
		}
		if err := os.MkdirAll(o.plot, 0o755); err != nil { //nolint:gosec // pictures are for all
			return err
		}
	}
	if o.save == "" {
		return nil
	}
	_, missing := os.Stat(o.save)
	file, err := os.OpenFile(o.save, os.O_WRONLY|os.O_CREATE, 0o644) //nolint:gosec // results are for all
	if err == nil {
		err = file.Close()
	}
	if err == nil && errors.Is(missing, os.ErrNotExist) {
		err = os.Remove(o.save)
	}
	return err
}

// keep writes the results to a file and draws them, as asked for.
func (o *benchOptions) keep(d *benchkit.Document, results []benchkit.Result, notes io.Writer) error {
	d.Results, d.Seconds = results, time.Since(d.Began).Round(time.Second).Seconds()
	if o.save != "" {
		file, err := os.Create(o.save)
		if err != nil {
			return err
		}
		if err := errors.Join(d.Write(file), file.Close()); err != nil {
			return err
		}
	}
	if o.plot == "" {
		return nil
	}
	return drawBench(d, o.plot, notes)
}

func drawBench(d *benchkit.Document, dir string, notes io.Writer) error {
	files, err := benchplot.Draw(d, dir)
	if err == nil {
		_, err = fmt.Fprintf(notes, "drawn: %s\n", strings.Join(files, ", "))
	}
	return err
}

// newBenchCompareCommand makes crust bench compare.
func newBenchCompareCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "compare A B",
		Short: "Compare two files of results",
		Long: `compare sets the results of file B beside those of file A, as --save or --json has written
them, and says what is better, worse or the same. Each figure is the median of its runs with
the interval that holds it with a confidence of 95 %; with less than six runs, that is their
range, which holds it with less. Better and worse are differences that chance alone makes in
less than 1 of 20 comparisons, by the Mann-Whitney U-test; that takes four runs of each at
least, below which the verdict is "too few". Runs of one file are alike in all that did not
change between them, such as what else the machine did: what matters is measured several
times, in turn, and the lines of crust bench --json added to one file for A and one for B.

With --json, each line is one comparison: "a" and "b" have "median", "low" and "high" of the
interval, the "confidence" with which it holds, and "runs"; "change_percent" is that of the
median, "p" how often chance alone makes such a difference, "verdict" one of better, worse,
same, too few, other unit, only in A, only in B.

` + exitCodeHelp,
		Example: "  crust bench compare before.json after.json",
		Args:    arguments(2, "takes two files"),
		RunE: func(cmd *cobra.Command, files []string) error {
			a, err := benchkit.ReadDocumentFile(files[0])
			if err != nil {
				return err
			}
			b, err := benchkit.ReadDocumentFile(files[1])
			if err != nil {
				return err
			}
			rows := benchdiff.Compare(a, b)
			if asJSON {
				return benchdiff.WriteJSON(cmd.OutOrStdout(), rows)
			}
			if err := benchdiff.WriteHead(cmd.OutOrStdout(), files[0], a, files[1], b); err != nil {
				return err
			}
			return benchdiff.Write(cmd.OutOrStdout(), rows)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object per comparison")
	return cmd
}

// newBenchPlotCommand makes crust bench plot.
func newBenchPlotCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "plot FILE DIR",
		Short:   "Draw the results of a full run",
		Long:    "plot draws the results in a file, as --save or --json has written them, as SVG and PNG\ninto a directory, like --plot.\n\n" + exitCodeHelp,
		Example: "  crust bench plot full.json plots",
		Args:    arguments(2, "takes a file and a directory"),
		RunE: func(cmd *cobra.Command, words []string) error {
			d, err := benchkit.ReadDocumentFile(words[0])
			if err != nil {
				return err
			}
			return drawBench(d, words[1], cmd.OutOrStdout())
		},
	}
}

// newBenchReportCommand makes crust bench report.
func newBenchReportCommand() *cobra.Command {
	var short bool
	cmd := &cobra.Command{
		Use:     "report FILE",
		Short:   "Write the results of a full run as Markdown",
		Long:    "report writes the results in a file, as --save or --json has written them, as tables in\nMarkdown: those of docs/BENCHMARKS.md, or with --short that of README.md.\n\n" + exitCodeHelp,
		Example: "  crust bench report full.json",
		Args:    arguments(1, "takes one file"),
		RunE: func(cmd *cobra.Command, words []string) error {
			d, err := benchkit.ReadDocumentFile(words[0])
			if err != nil {
				return err
			}
			if short {
				return benchkit.WriteShort(cmd.OutOrStdout(), d)
			}
			return benchkit.WriteReport(cmd.OutOrStdout(), d)
		},
	}
	cmd.Flags().BoolVar(&short, "short", false, "one small table")
	return cmd
}

// interrupted returns a context that ends by SIGINT and SIGTERM.
func interrupted() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
}
