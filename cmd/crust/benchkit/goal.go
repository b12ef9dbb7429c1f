package benchkit

import (
	"fmt"
	"io"
	"math"
)

// Goal is one figure that a transport promises to reach.
type Goal struct {
	About string
	// Least is true for a figure that must be at least Limit, false for one that
	// must be at most Limit.
	Least bool
	Limit float64
	// Transport and Test name the result; Beside names the transport that it is
	// divided by, and BesideTest the test, Test when it is "". When both are "" the
	// figure stands for itself.
	Transport, Test, Beside, BesideTest string
}

// figure returns what was measured for a goal, NaN when something is missing.
func (g Goal) figure(results []Result) float64 {
	result, ok := Find(results, g.Transport, g.Test)
	if !ok {
		return math.NaN()
	}
	if g.Beside == "" && g.BesideTest == "" {
		return result.Value
	}
	transport, test := g.Beside, g.BesideTest
	if transport == "" {
		transport = g.Transport
	}
	if test == "" {
		test = g.Test
	}
	other, ok := Find(results, transport, test)
	if !ok || other.Value == 0 {
		return math.NaN()
	}
	return result.Value / other.Value
}

// reached tells whether a figure reaches the goal; NaN does not.
func (g Goal) reached(figure float64) bool {
	if g.Least {
		return figure >= g.Limit
	}
	return figure <= g.Limit
}

// WriteGoals writes each goal with what was measured, and returns how many were
// missed and how many could not be told.
func WriteGoals(w io.Writer, goals []Goal, results []Result) (missed, unknown int, err error) {
	if _, err := fmt.Fprintf(w, "%-8s%-50s%12s    %s\n", "", "goal", "measured", "wanted"); err != nil {
		return 0, 0, err
	}
	for _, g := range goals {
		figure := g.figure(results)
		mark, measured := "pass", short(figure)
		switch {
		case math.IsNaN(figure):
			mark, measured = "-", "not measured"
			unknown++
		case !g.reached(figure):
			mark = "MISS"
			missed++
		}
		bound := "at most "
		if g.Least {
			bound = "at least "
		}
		if _, err := fmt.Fprintf(w, "%-8s%-50s%12s    %s%s\n", mark, g.About, measured, bound, short(g.Limit)); err != nil {
			return 0, 0, err
		}
	}
	_, err = fmt.Fprintf(w, "\n%d of %d goals reached, %d missed, %d not measured\n",
		len(goals)-missed-unknown, len(goals), missed, unknown)
	return missed, unknown, err
}

// short writes a figure short: 5.00 M, 600 k, 12, 0.620.
func short(v float64) string {
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
