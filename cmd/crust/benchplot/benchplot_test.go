package benchplot

import (
	"encoding/xml"
	"errors"
	"fmt"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/libcrust/libcrust/cmd/crust/benchkit"
)

// measured is a document of these transports.
func measured(transports ...string) *benchkit.Document {
	d := &benchkit.Document{}
	for i, transport := range transports {
		for k, test := range (benchkit.Grid{}).Tests() {
			v := float64(1000 * (1 + k) * (1 + i))
			d.Results = append(d.Results, benchkit.Combine(transport, test, []benchkit.Outcome{
				{Value: v, Extra: map[string]float64{"p99": 3 * v}}, {Value: 1.1 * v, Extra: map[string]float64{"p99": 4 * v}},
			}))
		}
	}
	return d
}

// texts returns all words of an SVG, which must be well-formed.
func texts(t *testing.T, name string) (words []string) {
	t.Helper()
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for reader := xml.NewDecoder(file); ; {
		token, err := reader.Token()
		if errors.Is(err, io.EOF) {
			return words
		}
		if err != nil {
			t.Fatal(err)
		}
		if text, ok := token.(xml.CharData); ok {
			if s := strings.TrimSpace(string(text)); s != "" {
				words = append(words, strings.ReplaceAll(s, "\u00a0", " "))
			}
		}
	}
}

func TestDraw(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "by", "Draw")
	files, err := Draw(measured("raw-tcp", "raw-udp", "secure-tcp", "secure-utp", "tracer", "one-more"), dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 2*len(figures) {
		t.Errorf("drawn: %q", files)
	}
	for _, f := range figures {
		words := texts(t, filepath.Join(dir, f.name+".svg"))
		for _, want := range append(strings.Split(f.bars, "\n"), f.title, "secure TCP", "secure uTP", "tracer (in clear)", "one-more", "limit: raw TCP", "limit: raw UDP") {
			if !slices.Contains(words, want) {
				t.Errorf("%s.svg has no %q in %q", f.name, want, words)
			}
		}
		picture, err := os.Open(filepath.Join(dir, f.name+".png"))
		if err != nil {
			t.Fatal(err)
		}
		image, err := png.Decode(picture)
		picture.Close()
		if err != nil || image.Bounds().Dx() < 900 || image.Bounds().Dy() < 500 {
			t.Errorf("%s.png: %v", f.name, err)
		}
	}
	for name, want := range map[string][]string{
		"messages": {"size of a message", "messages/s", "64 B", "512 KiB", "to the other end", "from the other end"},
		"bytes":    {"size of a message", "MB/s"}, "latency": {"size of the message", "microseconds", "16 KiB"},
		"connections": {"connections", "messages/s", "MB/s", "1", "8", "64"}, "connect": {"connections made at a time", "microseconds"},
	} {
		words := texts(t, filepath.Join(dir, name+".svg"))
		for _, word := range want {
			if !slices.Contains(words, word) {
				t.Errorf("%s.svg has no %q", name, word)
			}
		}
	}
}

func TestDrawWhatThereIs(t *testing.T) {
	d := measured("secure-tcp")
	d.Results = slices.DeleteFunc(d.Results, func(r benchkit.Result) bool { return r.Test != "rtt-64" && r.Test != "out-64-1" })
	files, err := Draw(d, t.TempDir())
	if err != nil || len(files) != 6 { // messages, bytes, latency
		t.Errorf("%q, %v", files, err)
	}
	d.Results = d.Results[:0]
	d.Results = append(d.Results, benchkit.Result{Transport: "secure-tcp", Test: "bulk", Value: 1, Runs: []float64{1}})
	if files, err := Draw(d, t.TempDir()); err == nil || !strings.Contains(err.Error(), "nothing to draw") {
		t.Errorf("%q, %v", files, err)
	}
}

// Zeros, which a logarithm does not know, are no reason to panic.
func TestDrawZeros(t *testing.T) {
	d := measured("secure-tcp")
	for i := range d.Results {
		d.Results[i].Value, d.Results[i].Runs, d.Results[i].Extra = 0, []float64{0, 0}, nil
	}
	if _, err := Draw(d, t.TempDir()); err == nil {
		t.Error("zeros are drawn")
	}
}

func TestFigures(t *testing.T) {
	for v, want := range map[float64]string{1: "1", 500: "500", 999: "999", 1000: "1 k", 5000: "5 k", 1e4: "10 k", 12500: "12.5 k", 2e6: "2 M", 5e9: "5 G", 64: "64"} {
		if got := figureText(v); got != want {
			t.Errorf("%v is %q, want %q", v, got, want)
		}
	}
	colours := map[string]bool{}
	for _, l := range looks {
		colours[fmt.Sprint(l.color)] = true
	}
	for _, l := range spare {
		colours[fmt.Sprint(l.color)] = true
	}
	if len(colours) != len(looks)+len(spare) {
		t.Error("two transports have one colour")
	}
}
