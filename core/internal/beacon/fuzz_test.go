package beacon

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/endpoint"
	"github.com/libcrust/libcrust/core/internal/simnet"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// script is what bytes say that a member of the network does.
type script struct {
	in   []byte
	keys [4]*identity.Key
	last []byte // datagram
}

func (s *script) byte() byte {
	if len(s.in) == 0 {
		return 0
	}
	b := s.in[0]
	s.in = s.in[1:]
	return b
}

// beacon makes one of a peer, with a record of it or of another.
func (s *script) beacon(a *attacker) (wire.Beacon, *identity.Key) {
	key := s.keys[s.byte()%4]
	m := wire.Beacon{
		Kind: wire.BeaconKind(s.byte() % 5), Flags: s.byte(), From: a.from,
		Time: uint64(time.Now().Add(time.Duration(int8(s.byte())) * 10 * time.Minute).UnixMilli()),
	}
	from := s.byte()
	if from%8 == 7 {
		m.From = netip.AddrFrom4([4]byte{10, 0, 0, from})
	}
	for range s.byte() % 5 {
		m.Doors = append(m.Doors, wire.Door{Transport: endpoint.Transport(s.byte() % 4), Port: uint16(s.byte())})
	}
	if kind := s.byte(); kind%8 != 0 {
		c := wire.Contact{Peer: key.ID(), Seq: m.Time, Life: uint32(kind) * 60}
		for range kind % 4 {
			at := netip.AddrFrom4([4]byte{10, 0, s.byte() % 2, s.byte()})
			c.Endpoints = append(c.Endpoints, endpoint.New(endpoint.TCP, netip.AddrPortFrom(at, uint16(s.byte())+1)))
		}
		m.Record = c.Append(nil, key.Sign)
	}
	if other := s.byte(); other%8 == 1 {
		key = s.keys[other%4]
	}
	for i := range m.Echo {
		if m.Kind == wire.BeaconAnswer && len(s.last) > i {
			m.Echo[i] = s.last[i]
		}
	}
	return m, key
}

// FuzzHear has a member of the network say whatever bytes say, at whatever times: beacons that are right or nearly so, any contents,
// and what was said before. What the victim tells makes sense, is of its own network, and
// has bounds.
func FuzzHear(f *testing.F) {
	f.Add([]byte{0, 1, 1, 1, 0, 0, 1, 1, 80, 9, 0, 66, 80, 0, 4, 30, 3, 0, 4, 200})
	f.Add([]byte{0, 2, 1, 1, 0, 0, 0, 2, 0, 9, 1, 0, 8, 1, 0, 4, 1, 3, 3, 3, 0, 2, 3, 0, 1, 0, 0, 0, 4, 255})
	f.Add([]byte{1, 20, 1, 1, 0, 0, 0, 2, 0, 9, 1, 0, 8, 1, 0, 4, 1, 3, 3, 3, 0, 2})
	f.Fuzz(func(t *testing.T, in []byte) {
		synctest.Test(t, func(t *testing.T) {
			net := simnet.New(1)
			victim := newStation(t, net.Host("10.0.0.1"), "net", at("tcp://10.0.0.1:1"), false).run()
			defer victim.stop()
			time.Sleep(time.Minute)
			a := newAttacker(t, net.Host("10.0.0.66"), "net")
			s := script{in: in[:min(len(in), 1024)]}
			for i := range s.keys {
				seed := make([]byte, identity.SeedSize)
				seed[0] = byte(i + 1)
				var err error
				if s.keys[i], err = identity.FromSeed(seed); err != nil {
					t.Fatal(err)
				}
			}
			victim.told()
			known := map[identity.PeerID]bool{}
			for len(s.in) > 0 {
				switch s.byte() % 5 {
				case 0:
					m, key := s.beacon(a)
					if d, err := a.seal.Seal(m.Append(nil, key.Sign), 0); err == nil {
						a.repeat(d)
						s.last = d
					}
				case 1:
					n := min(int(s.byte())*4, len(s.in))
					content := make([]byte, max(600, n))
					copy(content, s.in[:n])
					s.in = s.in[n:]
					if d, err := a.seal.Seal(content, 0); err == nil {
						a.repeat(d)
					}
				case 3:
					if s.last != nil {
						a.repeat(s.last)
					}
				default:
					time.Sleep(time.Duration(s.byte()) * 5 * time.Second)
				}
				synctest.Wait()
				facts, _ := victim.told()
				sensible(t, facts, known)
			}
		})
	})
}

// sensible fails when what a beacon has told does not fit what it had told before.
func sensible(t *testing.T, facts []Fact, known map[identity.PeerID]bool) {
	t.Helper()
	here := netip.MustParsePrefix("10.0.0.0/24")
	for _, f := range facts {
		switch f.Kind {
		case Discovered:
			if len(f.Peer.Endpoints) == 0 || len(f.Peer.Endpoints) > maxEndpoints {
				t.Fatalf("a peer with %d endpoints", len(f.Peer.Endpoints))
			}
			for _, ep := range f.Peer.Endpoints {
				if !here.Contains(ep.Addr.Addr()) || ep.Addr.Port() == 0 {
					t.Fatalf("a peer at %v", ep)
				}
			}
			known[f.Peer.ID] = true
		case Forgotten:
			if !known[f.Peer.ID] {
				t.Fatal("who was not known is forgotten")
			}
			delete(known, f.Peer.ID)
		}
	}
}
