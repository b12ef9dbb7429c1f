package main

import (
	"bufio"
	"encoding/json"
	"io"
	"math"
	"sync"
	"time"
)

// report is one thing that the peer tells: an event of the service or the answer
// to a command.
type report interface {
	// stamp sets the event's name and the time since the start.
	stamp(name string, sinceStart float64)
	// name returns the "event" of the JSON form.
	name() string
	// text returns the line for people, "" for nothing.
	text() string
}

// header is the beginning of every JSON line.
type header struct {
	Event string  `json:"event"`
	Since float64 `json:"t_ms"`
}

func (h *header) stamp(name string, sinceStart float64) { h.Event, h.Since = name, sinceStart }

// output writes reports, one a line. It is shared by the goroutine that prints
// events and those that answer commands.
type output struct {
	start  time.Time
	asJSON bool
	broken chan struct{} // closed when the reader of our output has gone
	// tap is told the line of --json of every report of which tapped says so. Both are
	// nil, or set before the first report. They must not wait, nor tell anything.
	tap    func(line []byte)
	tapped func(r report) bool

	mu      sync.Mutex
	w       *bufio.Writer // guarded by mu
	encoder *json.Encoder // guarded by mu; writes to w
	err     error         // guarded by mu; the first failure of w
	last    bool          // guarded by mu; the last report was put
}

func newOutput(w io.Writer, asJSON bool) *output {
	buffered := bufio.NewWriterSize(w, 64<<10)
	encoder := json.NewEncoder(buffered)
	encoder.SetEscapeHTML(false)
	return &output{start: time.Now(), asJSON: asJSON, broken: make(chan struct{}), w: buffered, encoder: encoder}
}

// put writes a report into the buffer, to be flushed after the last of several.
// Nothing follows the report that the peer has stopped.
func (o *output) put(r report) {
	if line := o.write(r); line != nil {
		o.tap(line)
	}
}

// write is put, and returns what is for the tap, nil for nothing.
func (o *output) write(r report) (tapped []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil || o.last {
		return nil
	}
	_, o.last = r.(*stoppedReport)
	watched := o.tap != nil && o.tapped(r)
	if o.asJSON || watched {
		r.stamp(r.name(), milliseconds(time.Since(o.start)))
	}
	if watched {
		tapped = encode(r)
	}
	if o.asJSON {
		o.failed(o.encoder.Encode(r))
		return tapped
	}
	if line := r.text(); line != "" {
		_, err := o.w.WriteString(line + "\n")
		o.failed(err)
	}
	return tapped
}

// flush hands what was put to the reader.
func (o *output) flush() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil {
		o.failed(o.w.Flush())
	}
}

// tell is put and flush.
func (o *output) tell(r report) {
	o.put(r)
	o.flush()
}

// failed notes the first error of writing. The caller holds o.mu.
func (o *output) failed(err error) {
	if err != nil && o.err == nil {
		o.err = err
		close(o.broken)
	}
}

// failure returns the first error of writing, or nil.
func (o *output) failure() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// milliseconds returns d in milliseconds, to the microsecond.
func milliseconds(d time.Duration) float64 {
	return math.Round(float64(d)/float64(time.Microsecond)) / 1000
}
