package metrics_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/metrics"
)

// fake is a service that says what it is told.
type fake struct {
	stats crust.Stats
	peers []crust.PeerInfo
	nat   crust.NATReport
}

func (f *fake) ID() crust.PeerID        { return crust.PeerID{0xab} }
func (f *fake) Stats() crust.Stats      { return f.stats }
func (f *fake) Peers() []crust.PeerInfo { return f.peers }
func (f *fake) NAT() crust.NATReport    { return f.nat }

// scraped returns what a collector says, by name and labels.
func scraped(t *testing.T, c prometheus.Collector) map[string]float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry() // which checks what Describe has promised
	if err := registry.Register(c); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			name := f.GetName()
			if len(labels) > 0 {
				name += "{" + strings.Join(labels, ",") + "}"
			}
			values[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
			if counter := f.GetType().String() == "COUNTER"; counter != strings.HasSuffix(f.GetName(), "_total") {
				t.Errorf("%s is named like what it is not", f.GetName())
			}
		}
	}
	return values
}

func at(text string) crust.Endpoint {
	ep, err := crust.ParseEndpoint(text)
	if err != nil {
		panic(err)
	}
	return ep
}

// Each number of Stats, by whatever name, is one series: a new field that the
// collector does not know fails here.
func TestEveryCounterIsThere(t *testing.T) {
	f := &fake{}
	fields := reflect.ValueOf(&f.stats).Elem()
	for i := range fields.NumField() {
		switch v := fields.Field(i); v.Kind() {
		case reflect.Int:
			v.SetInt(int64(1000 + i))
		default:
			v.SetUint(uint64(1000 + i))
		}
	}
	values := map[float64]string{}
	for name, v := range scraped(t, metrics.NewCollector(f, metrics.Options{})) {
		values[v] = name
	}
	for i := range fields.NumField() {
		field := fields.Type().Field(i).Name
		if values[float64(1000+i)] == "" {
			t.Errorf("no series has Stats.%s", field)
		}
	}
}

func TestWhatIsSaidOfPeersAndNAT(t *testing.T) {
	base := time.Unix(1000, 0)
	f := &fake{
		peers: []crust.PeerInfo{
			{Peer: crust.PeerID{1}, Endpoint: at("tcp://192.0.2.1:1"), How: crust.Dialed, RTT: 10 * time.Millisecond, QueuedBytes: 5, SentMessages: 7, Since: base.Add(3)},
			{Peer: crust.PeerID{2}, Endpoint: at("tcp://192.0.2.2:1"), How: crust.Dialed, RTT: 30 * time.Millisecond, UnackedBytes: 9, ReceivedBytes: 8, Since: base},
			{Peer: crust.PeerID{3}, Endpoint: at("utp://192.0.2.3:1"), How: crust.Punched, RTT: 20 * time.Millisecond, QueuedBytes: 2, Since: base.Add(1)},
			{Peer: crust.PeerID{4}, Endpoint: at("utp://192.0.2.4:1"), How: crust.Relayed, Suspended: true, Since: base.Add(2)},
		},
		nat: crust.NATReport{
			Reachable: true, UDP: crust.NATFlow{Confidence: "confirmed", Mapping: crust.NATEndpointIndependent},
			TCP: crust.NATFlow{Confidence: "none", None: true}, Mapped: []crust.MappedPort{{}, {Err: crust.CodeTimeout}},
		},
	}
	values := scraped(t, metrics.NewCollector(f, metrics.Options{Peers: 2}))
	one, two, three := crust.PeerID{1}.String(), crust.PeerID{2}.String(), crust.PeerID{3}.String()
	for name, want := range map[string]float64{
		"crust_links{how=dialed,transport=tcp}": 2, "crust_links{how=punched,transport=utp}": 1, "crust_sessions_suspended": 1,
		"crust_send_queue_bytes": 7, "crust_unacked_bytes": 9, "crust_reachable": 1, "crust_mapped_ports": 1,
		"crust_round_trip_seconds{rank=median}": 0.02, "crust_round_trip_seconds{rank=max}": 0.03,
		"crust_nat_info{confidence=confirmed,filtering=unknown,mapping=endpoint-independent,ports=unknown,protocol=udp}": 1,
		"crust_nat_info{confidence=none,filtering=unknown,mapping=none,ports=unknown,protocol=tcp}":                      1,
		"crust_info{peer=" + (crust.PeerID{0xab}).String() + ",version=" + crust.Version + "}":                           1,
		"crust_peer_round_trip_seconds{peer=" + two + "}":                                                                0.03,
		"crust_peer_bytes_total{direction=received,peer=" + two + "}":                                                    8,
	} {
		if got, ok := values[name]; !ok || got != want {
			t.Errorf("%s is %v, %v; want %v", name, got, ok, want)
		}
	}
	for name := range values {
		if strings.Contains(name, one) {
			t.Errorf("%s is of the third oldest peer, and two were asked for", name)
		}
	}
	if values["crust_peer_round_trip_seconds{peer="+three+"}"] != 0.02 {
		t.Error("the second oldest peer has no series")
	}
}

// What a collector makes by default does not grow with the number of peers, except for
// the few kinds of links.
func TestSeriesAreBounded(t *testing.T) {
	few, many := &fake{}, &fake{}
	for i := range 5000 {
		p := crust.PeerInfo{Peer: crust.PeerID{byte(i), byte(i >> 8)}, Endpoint: at("tcp://192.0.2.1:1"), How: crust.How(1 + i%5), RTT: time.Duration(i)}
		many.peers = append(many.peers, p)
		if i < 10 {
			few.peers = append(few.peers, p)
		}
	}
	a, b := scraped(t, metrics.NewCollector(few, metrics.Options{})), scraped(t, metrics.NewCollector(many, metrics.Options{}))
	if len(a) != len(b) || len(b) > 100 {
		t.Errorf("10 peers make %d series and 5,000 make %d, want the same, and 100 at most", len(a), len(b))
	}
	if n := len(scraped(t, metrics.NewCollector(many, metrics.Options{Peers: 1 << 30}))); n > len(b)+5*metrics.MaxPeers {
		t.Errorf("%d series with all peers asked for, want those of %d peers at most", n, metrics.MaxPeers)
	}
}

func TestServicesShareARegistryByLabels(t *testing.T) {
	registry := prometheus.NewRegistry()
	for _, name := range []string{"a", "b"} {
		if err := registry.Register(metrics.NewCollector(&fake{}, metrics.Options{Labels: prometheus.Labels{"service": name}})); err != nil {
			t.Error(err)
		}
	}
	if err := registry.Register(metrics.NewCollector(&fake{}, metrics.Options{Labels: prometheus.Labels{"service": "a"}})); err == nil {
		t.Error("the registry has taken the same series twice")
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "crust_sessions" && len(f.Metric) != 2 {
			t.Errorf("%d series, want one of each service", len(f.Metric))
		}
	}
}

func TestHandler(t *testing.T) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics.NewCollector(&fake{stats: crust.Stats{SentMessages: 12345}}, metrics.Options{}))
	server := httptest.NewServer(metrics.Handler(registry))
	defer server.Close()
	ask := func(method string) (int, string) {
		request, err := http.NewRequestWithContext(t.Context(), method, server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, string(text)
	}
	if status, text := ask(http.MethodGet); status != http.StatusOK || !strings.Contains(text, "\ncrust_sent_messages_total 12345\n") {
		t.Errorf("status %d and\n%s", status, text)
	}
	if status, _ := ask(http.MethodPost); status != http.StatusMethodNotAllowed {
		t.Errorf("POST has status %d", status)
	}
}

// A real service, over simulated sockets of nobody: it listens nowhere.
func TestOfAService(t *testing.T) {
	service, err := crust.New(crust.Config{NoListen: true, Beacon: crust.BeaconOff, PortMap: crust.PortMapOff, NoNetworkWatch: true})
	if err != nil {
		t.Fatal(err)
	}
	collector := metrics.NewCollector(service, metrics.Options{})
	if values := scraped(t, collector); values["crust_sessions"] != 0 || values["crust_listeners"] != 0 {
		t.Errorf("%v", values)
	}
	if err := service.Close(); err != nil {
		t.Fatal(err)
	}
	for range service.Events(context.Background()) { // EventStopped is counted
	}
	if values := scraped(t, collector); values["crust_events_total"] < 1 {
		t.Error("a stopped service has no counters any more")
	}
}

// The page lists exactly the series that there are.
func TestThePageIsComplete(t *testing.T) {
	text, err := os.ReadFile("../../docs/METRICS.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(crust_[a-z_]+)").FindAllStringSubmatch(string(text), -1) {
		listed[m[1]] = true
	}
	descs := make(chan *prometheus.Desc, 200)
	metrics.NewCollector(&fake{}, metrics.Options{Peers: 1}).Describe(descs)
	close(descs)
	name := regexp.MustCompile(`fqName: "([^"]+)"`)
	n := 0
	for d := range descs {
		n++
		series := name.FindStringSubmatch(d.String())[1]
		if !listed[series] {
			t.Errorf("the page does not list %s", series)
		}
		delete(listed, series)
	}
	for series := range listed {
		t.Errorf("the page lists %s, which there is not", strconv.Quote(series))
	}
	if n < 40 {
		t.Errorf("only %d series", n)
	}
}
