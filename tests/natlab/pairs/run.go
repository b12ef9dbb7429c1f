package pairs

import (
	"bufio"
	"cmp"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// Run is what came of one pair, once: a line of JSON.
type Run struct {
	Date string `json:"date"` // of the run, as 2026-11-29
	Row  string `json:"row"`
	Case string `json:"case"`
	Seed uint64 `json:"seed"`
	// How is "dialed", "accepted", "mapped", "punched" or "relayed", and Transport
	// "tcp" or "utp"; both are empty when it failed.
	How       string `json:"how,omitempty"`
	Transport string `json:"transport,omitempty"`
	// Took is in milliseconds from the call to the connection; of a failure, to the end.
	Took float64 `json:"took_ms"`
	// First is in milliseconds from the call until the other side had the first
	// message, 0 when none came.
	First float64 `json:"first_message_ms"`
	// Connected is, with Relay, in milliseconds from the call to the first connection; 0
	// when it was not recorded.
	Connected float64 `json:"connected_ms,omitempty"`
	// Relay: the public peers relay, and the message may have come over them. How and
	// Transport are then of the link that was there in the end, and Took until that.
	Relay bool `json:"relay,omitempty"`
	// Given: the first message went with the call; otherwise it was sent when the caller was
	// connected.
	Given bool   `json:"given,omitempty"`
	Error string `json:"error,omitempty"`
}

// Way is T, U or R, or "" for a failure.
func (r Run) Way() string {
	switch {
	case r.How == "":
		return ""
	case r.How == "relayed":
		return "R"
	case r.Transport == "tcp":
		return "T"
	}
	return "U"
}

// Milliseconds of a time, to three places.
func Milliseconds(d time.Duration) float64 { return float64(d.Round(time.Microsecond)) / 1e6 }

// Recorder appends runs to a file. Its methods may be called by any goroutine.
type Recorder struct {
	mu   sync.Mutex
	file *os.File
	date string // when it began: runs may have a clock of their own
}

// Record opens a file for runs. Without a name nothing is recorded.
func Record(name string) (*Recorder, error) {
	if name == "" {
		return &Recorder{}, nil
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	return &Recorder{file: f, date: time.Now().Format(time.DateOnly)}, err
}

// Add records a run.
func (r *Recorder) Add(run Run) error {
	if r.file == nil {
		return nil
	}
	run.Date = r.date
	line, err := json.Marshal(run)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	_, err = r.file.Write(append(line, '\n'))
	return err
}

// Close ends the recording.
func (r *Recorder) Close() error {
	if r.file == nil {
		return nil
	}
	return r.file.Close()
}

// Read reads runs from a file, which is compressed if its name ends in ".gz". The
// error names the line that is none.
func Read(name string) (runs []Run, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var from io.Reader = f
	if strings.HasSuffix(name, ".gz") {
		if from, err = gzip.NewReader(f); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	lines := bufio.NewScanner(from)
	for n := 1; lines.Scan(); n++ {
		var run Run
		decoder := json.NewDecoder(strings.NewReader(lines.Text()))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&run); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, n, err)
		}
		if err := run.check(); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, n, err)
		}
		runs = append(runs, run)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return runs, nil
}

// Write writes runs into a file, which is compressed if its name ends in ".gz". The
// same runs make the same file.
func Write(name string, runs []Run) (err error) {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	var to io.Writer = f
	if strings.HasSuffix(name, ".gz") {
		z := gzip.NewWriter(f)
		defer func() { err = errors.Join(z.Close(), err) }()
		to = z
	}
	lines := json.NewEncoder(to)
	for _, r := range runs {
		if err := lines.Encode(r); err != nil {
			return err
		}
	}
	return nil
}

// kind is what tells runs of a row apart that are summed up by themselves: those where
// nobody relays come first, and those whose message went with the call over relays last.
func (r Run) kind() int {
	switch {
	case !r.Relay:
		return 0
	case r.Given:
		return 2
	}
	return 1
}

// Merge returns the runs of newer, and those of older of whose row and kind newer has
// none, in the order of the table.
func Merge(older, newer []Run) []Run {
	type group struct {
		row  string
		kind int
	}
	has := map[group]bool{}
	for _, r := range newer {
		has[group{r.Row, r.kind()}] = true
	}
	all := slices.Clone(newer)
	for _, r := range older {
		if !has[group{r.Row, r.kind()}] {
			all = append(all, r)
		}
	}
	order := map[string]int{}
	for i, row := range Rows {
		order[row.Name] = i
	}
	slices.SortFunc(all, func(a, b Run) int {
		return cmp.Or(order[a.Row]-order[b.Row], a.kind()-b.kind(), cmp.Compare(a.Seed, b.Seed))
	})
	return all
}

func (r Run) check() error {
	if _, err := time.Parse(time.DateOnly, r.Date); err != nil {
		return err
	}
	row, err := RowOf(r.Row)
	if err != nil {
		return err
	}
	for _, c := range row.Cases {
		if c.Name == r.Case {
			if r.Took < 0 || r.First < 0 {
				return errors.New("a time is negative")
			}
			return nil
		}
	}
	return fmt.Errorf("the row %s has no case %q", r.Row, r.Case)
}
