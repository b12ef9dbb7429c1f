package sessions

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	crust "github.com/libcrust/libcrust/core"

	"github.com/libcrust/libcrust/cmd/crust/benchkit"
)

// Network is the network name of measurements where none is given.
const Network = "bench"

// AnyName is the name of the transport that goes by whatever way gets through.
const AnyName = "secure"

// Times of services whose other end is elsewhere: it may go at any time, and whoever
// measures does not wait for it as long as a program would that wants its peer back.
const (
	remoteHeartbeat = 3 * time.Second
	remoteLost      = 10 * time.Second
	remoteResume    = 5 * time.Second
	remoteConnect   = 15 * time.Second
)

// infoPrefix begins the address of a peer that is known by its connection info.
const infoPrefix = "info:"

// InfoAddress is the address of the peer that has made a connection info.
func InfoAddress(info []byte) string { return infoPrefix + base64.RawURLEncoding.EncodeToString(info) }

// byInfo returns the connection info of an address, nil for other addresses.
func byInfo(address string) ([]byte, error) {
	word, found := strings.CutPrefix(address, infoPrefix)
	if !found {
		return nil, nil
	}
	return base64.RawURLEncoding.DecodeString(word)
}

// Over returns the name of the transport that goes over an endpoint of a kind, "" when
// there is none.
func Over(kind crust.Transport) string {
	for _, t := range Transports() {
		if t, ok := t.(transport); ok && t.over == kind {
			return t.name
		}
	}
	return ""
}

// Remote is the transport of a name, or of AnyName, in a network of its own. It only dials.
func Remote(name, network string) benchkit.Transport {
	for _, t := range Transports() {
		if t, ok := t.(transport); ok && t.name == name {
			t.network = cmp.Or(network, Network)
			return t
		}
	}
	return transport{name: AnyName, network: cmp.Or(network, Network)}
}

// Place is where and how Serve lets others measure.
type Place struct {
	Network string     // name, which others must know
	Listen  netip.Addr // address at which it listens
	Port    uint16     // or 0 for random ones
	Clear   bool       // also over the tracer transport, at a random port
}

// Serve lets others measure: it listens over each kind of transport, calls ready with
// where, and serves until ctx ends.
func Serve(ctx context.Context, place Place, ready func(endpoints []string, info []byte) error) error {
	how := transport{network: cmp.Or(place.Network, Network)}
	listen := []crust.Endpoint{
		{Transport: crust.TCP, Addr: netip.AddrPortFrom(place.Listen, place.Port)},
		{Transport: crust.UTP, Addr: netip.AddrPortFrom(place.Listen, place.Port)},
	}
	if place.Clear {
		how.over = crust.Tracer
		listen = append(listen, crust.Endpoint{Transport: crust.Tracer, Addr: netip.AddrPortFrom(place.Listen, 0)})
	}
	n, err := how.makeNode(listen)
	if err != nil {
		return err
	}
	s := newServer(n, "", func(c benchkit.Conn) { _ = benchkit.Serve(c) }) // the client reports what is missing
	endpoints, info, err := s.whereabouts(len(listen))
	if err == nil {
		err = ready(endpoints, info)
	}
	if err == nil {
		s.running.Go(s.run)
		<-ctx.Done()
	}
	return errors.Join(err, s.Close())
}

// whereabouts waits for the listeners, and makes the connection info.
func (s *server) whereabouts(listeners int) (endpoints []string, info []byte, err error) {
	n := s.node
	for range listeners {
		started, err := n.await(func(e *crust.Event) bool {
			return e.Type == crust.EventListenerStarted || e.Type == crust.EventListenerFailed
		})
		if err == nil {
			err = started.Err()
		}
		if err != nil {
			return nil, nil, err
		}
		if ep := started.Endpoint(); !ep.Addr.Addr().IsUnspecified() {
			endpoints = append(endpoints, fmt.Sprintf("%s#%s", ep, n.service.ID()))
		}
	}
	if err := n.service.PrepareConnectionInfo(1); err != nil {
		return nil, nil, err
	}
	_, err = n.await(func(e *crust.Event) bool {
		if e.Type == crust.EventConnectionInfo {
			info = append([]byte(nil), e.Data...)
		}
		return info != nil
	})
	return endpoints, info, err
}
