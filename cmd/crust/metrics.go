package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/metrics"
)

// Bounds on what those that scrape may do.
const (
	scrapeTimeout = 10 * time.Second // to read a request, and to take the answer
	scrapeHeader  = 8 << 10          // bytes of a request
)

// metricsReport tells where --metrics serves.
type metricsReport struct {
	header
	URL string `json:"url"`
}

func (*metricsReport) name() string   { return "metrics" }
func (r *metricsReport) text() string { return "metrics at " + r.URL }

// metricsServer serves /metrics over HTTP until Close.
type metricsServer struct {
	listener net.Listener
	server   *http.Server
	ended    chan struct{}
}

// parseMetricsAddress reads PORT, :PORT or IP:PORT. Without an address it means
// loopback.
func parseMetricsAddress(text string) (netip.AddrPort, error) {
	host, port, found := strings.Cut(text, ":")
	if !found {
		host, port = "", text
	}
	if host == "" {
		if n, err := strconv.ParseUint(port, 10, 16); err == nil {
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(n)), nil
		}
	}
	at, err := netip.ParseAddrPort(text)
	if err != nil {
		return at, fmt.Errorf("%.80q is neither a port nor IP:PORT, such as 9464, 127.0.0.1:9464 or [::1]:9464", text)
	}
	return at, nil
}

// listenMetrics takes the address. Nobody is answered before serve.
func listenMetrics(at netip.AddrPort) (*metricsServer, error) {
	listener, err := net.Listen("tcp", at.String())
	if err != nil {
		return nil, fmt.Errorf("cannot serve metrics: %w", err)
	}
	return &metricsServer{listener: listener}, nil
}

// serve answers scrapes about a service, and about this process and its runtime.
func (m *metricsServer) serve(service *crust.Service) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		metrics.NewCollector(service, metrics.Options{}),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	mux := http.NewServeMux()
	mux.Handle("/metrics", metrics.Handler(registry))
	m.server = &http.Server{
		Handler: mux, ReadTimeout: scrapeTimeout, WriteTimeout: scrapeTimeout, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: scrapeHeader,
	}
	m.ended = make(chan struct{})
	go func() { // joined by Close
		defer close(m.ended)
		_ = m.server.Serve(m.listener) // ends by Close, with an error that says so
	}()
}

// report tells where it serves.
func (m *metricsServer) report() report {
	return &metricsReport{URL: "http://" + m.listener.Addr().String() + "/metrics"}
}

// Close ends the server. Scrapes under way get a second to end. A nil server is closed.
func (m *metricsServer) Close() error {
	if m == nil {
		return nil
	}
	if m.server == nil {
		return m.listener.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	err := m.server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = m.server.Close()
	}
	<-m.ended
	return err
}
