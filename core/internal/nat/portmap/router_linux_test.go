package portmap

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	lab "github.com/libcrust/libcrust/tests/portmap"
)

func TestMain(m *testing.M) {
	os.Exit(lab.Main(func() int {
		// Nobody listens there: whoever asks a proxy of the environment fails.
		os.Setenv("HTTP_PROXY", "http://127.0.0.1:9")
		os.Setenv("http_proxy", "http://127.0.0.1:9")
		return m.Run()
	}))
}

// newLab makes a router, or skips the test where that is forbidden.
func newLab(t *testing.T) *lab.Lab {
	t.Helper()
	if testing.Short() {
		t.Skip("takes seconds")
	}
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
		if stacks := ours(); stacks != "" {
			t.Errorf("still running after Close: %s", stacks)
		}
		if took := time.Since(begin); took > 2500*time.Millisecond {
			t.Errorf("Close took %v", took)
		}
	})
	return c
}

// ours returns the stack of a goroutine of the client's, or of what it uses.
func ours() string {
	buf := make([]byte, 1<<20)
	for _, stack := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		for _, what := range []string{"portmap.(*site)", "portmap.(*web)", "portmap.(*Client)", "portmap.caller", "net/http.(*Transport)", "net/http.(*persistConn)"} {
			if strings.Contains(stack, what) && !strings.Contains(stack, "portmap.ours") {
				return stack
			}
		}
	}
	return ""
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
		{"all", nil, nil, 0}, // the best of those that answer at once
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
				if c.means == 0 && (m.Means == PCP || m.Means == NATPMP) {
					want[i].Means = m.Means // UPnP takes longer, whatever else the machine does
				}
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

// only leaves one interface of those there are.
func only(t *testing.T, prefix string) func([]netip.Addr) ([]Interface, error) {
	t.Helper()
	all, err := Interfaces(nil)
	all = slices.DeleteFunc(all, func(i Interface) bool { return i.Prefix.String() != prefix })
	if err != nil || len(all) != 1 {
		t.Fatalf("interfaces: %v, %v", all, err)
	}
	return func([]netip.Addr) ([]Interface, error) { return slices.Clone(all), nil }
}

func TestRenew(t *testing.T) {
	for _, c := range []struct {
		means   Means
		without []Means
	}{{PCP, nil}, {NATPMP, []Means{PCP, IGD2}}, {IGD2, []Means{PCP, NATPMP}}} {
		t.Run(c.means.String(), func(t *testing.T) {
			l := newLab(t)
			start(t, l)
			client := newClient(t, Config{Without: c.without, life: 6})
			client.Want(both...)
			first := client.await(t, 5*time.Second, "map", count(2))
			if left := time.Until(first[0].Expires); left > 6*time.Second || first[0].Means != c.means {
				t.Fatalf("%+v expires in %v", first[0], left)
			}
			again := client.await(t, 6*time.Second, "renew", func(m []Mapping) bool {
				return len(m) == 2 && m[0].Expires.After(first[0].Expires.Add(time.Second)) && m[1].Expires.After(first[1].Expires.Add(time.Second))
			})
			if again[0].External != first[0].External || again[1].External != first[1].External {
				t.Errorf("%+v became %+v", first, again)
			}
			reach(t, l, again)
		})
	}
}

func TestRestart(t *testing.T) {
	for _, c := range []struct {
		name  string
		lines []string
		down  time.Duration
		deaf  bool // a firewall takes the announcements away
	}{
		{"PCP, at once, no announcement", []string{"enable_upnp=no"}, 0, true},
		{"UPnP, after a while, no announcement", []string{"enable_natpmp=no"}, 5 * time.Second, true},
		{"PCP, at once", []string{"enable_upnp=no"}, 0, false},
		{"PCP, after a while", []string{"enable_upnp=no"}, 6 * time.Second, false},
		{"UPnP, at once", []string{"enable_natpmp=no"}, 0, false},
		{"UPnP on the same port, at once", []string{"enable_natpmp=no", "http_port=5555"}, 0, false},
		{"all", nil, 3 * time.Second, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t)
			start(t, l, c.lines...)
			client := newClient(t, Config{deaf: c.deaf})
			client.Want(both...)
			client.await(t, 5*time.Second, "map", count(2))
			pause(3 * time.Second)
			if c.deaf {
				pause(4 * time.Second) // a clock shows that it was set back when it had got somewhere
			}
			back(t, l, client, c.down, 5*time.Second, c.lines, nil)
			reach(t, l, client.Mappings())
			client.Close()
			clean(t, l)
		})
	}
}

// pause lets time pass in the laboratory, whose router has no other clock.
func pause(d time.Duration) { <-time.After(d) }

// back reboots the router and wants both mappings back in it within some time
// after it answers, and good of them.
func back(t *testing.T, l *lab.Lab, client *testClient, down, within time.Duration, lines []string, change func() error) {
	t.Helper()
	l.Kill()
	if err := l.Boot(); err != nil {
		t.Fatal(err)
	}
	clean(t, l)
	pause(down)
	if change != nil {
		if err := change(); err != nil {
			t.Fatal(err)
		}
	}
	start(t, l, lines...)
	begin := time.Now()
	client.await(t, within, "map again", func(m []Mapping) bool {
		rules, err := l.Rules()
		return err == nil && len(rules) >= 4 && len(m) == 2
	})
	t.Logf("back %v after the router", time.Since(begin))
}

func TestNewExternalAddress(t *testing.T) {
	l := newLab(t)
	start(t, l)
	client := newClient(t, Config{})
	client.Want(both...)
	client.await(t, 5*time.Second, "map", count(2))
	back(t, l, client, 0, 5*time.Second, nil, func() error {
		return errors.Join(l.OnRouter("ip", "addr", "del", "5.5.5.1/24", "dev", "wan0"), l.OnRouter("ip", "addr", "add", "5.5.5.2/24", "dev", "wan0"),
			l.OnRouter("ip", "route", "add", "default", "via", lab.Outside))
	})
	got := client.await(t, 5*time.Second, "the new address", func(m []Mapping) bool {
		return len(m) == 2 && m[0].External.String() == "5.5.5.2:45000" && m[1].External.String() == "5.5.5.2:45001"
	})
	reach(t, l, got)
}

func TestAnotherProtocolTakesOver(t *testing.T) {
	for _, c := range []struct {
		name          string
		before, after string
		means         Means
	}{
		{"PCP, then UPnP", "enable_upnp=no", "enable_natpmp=no", IGD2},
		{"UPnP, then PCP", "enable_natpmp=no", "enable_upnp=no", PCP},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t)
			start(t, l, c.before)
			client := newClient(t, Config{})
			client.Want(both...)
			client.await(t, 5*time.Second, "map", count(2))
			back(t, l, client, 0, 10*time.Second, []string{c.after}, nil)
			got := client.await(t, time.Second, "by the other means", func(m []Mapping) bool {
				return len(m) == 2 && m[0].Means == c.means && m[1].Means == c.means
			})
			reach(t, l, got)
		})
	}
}

func TestConflict(t *testing.T) {
	for _, c := range []struct {
		name    string
		without []Means
		lines   []string
	}{
		{"PCP", nil, []string{"enable_upnp=no"}},
		{"NAT-PMP", []Means{PCP, IGD2}, nil},
		{"IGD 2", nil, []string{"enable_natpmp=no"}},
		{"IGD 1", nil, []string{"enable_natpmp=no", "force_igd_desc_v1=yes"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t)
			start(t, l)
			if err := exec.Command("ip", "addr", "add", lab.Neighbour+"/24", "dev", "eth0").Run(); err != nil {
				t.Fatal(err)
			}
			// The neighbour takes the ports.
			neighbour := &pmpAgent{caller: caller{netip.MustParseAddr(lab.Neighbour), netip.MustParseAddrPort(lab.Router + ":5351")}}
			for _, w := range both {
				if g, err := neighbour.add(t.Context(), &lease{want: w, life: leaseSeconds}); err != nil || g.external.Port() != w.Port {
					t.Fatalf("the neighbour's %v: %+v, %v", w, g, err)
				}
			}
			if len(c.lines) > 0 {
				l.Kill() // which leaves the neighbour's rules
				start(t, l, c.lines...)
			}
			client := newClient(t, Config{Without: c.without, Interfaces: only(t, lab.Host+"/24")})
			client.Want(both...)
			got := client.await(t, 8*time.Second, "map", count(2))
			for _, m := range got {
				if m.External.Port() == m.Internal.Port() {
					t.Errorf("took the neighbour's port: %+v", m)
				}
			}
			reach(t, l, got)
			// The port that the program insists on is the neighbour's.
			client.Want(Want{Protocol: TCP, Port: 45002, External: 45000}, Want{Protocol: TCP, Port: 45003, External: 45004})
			got = client.await(t, 8*time.Second, "map what is free", func(m []Mapping) bool {
				return len(m) == 1 && len(client.Report().Failures) == 1
			})
			if got[0].External.String() != "5.5.5.1:45004" || got[0].Internal.Port() != 45003 {
				t.Errorf("mapped %+v", got)
			}
			if f := client.Report().Failures[0]; !errors.Is(f.Err, ErrConflict) || f.Want.Port != 45002 {
				t.Errorf("failure %+v", f)
			}
			reach(t, l, got)
			client.Close()
			rules, err := l.Rules()
			for _, r := range rules {
				if strings.Contains(r, lab.Host+":") {
					t.Errorf("left in the router: %s", r)
				}
			}
			if err != nil || len(rules) < 4 {
				t.Errorf("the neighbour's rules: %q, %v", rules, err)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	// By PCP and NAT-PMP miniupnpd 2.3.1 runs in circles when a port is denied.
	for _, c := range []struct {
		name    string
		without []Means
		lines   []string
	}{
		{"UPnP", nil, []string{"enable_natpmp=no"}},
		{"UPnP 1", nil, []string{"enable_natpmp=no", "force_igd_desc_v1=yes"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t)
			start(t, l, append(c.lines, "deny 0-65535 0.0.0.0/0 45000-45001")...)
			client := newClient(t, Config{Without: c.without})
			client.Want(append(both, Want{Protocol: TCP, Port: 45002})...)
			client.await(t, 8*time.Second, "map the third", func(m []Mapping) bool {
				return len(m) == 1 && m[0].Internal.Port() == 45002 && len(client.Report().Failures) == 2
			})
			for _, f := range client.Report().Failures {
				if !errors.Is(f.Err, ErrRefused) {
					t.Errorf("failure %+v", f)
				}
			}
		})
	}
}

func TestNoPublicAddress(t *testing.T) {
	for _, line := range []string{"enable_upnp=no", "enable_natpmp=no"} {
		t.Run(line, func(t *testing.T) {
			l := newLab(t)
			if err := errors.Join(l.OnRouter("ip", "addr", "del", "5.5.5.1/24", "dev", "wan0"), l.OnRouter("ip", "addr", "add", "10.9.8.7/24", "dev", "wan0")); err != nil {
				t.Fatal(err)
			}
			start(t, l, line)
			client := newClient(t, Config{})
			client.Want(both...)
			client.await(t, 8*time.Second, "say why", func([]Mapping) bool {
				r := client.Report()
				return slices.ContainsFunc(r.Ways, func(w Way) bool { return errors.Is(w.Err, ErrNoExternal) }) ||
					slices.ContainsFunc(r.Failures, func(f Failure) bool { return errors.Is(f.Err, ErrNoExternal) })
			})
			if m := client.Mappings(); len(m) > 0 {
				t.Errorf("mapped %+v", m)
			}
		})
	}
}

func TestIPv6(t *testing.T) {
	for _, c := range []struct {
		name    string
		without []Means
		means   Means
	}{
		{"PCP", []Means{Pinhole}, PCP},
		{"UPnP", []Means{PCP}, Pinhole},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t)
			if err := l.Enable6(); err != nil {
				t.Fatal(err)
			}
			start(t, l, "ipv6_disable=no")
			client := newClient(t, Config{Without: c.without, Interfaces: only(t, lab.Host6+"/64")})
			client.Want(Want{Protocol: TCP, Port: 45000, Family: IPv6}, Want{Protocol: UDP, Port: 45001}, Want{Protocol: UDP, Port: 45002, Family: IPv4})
			got := client.await(t, 8*time.Second, "map", count(2))
			for _, m := range got {
				if m.External != m.Internal || m.Means != c.means || m.Double {
					t.Errorf("mapped %+v", m)
				}
			}
			reach(t, l, got)
			client.Close()
			clean(t, l)
		})
	}
}

func TestDeadInterface(t *testing.T) {
	l := newLab(t)
	start(t, l)
	for _, words := range []string{"link add dead0 type veth peer name dead1", "link set dead1 up", "addr add 10.66.0.2/24 dev dead0", "link set dead0 up", "route add default via 10.66.0.1 metric 9"} {
		if err := exec.Command("ip", strings.Fields(words)...).Run(); err != nil {
			t.Fatal(words, err)
		}
	}
	defer exec.Command("ip", "link", "del", "dead0").Run()
	client := newClient(t, Config{})
	client.Want(both...)
	got := client.await(t, 5*time.Second, "map", count(2))
	reach(t, l, got)
	if r := client.Report(); len(r.Ways) != 6 {
		t.Errorf("the dead interface was not tried: %s", report(r))
	}
	begin := time.Now()
	client.Close()
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("Close took %v", took)
	}
	clean(t, l)
}

func TestNoRouter(t *testing.T) {
	newLab(t)
	if err := exec.Command("ip", "route", "del", "default").Run(); err != nil {
		t.Fatal(err)
	}
	looks := make(chan struct{})
	client := newClient(t, Config{Interfaces: func(bound []netip.Addr) ([]Interface, error) {
		<-looks
		return Interfaces(bound)
	}})
	client.Want(both...)
	close(looks) // which neither New nor Want has waited for
	client.await(t, 5*time.Second, "say why", func([]Mapping) bool { return errors.Is(client.Report().Err, ErrNoGateway) })
}

// A wish that is withdrawn is given back.
func TestWantLess(t *testing.T) {
	l := newLab(t)
	start(t, l)
	client := newClient(t, Config{})
	client.Want(both...)
	client.await(t, 5*time.Second, "map", count(2))
	client.Want(both[1])
	got := client.await(t, 5*time.Second, "give one back", count(1))
	if got[0].Protocol != UDP {
		t.Errorf("kept %+v", got)
	}
	if rules, err := l.Rules(); err != nil || len(rules) == 0 || slices.ContainsFunc(rules, func(r string) bool { return strings.Contains(r, "45000") }) {
		t.Errorf("rules %q, %v", rules, err)
	}
	client.Want()
	client.await(t, 5*time.Second, "give all back", count(0))
	clean(t, l)
}

// Whenever Close comes, nothing is left in the router.
func TestCloseAtAnyMoment(t *testing.T) {
	for _, without := range [][]Means{{IGD2}, {PCP, IGD2}, {PCP, NATPMP}} {
		t.Run(fmt.Sprint("without ", without), func(t *testing.T) {
			l := newLab(t)
			start(t, l)
			step := 2 * time.Millisecond // what UDP takes, and a good deal of it
			if len(without) == 2 && without[1] == NATPMP {
				step = 30 * time.Millisecond
			}
			mapped := 0
			for i := 0; i < 12 || mapped == 0 && i < 60; i++ { // longer where the machine is busy
				client := newClient(t, Config{Without: without})
				client.Want(both...)
				pause(time.Duration(i) * step)
				mapped += len(client.Mappings())
				client.Close()
				clean(t, l)
			}
			if mapped == 0 {
				t.Error("Close always came before the first mapping")
			}
		})
	}
}

// A machine that moves has its ports mapped where it is.
func TestNetworkChange(t *testing.T) {
	l := newLab(t)
	start(t, l)
	client := newClient(t, Config{})
	client.Want(both...)
	client.await(t, 5*time.Second, "map", count(2))
	ip := func(words string) {
		t.Helper()
		if out, err := exec.Command("ip", strings.Fields(words)...).CombinedOutput(); err != nil {
			t.Fatal(words, err, string(out))
		}
	}
	ip("addr del 192.168.77.2/24 dev eth0") // and the route with it
	client.Refresh()
	client.await(t, 2*time.Second, "forget", func(m []Mapping) bool { return len(m) == 0 && errors.Is(client.Report().Err, ErrNoGateway) })
	ip("addr add 192.168.77.3/24 dev eth0")
	ip("route add default via 192.168.77.1")
	client.Refresh()
	got := client.await(t, 3*time.Second, "map the new address", count(2))
	for _, m := range got {
		if m.Internal.Addr().String() != "192.168.77.3" || m.External.Port() == 0 {
			t.Errorf("mapped %+v", m)
		}
	}
	reach(t, l, got)
}

// What a program had that crashed is its own again: with the same secret also of
// routers that hold RFC 6887 more strictly than miniupnpd does.
func TestAfterCrash(t *testing.T) {
	l := newLab(t)
	start(t, l, "enable_upnp=no")
	mine := [32]byte{1}
	before := &pcpAgent{caller: caller{netip.MustParseAddr(lab.Host), netip.MustParseAddrPort(lab.Router + ":5351")}, secret: mine}
	for _, w := range both {
		if _, err := before.add(t.Context(), &lease{want: w, life: leaseSeconds}); err != nil {
			t.Fatal(err)
		}
	}
	client := newClient(t, Config{Without: []Means{NATPMP}, Secret: mine})
	client.Want(both...)
	got := client.await(t, 5*time.Second, "map", count(2))
	if got[0].External.String() != "5.5.5.1:45000" || got[1].External.String() != "5.5.5.1:45001" {
		t.Errorf("mapped %+v", got)
	}
	reach(t, l, got)
	client.Close()
	clean(t, l)
}
