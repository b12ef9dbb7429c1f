package pairs

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// FirstMost is how long a first message may take where peers relay: a round trip
// between the two sides, which is two of 40 ms, until the caller knows that it speaks
// with the right one, half of one for the message, and 10 ms for programs and kernels.
const FirstMost = 130 * time.Millisecond

// ConnectedMost is how long the caller may take until then to be connected: that round
// trip, and 10 ms for programs and kernels.
const ConnectedMost = 90 * time.Millisecond

// GivenMost is how long a message that goes with the call may take then: it is there when
// the caller is connected.
const GivenMost = ConnectedMost

// half is where runs were made.
type half struct {
	name string
	runs []Run
}

// Table writes the tables of docs/NAT.md from runs in virtual time and in namespaces.
func Table(virtual, namespaces []Run) string {
	var b strings.Builder
	halves := []half{{"virtual", virtual}, {"kernels", namespaces}}
	fmt.Fprintf(&b, "Runs in virtual time: %s. Runs between kernels: %s.\n\n", size(virtual), size(namespaces))
	b.WriteString("| pair | must be | where | runs | T | U | R | p50 | p99 | success | limits | met |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, row := range Rows {
		for i, h := range halves {
			pair, must := row.Pair, row.Must
			if i > 0 {
				pair, must = "", ""
			}
			s := Summarise(row, "", h.runs)
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", pair, must, h.name, s.cells(), row.limits(), row.verdict(s))
		}
	}
	b.WriteString("\nWhen public peers relay, and the first message is sent when the caller is connected:\n\n" + firstHead)
	for _, row := range Rows {
		for _, h := range halves {
			b.WriteString(Summarise(row, "", h.runs).First.line(row, h.name, FirstMost))
		}
	}
	b.WriteString("\nWhen public peers relay, and the first message is given with the call:\n\n" + firstHead)
	for _, row := range Rows {
		for _, h := range halves {
			b.WriteString(Summarise(row, "", h.runs).Given.line(row, h.name, GivenMost))
		}
	}
	b.WriteString("\nEach pair of NATs by itself, the caller first:\n\n| row | pair | where | runs | T | U | R | p50 | p99 | success |\n|---|---|---|---|---|---|---|---|---|---|\n")
	for _, row := range Rows {
		for _, c := range row.Cases {
			for _, h := range halves {
				if s := Summarise(row, c.Name, h.runs); s.Runs > 0 {
					fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", row.Name, c.Name, h.name, s.cells())
				}
			}
		}
	}
	return b.String()
}

// firstHead is the head of tables of first messages.
const firstHead = "| pair | where | runs | connected: p50 | p99 | limit | first message: came | p50 | p99 | limit | met |\n|---|---|---|---|---|---|---|---|---|---|---|\n"

// line is a line of such a table, empty without runs. The message must be there within most.
func (f First) line(row Row, where string, most time.Duration) string {
	if f.Runs == 0 {
		return ""
	}
	connected := " | "
	if f.Known > 0 {
		connected = seconds(f.Connected) + " | " + seconds(f.ConnectedP99)
	}
	return fmt.Sprintf("| %s | %s | %d | %s | %s | %d | %s | %s | %s | %s |\n", row.Pair, where, f.Runs, connected, seconds(ConnectedMost),
		f.Came, seconds(f.P50), seconds(f.P99), seconds(most), word(f.Came == f.Runs && f.P99 <= most && f.ConnectedP99 <= ConnectedMost))
}

// size says how many runs there are, and of when.
func size(runs []Run) string {
	if len(runs) == 0 {
		return "none"
	}
	first, last := runs[0].Date, runs[0].Date
	for _, r := range runs {
		first, last = min(first, r.Date), max(last, r.Date)
	}
	if first != last {
		last = first + " to " + last
	}
	return fmt.Sprintf("%s, of %s", thousands(len(runs)), last)
}

func thousands(n int) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%d,%03d", n/1000, n%1000)
}

// cells are: runs, T, U, R, p50, p99, success.
func (s Summary) cells() string {
	cells := []string{thousands(s.Runs)}
	for _, way := range []string{"T", "U", "R"} {
		share := ""
		if s.Ways[way] > 0 {
			share = percent(float64(s.Ways[way]) / float64(s.Runs))
		}
		cells = append(cells, share)
	}
	if s.Succeeded > 0 {
		cells = append(cells, seconds(s.P50), seconds(s.P99), percent(s.Share()))
	} else {
		cells = append(cells, "", "", map[bool]string{true: "0 %"}[s.Runs > 0])
	}
	return strings.Join(cells, " | ")
}

func (r Row) limits() string {
	least := "≥ "
	if r.Success == 1 {
		least = ""
	}
	short := func(d time.Duration) string { return fmt.Sprint(d.Seconds()) }
	return fmt.Sprintf("%s / %s s, %s%s", short(r.P50), short(r.P99), least, percent(r.Success))
}

// verdict says what misses.
func (r Row) verdict(s Summary) string {
	if s.Runs == 0 {
		return "not run"
	}
	var misses []string
	if float64(s.Succeeded) < r.Success*float64(s.Runs) {
		misses = append(misses, "success")
	}
	if s.Succeeded > 0 && s.P50 > r.P50 {
		misses = append(misses, "p50")
	}
	if s.Succeeded > 0 && s.P99 > r.P99 {
		misses = append(misses, "p99")
	}
	if len(misses) == 0 {
		return "yes"
	}
	return "**no: " + strings.Join(misses, ", ") + "**"
}

func word(met bool) string {
	if met {
		return "yes"
	}
	return "**no**"
}

// percent rounds down what is not whole, so that 100 % is all.
func percent(part float64) string {
	tenths := int(part*1000 + 1e-6)
	if tenths%10 == 0 {
		return fmt.Sprintf("%d %%", tenths/10)
	}
	return fmt.Sprintf("%d.%d %%", tenths/10, tenths%10)
}

// seconds to the hundredth, up.
func seconds(d time.Duration) string {
	return fmt.Sprintf("%.2f s", float64((d+10*time.Millisecond-1)/(10*time.Millisecond))/100)
}

// Where the table and its runs are, from the root of the repository.
const (
	Document   = "docs/NAT.md"
	Virtual    = "tests/natlab/testdata/virtual.jsonl.gz"
	Namespaces = "tests/natlab/testdata/namespaces.jsonl.gz"
)

// The marks between which the table stands in a document.
const (
	begin = "<!-- pairs: made by `go run ./tests/natlab/cmd/nattable`, not by hand -->\n"
	end   = "<!-- end of pairs -->\n"
)

// Put returns a document with the table between its marks.
func Put(document, table string) (string, error) {
	before, rest, ok := strings.Cut(document, begin)
	_, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		return "", fmt.Errorf("the document has no place for the table, between %q and %q", begin, end)
	}
	return before + begin + "\n" + table + "\n" + end + after, nil
}

// Blank says which rows have no runs.
func Blank(runs []Run) (names []string) {
	for _, row := range Rows {
		if !slices.ContainsFunc(runs, func(r Run) bool { return r.Row == row.Name }) {
			names = append(names, row.Name)
		}
	}
	return names
}
