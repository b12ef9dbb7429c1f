package portmap

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	lab "github.com/libcrust/libcrust/tests/portmap"
)

func TestMain(m *testing.M) { os.Exit(lab.Main(m.Run)) }

// newLab makes a router, or skips the test where that is forbidden.
func newLab(t *testing.T) *lab.Lab {
	t.Helper()
	l, err := lab.New(t.TempDir())
	if errors.Is(err, lab.ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() && os.Getenv("CRUST_TEST_LOG") != "" {
			t.Log(l.Log())
		}
		l.Close()
	})
	return l
}

// start runs miniupnpd.
func start(t *testing.T, l *lab.Lab, lines ...string) {
	t.Helper()
	if err := l.Start(lines...); err != nil {
		t.Fatal(err)
	}
}

// testClient is a client whose goroutines are counted, and the pulse of Changed.
type testClient struct {
	*Client
	changed chan struct{}
}

func newClient(t *testing.T, cfg Config) *testClient {
	t.Helper()
	var running sync.WaitGroup
	cfg.Go = running.Go
	c := &testClient{changed: make(chan struct{}, 1)}
	cfg.Changed = func() { poke(c.changed) }
	c.Client = New(cfg)
	t.Cleanup(func() {
		begin := time.Now()
		c.Close()
		running.Wait()
		if took := time.Since(begin); took > 2500*time.Millisecond {
			t.Errorf("Close took %v", took)
		}
	})
	return c
}

// await waits until the mappings are as good says.
func (c *testClient) await(t *testing.T, within time.Duration, what string, good func([]Mapping) bool) []Mapping {
	t.Helper()
	limit := time.NewTimer(within)
	defer limit.Stop()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for {
		if m := c.Mappings(); good(m) {
			return m
		}
		select {
		case <-c.changed:
		case <-look.C:
		case <-limit.C:
			t.Fatalf("%s: not within %v: %+v\n%s", what, within, c.Mappings(), report(c.Report()))
		}
	}
}

func report(r Report) string {
	var b strings.Builder
	fmt.Fprintln(&b, "err:", r.Err)
	for _, w := range r.Ways {
		fmt.Fprintln(&b, w.Interface.Prefix, w.Interface.Gateway, w.Means, w.Up, w.Err)
	}
	for _, f := range r.Failures {
		fmt.Fprintln(&b, f.Want, f.Err)
	}
	return b.String()
}

func count(n int) func([]Mapping) bool { return func(m []Mapping) bool { return len(m) == n } }

// reach sends something from outside to each mapping, and wants it to arrive here
// and the answer there.
func reach(t *testing.T, l *lab.Lab, mappings []Mapping) {
	t.Helper()
	for _, m := range mappings {
		if m.Protocol == TCP {
			reachTCP(t, l, m)
		} else {
			reachUDP(t, l, m)
		}
	}
}

func reachTCP(t *testing.T, l *lab.Lab, m Mapping) {
	t.Helper()
	listener, err := net.Listen("tcp", m.Internal.String())
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			io.WriteString(conn, "from inside")
			conn.Close()
		}
	}()
	err = l.Outside(func() error {
		conn, err := net.DialTimeout("tcp", m.External.String(), 3*time.Second)
		if err != nil {
			return err
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(3 * time.Second))
		text, err := io.ReadAll(conn)
		if err == nil && string(text) != "from inside" {
			err = fmt.Errorf("read %q", text)
		}
		return err
	})
	if err != nil {
		t.Errorf("TCP from outside to %v: %v", m.External, err)
	}
}

func reachUDP(t *testing.T, l *lab.Lab, m Mapping) {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(m.Internal))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go func() {
		buf := make([]byte, 100)
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if err == nil {
			conn.WriteToUDPAddrPort(append([]byte("echo "), buf[:n]...), from)
		}
	}()
	err = l.Outside(func() error {
		conn, err := net.DialTimeout("udp", m.External.String(), 3*time.Second)
		if err != nil {
			return err
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(3 * time.Second))
		io.WriteString(conn, "hello")
		buf := make([]byte, 100)
		n, err := conn.Read(buf)
		if err == nil && string(buf[:n]) != "echo hello" {
			err = fmt.Errorf("read %q", buf[:n])
		}
		return err
	})
	if err != nil {
		t.Errorf("UDP from outside to %v: %v", m.External, err)
	}
}

// clean wants no mapping in the router.
func clean(t *testing.T, l *lab.Lab) {
	t.Helper()
	rules, err := l.Rules()
	if err != nil || len(rules) > 0 {
		t.Errorf("left in the router: %v %q", err, rules)
	}
}

var both = []Want{{Protocol: TCP, Port: 45000}, {Protocol: UDP, Port: 45001}}

func TestMap(t *testing.T) {
	for _, c := range []struct {
		name    string
		without []Means
		lines   []string
		means   Means
	}{
		{"UPnP", nil, []string{"enable_natpmp=no"}, IGD2},
		{"UPnP of a router of version 1", nil, []string{"enable_natpmp=no", "force_igd_desc_v1=yes"}, IGD1},
		{"NAT-PMP", []Means{PCP, IGD2}, nil, NATPMP},
		{"PCP", nil, []string{"enable_upnp=no"}, PCP},
		{"all", nil, nil, PCP},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t)
			start(t, l, c.lines...)
			client := newClient(t, Config{Without: c.without})
			begin := time.Now()
			client.Want(both...)
			got := client.await(t, 5*time.Second, "map", count(2))
			t.Logf("mapped after %v", time.Since(begin))
			want := []Mapping{
				{Protocol: TCP, Internal: netip.MustParseAddrPort("192.168.77.2:45000"), External: netip.MustParseAddrPort("5.5.5.1:45000")},
				{Protocol: UDP, Internal: netip.MustParseAddrPort("192.168.77.2:45001"), External: netip.MustParseAddrPort("5.5.5.1:45001")},
			}
			for i, m := range got {
				if left := time.Until(m.Expires); left < 59*time.Minute || left > time.Hour {
					t.Errorf("%v expires in %v", m, left)
				}
				want[i].Means, want[i].Gateway, want[i].Expires = c.means, netip.MustParseAddr(lab.Router), m.Expires
			}
			if !slices.Equal(got, want) {
				t.Errorf("mapped\n%+v\nwant\n%+v", got, want)
			}
			reach(t, l, got)
			client.Close()
			clean(t, l)
		})
	}
}
