package archtest

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/libcrust/libcrust/"

// table is deps.txt, read.
type table struct {
	floor     map[string]int  // of rooms
	pure      map[int]bool    // floors
	support   map[string]bool // rooms for tests
	unshipped map[string]bool // build tags
	bound     map[string]int
	may       map[string]bool // "subject verb object"
}

func (l *table) allows(subject, verb, object string) bool {
	return l.may[strings.Join([]string{subject, verb, object}, " ")]
}

// room returns the room of a directory, or "" where no room can be.
func room(dir string) string {
	switch dir {
	case "core":
		return "core"
	case "core/identity", "core/metrics":
		return path.Base(dir)
	}
	name, ok := strings.CutPrefix(dir, "core/internal/")
	if !ok {
		return ""
	}
	return name
}

// parseTable reads the table. Its form is said at its head.
func parseTable(text string) (*table, error) {
	l := &table{map[string]int{}, map[int]bool{}, map[string]bool{}, map[string]bool{}, map[string]int{}, map[string]bool{}}
	named := map[string]int{}
	for i, line := range strings.Split(text, "\n") {
		line, reason, _ := strings.Cut(line, "#")
		fields := strings.Fields(strings.ReplaceAll(line, ":", " "))
		if len(fields) == 0 {
			continue
		}
		if err := l.parseLine(fields, strings.TrimSpace(reason), named); err != nil {
			return nil, fmt.Errorf("deps.txt:%d: %w", i+1, err)
		}
	}
	return l, nil
}

func (l *table) parseLine(fields []string, reason string, named map[string]int) error {
	switch rest := fields[1:]; {
	case fields[0] == "floor" && len(rest) > 2:
		n, err := strconv.Atoi(rest[0])
		if err != nil {
			return err
		}
		named[rest[1]] = n
		for _, r := range rest[2:] {
			if _, twice := l.floor[r]; twice {
				return fmt.Errorf("%s is on two floors", r)
			}
			l.floor[r] = n
		}
	case fields[0] == "pure":
		for _, name := range rest {
			n, ok := named[name]
			if !ok {
				return fmt.Errorf("no floor %s", name)
			}
			l.pure[n] = true
		}
	case fields[0] == "test":
		for _, r := range rest {
			l.support[r] = true
		}
	case fields[0] == "unshipped":
		for _, tag := range rest {
			l.unshipped[tag] = true
		}
	case fields[0] == "bound" && len(rest) == 2:
		n, err := strconv.Atoi(rest[1])
		if err != nil {
			return err
		}
		l.bound[rest[0]] = n
	case fields[0] == "may" && len(rest) >= 2:
		return l.parseMay(rest[0], rest[1], rest[2:], reason)
	default:
		return fmt.Errorf("cannot read %q", strings.Join(fields, " "))
	}
	return nil
}

func (l *table) parseMay(subject, verb string, objects []string, reason string) error {
	file := path.Ext(subject) == ".go"
	ofFile := verb == "clock" || verb == "start"
	_, known := l.floor[subject]
	switch {
	case reason == "":
		return fmt.Errorf("%s may %s without a reason", subject, verb)
	case !slices.Contains([]string{"import", "use", "clock", "start"}, verb):
		return fmt.Errorf("cannot %s", verb)
	case file != ofFile || !file && !known:
		return fmt.Errorf("%s cannot be the subject of %s", subject, verb)
	case ofFile != (len(objects) == 0):
		return fmt.Errorf("%s %s: wrong number of objects", subject, verb)
	case ofFile:
		objects = []string{""}
	}
	for _, o := range objects {
		l.may[strings.Join([]string{subject, verb, o}, " ")] = true
	}
	return nil
}

func TestTableRefusesNonsense(t *testing.T) {
	const floors = "floor 0 values: a\nfloor 1 machines: b\n"
	for _, text := range []string{
		"floor x values: a", "floor 0 values:", "floor 0 values: a a", "pure nothing", "bound file", "bound file many", "hello",
		floors + "may b import a", floors + "may b fly a # reason", floors + "may c import a # reason",
		floors + "may b clock # reason", floors + "may b.go import a # reason", floors + "may b.go start a # reason", floors + "may b import # reason",
	} {
		if _, err := parseTable(text); err == nil {
			t.Errorf("accepted: %q", text)
		}
	}
	l, err := parseTable(floors + "pure values\nmay b use os net # reason\nmay b/c.go start # reason")
	if err != nil || !l.pure[0] || l.pure[1] || !l.allows("b", "use", "net") || !l.allows("b/c.go", "start", "") || l.allows("a", "use", "net") {
		t.Errorf("%+v, %v", l, err)
	}
}
