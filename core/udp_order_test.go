package crust_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/internal/simnet"
)

// TestUDPAnyOrderOfCalls: services connect by endpoint with and without peer id
// and by bootstrap, send and disconnect at random moments, over uTP alone or over
// both transports, on links that delay, lose and shuffle datagrams. Every promise
// about events holds meanwhile, and when it is quiet both sides agree.
func TestUDPAnyOrderOfCalls(t *testing.T) {
	for seed := range uint64(slowly(24)) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { anyOrderUDP(t, seed) })
		})
	}
}

func anyOrderUDP(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 78))
	internet := simnet.New(seed)
	latency := time.Duration(r.IntN(20)) * time.Millisecond
	internet.SetDefaultLink(simnet.Link{
		Latency: latency, Jitter: latency * 2, Loss: float64(seed%3) * 0.05, Reorder: 0.1, Duplicate: 0.05,
	})
	keys := sortedKeys(t, 3)
	all := make([]*witness, 2+seed%2)
	hosts := make([]*simnet.Host, len(all))
	for i := range all {
		hosts[i] = internet.Host(fmt.Sprintf("10.0.0.%d", i+1))
	}
	contact := func(i int, r *rand.Rand) crust.Contact {
		transport := "utp"
		if seed%4 >= 2 && r.IntN(2) == 0 {
			transport = "tcp"
		}
		return crust.Contact{Endpoint: endpointAt(fmt.Sprintf("%s://10.0.0.%d:700", transport, i+1)), Peer: keys[i].ID()}
	}
	for i := range all {
		var others []crust.Contact
		for j := range all {
			if j != i {
				others = append(others, crust.Contact{Endpoint: contact(j, r).Endpoint})
			}
		}
		all[i] = newWitness(t, string(rune('a'+i)), crust.On(hosts[i], crust.Config{
			Identity: keys[i], Contacts: others, ConnectTimeout: 20 * time.Second,
			Listen: []crust.Endpoint{endpointAt("tcp://0.0.0.0:700"), endpointAt("utp://0.0.0.0:700")},
		}))
	}
	var wg sync.WaitGroup
	for i, w := range all {
		mine := rand.New(rand.NewPCG(seed, uint64(i)))
		wg.Go(func() {
			for range 60 {
				if j := mine.IntN(len(all)); j != i {
					randomCall(w, mine, contact(j, mine))
					time.Sleep(time.Duration(mine.IntN(60)) * time.Millisecond)
				}
			}
		})
	}
	wg.Wait()
	time.Sleep(time.Minute)
	for _, w := range all {
		if n := w.pendingTokens(); n != 0 {
			t.Errorf("%s: %d calls are not answered", w.name, n)
		}
		for code, n := range w.failed {
			t.Errorf("%s: %d times %v where somebody always listens", w.name, n, code)
		}
	}
	agree(t, all...)
	time.Sleep(5 * time.Second)
	delivered(t, all...)
	for _, w := range all {
		wg.Go(func() { w.Close() })
	}
	wg.Wait()
	for i, w := range all {
		<-w.done
		if n, m := hosts[i].Connections(), hosts[i].Sockets(); n != 0 || m != 0 {
			t.Errorf("%s: %d connections and %d sockets are left", w.name, n, m)
		}
		if w.finals == 0 || w.lost == 0 {
			t.Errorf("%s: %d answers and %d losses prove little", w.name, w.finals, w.lost)
		}
	}
}
