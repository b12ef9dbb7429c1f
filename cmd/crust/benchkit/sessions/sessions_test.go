package sessions_test

import (
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libcrust/libcrust/cmd/crust/benchkit"
	"github.com/libcrust/libcrust/cmd/crust/benchkit/sessions"
)

var loopback = netip.MustParseAddr("127.0.0.1")

func TestAllTransportsMeasure(t *testing.T) {
	results, err := benchkit.Run(t.Context(), benchkit.Options{
		Transports: sessions.Transports(), Tests: benchkit.Tests, Runs: 2, InProcess: true,
		Volume: benchkit.Volume{Duration: 5 * time.Millisecond, Pings: 50},
	})
	if err != nil {
		t.Fatal(err)
	}
	var got, want []string
	for _, r := range results {
		got = append(got, r.Test+" "+r.Transport)
		if len(r.Runs) != 2 || r.Value <= 0 {
			t.Errorf("%s over %s is %v of %v", r.Test, r.Transport, r.Value, r.Runs)
		}
	}
	tests := []string{"bulk", "bulk8", "bulk64", "msg64", "msg1k", "ping", "datagram64", "datagram", "connect", "connect8"}
	for _, test := range tests {
		for _, transport := range []string{"secure-tcp", "secure-tcp-chacha", "secure-tcp-events", "secure-utp", "secure-utp-chacha", "tracer"} {
			if strings.HasPrefix(test, "datagram") && !strings.HasPrefix(transport, "secure-utp") {
				continue
			}
			want = append(want, test+" "+transport)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("the results are %q, want %q", got, want)
	}
}

// ends connects a client to a server that hands its connection to serve.
func ends(t *testing.T, serve func(benchkit.Conn)) benchkit.Conn {
	t.Helper()
	transport, err := benchkit.FindTransport(sessions.Transports(), "secure-tcp")
	if err != nil {
		t.Fatal(err)
	}
	server, err := transport.Listen(loopback, serve)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Errorf("close the server: %v", err)
		}
	})
	client, err := transport.NewClient()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Errorf("close the client: %v", err)
		}
	})
	conn, err := client.Dial(t.Context(), server.Address())
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func TestMessagesArriveAndTheEndIsTold(t *testing.T) {
	served := make(chan error, 1)
	conn := ends(t, func(conn benchkit.Conn) {
		message := make([]byte, 5)
		err := conn.Receive(message)
		if err == nil {
			err = conn.Send(append([]byte("re: "), message...))
		}
		if err == nil {
			err = conn.Receive(message)
		}
		served <- err
	})
	if err := conn.Send([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 9)
	if err := conn.Receive(answer); err != nil {
		t.Fatal(err)
	}
	if string(answer) != "re: hello" {
		t.Errorf("the answer is %q", answer)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-served; err != io.EOF {
		t.Errorf("after the client's close the server got %v, want io.EOF", err)
	}
}

func TestMessageOfAnotherSizeIsAnError(t *testing.T) {
	served := make(chan error, 1)
	conn := ends(t, func(conn benchkit.Conn) { served <- conn.ReceiveAll(2, benchkit.MessageSize) })
	if err := conn.SendAll(1, benchkit.MessageSize); err != nil {
		t.Fatal(err)
	}
	if err := conn.SendAll(1, benchkit.KilobyteSize); err != nil {
		t.Fatal(err)
	}
	if err := <-served; err == nil || !strings.Contains(err.Error(), "1024 bytes arrived, not of 64") {
		t.Errorf("the error is %v", err)
	}
}

func TestDialToNobodyFails(t *testing.T) {
	transport := sessions.Transports()[0]
	server, err := transport.Listen(loopback, func(benchkit.Conn) {})
	if err != nil {
		t.Fatal(err)
	}
	address := server.Address()
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	client, err := transport.NewClient()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Dial(t.Context(), address); err == nil || !strings.Contains(err.Error(), "connect_failed") {
		t.Errorf("the error is %v", err)
	}
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
}
