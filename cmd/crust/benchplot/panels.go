package benchplot

import (
	"math"
	"slices"

	"github.com/libcrust/libcrust/cmd/crust/benchkit"
)

// panel is one coordinate system.
type panel struct {
	title, x, y string
	ticks       []tick  // of the x axis
	bars        bool    // only points, no lines
	apart       float64 // by what factor of x transports stand beside each other, 0: not
	series      []series
	low, high   float64 // of the y axis
}

// tick is a place on the x axis.
type tick struct {
	at    float64
	label string
}

// series is what one transport does.
type series struct {
	transport string
	points    []point
}

// point is one result: its value, and the least and the greatest that it stands for.
type point struct{ x, y, low, high float64 }

// measure takes a figure out of a result: the value of a run, times what.
type measure struct {
	unit string
	of   func(r benchkit.Result, run float64) float64
}

var (
	messages  = measure{"messages/s", func(_ benchkit.Result, run float64) float64 { return run }}
	megabytes = measure{"MB/s", func(r benchkit.Result, run float64) float64 {
		_, size, _, _ := benchkit.Stream(r.Test)
		return run * float64(size) / 1e6
	}}
)

// ends are the directions of streams with their words.
var ends = []struct{ direction, words string }{{benchkit.Out, "to the other end"}, {benchkit.In, "from the other end"}}

// put adds a point of a transport, unless the axis, which is logarithmic, has no place for it.
func (p *panel) put(transport string, at point, label string) {
	if !(at.low > 0) || math.IsInf(at.high, 0) || at.y < at.low || at.y > at.high {
		return
	}
	i := slices.IndexFunc(p.series, func(s series) bool { return s.transport == transport })
	if i < 0 {
		i = len(p.series)
		p.series = append(p.series, series{transport: transport})
	}
	p.series[i].points = append(p.series[i].points, at)
	slices.SortFunc(p.series[i].points, func(a, b point) int { return compare(a.x, b.x) })
	if !slices.ContainsFunc(p.ticks, func(t tick) bool { return t.at == at.x }) {
		p.ticks = append(p.ticks, tick{at.x, label})
		slices.SortFunc(p.ticks, func(a, b tick) int { return compare(a.at, b.at) })
	}
}

func compare(a, b float64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// bySize makes a panel for each direction.
func bySize(m measure) func(*benchkit.Document) [][]*panel {
	return func(d *benchkit.Document) [][]*panel {
		var row []*panel
		for _, end := range ends {
			p := &panel{title: end.words, x: "size of a message", y: m.unit}
			for _, r := range d.Results {
				if direction, size, n, ok := benchkit.Stream(r.Test); ok && direction == end.direction && n == 1 {
					p.put(r.Transport, pointOf(r, m, float64(size)), benchkit.SizeText(size))
				}
			}
			row = append(row, p)
		}
		return [][]*panel{row}
	}
}

// byConnections makes a row for each of the two sizes.
func byConnections(d *benchkit.Document) [][]*panel {
	var rows [][]*panel
	for i, size := range benchkit.StreamSizes {
		m := []measure{messages, megabytes}[i]
		var row []*panel
		for _, end := range ends {
			p := &panel{title: benchkit.SizeText(size) + " messages " + end.words, x: "connections", y: m.unit}
			for _, r := range d.Results {
				if direction, of, n, ok := benchkit.Stream(r.Test); ok && direction == end.direction && of == size {
					p.put(r.Transport, pointOf(r, m, float64(n)), figureText(float64(n)))
				}
			}
			if len(p.ticks) < 2 { // one number of connections is no line
				p.series = nil
			}
			row = append(row, p)
		}
		rows = append(rows, row)
	}
	return rows
}

// pointOf takes the median of the runs, and their range.
func pointOf(r benchkit.Result, m measure, x float64) point {
	return point{x, m.of(r, r.Value), m.of(r, slices.Min(r.Runs)), m.of(r, slices.Max(r.Runs))}
}

// latency makes one panel of round trips.
func latency(d *benchkit.Document) [][]*panel {
	p := &panel{x: "size of the message", y: "microseconds", apart: 1.06}
	for _, r := range d.Results {
		if size, ok := benchkit.RoundTrip(r.Test); ok {
			p.put(r.Transport, tail(r, float64(size)), benchkit.SizeText(size))
		}
	}
	return [][]*panel{{p}}
}

// connect makes one panel of new connections.
func connect(d *benchkit.Document) [][]*panel {
	p := &panel{x: "connections made at a time", y: "microseconds", bars: true, apart: 1.16}
	for _, r := range d.Results {
		if n, ok := benchkit.Dialled(r.Test); ok {
			p.put(r.Transport, tail(r, float64(n)), figureText(float64(n)))
		}
	}
	return [][]*panel{{p}}
}

// tail is a median, and what goes up to the 99th percentile.
func tail(r benchkit.Result, x float64) point {
	high := r.Value
	if p99, ok := r.Extra["p99"]; ok {
		high = max(high, p99)
	}
	return point{x, r.Value, r.Value, high}
}
