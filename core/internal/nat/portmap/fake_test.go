package portmap

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

var loopback = netip.MustParseAddr("127.0.0.1")

// fakeIGD is a router's UPnP on loopback: what routers are known to do that
// miniupnpd does not.
type fakeIGD struct {
	mu       sync.Mutex
	faults   map[string][]int // by action: a fault for each call, 0: none; the last stays
	calls    []string         // action and arguments
	entries  map[string]string
	external string
	service  string
	server   *http.Server
	url      string
}

func newFakeIGD(t *testing.T, service string) *fakeIGD {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeIGD{faults: map[string][]int{}, entries: map[string]string{}, external: "5.5.5.1", service: service, url: "http://" + l.Addr().String() + "/d.xml"}
	f.server = &http.Server{Handler: f}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = f.server.Serve(l)
	}()
	t.Cleanup(func() {
		f.server.Close()
		<-done
	})
	return f
}

const description = `<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0"><URLBase>http://10.0.0.9/</URLBase>
<device><deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType><serviceList>
<service><serviceType>%s</serviceType><serviceId>x</serviceId><controlURL>%s</controlURL></service>
</serviceList></device></root>`

var argument = regexp.MustCompile(`<(New[A-Za-z]+)>([^<]*)</`)

func (f *fakeIGD) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.Method == http.MethodGet {
		fmt.Fprintf(w, description, f.service, "/control")
		return
	}
	body, _ := io.ReadAll(r.Body)
	_, action, _ := strings.Cut(strings.Trim(r.Header.Get("Soapaction"), `"`), "#")
	args := map[string]string{}
	call := action
	for _, m := range argument.FindAllStringSubmatch(string(body), -1) {
		args[m[1]] = m[2]
		call += " " + m[2]
	}
	f.calls = append(f.calls, call)
	if faults := f.faults[action]; len(faults) > 0 {
		if len(faults) > 1 {
			f.faults[action] = faults[1:]
		}
		if faults[0] != 0 {
			f.fault(w, faults[0])
			return
		}
	}
	key := args["NewProtocol"] + args["NewExternalPort"]
	answer := ""
	switch action {
	case "GetExternalIPAddress":
		answer = "<NewExternalIPAddress>" + f.external + "</NewExternalIPAddress>"
	case "GetSpecificPortMappingEntry":
		if f.entries[key] == "" {
			f.fault(w, 714)
			return
		}
		client, port, _ := strings.Cut(f.entries[key], ":")
		answer = "<NewInternalPort>" + port + "</NewInternalPort><NewInternalClient>" + client + "</NewInternalClient><NewEnabled>1</NewEnabled>" +
			"<NewPortMappingDescription>x</NewPortMappingDescription><NewLeaseDuration>0</NewLeaseDuration>"
	case "AddPortMapping", "AddAnyPortMapping":
		f.entries[key] = args["NewInternalClient"] + ":" + args["NewInternalPort"]
		answer = "<NewReservedPort>" + args["NewExternalPort"] + "</NewReservedPort>"
	case "DeletePortMapping":
		delete(f.entries, key)
	}
	fmt.Fprintf(w, `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><u:%sResponse xmlns:u="%s">%s</u:%sResponse></s:Body></s:Envelope>`,
		action, f.service, answer, action)
}

func (f *fakeIGD) fault(w http.ResponseWriter, code int) {
	w.WriteHeader(http.StatusInternalServerError)
	fmt.Fprintf(w, `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring>`+
		`<detail><UPnPError xmlns="urn:schemas-upnp-org:control-1-0"><errorCode>%d</errorCode><errorDescription>no</errorDescription></UPnPError></detail></s:Fault></s:Body></s:Envelope>`, code)
}

func (f *fakeIGD) agent(t *testing.T) *upnpAgent {
	t.Helper()
	a := &upnpAgent{iface: Interface{Name: "lo", Prefix: netip.PrefixFrom(loopback, 8), Gateway: loopback}, description: "libcrust"}
	if err := a.try(t.Context(), f.url, loopback); err != nil {
		t.Fatal(err)
	}
	return a
}

const (
	wanIP1  = "urn:schemas-upnp-org:service:WANIPConnection:1"
	wanIP2  = "urn:schemas-upnp-org:service:WANIPConnection:2"
	wanPPP1 = "urn:schemas-upnp-org:service:WANPPPConnection:1"
)

func TestIGDQuirks(t *testing.T) {
	for _, c := range []struct {
		name     string
		service  string
		faults   map[string][]int
		entries  map[string]string
		external uint16 // wanted
		port     uint16 // 0: any but 45000
		forever  bool
		err      error
	}{
		{"a lease", wanIP1, nil, nil, 0, 45000, false, nil},
		{"PPP", wanPPP1, nil, nil, 0, 45000, false, nil},
		{"permanent leases only", wanIP1, map[string][]int{"AddPortMapping": {725, 0}}, nil, 0, 45000, true, nil},
		{"permanent leases only, said otherwise", wanIP1, map[string][]int{"AddPortMapping": {402, 0}}, nil, 0, 45000, true, nil},
		{"permanent leases only, version 2", wanIP2, map[string][]int{"AddAnyPortMapping": {725, 0}}, nil, 0, 45000, true, nil},
		{"no AddAnyPortMapping after all", wanIP2, map[string][]int{"AddAnyPortMapping": {401}}, nil, 0, 45000, false, nil},
		{"taken, and said so", wanIP1, map[string][]int{"AddPortMapping": {718, 718, 0}}, nil, 0, 0, false, nil},
		{"taken, and would be overwritten", wanIP1, nil, map[string]string{"TCP45000": "127.0.0.9:45000"}, 0, 0, false, nil},
		{"ours of before", wanIP1, nil, map[string]string{"TCP45000": "127.0.0.1:45000"}, 0, 45000, false, nil},
		{"all taken", wanIP1, map[string][]int{"AddPortMapping": {718}}, nil, 0, 0, false, ErrConflict},
		{"the forced one is taken", wanIP2, nil, map[string]string{"TCP45009": "127.0.0.9:45000"}, 45009, 0, false, ErrConflict},
		{"the forced one is free", wanIP2, nil, nil, 45009, 45009, false, nil},
		{"refused", wanIP1, map[string][]int{"AddPortMapping": {606}}, nil, 0, 0, false, ErrRefused},
		{"refused, version 2", wanIP2, map[string][]int{"AddAnyPortMapping": {606}}, nil, 0, 0, false, ErrRefused},
		{"full", wanIP1, map[string][]int{"AddPortMapping": {728}}, nil, 0, 0, false, ErrResources},
		{"not connected", wanIP1, map[string][]int{"AddPortMapping": {501}}, nil, 0, 0, false, ErrNoExternal},
		{"cannot tell its mappings", wanIP1, map[string][]int{"GetSpecificPortMappingEntry": {401}}, nil, 0, 45000, false, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFakeIGD(t, c.service)
			a := f.agent(t)
			f.mu.Lock()
			for k, v := range c.entries {
				f.entries[k] = v
			}
			for k, v := range c.faults {
				f.faults[k] = v
			}
			before := len(f.entries)
			f.mu.Unlock()
			l := &lease{want: Want{Protocol: TCP, Port: 45000, External: c.external}, local: loopback, life: leaseSeconds}
			g, err := a.add(t.Context(), l)
			if !errors.Is(err, c.err) || err != nil != (c.err != nil) {
				t.Fatalf("error %v, want %v; calls %q", err, c.err, f.calls)
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			if err != nil {
				if len(f.entries) != before {
					t.Errorf("entries %v", f.entries)
				}
				return
			}
			if g.external.Addr().String() != "5.5.5.1" || c.port != 0 && g.external.Port() != c.port || c.port == 0 && g.external.Port() == 45000 {
				t.Errorf("granted %v", g.external)
			}
			if (g.lifetime == 0) != c.forever {
				t.Errorf("for %v", g.lifetime)
			}
			if got := f.entries[fmt.Sprint("TCP", g.external.Port())]; got != "127.0.0.1:45000" {
				t.Errorf("the router has %q; calls %q", got, f.calls)
			}
			for k, v := range c.entries {
				if f.entries[k] != v {
					t.Errorf("%s became %s", k, f.entries[k])
				}
			}
		})
	}
}

func TestIGDChecks(t *testing.T) {
	f := newFakeIGD(t, wanIP1)
	a := f.agent(t)
	l := &lease{want: Want{Protocol: UDP, Port: 45000}, local: loopback, life: leaseSeconds}
	g, err := a.add(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	l.agent, l.mapping.External = a, g.external
	look := func(what string, deep, lost bool) {
		t.Helper()
		if err := a.check(t.Context(), l, deep); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if got := a.forgot(); got != lost {
			t.Errorf("%s: lost %v", what, got)
		}
	}
	set := func(change func()) {
		f.mu.Lock()
		defer f.mu.Unlock()
		change()
	}
	look("all well", true, false)
	set(func() { f.external = "5.5.5.2" })
	look("not looked for", false, false)
	look("another external address", true, true)
	look("noted", true, false)
	set(func() { f.entries["UDP45000"] = "127.0.0.3:45000" })
	look("another's mapping", true, true)
	set(func() { clear(f.entries) })
	look("no mapping", true, true)
	set(func() { f.faults["GetSpecificPortMappingEntry"] = []int{401} })
	look("cannot tell", true, false)
	if err := a.remove(t.Context(), l); err != nil {
		t.Errorf("remove what is not there: %v", err)
	}
	// Who is not sure whose a mapping is leaves another's alone.
	unsure := *l
	unsure.unsure = true
	for client, left := range map[string]int{"127.0.0.3:45000": 1, "127.0.0.1:45001": 1, "127.0.0.1:45000": 0} {
		set(func() {
			delete(f.faults, "GetSpecificPortMappingEntry")
			f.entries["UDP45000"] = client
		})
		if err := a.remove(t.Context(), &unsure); err != nil {
			t.Errorf("remove of %s: %v", client, err)
		}
		set(func() {
			if len(f.entries) != left {
				t.Errorf("removed of %s, left: %v", client, f.entries)
			}
			clear(f.entries)
		})
	}
	f.server.Close()
	for _, deep := range []bool{false, true} {
		if err := a.check(t.Context(), l, deep); !gone(err) {
			t.Errorf("a closed port, deep %v: %v", deep, err)
		}
	}
}

func TestDoubleNAT(t *testing.T) {
	for text, want := range map[string]bool{"5.5.5.1": false, "100.64.3.4": true, "192.168.1.20": true, "10.0.0.2": true} {
		s := &site{c: &Client{}, iface: Interface{Gateway: loopback}}
		l := &lease{}
		s.take(l, &seat{means: IGD1}, grant{external: netip.AddrPortFrom(netip.MustParseAddr(text), 7)})
		if l.mapping.Double != want {
			t.Errorf("%s: double %v", text, l.mapping.Double)
		}
	}
}

// fakeServer answers on a UDP port of loopback: answer returns the datagrams to
// send back.
func fakeServer(t *testing.T, answer func(request []byte) [][]byte) caller {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 2048)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			for _, b := range answer(bytes.Clone(buf[:n])) {
				_, _ = conn.WriteToUDPAddrPort(b, from)
			}
		}
	}()
	t.Cleanup(func() {
		conn.Close()
		<-done
	})
	return caller{loopback, conn.LocalAddr().(*net.UDPAddr).AddrPort()}
}

// granted makes the answer to a PCP request.
func granted(request []byte, result pcpResult, external string) []byte {
	b := append([]byte{2, request[1] | pcpResponse, 0, byte(result), 0, 0, 14, 16, 0, 0, 0, 9}, make([]byte, 12)...)
	if len(request) >= 60 {
		b = append(b, request[24:60]...)
		at := netip.MustParseAddrPort(external)
		binary.BigEndian.PutUint16(b[42:], at.Port())
		copy(b[44:], append16(nil, at.Addr()))
	}
	return b
}

// Answers that are to another mapping, of another nonce, or no answers are passed
// over.
func TestPCPPicksItsAnswer(t *testing.T) {
	a := &pcpAgent{}
	a.caller = fakeServer(t, func(request []byte) [][]byte {
		evil := func(at int) []byte {
			b := granted(request, pcpSuccess, "6.6.6.6:6666")
			b[at] ^= 1
			return b
		}
		return [][]byte{{}, request, evil(24), evil(35), evil(36), evil(40), evil(1), evil(0), granted(request, pcpSuccess, "5.5.5.1:45000")}
	})
	g, err := a.add(t.Context(), &lease{want: Want{Protocol: TCP, Port: 45000}, life: leaseSeconds})
	if err != nil || g.external.String() != "5.5.5.1:45000" || g.lifetime != time.Hour {
		t.Errorf("%+v, %v", g, err)
	}
}

func TestPCPErrors(t *testing.T) {
	for result, want := range map[pcpResult]error{
		pcpNotAuthorized: ErrRefused, pcpNetFailure: ErrNoExternal, pcpNoResources: ErrResources, pcpQuota: ErrResources,
		pcpCannotProvide: ErrConflict, pcpUnsuppProto: ErrUnsupported, pcpMismatch: ErrUnsupported, pcpUnsuppOpcode: ErrUnsupported, 200: ErrUnsupported,
	} {
		a := &pcpAgent{}
		a.caller = fakeServer(t, func(request []byte) [][]byte { return [][]byte{granted(request, result, "0.0.0.0:0")} })
		if _, err := a.add(t.Context(), &lease{want: Want{Protocol: TCP, Port: 45000}, life: leaseSeconds}); !errors.Is(err, want) {
			t.Errorf("result %d: %v, want %v", result, err, want)
		}
	}
	for _, external := range []string{"0.0.0.0:45000", "127.0.0.1:45000", "224.0.0.1:45000", "5.5.5.1:0"} {
		a := &pcpAgent{}
		a.caller = fakeServer(t, func(request []byte) [][]byte { return [][]byte{granted(request, pcpSuccess, external)} })
		if g, err := a.add(t.Context(), &lease{want: Want{Protocol: TCP, Port: 45000}, life: leaseSeconds}); !errors.Is(err, ErrNoExternal) {
			t.Errorf("external %s: %+v, %v", external, g, err)
		}
	}
	// A server of NAT-PMP only.
	a := &pcpAgent{}
	a.caller = fakeServer(t, func([]byte) [][]byte {
		return [][]byte{unhex(t, "00 80 0001 00000009 00000000"), unhex(t, "00 80 0001 00000009")}
	})
	if err := a.hello(t.Context()); err == nil {
		t.Error("a server of NAT-PMP speaks PCP")
	}
}

// A server that gives another port than the forced one gets it back.
func TestForcedPort(t *testing.T) {
	lives := make(chan uint32, 10)
	a := &pcpAgent{}
	a.caller = fakeServer(t, func(request []byte) [][]byte {
		lives <- binary.BigEndian.Uint32(request[4:])
		if len(request) > 60 {
			return [][]byte{granted(request, pcpUnsuppOption, "0.0.0.0:0")}
		}
		return [][]byte{granted(request, pcpSuccess, "5.5.5.1:999")}
	})
	_, err := a.add(t.Context(), &lease{want: Want{Protocol: TCP, Port: 45000, External: 80}, life: leaseSeconds})
	if !errors.Is(err, ErrConflict) {
		t.Errorf("PCP: %v", err)
	}
	for i, want := range []uint32{3600, 3600, 0} {
		if got := <-lives; got != want {
			t.Errorf("request %d asks for %d s, want %d", i, got, want)
		}
	}
	p := &pmpAgent{}
	p.caller = fakeServer(t, func(request []byte) [][]byte {
		if len(request) == 2 {
			return [][]byte{unhex(t, pmpAddressAnswer)}
		}
		lives <- binary.BigEndian.Uint32(request[8:])
		return [][]byte{append(append([]byte{0, request[1] + pmpResponse, 0, 0, 0, 0, 0, 9}, request[4:6]...), 1, 2, request[8], request[9], request[10], request[11])}
	})
	if _, err := p.add(t.Context(), &lease{want: Want{Protocol: UDP, Port: 45000, External: 80}, life: leaseSeconds}); !errors.Is(err, ErrConflict) {
		t.Errorf("NAT-PMP: %v", err)
	}
	for i, want := range []uint32{3600, 0} {
		if got := <-lives; got != want {
			t.Errorf("NAT-PMP request %d asks for %d s, want %d", i, got, want)
		}
	}
}

func TestPMPErrors(t *testing.T) {
	for result, want := range map[byte]error{1: ErrUnsupported, 2: ErrRefused, 3: ErrNoExternal, 4: ErrResources, 5: ErrUnsupported, 77: ErrUnsupported} {
		a := &pmpAgent{}
		a.caller = fakeServer(t, func(request []byte) [][]byte {
			if len(request) == 2 {
				return [][]byte{unhex(t, pmpAddressAnswer)}
			}
			return [][]byte{{0, request[1] + pmpResponse, 0, result, 0, 0, 0, 9}}
		})
		if _, err := a.add(t.Context(), &lease{want: Want{Protocol: TCP, Port: 45000}, life: leaseSeconds}); !errors.Is(err, want) {
			t.Errorf("result %d: %v, want %v", result, err, want)
		}
	}
}

// The nonce of a mapping is the same in every request, and another for another.
func TestNonce(t *testing.T) {
	seen := map[nonce]string{}
	for _, secret := range []byte{1, 2} {
		for _, local := range []string{"192.168.1.2", "192.168.1.3"} {
			for _, w := range []Want{{Protocol: TCP, Port: 1}, {Protocol: UDP, Port: 1}, {Protocol: UDP, Port: 256}} {
				a := &pcpAgent{secret: [32]byte{secret}}
				a.local = netip.MustParseAddr(local)
				what := fmt.Sprint(secret, local, w)
				n := a.nonce(w)
				if n != a.nonce(w) {
					t.Errorf("%s: two nonces", what)
				}
				if other := seen[n]; other != "" {
					t.Errorf("%s has the nonce of %s", what, other)
				}
				seen[n] = what
			}
		}
	}
}

func TestAskEnds(t *testing.T) {
	quiet := fakeServer(t, func([]byte) [][]byte { return [][]byte{{1, 2, 3}} })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- quiet.ask(ctx, []byte{0}, requestTimes, func([]byte) bool { return false }) }()
	cancel()
	begin := time.Now()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if took := time.Since(begin); took > time.Second {
		t.Errorf("ended %v after its context", took)
	}
	if err := quiet.ask(t.Context(), []byte{0}, removeTimes, func([]byte) bool { return false }); !gone(err) {
		t.Error(err)
	}
}

func TestPlain(t *testing.T) {
	for text, want := range map[string]string{
		"": "libcrust", "  ": "libcrust", "<a>&": "a", "my node-1_x.y": "my node-1_x.y", "ä\x00\n": "libcrust", strings.Repeat("x", 40): strings.Repeat("x", 32),
	} {
		if got := plain(text); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
}

// bodies is a router that answers with the same bytes always.
type bodies struct {
	status int
	body   []byte
}

func (b bodies) answer(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: b.status, ContentLength: -1, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(b.body))}, nil
}

// FuzzUPnP feeds bytes as a description, and as the answer to each call.
func FuzzUPnP(f *testing.F) {
	f.Add([]byte(fmt.Sprintf(description, wanIP2, "/c")), []byte(`<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><x><NewExternalIPAddress>5.5.5.1</NewExternalIPAddress></x></s:Body></s:Envelope>`))
	f.Add([]byte(fmt.Sprintf(description, wanPPP1, "http://10.0.0.1/c")), []byte(`<Envelope/>`))
	known := []byte(fmt.Sprintf(description, wanIP2, "/c"))
	f.Fuzz(func(t *testing.T, text, answer []byte) {
		gateway := netip.MustParseAddr("192.168.1.1")
		a := &upnpAgent{iface: Interface{Prefix: netip.MustParsePrefix("192.168.1.2/24"), Gateway: gateway}}
		u, _, err := gatewayURL("http://192.168.1.1:5000/d.xml", gateway)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range [][]byte{text, known} {
			w := newWeb(a.iface.Prefix.Addr(), gateway)
			w.exchange = bodies{200, text}.answer
			root, err := w.get(t.Context(), u)
			if err != nil {
				continue
			}
			for _, s := range a.services(root, u, w) {
				if s.control.Addr() != gateway {
					t.Fatalf("a service at %v", s.control)
				}
				w.exchange = bodies{200, answer}.answer
				if a.greet(t.Context(), s) != nil {
					continue
				}
				if !a.external.IsGlobalUnicast() {
					t.Fatalf("external address %v", a.external)
				}
				l := &lease{want: Want{Protocol: TCP, Port: 5483}, local: a.iface.Prefix.Addr(), life: leaseSeconds}
				if g, err := a.add(t.Context(), l); err == nil && !usableExternal(g.external) {
					t.Fatalf("granted %v", g.external)
				}
				_ = a.remove(t.Context(), l)
			}
		}
	})
}
