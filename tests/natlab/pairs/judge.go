package pairs

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Summary is what came of all runs of a row, or of a case.
type Summary struct {
	Runs, Succeeded int
	Ways            map[string]int // T, U and R
	P50, P99        time.Duration  // of those that succeeded
	// First is of the runs where peers relay and the message was sent when the caller
	// was connected, and Given of those where it went with the call.
	First, Given First
}

// First is what came of first messages where peers relay: the times of those that came,
// of Came in Runs, and of the first connections, of Known runs.
type First struct {
	Runs, Came, Known       int
	P50, P99                time.Duration
	Connected, ConnectedP99 time.Duration
}

// String tells it to people.
func (f First) String() string {
	return fmt.Sprintf("%d of %d first messages within %v and %v", f.Came, f.Runs, f.P50, f.P99)
}

// firstOf sums up runs where peers relay.
func firstOf(runs []Run) (f First) {
	var first, connected []float64
	for _, r := range runs {
		f.Runs++
		if r.First > 0 {
			f.Came++
			first = append(first, r.First)
		}
		if r.Connected > 0 {
			connected = append(connected, r.Connected)
		}
	}
	f.P50, f.P99 = quantile(first, 0.5), quantile(first, 0.99)
	f.Known = len(connected)
	f.Connected, f.ConnectedP99 = quantile(connected, 0.5), quantile(connected, 0.99)
	return f
}

// Summarise sums up the runs of a row; without a case, of all its cases.
func Summarise(row Row, only string, runs []Run) (s Summary) {
	s.Ways = map[string]int{}
	var took []float64
	var relayed [2][]Run // those where it was sent, and those where it was given
	for _, r := range runs {
		if r.Row != row.Name || only != "" && r.Case != only {
			continue
		}
		if r.Relay {
			relayed[r.kind()-1] = append(relayed[r.kind()-1], r)
			continue
		}
		s.Runs++
		way := r.Way()
		if way != "" {
			s.Ways[way]++
		}
		if row.Allows(r) {
			s.Succeeded++
			took = append(took, r.Took)
		}
	}
	s.P50, s.P99 = quantile(took, 0.5), quantile(took, 0.99)
	s.First, s.Given = firstOf(relayed[0]), firstOf(relayed[1])
	return s
}

// Allows reports whether a run came to what its case must.
func (r Row) Allows(run Run) bool {
	i := slices.IndexFunc(r.Cases, func(c Case) bool { return c.Name == run.Case })
	return i >= 0 && run.Way() != "" && strings.Contains(r.Cases[i].Ways, run.Way())
}

// quantile returns the least time that a part of all does not exceed: the nearest
// rank.
func quantile(ms []float64, part float64) time.Duration {
	if len(ms) == 0 {
		return 0
	}
	slices.SortFunc(ms, cmp.Compare)
	i := int(math.Ceil(part*float64(len(ms)))) - 1
	return time.Duration(ms[max(0, i)] * float64(time.Millisecond))
}

// Met reports whether the runs of a row came to what they must.
func (r Row) Met(s Summary) bool {
	return s.Runs > 0 && float64(s.Succeeded) >= r.Success*float64(s.Runs) && s.P50 <= r.P50 && s.P99 <= r.P99
}

// Share is the part of the runs that succeeded.
func (s Summary) Share() float64 { return float64(s.Succeeded) / float64(max(1, s.Runs)) }

// Misses says what speaks against a row: that it misses a limit, even when few runs
// are bad by bad luck. Empty: nothing. A row that just keeps its limits is blamed for
// each of them once in a million times at most.
func (r Row) Misses(runs []Run) (what []string) {
	s := Summarise(r, "", runs)
	slow50, slow99 := 0, 0
	for _, run := range runs {
		if run.Row != r.Name || run.Relay || !r.Allows(run) {
			continue
		}
		took := time.Duration(run.Took * float64(time.Millisecond))
		if took > r.P50 {
			slow50++
		}
		if took > r.P99 {
			slow99++
		}
	}
	if s.Runs-s.Succeeded > most(s.Runs, 1-r.Success) {
		what = append(what, "too few succeed")
	}
	if slow50 > most(s.Succeeded, 0.5) {
		what = append(what, "half of them take too long")
	}
	if slow99 > most(s.Succeeded, 0.01) {
		what = append(what, "the slowest take too long")
	}
	return what
}

// most returns how many of n things may happen when each happens with probability p:
// more do once in a million times at most.
func most(n int, p float64) int {
	const rare = 1e-6
	// From all down to where the tail grows too likely. By logarithms, which do not
	// leave the range of the exponent.
	tail := 0.0
	for k := n; k > 0; k-- {
		tail += math.Exp(logChoose(n, k) + float64(k)*math.Log(p) + float64(n-k)*math.Log1p(-p))
		if tail > rare {
			return k
		}
	}
	return 0
}

// logChoose is the logarithm of the binomial coefficient.
func logChoose(n, k int) float64 {
	a, _ := math.Lgamma(float64(n + 1))
	b, _ := math.Lgamma(float64(k + 1))
	c, _ := math.Lgamma(float64(n - k + 1))
	return a - b - c
}
