//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/libcrust/libcrust/cmd/crust/benchkit"
)

// datagramPeers are the transports that carry unreliable datagrams.
var datagramPeers = []string{"raw-udp", "raw-udp-batch", "quic-go"}

// datagramSink counts the datagrams that come within a time from the first on.
func datagramSink(ctx context.Context, name, listen string, duration time.Duration, lines *json.Encoder) error {
	if name == "quic-go" {
		return quicDatagramSink(ctx, listen, duration, lines)
	}
	if !slices.Contains(datagramPeers, name) {
		return fmt.Errorf("%s has no datagrams; those that have are %q", name, datagramPeers)
	}
	at, err := netip.ParseAddrPort(listen)
	if err != nil {
		return err
	}
	socket, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at))
	if err != nil {
		return err
	}
	s, err := newRawStream(socket, name == "raw-udp-batch")
	if err != nil {
		return errors.Join(err, socket.Close())
	}
	defer func() { _ = socket.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = socket.Close() })
	defer stop()
	if err := lines.Encode(report{Address: socket.LocalAddr().String()}); err != nil {
		return err
	}
	r, err := s.countDatagrams(duration)
	if err != nil {
		return err
	}
	return lines.Encode(r)
}

// countDatagrams counts what a socket receives within a time from the first on.
func (s *rawStream) countDatagrams(duration time.Duration) (report, error) {
	var r report
	var start time.Time
	for {
		var n, size int
		var err error
		if s.batch {
			n, size, err = receiveRun(s.raw, s.in, s.oob)
		} else {
			n, _, err = s.socket.ReadFromUDPAddrPort(s.in)
			size = n
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			r.Seconds = duration.Seconds()
			return r, nil
		}
		if err != nil {
			return r, err
		}
		if start.IsZero() {
			start = time.Now()
			if err := s.socket.SetReadDeadline(start.Add(duration)); err != nil {
				return r, err
			}
		}
		if n > 0 {
			r.Bytes += int64(n)
			r.Messages += int64((n + size - 1) / size)
		}
	}
}

func quicDatagramSink(ctx context.Context, listen string, duration time.Duration, lines *json.Encoder) error {
	l, err := listenQUIC(listen)
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	if err := lines.Encode(report{Address: l.Addr().String()}); err != nil {
		return err
	}
	conn, err := l.Accept(ctx)
	if err != nil {
		return err
	}
	data, err := conn.ReceiveDatagram(ctx)
	if err != nil {
		return err
	}
	over, cancel := context.WithTimeout(ctx, duration)
	defer cancel()
	r := report{Seconds: duration.Seconds()}
	for err == nil {
		r.Messages++
		r.Bytes += int64(len(data))
		data, err = conn.ReceiveDatagram(over)
	}
	if over.Err() == nil {
		return err
	}
	return errors.Join(lines.Encode(r), conn.CloseWithError(0, ""))
}

// datagramSource sends datagrams of size bytes for a time and tells how many.
func datagramSource(ctx context.Context, name, dial string, duration time.Duration, size int, lines *json.Encoder) error {
	var send func() (int, error)
	switch name {
	case "quic-go":
		d, err := newQUICDialer()
		if err != nil {
			return err
		}
		defer func() { _ = d.Close() }()
		conn, err := d.connect(ctx, dial)
		if err != nil {
			return err
		}
		data := make([]byte, size)
		send = func() (int, error) { return 1, conn.SendDatagram(data) }
	case "raw-udp", "raw-udp-batch":
		to, err := netip.ParseAddrPort(dial)
		if err != nil {
			return err
		}
		var socket *net.UDPConn
		if socket, send, err = rawDatagrams(to, size, name == "raw-udp-batch"); err != nil {
			return err
		}
		defer func() { _ = socket.Close() }()
	default:
		return fmt.Errorf("%s has no datagrams; those that have are %q", name, datagramPeers)
	}
	r := report{}
	start := time.Now()
	for time.Since(start) < duration {
		n, err := send()
		if err != nil {
			break // the sink has counted enough and is gone
		}
		r.Sent += int64(n)
	}
	r.Seconds = time.Since(start).Seconds()
	return lines.Encode(r)
}

// rawDatagrams returns a socket and what sends one datagram, or a run, over it.
func rawDatagrams(to netip.AddrPort, size int, batch bool) (*net.UDPConn, func() (int, error), error) {
	if !batch {
		socket, err := net.ListenUDP("udp4", nil)
		data := make([]byte, size)
		return socket, func() (int, error) {
			_, err := socket.WriteToUDPAddrPort(data, to)
			return 1, err
		}, err
	}
	socket, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		return nil, nil, err
	}
	raw, err := socket.SyscallConn()
	n := max(1, min(64, 65507/size))
	run, oob := make([]byte, n*size), make([]byte, 64)
	return socket, func() (int, error) { return n, sendRun(raw, run, size, oob) }, err
}

// datagrams measures unreliable datagrams per second, as many as arrive.
func datagrams(ctx context.Context, args []string, out, notes io.Writer) error {
	flags := newFlags("datagrams", notes)
	asJSON := flags.Bool("json", false, "print one JSON object per result")
	names := flags.String("transports", strings.Join(datagramPeers, ","), "what to measure")
	listen := flags.String("listen", "127.0.0.1:0", "`address` at which sinks listen")
	server := flags.String("server", "", "`words` put before the command of a sink, such as: linklab enter b --")
	size := flags.Int("size", 1200, "bytes of a datagram")
	runs := flags.Int("runs", 5, "runs over each transport")
	duration := flags.Duration("duration", time.Second, "how long a run counts")
	if err := parseFlags(flags, args); err != nil {
		return err
	}
	startSink := func(command *exec.Cmd) error {
		if words := strings.Fields(*server); len(words) > 0 {
			path, err := exec.LookPath(words[0])
			if err != nil {
				return err
			}
			command.Path, command.Args = path, append(words, command.Args...)
		}
		return command.Start()
	}
	transports := strings.Split(*names, ",")
	results := make([]benchkit.Result, len(transports))
	sent := make([][]float64, len(transports))
	for run := range *runs {
		for turn := range transports {
			i := (turn + run) % len(transports)
			got, from, err := runFlow(ctx, startSink, (*exec.Cmd).Start, *duration,
				"-kind", "datagrams", "-transport", transports[i], "-listen", *listen, "-size", fmt.Sprint(*size))
			if err != nil {
				return fmt.Errorf("%s: %w", transports[i], err)
			}
			results[i].Runs = append(results[i].Runs, float64(got.Messages)/got.Seconds)
			sent[i] = append(sent[i], float64(from.Sent)/from.Seconds)
		}
	}
	lines := json.NewEncoder(out)
	for i, r := range results {
		r.Transport, r.Test, r.Unit = transports[i], fmt.Sprintf("datagram%d", *size), "msg/s"
		r.Value = benchkit.Median(r.Runs)
		r.Extra = map[string]float64{"sent": benchkit.Median(sent[i]), "mb_s": r.Value * float64(*size) / 1e6}
		results[i] = r
		if *asJSON {
			if err := lines.Encode(r); err != nil {
				return err
			}
		}
	}
	if *asJSON {
		return nil
	}
	return benchkit.WriteTable(out, results)
}
