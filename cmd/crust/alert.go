package main

import (
	crust "github.com/libcrust/libcrust/core"
)

// alertFigures are the figures of an alert.
type alertFigures struct {
	Count    uint64  `json:"count"`
	Bytes    uint64  `json:"bytes"`
	CPU      float64 `json:"cpu_ms"`
	Total    uint64  `json:"total"`
	Sessions uint64  `json:"sessions"`
	Messages uint64  `json:"messages"`
	Given    uint64  `json:"given_bytes"`
	Since    float64 `json:"since_ms"`
}

// alertBan is what an alert suggests, in the words of the command ban.
type alertBan struct {
	Ban     string `json:"ban"` // a peer, an address or a prefix
	Seconds int64  `json:"seconds"`
}

// alertOf reports an alert.
func alertOf(a crust.Alert) report {
	f := a.Figures
	r := &alertReport{
		Kind: a.Kind.String(), Address: crust.BanTarget{Prefix: a.Address}.String(),
		Figures: alertFigures{f.Count, f.Bytes, milliseconds(f.CPU), f.Total, f.Sessions, f.Messages, f.Given, milliseconds(f.Since)},
	}
	if !a.Peer.IsZero() {
		r.Peer = a.Peer.String()
	}
	if ban := a.Suggest.String(); ban != "" {
		r.Suggest = &alertBan{ban, int64(a.For.Seconds())}
	}
	return r
}
