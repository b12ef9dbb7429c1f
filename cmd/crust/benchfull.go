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
	"strings"
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
	fullDuration = 150 * time.Millisecond
	fullPings    = 1000
)

// full turns the options into those of a full run, where they were not given.
func (o *benchOptions) full(given func(string) bool) {
	if !given("transports") {
		o.transports = fullTransports()
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
func (o *benchOptions) serveBench(ctx context.Context, given func(string) bool, out io.Writer) error {
	for _, flag := range []string{"transports", "tests", "server", "in-process", "profile", "full", "save", "plot", "remote", "sizes", "streams"} {
		if given(flag) {
			return usagef("--serve and --%s exclude each other", flag)
		}
	}
	at, err := netip.ParseAddr(o.listen)
	if err != nil {
		return usagef("--listen is %q, not an IP address", o.listen)
	}
	return sessions.Serve(ctx, o.network, at, o.port, func(endpoints []string, info []byte) error {
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
the interval that holds it with a confidence of 95 %, as far as the runs allow that. Better
and worse are differences that chance alone makes in less than 1 of 20 comparisons, by the
Mann-Whitney U-test; that takes four runs of each at least.

With --json, each line is one comparison.

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

// interrupted returns a context that ends by SIGINT.
func interrupted() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), os.Interrupt)
}
