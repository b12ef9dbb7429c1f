//go:build linux

// Command udpbench measures what reliable UDP is compared with: the kernel's TCP,
// quic-go, go-libutp and raw UDP. It is a program and a module of its own: so
// nothing of libcrust's is linked into it that would change go-libutp, and quic-go
// is newer than go-libp2p allows.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

const usage = `udpbench measures what reliable UDP is compared with.

  udpbench [bench] [FLAG...]    tests of crust bench: bulk, msg64, ping, datagram...
  udpbench grid [FLAG...]       throughput over links with delay and loss
  udpbench sink FLAG...         receive one flow, by hand
  udpbench source FLAG...       send one flow, by hand

Each takes -help. The transports are tcp-cubic, tcp-bbr, quic-go, libutp,
libutp-tuned, raw-udp, raw-udp-batch (datagrams by sendmmsg and recvmmsg; its streams
go singly) and raw-udp-gso; with -crust, which names the crust tool, libcrust's:
secure-utp, secure-utp-chacha, secure-tcp and secure-tcp-chacha. bench and grid then
tell which of libcrust's goals are reached. Results on standard output are one JSON
object per line with -json, as of crust bench, and a table without.

Across the laboratory of tests/linklab, where source and sink may be in any
namespaces; or with bench and its flags -listen and -server:
  linklab run --delay 20ms -- udpbench bench -listen {b} -server "linklab enter b --"
`

func main() {
	// The kernel gives quic-go what it allows, as it does the others.
	_ = os.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := dispatch(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(os.Stderr, "udpbench: %v\n", err)
		os.Exit(1)
	}
}

func dispatch(ctx context.Context, args []string, in io.Reader, out, notes io.Writer) error {
	command := "bench"
	if len(args) > 0 && args[0] != "" && args[0][0] != '-' {
		command, args = args[0], args[1:]
	} else if len(args) > 0 && (args[0] == "-help" || args[0] == "--help" || args[0] == "-h") {
		command = "help"
	}
	switch command {
	case "bench":
		return bench(ctx, args, out, notes)
	case "worker":
		return work(ctx, in, out)
	case "grid":
		return grid(ctx, args, out, notes)
	case "sink":
		return sink(ctx, args, out, notes)
	case "source":
		return source(ctx, args, out, notes)
	case "help":
		_, err := io.WriteString(out, usage)
		return err
	}
	return fmt.Errorf("there is no command %q; see udpbench -help", command)
}

// newFlags makes a set that says its mistakes and its help on notes.
func newFlags(name string, notes io.Writer) *flag.FlagSet {
	flags := flag.NewFlagSet("udpbench "+name, flag.ContinueOnError)
	flags.SetOutput(notes)
	return flags
}

// parseFlags parses args, none of which may be left.
func parseFlags(flags *flag.FlagSet, args []string) error {
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("there is no argument %q; see %s -help", flags.Arg(0), flags.Name())
	}
	return nil
}
