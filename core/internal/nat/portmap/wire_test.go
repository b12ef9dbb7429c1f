package portmap

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var testNonce = nonce{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}

// The bytes are written from the figures of RFC 6887 and RFC 6886.
func TestGoldenRequests(t *testing.T) {
	host, host6 := netip.MustParseAddr("192.168.77.2"), netip.MustParseAddr("2a0a:77::2")
	for _, c := range []struct {
		name string
		got  []byte
		want string
	}{
		{"PCP ANNOUNCE", appendPCPRequest(nil, pcpRequest{Announce: true, Client: host}),
			`02 00 0000 00000000 00000000000000000000ffffc0a84d02`},
		{"PCP MAP", appendPCPRequest(nil, pcpRequest{Client: host, Lifetime: 3600, Nonce: testNonce, Protocol: TCP, Internal: 5483,
			External: netip.MustParseAddrPort("5.5.5.1:5484")}),
			`02 01 0000 00000e10 00000000000000000000ffffc0a84d02
			 0102030405060708090a0b0c 06 000000 156b 156c 00000000000000000000ffff05050501`},
		{"PCP MAP of that port or none", appendPCPRequest(nil, pcpRequest{Client: host, Lifetime: 3600, Nonce: testNonce, Protocol: UDP, Internal: 5483,
			External: netip.AddrPortFrom(netip.Addr{}, 9), PreferFailure: true}),
			`02 01 0000 00000e10 00000000000000000000ffffc0a84d02
			 0102030405060708090a0b0c 11 000000 156b 0009 00000000000000000000ffff00000000 02 00 0000`},
		{"PCP MAP of IPv6, given back", appendPCPRequest(nil, pcpRequest{Client: host6, Nonce: testNonce, Protocol: UDP, Internal: 5483}),
			`02 01 0000 00000000 2a0a0077000000000000000000000002
			 0102030405060708090a0b0c 11 000000 156b 0000 00000000000000000000000000000000`},
		{"NAT-PMP external address", appendPMPRequest(nil, pmpRequest{}), `00 00`},
		{"NAT-PMP TCP", appendPMPRequest(nil, pmpRequest{Protocol: TCP, Port: 5483, External: 5484, Lifetime: 3600}),
			`00 02 0000 156b 156c 00000e10`},
		{"NAT-PMP UDP, given back", appendPMPRequest(nil, pmpRequest{Protocol: UDP, Port: 5483}), `00 01 0000 156b 0000 00000000`},
	} {
		if want := unhex(t, c.want); !bytes.Equal(c.got, want) {
			t.Errorf("%s:\n%x, want\n%x", c.name, c.got, want)
		}
	}
	search := string(appendSearch(nil, netip.MustParseAddrPort("[ff02::c%eth0]:1900"), searchTargets[0]))
	if want := "M-SEARCH * HTTP/1.1\r\nHOST: [ff02::c]:1900\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\n" +
		"ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n\r\n"; search != want {
		t.Errorf("search %q, want %q", search, want)
	}
}

const (
	pcpMapAnswer = `02 81 00 00 00000e10 00015180 000000000000000000000000
		0102030405060708090a0b0c 06 000000 156b 156c 00000000000000000000ffff05050501`
	pcpAnnounceAnswer = `02 80 00 00 00000000 00000007 000000000000000000000000`
	pmpMapAnswer      = `00 82 0000 00015180 156b 156c 00000e10`
	pmpAddressAnswer  = `00 80 0000 00000007 05050501`
)

func TestGoldenAnswers(t *testing.T) {
	external := netip.MustParseAddrPort("5.5.5.1:5484")
	for _, c := range []struct {
		bytes string
		want  pcpAnswer
	}{
		{pcpMapAnswer, pcpAnswer{Lifetime: 3600, Epoch: 86400, Nonce: testNonce, Protocol: TCP, Internal: 5483, External: external}},
		{pcpMapAnswer + " 02000000", pcpAnswer{Lifetime: 3600, Epoch: 86400, Nonce: testNonce, Protocol: TCP, Internal: 5483, External: external}},
		{pcpAnnounceAnswer, pcpAnswer{Announce: true, Epoch: 7}},
		{`03 81 00 01 00000000 00000000 000000000000000000000000`, pcpAnswer{Result: pcpUnsuppVersion}},
	} {
		if got, err := parsePCPAnswer(unhex(t, c.bytes)); err != nil || got != c.want {
			t.Errorf("%s: %+v, %v", c.bytes, got, err)
		}
	}
	for _, c := range []struct {
		bytes string
		want  pmpAnswer
	}{
		{pmpMapAnswer, pmpAnswer{Epoch: 86400, Protocol: TCP, Port: 5483, External: 5484, Lifetime: 3600}},
		{pmpAddressAnswer, pmpAnswer{Epoch: 7, Address: external.Addr()}},
		{`00 81 0002 00000007`, pmpAnswer{Result: 2, Epoch: 7, Protocol: UDP}},
	} {
		if got, err := parsePMPAnswer(unhex(t, c.bytes)); err != nil || got != c.want {
			t.Errorf("%s: %+v, %v", c.bytes, got, err)
		}
	}
}

// Every prefix of an answer is refused, but for those that are answers themselves.
func TestAnswerPrefixes(t *testing.T) {
	pcp, pmp := unhex(t, pcpMapAnswer), unhex(t, pmpMapAnswer)
	for n := range pcp {
		if got, err := parsePCPAnswer(pcp[:n]); err == nil {
			t.Errorf("%d bytes of a MAP answer: %+v", n, got)
		}
	}
	for n := range pmp {
		if got, err := parsePMPAnswer(pmp[:n]); err == nil {
			t.Errorf("%d bytes of a mapping answer: %+v", n, got)
		}
	}
	message := "HTTP/1.1 200 OK\r\nST: upnp:rootdevice\r\nLOCATION: http://192.168.1.1:5000/d.xml\r\n\r\n"
	for n := range message {
		if got, err := parseSSDP([]byte(message[:n])); err == nil {
			t.Errorf("%q: %+v", message[:n], got)
		}
	}
}

func TestAnswersRefused(t *testing.T) {
	for name, text := range map[string]string{
		"a request":              `02 01 00 00 00000e10 00015180 000000000000000000000000`,
		"another opcode":         `02 82 00 00 00000e10 00015180 000000000000000000000000`,
		"version 3, no failure":  `03 80 00 00 00000e10 00015180 000000000000000000000000`,
		"version 1":              `01 80 00 01 00000e10 00015180 000000000000000000000000`,
		"an unaligned length":    pcpAnnounceAnswer + "00",
		"neither TCP nor UDP":    strings.Replace(pcpMapAnswer, "06 000000", "01 000000", 1),
		"longer than any answer": pcpAnnounceAnswer + strings.Repeat("00", 1100),
	} {
		if got, err := parsePCPAnswer(unhex(t, text)); err == nil {
			t.Errorf("PCP, %s: %+v", name, got)
		}
	}
	for name, text := range map[string]string{
		"a request":       `00 02 0000 156b 156c 00000e10`,
		"another opcode":  `00 83 0000 00015180 156b 156c 00000e10`,
		"another version": `01 82 0000 00015180 156b 156c 00000e10`,
		"too long":        pmpMapAnswer + "00",
		"no address":      `00 80 0000 00015180`,
	} {
		if got, err := parsePMPAnswer(unhex(t, text)); err == nil {
			t.Errorf("NAT-PMP, %s: %+v", name, got)
		}
	}
	for _, text := range []string{
		"HTTP/1.1 404 Not Found\r\n\r\n", "GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\nST: x\n\n", "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
		"HTTP/1.1 200 OK\r\nLOCATION: http://a\x00b/\r\n\r\n", "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("x", maxSSDP) + "\r\n\r\n",
	} {
		if got, err := parseSSDP([]byte(text)); err == nil {
			t.Errorf("SSDP %q: %+v", text, got)
		}
	}
}

func TestParseSSDP(t *testing.T) {
	for text, want := range map[string]ssdpMessage{
		"HTTP/1.1 200 OK\r\nlocation:http://192.168.1.1:5000/d.xml\r\nSt: a\r\nLOCATION: http://10.0.0.1/\r\n\r\n": {Location: "http://192.168.1.1:5000/d.xml", Target: "a"},
		"HTTP/1.0 200\r\n\r\nrest": {},
		"NOTIFY * HTTP/1.1\r\nNTS: ssdp:alive\r\nNT: upnp:rootdevice\r\n\r\n":  {Notify: true, Alive: true, Target: "upnp:rootdevice"},
		"NOTIFY * HTTP/1.1\r\nNTS: ssdp:byebye\r\nNT: upnp:rootdevice\r\n\r\n": {Notify: true, Target: "upnp:rootdevice"},
	} {
		if got, err := parseSSDP([]byte(text)); err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
}

func TestGatewayURL(t *testing.T) {
	from := netip.MustParseAddr("fe80::1%eth7")
	for text, want := range map[string]string{
		"http://192.168.1.1:5000/d.xml":         "192.168.1.1:5000",
		"http://192.168.1.1/d.xml":              "192.168.1.1:80",
		"http://[fe80::2]:49152/":               "[fe80::2%eth7]:49152",
		"http://[fe80::2%25lo]:49152/":          "[fe80::2%eth7]:49152",
		"http://[::ffff:10.0.0.1]:1/":           "10.0.0.1:1",
		"http://[2a0a:77::1]:1/":                "[2a0a:77::1]:1",
		"https://192.168.1.1/":                  "",
		"http://router.lan/":                    "",
		"http://user@192.168.1.1/":              "",
		"http://192.168.1.1:0/":                 "",
		"http://192.168.1.1:70000/":             "",
		"file:///etc/passwd":                    "",
		"http://192.168.1.1:80@192.168.1.9:80/": "",
		"":                                      "",
	} {
		_, got, err := gatewayURL(text, from)
		if (err == nil) != (want != "") || err == nil && got.String() != want {
			t.Errorf("%q: %v, %v, want %q", text, got, err, want)
		}
	}
}

func TestEpoch(t *testing.T) {
	begin := time.Unix(1e9, 0)
	for _, c := range []struct {
		name           string
		before, server uint32
		passed         time.Duration
		pcp, pmp       bool // lost
	}{
		{"as fast as ours", 1000, 1100, 100 * time.Second, false, false},
		{"one second back", 1000, 999, 0, false, false},
		{"two seconds back", 1000, 998, 0, true, false},
		{"three seconds back", 1000, 997, 0, true, true},
		{"started anew", 1000, 3, 10 * time.Second, true, true},
		{"started anew, and soon past where it was", 5, 20, time.Hour, true, true},
		{"one in ten slow", 1000, 1900, 1000 * time.Second, true, false},
		{"one in twenty slow", 1000, 1950, 1000 * time.Second, false, false},
		{"one in seven slow", 1000, 1850, 1000 * time.Second, true, true},
		{"much too fast", 1000, 3000, 1000 * time.Second, true, false},
		{"stopped", 1000, 1000, time.Minute, true, true},
	} {
		var pcp, pmp epoch
		if pcp.pcp(c.before, begin) || pmp.pmp(c.before, begin) {
			t.Fatal("the first epoch says that something is lost")
		}
		now := begin.Add(c.passed)
		if got := pcp.pcp(c.server, now); got != c.pcp {
			t.Errorf("PCP, %s: lost %v", c.name, got)
		}
		if got := pmp.pmp(c.server, now); got != c.pmp {
			t.Errorf("NAT-PMP, %s: lost %v", c.name, got)
		}
		if pcp.pcp(c.server+1, now.Add(time.Second)) || pmp.pmp(c.server+1, now.Add(time.Second)) {
			t.Errorf("%s: lost once more", c.name)
		}
	}
}

func TestRoutes(t *testing.T) {
	got := map[route]netip.Addr{}
	parseRoutes4(`Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth0	00000000	`+hexNative(t, "0a000001")+`	0003	0	0	200	00000000	0	0	0
eth0	00000000	`+hexNative(t, "0a0000fe")+`	0003	0	0	100	00000000	0	0	0
eth0	00000000	`+hexNative(t, "0a0000fd")+`	0003	0	0	300	00000000	0	0	0
tun0	00000000	00000000	0001	0	0	50	00000000	0	0	0
vpn0	00000000	`+hexNative(t, "0a080001")+`	0003	0	0	0	00000080	0	0	0
eth1	`+hexNative(t, "c0a80100")+`	00000000	0001	0	0	0	`+hexNative(t, "ffffff00")+`	0	0	0
eth2	00000000	zzzzzzzz	0003	0	0	0	00000000
eth3	00000000
`, got)
	parseRoutes6(`00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000077 00000400 00000001 00000000 00000003 eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000078 00000300 00000001 00000000 00000003 eth0
20010db8000000000000000000000000 40 00000000000000000000000000000000 00 fe800000000000000000000000000079 00000100 00000001 00000000 00000003 eth1
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200 lo
00000000000000000000000000000000 00 0000
`, got)
	want := map[route]netip.Addr{
		{"eth0", false}: netip.MustParseAddr("10.0.0.254"),
		{"eth0", true}:  netip.MustParseAddr("fe80::78"),
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// hexNative prints an address as this machine's kernel does.
func hexNative(t *testing.T, text string) string {
	return strings.ToUpper(hex.EncodeToString(nativeOrder(unhex(t, text))))
}

func FuzzPCP(f *testing.F) {
	for _, text := range []string{pcpMapAnswer, pcpAnnounceAnswer, pcpMapAnswer + "02000000"} {
		f.Add(unhex(f, text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := parsePCPAnswer(b)
		if err != nil {
			return
		}
		if a.Result == pcpUnsuppVersion && b[0] != pcpVersion {
			return
		}
		// A request that asks for what the answer says has the same MAP data.
		if !a.Announce {
			r := appendPCPRequest(nil, pcpRequest{Client: a.External.Addr(), Nonce: a.Nonce, Protocol: a.Protocol, Internal: a.Internal, External: a.External})
			for _, part := range [][2]int{{24, 37}, {40, 60}} {
				if !bytes.Equal(r[part[0]:part[1]], b[part[0]:part[1]]) {
					t.Fatalf("%x became %x", b, r)
				}
			}
		}
	})
}

func FuzzPMP(f *testing.F) {
	for _, text := range []string{pmpMapAnswer, pmpAddressAnswer, "0081000200000007"} {
		f.Add(unhex(f, text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := parsePMPAnswer(b)
		if err != nil || a.Port == 0 || a.Protocol == 0 {
			return
		}
		r := appendPMPRequest(nil, pmpRequest{Protocol: a.Protocol, Port: a.Port, External: a.External, Lifetime: a.Lifetime})
		if !bytes.Equal(r[4:], b[8:]) || r[1] != b[1]-pmpResponse {
			t.Fatalf("%x became %x", b, r)
		}
	})
}

func FuzzSSDP(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nST: upnp:rootdevice\r\nLOCATION: http://192.168.1.1:5000/d.xml\r\n\r\n"))
	f.Add([]byte("NOTIFY * HTTP/1.1\r\nNTS: ssdp:alive\r\nNT: upnp:rootdevice\r\n\r\n"))
	from := netip.MustParseAddr("192.168.1.1")
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseSSDP(b)
		if err != nil {
			return
		}
		if strings.ContainsAny(m.Location, "\r\n\x00") {
			t.Fatalf("control characters in %q", m.Location)
		}
		if u, where, err := gatewayURL(m.Location, from); err == nil && (!where.IsValid() || where.Port() == 0 || u.Host == "") {
			t.Fatalf("%q leads to %v", m.Location, where)
		}
	})
}

func FuzzRoutes(f *testing.F) {
	f.Add("eth0	00000000	0100000A	0003	0	0	200	00000000	0	0	0\n")
	f.Add("00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000077 00000400 00000001 00000000 00000003 eth0\n")
	f.Fuzz(func(t *testing.T, text string) {
		got := map[route]netip.Addr{}
		parseRoutes4(text, got)
		parseRoutes6(text, got)
		for r, a := range got {
			if !a.IsValid() || a.Is6() != r.six || a.IsUnspecified() || a.IsLoopback() {
				t.Fatalf("%v of %v", a, r)
			}
		}
	})
}
