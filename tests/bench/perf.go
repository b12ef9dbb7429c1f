package main

import (
	"fmt"
	"io"
	"math"

	"github.com/libcrust/libcrust/cmd/crust/benchkit"
)

// goal is one figure that libcrust promises to reach.
type goal struct {
	about string
	// least is true for a figure that must be at least limit, false for one that
	// must be at most limit.
	least bool
	limit float64
	// transport and test name the result; beside names the transport that it is
	// divided by, "" when the figure stands for itself.
	transport, test, beside string
}

// goals are libcrust's, for machines with AES hardware. Figures of their own
// were set on two shared cores; ratios hold on any machine.
var goals = []goal{
	{"bulk, of raw TCP", true, 0.62, "secure-tcp", "bulk", "raw-tcp"},
	{"bulk, of go-libp2p TCP+Noise", true, 2.4, "secure-tcp", "bulk", "libp2p-noise"},
	{"bulk with ChaCha20-Poly1305, of raw TCP", true, 0.35, "secure-tcp-chacha", "bulk", "raw-tcp"},
	{"64-byte messages, Go to Go, msg/s", true, 5e6, "secure-tcp", "msg64", ""},
	{"64-byte messages, C to C, msg/s", true, 3e6, "secure-tcp", "msg64-c", ""},
	{"64-byte messages, Python to Python, msg/s", true, 6e5, "secure-tcp", "msg64-python", ""},
	{"1 KiB messages, Go to Go, msg/s", true, 1e6, "secure-tcp", "msg1k", ""},
	{"64-byte messages, of go-libp2p TCP+Noise", true, 1, "secure-tcp", "msg64", "libp2p-noise"},
	{"64-byte messages, of go-libp2p TCP+TLS", true, 1, "secure-tcp", "msg64", "libp2p-tls"},
	{"1 KiB messages, of go-libp2p TCP+Noise", true, 1, "secure-tcp", "msg1k", "libp2p-noise"},
	{"1 KiB messages, of go-libp2p TCP+TLS", true, 1, "secure-tcp", "msg1k", "libp2p-tls"},
	{"round trip p50, of raw TCP", false, 2, "secure-tcp", "ping", "raw-tcp"},
	{"round trip p50, of go-libp2p TCP+Noise", false, 0.75, "secure-tcp", "ping", "libp2p-noise"},
	{"round trip p50, of go-libp2p TCP+TLS", false, 0.75, "secure-tcp", "ping", "libp2p-tls"},
	{"allocations per 64-byte message, both ends", false, 0.1, "secure-tcp", "allocs", ""},
	{"idle pair, % of one core", false, 0.1, "secure-tcp", "idle", ""},
	{"sessions one after another, of Go TLS 1.3", true, 1.2, "secure-tcp", "connect", "tls"},
	{"sessions one after another, of libp2p TCP+Noise", true, 2.5, "secure-tcp", "connect", "libp2p-noise"},
	{"sessions 8 at a time, of Go TLS 1.3", true, 1.2, "secure-tcp", "connect8", "tls"},
	{"sessions 8 at a time, of libp2p TCP+Noise", true, 2.5, "secure-tcp", "connect8", "libp2p-noise"},
	{"memory per idle session and end, KiB", false, 12, "secure-tcp", "memory", ""},
}

// figure returns what was measured for a goal, NaN when something is missing.
func (g goal) figure(results []benchkit.Result) float64 {
	result, ok := benchkit.Find(results, g.transport, g.test)
	if !ok {
		return math.NaN()
	}
	if g.beside == "" {
		return result.Value
	}
	other, ok := benchkit.Find(results, g.beside, g.test)
	if !ok || other.Value == 0 {
		return math.NaN()
	}
	return result.Value / other.Value
}

// reached tells whether a figure reaches the goal; NaN does not.
func (g goal) reached(figure float64) bool {
	if g.least {
		return figure >= g.limit
	}
	return figure <= g.limit
}

// writeGoals writes each goal with what was measured, and returns how many were
// missed and how many could not be told.
func writeGoals(w io.Writer, results []benchkit.Result) (missed, unknown int, err error) {
	if _, err := fmt.Fprintf(w, "%-8s%-50s%12s    %s\n", "", "goal", "measured", "wanted"); err != nil {
		return 0, 0, err
	}
	for _, g := range goals {
		figure := g.figure(results)
		mark, measured := "pass", quantity(figure)
		switch {
		case math.IsNaN(figure):
			mark, measured = "-", "not measured"
			unknown++
		case !g.reached(figure):
			mark = "MISS"
			missed++
		}
		bound := "at most "
		if g.least {
			bound = "at least "
		}
		if _, err := fmt.Fprintf(w, "%-8s%-50s%12s    %s%s\n", mark, g.about, measured, bound, quantity(g.limit)); err != nil {
			return 0, 0, err
		}
	}
	_, err = fmt.Fprintf(w, "\n%d of %d goals reached, %d missed, %d not measured\n",
		len(goals)-missed-unknown, len(goals), missed, unknown)
	return missed, unknown, err
}

// quantity writes a figure short: 5.00 M, 600 k, 12, 0.620.
func quantity(v float64) string {
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%.2f M", v/1e6)
	case v >= 1e4:
		return fmt.Sprintf("%.0f k", v/1e3)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.3f", v)
}
