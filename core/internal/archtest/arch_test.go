// Package archtest holds the law of the house: tests read the table in deps.txt
// and check the project's code against it.
package archtest

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

const root = "../../.."

func law(t *testing.T) *table {
	t.Helper()
	text, err := os.ReadFile("deps.txt")
	if err != nil {
		t.Fatal(err)
	}
	l, err := parseTable(string(text))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestLaw checks the project.
func TestLaw(t *testing.T) {
	tree := os.DirFS(root)
	if _, err := fs.Stat(tree, "go.mod"); err != nil {
		t.Fatalf("%s is not the module's root: %v", root, err)
	}
	found, err := check(law(t), tree)
	if err != nil {
		t.Fatal(err)
	}
	for _, violation := range found {
		t.Error(violation)
	}
}

// TestChecksCanFail feeds the checks code that breaks the law. Each file of
// testdata holds a tree, one "-- path --" line before each of its files, and in
// "-- want --" what must be found in it, no more and no less.
func TestChecksCanFail(t *testing.T) {
	l := law(t)
	names, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(names) == 0 {
		t.Fatal("no trees to check:", err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			tree, want := split(string(text))
			got, err := check(l, tree)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, want) {
				t.Errorf("found\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
			}
		})
	}
}

// split reads a tree of testdata. A line "repeat N TEXT" stands for N lines, so
// that a file over its budget need not be written out.
func split(text string) (tree fstest.MapFS, want []string) {
	tree = fstest.MapFS{}
	name := ""
	for line := range strings.Lines(text) {
		if word, ok := strings.CutPrefix(strings.TrimSuffix(line, " --\n"), "-- "); ok {
			name = word
			continue
		}
		if count, rest, ok := strings.Cut(strings.TrimPrefix(line, "repeat "), " "); ok && strings.HasPrefix(line, "repeat ") {
			line = strings.Repeat(rest, atoi(count))
		}
		switch {
		case name == "want":
			want = append(want, strings.TrimSpace(line))
		case name != "":
			if tree[name] == nil {
				tree[name] = &fstest.MapFile{}
			}
			tree[name].Data = append(tree[name].Data, line...)
		}
	}
	return tree, want
}

func atoi(digits string) (n int) {
	for _, d := range digits {
		n = 10*n + int(d-'0')
	}
	return n
}
