package portmap

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// tools is where the tests build what they run.
var tools string

func TestMain(m *testing.M) {
	os.Exit(Main(func() int {
		var err error
		if tools, err = os.MkdirTemp("", "crust-portmap"); err != nil {
			panic(err)
		}
		defer os.RemoveAll(tools)
		for _, name := range []string{"CRUST_PORTMAP", "CRUST_BEACON"} { // but where a test is in its laboratory
			if err := os.Setenv(name, "off"); err != nil {
				panic(err)
			}
		}
		return m.Run()
	}))
}

func newLab(t *testing.T) *Lab {
	t.Helper()
	l, err := New(t.TempDir())
	if errors.Is(err, ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// knock connects from outside to a port of an address.
func knock(l *Lab, address string) error {
	return l.Outside(func() error {
		conn, err := net.DialTimeout("tcp", address, 500*time.Millisecond)
		if err == nil {
			conn.Close()
		}
		return err
	})
}

// The router lets nothing in by itself, lets everything out, and lets in what
// another client of UPnP than ours asks for.
func TestRouter(t *testing.T) {
	l := newLab(t)
	inside, err := net.Listen("tcp", Host+":45000")
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	var outside net.Listener
	if err := l.Outside(func() (err error) {
		outside, err = net.Listen("tcp", Outside+":80")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer outside.Close()
	conn, err := net.DialTimeout("tcp", Outside+":80", 3*time.Second)
	if err != nil {
		t.Fatal("nothing goes out:", err)
	}
	defer conn.Close()
	if there, err := outside.Accept(); err != nil || !strings.HasPrefix(there.RemoteAddr().String(), External+":") {
		t.Errorf("came out from %v, %v", there.RemoteAddr(), err)
	}
	for _, address := range []string{External + ":45000", Host + ":45000"} {
		if err := knock(l, address); err == nil {
			t.Errorf("%s is open without a mapping", address)
		}
	}
	if err := l.Start(); err != nil {
		t.Fatal(err)
	}
	if err := knock(l, External+":45000"); err == nil {
		t.Error("open without a mapping, with the daemon")
	}
	if rules, err := l.Rules(); err != nil || len(rules) > 0 {
		t.Errorf("rules %q, %v", rules, err)
	}
	if _, err := exec.LookPath("upnpc"); err != nil {
		t.Skip(err)
	}
	if out, err := exec.Command("upnpc", "-a", Host, "45000", "45000", "TCP", "600").CombinedOutput(); err != nil {
		t.Fatalf("upnpc: %v: %s", err, out)
	}
	if err := knock(l, External+":45000"); err != nil {
		t.Errorf("not open with a mapping: %v", err)
	}
	if rules, err := l.Rules(); err != nil || len(rules) == 0 {
		t.Errorf("rules %q, %v", rules, err)
	}
	l.Kill()
	if err := l.Boot(); err != nil {
		t.Fatal(err)
	}
	if err := knock(l, External+":45000"); err == nil {
		t.Error("still open after a boot")
	}
}

// Close leaves nothing here, so that the next one finds room.
func TestClose(t *testing.T) {
	for range 3 {
		l := newLab(t)
		if err := l.Start(); err != nil {
			t.Fatal(err)
		}
		l.Close()
		if _, err := net.InterfaceByName("eth0"); err == nil {
			t.Fatal("eth0 is still there")
		}
	}
}
