package bootstrap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/endpoint"
)

// start is when the tests begin.
var start = time.UnixMilli(1_700_000_000_000)

// id returns the id of peer n.
func id(n int) (p identity.PeerID) {
	binary.BigEndian.PutUint64(p[:], uint64(n)+1)
	p[31] = 0xcc
	return p
}

// number returns the n of id.
func number(p identity.PeerID) int { return int(binary.BigEndian.Uint64(p[:])) - 1 }

// at returns an endpoint of peer n.
func at(n int) endpoint.Endpoint {
	return endpoint.New(endpoint.TCP, netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(n)}), uint16(1000+n%60000)))
}

func contact(n int) Contact { return Contact{Peer: id(n), At: at(n)} }

// place returns the name of a cache that is not there yet.
func place(t testing.TB) string { return filepath.Join(t.TempDir(), "bootstrap.cache") }

// opened opens a book and expects no warning.
func opened(t testing.TB, path string, o Options) *Cache {
	t.Helper()
	c, err := Open(path, o)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// warned opens a book and expects a warning.
func warned(t testing.TB, path string, o Options) (*Cache, *Warning) {
	t.Helper()
	c, err := Open(path, o)
	var w *Warning
	if !errors.As(err, &w) || c == nil {
		t.Fatalf("Open: %v, want a warning", err)
	}
	t.Cleanup(func() { c.Close() })
	return c, w
}

// reach writes down that peers were reached, one after another.
func reach(t testing.TB, c *Cache, peers ...int) {
	t.Helper()
	for _, n := range peers {
		if err := c.Reached(start, contact(n)); err != nil {
			t.Fatalf("Reached(%d): %v", n, err)
		}
	}
}

// peers returns the numbers of those in a book, most recent first.
func peers(t testing.TB, c *Cache) []int {
	t.Helper()
	list, err := c.List()
	if err != nil {
		t.Fatalf("List: %v", err)
	}
	return numbers(list)
}

func numbers(list []Entry) []int {
	var out []int
	for _, e := range list {
		out = append(out, number(e.Peer))
	}
	return out
}

func want(t testing.TB, what string, got, want []int) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

// descending returns from, from-1, ... down to to.
func descending(from, to int) (list []int) {
	for n := from; n >= to; n-- {
		list = append(list, n)
	}
	return list
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func writeFile(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// names returns what is in the directory of a cache.
func names(t testing.TB, path string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// intact fails unless Inspect finds nothing wrong with a file.
func intact(t testing.TB, path string) *Report {
	t.Helper()
	r, err := Inspect(path)
	if err != nil {
		t.Fatalf("Inspect: %v", err)
	}
	if r.Damage != nil {
		t.Fatalf("Inspect: %s", fmt.Sprint(r.Damage))
	}
	return r
}

// cleanUp removes a cache and all that is beside it.
func cleanUp(t testing.TB, path string) {
	t.Helper()
	all, err := filepath.Glob(path + "*")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range all {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
}
