package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/identity"
)

func mustAddr(t *testing.T, text string) netip.AddrPort {
	t.Helper()
	addr, err := netip.ParseAddrPort(text)
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// invoke runs a command line without input.
func invoke(arguments ...string) (stdout, stderr string, code int) {
	var out, complaints bytes.Buffer
	code = run(arguments, strings.NewReader(""), &out, &complaints)
	return out.String(), complaints.String(), code
}

func TestVersion(t *testing.T) {
	stdout, stderr, code := invoke("version", "--json")
	if code != exitOK || stderr != "" {
		t.Fatalf("exit code %d, standard error %q", code, stderr)
	}
	var f map[string]any
	if err := json.Unmarshal([]byte(stdout), &f); err != nil || strings.Count(stdout, "\n") != 1 {
		t.Fatalf("%q is not one JSON object on one line: %v", stdout, err)
	}
	header, err := os.ReadFile(filepath.Join("..", "..", "include", "crust.h"))
	if err != nil {
		t.Fatal(err)
	}
	abi := regexp.MustCompile(`#define CRUST_ABI_VERSION\s+(\d+)u`).FindSubmatch(header)
	if abi == nil {
		t.Fatal("crust.h has no CRUST_ABI_VERSION")
	}
	if f["version"] != crust.Version || strconv.Itoa(int(f["abi"].(float64))) != string(abi[1]) || f["soname"] != "libcrust.so."+string(abi[1]) {
		t.Errorf("got %s, want version %s and ABI %s", stdout, crust.Version, abi[1])
	}
	people, _, _ := invoke("version")
	short, _, _ := invoke("--version")
	for _, want := range []string{crust.Version, "C ABI", "Go ", "ChaCha20-Poly1305"} {
		if !strings.Contains(people, want) {
			t.Errorf("%q does not say %q", people, want)
		}
	}
	if short != "crust "+crust.Version+"\n" {
		t.Errorf("--version prints %q", short)
	}
}

// The facts about ciphers must be those that two services of this machine agree on.
func TestVersionTellsTheCipher(t *testing.T) {
	listen := []crust.Endpoint{{Transport: crust.TCP, Addr: mustAddr(t, "127.0.0.1:0")}}
	a, err := crust.New(crust.Config{Listen: listen})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := crust.New(crust.Config{Listen: listen})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := a.ConnectEndpoint(crust.Contact{Endpoint: b.Listeners()[0]}, 1); err != nil {
		t.Fatal(err)
	}
	for e := range a.Events(t.Context()) {
		if e.Type == crust.EventConnected {
			break
		}
		if e.Type == crust.EventConnectFailed {
			t.Fatal(e.Err())
		}
	}
	if info, _ := a.Peer(b.ID()); info.Cipher != buildFacts().Ciphers[0] {
		t.Errorf("a session uses %s, and version says %s", info.Cipher, buildFacts().Ciphers[0])
	}
}

func TestKeygen(t *testing.T) {
	file := filepath.Join(t.TempDir(), "id")
	stdout, stderr, code := invoke("keygen", file)
	if code != exitOK || stderr != "" {
		t.Fatalf("exit code %d, standard error %q", code, stderr)
	}
	key, err := identity.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	if stdout != key.ID().String()+"\n" {
		t.Errorf("prints %q, want the peer id %s", stdout, key.ID())
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v, want mode 0600", info, err)
	}
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if stdout, stderr, code = invoke("keygen", file); code != exitFailure || stdout != "" || !strings.Contains(stderr, "exists already") {
		t.Errorf("again: exit code %d, output %q, complaint %q", code, stdout, stderr)
	}
	if after, err := os.ReadFile(file); err != nil || !bytes.Equal(before, after) {
		t.Error("keygen changed a file that existed")
	}
}

// Every command has help with examples and the exit codes.
func TestHelp(t *testing.T) {
	for _, command := range []string{"", "peer", "top", "doctor", "bench", "cache list", "cache verify", "cache prune", "keygen", "version"} {
		arguments := append(strings.Fields(command), "--help")
		stdout, stderr, code := invoke(arguments...)
		if code != exitOK || stderr != "" {
			t.Errorf("%q: exit code %d, standard error %q", arguments, code, stderr)
		}
		for _, want := range []string{"Usage:", "Examples:", "Exit codes:"} {
			if !strings.Contains(stdout, want) {
				t.Errorf("crust %s --help has no %q", command, want)
			}
		}
		if command != "" {
			if again, _, code := invoke(append([]string{"help"}, strings.Fields(command)...)...); code != exitOK || again != stdout {
				t.Errorf("crust help %s differs from crust %s --help", command, command)
			}
		}
	}
}

func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		stdout, stderr, code := invoke("completion", shell)
		if code != exitOK || stderr != "" || !strings.Contains(stdout, "crust") {
			t.Errorf("completion %s: exit code %d, %d bytes, standard error %q", shell, code, len(stdout), stderr)
		}
	}
	stdout, _, _ := invoke("__complete", "peer", "--role", "")
	if !strings.HasPrefix(stdout, "node\nclient\n") {
		t.Errorf("--role completes to %q", stdout)
	}
}

func TestOneLine(t *testing.T) {
	for in, want := range map[string]string{"a": "a", "a\nb": "a; b", "\na\r\nb\n": "a; b"} {
		if got := oneLine(errors.New(in)); got != want {
			t.Errorf("%q gives %q, want %q", in, got, want)
		}
	}
}
