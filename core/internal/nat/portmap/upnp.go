package portmap

import (
	"bufio"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/huin/goupnp"
	"github.com/huin/goupnp/soap"
)

const (
	// httpTimeout bounds one HTTP exchange, connecting and reading included.
	httpTimeout = 3 * time.Second
	// maxBody bounds what is read of an HTTP answer, in bytes. Descriptions are of
	// some 10 KiB.
	maxBody = 64 << 10
	// maxHeader bounds the head of an HTTP answer, together with what maxBody leaves
	// of its bound, in bytes.
	maxHeader = 16 << 10
)

// web speaks HTTP with one router: to no other address, by no proxy, following no
// redirect. It is used by one goroutine at a time.
type web struct {
	local netip.Addr
	host  netip.Addr // with its zone

	exchange func(r *http.Request) (*http.Response, error)
	mu       sync.Mutex
	failed   error // what the network did to the last exchange
}

// errElsewhere means that a router points to another host.
var errElsewhere = fmt.Errorf("the answer points to another host: %w", ErrUnsupported)

// errTooLong means that an HTTP answer is over its bound.
var errTooLong = fmt.Errorf("the answer has more than %d bytes: %w", maxBody, ErrUnsupported)

func newWeb(local, host netip.Addr) *web {
	w := &web{local: local, host: host}
	w.exchange = w.overNetwork
	return w
}

// dial connects to the router and to nobody else, whatever a URL says.
func (w *web) dial(ctx context.Context, _, address string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil || to.Addr().Unmap().WithZone("") != w.host.WithZone("") {
		return nil, errElsewhere
	}
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(w.local, 0)), Timeout: httpTimeout}
	return d.DialContext(ctx, "tcp", netip.AddrPortFrom(w.host, to.Port()).String())
}

// client returns an http.Client for one exchange after another. It has no timeout
// of its own: overNetwork has one.
func (w *web) client() http.Client {
	return http.Client{
		Transport:     w,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// overNetwork is one exchange over one connection, all on the caller's goroutine.
// http.Transport would go on dialling when nobody waits any more, after Close.
func (w *web) overNetwork(r *http.Request) (*http.Response, error) {
	ctx := r.Context()
	port := r.URL.Port()
	if port == "" {
		port = "80"
	}
	conn, err := w.dial(ctx, "tcp", net.JoinHostPort(r.URL.Hostname(), port))
	if err != nil {
		if r.Body != nil {
			_ = r.Body.Close()
		}
		return nil, err
	}
	p := &patientConn{Conn: conn, ctx: ctx, deadline: time.Now().Add(httpTimeout)}
	answer, err := p.exchange(r)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	answer.Body = closer{answer.Body, conn}
	return answer, nil
}

// patientConn is a connection whose reads end with a context or at a deadline.
type patientConn struct {
	net.Conn
	ctx      context.Context
	deadline time.Time
}

// Read implements io.Reader.
func (p *patientConn) Read(b []byte) (int, error) {
	for {
		if err := p.ctx.Err(); err != nil {
			return 0, err
		}
		if err := p.SetReadDeadline(earlier(p.deadline, time.Now().Add(patience))); err != nil {
			return 0, err
		}
		n, err := p.Conn.Read(b)
		if n > 0 || !timeout(err) || !time.Now().Before(p.deadline) {
			return n, err
		}
	}
}

// exchange writes a request and reads the head of the answer to it.
func (p *patientConn) exchange(r *http.Request) (*http.Response, error) {
	if err := p.SetWriteDeadline(p.deadline); err != nil {
		return nil, err
	}
	r = r.Clone(p.ctx)
	r.Close = true // one exchange only
	if err := r.Write(p); err != nil {
		return nil, err
	}
	in := bufio.NewReader(io.LimitReader(p, maxHeader+maxBody+1))
	for {
		answer, err := http.ReadResponse(in, r)
		if err != nil || answer.StatusCode/100 != 1 {
			return answer, err
		}
	}
}

// closer is a body whose Close closes the connection. What is left of the body is
// not read.
type closer struct {
	io.Reader
	io.Closer
}

// RoundTrip implements http.RoundTripper: it bounds the body and remembers errors
// of the network, which goupnp tells as text only.
func (w *web) RoundTrip(r *http.Request) (*http.Response, error) {
	w.fail(nil)
	answer, err := w.exchange(r)
	if err != nil {
		w.fail(err)
		return nil, err
	}
	answer.Body = &boundedBody{ReadCloser: answer.Body, left: maxBody, fail: w.fail}
	return answer, nil
}

func (w *web) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failed = err
}

func (w *web) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failed
}

// boundedBody is a body that may not be longer than maxBody.
type boundedBody struct {
	io.ReadCloser
	left int
	fail func(error)
}

// Read implements io.Reader.
func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		b.fail(errTooLong)
		return 0, errTooLong
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	if err != nil && !errors.Is(err, io.EOF) {
		b.fail(err)
	}
	return n, err
}

// get reads a document and decodes it as a device description.
func (w *web) get(ctx context.Context, location *url.URL) (*goupnp.RootDevice, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, location.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	client := w.client()
	answer, err := client.Do(request)
	if err != nil {
		return nil, w.meaning(ctx, err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("HTTP status %d: %w", answer.StatusCode, ErrUnsupported)
	}
	root, err := parseDescription(answer.Body, location)
	if err != nil {
		return nil, w.meaning(ctx, err)
	}
	return root, nil
}

// parseDescription decodes a device description. URLs in it are relative to where
// it was found; a URLBase in it is not believed.
func parseDescription(r io.Reader, location *url.URL) (*goupnp.RootDevice, error) {
	d := xml.NewDecoder(r)
	d.DefaultSpace = goupnp.DeviceXMLNamespace
	d.CharsetReader = latin1
	root := new(goupnp.RootDevice)
	if err := d.Decode(root); err != nil {
		return nil, err
	}
	root.SetURLBase(location)
	return root, nil
}

// latin1 reads the one-byte character sets that old routers use.
func latin1(charset string, in io.Reader) (io.Reader, error) {
	switch strings.ToLower(charset) {
	case "iso-8859-1", "latin1", "us-ascii", "ascii", "windows-1252":
		text, err := io.ReadAll(in)
		if err != nil {
			return nil, err
		}
		var b strings.Builder
		for _, c := range text {
			b.WriteRune(rune(c))
		}
		return strings.NewReader(b.String()), nil
	}
	return nil, fmt.Errorf("unknown character set: %w", ErrUnsupported)
}

// meaning makes an error of ours of what an exchange ended with. Texts of the
// router are left out: they may be long, and anybody's.
func (w *web) meaning(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if fault, ok := errors.AsType[*soap.SOAPFaultError](err); ok {
		return upnpError(fault.Detail.UPnPError.Errorcode)
	}
	failed := w.failure()
	switch {
	case errors.Is(failed, ErrUnsupported):
		return failed
	case failed != nil:
		return fmt.Errorf("%w: %w", ErrSilent, failed)
	}
	return fmt.Errorf("the answer cannot be understood: %w", ErrUnsupported)
}

// upnpError is an error code of UPnP: of the Device Architecture 1.1, table 3-3,
// WANIPConnection:2, section 2.5, or WANIPv6FirewallControl:1, section 2.5.
type upnpError int

const (
	upnpInvalidArgs    upnpError = 402
	upnpActionFailed   upnpError = 501 // of many routers: no external address
	upnpNotAuthorized  upnpError = 606
	upnpNoPinhole      upnpError = 704
	upnpNoEntry        upnpError = 714
	upnpConflict       upnpError = 718
	upnpSamePorts      upnpError = 724 // external and internal port must be the same
	upnpPermanentOnly  upnpError = 725
	upnpNoMoreMappings upnpError = 728
	upnpMechanism      upnpError = 729 // another protocol has the port
)

// Error implements error.
func (e upnpError) Error() string { return fmt.Sprintf("UPnP error %d: %v", int(e), e.Unwrap()) }

// Unwrap returns what the code means to us.
func (e upnpError) Unwrap() error {
	switch e {
	case upnpNotAuthorized, 702, 703: // the firewall is off, or closed for pinholes
		return ErrRefused
	case upnpConflict, upnpSamePorts, upnpMechanism:
		return ErrConflict
	case upnpNoMoreMappings, 603, 701:
		return ErrResources
	case upnpActionFailed:
		return ErrNoExternal
	}
	return ErrUnsupported
}
