package portmap

import (
	"bytes"
	"net/netip"
	"net/url"
	"strings"
)

// Numbers of the UPnP Device Architecture 1.1, section 1.
const (
	ssdpPort = 1900
	ssdpMX   = "1" // seconds within which devices answer
	// maxSSDP bounds an SSDP message that is looked at, in bytes.
	maxSSDP = 2048
)

// searchTargets is what we look for. A device of version 2 has to answer a search
// for version 1; the others are for routers that do not know that, and come later:
// miniupnpd works for 55 ms on each search before it does anything else.
var searchTargets = []string{
	"urn:schemas-upnp-org:device:InternetGatewayDevice:1",
	"urn:schemas-upnp-org:device:InternetGatewayDevice:2",
	"urn:schemas-upnp-org:service:WANIPConnection:1",
	"urn:schemas-upnp-org:service:WANIPConnection:2",
	"urn:schemas-upnp-org:service:WANPPPConnection:1",
	"upnp:rootdevice",
}

// appendSearch appends an M-SEARCH request for target to host, section 1.3.2.
func appendSearch(b []byte, host netip.AddrPort, target string) []byte {
	b = append(b, "M-SEARCH * HTTP/1.1\r\nHOST: "...)
	b = append(b, netip.AddrPortFrom(host.Addr().WithZone(""), host.Port()).String()...)
	b = append(b, "\r\nMAN: \"ssdp:discover\"\r\nMX: "+ssdpMX+"\r\nST: "...)
	b = append(b, target...)
	return append(b, "\r\n\r\n"...)
}

// ssdpMessage is what counts of an answer to a search, or of an announcement.
type ssdpMessage struct {
	Notify   bool   // an announcement
	Alive    bool   // of an announcement: ssdp:alive or ssdp:update
	Location string // where the description is; "" when it says none
	Target   string // ST or NT
}

// parseSSDP parses an answer or an announcement of at most 2,048 bytes. Anything
// else is errFormat, also control characters within a line. Of a header that comes
// twice the first counts.
func parseSSDP(b []byte) (ssdpMessage, error) {
	if len(b) > maxSSDP {
		return ssdpMessage{}, errFormat
	}
	first, rest, ok := bytes.Cut(b, []byte("\r\n"))
	if !ok {
		return ssdpMessage{}, errFormat
	}
	var m ssdpMessage
	switch line := string(first); {
	case strings.HasPrefix(line, "NOTIFY * HTTP/1."):
		m.Notify = true
	case strings.HasPrefix(line, "HTTP/1.") && (strings.HasSuffix(line, " 200") || strings.Contains(line, " 200 ")):
	default:
		return ssdpMessage{}, errFormat
	}
	for {
		var line []byte
		line, rest, ok = bytes.Cut(rest, []byte("\r\n"))
		if !ok {
			return ssdpMessage{}, errFormat
		}
		if len(line) == 0 {
			return m, nil
		}
		name, value, ok := strings.Cut(string(line), ":")
		if !ok || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			return ssdpMessage{}, errFormat
		}
		m.set(name, strings.Trim(value, " \t"))
	}
}

func (m *ssdpMessage) set(name, value string) {
	switch strings.ToUpper(strings.TrimSpace(name)) {
	case "LOCATION":
		if m.Location == "" {
			m.Location = value
		}
	case "ST", "NT":
		if m.Target == "" {
			m.Target = value
		}
	case "NTS":
		m.Alive = m.Notify && value != "ssdp:byebye"
	}
}

// gatewayURL parses where a description or a service is. Only plain HTTP to an IP
// address is taken; the second result is that address with its port, the zone of
// an IPv6 link-local address is that of from.
func gatewayURL(text string, from netip.Addr) (*url.URL, netip.AddrPort, error) {
	u, err := url.Parse(text)
	if err != nil || !strings.EqualFold(u.Scheme, "http") || u.User != nil {
		return nil, netip.AddrPort{}, errFormat
	}
	addr, err := netip.ParseAddr(u.Hostname())
	if err != nil {
		return nil, netip.AddrPort{}, errFormat
	}
	if addr = addr.Unmap().WithZone(""); addr.IsLinkLocalUnicast() && addr.Is6() {
		addr = addr.WithZone(from.Zone())
	}
	port := u.Port()
	if port == "" {
		port = "80"
	}
	where, err := netip.ParseAddrPort("0.0.0.0:" + port)
	if err != nil || where.Port() == 0 {
		return nil, netip.AddrPort{}, errFormat
	}
	return u, netip.AddrPortFrom(addr, where.Port()), nil
}
