package portmap

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"
	"time"
)

// clock is the epoch that answers show. Its methods may be called from any goroutine.
type clock struct {
	mu    sync.Mutex
	epoch epoch
	lost  bool // until forgot says so
}

// take notes the epoch of an answer.
func (c *clock) take(server uint32, rule func(*epoch, uint32, time.Time) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lost = rule(&c.epoch, server, time.Now()) || c.lost
}

// lose notes that mappings are lost.
func (c *clock) lose() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lost = true
}

// forgot takes the note that mappings are lost.
func (c *clock) forgot() (lost bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	lost, c.lost = c.lost, false
	return lost
}

// pcpAgent asks one router by PCP.
type pcpAgent struct {
	caller
	secret [32]byte
	clock
}

func (a *pcpAgent) means() Means { return PCP }

// nonce is fixed for a mapping, and the same after the program was started again
// with the same secret: a server renews and deletes a mapping only for who knows
// its nonce (RFC 6887, section 11.3).
func (a *pcpAgent) nonce(w Want) nonce {
	h := hmac.New(sha256.New, a.secret[:])
	addr := a.local.As16()
	h.Write(append(addr[:], w.Protocol.iana(), byte(w.Port>>8), byte(w.Port)))
	return nonce(h.Sum(nil)[:pcpNonceSize])
}

// ask sends a request and returns the answer to it.
func (a *pcpAgent) ask(ctx context.Context, r pcpRequest, times []time.Duration) (pcpAnswer, error) {
	r.Client = a.local
	var answer pcpAnswer
	err := a.caller.ask(ctx, appendPCPRequest(nil, r), times, func(b []byte) bool {
		m, err := parsePCPAnswer(b)
		if err != nil {
			return false
		}
		same := m.Announce && r.Announce ||
			!m.Announce && !r.Announce && m.Nonce == r.Nonce && m.Protocol == r.Protocol && m.Internal == r.Internal
		if m.Result == pcpUnsuppVersion || same {
			answer = m
			return true
		}
		return false
	})
	if err == nil && answer.Result != pcpUnsuppVersion {
		a.take(answer.Epoch, (*epoch).pcp)
	}
	return answer, err
}

func (a *pcpAgent) hello(ctx context.Context) error {
	answer, err := a.ask(ctx, pcpRequest{Announce: true}, helloTimes)
	if err != nil {
		return err
	}
	if answer.Result == pcpUnsuppVersion {
		return answer.Result.err()
	}
	return nil // a server that does not know ANNOUNCE is there as well
}

func (a *pcpAgent) check(ctx context.Context, _ *lease, _ bool) error {
	_, err := a.ask(ctx, pcpRequest{Announce: true}, helloTimes)
	return err
}

func (a *pcpAgent) add(ctx context.Context, l *lease) (grant, error) {
	r := pcpRequest{
		Lifetime: l.life,
		Nonce:    a.nonce(l.want),
		Protocol: l.want.Protocol,
		Internal: l.want.Port,
		External: l.mapping.External,
	}
	if l.want.External != 0 {
		r.External = netip.AddrPortFrom(netip.Addr{}, l.want.External)
		r.PreferFailure = true
	} else if r.External.Port() == 0 {
		r.External = netip.AddrPortFrom(r.External.Addr(), l.want.Port)
	}
	answer, err := a.ask(ctx, r, requestTimes)
	if err == nil && answer.Result == pcpUnsuppOption && r.PreferFailure {
		r.PreferFailure = false // the port that comes is compared below
		answer, err = a.ask(ctx, r, requestTimes)
	}
	if err != nil {
		return grant{}, err
	}
	if err := answer.Result.err(); err != nil {
		return grant{}, err
	}
	if answer.Lifetime == 0 || !usableExternal(answer.External) {
		return grant{}, fmt.Errorf("PCP external address %v for %d s: %w", answer.External, answer.Lifetime, ErrNoExternal)
	}
	if l.want.External != 0 && answer.External.Port() != l.want.External {
		r.Lifetime = 0
		_, _ = a.ask(ctx, r, removeTimes)
		return grant{}, fmt.Errorf("PCP gave port %d: %w", answer.External.Port(), ErrConflict)
	}
	return grant{external: answer.External, lifetime: seconds(answer.Lifetime)}, nil
}

func (a *pcpAgent) remove(ctx context.Context, l *lease) error {
	answer, err := a.ask(ctx, pcpRequest{
		Nonce:    a.nonce(l.want),
		Protocol: l.want.Protocol,
		Internal: l.want.Port,
		External: l.mapping.External,
	}, removeTimes)
	if err != nil {
		return err
	}
	return answer.Result.err()
}

// pmpAgent asks one router by NAT-PMP.
type pmpAgent struct {
	caller
	clock

	external netip.Addr // as last told
}

func (a *pmpAgent) means() Means { return NATPMP }

func (a *pmpAgent) ask(ctx context.Context, r pmpRequest, times []time.Duration) (pmpAnswer, error) {
	if !a.local.Is4() {
		return pmpAnswer{}, fmt.Errorf("NAT-PMP is for IPv4: %w", ErrUnsupported)
	}
	var answer pmpAnswer
	err := a.caller.ask(ctx, appendPMPRequest(nil, r), times, func(b []byte) bool {
		m, err := parsePMPAnswer(b)
		failed := m.Result != 0 && m.Port == 0 && len(b) == 8 && (m.Protocol == 0 || m.Protocol == r.Protocol)
		if err != nil || !failed && (m.Port != r.Port || r.Port != 0 && m.Protocol != r.Protocol) {
			return false
		}
		answer = m
		return true
	})
	if err == nil {
		a.take(answer.Epoch, (*epoch).pmp)
		err = answer.Result.err()
	}
	return answer, err
}

// address asks for the external address. A change of it is a loss of mappings.
func (a *pmpAgent) address(ctx context.Context) (netip.Addr, error) {
	answer, err := a.ask(ctx, pmpRequest{}, helloTimes)
	if err != nil {
		return netip.Addr{}, err
	}
	if !answer.Address.IsValid() || answer.Address.IsUnspecified() {
		return netip.Addr{}, ErrNoExternal
	}
	if a.external.IsValid() && a.external != answer.Address {
		a.lose()
	}
	a.external = answer.Address
	return answer.Address, nil
}

func (a *pmpAgent) hello(ctx context.Context) error {
	_, err := a.address(ctx)
	return err
}

func (a *pmpAgent) check(ctx context.Context, _ *lease, _ bool) error {
	return a.hello(ctx)
}

func (a *pmpAgent) add(ctx context.Context, l *lease) (grant, error) {
	external, err := a.address(ctx)
	if err != nil {
		return grant{}, err
	}
	r := pmpRequest{Protocol: l.want.Protocol, Port: l.want.Port, External: l.want.External, Lifetime: l.life}
	if r.External == 0 {
		r.External = l.mapping.External.Port()
	}
	if r.External == 0 {
		r.External = l.want.Port
	}
	answer, err := a.ask(ctx, r, requestTimes)
	if err != nil {
		return grant{}, err
	}
	at := netip.AddrPortFrom(external, answer.External)
	if answer.Lifetime == 0 || !usableExternal(at) {
		return grant{}, fmt.Errorf("NAT-PMP external address %v for %d s: %w", at, answer.Lifetime, ErrNoExternal)
	}
	if l.want.External != 0 && answer.External != l.want.External {
		_ = a.remove(ctx, l)
		return grant{}, fmt.Errorf("NAT-PMP gave port %d: %w", answer.External, ErrConflict)
	}
	return grant{external: at, lifetime: seconds(answer.Lifetime)}, nil
}

func (a *pmpAgent) remove(ctx context.Context, l *lease) error {
	_, err := a.ask(ctx, pmpRequest{Protocol: l.want.Protocol, Port: l.want.Port}, removeTimes)
	return err
}

// seconds bounds the lifetime that a router grants: what is longer than a day is
// renewed after half a day, since a router may have been exchanged meanwhile.
func seconds(n uint32) time.Duration {
	return time.Duration(min(n, maxLeaseSeconds)) * time.Second
}

// randomPort returns an ephemeral port of RFC 6335, section 6, for tries after a
// conflict.
func randomPort() uint16 {
	var b [2]byte
	fill(b[:])
	return 49152 | binary.BigEndian.Uint16(b[:])>>2
}
