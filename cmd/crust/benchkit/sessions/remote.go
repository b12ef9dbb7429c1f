package sessions

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	crust "github.com/libcrust/libcrust/core"

	"github.com/libcrust/libcrust/cmd/crust/benchkit"
)

// Network is the network name of measurements where none is given.
const Network = "bench"

// AnyName is the name of the transport that goes by whatever way gets through.
const AnyName = "secure"

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
			t.network = network
			return t
		}
	}
	return transport{name: AnyName, network: network}
}

// Serve lets others measure: it listens over every transport at an address and a port, or
// a random one when that is 0, calls ready with where, and serves until ctx ends.
func Serve(ctx context.Context, network string, at netip.Addr, port uint16, ready func(endpoints []string, info []byte) error) error {
	config := crust.Config{NetworkName: network, Beacon: crust.BeaconOff, Gossip: crust.GossipOff}
	for _, kind := range kinds {
		config.Listen = append(config.Listen, crust.Endpoint{Transport: kind, Addr: netip.AddrPortFrom(at, port)})
	}
	n, err := makeNode(config, false)
	if err != nil {
		return err
	}
	s := newServer(n, "", func(c benchkit.Conn) { _ = benchkit.Serve(c) }) // the client reports what is missing
	endpoints, info, err := s.whereabouts()
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
func (s *server) whereabouts() (endpoints []string, info []byte, err error) {
	n := s.node
	for range kinds {
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
