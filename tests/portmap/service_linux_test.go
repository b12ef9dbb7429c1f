package portmap

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	crust "github.com/libcrust/libcrust/core"
)

// patience bounds the wait for what has no bound of its own.
const patience = 20 * time.Second

// service is a crust.Service behind the router, and the events that it has told.
type service struct {
	*crust.Service
	t    *testing.T
	ch   chan crust.Event
	past []crust.Event // that nobody has taken
}

// newService makes one that asks the router: this process is in a namespace of its own.
func newService(t *testing.T, cfg crust.Config) *service {
	t.Helper()
	t.Setenv("CRUST_PORTMAP", "")
	for _, name := range []string{"HTTP_PROXY", "http_proxy"} { // nobody listens there
		t.Setenv(name, "http://127.0.0.1:9")
	}
	cfg.NetworkName, cfg.CloseTimeout = "portmap", time.Second
	s, err := crust.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	out := &service{Service: s, t: t, ch: make(chan crust.Event, 1000)}
	go func() {
		for e := range s.Events(context.Background()) {
			out.ch <- e
		}
	}()
	t.Cleanup(func() { s.Close() })
	return out
}

// await returns the first event of a type that nobody has taken.
func (s *service) await(want crust.EventType, within time.Duration) crust.Event {
	s.t.Helper()
	timer := time.NewTimer(within)
	defer timer.Stop()
	for {
		if i := slices.IndexFunc(s.past, func(e crust.Event) bool { return e.Type == want }); i >= 0 {
			e := s.past[i]
			s.past = slices.Delete(s.past, i, i+1)
			return e
		}
		select {
		case e := <-s.ch:
			s.past = append(s.past, e)
		case <-timer.C:
			var past []string
			for _, e := range s.past {
				past = append(past, fmt.Sprint(e.Type, " ", e.Endpoint(), " ", e.Err()))
			}
			s.t.Fatalf("no event %v within %v, only %q; NAT %+v", want, within, past, s.NAT().Mapped)
		}
	}
}

// close closes the service, and wants nothing left in the router.
func (s *service) close(l *Lab) {
	s.t.Helper()
	begin := time.Now()
	s.Close()
	took := time.Since(begin)
	if rules, err := l.Rules(); err != nil || len(rules) > 0 {
		s.t.Errorf("left in the router: %q, %v", rules, err)
	}
	if s.t.Logf("Close took %v, nothing is left in the router", took); took > 4*time.Second {
		s.t.Errorf("Close took %v", took)
	}
}

// info returns the service's connection info.
func (s *service) info() string {
	s.t.Helper()
	if err := s.PrepareConnectionInfo(77); err != nil {
		s.t.Fatal(err)
	}
	return base64.RawURLEncoding.EncodeToString(s.await(crust.EventConnectionInfo, patience).Data)
}

var program = sync.OnceValues(func() (string, error) {
	path := filepath.Join(tools, "crust")
	out, err := exec.Command("go", "build", "-o", path, "github.com/libcrust/libcrust/cmd/crust").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build crust: %w: %s", err, out)
	}
	return path, nil
})

// peer is a `crust peer` on the machine outside.
type peer struct {
	t     *testing.T
	input io.WriteCloser
	lines chan map[string]any
}

func newPeer(t *testing.T, l *Lab) *peer {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	cmd := l.OutsideCommand(path, "peer", "--json", "--network", "portmap", "--no-portmap", "--listen", "tcp://0.0.0.0:0", "--listen", "utp://0.0.0.0:0")
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{t: t, lines: make(chan map[string]any, 1000)}
	if p.input, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		for scanner := bufio.NewScanner(output); scanner.Scan(); {
			var line map[string]any
			if json.Unmarshal(scanner.Bytes(), &line) == nil {
				p.lines <- line
			}
		}
	}()
	t.Cleanup(func() {
		p.input.Close()
		cmd.Wait()
	})
	return p
}

func (p *peer) tell(format string, arguments ...any) {
	p.t.Helper()
	if _, err := fmt.Fprintf(p.input, format+"\n", arguments...); err != nil {
		p.t.Fatal(err)
	}
}

// await returns the next line of an event.
func (p *peer) await(want string, within time.Duration) map[string]any {
	p.t.Helper()
	timer := time.NewTimer(within)
	defer timer.Stop()
	var past []any
	for {
		select {
		case line := <-p.lines:
			if line["event"] == want {
				return line
			}
			past = append(past, line)
		case <-timer.C:
			p.t.Fatalf("no %s outside within %v, only %v", want, within, past)
		}
	}
}

// join has a peer outside connect to the service through the router.
func join(t *testing.T, l *Lab, s *service) *peer {
	t.Helper()
	p := newPeer(t, l)
	begin := time.Now()
	p.tell("connect %s", s.info())
	c := p.await("connected", 5*time.Second)
	if at, _ := c["endpoint"].(string); c["how"] != "mapped" || c["transport"] != "tcp" || !strings.HasPrefix(at, "tcp://"+External+":") {
		t.Errorf("connected %v", c)
	}
	if e := s.await(crust.EventConnected, patience); e.How() != crust.Accepted {
		t.Errorf("the mapped side says %v", e.How())
	}
	t.Logf("connected through the mapping in %v ms, %v from the call", c["took_ms"], time.Since(begin))
	return p
}

var bothTransports = []crust.Endpoint{at("tcp://0.0.0.0:0"), at("utp://0.0.0.0:0")}

func at(text string) crust.Endpoint {
	ep, err := crust.ParseEndpoint(text)
	if err != nil {
		panic(err)
	}
	return ep
}

// mapped waits for both listeners' mappings and returns their means.
func (s *service) mapped(within time.Duration) (means []string) {
	s.t.Helper()
	for range 2 {
		e := s.await(crust.EventPortMapped, within)
		if e.Err() != nil || e.Internal().Addr.Addr().String() != Host {
			s.t.Errorf("mapped %v to %v: %v", e.Endpoint(), e.Internal(), e.Err())
		}
		means = append(means, e.Means().String())
	}
	return means
}

// A peer outside reaches a service whose port the router passes on, by any of the
// protocols, with HTTP_PROXY set; after Close nothing is left.
func TestServiceIsReached(t *testing.T) {
	for _, c := range []struct{ name, line, means string }{
		{"PCP", "enable_upnp=no", "pcp"},
		{"UPnP", "enable_natpmp=no", "upnp-igd2"},
		{"all", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t)
			if err := l.Start(strings.Fields(c.line)...); err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			s := newService(t, crust.Config{Listen: bothTransports})
			means := s.mapped(5 * time.Second)
			t.Logf("both ports mapped by %v after %v", means, time.Since(begin))
			if c.means != "" && !slices.Equal(means, []string{c.means, c.means}) {
				t.Errorf("mapped by %v, want %s", means, c.means)
			}
			join(t, l, s)
			s.close(l)
		})
	}
}

// A port that the router must give is given to one listener of either protocol; what
// another machine has already is said to be taken.
func TestServiceExternalPort(t *testing.T) {
	l := newLab(t)
	if err := l.Start(); err != nil {
		t.Fatal(err)
	}
	s := newService(t, crust.Config{Listen: bothTransports, ExternalPort: 5483})
	for range 2 {
		if e := s.await(crust.EventPortMapped, 5*time.Second); e.Endpoint().Addr.String() != External+":5483" || e.Internal().Addr.Port() == 5483 {
			t.Errorf("mapped %v to %v", e.Endpoint(), e.Internal())
		}
	}
	join(t, l, s)
	other := newService(t, crust.Config{Listen: bothTransports[:1], ExternalPort: 5483})
	for begin := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		list := other.NAT().Mapped
		if len(list) == 1 && crust.CodeOf(list[0].Err) == crust.CodeAddressInUse {
			t.Log(list[0].Err)
			break
		}
		if time.Since(begin) > patience {
			t.Fatalf("%+v", list)
		}
	}
	other.Close()
	s.close(l)
}

// A firewall of IPv6 is opened, too, and peers dial through the hole.
func TestServiceBehindFirewall6(t *testing.T) {
	l := newLab(t)
	if err := l.Enable6(); err != nil {
		t.Fatal(err)
	}
	if err := l.Start("ipv6_disable=no"); err != nil {
		t.Fatal(err)
	}
	s := newService(t, crust.Config{Listen: []crust.Endpoint{at("tcp://[::]:0"), at("utp://[::]:0")}})
	open := 0
	for range 4 {
		e := s.await(crust.EventPortMapped, 5*time.Second)
		if e.Endpoint().Addr.Addr().String() == Host6 && e.Endpoint() == e.Internal() {
			open++
		}
		t.Log(e.Endpoint(), "to", e.Internal(), "by", e.Means())
	}
	if open != 2 {
		t.Errorf("%d ports of IPv6 are open", open)
	}
	p := newPeer(t, l)
	p.tell("connect tcp://[%s]:%d#%v", Host6, s.Listeners()[0].Addr.Port(), s.ID())
	p.await("connected", 5*time.Second)
	s.close(l)
}

// The router is started anew, with the same external address, another one, or
// another protocol: the mapping is back, and the session goes on.
func TestServiceSurvivesReboot(t *testing.T) {
	for _, c := range []struct {
		name          string
		before, after string
		address       bool
		within        time.Duration
	}{
		{"same address, PCP", "enable_upnp=no", "enable_upnp=no", false, 5 * time.Second},
		{"same address, UPnP", "enable_natpmp=no", "enable_natpmp=no", false, 5 * time.Second},
		{"new address, PCP", "enable_upnp=no", "enable_upnp=no", true, 5 * time.Second},
		{"new address, UPnP", "enable_natpmp=no", "enable_natpmp=no", true, 5 * time.Second},
		{"PCP, then UPnP", "enable_upnp=no", "enable_natpmp=no", false, 10 * time.Second},
		{"UPnP, then PCP", "enable_natpmp=no", "enable_upnp=no", false, 10 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t)
			if err := l.Start(c.before); err != nil {
				t.Fatal(err)
			}
			s := newService(t, crust.Config{Listen: bothTransports})
			s.mapped(5 * time.Second)
			p := join(t, l, s)
			id := s.ID().String()
			l.Kill()
			if err := l.Boot(); err != nil {
				t.Fatal(err)
			}
			if c.address {
				if err := errors.Join(l.OnRouter("ip", "addr", "del", "5.5.5.1/24", "dev", "wan0"), l.OnRouter("ip", "addr", "add", "5.5.5.2/24", "dev", "wan0"),
					l.OnRouter("ip", "route", "add", "default", "via", Outside)); err != nil {
					t.Fatal(err)
				}
			}
			p.tell("send %s are you there?", id) // so that what is gone is noticed
			if err := l.Start(c.after); err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			for {
				rules, err := l.Rules()
				if err != nil {
					t.Fatal(err)
				}
				if len(rules) >= 4 {
					break
				}
				if time.Since(begin) > c.within {
					t.Fatalf("not mapped again within %v: %q, %+v", c.within, rules, s.NAT().Mapped)
				}
				time.Sleep(20 * time.Millisecond)
			}
			t.Logf("mapped again %v after the router answers", time.Since(begin))
			if c.address || c.before != c.after {
				for _, means := range s.mapped(time.Second) {
					t.Logf("by %s", means)
				}
			}
			e := s.await(crust.EventMessage, 15*time.Second)
			resumed := uint64(0)
			for _, p := range s.Peers() {
				resumed += p.Resumed
			}
			t.Logf("a message that was sent meanwhile has come no later than %v after that; the session went over to another link %d times", time.Since(begin), resumed)
			if string(e.Data) != "are you there?" {
				t.Errorf("got %q", e.Data)
			}
			if len(s.Peers()) != 1 || s.Stats().SessionsTotal != 1 {
				t.Errorf("%d peers, %d sessions ever", len(s.Peers()), s.Stats().SessionsTotal)
			}
			s.close(l)
		})
	}
}

// A router that is behind another NAT says so, and gives no ports: that is told, with
// the reason, and peers are told of none.
func TestServiceBehindTwoNATs(t *testing.T) {
	for _, line := range []string{"enable_upnp=no", "enable_natpmp=no"} {
		t.Run(line, func(t *testing.T) {
			l := newLab(t)
			if err := errors.Join(l.OnRouter("ip", "addr", "del", "5.5.5.1/24", "dev", "wan0"), l.OnRouter("ip", "addr", "add", "10.9.8.7/24", "dev", "wan0")); err != nil {
				t.Fatal(err)
			}
			if err := l.Start(line); err != nil {
				t.Fatal(err)
			}
			s := newService(t, crust.Config{Listen: bothTransports})
			for begin := time.Now(); ; time.Sleep(50 * time.Millisecond) {
				list := s.NAT().Mapped
				if len(list) == 2 && crust.CodeOf(list[0].Err) == crust.CodeUnreachable && crust.CodeOf(list[1].Err) == crust.CodeUnreachable {
					t.Logf("told %v after the start: %v", time.Since(begin), list[0].Err)
					break
				}
				if time.Since(begin) > patience {
					t.Fatalf("%+v", list)
				}
			}
			s.close(l)
		})
	}
}

// Without a router, and with one that says nothing, a service starts as fast as
// without port mapping.
func TestServiceWithoutRouter(t *testing.T) {
	for _, silent := range []bool{false, true} {
		t.Run(fmt.Sprint("silent router ", silent), func(t *testing.T) {
			newLab(t) // without a daemon
			if !silent {
				if err := exec.Command("ip", "route", "del", "default").Run(); err != nil {
					t.Fatal(err)
				}
			}
			const rounds = 100
			took := map[crust.PortMapMode][]time.Duration{}
			for range rounds {
				for _, mode := range []crust.PortMapMode{crust.PortMapOn, crust.PortMapOff} {
					t.Setenv("CRUST_PORTMAP", "")
					begin := time.Now()
					s, err := crust.New(crust.Config{NetworkName: "portmap", Listen: bothTransports, PortMap: mode})
					for started := 0; err == nil && started < 2; {
						var b crust.Batch
						b, err = s.NextBatch(t.Context(), 0)
						for _, e := range b.Events {
							if e.Type == crust.EventListenerStarted {
								started++
							}
						}
						b.Release()
					}
					took[mode] = append(took[mode], time.Since(begin))
					if err != nil {
						t.Fatal(err)
					}
					s.Close()
				}
			}
			for _, list := range took {
				slices.Sort(list)
			}
			on, off := took[crust.PortMapOn], took[crust.PortMapOff]
			t.Logf("with port mapping half within %v, 90 %% within %v; without %v, %v", on[rounds/2], on[rounds*9/10], off[rounds/2], off[rounds*9/10])
			if more := on[rounds/2] - off[rounds/2]; more > 10*time.Millisecond {
				t.Errorf("port mapping costs %v at the start", more)
			}
			s := newService(t, crust.Config{Listen: bothTransports})
			want := crust.CodeUnreachable
			if silent {
				want = crust.CodeTimeout
			}
			for begin := time.Now(); ; time.Sleep(50 * time.Millisecond) {
				list := s.NAT().Mapped
				if len(list) == 2 && crust.CodeOf(list[0].Err) == want && crust.CodeOf(list[1].Err) == want {
					t.Log(list[0].Err)
					break
				}
				if time.Since(begin) > patience {
					t.Fatalf("%+v", list)
				}
			}
		})
	}
}
