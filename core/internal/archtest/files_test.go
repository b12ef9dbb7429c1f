package archtest

import (
	"go/ast"
	"slices"
	"testing"
	"testing/fstest"
)

// What a program sets is not overwritten by a file or a variable of the environment that it
// knows nothing of. asked lists the files of the library that read such, each with the reason.
var asked = map[string]string{
	"core/identity/identity.go":                     "the program names the key file: Load, Save",
	"core/keylog.go":                                "Config.KeyLogFile, which is written to",
	"core/cache.go":                                 "where the cache is that the program asks for as DefaultCache",
	"core/internal/bootstrap/region.go":             "the cache: Config.Cache, OpenCache",
	"core/internal/bootstrap/system_unix.go":        "the directory of the cache, to be flushed",
	"core/internal/nat/portmap/interfaces_linux.go": "the kernel's routes",
	"core/mapping.go":                               "CRUST_PORTMAP can turn port mapping off, and no more",
	"core/beacon.go":                                "CRUST_BEACON can turn beacons off, and no more",
}

// reads are functions of packages os, syscall and unix that read what the caller may know nothing of.
var reads = map[string][]string{
	"os":      {"Open", "OpenFile", "OpenInRoot", "OpenRoot", "DirFS", "ReadFile", "ReadDir", "Create", "CreateTemp", "Getenv", "LookupEnv", "Environ", "ExpandEnv", "UserHomeDir", "UserCacheDir", "UserConfigDir"},
	"syscall": {"Open", "Getenv", "Environ"},
	"unix":    {"Open", "Openat", "Openat2", "Getenv", "Environ"},
}

func isRead(call *ast.CallExpr) bool {
	f, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	of, _ := f.X.(*ast.Ident)
	return of != nil && slices.Contains(reads[of.Name], f.Sel.Name)
}

// TestFilesAreAskedFor: only the files of asked read files and the environment.
func TestFilesAreAskedFor(t *testing.T) {
	onlyIn(t, asked, isRead, "this reads what the program may know nothing of", "no file and no variable is read any more")
}

// TestReadsAreFound: what reads is found, and what does not, is not.
func TestReadsAreFound(t *testing.T) {
	for code, want := range map[string]int{
		`var x, y = os.ReadFile("/etc/crust.json")`: 1, `var x = os.Getenv("HOME")`: 1, `var x, y = os.Lstat("x")`: 0, `var x = strings.ToUpper("x")`: 0,
	} {
		found, err := callsIn(fstest.MapFS{"core/a.go": {Data: []byte("package a\n" + code)}}, isRead)
		if err != nil || len(found) != want {
			t.Errorf("%s: %q, %v", code, found, err)
		}
	}
}
