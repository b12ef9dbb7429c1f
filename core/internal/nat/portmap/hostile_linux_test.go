package portmap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	lab "github.com/libcrust/libcrust/tests/portmap"
)

// liar answers searches in the router's network, and offers what LOCATION says.
type liar struct {
	hits atomic.Int32 // HTTP requests
}

// lie makes the liar answer searches from an address of the router's side with a
// LOCATION, in which %d is the port at which page serves at host.
func lie(t *testing.T, l *lab.Lab, from, host, location string, page http.HandlerFunc) *liar {
	t.Helper()
	x := &liar{}
	if err := l.OnRouter("ip", "addr", "add", lab.Neighbour+"/24", "dev", "lan0"); err != nil {
		t.Fatal(err)
	}
	var search, answer *net.UDPConn
	var web net.Listener
	err := l.Router(func() (err error) {
		i, err := net.InterfaceByName("lan0")
		if err != nil {
			return err
		}
		if search, err = net.ListenMulticastUDP("udp4", i, &net.UDPAddr{IP: net.IPv4(239, 255, 255, 250), Port: 1900}); err != nil {
			return err
		}
		if answer, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(from)}); err != nil {
			return err
		}
		web, err = net.Listen("tcp4", net.JoinHostPort(host, "0"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x.hits.Add(1)
		page(w, r)
	})}
	go server.Serve(web)
	if strings.Contains(location, "%d") {
		location = fmt.Sprintf(location, web.Addr().(*net.TCPAddr).Port)
	}
	message := []byte("HTTP/1.1 200 OK\r\nST: upnp:rootdevice\r\nUSN: uuid:1::upnp:rootdevice\r\nEXT:\r\nCACHE-CONTROL: max-age=120\r\nLOCATION: " + location + "\r\n\r\n")
	go func() {
		buf := make([]byte, 2048)
		for {
			n, asker, err := search.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			if bytes.HasPrefix(buf[:n], []byte("M-SEARCH")) {
				_, _ = answer.WriteToUDPAddrPort(message, asker)
			}
		}
	}()
	t.Cleanup(func() {
		search.Close()
		answer.Close()
		server.Close()
	})
	return x
}

// describe is a page that describes a service at control.
func describe(control string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, description, wanIP1, control) }
}

func TestHostileLocation(t *testing.T) {
	endless := func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "<root xmlns=\"urn:schemas-upnp-org:device-1-0\"><device>")
		for r.Context().Err() == nil {
			if _, err := fmt.Fprint(w, strings.Repeat("<icon/>", 100)); err != nil {
				return
			}
		}
	}
	slow := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	trickle := func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			fmt.Fprint(w, " ")
			_ = http.NewResponseController(w).Flush()
			<-time.After(100 * time.Millisecond)
		}
	}
	good := describe("/control")
	for _, c := range []struct {
		name                 string
		from, host, location string
		page                 http.HandlerFunc
		hits                 int32 // HTTP requests at the most
		err                  error
	}{
		{"the router points to a neighbour", lab.Router, lab.Neighbour, "http://" + lab.Neighbour + ":%d/d.xml", good, 0, ErrUnsupported},
		{"the router points outside", lab.Router, lab.Router, "http://" + lab.Outside + ":80/d.xml", good, 0, ErrUnsupported},
		{"the router points to this machine", lab.Router, lab.Router, "http://127.0.0.1:80/d.xml", good, 0, ErrUnsupported},
		{"a neighbour answers for itself", lab.Neighbour, lab.Neighbour, "http://" + lab.Neighbour + ":%d/d.xml", good, 0, ErrSilent},
		{"a neighbour answers for the router", lab.Neighbour, lab.Router, "http://" + lab.Router + ":%d/d.xml", good, 0, ErrSilent},
		{"an endless description", lab.Router, lab.Router, "http://" + lab.Router + ":%d/d.xml", endless, 4, ErrUnsupported},
		{"no description", lab.Router, lab.Router, "http://" + lab.Router + ":%d/d.xml", slow, 4, ErrSilent},
		{"a slow description", lab.Router, lab.Router, "http://" + lab.Router + ":%d/d.xml", trickle, 4, ErrSilent},
		{"a redirect", lab.Router, lab.Router, "http://" + lab.Router + ":%d/d.xml", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://"+lab.Neighbour+"/d.xml", http.StatusFound)
		}, 4, ErrUnsupported},
		{"a service elsewhere", lab.Router, lab.Router, "http://" + lab.Router + ":%d/d.xml", describe("http://" + lab.Neighbour + ":80/c"), 4, ErrUnsupported},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t)
			x := lie(t, l, c.from, c.host, c.location, c.page)
			client := newClient(t, Config{Without: []Means{PCP, NATPMP}})
			begin := time.Now()
			client.Want(both...)
			client.await(t, 8*time.Second, "say why", func([]Mapping) bool {
				return slices.ContainsFunc(client.Report().Ways, func(w Way) bool { return errors.Is(w.Err, c.err) })
			})
			t.Logf("after %v: %v", time.Since(begin), client.Report().Ways[0].Err)
			if m := client.Mappings(); len(m) > 0 {
				t.Errorf("mapped %+v", m)
			}
			if got := x.hits.Load(); got > c.hits {
				t.Errorf("%d HTTP requests", got)
			}
		})
	}
}

// A liar beside a router that works is of no consequence, and Close does not wait
// for it.
func TestLiarBesideRouter(t *testing.T) {
	l := newLab(t)
	x := lie(t, l, lab.Neighbour, lab.Neighbour, "http://"+lab.Neighbour+":%d/d.xml", describe("/control"))
	start(t, l, "enable_natpmp=no")
	client := newClient(t, Config{})
	client.Want(both...)
	got := client.await(t, 5*time.Second, "map", count(2))
	reach(t, l, got)
	if x.hits.Load() > 0 {
		t.Error("the liar was asked")
	}
	client.Close()
	clean(t, l)
}

func TestCloseWhileAsking(t *testing.T) {
	l := newLab(t)
	lie(t, l, lab.Router, lab.Router, "http://"+lab.Router+":%d/d.xml", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	client := newClient(t, Config{})
	client.Want(both...)
	pause(500 * time.Millisecond)
	begin := time.Now()
	client.Close()
	if took := time.Since(begin); took > 500*time.Millisecond {
		t.Errorf("Close took %v", took)
	}
	if m := client.Mappings(); len(m) > 0 {
		t.Errorf("mapped %+v", m)
	}
}

// Answers from others than the router are not heard: a neighbour that knows all
// but the port that is asked from.
func TestAnswersFromElsewhere(t *testing.T) {
	l := newLab(t)
	if err := l.OnRouter("ip", "addr", "add", lab.Neighbour+"/24", "dev", "lan0"); err != nil {
		t.Fatal(err)
	}
	var hear, lie *net.UDPConn
	err := l.Router(func() (err error) {
		if hear, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(lab.Router), Port: 5351}); err != nil {
			return err
		}
		lie, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(lab.Neighbour), Port: 5351})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer hear.Close()
	defer lie.Close()
	asked := make(chan struct{}, 100)
	go func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := hear.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			if n == 2 {
				_, _ = lie.WriteToUDPAddrPort([]byte{0, 128, 0, 0, 0, 0, 0, 9, 6, 6, 6, 6}, from)
			} else {
				_, _ = lie.WriteToUDPAddrPort(granted(buf[:n], pcpSuccess, "6.6.6.6:6666"), from)
			}
			poke(asked)
		}
	}()
	client := newClient(t, Config{Without: []Means{IGD2}})
	client.Want(both...)
	client.await(t, 5*time.Second, "say why", func([]Mapping) bool {
		r := client.Report()
		return len(r.Ways) == 2 && errors.Is(r.Ways[0].Err, ErrSilent) && errors.Is(r.Ways[1].Err, ErrSilent)
	})
	if len(asked) == 0 {
		t.Error("the router was not asked")
	}
}

// Announcements make a client ask, and cost it no more than one question a second.
func TestFalseAnnouncements(t *testing.T) {
	l := newLab(t)
	start(t, l)
	client := newClient(t, Config{})
	client.Want(both...)
	first := client.await(t, 5*time.Second, "map", count(2))
	var shout *net.UDPConn
	err := l.Router(func() (err error) {
		shout, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(lab.Router)})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer shout.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		_, _ = shout.WriteToUDPAddrPort(unhex(t, pcpAnnounceAnswer), netip.MustParseAddrPort("224.0.0.1:5350"))
		_, _ = shout.WriteToUDPAddrPort([]byte("NOTIFY * HTTP/1.1\r\nNTS: ssdp:alive\r\nNT: x\r\n\r\n"), netip.MustParseAddrPort("239.255.255.250:1900"))
		pause(5 * time.Millisecond)
	}
	// Each announcement that is heeded is one ANNOUNCE and two MAP requests.
	if n := strings.Count(l.Log(), "PCP request received"); n < 4 || n > 3+4*3+3 {
		t.Errorf("%d PCP requests", n)
	}
	got := client.await(t, time.Second, "keep", count(2))
	if got[0].External != first[0].External || got[1].External != first[1].External {
		t.Errorf("%+v became %+v", first, got)
	}
	reach(t, l, got)
}
