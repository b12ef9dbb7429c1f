package sessions_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/libcrust/libcrust/cmd/crust/benchkit"
	"github.com/libcrust/libcrust/cmd/crust/benchkit/sessions"
)

func TestFlowArrivesAndIsCounted(t *testing.T) {
	for _, name := range []string{"secure-utp", "secure-tcp"} {
		out, in := io.Pipe()
		sunk := make(chan error, 1)
		go func() { sunk <- sessions.Sink(t.Context(), name, loopback, 100*time.Millisecond, in) }()
		lines := json.NewDecoder(out)
		var hello, got benchkit.FlowReport
		if err := lines.Decode(&hello); err != nil {
			t.Fatal(err)
		}
		sent := make(chan error, 1)
		go func() { sent <- sessions.Source(t.Context(), name, hello.Address, 10*time.Second) }()
		if err := lines.Decode(&got); err != nil {
			t.Fatal(err)
		}
		if got.Seconds != 0.1 || got.Bytes < benchkit.ChunkSize || got.Bytes%benchkit.ChunkSize != 0 {
			t.Errorf("%s: the report is %+v", name, got)
		}
		for end, result := range map[string]chan error{"sink": sunk, "source": sent} {
			if err := <-result; err != nil {
				t.Errorf("%s: the %s ended with %v", name, end, err)
			}
		}
	}
}

func TestSinkRefusesOtherBytes(t *testing.T) {
	out, in := io.Pipe()
	sunk := make(chan error, 1)
	go func() { sunk <- sessions.Sink(t.Context(), "secure-utp", loopback, 10*time.Second, in) }()
	var hello benchkit.FlowReport
	if err := json.NewDecoder(out).Decode(&hello); err != nil {
		t.Fatal(err)
	}
	transport, err := benchkit.FindTransport(sessions.Transports(), "secure-utp")
	if err != nil {
		t.Fatal(err)
	}
	client, err := transport.NewClient()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	conn, err := client.Dial(t.Context(), hello.Address)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Send(make([]byte, benchkit.ChunkSize)); err != nil {
		t.Fatal(err)
	}
	if err := <-sunk; err == nil || !strings.Contains(err.Error(), "other bytes arrived") {
		t.Errorf("the sink ended with %v", err)
	}
}

func TestSinkAndSourceWithoutEachOther(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var out bytes.Buffer
	cancel()
	if err := sessions.Sink(ctx, "secure-utp", loopback, time.Second, &out); err == nil {
		t.Error("a sink that is told to stop has a result")
	}
	if err := sessions.Source(t.Context(), "secure-utp", "nowhere", time.Second); err == nil {
		t.Error("a source that cannot dial ends well")
	}
	if err := sessions.Sink(t.Context(), "swan", loopback, time.Second, &out); err == nil {
		t.Error("there is a transport swan")
	}
}
