package conformance

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// languages are those of the matrix, in the order of the table.
var languages = []string{"go", "c", "rust", "python"}

// languagesVariable restricts the languages, for instance to "go,python".
const languagesVariable = "CRUST_CONFORMANCE_LANGS"

// answerTime bounds the wait for one line of a driver. It is long because the
// machine may be busy with other tests.
const answerTime = 60 * time.Second

// wanted returns the languages to run.
func wanted(t *testing.T) []string {
	t.Helper()
	text := os.Getenv(languagesVariable)
	if text == "" {
		return languages
	}
	given := strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' })
	for _, language := range given {
		if !slices.Contains(languages, language) {
			t.Fatalf("%s names %q, want some of %s", languagesVariable, language, strings.Join(languages, ","))
		}
	}
	if len(given) == 0 {
		t.Fatalf("%s names no language, want some of %s", languagesVariable, strings.Join(languages, ","))
	}
	return slices.DeleteFunc(slices.Clone(languages), func(l string) bool { return !slices.Contains(given, l) })
}

// program is how a driver is started.
type program struct {
	arguments   []string
	environment []string // beside that of the test
}

// workshop builds drivers.
type workshop struct {
	root string // of the repository
	bin  string // for what is built here
}

func newWorkshop(t *testing.T) workshop {
	t.Helper()
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	return workshop{root: root, bin: t.TempDir()}
}

// decode reads an info as drivers print it.
func decode(t *testing.T, word string) []byte {
	t.Helper()
	info, err := base64.RawURLEncoding.DecodeString(word)
	if err != nil {
		t.Fatalf("the info %q is not base64url without padding: %v", word, err)
	}
	return info
}

// build makes the driver of a language.
func (w workshop) build(t *testing.T, language string) program {
	t.Helper()
	library := filepath.Join(w.root, "build", "lib")
	if language != "go" {
		if _, err := os.Stat(filepath.Join(library, "libcrust.so.1")); err != nil {
			t.Fatalf("the library is not built; run ./build.sh lib, or set %s=go to leave out the other languages (%v)", languagesVariable, err)
		}
	}
	switch language {
	case "go":
		driver := filepath.Join(w.bin, "driver-go")
		w.command(t, "", nil, "go", "build", "-o", driver, "./tests/conformance/godriver")
		return program{arguments: []string{driver}}
	case "c":
		driver := filepath.Join(w.bin, "driver-c")
		compiler := os.Getenv("CC")
		if compiler == "" {
			compiler = "cc"
		}
		w.command(t, "", nil, compiler, "-std=c11", "-D_GNU_SOURCE", "-O1", "-g", "-Wall", "-Wextra", "-Werror",
			"-I", filepath.Join(w.root, "build", "include"), "-o", driver, filepath.Join(w.root, "tests", "conformance", "driver.c"),
			"-L", library, "-lcrust", "-Wl,-rpath,"+library)
		return program{arguments: []string{driver}}
	case "rust":
		bindings := filepath.Join(w.root, "bindings", "rust")
		w.command(t, bindings, []string{"CRUST_LIB_DIR=" + library}, "cargo", "build", "--quiet", "--target-dir", filepath.Join(bindings, "target"), "--example", "conformance")
		return program{
			arguments:   []string{filepath.Join(bindings, "target", "debug", "examples", "conformance")},
			environment: []string{"LD_LIBRARY_PATH=" + library},
		}
	case "python":
		return program{
			arguments: []string{"python3", filepath.Join(w.root, "tests", "conformance", "driver.py")},
			environment: []string{
				"PYTHONPATH=" + filepath.Join(w.root, "bindings", "python", "src"),
				"CRUST_LIBRARY=" + filepath.Join(library, "libcrust.so.1"),
			},
		}
	}
	t.Fatalf("no driver for %q", language)
	return program{}
}

// command runs a tool and fails the test with its output when it fails.
func (w workshop) command(t *testing.T, dir string, environment []string, name string, arguments ...string) {
	t.Helper()
	cmd := exec.Command(name, arguments...)
	cmd.Dir = w.root
	if dir != "" {
		cmd.Dir = dir
	}
	cmd.Env = append(os.Environ(), environment...)
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(arguments, " "), err, output)
	}
}

// complaints keeps what a driver writes to standard error.
type complaints struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (c *complaints) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.Write(p)
}

func (c *complaints) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.String()
}

// driver is a running driver.
type driver struct {
	t        *testing.T
	language string
	id       string // its peer id
	process  *exec.Cmd
	input    io.WriteCloser
	lines    chan string // what it prints; closed at the end
	errors   *complaints
	cancel   context.CancelFunc
	exited   chan error
}

// start starts a driver and waits until it listens, by default on TCP.
func start(t *testing.T, language string, p program, network string, listen ...string) *driver {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	arguments := append(append(slices.Clone(p.arguments), network), listen...)
	d := &driver{
		t: t, language: language, process: exec.CommandContext(ctx, arguments[0], arguments[1:]...), lines: make(chan string, 64),
		errors: &complaints{}, cancel: cancel, exited: make(chan error, 1),
	}
	d.process.Env = append(os.Environ(), p.environment...)
	d.process.Stderr = d.errors
	var err error
	if d.input, err = d.process.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	output, err := d.process.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.process.Start(); err != nil {
		t.Fatalf("cannot start the %s driver: %v", language, err)
	}
	go func() {
		reader := bufio.NewScanner(output)
		reader.Buffer(nil, 1<<20)
		for reader.Scan() {
			d.lines <- reader.Text()
		}
		close(d.lines)
		d.exited <- errors.Join(reader.Err(), d.process.Wait())
	}()
	t.Cleanup(func() {
		cancel()
		for range d.lines { // lets the reader reach the end
		}
	})
	d.id = strings.TrimPrefix(d.expect("ready "), "ready ")
	return d
}

// tell gives a command.
func (d *driver) tell(format string, arguments ...any) {
	d.t.Helper()
	if _, err := fmt.Fprintf(d.input, format+"\n", arguments...); err != nil {
		d.t.Fatalf("the %s driver takes no more commands: %v; it said: %s", d.language, err, d.errors)
	}
}

// line returns the next line.
func (d *driver) line(waitingFor string) string {
	d.t.Helper()
	timer := time.NewTimer(answerTime)
	defer timer.Stop()
	select {
	case line, ok := <-d.lines:
		if !ok {
			d.t.Fatalf("the %s driver ended while %q was expected; it said: %s", d.language, waitingFor, d.errors)
		}
		return line
	case <-timer.C:
		d.t.Fatalf("the %s driver has not said %q for %v", d.language, waitingFor, answerTime)
	}
	return ""
}

// expect returns the next line, which must begin with prefix.
func (d *driver) expect(prefix string) string {
	d.t.Helper()
	line := d.line(prefix)
	if !strings.HasPrefix(line, prefix) {
		d.t.Fatalf("the %s driver said %q, want %q", d.language, line, prefix)
	}
	return line
}

// expectAll takes as many lines as are given, which must be these, in any order.
func (d *driver) expectAll(want ...string) {
	d.t.Helper()
	left := slices.Clone(want)
	for len(left) > 0 {
		line := d.line(strings.Join(left, " | "))
		at := slices.Index(left, line)
		if at < 0 {
			d.t.Fatalf("the %s driver said %q, want one of %q", d.language, line, left)
		}
		left = slices.Delete(left, at, at+1)
	}
}

// end waits for the orderly end of a driver that was told to quit, and for
// nothing more being said.
func (d *driver) end() {
	d.t.Helper()
	if line := d.line("bye"); line != "bye" {
		d.t.Fatalf("the %s driver said %q, want \"bye\"", d.language, line)
	}
	for line := range d.lines {
		d.t.Fatalf("the %s driver said %q after \"bye\"", d.language, line)
	}
	if err := <-d.exited; err != nil {
		d.t.Fatalf("the %s driver ended with %v, want exit code 0; it said: %s", d.language, err, d.errors)
	}
}
