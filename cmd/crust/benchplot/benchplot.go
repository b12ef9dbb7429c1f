// Package benchplot draws what crust bench has measured, as SVG and PNG.
//
// What libcrust does is drawn as lines with marks; raw sockets, which are the limit of the
// machine, as dashed lines without. Colours are those of Okabe and Ito, which people who
// see few colours tell apart, and each transport has a mark of its own as well.
package benchplot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/libcrust/libcrust/cmd/crust/benchkit"
)

// Sizes of figures, in points.
const (
	panelWidth  = 330
	panelHeight = 270
	legendWidth = 150
	titleHeight = 30
	pixels      = 150 // of a PNG, per inch
)

// figure is one file: panels in rows, each of the same number.
type figure struct {
	name   string
	title  string
	bars   string // what thin bars show
	panels func(*benchkit.Document) [][]*panel
}

// figures are all that are drawn.
var figures = []figure{
	{"messages", "Messages per second, by their size, over one connection", rangeOfRuns, bySize(messages)},
	{"bytes", "Megabytes per second, by the size of messages, over one connection", rangeOfRuns, bySize(megabytes)},
	{"connections", "Many connections at once: what all carry together", rangeOfRuns, byConnections},
	{"latency", "Round trip of one message, by its size", percentiles, latency},
	{"connect", "Time of a new connection, by how many are made at a time", percentiles, connect},
}

// What the bars of figures show, beside points that are medians.
const (
	rangeOfRuns = "points: medians of the runs\nbars: least to greatest run"
	percentiles = "points: medians\nbars: up to the 99th percentile"
)

// Draw draws every figure for which there are results into a directory, which is made, and
// returns the names of the files. Without any such results it returns an error.
func Draw(d *benchkit.Document, dir string) ([]string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // pictures are for all
		return nil, err
	}
	var files []string
	for _, f := range figures {
		rows := f.panels(d)
		rows = slices.DeleteFunc(rows, func(row []*panel) bool {
			return !slices.ContainsFunc(row, func(p *panel) bool { return len(p.series) > 0 })
		})
		if len(rows) == 0 {
			continue
		}
		names, err := f.draw(rows, dir)
		if err != nil {
			return files, fmt.Errorf("%s: %w", f.name, err)
		}
		files = append(files, names...)
	}
	if len(files) == 0 {
		return nil, errors.New("there is nothing to draw: plots are of the tests of a full run (crust bench --full)")
	}
	return files, nil
}

// draw writes one figure in both forms.
func (f figure) draw(rows [][]*panel, dir string) (files []string, err error) {
	plots := make([][]*plot.Plot, len(rows))
	var legend plot.Legend
	for i, row := range rows {
		shareRange(row)
		for _, p := range row {
			drawn, err := p.plot()
			if err != nil {
				return nil, err
			}
			plots[i] = append(plots[i], drawn)
		}
	}
	if legend, err = legendOf(rows); err != nil {
		return nil, err
	}
	width := vg.Length(panelWidth*len(rows[0]) + legendWidth)
	height := vg.Length(panelHeight*len(rows) + titleHeight)
	picture := vgsvg.New(width, height)
	f.onto(draw.New(picture), plots, legend)
	image := vgimg.NewWith(vgimg.UseWH(width, height), vgimg.UseDPI(pixels))
	f.onto(draw.New(image), plots, legend)
	for form, content := range map[string]vg.CanvasWriterTo{"svg": picture, "png": vgimg.PngCanvas{Canvas: image}} {
		name := filepath.Join(dir, f.name+"."+form)
		file, err := os.Create(name)
		if err != nil {
			return nil, err
		}
		_, err = content.WriteTo(file)
		if err := errors.Join(err, file.Close()); err != nil {
			return nil, err
		}
		files = append(files, name)
	}
	slices.Sort(files)
	return files, nil
}

// onto draws the title, the panels and the legend.
func (f figure) onto(c draw.Canvas, plots [][]*plot.Plot, legend plot.Legend) {
	c.SetColor(white)
	c.Fill(c.Rectangle.Path())
	style := textStyle(13)
	style.XAlign, style.YAlign = draw.XLeft, draw.YTop
	c.FillText(style, vg.Point{X: c.Min.X + 12, Y: c.Max.Y - 8}, f.title)
	tiles := draw.Tiles{Rows: len(plots), Cols: len(plots[0]), PadX: 10, PadY: 8, PadLeft: 8, PadRight: 6, PadBottom: 6, PadTop: 2}
	body := draw.Crop(c, 0, -legendWidth, 0, -titleHeight)
	for i, row := range plot.Align(plots, tiles, body) {
		for j, canvas := range row {
			plots[i][j].Draw(canvas)
		}
	}
	side := draw.Crop(c, c.Max.X-c.Min.X-legendWidth+4, -4, 0, -titleHeight-14)
	legend.Draw(side)
	note := textStyle(8)
	note.XAlign, note.YAlign = draw.XLeft, draw.YTop
	at := vg.Point{X: side.Min.X, Y: legend.Rectangle(side).Min.Y - 12}
	for line := range strings.SplitSeq(f.bars, "\n") {
		c.FillText(note, at, line)
		at.Y -= 12
	}
}
