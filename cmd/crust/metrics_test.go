package main

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

func TestMetricsAddresses(t *testing.T) {
	for text, want := range map[string]string{
		"9464": "127.0.0.1:9464", ":9464": "127.0.0.1:9464", "0": "127.0.0.1:0", "0.0.0.0:1": "0.0.0.0:1", "[::1]:9464": "[::1]:9464",
		"127.0.0.5:80": "127.0.0.5:80",
	} {
		if at, err := parseMetricsAddress(text); err != nil || at.String() != want {
			t.Errorf("%q is %v, %v; want %s", text, at, err, want)
		}
	}
	for _, text := range []string{"", ":", "65536", "-1", "localhost:80", "127.0.0.1", "::1:80x", "a", "127.0.0.1:http"} {
		if at, err := parseMetricsAddress(text); err == nil {
			t.Errorf("%q is %v", text, at)
		}
	}
}

func TestPeerServesMetrics(t *testing.T) {
	r := startText(t, "--json", "--listen", "tcp://127.0.0.1:0", "--metrics", "0")
	id := r.next("started").text("peer")
	url := r.next("metrics").text("url")
	r.next("listener_started")
	if !strings.HasPrefix(url, "http://127.0.0.1:") {
		t.Errorf("metrics are at %s, want loopback", url)
	}
	text, status := fetch(t, url)
	if status != http.StatusOK || !strings.Contains(text, id) || !strings.Contains(text, "\ncrust_listeners 1\n") || !strings.Contains(text, "\ngo_goroutines ") {
		t.Errorf("status %d and\n%s", status, text)
	}
	if _, status := fetch(t, strings.TrimSuffix(url, "metrics")); status != http.StatusNotFound {
		t.Errorf("another path has status %d", status)
	}
	r.stops()
	if conn, err := net.Dial("tcp", strings.TrimSuffix(strings.TrimPrefix(url, "http://"), "/metrics")); err == nil {
		conn.Close()
		t.Error("the metrics are served after the end")
	}
}

func fetch(t *testing.T, url string) (text string, status int) {
	t.Helper()
	answer, err := http.Get(url) //nolint:noctx // ends with the peer
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b), answer.StatusCode
}

func TestPeerRefusesWrongMetricsAddresses(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for address, want := range map[string]struct {
		code  int
		words string
	}{
		"home":                  {exitUsage, `--metrics: "home" is neither a port nor IP:PORT`},
		taken.Addr().String():   {exitFailure, "cannot serve metrics: listen tcp " + taken.Addr().String()},
		"[2001:db8::1%eth9]:80": {exitFailure, "cannot serve metrics"},
	} {
		r := startText(t, "--json", "--metrics", address)
		if rest, code := r.end(); code != want.code || len(rest) != 0 || !strings.Contains(r.stderr.String(), want.words) {
			t.Errorf("%s: exit code %d, %q, %q; want %d and %q", address, code, rest, r.stderr, want.code, want.words)
		}
	}
}
