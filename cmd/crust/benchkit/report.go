package benchkit

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// column is a column of a table: a heading, and what it says of a result.
type column struct {
	heading string
	test    string
	figure  func(Result) float64
}

func value(r Result) float64 { return r.Value }

func perSecond(r Result) float64 { return r.Extra["mb_s"] }

// writeColumns writes a table: a row for each transport, the raw ones last.
func writeColumns(text *strings.Builder, d *Document, columns []column) {
	text.WriteString("| |")
	for _, c := range columns {
		text.WriteString(" " + c.heading + " |")
	}
	text.WriteString("\n|---|" + strings.Repeat("---|", len(columns)) + "\n")
	for _, transport := range transportsOf(d.Results) {
		row, some := "| "+transport+" |", false
		for _, c := range columns {
			r, found := Find(d.Results, transport, c.test)
			if !found {
				row += " |"
				continue
			}
			some = true
			row += " " + Figure(c.figure(r)) + " |"
		}
		if some {
			text.WriteString(row + "\n")
		}
	}
}

// transportsOf returns the transports of results, those that are limits last.
func transportsOf(results []Result) (names []string) {
	for _, raw := range []bool{false, true} {
		for _, r := range results {
			if strings.HasPrefix(r.Transport, "raw-") == raw && !slices.Contains(names, r.Transport) {
				names = append(names, r.Transport)
			}
		}
	}
	return names
}

// testsOf returns the tests of a kind in results, in the order of the run.
func testsOf(results []Result, kind func(test string) bool) []string {
	return slices.DeleteFunc(namesOf(results), func(test string) bool { return !kind(test) })
}

// WriteReport writes the results of a full run as tables in Markdown.
func WriteReport(w io.Writer, d *Document) error {
	var text strings.Builder
	if machine := d.Machine(); machine != "" {
		fmt.Fprintf(&text, "%s; %.0f s for all.\n\n", machine, d.Seconds)
	}
	words := map[string]string{Out: "to the other end", In: "from the other end"}
	for _, direction := range []string{Out, In} {
		sizes := testsOf(d.Results, func(test string) bool {
			way, _, n, ok := Stream(test)
			return ok && way == direction && n == 1
		})
		for _, kind := range []struct {
			unit   string
			figure func(Result) float64
		}{{"Messages per second", value}, {"MB/s", perSecond}} {
			writeSection(&text, d, kind.unit+" "+words[direction]+", one connection, by the size of messages", sizes, kind.figure, func(test string) string {
				_, size, _, _ := Stream(test)
				return SizeText(size)
			})
		}
	}
	for _, direction := range []string{Out, In} {
		for i, size := range StreamSizes {
			tests := testsOf(d.Results, func(test string) bool {
				way, of, _, ok := Stream(test)
				return ok && way == direction && of == size
			})
			unit, figure := "Messages per second", value
			if i > 0 {
				unit, figure = "MB/s", perSecond
			}
			writeSection(&text, d, unit+" "+words[direction]+", messages of "+SizeText(size)+", by connections at once", tests, figure, func(test string) string {
				_, _, n, _ := Stream(test)
				return fmt.Sprint(n)
			})
		}
	}
	writeTimes(&text, d, "Round trip in microseconds, median and 99th percentile", func(test string) (string, bool) {
		size, ok := RoundTrip(test)
		return SizeText(size), ok
	})
	writeTimes(&text, d, "Time of a new connection in microseconds, median and 99th percentile", func(test string) (string, bool) {
		n, ok := Dialled(test)
		return fmt.Sprintf("%d at a time", n), ok
	})
	_, err := io.WriteString(w, strings.TrimSuffix(text.String(), "\n"))
	return err
}

// writeSection writes a heading and a table with a column for each test.
func writeSection(text *strings.Builder, d *Document, heading string, tests []string, figure func(Result) float64, label func(string) string) {
	if len(tests) == 0 {
		return
	}
	var columns []column
	for _, test := range tests {
		columns = append(columns, column{label(test), test, figure})
	}
	fmt.Fprintf(text, "**%s**\n\n", heading)
	writeColumns(text, d, columns)
	text.WriteString("\n")
}

// writeTimes writes medians and tails of the tests that have a label.
func writeTimes(text *strings.Builder, d *Document, heading string, label func(test string) (string, bool)) {
	var columns []column
	for _, test := range namesOf(d.Results) {
		if words, ok := label(test); ok {
			columns = append(columns, column{words, test, value},
				column{words + ", p99", test, func(r Result) float64 { return r.Extra["p99"] }})
		}
	}
	if len(columns) > 0 {
		fmt.Fprintf(text, "**%s**\n\n", heading)
		writeColumns(text, d, columns)
		text.WriteString("\n")
	}
}

// WriteShort writes one small table: what the raw sockets carry, and libcrust over them.
func WriteShort(w io.Writer, d *Document) error {
	var text strings.Builder
	var columns []column
	for _, direction := range []string{Out, In} {
		columns = append(columns,
			column{"64 B messages/s " + direction, fmt.Sprintf("%s-%d-1", direction, MessageSize), value},
			column{"MB/s " + direction, fmt.Sprintf("%s-%d-1", direction, BulkSize), perSecond})
	}
	columns = append(columns, column{"round trip, us", fmt.Sprintf("rtt-%d", MessageSize), value}, column{"connect, us", "dial-1", value})
	writeColumns(&text, d, columns)
	_, err := io.WriteString(w, text.String())
	return err
}
