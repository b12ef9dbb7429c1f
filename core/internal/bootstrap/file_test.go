package bootstrap

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// written returns a file of 5 slots with peers 4, 3, 2, 1, of which 1 was reached
// twice before.
func written5(t testing.TB) []byte {
	path := place(t)
	c := opened(t, path, Options{Peers: 5})
	reach(t, c, 1, 1, 2, 3, 4)
	c.Close()
	return readFile(t, path)
}

// What happens with each kind of file that is not as it should be, and what is left.
func TestFilesThatAreNotAsTheyShouldBe(t *testing.T) {
	h := header{count: 5}
	good := written5(t)
	change := func(do func(b []byte)) []byte {
		b := bytes.Clone(good)
		do(b)
		return b
	}
	newer := func(b []byte) {
		for which := range 2 {
			b[which*blockSize+9] = 2
		}
	}
	for _, c := range []struct {
		name  string
		file  []byte
		why   string // "" for no warning
		aside bool
		left  []int
	}{
		{"as it should be", good, "", false, []int{4, 3, 2, 1}},
		{"empty", nil, "", false, nil},
		{"foreign", []byte("[{\"peer\": \"203.0.113.5:5483\"}]"), "no bootstrap cache", true, nil},
		{"zeros", make([]byte, h.size()), "no bootstrap cache", true, nil},
		{"newer", change(newer), "version 2, this program knows version 1", true, nil},
		{"cut off in the header", good[:headerSize-1], "header: its checksum is wrong", true, nil},
		{"cut off after the first copy of slot 3", good[:h.at(3, 0)], fmt.Sprintf("has %d bytes where its header says %d", h.at(3, 0), h.size()), true, []int{3, 2, 1}},
		{"longer", append(bytes.Clone(good), 0), fmt.Sprint(len(good)+1, " bytes"), true, []int{4, 3, 2, 1}},
		{"first header damaged", change(func(b []byte) { b[3]++ }), "copy 1 of its header was damaged, and is mended", false, []int{4, 3, 2, 1}},
		{"second header damaged", change(func(b []byte) { b[blockSize+20]++ }), "copy 2 of its header was damaged, and is mended", false, []int{4, 3, 2, 1}},
		{"both headers damaged", change(func(b []byte) { b[17]++; b[blockSize+17]++ }), "header: its checksum is wrong", true, nil},
		{"one header newer", change(func(b []byte) { b[9] = 2 }), "copy 1", false, []int{4, 3, 2, 1}},
		{"one slot damaged", change(func(b []byte) { b[h.at(1, 0)+100]++ }), "", false, []int{4, 3, 1}},
		{"the newer copy damaged", change(func(b []byte) { b[h.at(0, 1)+100]++ }), "", false, []int{4, 3, 2, 1}},
		{"all slots damaged", change(func(b []byte) { copy(b[h.at(0, 0):], bytes.Repeat([]byte{5}, h.half())) }), "", false, []int{1}},
		{"numbers used up", change(func(b []byte) {
			copy(b[h.at(4, 0):], appendSlot(nil, maxSeq, &Entry{Peer: id(9), Success: start, order: maxSeq}))
		}), "", false, []int{9, 4, 3, 2, 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := place(t)
			writeFile(t, path, c.file)
			book, err := Open(path, Options{Peers: 5})
			defer book.Close()
			var w *Warning
			errors.As(err, &w)
			switch {
			case c.why == "" && err != nil:
				t.Fatal(err)
			case c.why == "":
			case w == nil || !strings.Contains(w.Error(), c.why) || w.Path != path || w.Memory:
				t.Fatalf("%+v: %v", w, err)
			case c.aside && (w.Aside != path+".bad-1" || w.Kept != len(c.left)):
				t.Fatalf("%+v", w)
			case !c.aside && w.Aside != "":
				t.Fatalf("%+v", w)
			}
			if c.aside && !bytes.Equal(readFile(t, w.Aside), c.file) {
				t.Fatal("what was set aside is not what was there")
			}
			want(t, "left", peers(t, book), c.left)
			reach(t, book, 77)
			want(t, "used", peers(t, book), append([]int{77}, c.left...)[:min(5, 1+len(c.left))])
			book.Close()
			want(t, "used and opened again", peers(t, opened(t, path, Options{Peers: 5})), append([]int{77}, c.left...)[:min(5, 1+len(c.left))])
			wanted := []string{"bootstrap.cache", "bootstrap.cache.bad-1", "bootstrap.cache.lock"}
			if !c.aside {
				wanted = []string{"bootstrap.cache", "bootstrap.cache.lock"}
			}
			if got := names(t, path); !reflect.DeepEqual(got, wanted) {
				t.Fatal(got)
			}
		})
	}
}

func TestNoMoreFilesAreSetAsideThanHaveANameAndNoneIsDeleted(t *testing.T) {
	path := place(t)
	for n := 1; n <= maxAside; n++ {
		writeFile(t, path, fmt.Appendf(nil, "foreign %d", n))
		c, w := warned(t, path, Options{})
		if w.Aside != fmt.Sprintf("%s.bad-%d", path, n) || w.Memory {
			t.Fatalf("%+v", w)
		}
		c.Close()
	}
	writeFile(t, path, []byte("foreign 9"))
	c, w := warned(t, path, Options{})
	if !w.Memory || w.Aside != "" || !strings.Contains(w.Error(), "all names from") {
		t.Fatalf("%+v", w)
	}
	reach(t, c, 1)
	want(t, "in memory", peers(t, c), []int{1})
	c.Close()
	for n := 1; n <= maxAside; n++ {
		if got := string(readFile(t, fmt.Sprintf("%s.bad-%d", path, n))); got != fmt.Sprintf("foreign %d", n) {
			t.Errorf("file %d holds %q", n, got)
		}
	}
	if got := string(readFile(t, path)); got != "foreign 9" {
		t.Errorf("%q", got)
	}
}

// Who died after a file had got its second name, and before the new one was there,
// does not cost one more name.
func TestSettingAsideGoesOn(t *testing.T) {
	path := place(t)
	writeFile(t, path, []byte("foreign"))
	if name, err := setAside(path); name != path+".bad-1" || err != nil {
		t.Fatal(name, err)
	}
	writeFile(t, path+".new", []byte("half a file"))
	_, w := warned(t, path, Options{})
	if w.Aside != path+".bad-1" {
		t.Fatalf("%+v", w)
	}
	if got := names(t, path); !reflect.DeepEqual(got, []string{"bootstrap.cache", "bootstrap.cache.bad-1", "bootstrap.cache.lock"}) {
		t.Fatal(got)
	}
}

// What is no file, or in no place for one, is left as it is, and the book is in
// memory.
func TestWhereNoFileCanBe(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	writeFile(t, target, written5(t))
	link := filepath.Join(dir, "link")
	if err := os.Symlink(target, link); err != nil {
		t.Skip(err)
	}
	dangling := filepath.Join(dir, "dangling")
	if err := os.Symlink(filepath.Join(dir, "nothing"), dangling); err != nil {
		t.Fatal(err)
	}
	busy := filepath.Join(dir, "busy")
	if err := os.Mkdir(busy+".new", 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ path, why string }{
		{dir, "it is a directory"},
		{link, "it is a symbolic link"},
		{dangling, "it is a symbolic link"},
		{os.DevNull, "it is no regular file"},
		{filepath.Join(dir, "missing", "cache"), "it cannot be locked"},
		{filepath.Join(target, "cache"), "not a directory"},
		{busy, "it is a directory"},
		{filepath.Join(dir, strings.Repeat("x", 300)), "name too long"},
	} {
		if c.path == os.DevNull && runtime.GOOS == "windows" {
			continue
		}
		before, _ := os.ReadDir(filepath.Dir(c.path))
		book, w := warned(t, c.path, Options{Peers: 2})
		if !w.Memory || !strings.Contains(w.Error(), c.why) || !strings.Contains(w.Error(), "in memory only") || !book.InMemory() {
			t.Errorf("%s: %v", c.path, w)
		}
		reach(t, book, 1, 2, 3)
		want(t, c.path, peers(t, book), []int{3, 2})
		if err := book.Close(); err != nil {
			t.Error(err)
		}
		after, _ := os.ReadDir(filepath.Dir(c.path))
		if c.path != busy && len(before) != len(after) {
			t.Errorf("%s: something was made beside it", c.path)
		}
	}
	want(t, "target", numbers(intact(t, target).Entries), []int{4, 3, 2, 1})
}

// A file may be lost while it is in use: then the next call finds out.
func TestFilesThatAreLostWhileInUse(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("nobody can do that to a mapped file there")
	}
	for _, c := range []struct {
		name string
		do   func(path string) error
		why  string
		left []int
	}{
		{"deleted", os.Remove, "", nil},
		{"emptied", func(path string) error { return os.Truncate(path, 0) }, "it was emptied", []int{2, 1}},
		{"cut off", func(path string) error { return os.Truncate(path, 5000) }, "it has 5000 bytes", []int{2, 1}},
		{"overwritten in place", func(path string) error { return os.WriteFile(path, bytes.Repeat([]byte("no"), 1<<18), 0o600) }, "no bootstrap cache", []int{2, 1}},
		{"replaced by a foreign one", func(path string) error {
			return errors.Join(os.WriteFile(path+"2", []byte("foreign"), 0o600), os.Rename(path+"2", path))
		}, "no bootstrap cache", []int{2, 1}},
		{"replaced by a directory", func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) }, "directory", []int{2, 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := place(t)
			book := opened(t, path, Options{})
			reach(t, book, 1, 2)
			if err := c.do(path); err != nil {
				t.Fatal(err)
			}
			err := book.Reached(start, contact(3))
			if c.why == "" && err != nil || c.why != "" && (err == nil || !strings.Contains(err.Error(), c.why)) {
				t.Fatal(err)
			}
			want(t, "afterwards", peers(t, book), append([]int{3}, c.left...))
			if !book.InMemory() {
				want(t, "in the file", numbers(intact(t, path).Entries), append([]int{3}, c.left...))
			}
		})
	}
}

// Another program may cut the file off at any moment, also after it was looked at.
// Then accessing the memory faults (SIGBUS), which must not end the process.
func TestAFileThatIsCutOffUnderTheMapping(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("nobody can do that to a mapped file there")
	}
	for _, size := range []int64{0, 100, blockSize, 2 * blockSize, 3 * blockSize} {
		path := place(t)
		book := opened(t, path, Options{})
		reach(t, book, 1, 2)
		faults := 0
		err := book.use(func(v *view) error {
			if faults == 0 { // what comes now is under the mapping no more
				if err := os.Truncate(path, size); err != nil {
					t.Fatal(err)
				}
			}
			k := contact(3)
			err := v.store(succeed(nil, &k, start))
			if errors.As(err, new(faultError)) {
				faults++
			}
			return err
		})
		if size == 3*blockSize { // the slot is still there; the next one to read is not
			_, err = book.List()
			faults++
		}
		if faults == 0 || !errors.As(err, new(*Warning)) {
			t.Fatalf("cut to %d: %d faults, %v", size, faults, err)
		}
		want(t, "afterwards", peers(t, book), []int{3, 2, 1})
		want(t, "in the file", numbers(intact(t, path).Entries), []int{3, 2, 1})
	}
}

func TestAFileThatIsCutOffAllTheTime(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("nobody can do that to a mapped file there")
	}
	warnings := 0
	for round := range 20 {
		path := place(t)
		book := opened(t, path, Options{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			for n := range 40 {
				os.Truncate(path, int64(round*n*97%(2*blockSize))) //nolint:errcheck // it may be gone for a moment
				runtime.Gosched()
			}
		}()
		for n := 0; ; n++ {
			var w *Warning
			if err := book.Reached(start, contact(n%150)); errors.As(err, &w) {
				warnings++
			} else if err != nil {
				t.Fatal(err)
			}
			select {
			case <-done:
			default:
				continue
			}
			break
		}
		if list, err := book.List(); len(list) == 0 && err == nil {
			t.Fatal("nothing is left")
		}
		book.Close()
	}
	if warnings == 0 {
		t.Fatal("nothing was noticed")
	}
	t.Logf("%d warnings", warnings)
}

func TestAFileIsOnlyForItsOwner(t *testing.T) {
	path := place(t)
	reach(t, opened(t, path, Options{}), 1)
	for _, name := range []string{path, path + ".lock"} {
		if info, err := os.Stat(name); err != nil || runtime.GOOS != "windows" && info.Mode() != 0o600 {
			t.Errorf("%s: %v %v", name, info.Mode(), err)
		}
	}
}

func TestInspect(t *testing.T) {
	path := place(t)
	if _, err := Inspect(path); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	for what, b := range map[string][]byte{"no bootstrap cache": []byte("foreign"), "version 7": append([]byte(magic), 0, 7)} {
		b = append(b, make([]byte, blockSize)...)
		writeFile(t, path, b)
		if _, err := Inspect(path); err == nil || !strings.Contains(err.Error(), what) {
			t.Error(err)
		}
	}
	h := header{count: 5}
	good := written5(t)
	good[blockSize]++
	good[h.at(0, 1)+9]++
	good[h.at(1, 0)+9]++
	good[h.at(4, 0)+9]++
	writeFile(t, path, append(good, 1, 2))
	r, err := Inspect(path)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range r.Damage {
		got = append(got, fmt.Sprint(d.Where, " ", d.Lost))
	}
	wanted := []string{"size false", "header copy 2 false", "slot 1 copy 2 false", "slot 2 copy 1 true", "slot 5 copy 1 true"}
	if !slices.Equal(got, wanted) {
		t.Errorf("got %q, want %q", got, wanted)
	}
	if r.Size != int64(h.size())+2 || r.Want != int64(h.size()) || r.Slots != 5 || r.Version != 1 || r.Last != 5 {
		t.Errorf("%+v", r)
	}
	want(t, "entries", numbers(r.Entries), []int{4, 3, 1})
	if got := names(t, path); !reflect.DeepEqual(got, []string{"bootstrap.cache"}) {
		t.Errorf("Inspect made something: %q", got)
	}
}

// The place of a file that is not mapped any more is not held.
func TestCloseGivesEverythingBack(t *testing.T) {
	count := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip(err)
		}
		return len(entries)
	}
	path := place(t)
	before := count()
	for range 20 {
		c, err := Open(path, Options{Peers: 5})
		if err != nil {
			t.Fatal(err)
		}
		reach(t, c, 1)
		if err := os.Truncate(path, 9000); err != nil {
			t.Fatal(err)
		}
		if err := c.Reached(start.Add(time.Second), contact(2)); err == nil {
			t.Fatal("no warning")
		}
		c.Close()
		if _, err := Inspect(path); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(path + ".bad-1"); err != nil {
			t.Fatal(err)
		}
	}
	if after := count(); after > before {
		t.Fatalf("%d descriptors more", after-before)
	}
	if maps, err := os.ReadFile("/proc/self/maps"); err == nil && bytes.Contains(maps, []byte(path)) {
		t.Fatal("it is still mapped")
	}
}
