package benchkit

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Outcome is what one run measured.
type Outcome struct {
	Value float64 `json:"value"`
	// Extra holds further figures of the run by name, such as "p99".
	Extra map[string]float64 `json:"extra,omitempty"`
	// Count is the calibrated number of messages. Runs that follow use it too.
	Count int `json:"count,omitempty"`
}

// Result is the outcome of all runs of one test over one transport. In JSON,
// the figures of Extra are fields beside the others.
type Result struct {
	Transport string
	Test      string
	Unit      string
	Value     float64            // the median of Runs
	Runs      []float64          // in the order of time
	Extra     map[string]float64 // medians of further figures
}

// Combine makes the result of runs, which must not be empty.
func Combine(transport string, test Test, runs []Outcome) Result {
	r := Result{Transport: transport, Test: test.Name, Unit: test.Unit}
	extra := map[string][]float64{}
	for _, run := range runs {
		r.Runs = append(r.Runs, run.Value)
		for name, value := range run.Extra {
			extra[name] = append(extra[name], value)
		}
	}
	r.Value = Median(r.Runs)
	for name, values := range extra {
		if r.Extra == nil {
			r.Extra = map[string]float64{}
		}
		r.Extra[name] = Median(values)
	}
	return r
}

// Median returns the middle of values, the mean of the two in the middle when
// their number is even, and NaN when there are none.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// quantile returns the value below which the fraction q of sorted lies.
func quantile(sorted []float64, q float64) float64 {
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// MarshalJSON writes transport, test, value, unit and runs in this order, then
// the extra figures by name. Values have four significant digits or more.
func (r Result) MarshalJSON() ([]byte, error) {
	runs := make([]string, len(r.Runs))
	for i, run := range r.Runs {
		runs[i] = number(run)
	}
	transport, err := json.Marshal(r.Transport)
	if err != nil {
		return nil, err
	}
	test, err := json.Marshal(r.Test)
	if err != nil {
		return nil, err
	}
	unit, err := json.Marshal(r.Unit)
	if err != nil {
		return nil, err
	}
	line := fmt.Appendf(nil, `{"transport":%s,"test":%s,"value":%s,"unit":%s,"runs":[%s]`,
		transport, test, number(r.Value), unit, strings.Join(runs, ","))
	for _, name := range slices.Sorted(maps.Keys(r.Extra)) {
		key, err := json.Marshal(name)
		if err != nil {
			return nil, err
		}
		line = fmt.Appendf(line, ",%s:%s", key, number(r.Extra[name]))
	}
	return append(line, '}'), nil
}

// UnmarshalJSON reads what MarshalJSON writes; numbers of unknown names go to Extra.
func (r *Result) UnmarshalJSON(data []byte) error {
	var known struct {
		Transport string    `json:"transport"`
		Test      string    `json:"test"`
		Unit      string    `json:"unit"`
		Value     float64   `json:"value"`
		Runs      []float64 `json:"runs"`
	}
	if err := json.Unmarshal(data, &known); err != nil {
		return err
	}
	var all map[string]any
	if err := json.Unmarshal(data, &all); err != nil {
		return err
	}
	*r = Result{Transport: known.Transport, Test: known.Test, Unit: known.Unit, Value: known.Value, Runs: known.Runs}
	for name, value := range all {
		if figure, ok := value.(float64); ok && name != "value" {
			if r.Extra == nil {
				r.Extra = map[string]float64{}
			}
			r.Extra[name] = figure
		}
	}
	return nil
}

// number writes a figure in as many digits as a measurement has: none behind
// the point from 10,000 on, four significant ones below.
func number(v float64) string {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return "null"
	}
	return strconv.FormatFloat(v, 'f', decimals(v), 64)
}

func decimals(v float64) int {
	places := 4
	for limit := 1.0; places > 0 && math.Abs(v) >= limit; limit *= 10 {
		places--
	}
	return places
}

// Figure writes a figure for people: four significant digits or more, with commas between thousands.
func Figure(v float64) string {
	text := number(v)
	if text == "null" {
		return text
	}
	whole, fraction, hasFraction := strings.Cut(text, ".")
	for i := len(whole) - 3; i > 0 && whole[i-1] != '-'; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if hasFraction {
		return whole + "." + fraction
	}
	return whole
}

// WriteTable writes results for people: a block for each test, a line for each
// transport, with the ratio to raw-tcp and the range of the runs.
func WriteTable(w io.Writer, results []Result) error {
	var text strings.Builder
	for i, name := range namesOf(results) {
		if i > 0 {
			text.WriteByte('\n')
		}
		fmt.Fprintln(&text, title(name))
		base := math.NaN()
		if raw, ok := Find(results, "raw-tcp", name); ok && hasRatio(name) {
			base = raw.Value
		}
		for _, r := range results {
			if r.Test != name {
				continue
			}
			line := fmt.Sprintf("  %-18s%12s %-10s %10s   %s .. %s%s", r.Transport, Figure(r.Value), r.Unit,
				ratio(r.Value, base), Figure(slices.Min(r.Runs)), Figure(slices.Max(r.Runs)), extras(r))
			fmt.Fprintln(&text, strings.TrimRight(line, " "))
		}
	}
	_, err := io.WriteString(w, text.String())
	return err
}

func title(test string) string {
	if t, err := FindTest(test); err == nil {
		return t.Name + ": " + t.About
	}
	return test
}

// hasRatio tells whether a multiple of raw TCP's figure says anything: raw TCP
// allocates next to nothing, and an idle pair uses next to no time.
func hasRatio(test string) bool { return test != "allocs" && test != "idle" }

// ratio writes how many times raw-tcp a value is.
func ratio(value, base float64) string {
	if math.IsNaN(base) || base == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f x raw", value/base)
}

func extras(r Result) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(r.Extra)) {
		parts = append(parts, name+" "+Figure(r.Extra[name]))
	}
	if len(parts) == 0 {
		return ""
	}
	return "   " + strings.Join(parts, ", ")
}

// namesOf returns the tests of results in the order of their first result.
func namesOf(results []Result) []string {
	var names []string
	for _, r := range results {
		if !slices.Contains(names, r.Test) {
			names = append(names, r.Test)
		}
	}
	return names
}

// Find returns the result of one test over one transport.
func Find(results []Result, transport, test string) (Result, bool) {
	for _, r := range results {
		if r.Transport == transport && r.Test == test {
			return r, true
		}
	}
	return Result{}, false
}
