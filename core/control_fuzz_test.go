package crust_test

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/internal/simnet"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// FuzzControl lets a peer say what it likes, correctly sealed, to a service that introduces,
// relays, gossips and tests who can be reached: frames in any order, beside another peer, which must
// notice nothing, and at most the session of who says it ends. Input: frames of type, pause in tenths of a
// second, length, body; at most 64.
func FuzzControl(f *testing.F) {
	keys := sortedKeys(f, 3) // of the other one, the service, who fuzzes
	other, evil := keys[0].ID(), keys[2].ID()
	input := func(frames ...[]byte) (b []byte) {
		for i, frame := range frames {
			t, body, _, err := wire.NextFrame(frame)
			if err != nil {
				f.Fatal(err)
			}
			if len(body) > 255 {
				f.Fatal("the seed is too long")
			}
			b = append(append(b, byte(t), byte(i%3), byte(len(body))), body...)
		}
		return b
	}
	seek := wire.Seek{ID: [wire.MeetingID]byte{1}, To: other, Hops: 5, Letter: make([]byte, 90)}
	toUs := wire.Seek{ID: [wire.MeetingID]byte{2}, To: keys[1].ID(), Hops: 5, Letter: make([]byte, 90)}
	open := wire.RelayOpen{ID: 1, Peer: other}
	for _, seed := range [][]byte{
		input(seek.Append(nil), seek.Append(nil), wire.Reply{ID: seek.ID, Letter: make([]byte, 80)}.Append(nil)),
		input(toUs.Append(nil), wire.Reply{ID: toUs.ID, Letter: []byte{1}}.Append(nil)),
		input(open.Append(nil), wire.AppendRelayData(nil, 1, []byte("first flight")), wire.AppendRelayCredit(nil, 1, 100), wire.AppendRelayClose(nil, 1, wire.RelayDone)),
		input(wire.RelayOpen{ID: 3, From: true, Peer: other}.Append(nil), wire.AppendRelayData(nil, 3, make([]byte, 100)), wire.AppendRelayClose(nil, 3, wire.RelayDone)),
		input(wire.RelayOpen{ID: 5, Peer: evil}.Append(nil), wire.RelayOpen{ID: 5, Peer: other}.Append(nil)),
		input(wire.Echo{Tag: 7, Port: 40000, TCP: 9}.Append(nil), wire.Reach{Transport: crust.UTP, Port: 40000}.Append(nil), wire.Reach{Transport: crust.TCP, Port: 1}.Append(nil)),
		input(wire.Reached{Result: wire.ReachDone, To: endpointAt("198.51.100.66:1").Addr.Addr()}.Append(nil), wire.Doors{UTP: 7, TCP: 8}.Append(nil)),
		input(wire.Gossip{Kind: wire.GossipNews}.Append(nil), wire.RelayKeys{Anew: true}.Append(nil)),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		synctest.Test(t, func(t *testing.T) {
			internet := simnet.New(1)
			internet.SetDefaultLink(simnet.Link{Latency: 10 * time.Millisecond})
			start := func(i int, host string) *node {
				cfg := gossiping(crust.Config{Identity: keys[i], Relay: crust.RelayData}, "0.0.0.0", "tcp", "utp")
				return newNode(t, crust.On(internet.Host(host), cfg))
			}
			a, s, b := start(0, innocentAt), start(1, guardedAt), start(2, offenderAt)
			link(t, a, s)
			link(t, b, s)
			for rest, left := input, 64; len(rest) > 3 && left > 0; left-- {
				n := min(int(rest[2]), len(rest)-3)
				crust.Control(b.Service, s.ID(), wire.AppendFrame(nil, wire.FrameType(rest[0]), rest[3:3+n]...))
				time.Sleep(time.Duration(rest[1]) * 100 * time.Millisecond)
				rest = rest[3+n:]
			}
			time.Sleep(time.Minute)
			for _, pair := range [][2]*node{{a, s}, {s, a}} {
				if err := pair[0].Send(pair[1].ID(), []byte("still here"), 0); err != nil {
					t.Fatal(err)
				}
				for {
					e := pair[1].next(crust.EventMessage, crust.EventDatagram, crust.EventLost, crust.EventSuspended, crust.EventConnected, crust.EventAlert)
					if e.Type == crust.EventMessage && e.Peer == pair[0].ID() && bytes.Equal(e.Data, []byte("still here")) {
						break
					}
					if e.Peer != b.ID() && (e.Type != crust.EventAlert || e.Alert().Address.String() != offenderAt+"/32") {
						t.Fatalf("%v of %s: %v", e.Type, e.Peer.Short(), e.Err())
					}
				}
			}
			for _, n := range []*node{b, s, a} {
				n.Close()
			}
		})
	})
}
