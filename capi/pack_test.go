package main

import (
	"bytes"
	"slices"
	"testing"
	"unsafe"

	crust "github.com/libcrust/libcrust/core"
)

// at reads memory that an address of a packed batch points to.
func at(t *testing.T, m packed, address uintptr, n int) []byte {
	t.Helper()
	offset := address - m.base
	if address < m.base || offset > uintptr(len(m.bytes)) || offset+uintptr(n) > uintptr(len(m.bytes)) {
		t.Fatalf("address %#x with %d bytes lies outside of the batch's %d bytes at %#x", address, n, len(m.bytes), m.base)
	}
	return m.bytes[offset:][:n]
}

func TestPackKeepsEventsAndBounds(t *testing.T) {
	ids := [3]crust.PeerID{{1}, {2}, {3}}
	var events []crust.Event
	for i := range 5000 {
		size := (i * 7919) % 700
		if i%1000 == 999 {
			size = 300_000 // larger than a batch is meant to be
		}
		events = append(events, crust.Event{
			Type: crust.EventMessage, Priority: uint8(i), Peer: ids[i/10%3], Data: bytes.Repeat([]byte{byte(i)}, size),
		})
	}
	s := source{}
	s.refill(crust.Batch{Events: events})
	next := 0
	for !s.empty() {
		m, release := packOnce(t, &s, 0)
		if len(m.events) == 0 || len(m.bytes) > targetBytes && len(m.events) > 1 {
			t.Fatalf("a batch of %d events in %d bytes", len(m.events), len(m.bytes))
		}
		peers := map[uintptr]crust.PeerID{}
		for _, e := range m.events {
			want := events[next]
			next++
			if e.kind != uint32(want.Type) || e.priority != want.Priority || e.size != uint64(len(want.Data)) {
				t.Fatalf("event %d is %+v", next-1, e)
			}
			if !bytes.Equal(at(t, m, e.data, int(e.size)), want.Data) {
				t.Fatalf("the data of event %d differs", next-1)
			}
			if e.data%8 != 0 {
				t.Fatalf("the data of event %d is not aligned", next-1)
			}
			if !bytes.Equal(at(t, m, e.peer, 32), want.Peer[:]) {
				t.Fatalf("the peer of event %d differs", next-1)
			}
			if known, ok := peers[e.peer]; ok && known != want.Peer {
				t.Fatal("two peers share memory")
			}
			peers[e.peer] = want.Peer
		}
		if runs := len(m.events)/10 + 2; len(peers) > runs {
			t.Errorf("%d copies of peer ids for at most %d runs", len(peers), runs)
		}
		release()
	}
	if next != len(events) {
		t.Errorf("%d of %d events came out", next, len(events))
	}
}

func TestPackKeepsTheLimit(t *testing.T) {
	events := slices.Repeat([]crust.Event{{Type: crust.EventMessage, Peer: crust.PeerID{1}}}, 100)
	s := source{}
	s.refill(crust.Batch{Events: events})
	for left := 100; left > 0; {
		m, release := packOnce(t, &s, 7)
		if len(m.events) != min(7, left) {
			t.Fatalf("%d events with a limit of 7 and %d left", len(m.events), left)
		}
		for _, e := range m.events {
			if e.size != 0 {
				t.Errorf("an empty message has %d bytes", e.size)
			}
			at(t, m, e.data, 1) // points into the batch all the same
		}
		left -= len(m.events)
		release()
	}
}

func TestPackOfRareEvents(t *testing.T) {
	events := []crust.Event{
		{Type: crust.EventConnectionInfo, Token: 9, Data: []byte("info")},
		{Type: crust.EventWritable, Peer: crust.PeerID{5}},
		{Type: crust.EventDatagram, Peer: crust.PeerID{5}},
		{Type: crust.EventStopped},
	}
	s := source{}
	s.refill(crust.Batch{Events: events})
	m, release := packOnce(t, &s, 0)
	defer release()
	info, writable, datagram, stopped := m.events[0], m.events[1], m.events[2], m.events[3]
	if info.token != 9 || info.peer != 0 || string(at(t, m, info.data, int(info.size))) != "info" || info.text != 0 || info.endpoint != 0 {
		t.Errorf("CONNECTION_INFO is %+v", info)
	}
	if writable.data != 0 || writable.size != 0 || at(t, m, writable.peer, 32)[0] != 5 {
		t.Errorf("WRITABLE is %+v", writable)
	}
	if datagram.kind != uint32(crust.EventDatagram) || datagram.size != 0 || at(t, m, datagram.peer, 32)[0] != 5 {
		t.Errorf("DATAGRAM is %+v", datagram)
	}
	at(t, m, datagram.data, 1) // an empty datagram points into the batch all the same
	if stopped.kind != uint32(crust.EventStopped) || stopped.code != 0 || stopped.peer != 0 || !m.stopped {
		t.Errorf("STOPPED is %+v", stopped)
	}
}

func TestPackStopped(t *testing.T) {
	m, release := packedStopped(t, crust.CodePanicked, "why\x00not")
	defer release()
	e := m.events[0]
	if len(m.events) != 1 || e.kind != uint32(crust.EventStopped) || e.code != int32(crust.CodePanicked) {
		t.Fatalf("STOPPED is %+v", m.events)
	}
	text := at(t, m, e.text, len("why\uFFFDnot")+1)
	if string(text) != "why\uFFFDnot\x00" {
		t.Errorf("the text is %q", text)
	}
}

// packed is a batch as the program sees it.
type packed struct {
	events  []event
	bytes   []byte
	base    uintptr
	stopped bool
}

func packOnce(t *testing.T, s *source, limit int) (packed, func()) {
	t.Helper()
	b, n, stopped, err := s.pack(limit)
	if err != nil {
		t.Fatal(err)
	}
	base, used := eventsOf(b), int(b.used)
	m := packed{
		events: unsafe.Slice((*event)(base), n), bytes: unsafe.Slice((*byte)(base), used), base: uintptr(base), stopped: stopped,
	}
	return m, func() { freeBatch(b) }
}

func packedStopped(t *testing.T, code crust.Code, text string) (packed, func()) {
	t.Helper()
	b := packStopped(code, text)
	if b == nil {
		t.Fatal("no memory")
	}
	base, used := eventsOf(b), int(b.used)
	return packed{events: unsafe.Slice((*event)(base), 1), bytes: unsafe.Slice((*byte)(base), used), base: uintptr(base)}, func() { freeBatch(b) }
}
