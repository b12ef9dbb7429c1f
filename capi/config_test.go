package main

import (
	"testing"
	"time"

	crust "github.com/libcrust/libcrust/core"
)

// What a text says about relaying reaches the service, and what it does not say stays.
func TestLoadJSONRelay(t *testing.T) {
	t.Setenv("CRUST_BEACON", "")
	var c config
	err := c.loadJSON([]byte(`{"relay":"data","relay_circuits":7,"relay_per_peer":3,"relay_bytes_per_second":65536,` +
		`"relay_bytes_per_circuit":131072,"relay_lifetime_ms":5000,"no_network_watch":true,"port_map":"off","external_port":5483,"beacon":"listen","beacon_port":5485,"cache":"/tmp/cache","cache_peers":7,"gossip":"answer","tracer":"on","key_log":"/tmp/keys"}`))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.loadJSON([]byte(`{"relay_circuits":8}`)); err != nil {
		t.Fatal(err)
	}
	cfg, err := c.forService()
	if err != nil {
		t.Fatal(err)
	}
	defer cfg.Identity.Zero()
	if cfg.Relay != crust.RelayData || cfg.RelayCircuits != 8 || cfg.RelayPerPeer != 3 || cfg.RelayBytesPerSecond != 65536 ||
		cfg.RelayBytesPerCircuit != 131072 || cfg.RelayLifetime != 5*time.Second || !cfg.NoNetworkWatch || cfg.Cache != "/tmp/cache" || cfg.Gossip != crust.GossipAnswer || cfg.CachePeers != 7 || cfg.PortMap != crust.PortMapOff || cfg.ExternalPort != 5483 || cfg.Beacon != crust.BeaconListen || cfg.BeaconPort != 5485 {
		t.Errorf("got %+v", cfg)
	}
}

// The environment turns the beacon off, and unknown words of it are told.
func TestBeaconVariable(t *testing.T) {
	for _, c := range []struct {
		word string
		mode crust.BeaconMode
		code crust.Code
	}{{"", crust.BeaconListen, crust.CodeOK}, {"off", crust.BeaconOff, crust.CodeOK}, {"on", crust.BeaconListen, crust.CodeInvalid}} {
		t.Setenv("CRUST_BEACON", c.word)
		given := config{cfg: crust.Config{Beacon: crust.BeaconListen}}
		cfg, err := given.forService()
		if err == nil {
			cfg.Identity.Zero()
		}
		if crust.CodeOf(err) != c.code || cfg.Beacon != c.mode {
			t.Errorf("%q: mode %d, %v", c.word, cfg.Beacon, err)
		}
	}
}

// The environment turns port mapping off, and unknown words of it are told.
func TestPortMapVariable(t *testing.T) {
	for _, c := range []struct {
		word string
		mode crust.PortMapMode
		code crust.Code
	}{{"", crust.PortMapOn, crust.CodeOK}, {"off", crust.PortMapOff, crust.CodeOK}, {"on", crust.PortMapOn, crust.CodeInvalid}} {
		t.Setenv("CRUST_PORTMAP", c.word)
		var empty config
		cfg, err := empty.forService()
		if err == nil {
			cfg.Identity.Zero()
		}
		if crust.CodeOf(err) != c.code || cfg.PortMap != c.mode {
			t.Errorf("%q: mode %d, %v", c.word, cfg.PortMap, err)
		}
	}
}
