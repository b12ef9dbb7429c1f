//go:build linux

// Command flood is go-libp2p's part in core's TestFloodBeside, in which it stands the same
// floods as libcrust: the host under attack, the peer that sends to it as much as it can,
// the peers that come meanwhile, or the attackers. The test starts one process for each and
// speaks with them in lines.
//
//	flood victim ADDRESS               listens there; "state" and "ban PREFIX" come in
//	flood sender MULTIADDRESS          sends until its input ends
//	flood newcomers MULTIADDRESS       "from ADDRESS" comes in, for how long it took goes out
//	flood attackers KIND               "flood RATE ADDRESS" and "stop" come in
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// protocol is the name of the stream that is sent on.
const protocol = "/libcrust-flood/1"

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "flood: see the comment of the command")
		os.Exit(2)
	}
	do, ok := map[string]func(string) error{"victim": victim, "sender": sender, "newcomers": newcomers, "attackers": attackers}[os.Args[1]]
	if !ok {
		fmt.Fprintf(os.Stderr, "flood: there is no %q\n", os.Args[1])
		os.Exit(2)
	}
	if err := do(os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "flood:", err)
		os.Exit(1)
	}
}

// newHost is go-libp2p's defaults, limits included, but for one transport, one security and
// no metrics.
func newHost(options ...libp2p.Option) (host.Host, error) {
	return libp2p.New(append(options, libp2p.Security(noise.ID, noise.New), libp2p.DisableMetrics())...)
}

// state is what a victim says of itself, as libcrust's does.
type state struct {
	Bytes uint64
	Peak  uint64
	Took  time.Duration
}

func victim(at string) error {
	gater := new(gate)
	h, err := newHost(libp2p.Transport(tcp.NewTCPTransport), libp2p.ListenAddrStrings("/ip4/"+at+"/tcp/0"), libp2p.ConnectionGater(gater))
	if err != nil {
		return err
	}
	var bytes atomic.Uint64
	h.SetStreamHandler(protocol, func(s network.Stream) {
		buffer := make([]byte, 64<<10)
		for {
			n, err := s.Read(buffer)
			bytes.Add(uint64(n)) //nolint:gosec // a length
			if err != nil {
				return
			}
		}
	})
	addresses, err := peer.AddrInfoToP2pAddrs(host.InfoFromHost(h))
	if err == nil && len(addresses) == 0 {
		err = errors.New("the host listens nowhere")
	}
	if err != nil {
		return errors.Join(err, h.Close())
	}
	say := func(word string, v any) error {
		text, err := json.Marshal(v)
		if err != nil {
			return err
		}
		_, err = fmt.Println(word, string(text))
		return err
	}
	if err := say("at", addresses[0].String()); err != nil {
		return err
	}
	for in := bufio.NewScanner(os.Stdin); in.Scan() && err == nil; {
		word, rest, _ := strings.Cut(in.Text(), " ")
		switch word {
		case "state":
			err = say("state", state{bytes.Load(), peakMemory(), processorTime()})
		case "ban":
			began := time.Now()
			for text := range strings.FieldsSeq(rest) {
				prefix, wrong := netip.ParsePrefix(text)
				if wrong != nil {
					return wrong
				}
				gater.banned.Store(&prefix)
			}
			err = errors.Join(err, say("banned", time.Since(began).String()))
		}
	}
	return errors.Join(err, h.Close())
}

// gate refuses connections from a prefix, before anything is done for them.
type gate struct{ banned atomic.Pointer[netip.Prefix] }

func (g *gate) InterceptAccept(c network.ConnMultiaddrs) bool {
	p := g.banned.Load()
	if p == nil {
		return true
	}
	ip, err := manet.ToIP(c.RemoteMultiaddr())
	if err != nil {
		return true
	}
	a, _ := netip.AddrFromSlice(ip)
	return !p.Contains(a.Unmap())
}

func (*gate) InterceptPeerDial(peer.ID) bool                                           { return true }
func (*gate) InterceptAddrDial(peer.ID, ma.Multiaddr) bool                             { return true }
func (*gate) InterceptSecured(network.Direction, peer.ID, network.ConnMultiaddrs) bool { return true }
func (*gate) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason)          { return true, 0 }

// peakMemory returns the most resident memory of this process so far.
func peakMemory() uint64 {
	text, _ := os.ReadFile("/proc/self/status") //nolint:errcheck // 0 then
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmHWM:" {
			n, _ := strconv.ParseUint(f[1], 10, 64) //nolint:errcheck // 0 then
			return n << 10
		}
	}
	return 0
}

// processorTime returns what this process has taken of the processors.
func processorTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // it cannot fail for the caller itself
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func sender(to string) error {
	h, err := newHost(libp2p.Transport(tcp.NewTCPTransport), libp2p.NoListenAddrs)
	if err != nil {
		return err
	}
	defer h.Close() //nolint:errcheck // the process ends
	info, err := peer.AddrInfoFromString(to)
	if err != nil {
		return err
	}
	ctx := context.Background()
	if err := h.Connect(ctx, *info); err != nil {
		return err
	}
	s, err := h.NewStream(ctx, info.ID, protocol)
	if err != nil {
		return err
	}
	go func() {
		data := make([]byte, 64<<10)
		for {
			if _, err := s.Write(data); err != nil {
				return
			}
		}
	}()
	if _, err := fmt.Println("ready"); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// fixed dials from an address.
type fixed struct{ from netip.Addr }

func (f fixed) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(f.from, 0))}
	return d.DialContext(ctx, network, address)
}

func newcomers(to string) error {
	info, err := peer.AddrInfoFromString(to)
	if err != nil {
		return err
	}
	if _, err := fmt.Println("ready"); err != nil {
		return err
	}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		from, err := netip.ParseAddr(strings.TrimPrefix(in.Text(), "from "))
		if err != nil {
			return err
		}
		dialer := tcp.WithDialerForAddr(func(ma.Multiaddr) (tcp.ContextDialer, error) { return fixed{from}, nil })
		h, err := newHost(libp2p.Transport(tcp.NewTCPTransport, dialer), libp2p.NoListenAddrs)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		began := time.Now()
		err = h.Connect(ctx, *info)
		took := time.Since(began)
		cancel()
		if err != nil {
			fmt.Fprintln(os.Stderr, "a newcomer:", err)
			took = 0
		}
		if _, err := fmt.Println(int64(took)); err != nil {
			return err
		}
		if err := h.Close(); err != nil {
			return err
		}
	}
	return nil
}
