package main

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	crust "github.com/libcrust/libcrust/core"
)

// natReport is the answer to nat.
type natReport struct {
	header
	UDP       natFlow          `json:"udp"`
	TCP       natFlow          `json:"tcp"`
	Mapped    []mappedPort     `json:"mapped"`   // what routers pass on, and what they do not
	External  []crust.Endpoint `json:"external"` // of both
	Hairpin   *bool            `json:"hairpin"`  // of either; null when not tried
	CGNAT     bool             `json:"cgnat"`
	Reachable bool             `json:"reachable"`
	Why       string           `json:"why"`
}

// mappedPort is a listener's port behind one router.
type mappedPort struct {
	Internal crust.Endpoint  `json:"internal"`
	Endpoint *crust.Endpoint `json:"endpoint"` // null: nowhere
	Means    string          `json:"means"`
	Gateway  string          `json:"gateway"`
	Lease    float64         `json:"lease_ms"` // 0: for ever, or no mapping
	Double   bool            `json:"double,omitempty"`
	Code     string          `json:"code"`
	Error    string          `json:"error"`
}

// natFlow is what is known of one transport protocol.
type natFlow struct {
	NAT        string           `json:"nat"` // unknown, no or yes
	Mapping    string           `json:"mapping"`
	Filtering  string           `json:"filtering"`
	Ports      string           `json:"ports"`
	Step       int              `json:"step,omitempty"` // of sequential ports
	Low        uint16           `json:"low,omitempty"`  // of a block
	High       uint16           `json:"high,omitempty"`
	Double     bool             `json:"double,omitempty"`
	Near       bool             `json:"near,omitempty"`
	Blocked    bool             `json:"blocked,omitempty"`
	Hairpin    *bool            `json:"hairpin,omitempty"`
	Confidence string           `json:"confidence"`
	External   []netip.AddrPort `json:"external"`
}

func (*natReport) name() string { return "nat" }

func (r *natReport) text() string {
	reached := "reachable: "
	if !r.Reachable {
		reached = "not known to be reachable: "
	}
	text := "UDP: " + r.UDP.text() + "\nTCP: " + r.TCP.text()
	if r.CGNAT {
		text += "\nthe NAT is a provider's"
	}
	for _, m := range r.Mapped {
		text += "\n" + m.text()
	}
	return text + "\n" + reached + r.Why
}

// text describes the port for people.
func (m *mappedPort) text() string {
	if m.Endpoint == nil {
		return "not mapped: " + m.Error
	}
	text := fmt.Sprintf("mapped: %s to %s by %s", m.Endpoint, m.Internal, m.Means)
	if m.Lease > 0 {
		text += fmt.Sprintf(", for another %.0f s", m.Lease/1000)
	}
	if m.Double {
		text += ", of no use to peers: another NAT is in front of the router"
	}
	return text
}

// portOf gives a port its names.
func portOf(p crust.MappedPort) mappedPort {
	m := mappedPort{Internal: p.Internal, Means: p.Means.String(), Double: p.Double, Code: crust.CodeOf(p.Err).String()}
	if p.Err != nil {
		m.Error = oneLine(p.Err)
	}
	if !p.External.IsZero() {
		m.Endpoint = &p.External
	}
	if p.Gateway.IsValid() {
		m.Gateway = p.Gateway.String()
	}
	if !p.Expires.IsZero() {
		m.Lease = milliseconds(max(time.Until(p.Expires), 0))
	}
	return m
}

// text describes the flow for people.
func (f *natFlow) text() string {
	if f.Blocked {
		return "blocked: peers that are there do not answer by it"
	}
	if len(f.External) == 0 {
		return "nothing is known; it takes connected peers to find out"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "seen as %v (confidence: %s)", f.External[0], f.Confidence)
	if f.Near {
		b.WriteString(" by peers nearby only")
	}
	if f.NAT == "no" {
		b.WriteString(", no NAT, filtering " + f.Filtering)
		return b.String()
	}
	fmt.Fprintf(&b, ", mapping %s, filtering %s, ports %s", f.Mapping, f.Filtering, f.Ports)
	switch {
	case f.Step != 0:
		fmt.Fprintf(&b, " by %+d", f.Step)
	case f.High != 0:
		fmt.Fprintf(&b, " from %d to %d", f.Low, f.High)
	}
	if f.Double {
		b.WriteString(", two NATs in a row")
	}
	if f.Hairpin != nil && *f.Hairpin {
		b.WriteString(", hairpin")
	}
	return b.String()
}

// natOf gives the facts their names.
func natOf(r crust.NATReport) report {
	out := &natReport{
		UDP: natFlowOf(r.UDP), TCP: natFlowOf(r.TCP), Mapped: []mappedPort{}, External: []crust.Endpoint{}, // none are [], not null
		CGNAT: r.CGNAT, Reachable: r.Reachable, Why: r.Why,
	}
	for _, p := range r.Mapped {
		out.Mapped = append(out.Mapped, portOf(p))
	}
	for _, at := range r.TCP.External {
		out.External = append(out.External, crust.Endpoint{Transport: crust.TCP, Addr: at})
	}
	for _, at := range r.UDP.External {
		out.External = append(out.External, crust.Endpoint{Transport: crust.UTP, Addr: at})
	}
	if out.Hairpin = out.UDP.Hairpin; out.Hairpin == nil || out.TCP.Hairpin != nil && *out.TCP.Hairpin {
		out.Hairpin = out.TCP.Hairpin
	}
	return out
}

func natFlowOf(f crust.NATFlow) natFlow {
	nat := "unknown"
	switch {
	case f.None:
		nat = "no"
	case len(f.External) > 0:
		nat = "yes"
	}
	var hairpin *bool
	if f.Hairpin != crust.NATHairpinUnknown {
		came := f.Hairpin == crust.NATHairpinYes
		hairpin = &came
	}
	return natFlow{
		NAT: nat, Mapping: f.Mapping.String(), Filtering: f.Filtering.String(), Ports: f.Ports.String(), Step: f.Step, Low: f.Low, High: f.High,
		Double: f.Double, Near: f.Near, Blocked: f.Blocked, Hairpin: hairpin, Confidence: f.Confidence, External: append([]netip.AddrPort{}, f.External...), // none are [], not null
	}
}
