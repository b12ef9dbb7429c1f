package benchkit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"
)

// Document is a run with the machine that it ran on, as crust bench --save writes it.
type Document struct {
	Version   string    `json:"version"` // of libcrust
	Go        string    `json:"go"`
	System    string    `json:"system"` // operating system, architecture and kernel
	Processor string    `json:"processor"`
	Cores     int       `json:"cores"` // that Go may use
	Began     time.Time `json:"began"`
	Seconds   float64   `json:"seconds"` // that it took
	Remote    string    `json:"remote,omitempty"`
	Results   []Result  `json:"results"`
}

// MaxDocument is the longest document in bytes that is read.
const MaxDocument = 64 << 20

// NewDocument describes this machine.
func NewDocument(version string, began time.Time) *Document {
	return &Document{
		Version: version, Go: runtime.Version(), System: strings.TrimSpace(runtime.GOOS + " " + runtime.GOARCH + " " + kernel()),
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

// ReadDocument reads what Write has written, or the lines of crust bench --json.
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
		Results *json.RawMessage `json:"results"`
	}
	if err := json.Unmarshal(text, &kind); err == nil && kind.Results != nil {
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
			return nil, fmt.Errorf("a result of %q over %q has no transport, test or runs", r.Test, r.Transport)
		}
	}
	return d, nil
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
