//go:build linux

package natlab

import (
	"errors"
	"testing"

	"github.com/libcrust/libcrust/tests/linklab"
)

func newLab(t *testing.T, c Config) *Lab {
	t.Helper()
	l, err := New(c)
	if errors.Is(err, linklab.ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// TestKindsAreWhatTheySay proves each kind of NAT by measurement.
func TestKindsAreWhatTheySay(t *testing.T) {
	for _, k := range Kinds {
		t.Run(k.Name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, Config{A: k, B: Kinds[0], Seed: 5})
			udp, tcp, err := l.Measure(l.A)
			if err != nil {
				t.Fatal(err)
			}
			wantUDP, wantTCP := k.Want, k.Want
			if k.Name == "udp-blocked" {
				wantUDP = Facts{Blocked: true}
			}
			if wantTCP.Strangers == Polluted {
				wantTCP.Strangers = Refused // a refused SYN leaves nothing
			}
			if wantTCP.Strangers == Punished {
				wantTCP.Strangers = Dropped
			}
			wantTCP.Hairpin = false // not measured
			if udp != wantUDP {
				t.Errorf("UDP:\n%+v, want\n%+v", udp, wantUDP)
			}
			if tcp != wantTCP {
				t.Errorf("TCP:\n%+v, want\n%+v", tcp, wantTCP)
			}
		})
	}
}
