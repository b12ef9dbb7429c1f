package crust_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/bootstrap"
	"github.com/libcrust/libcrust/core/internal/simnet"
)

// listed returns what is in a cache file.
func listed(t testing.TB, path string) []crust.CachedPeer {
	t.Helper()
	c, err := crust.OpenCache(path)
	if err != nil {
		t.Fatal(err)
	}
	list, err := c.List()
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// keyOf returns an identity that is the same in each run.
func keyOf(t testing.TB, n byte) *identity.Key {
	t.Helper()
	key, err := identity.FromSeed(append(make([]byte, identity.SeedSize-1), n))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// fill writes peers into a cache file that were reached at some time.
func fill(t testing.TB, path string, when time.Time, contacts ...crust.Contact) {
	t.Helper()
	c, err := bootstrap.Open(path, bootstrap.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range contacts {
		if err := c.Reached(when, bootstrap.Contact{Peer: k.Peer, At: k.Endpoint}); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

// A node that is started again with its cache, and nothing else, is back at once: over
// TCP and over uTP.
func TestACacheBringsANodeBack(t *testing.T) {
	for _, transport := range []string{"tcp", "utp"} {
		path := filepath.Join(t.TempDir(), "cache")
		synctest.Test(t, func(t *testing.T) {
			net := simnet.New(1)
			net.SetDefaultLink(simnet.Link{Latency: 40 * time.Millisecond})
			ha, hb := net.Host("10.0.0.1"), net.Host("10.0.0.2")
			listen := []crust.Endpoint{endpointAt(transport + "://0.0.0.0:0")}
			b := newNode(t, crust.On(hb, crust.Config{Listen: listen, Cache: path + "-b"}))
			defer b.Close()
			begin := func() *node { return newNode(t, crust.On(ha, crust.Config{Listen: listen, Cache: path})) }
			a := begin()
			link(t, a, b)
			a.Close()
			b.next(crust.EventLost)
			for range 3 {
				a = begin()
				began := time.Now()
				if err := a.Bootstrap(7); err != nil {
					t.Fatal(err)
				}
				a.next(crust.EventConnected)
				e := a.next(crust.EventBootstrapped)
				if took := time.Since(began); e.Peer != b.ID() || e.Token != 7 || took > time.Second {
					t.Fatalf("back with %s after %v", e.Peer.Short(), took)
				}
				b.next(crust.EventConnected)
				a.Close()
				b.next(crust.EventLost)
			}
			if list := listed(t, path); len(list) != 1 || list[0].Peer != b.ID() || list[0].Endpoints[0].Endpoint.Transport.String() != transport {
				t.Fatalf("a's cache has %+v", list)
			}
			if list := listed(t, path+"-b"); len(list) != 0 {
				t.Fatalf("b was never told where a can be reached, and its cache has %+v", list)
			}
		})
	}
}

// A cache full of dead, deaf and foreign addresses, and our own: the one good contact
// is found without waiting for them, wherever it stands.
func TestAPoisonedCacheDoesNotHoldUp(t *testing.T) {
	for name, place := range map[string]int{"first": 0, "in the middle": 100, "last": 199, "a fallback": -1} {
		path := filepath.Join(t.TempDir(), "cache")
		synctest.Test(t, func(t *testing.T) {
			net := simnet.New(1)
			net.SetDefaultLink(simnet.Link{Latency: 40 * time.Millisecond})
			ha, hb, deaf := net.Host("10.0.0.1"), net.Host("10.0.0.2"), net.Host("10.0.0.3")
			b := newNode(t, crust.On(hb, crust.Config{Listen: []crust.Endpoint{endpointAt("10.0.0.2:4000")}}))
			defer b.Close()
			l, err := deaf.Listen(context.Background(), endpointAt("10.0.0.3:1").Addr)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			me := keyOf(t, 200)
			var contacts []crust.Contact
			for n := range 200 {
				k := crust.Contact{Endpoint: endpointAt(fmt.Sprintf("10.0.9.%d:4000", 1+n)), Peer: keyOf(t, byte(n)).ID()} // nobody is there
				switch n % 4 {
				case 1:
					k.Endpoint = endpointAt("10.0.0.3:1") // it accepts and says nothing
				case 2:
					k.Endpoint = endpointAt("10.0.0.2:4000") // another peer is there
				case 3:
					k.Endpoint = endpointAt("10.0.0.1:4000") // we are
				}
				contacts = append(contacts, k)
			}
			contacts[50].Peer = me.ID()
			cfg := crust.Config{Identity: me, Listen: []crust.Endpoint{endpointAt("10.0.0.1:4000")}, Cache: path}
			good := crust.Contact{Endpoint: endpointAt("10.0.0.2:4000"), Peer: b.ID()}
			if place < 0 {
				cfg.Contacts = []crust.Contact{good}
			} else {
				contacts[199-place] = good // the last one written is the first one tried
			}
			fill(t, path, time.Now(), contacts...)
			a := newNode(t, crust.On(ha, cfg))
			defer a.Close()
			began := time.Now()
			if err := a.Bootstrap(1); err != nil {
				t.Fatal(err)
			}
			a.next(crust.EventConnected)
			e := a.next(crust.EventBootstrapped)
			if took := time.Since(began); e.Peer != b.ID() || took > time.Second {
				t.Fatalf("%s: back with %s after %v", name, e.Peer.Short(), took)
			}
		})
	}
}

func TestAPoisonedCacheAloneFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache")
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New(1)
		ha, hb := net.Host("10.0.0.1"), net.Host("10.0.0.2")
		other := newNode(t, crust.On(hb, crust.Config{Listen: []crust.Endpoint{endpointAt("10.0.0.2:4000")}}))
		defer other.Close()
		fill(t, path, time.Now(),
			crust.Contact{Endpoint: endpointAt("10.0.0.2:5000"), Peer: keyOf(t, 1).ID()}, // nobody listens
			crust.Contact{Endpoint: endpointAt("10.0.0.2:4000"), Peer: keyOf(t, 2).ID()}) // somebody else
		a := newNode(t, crust.On(ha, crust.Config{Cache: path, Listen: []crust.Endpoint{endpointAt("10.0.0.1:0")}}))
		if err := a.Bootstrap(1); err != nil {
			t.Fatal(err)
		}
		if e := a.next(crust.EventBootstrapFailed); e.Code() != crust.CodeWrongPeer {
			t.Fatal(e.Err())
		}
		a.Close()
		list := listed(t, path)
		for _, p := range list {
			if p.Failures != 1 || p.Failed.IsZero() {
				t.Errorf("%+v", p)
			}
		}
		if len(list) != 2 {
			t.Errorf("%d peers", len(list))
		}
	})
}

// Peers that were not reached for a day are tested, and do not notice: one that is
// there is the most recent then, one that is gone has failed.
func TestOldPeersAreTested(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache")
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New(1)
		ha, hb := net.Host("10.0.0.1"), net.Host("10.0.0.2")
		b := newNode(t, crust.On(hb, crust.Config{Listen: []crust.Endpoint{endpointAt("10.0.0.2:4000")}}))
		defer b.Close()
		gone, young := keyOf(t, 1).ID(), keyOf(t, 2).ID()
		old := time.Now()
		fill(t, path, old, crust.Contact{Endpoint: endpointAt("10.0.0.2:4000"), Peer: b.ID()}, crust.Contact{Endpoint: endpointAt("10.0.0.9:1"), Peer: gone})
		time.Sleep(25 * time.Hour)
		fill(t, path, time.Now(), crust.Contact{Endpoint: endpointAt("10.0.0.9:2"), Peer: young})
		began := time.Now()
		a := newNode(t, crust.On(ha, crust.Config{Cache: path, Listen: []crust.Endpoint{endpointAt("10.0.0.1:0")}}))
		time.Sleep(2 * time.Minute)
		list := listed(t, path)
		order := []crust.PeerID{}
		for _, p := range list {
			order = append(order, p.Peer)
		}
		if !slices.Equal(order, []crust.PeerID{b.ID(), young, gone}) || list[0].Reached.Before(began) || list[1].Failures != 0 || list[2].Failures != 1 {
			t.Fatalf("%+v", list)
		}
		if a.EventsPending() && a.next(crust.EventListenerStarted).Type != crust.EventListenerStarted || len(a.Peers()) != 0 || len(b.Peers()) != 0 {
			t.Fatal("a test has made a session")
		}
		time.Sleep(12 * 24 * time.Hour) // b answers once a day, so the network is fine
		for _, p := range listed(t, path) {
			if p.Peer == gone {
				t.Fatalf("a peer that failed for days is still there: %+v", p)
			}
		}
		a.Close()
	})
}

func TestACacheThatCannotBeUsedIsAnEvent(t *testing.T) {
	dir := t.TempDir()
	foreign := filepath.Join(dir, "foreign")
	if err := os.WriteFile(foreign, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, what := range map[string]string{
		foreign:                             "set aside as " + foreign + ".bad-1",
		dir:                                 "it is a directory; going on in memory only",
		filepath.Join(dir, "missing", "in"): "going on in memory only",
	} {
		a := newNode(t, crust.Config{Cache: path})
		e := a.next(crust.EventCacheTrouble)
		if e.Err() == nil || !strings.Contains(e.Err().Error(), what) {
			t.Errorf("%s: %v", path, e.Err())
		}
		b := newNode(t, crust.Config{})
		link(t, a, b)
		if a.Close(); a.EventsPending() && a.next(crust.EventStopped, crust.EventLost).Type == crust.EventCacheTrouble {
			t.Errorf("%s: told twice", path)
		}
	}
	if b, err := os.ReadFile(foreign + ".bad-1"); err != nil || string(b) != "mine" {
		t.Errorf("%q, %v", b, err)
	}
	if len(listed(t, foreign)) != 1 {
		t.Error("the new file is not used")
	}
}

func TestCacheFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache")
	if _, err := crust.OpenCache(path); !errors.Is(err, fs.ErrNotExist) || crust.CodeOf(err) != crust.CodeIO {
		t.Error(err)
	}
	if err := os.WriteFile(path, []byte("foreign"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := crust.OpenCache(path); crust.CodeOf(err) != crust.CodeInvalid {
		t.Error(err)
	}
	os.Remove(path)
	now := time.Now()
	a, b := keyOf(t, 1).ID(), keyOf(t, 2).ID()
	fill(t, path, now.Add(-48*time.Hour), crust.Contact{Endpoint: endpointAt("192.0.2.1:1"), Peer: a})
	fill(t, path, now, crust.Contact{Endpoint: endpointAt("192.0.2.2:1"), Peer: b})
	c, err := crust.OpenCache(path)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := c.Verify(); err != nil || r.Peers != 2 || r.Slots != 200 || r.Version != 1 || r.Size != r.Want || r.Writes != 2 || r.Damage != nil {
		t.Errorf("%+v %v", r, err)
	}
	gone, err := c.Prune(24 * time.Hour)
	if err != nil || len(gone) != 1 || gone[0].Peer != a || gone[0].Endpoints[0].Endpoint != endpointAt("192.0.2.1:1") {
		t.Errorf("%+v %v", gone, err)
	}
	if removed, err := c.Remove(a); removed || err != nil {
		t.Error(removed, err)
	}
	if removed, err := c.Remove(b); !removed || err != nil {
		t.Error(removed, err)
	}
	if list, err := c.List(); len(list) != 0 || err != nil {
		t.Errorf("%+v %v", list, err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Prune(0); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Error("Prune has made a file")
	}
}

func TestTheUsersOwnCache(t *testing.T) {
	state := t.TempDir()
	t.Setenv("XDG_STATE_HOME", state)
	path, err := crust.DefaultCachePath()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(path, state) {
		t.Skip("the state directory is elsewhere here")
	}
	a, b := newNode(t, crust.Config{Cache: crust.DefaultCache}), newNode(t, crust.Config{})
	link(t, a, b)
	a.Close()
	if list := listed(t, path); len(list) != 1 || list[0].Peer != b.ID() {
		t.Errorf("%+v", list)
	}
	if info, err := os.Stat(filepath.Dir(path)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v %v", info, err)
	}
	t.Setenv("XDG_STATE_HOME", "relative")
	t.Setenv("HOME", "")
	if _, err := crust.DefaultCachePath(); crust.CodeOf(err) != crust.CodeInvalid {
		t.Error(err)
	}
	for _, cfg := range []crust.Config{{Cache: crust.DefaultCache}, {CachePeers: -1}, {CachePeers: 65537}} {
		if _, err := crust.New(cfg); crust.CodeOf(err) != crust.CodeInvalid {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}
