package benchkit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// DocumentSchema is the form of a [Document] that this program writes, and the newest that it
// reads. It grows when a reader of an older form would misunderstand a newer one.
const DocumentSchema = 1

// Document is a run with the machine that it ran on, as crust bench --save writes it.
type Document struct {
	Schema    int       `json:"schema"`  // DocumentSchema
	Version   string    `json:"version"` // of libcrust
	Go        string    `json:"go"`
	System    string    `json:"system"` // operating system, architecture and kernel
	Processor string    `json:"processor"`
	Cores     int       `json:"cores"` // that Go may use
	Began     time.Time `json:"began"`
	Seconds   float64   `json:"seconds"`          // that it took
	Duration  float64   `json:"duration"`         // seconds that a run of a throughput or connect test lasts, about
	Pings     int       `json:"pings"`            // round trips of a run
	Remote    string    `json:"remote,omitempty"` // host of the other end, where that was elsewhere
	Results   []Result  `json:"results"`
}

// MaxDocument is the longest document in bytes that is read.
const MaxDocument = 64 << 20

// NewDocument describes this machine, and how much a run does.
func NewDocument(version string, began time.Time, volume Volume) *Document {
	volume = volume.withDefaults()
	return &Document{
		Schema: DocumentSchema, Duration: volume.Duration.Seconds(), Pings: volume.Pings, Version: version, Go: runtime.Version(), System: strings.TrimSpace(runtime.GOOS + " " + runtime.GOARCH + " " + kernel()),
		Processor: processor(), Cores: runtime.GOMAXPROCS(0), Began: began.UTC().Truncate(time.Second),
	}
}

// kernel and processor are what Linux says of itself, "" elsewhere.
func kernel() string {
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(release))
}

func processor() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(info)) {
		if name, value, found := strings.Cut(line, ":"); found && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// Write writes the document, a line for each result.
func (d *Document) Write(w io.Writer) error {
	head := *d
	head.Results = []Result{}
	text, err := json.MarshalIndent(&head, "", "  ")
	if err != nil {
		return err
	}
	before, after, found := bytes.Cut(text, []byte("[]"))
	if !found {
		return errors.New("the document has no place for results")
	}
	var b bytes.Buffer
	b.Write(before)
	b.WriteString("[")
	for i, r := range d.Results {
		if i > 0 {
			b.WriteString(",")
		}
		line, err := json.Marshal(r)
		if err != nil {
			return err
		}
		b.WriteString("\n    ")
		b.Write(line)
	}
	b.WriteString("\n  ]")
	b.Write(after)
	b.WriteString("\n")
	_, err = w.Write(b.Bytes())
	return err
}

// ReadDocument reads what Write has written, or the lines of crust bench --json. When a test
// over a transport comes several times, its runs are taken together.
func ReadDocument(r io.Reader) (*Document, error) {
	text, err := io.ReadAll(io.LimitReader(r, MaxDocument+1))
	if err != nil {
		return nil, err
	}
	if len(text) > MaxDocument {
		return nil, fmt.Errorf("the results are longer than %d bytes", MaxDocument)
	}
	d := new(Document)
	var kind struct {
		Schema  *int             `json:"schema"`
		Version string           `json:"version"`
		Results *json.RawMessage `json:"results"`
	}
	if err := json.Unmarshal(text, &kind); err == nil && (kind.Schema != nil || kind.Results != nil) {
		switch {
		case kind.Schema == nil || *kind.Schema < 1:
			return nil, errors.New("this is not what crust bench writes: it has no schema")
		case *kind.Schema > DocumentSchema:
			return nil, fmt.Errorf("the results are of schema %d, by libcrust %.40q: this program reads up to %d", *kind.Schema, kind.Version, DocumentSchema)
		}
		if err := json.Unmarshal(text, d); err != nil {
			return nil, fmt.Errorf("the results are malformed: %w", err)
		}
	} else {
		for lines := json.NewDecoder(bytes.NewReader(text)); ; {
			var r Result
			if err := lines.Decode(&r); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return nil, fmt.Errorf("result %d is malformed: %w", len(d.Results)+1, err)
			}
			d.Results = append(d.Results, r)
		}
	}
	if len(d.Results) == 0 {
		return nil, errors.New("there are no results")
	}
	for _, r := range d.Results {
		if r.Transport == "" || r.Test == "" || len(r.Runs) == 0 {
			return nil, fmt.Errorf("a result of %.40q over %.40q has no transport, test or runs", r.Test, r.Transport)
		}
	}
	d.Results, err = merge(d.Results)
	return d, err
}

// merge makes one result of those of one test over one transport: lines of several runs of
// crust bench in one file.
func merge(results []Result) ([]Result, error) {
	type key struct{ transport, test string }
	parts, order := map[key][]Result{}, []key{}
	for _, r := range results {
		k := key{r.Transport, r.Test}
		if parts[k] == nil {
			order = append(order, k)
		} else if first := parts[k][0]; first.Unit != r.Unit {
			return nil, fmt.Errorf("%.40q over %.40q comes in %.40q and in %.40q", r.Test, r.Transport, first.Unit, r.Unit)
		}
		parts[k] = append(parts[k], r)
	}
	merged := make([]Result, 0, len(order))
	for _, k := range order {
		one := parts[k][0]
		if more := parts[k][1:]; len(more) > 0 {
			for _, r := range more {
				one.Runs = append(one.Runs, r.Runs...)
			}
			one.Value = Median(one.Runs)
			for name := range one.Extra {
				var values []float64
				for _, r := range parts[k] {
					if v, ok := r.Extra[name]; ok {
						values = append(values, v)
					}
				}
				one.Extra[name] = Median(values)
			}
		}
		merged = append(merged, one)
	}
	return merged, nil
}

// Machine says in one line what was measured, and on what. It is "" for a document that does
// not say it: one of lines of crust bench --json.
func (d *Document) Machine() string {
	if d.Version == "" {
		return ""
	}
	parts := []string{"libcrust " + d.Version, d.Go, d.System, d.Processor, fmt.Sprintf("%d cores", d.Cores)}
	if d.Remote != "" {
		parts = append(parts, "to "+d.Remote)
	}
	parts = append(parts, "on "+d.Began.Format(time.DateOnly))
	return strings.Join(slices.DeleteFunc(parts, func(part string) bool { return part == "" }), ", ")
}

// ReadDocumentFile reads the document in a file.
func ReadDocumentFile(name string) (*Document, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	d, err := ReadDocument(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return d, nil
}
