package benchplot

import (
	"image/color"
	"math"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

var (
	white = color.White
	grid  = color.Gray{0xd8}
)

// look is how a transport is drawn.
type look struct {
	name  string // in the legend
	color color.Color
	mark  draw.GlyphDrawer // nil: a limit
	dash  []vg.Length
}

// looks are those of the transports of a full run; others get one of spare.
var looks = map[string]look{
	"raw-tcp":    {"limit: raw TCP", rgb(0x000000), nil, []vg.Length{6, 3}},
	"raw-udp":    {"limit: raw UDP", rgb(0x7f7f7f), nil, []vg.Length{2, 2}},
	"secure-tcp": {"secure TCP", rgb(0x0072b2), draw.CircleGlyph{}, nil},
	"secure-utp": {"secure uTP", rgb(0xd55e00), draw.PyramidGlyph{}, nil},
	"tracer":     {"tracer (in clear)", rgb(0x009e73), draw.BoxGlyph{}, nil},
}

// spare are colours and marks for transports without a look of their own.
var spare = []look{
	{"", rgb(0xcc79a7), draw.RingGlyph{}, nil},
	{"", rgb(0x56b4e9), draw.SquareGlyph{}, nil},
	{"", rgb(0xe69f00), draw.TriangleGlyph{}, nil},
	{"", rgb(0x332288), draw.CrossGlyph{}, nil},
}

func rgb(n uint32) color.Color { return color.RGBA{uint8(n >> 16), uint8(n >> 8), uint8(n), 0xff} } //nolint:gosec // bytes

// lookOf returns the look of a transport; among tells which transports there are.
func lookOf(transport string, among []string) look {
	if l, ok := looks[transport]; ok {
		return l
	}
	i := 0
	for _, other := range among {
		if other == transport {
			break
		}
		if _, known := looks[other]; !known {
			i++
		}
	}
	l := spare[i%len(spare)]
	l.name = transport
	return l
}

func textStyle(points vg.Length) draw.TextStyle {
	return draw.TextStyle{
		Color: color.Black, Font: font.From(font.Font{Typeface: "Liberation", Variant: "Sans"}, points), Handler: text.Plain{Fonts: font.DefaultCache},
	}
}

// figureText writes a number short: 500, 20 k, 1.5 M.
func figureText(v float64) string {
	for _, unit := range []struct {
		of   float64
		name string
	}{{1e9, " G"}, {1e6, " M"}, {1e3, " k"}} {
		if v >= unit.of {
			return strconv.FormatFloat(v/unit.of, 'g', 3, 64) + unit.name
		}
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
}

// decades marks 1, 2 and 5 of each decade, or only 1 where there are many.
type decades struct{}

func (decades) Ticks(low, high float64) []plot.Tick {
	var ticks []plot.Tick
	narrow := high/low < 300
	for e := math.Floor(math.Log10(low)); e <= math.Ceil(math.Log10(high)); e++ {
		for k := 1.0; k < 10; k++ {
			at := k * math.Pow(10, e)
			if at < low || at > high {
				continue
			}
			label := ""
			if k == 1 || narrow && (k == 2 || k == 5) {
				label = figureText(at)
			}
			ticks = append(ticks, plot.Tick{Value: at, Label: label})
		}
	}
	return ticks
}

// shareRange gives the panels of a row one y axis.
func shareRange(row []*panel) {
	low, high := math.Inf(1), math.Inf(-1)
	for _, p := range row {
		for _, s := range p.series {
			for _, q := range s.points {
				low, high = min(low, q.low), max(high, q.high)
			}
		}
	}
	for _, p := range row {
		p.low, p.high = low/1.25, high*1.25
	}
}

// transports are those of some panels, in the order of the figure.
func transports(rows [][]*panel) (names []string) {
	seen := map[string]bool{}
	for _, row := range rows {
		for _, p := range row {
			for _, s := range p.series {
				if !seen[s.transport] {
					seen[s.transport] = true
					names = append(names, s.transport)
				}
			}
		}
	}
	return names
}

// plot makes the coordinate system and what is in it.
func (p *panel) plot() (*plot.Plot, error) {
	c := plot.New()
	c.BackgroundColor = nil
	c.Title.Text, c.Title.TextStyle = p.title, textStyle(10)
	c.Title.TextStyle.XAlign, c.Title.TextStyle.YAlign = draw.XCenter, draw.YTop
	c.Title.Padding = 4
	for axis, label := range map[*plot.Axis]string{&c.X: p.x, &c.Y: p.y} {
		axis.Label.Text, axis.Label.TextStyle.Font = label, textStyle(10).Font
		axis.Tick.Label.Font = textStyle(8).Font
		axis.Scale = plot.LogScale{}
	}
	if len(p.series) == 0 { // nothing was measured
		p.low, p.high, p.ticks = 1, 10, []tick{{1, ""}, {10, ""}}
	}
	first, last := p.ticks[0].at, p.ticks[len(p.ticks)-1].at
	margin := 1.25
	if p.bars {
		margin = 1.9
	}
	c.X.Min, c.X.Max, c.Y.Min, c.Y.Max = first/margin, last*margin, p.low, p.high
	var ticks plot.ConstantTicks
	for _, t := range p.ticks {
		ticks = append(ticks, plot.Tick{Value: t.at, Label: strings.Replace(t.label, " ", "\u00a0", 1)})
	}
	c.X.Tick.Marker, c.Y.Tick.Marker = ticks, decades{}
	lines := plotter.NewGrid()
	lines.Horizontal.Color, lines.Vertical.Color = grid, grid
	c.Add(lines)
	names := transports([][]*panel{{p}})
	for i, s := range p.series {
		if err := p.add(c, s, lookOf(s.transport, names), i); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// spread are points with their ranges, for gonum.
type spread []point

func (s spread) Len() int                         { return len(s) }
func (s spread) XY(i int) (x, y float64)          { return s[i].x, s[i].y }
func (s spread) YError(i int) (low, high float64) { return s[i].y - s[i].low, s[i].high - s[i].y }

// add draws one transport, the i-th of the panel.
func (p *panel) add(c *plot.Plot, s series, l look, i int) error {
	points := append(spread(nil), s.points...)
	if p.apart > 0 { // beside each other, on an axis that is logarithmic
		for k := range points {
			points[k].x *= math.Pow(p.apart, float64(i)-float64(len(p.series)-1)/2)
		}
	}
	ranges, err := plotter.NewYErrorBars(points)
	if err != nil {
		return err
	}
	ranges.LineStyle = draw.LineStyle{Color: l.color, Width: 0.7}
	ranges.CapWidth = 4
	c.Add(ranges)
	if !p.bars {
		line, err := plotter.NewLine(points)
		if err != nil {
			return err
		}
		line.LineStyle = draw.LineStyle{Color: l.color, Width: 1.5, Dashes: l.dash}
		c.Add(line)
	}
	if l.mark == nil && !p.bars {
		return nil
	}
	mark := l.mark
	if mark == nil { // a limit where no line goes from point to point: one beside all
		points, mark = spread(s.points), stroke{l.dash}
	}
	marks, err := plotter.NewScatter(points)
	if err != nil {
		return err
	}
	marks.GlyphStyle = draw.GlyphStyle{Color: l.color, Radius: 3.4, Shape: mark}
	c.Add(marks)
	return nil
}

// stroke is a mark: a level line, as dashed as its limit is elsewhere.
type stroke struct{ dash []vg.Length }

// strokeRadius is half the length of a stroke, in points: beyond the transports of one place.
const strokeRadius = 36

func (s stroke) DrawGlyph(c *draw.Canvas, style draw.GlyphStyle, at vg.Point) {
	c.SetLineStyle(draw.LineStyle{Color: style.Color, Width: 1.5, Dashes: s.dash})
	var path vg.Path
	path.Move(vg.Point{X: at.X - strokeRadius, Y: at.Y})
	path.Line(vg.Point{X: at.X + strokeRadius, Y: at.Y})
	c.Stroke(path)
}

// legendOf says which line is whose, the limits last.
func legendOf(rows [][]*panel) (plot.Legend, error) {
	legend := plot.NewLegend()
	legend.TextStyle = textStyle(10)
	legend.Top, legend.Left, legend.Padding, legend.ThumbnailWidth = true, true, 4, 26
	names := transports(rows)
	for _, limits := range []bool{false, true} {
		for _, name := range names {
			l := lookOf(name, names)
			if (l.mark == nil) != limits {
				continue
			}
			line, err := plotter.NewLine(plotter.XYs{{X: 1, Y: 1}})
			if err != nil {
				return legend, err
			}
			line.LineStyle = draw.LineStyle{Color: l.color, Width: 1.5, Dashes: l.dash}
			thumbs := []plot.Thumbnailer{line}
			if !limits {
				marks, err := plotter.NewScatter(plotter.XYs{{X: 1, Y: 1}})
				if err != nil {
					return legend, err
				}
				marks.GlyphStyle = draw.GlyphStyle{Color: l.color, Radius: 3.4, Shape: l.mark}
				thumbs = append(thumbs, marks)
			}
			legend.Add(l.name, thumbs...)
		}
	}
	return legend, nil
}
