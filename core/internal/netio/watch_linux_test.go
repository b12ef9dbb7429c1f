package netio

import (
	"encoding/binary"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// inNamespace runs f on a thread in a network namespace of its own, which goes
// with the thread. ip runs the tool of that name there.
func inNamespace(t *testing.T, f func(ip func(args string))) {
	tool, err := exec.LookPath("ip")
	if err != nil {
		t.Skip("the tool ip (iproute2) is not installed")
	}
	if os.Geteuid() != 0 {
		t.Skip("only root may make a network namespace")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Logf("no network namespace can be made here: %v", err)
			return
		}
		f(func(args string) {
			if out, err := exec.Command(tool, strings.Fields(args)...).CombinedOutput(); err != nil {
				t.Errorf("ip %s: %v: %s", args, err, out)
			}
		})
	}()
	<-done
}

// TestNetlink: what happens to interfaces, addresses and routes of a namespace is
// told within a moment, and what changes nothing is not.
func TestNetlink(t *testing.T) {
	inNamespace(t, func(ip func(string)) {
		ip("link set lo up")
		ip("link add here type veth peer name there")
		ip("link set there up")
		w, err := newNetlink()
		if err != nil {
			t.Error(err)
			return
		}
		defer w.Close()
		timeout := time.AfterFunc(20*time.Second, func() { w.Close() }) // Next ends when nothing is noticed
		defer timeout.Stop()
		for _, step := range []struct {
			does string // separated by semicolons
			want Change
		}{
			{"link set here up", Change{}},
			{"addr add 192.0.2.1/24 dev here", Change{Came: parse("192.0.2.1"), Routes: true}},
			{"addr add 192.0.2.1/24 dev there; addr del 192.0.2.1/24 dev there", Change{Routes: true}}, // whoever has it
			{"route add default via 192.0.2.254", Change{Routes: true}},
			{"route replace default via 192.0.2.254", Change{}},
			{"route replace default via 192.0.2.253", Change{Routes: true}},
			{"addr add 2001:db8::1/64 dev here nodad", Change{Came: parse("2001:db8::1"), Routes: true}},
			{"addr del 192.0.2.1/24 dev here; addr add 198.51.100.1/24 dev here", Change{Came: parse("198.51.100.1"), Gone: parse("192.0.2.1"), Routes: true}},
			{"link set there down", Change{Links: true}},
			{"link set there up", Change{Links: true}},
			{"link set here down", Change{Gone: parse("198.51.100.1", "2001:db8::1"), Routes: true}},
		} {
			for does := range strings.SplitSeq(step.does, ";") {
				ip(strings.TrimSpace(does))
			}
			quiet := len(step.want.Came)+len(step.want.Gone) == 0 && !step.want.Links && !step.want.Routes
			if quiet {
				continue // the next step would tell too much
			}
			began := time.Now()
			got, err := w.Next()
			if err != nil {
				t.Errorf("%s: %v", step.does, err)
				return
			}
			if took := time.Since(began); took > time.Second {
				t.Errorf("%s: told after %v", step.does, took)
			}
			if step.want.Links { // with the carrier IPv6 routes may come and go
				got.Routes = false
			}
			if !slices.Equal(got.Came, step.want.Came) || !slices.Equal(got.Gone, step.want.Gone) || got.Links != step.want.Links || got.Routes != step.want.Routes {
				t.Errorf("%s: %+v, want %+v", step.does, got, step.want)
			}
		}
	})
}

// TestAsleepStandsStill: while the machine is awake, both clocks go on alike.
func TestAsleepStandsStill(t *testing.T) {
	before := asleep()
	if more := asleep() - before; more < -time.Second || more > time.Second {
		t.Errorf("slept for %v", more)
	}
}

// message is a netlink message.
func message(kind uint16, body []byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+len(body)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(append(b, make([]byte, 10)...), body...)
	return append(b, make([]byte, -len(b)&3)...)
}

// aRoute is a message about a route of IPv4.
func aRoute(kind uint16, table uint8, attributes ...[]byte) []byte {
	body := []byte{unix.AF_INET, 0, 0, 0, table, 0, 0, unix.RTN_UNICAST, 0, 0, 0, 0}
	for _, a := range attributes {
		body = append(body, a...)
		body = append(body, make([]byte, -len(body)&3)...)
	}
	return message(kind, body)
}

func attribute(kind uint16, value ...byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(unix.SizeofRtAttr+len(value)))
	return append(binary.NativeEndian.AppendUint16(b, kind), value...)
}

// TestRoutes: the same route told again is no change; another gateway is, also
// the first one again, and an end is.
func TestRoutes(t *testing.T) {
	r := routes{}
	one, two := attribute(unix.RTA_GATEWAY, 192, 0, 2, 1), attribute(unix.RTA_GATEWAY, 192, 0, 2, 2)
	for i, step := range []struct {
		b          []byte
		any, route bool
	}{
		{message(unix.RTM_NEWADDR, nil), true, false},
		{message(unix.RTM_NEWNEIGH, nil), false, false},
		{aRoute(unix.RTM_NEWROUTE, unix.RT_TABLE_MAIN, one), true, true},
		{aRoute(unix.RTM_NEWROUTE, unix.RT_TABLE_MAIN, one), false, false},
		{aRoute(unix.RTM_NEWROUTE, unix.RT_TABLE_MAIN, one, attribute(unix.RTA_CACHEINFO, 1, 2, 3)), false, false},
		{aRoute(unix.RTM_NEWROUTE, unix.RT_TABLE_MAIN, two), true, true},
		{aRoute(unix.RTM_NEWROUTE, unix.RT_TABLE_MAIN, one), true, true},
		{aRoute(unix.RTM_NEWROUTE, unix.RT_TABLE_MAIN, one, attribute(unix.RTA_PRIORITY, 1, 0, 0, 0)), true, true},
		{aRoute(unix.RTM_DELROUTE, unix.RT_TABLE_MAIN, one), true, true},
		{aRoute(unix.RTM_NEWROUTE, unix.RT_TABLE_MAIN, one), true, true},
		{aRoute(unix.RTM_NEWROUTE, unix.RT_TABLE_LOCAL, two), false, false},
		{append(message(unix.RTM_NEWNEIGH, []byte{1}), message(unix.RTM_DELLINK, nil)...), true, false},
		{message(unix.RTM_NEWROUTE, []byte{unix.AF_INET}), false, false},
		{[]byte{3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, true, false},
	} {
		if any, route := r.take(step.b); any != step.any || route != step.route {
			t.Errorf("step %d: %v, %v, want %v, %v", i, any, route, step.any, step.route)
		}
	}
}

// TestRoutesAreBounded: a machine with very many routes costs no more memory.
func TestRoutesAreBounded(t *testing.T) {
	r := routes{}
	for i := range uint32(3 * maxRoutes) {
		dst := attribute(unix.RTA_DST, binary.BigEndian.AppendUint32(nil, 10<<24+i)...)
		if any, route := r.take(aRoute(unix.RTM_NEWROUTE, unix.RT_TABLE_MAIN, dst)); !any || !route {
			t.Fatalf("route %d is not new", i)
		}
		if len(r) > maxRoutes {
			t.Fatalf("%d routes are remembered", len(r))
		}
	}
}

// FuzzRoutes: whatever comes, reading ends, and the memory has its bound.
func FuzzRoutes(f *testing.F) {
	f.Add(aRoute(unix.RTM_NEWROUTE, unix.RT_TABLE_MAIN, attribute(unix.RTA_GATEWAY, 192, 0, 2, 1), attribute(unix.RTA_DST, 10, 0, 0, 0)))
	f.Add(append(message(unix.RTM_NEWADDR, []byte{1, 2, 3}), message(unix.RTM_DELROUTE, make([]byte, 40))...))
	f.Add([]byte{17, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := routes{}
		any, route := r.take(b)
		if route && !any {
			t.Error("a route has changed, and nothing has")
		}
		if len(r) > len(b)/unix.NLMSG_HDRLEN {
			t.Errorf("%d routes of %d bytes", len(r), len(b))
		}
		if again, _ := r.take(b[:min(len(b), unix.NLMSG_HDRLEN-1)]); again {
			t.Error("less than a header tells something")
		}
	})
}

// TestLastCame: an answer that ends before what is asked for says nothing.
func TestLastCame(t *testing.T) {
	info := unix.TCPInfo{Last_data_recv: 30_000, Last_ack_recv: 20_000}
	for size, want := range map[uint32]time.Duration{0: -1, 4: -1, 59: -1, 60: 20 * time.Second, unix.SizeofTCPInfo: 20 * time.Second} {
		d, known := lastCame(&info, size)
		if known != (want >= 0) || known && d != want {
			t.Errorf("of %d bytes: %v, %v", size, d, known)
		}
	}
}
