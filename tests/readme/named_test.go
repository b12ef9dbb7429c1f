// Package readme_test holds the documents against the tree: what a document says
// is shown by a test must be shown by one that is there.
package readme_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// documents are those whose claims are shown by tests. Each must name some.
var documents = []string{"docs/RELIABILITY.md", "docs/SECURITY.md", "docs/COMPAT.md", "docs/FUZZING.md"}

// A document names a test in a code span: of Go by its directory, or the end of
// that, and its name, as in `secure.TestVectorsOfTheDocument`; any other one by its
// file and a word in it, as in `tests/abi/area_udp.c::datagrams`.
var (
	span    = regexp.MustCompile("`([^`\n]+)`")
	goTest  = regexp.MustCompile(`^([\w/-]+)\.((?:Test|Fuzz|Benchmark)\w+)$`)
	another = regexp.MustCompile(`^([\w/.-]+)::(\w+)$`)
	bare    = regexp.MustCompile(`^(?:Test|Fuzz)[A-Z]\w*$`)
	begins  = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w+)\(`)
)

// column heads the column of a table in which every row must name a test.
const column = "shown by"

// TestNamedTests: every test that a document names is there.
func TestNamedTests(t *testing.T) {
	root := os.DirFS("../..")
	tests, err := goTests(root)
	if err != nil || len(tests) < 20 {
		t.Fatalf("%d directories with tests: %v", len(tests), err)
	}
	for _, name := range documents {
		text, err := fs.ReadFile(root, name)
		if err != nil {
			t.Fatal(err)
		}
		named, wrong := check(root, tests, string(text))
		for _, w := range wrong {
			t.Errorf("%s: %s", name, w)
		}
		if named == 0 {
			t.Errorf("%s names no test", name)
		}
		t.Logf("%s names %d tests", name, named)
	}
}

// TestEachTargetIsAccountedFor: docs/FUZZING.md has a row for each fuzz target.
func TestEachTargetIsAccountedFor(t *testing.T) {
	root := os.DirFS("../..")
	tests, err := goTests(root)
	if err != nil {
		t.Fatal(err)
	}
	text, err := fs.ReadFile(root, "docs/FUZZING.md")
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for dir, names := range tests {
		if strings.HasPrefix(dir, "tests/bench") { // modules of their own
			continue
		}
		for _, name := range names {
			if !strings.HasPrefix(name, "Fuzz") {
				continue
			}
			count++
			if row := "| `" + filepath.Base(dir) + "." + name + "` |"; !strings.Contains(string(text), row) {
				t.Errorf("there is no account of %s in %s: ./build.sh fuzz --list", name, dir)
			}
		}
	}
	if count < 50 {
		t.Errorf("%d fuzz targets are found", count)
	}
}

// TestNamedTestsCanFail: what is not there, or could be two, is found.
func TestNamedTestsCanFail(t *testing.T) {
	root := os.DirFS("../..")
	tests, err := goTests(root)
	if err != nil {
		t.Fatal(err)
	}
	for text, ok := range map[string]bool{
		"`readme.TestNamedTests`":                                true,
		"`tests/readme.TestNamedTests`":                          true,
		"`readme.TestNamed`":                                     false,
		"`me.TestNamedTests`":                                    false,
		"`nowhere.TestNamedTests`":                               false,
		"`TestNamedTests`":                                       false,
		"`tests/readme/run.sh::in_python`":                       true,
		"`tests/readme/run.sh::in_pyth`":                         false,
		"`tests/readme/walk.sh::in_python`":                      false,
		"| a | shown by |\n|---|---|\n| b | none |":              false,
		"| a | shown by |\n|---|---|\n| b | `udpmux.TestPair` |": true,
	} {
		if _, wrong := check(root, tests, text); (len(wrong) == 0) != ok {
			t.Errorf("%q: %q", text, wrong)
		}
	}
}

// goTests lists the names of the tests of each directory.
func goTests(root fs.FS) (map[string][]string, error) {
	tests := map[string][]string{}
	err := fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "build" || d.Name() == "target"):
			return fs.SkipDir
		case !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		text, err := fs.ReadFile(root, path)
		for _, m := range begins.FindAllSubmatch(text, -1) {
			dir := filepath.ToSlash(filepath.Dir(path))
			tests[dir] = append(tests[dir], string(m[1]))
		}
		return err
	})
	return tests, err
}

// check returns how many tests a text names, and what is wrong with that.
func check(root fs.FS, tests map[string][]string, text string) (named int, wrong []string) {
	at := -1 // of the column in the table
	for i, line := range strings.Split(text, "\n") {
		before := named
		for _, m := range span.FindAllStringSubmatch(line, -1) {
			n, why := one(root, tests, m[1])
			if named += n; why != "" {
				wrong = append(wrong, fmt.Sprintf("line %d: %s", i+1, why))
			}
		}
		if !strings.HasPrefix(line, "|") {
			at = -1
			continue
		}
		cells := strings.Split(line, "|")
		head := slices.IndexFunc(cells, func(c string) bool { return strings.TrimSpace(c) == column })
		switch {
		case head >= 0:
			at = head
		case at >= 0 && !strings.HasPrefix(line, "|--") && named == before:
			wrong = append(wrong, fmt.Sprintf("line %d: the row names no test", i+1))
		}
	}
	return named, wrong
}

// one looks at a code span.
func one(root fs.FS, tests map[string][]string, text string) (named int, wrong string) {
	if bare.MatchString(text) {
		return 0, text + " does not say in which directory"
	}
	if m := another.FindStringSubmatch(text); m != nil {
		content, err := fs.ReadFile(root, m[1])
		if err != nil {
			return 0, err.Error()
		}
		if !regexp.MustCompile(`\b` + m[2] + `\b`).Match(content) {
			return 0, text + " is not in the file"
		}
		return 1, ""
	}
	m := goTest.FindStringSubmatch(text)
	if m == nil {
		return 0, ""
	}
	found := 0
	for dir, names := range tests {
		if (dir == m[1] || strings.HasSuffix(dir, "/"+m[1])) && slices.Contains(names, m[2]) {
			found++
		}
	}
	if found != 1 {
		return 0, fmt.Sprintf("%s names %d tests", text, found)
	}
	return 1, ""
}
