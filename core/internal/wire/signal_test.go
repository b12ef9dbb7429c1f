package wire

import (
	"bytes"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/libcrust/libcrust/core/internal/endpoint"
)

// body returns the body of the one frame in b.
func body(t *testing.T, b []byte, want FrameType) []byte {
	t.Helper()
	kind, body, rest, err := NextFrame(b)
	if err != nil || kind != want || len(rest) != 0 || kind.In(TypeFrames) || !kind.In(TypeControl) {
		t.Fatalf("frame %d, %d left, %v", kind, len(rest), err)
	}
	return body
}

func TestSeen(t *testing.T) {
	for text, addr := range map[string]string{
		"0a 06 cb007105 156b":                         "203.0.113.5:5483",
		"0a 12 20010db8000000000000000000000001 0007": "[2001:db8::1]:7",
	} {
		want := netip.MustParseAddrPort(addr)
		b := AppendSeen(nil, want)
		golden(t, addr, b, text)
		if got, err := ParseSeen(body(t, b, FrameSeen)); err != nil || got != want {
			t.Errorf("%v, %v; want %v", got, err, want)
		}
	}
	if got := AppendSeen(nil, netip.MustParseAddrPort("[::ffff:203.0.113.5]:5483")); len(got) != 8 {
		t.Errorf("a mapped address takes %d bytes", len(got))
	}
	for _, n := range []int{0, 5, 7, 17, 19} {
		if got, err := ParseSeen(make([]byte, n)); err == nil {
			t.Errorf("%d bytes: %v", n, got)
		}
	}
}

func TestEcho(t *testing.T) {
	for _, c := range []struct {
		want  Echo
		text  string
		least int // bytes of the body that it takes
	}{
		{Echo{Tag: 0x0102030405060708, Port: 5483}, "14 0a 0102030405060708 156b", 10},
		{Echo{Tag: 0x0102030405060708, Port: 5483, TCP: 5484}, "14 0c 0102030405060708 156b 156c", 12},
		{Echo{Tag: 0x0102030405060708, TCP: 5484}, "14 0c 0102030405060708 0000 156c", 12},
	} {
		b := c.want.Append(nil)
		golden(t, "echo", b, c.text)
		whole := body(t, b, FrameEcho)
		if got, err := ParseEcho(whole); err != nil || got != c.want {
			t.Errorf("%+v, %v", got, err)
		}
		if got, err := ParseEcho(append(whole, 1, 2, 3)); c.want.TCP != 0 && (err != nil || got != c.want) {
			t.Errorf("with more behind it: %+v, %v", got, err)
		}
		for n := range c.least {
			got, err := ParseEcho(whole[:n])
			if alone := n == 10 && c.want.Port != 0; (err == nil) != alone || alone && got != (Echo{Tag: c.want.Tag, Port: c.want.Port}) {
				t.Errorf("cut to %d bytes: %+v, %v", n, got, err)
			}
		}
	}
	for _, bad := range []Echo{{Tag: 1}, {Port: 1}, {TCP: 1}} {
		if got, err := ParseEcho(body(t, bad.Append(nil), FrameEcho)); err == nil {
			t.Errorf("%+v parses", got)
		}
	}
}

func TestSeekAndReply(t *testing.T) {
	s := Seek{ID: [MeetingID]byte{1, 2}, To: testKey(t, 1).ID(), Hops: MaxHops, Letter: []byte("letter")}
	b := s.Append(nil)
	golden(t, "seek", b, "0b 37 0102"+strings.Repeat("00", 14)+testPeer+"06 6c6574746572")
	if got, err := ParseSeek(body(t, b, FrameSeek)); err != nil || !reflect.DeepEqual(got, s) {
		t.Errorf("%+v, %v", got, err)
	}
	r := Reply{ID: s.ID, Letter: s.Letter}
	b = r.Append(nil)
	golden(t, "reply", b, "0c 16 0102"+strings.Repeat("00", 14)+"6c6574746572")
	if got, err := ParseReply(body(t, b, FrameReply)); err != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("%+v, %v", got, err)
	}
	whole := body(t, s.Append(nil), FrameSeek)
	for n := range len(whole) - len(s.Letter) + 1 {
		if got, err := ParseSeek(whole[:n]); err == nil {
			t.Errorf("a seek cut to %d bytes still parses: %+v", n, got)
		}
	}
	for n := range MeetingID + 1 {
		if got, err := ParseReply(whole[:n]); err == nil {
			t.Errorf("a reply cut to %d bytes still parses: %+v", n, got)
		}
	}
	s.Hops++
	if _, err := ParseSeek(body(t, s.Append(nil), FrameSeek)); err == nil {
		t.Error("a seek over more hops than there may be")
	}
	s.Hops, s.Letter, r.Letter = 0, make([]byte, MaxLetter+1), make([]byte, MaxLetter+1)
	if _, err := ParseSeek(body(t, s.Append(nil), FrameSeek)); err == nil {
		t.Error("a seek with a letter that is too long")
	}
	if _, err := ParseReply(body(t, r.Append(nil), FrameReply)); err == nil {
		t.Error("a reply with a letter that is too long")
	}
}

func testLetter() Letter {
	return Letter{
		Kind: LetterAnswer, ID: [MeetingID]byte{7}, Written: 0x0102030405060708,
		Endpoints: []endpoint.Endpoint{endpoint.New(endpoint.UTP, netip.MustParseAddrPort("203.0.113.5:5483"))},
		UDP:       NAT{Mapping: EndpointIndependent, Ports: PortsPreserving},
		TCP:       NAT{Mapping: AddressPortDependent, Ports: PortsSequential, Step: 2},
	}
}

func TestLetter(t *testing.T) {
	l := testLetter()
	b := l.Append(nil)
	golden(t, "letter", b, "02 07"+strings.Repeat("00", 15)+"0102030405060708 01 02 04 cb007105 156b"+
		"11 00 0000 0000 0000 0000 00000000 00"+"23 00 0002 0000 0000 0000 00000000 00")
	if got, err := ParseLetter(b); err != nil || !reflect.DeepEqual(got, l) {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := ParseLetter(append(bytes.Clone(b), 9, 0, 1, 5)); err != nil || !reflect.DeepEqual(got, l) {
		t.Errorf("with a field to come: %+v, %v", got, err)
	}
	for n := range b {
		if got, err := ParseLetter(b[:n]); err == nil {
			t.Errorf("cut to %d bytes it still parses: %+v", n, got)
		}
	}
	b[0] = 9
	if got, err := ParseLetter(b); err == nil {
		t.Errorf("of an unknown kind: %+v", got)
	}
	l.Endpoints = make([]endpoint.Endpoint, MaxLetterEndpoints+5)
	for i := range l.Endpoints {
		l.Endpoints[i] = endpoint.New(endpoint.TCP, netip.MustParseAddrPort("[2001:db8::1]:7"))
	}
	if got, err := ParseLetter(l.Append(nil)); err != nil || len(got.Endpoints) != MaxLetterEndpoints {
		t.Errorf("%d endpoints, %v", len(got.Endpoints), err)
	}
	if n := len(l.Append(nil)); n > MaxLetter-200 {
		t.Errorf("the longest letter of %d bytes leaves no room for its seal", n)
	}
}

func FuzzLetter(f *testing.F) {
	f.Add(testLetter().Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := ParseLetter(b)
		if err != nil {
			return
		}
		if len(l.Endpoints) > MaxLetterEndpoints {
			t.Fatalf("%d endpoints", len(l.Endpoints))
		}
		if again, err := ParseLetter(l.Append(nil)); err != nil || !reflect.DeepEqual(again, l) {
			t.Fatalf("%+v comes back as %+v, %v", l, again, err)
		}
	})
}

func FuzzSignals(f *testing.F) {
	f.Add(make([]byte, 6))
	f.Add(append(make([]byte, MeetingID+32), 6, 1, 2, 3))
	f.Fuzz(func(t *testing.T, b []byte) {
		if from, err := ParseSeen(b); err == nil {
			_, again, _, _ := NextFrame(AppendSeen(nil, from))
			if back, err := ParseSeen(again); err != nil || back != from {
				t.Fatalf("seen %v comes back as %v, %v", from, back, err)
			}
		}
		if s, err := ParseSeek(b); err == nil {
			if _, again, _, err := NextFrame(s.Append(nil)); err != nil || !bytes.Equal(again, b) {
				t.Fatalf("seek %x comes back as %x, %v", b, again, err)
			}
		}
		if r, err := ParseReply(b); err == nil {
			if _, again, _, err := NextFrame(r.Append(nil)); err != nil || !bytes.Equal(again, b) {
				t.Fatalf("reply %x comes back as %x, %v", b, again, err)
			}
		}
	})
}
