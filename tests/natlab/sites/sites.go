// Package sites holds what crust doctor says in each type of site of the NAT
// laboratory, as it was recorded, and makes the table of docs/DOCTOR.md of it.
package sites

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

const (
	// Document is where the table is, and Recorded what it is made of, seen from the
	// root of the repository.
	Document = "docs/DOCTOR.md"
	Recorded = "tests/natlab/testdata/doctor.jsonl"

	begin = "<!-- sites: made by `go run ./tests/natlab/cmd/doctortable`, not by hand -->\n"
	end   = "<!-- end of sites -->\n"
)

// Row is what doctor says in one site.
type Row struct {
	Site   string            `json:"site"`
	Kind   string            `json:"kind"`
	Health string            `json:"health"`
	Code   int               `json:"code"` // of the exit
	UDP    string            `json:"udp"`
	TCP    string            `json:"tcp"`
	Mapped string            `json:"mapped"` // by what means, "" for not
	Expect map[string]string `json:"expect"`
}

// Peers are the columns of what is expected, in their order.
var Peers = []string{"reachable", "home", "sequential", "block", "symmetric"}

// Equal reports whether doctor says the same in two rows.
func (r Row) Equal(other Row) bool {
	a, errA := json.Marshal(r)
	b, errB := json.Marshal(other)
	return errA == nil && errB == nil && bytes.Equal(a, b)
}

// Read reads rows from a file, one on each line.
func Read(name string) (rows []Row, err error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		var r Row
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// Write writes rows into a file, in the order of the sites' names.
func Write(name string, rows []Row) error {
	rows = slices.SortedFunc(slices.Values(rows), func(a, b Row) int { return strings.Compare(a.Site, b.Site) })
	var b bytes.Buffer
	for _, r := range rows {
		line, err := json.Marshal(r)
		if err != nil {
			return err
		}
		b.Write(append(line, '\n'))
	}
	return os.WriteFile(name, b.Bytes(), 0o644)
}

// Table makes the table of rows.
func Table(rows []Row) string {
	var b strings.Builder
	b.WriteString("| site | diagnosis | exit | UDP | TCP | router maps by | a peer at home | behind a counting NAT | a block of ports | random ports |\n|---|---|---|---|---|---|---|---|---|---|\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s | `%s`, %s | %d | %s | %s | %s |", r.Site, r.Kind, r.Health, r.Code, r.UDP, r.TCP, r.Mapped)
		for _, p := range Peers[1:] {
			fmt.Fprintf(&b, " %s |", r.Expect[p])
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// Put puts a table into the text of the document.
func Put(text, table string) (string, error) {
	before, rest, found := strings.Cut(text, begin)
	_, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		return "", errors.New("the document has no place for the table")
	}
	return before + begin + "\n" + table + "\n" + end + after, nil
}
