package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	crust "github.com/libcrust/libcrust/core"
)

type (
	bannedReport struct {
		header
		Who     string `json:"who"`
		Seconds uint64 `json:"seconds"`
	}
	unbannedReport struct {
		header
		Who string `json:"who"`
	}
	bansReport struct {
		header
		Bans []banLine `json:"bans"`
	}
	banLine struct {
		Who    string  `json:"who"`
		Left   float64 `json:"left_ms"`
		Reason string  `json:"reason"`
	}
)

func (*bannedReport) name() string   { return "banned" }
func (*unbannedReport) name() string { return "unbanned" }
func (*bansReport) name() string     { return "bans" }

func (r *bannedReport) text() string {
	if r.Seconds == 0 {
		return "banned until the end: " + r.Who
	}
	return fmt.Sprintf("banned for %d s: %s", r.Seconds, r.Who)
}
func (r *unbannedReport) text() string { return "no longer banned: " + r.Who }
func (r *bansReport) text() string {
	if len(r.Bans) == 0 {
		return "nobody is banned"
	}
	lines := make([]string, len(r.Bans))
	for i, b := range r.Bans {
		lines[i] = b.Who
		if b.Left > 0 {
			lines[i] += fmt.Sprintf("  for another %.0f s", b.Left/1000)
		}
		if b.Reason != "" {
			lines[i] += fmt.Sprintf("  %q", b.Reason)
		}
	}
	return strings.Join(lines, "\n")
}

// subject reads PEER|ADDRESS|PREFIX, where PEER may be the beginning of an id of some
// peers, which what describes.
func subject(op, text, what string, among func() []crust.PeerID) (crust.BanEntry, error) {
	if strings.ContainsAny(text, ".:/") {
		e, err := crust.ParseBan(text)
		if err != nil {
			return e, &crust.Error{Op: op, Code: crust.CodeInvalid, Err: cause(err)}
		}
		return e, nil
	}
	id, err := resolveAmong(op, text, what, among)
	return crust.BanEntry{Peer: id}, err
}

// mostSeconds is the longest ban in seconds: a hundred years.
const mostSeconds = 100 * 365 * 24 * 3600

func (p *peer) commandBan(_ context.Context, arguments string) error {
	w, err := words("ban", arguments, 1, 2)
	if err != nil {
		return err
	}
	e, err := subject("ban", w[0], "connected", p.connected)
	if err != nil {
		return err
	}
	seconds := uint64(0)
	if len(w) == 2 {
		if seconds, err = strconv.ParseUint(w[1], 10, 64); err != nil || seconds == 0 || seconds > mostSeconds {
			return invalid("ban: %.40q is no number of seconds from 1 to %d", w[1], int64(mostSeconds))
		}
	}
	if err := p.service.Ban([]crust.BanEntry{e}, time.Duration(seconds)*time.Second); err != nil { //nolint:gosec // it is bounded
		return err
	}
	p.out.tell(&bannedReport{Who: e.String(), Seconds: seconds})
	return nil
}

func (p *peer) commandUnban(_ context.Context, arguments string) error {
	w, err := words("unban", arguments, 1, 1)
	if err != nil {
		return err
	}
	e, err := subject("unban", w[0], "banned", func() (ids []crust.PeerID) {
		for _, b := range p.service.Bans() {
			if !b.Peer.IsZero() {
				ids = append(ids, b.Peer)
			}
		}
		return ids
	})
	if err != nil {
		return err
	}
	lifted, err := p.service.Unban([]crust.BanEntry{e})
	if err != nil {
		return err
	}
	if lifted == 0 {
		return invalid("unban: %s is not banned", e)
	}
	p.out.tell(&unbannedReport{Who: e.String()})
	return nil
}

func (p *peer) commandBans(_ context.Context, arguments string) error {
	if _, err := words("bans", arguments, 0, 0); err != nil {
		return err
	}
	p.out.tell(bansOf(p.service.Bans()))
	return nil
}

// bansOf lists who is banned.
func bansOf(bans []crust.BanEntry) report {
	list := []banLine{} // none are [], not null
	for _, b := range bans {
		l := banLine{Who: b.String(), Reason: b.Reason}
		if !b.Until.IsZero() {
			l.Left = milliseconds(time.Until(b.Until))
		}
		list = append(list, l)
	}
	return &bansReport{Bans: list}
}
