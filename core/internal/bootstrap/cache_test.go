package bootstrap

import (
	"bytes"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libcrust/libcrust/core/internal/endpoint"
)

func TestPeersSurviveARestartMostRecentFirst(t *testing.T) {
	path := place(t)
	c := opened(t, path, Options{})
	reach(t, c, 1, 2, 3, 1)
	want(t, "before", peers(t, c), []int{1, 3, 2})
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	want(t, "after", peers(t, opened(t, path, Options{})), []int{1, 3, 2})
	intact(t, path)
}

func TestAnEntryComesBackAsItWas(t *testing.T) {
	path := place(t)
	c := opened(t, path, Options{})
	utp := endpoint.New(endpoint.UTP, netip.MustParseAddrPort("[2001:db8::7]:40000"))
	record := bytes.Repeat([]byte{7}, MaxRecord)
	now := start.Add(1234567 * time.Nanosecond)
	err := c.Reached(now, Contact{Peer: id(5), At: at(5), Told: []endpoint.Endpoint{utp, at(5), at(6)}, Role: 1, Flags: 0x81, Record: record})
	if err != nil {
		t.Fatal(err)
	}
	reach(t, c, 6) // else nobody could be sure that the network works
	if removed, err := c.Failed(start.Add(time.Minute), id(5)); removed || err != nil {
		t.Fatal(removed, err)
	}
	c.Close()
	list, err := opened(t, path, Options{}).List()
	if err != nil || len(list) != 2 {
		t.Fatal(list, err)
	}
	e := list[1]
	ms := now.Truncate(time.Millisecond)
	wanted := Entry{
		Peer: id(5), Role: 1, Flags: 0x81, Success: ms, Failure: start.Add(time.Minute), Failures: 1, Record: record,
		Endpoints: []Known{{at(5), ms}, {utp, time.Time{}}, {at(6), time.Time{}}},
	}
	wanted.order, wanted.failed = e.order, e.failed
	if !reflect.DeepEqual(e, wanted) {
		t.Fatalf("got %+v\nwant %+v", e, wanted)
	}
}

func TestWhatWorkedComesFirst(t *testing.T) {
	c := opened(t, place(t), Options{})
	when := func(n int) time.Time { return start.Add(time.Duration(n) * time.Hour) }
	reached := func(n, at_ int, told ...int) []Known {
		t.Helper()
		k := Contact{Peer: id(1), At: at(at_)}
		for _, o := range told {
			k.Told = append(k.Told, at(o))
		}
		if err := c.Reached(when(n), k); err != nil {
			t.Fatal(err)
		}
		list, err := c.List()
		if err != nil {
			t.Fatal(err)
		}
		return list[0].Endpoints
	}
	reached(1, 1, 2, 3)
	reached(2, 2)
	got := reached(3, 4, 9, 1)
	wanted := []Known{{at(4), when(3)}, {at(9), time.Time{}}, {at(1), when(1)}, {at(2), when(2)}, {at(3), time.Time{}}}
	if !reflect.DeepEqual(got, wanted) {
		t.Fatalf("got %v\nwant %v", got, wanted)
	}
	got = reached(4, 4, 10, 11, 12, 13, 14, 15, 16, 17)
	if len(got) != MaxEndpoints || got[0] != (Known{at(4), when(4)}) || got[7] != (Known{at(16), time.Time{}}) {
		t.Fatalf("got %v", got)
	}
}

func TestARecordStaysUntilThereIsAnother(t *testing.T) {
	c := opened(t, place(t), Options{})
	for _, step := range []struct{ given, want string }{{"", ""}, {"one", "one"}, {"", "one"}, {"two", "two"}} {
		k := contact(1)
		if step.given != "" {
			k.Record = []byte(step.given)
		}
		if err := c.Reached(start, k); err != nil {
			t.Fatal(err)
		}
		if list, err := c.List(); err != nil || string(list[0].Record) != step.want {
			t.Fatalf("given %q: %q %v", step.given, list[0].Record, err)
		}
	}
}

func TestWhatAListReturnsIsTheCallers(t *testing.T) {
	c := opened(t, place(t), Options{})
	k := contact(1)
	k.Record = []byte("record")
	if err := c.Reached(start, k); err != nil {
		t.Fatal(err)
	}
	k.Record[0] = 'X'
	list, _ := c.List()
	list[0].Record[1], list[0].Endpoints[0] = 'X', Known{}
	if list, _ = c.List(); string(list[0].Record) != "record" || list[0].Endpoints[0].Endpoint != at(1) {
		t.Fatalf("%+v", list[0])
	}
}

func TestBadContactsAreRefused(t *testing.T) {
	c := opened(t, place(t), Options{})
	for name, k := range map[string]Contact{
		"peer id":                 {At: at(1)},
		"endpoint":                {Peer: id(1)},
		"\"tcp://203.0.113.1:0\"": {Peer: id(1), At: endpoint.New(endpoint.TCP, netip.MustParseAddrPort("203.0.113.1:0"))},
		"%eth0":                   {Peer: id(1), At: endpoint.New(endpoint.TCP, netip.MustParseAddrPort("[fe80::1%eth0]:1"))},
		"transport(9)":            {Peer: id(1), At: endpoint.Endpoint{Transport: 9, Addr: netip.MustParseAddrPort("203.0.113.1:1")}},
		"717 bytes":               {Peer: id(1), At: at(1), Record: make([]byte, MaxRecord+1)},
	} {
		if err := c.Reached(start, k); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	want(t, "afterwards", peers(t, c), nil)
	for _, o := range []Options{{Peers: -1}, {Peers: MaxPeers + 1}, {RetestAfter: -1}} {
		if c, err := Open(place(t), o); c != nil || err == nil {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if c, err := Open("", Options{}); c != nil || err == nil {
		t.Errorf("no name: %v", err)
	}
}

func TestRemoveAndPrune(t *testing.T) {
	c := opened(t, place(t), Options{Peers: 4})
	for n := range 4 {
		if err := c.Reached(start.Add(time.Duration(n)*time.Hour), contact(n)); err != nil {
			t.Fatal(err)
		}
	}
	if removed, err := c.Remove(id(2)); !removed || err != nil {
		t.Fatal(removed, err)
	}
	if removed, err := c.Remove(id(2)); removed || err != nil {
		t.Fatal(removed, err)
	}
	want(t, "removed", peers(t, c), []int{3, 1, 0})
	gone, err := c.Prune(start.Add(4*time.Hour), 3*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	want(t, "pruned", numbers(gone), []int{1, 0})
	want(t, "left", peers(t, c), []int{3})
	reach(t, c, 0, 1, 2)
	want(t, "full again", peers(t, c), []int{2, 1, 0, 3})
}

func TestSeveralBooksOfOneFileAgree(t *testing.T) {
	path := place(t)
	a, b := opened(t, path, Options{Peers: 100}), opened(t, path, Options{Peers: 100})
	var wg sync.WaitGroup
	for k, c := range []*Cache{a, b, a, b} {
		wg.Go(func() {
			for n := range 20 {
				reach(t, c, 20*k+n)
			}
		})
	}
	wg.Wait()
	of, err := a.List()
	if err != nil || len(of) != 80 {
		t.Fatalf("%d peers, %v", len(of), err)
	}
	if other, err := b.List(); err != nil || !reflect.DeepEqual(of, other) {
		t.Fatalf("the books differ: %v", err)
	}
	for k := range 4 { // each one's own are in their order
		last := 1 << 30
		for _, n := range numbers(of) {
			if n/20 == k {
				if n > last {
					t.Fatalf("%d comes after %d", n, last)
				}
				last = n
			}
		}
	}
	intact(t, path)
}

func TestAFileGrowsAndDoesNotShrink(t *testing.T) {
	path := place(t)
	small := opened(t, path, Options{Peers: 3})
	reach(t, small, 1, 2, 3, 4)
	want(t, "small", peers(t, small), []int{4, 3, 2})
	large := opened(t, path, Options{Peers: 40})
	want(t, "grown", peers(t, large), []int{4, 3, 2})
	reach(t, large, 5, 6)
	reach(t, small, 7) // it finds the new file
	want(t, "large", peers(t, large), []int{7, 6, 5, 4, 3, 2})
	want(t, "small", peers(t, small), []int{7, 6, 5})
	if r := intact(t, path); r.Slots != 40 || r.Size != r.Want {
		t.Fatalf("%+v", r)
	}
	if got := names(t, path); !reflect.DeepEqual(got, []string{"bootstrap.cache", "bootstrap.cache.lock"}) {
		t.Fatal(got)
	}
}

func TestEverythingFailsAfterClose(t *testing.T) {
	c := opened(t, place(t), Options{})
	for range 2 {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Reached(start, contact(1)); !errors.Is(err, ErrClosed) || !errors.Is(err, fs.ErrClosed) {
		t.Error(err)
	}
	if _, err := c.List(); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

// A process that was stopped while it had the lock must not stop others for ever.
func TestAHeldLockIsWaitedForNotLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := place(t)
		c := opened(t, path, Options{})
		reach(t, c, 1)
		other := lock{path: path + ".lock"}
		if err := other.take(); err != nil {
			t.Fatal(err)
		}
		defer other.close()
		began := time.Now()
		if err := c.Reached(start, contact(2)); !errors.Is(err, ErrBusy) {
			t.Fatal(err)
		}
		if took := time.Since(began); took < lockWait || took > lockWait+10*time.Millisecond {
			t.Fatalf("waited %v", took)
		}
		want(t, "meanwhile", peers(t, c), []int{1})
		late, err := Open(path, Options{})
		if late == nil || !errors.Is(err, ErrBusy) {
			t.Fatal(err)
		}
		defer late.Close()
		if _, err := late.List(); !errors.Is(err, ErrBusy) {
			t.Fatal(err)
		}
		if _, err := Inspect(path); !errors.Is(err, ErrBusy) {
			t.Fatal(err)
		}
		other.release()
		reach(t, late, 3)
		want(t, "afterwards", peers(t, c), []int{3, 1})
	})
}

// Who writes without a pause, each time for as long as a slow disk takes, keeps nobody
// else out.
func TestABusyWriterLeavesOthersTheLock(t *testing.T) {
	for _, takes := range []time.Duration{100 * time.Microsecond, 3 * time.Millisecond, 700 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			path := place(t)
			busy, other := opened(t, path, Options{}), opened(t, path, Options{})
			var done atomic.Bool
			var wg sync.WaitGroup
			wg.Go(func() {
				for n := 0; !done.Load(); n++ {
					err := busy.use(func(v *view) error {
						time.Sleep(takes)
						return v.store(succeed(nil, new(contact(n%20)), start))
					})
					if err != nil && !errors.Is(err, ErrBusy) {
						t.Error(err)
					}
				}
			})
			time.Sleep(time.Millisecond)
			for n := range 20 {
				if err := other.Reached(start, contact(100+n)); err != nil {
					t.Errorf("beside one that writes for %v each time: %v", takes, err)
					break
				}
			}
			done.Store(true)
			wg.Wait()
		})
	}
}

// A lock whose file was deleted locks nobody out who makes a new one.
func TestADeletedLockIsNoLock(t *testing.T) {
	path := place(t)
	a := opened(t, path, Options{})
	reach(t, a, 1)
	if err := os.Remove(path + ".lock"); err != nil {
		t.Fatal(err)
	}
	b := opened(t, path, Options{})
	if err := b.lock.take(); err != nil {
		t.Fatal(err)
	}
	if taken, err := a.lock.try(); taken || err != nil { // its own is gone
		t.Fatal(taken, err)
	}
	if taken, err := a.lock.try(); taken || err != nil { // and the new one is held
		t.Fatal(taken, err)
	}
	b.lock.release()
	reach(t, a, 2)
	want(t, "afterwards", peers(t, b), []int{2, 1})
}
