//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/libcrust/libcrust/cmd/crust/benchkit"
)

// A flow is one stream that a source sends to a sink for a while. The sink prints
// a line with its address and then a line with what it got, all of it right.
type report = benchkit.FlowReport

// sink receives one flow.
func sink(ctx context.Context, args []string, out, notes io.Writer) error {
	flags := newFlags("sink", notes)
	name := flags.String("transport", "tcp-cubic", "by what")
	listen := flags.String("listen", "127.0.0.1", "IP `address` at which to listen")
	duration := flags.Duration("duration", 5*time.Second, "how long to count, from the first byte on")
	if err := parseFlags(flags, args); err != nil {
		return err
	}
	lines := json.NewEncoder(out)
	p, err := findPeer(*name)
	if err != nil {
		return err
	}
	in, err := p.listen(net.JoinHostPort(*listen, "0"))
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = in.Close() })
	defer stop()
	if err := lines.Encode(report{Address: in.Addr().String()}); err != nil {
		return err
	}
	stream, err := in.Accept()
	if err != nil {
		return err
	}
	defer func() { _ = stream.Close() }()
	stopStream := context.AfterFunc(ctx, func() { _ = stream.Close() })
	defer stopStream()
	if _, err := stream.Write([]byte{1}); err != nil {
		return err
	}
	r, err := count(stream, *duration)
	if err != nil {
		return err
	}
	return lines.Encode(r)
}

// count counts what comes for so long, or until the end.
func count(stream io.ReadCloser, duration time.Duration) (report, error) {
	buffer := make([]byte, 256<<10)
	n, err := stream.Read(buffer)
	if err != nil {
		return report{}, fmt.Errorf("nothing came: %w", err)
	}
	start := time.Now()
	// Nothing may come any more: not every transport has deadlines that hold.
	late := time.AfterFunc(duration, func() { _ = stream.Close() })
	defer late.Stop()
	var check benchkit.FlowChecker
	if err := check.Check(buffer[:n]); err != nil {
		return report{}, err
	}
	r := report{Bytes: int64(n)}
	for time.Since(start) < duration && err == nil {
		n, err = stream.Read(buffer)
		if wrong := check.Check(buffer[:n]); wrong != nil {
			return r, wrong
		}
		r.Bytes += int64(n)
	}
	r.Seconds = min(time.Since(start), duration).Seconds()
	return r, nil
}

// source sends one flow.
func source(ctx context.Context, args []string, out, notes io.Writer) error {
	flags := newFlags("source", notes)
	name := flags.String("transport", "tcp-cubic", "by what")
	dial := flags.String("dial", "", "`address` of the sink")
	duration := flags.Duration("duration", 5*time.Second, "how long to send")
	if err := parseFlags(flags, args); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, *duration+connectTime, errors.New("it took too long"))
	defer cancel()
	p, err := findPeer(*name)
	if err != nil {
		return err
	}
	d, err := p.newDialer()
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	stream, err := dialAccepted(ctx, d, *dial)
	if err != nil {
		return err
	}
	over := time.AfterFunc(*duration, func() { _ = stream.Close() })
	defer over.Stop()
	data := make([]byte, benchkit.ChunkSize)
	for n := uint64(0); ; n++ {
		benchkit.FillChunk(data, n)
		if _, err := stream.Write(data); err != nil {
			_ = stream.Close()
			return nil // the sink has counted enough, or the time is over
		}
	}
}

// connectTime bounds connecting, and what else a flow takes but its duration.
const connectTime = 30 * time.Second

// runFlow runs a sink and a source, each started where it belongs, and returns
// what the sink got. program makes a command of the program whose ends they are.
func runFlow(
	ctx context.Context, startSink, startSource func(*exec.Cmd) error, program func(args ...string) *exec.Cmd,
	transport, listen string, duration time.Duration,
) (got report, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, duration+connectTime, errors.New("the flow took too long"))
	defer cancel()
	sinkEnd, err := startEnd(ctx, startSink, program("sink", "--transport", transport, "--duration", duration.String(), "--listen", listen))
	if err != nil {
		return got, err
	}
	defer func() { err = errors.Join(err, sinkEnd.close(err != nil)) }()
	hello, err := sinkEnd.read()
	if err != nil {
		return got, err
	}
	sourceEnd, err := startEnd(ctx, startSource, program(
		"source", "--transport", transport, "--duration", (duration+2*time.Second).String(), "--dial", hello.Address))
	if err != nil {
		return got, err
	}
	defer func() { err = errors.Join(err, sourceEnd.close(true)) }()
	if got, err = sinkEnd.read(); err != nil {
		return got, errors.Join(err, context.Cause(ctx))
	}
	return got, nil
}

// end is a process of this program with one end of a flow.
type end struct {
	command *exec.Cmd
	lines   *json.Decoder
	notes   bytes.Buffer
}

func startEnd(ctx context.Context, start func(*exec.Cmd) error, command *exec.Cmd) (*end, error) {
	e := &end{command: exec.CommandContext(ctx, command.Path, command.Args[1:]...)}
	e.command.Env = append(os.Environ(), endVariable+"=1")
	e.command.Stderr = &e.notes
	output, err := e.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	e.lines = json.NewDecoder(output)
	return e, start(e.command)
}

// endVariable makes the test program an end.
const endVariable = "UDPBENCH_END"

func (e *end) read() (r report, err error) {
	if err = e.lines.Decode(&r); err != nil {
		_ = e.command.Process.Kill()
		_ = e.command.Wait() // after which its words are whole
		return r, fmt.Errorf("%s: %w: %s", e.command.Args[1], err, strings.TrimSpace(e.notes.String()))
	}
	return r, nil
}

// close ends the process; with kill whatever it does.
func (e *end) close(kill bool) error {
	if kill {
		_ = e.command.Process.Kill() // it may have ended
		_ = e.command.Wait()
		return nil
	}
	if err := e.command.Wait(); err != nil {
		return fmt.Errorf("%s: %w: %s", e.command.Args[1], err, strings.TrimSpace(e.notes.String()))
	}
	return nil
}
