//go:build linux

package natlab

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/libcrust/libcrust/tests/natsim"
)

// stunPort is where servers of STUN listen (RFC 8489), and stunOther the second port of
// this one (RFC 5780).
const (
	stunPort  = 3478
	stunOther = 3479
)

// startCoturn runs coturn at a public machine, as a server of STUN with two addresses:
// its own, and that of another one, which passes on what comes to it. It returns its
// first endpoint.
func startCoturn(t *testing.T, l *Lab, first, second *Machine) netip.AddrPort {
	t.Helper()
	if err := shell(second.Namespace, fmt.Sprintf(`ip link add pass type veth peer name passed netns %s
		ip -4 address flush dev link0
		ip address add 10.9.0.1/30 dev pass
		ip link set pass up
		echo 1 >/proc/sys/net/ipv4/ip_forward
		for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 >$f; done
		ip route replace default dev link0
		ip route add %v/32 via 10.9.0.2 dev pass`, first.Path(), second.Addr()), ""); err != nil {
		t.Fatal(err)
	}
	if err := shell(first.Namespace, fmt.Sprintf(`ip address add 10.9.0.2/30 dev passed
		ip address add %v/32 dev passed
		ip link set passed up
		for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 >$f; done
		ip rule add from %v lookup 100
		ip route add default via 10.9.0.1 dev passed table 100`, second.Addr(), second.Addr()), ""); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	addresses := [2]netip.Addr{first.Addr(), second.Addr()}
	server := exec.Command("turnserver", "-n", "-S", "--no-cli", "--no-tls", "--no-dtls", "--no-tcp",
		"-L", addresses[0].String(), "-L", addresses[1].String(),
		"-p", fmt.Sprint(stunPort), "--alt-listening-port", fmt.Sprint(stunOther),
		"-l", "stdout", "--pidfile", filepath.Join(dir, "pid"), "-b", filepath.Join(dir, "db"))
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	server.Stdout, server.Stderr = log, log
	if err := first.Start(server); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Process.Kill() //nolint:errcheck // it may have ended
		server.Wait()         //nolint:errcheck // it was killed
		log.Close()
		if text, err := os.ReadFile(log.Name()); t.Failed() && err == nil && testing.Verbose() {
			t.Logf("coturn: %s", text)
		}
	})
	for _, a := range addresses {
		for _, port := range []uint16{stunPort, stunOther} {
			answers(t, l.Public[publics-1], netip.AddrPortFrom(a, port))
		}
	}
	return netip.AddrPortFrom(addresses[0], stunPort)
}

// answers waits until a server of STUN answers a machine.
func answers(t *testing.T, m *Machine, at netip.AddrPort) {
	t.Helper()
	conn, err := m.ListenUDP(netip.AddrPortFrom(m.Addr(), 0))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	request := binary.BigEndian.AppendUint32([]byte{0, 1, 0, 0}, 0x2112A442) // RFC 8489 section 5
	request = append(request, make([]byte, 12)...)
	rand.Read(request[8:]) //nolint:errcheck // it never fails
	answer := make([]byte, 1500)
	for range 100 {
		if _, err := conn.WriteToUDPAddrPort(request, at); err != nil {
			t.Fatal(err)
		}
		conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond)) //nolint:errcheck // it shows in the read
		n, from, err := conn.ReadFromUDPAddrPort(answer)
		if err == nil && from == at && n >= 20 && bytes.Equal(answer[:2], []byte{1, 1}) && bytes.Equal(answer[4:20], request[4:20]) {
			return
		}
	}
	t.Fatalf("no server of STUN answers at %v", at)
}

// TestForeignSTUN: crust doctor tells kinds of NATs with nobody's help but that of two
// servers of STUN that are not ours: coturn.
func TestForeignSTUN(t *testing.T) {
	if _, err := exec.LookPath("turnserver"); err != nil {
		t.Skip("coturn is not installed")
	}
	crust, err := Build(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"public", "kernel-home", "kernel-symmetric", "kernel-full-cone", "restricted", "kernel-firewall"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := named(t, name)
			l := newLab(t, Config{A: k, B: Kinds[0], Seed: 7, Hops: 8})
			arguments := []string{"doctor", "--json", "--network", "natlab"}
			for i := range 2 {
				arguments = append(arguments, "--stun", startCoturn(t, l, l.Public[2*i], l.Public[2*i+1]).String())
			}
			command := exec.Command(crust, arguments...)
			command.Env = append(os.Environ(), "CRUST_PORTMAP=off", "CRUST_BEACON=off")
			var out, problems bytes.Buffer
			command.Stdout, command.Stderr = &out, &problems
			var exit *exec.ExitError // its code says how healthy the site is
			if err := l.A.Run(command); err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 3) {
				t.Fatalf("%v: %s%s", err, out.String(), problems.String())
			}
			var d struct {
				UDP     toldFlow
				Peers   int
				Servers []struct{ Server, Seen, Error string }
			}
			if err := json.Unmarshal(out.Bytes(), &d); err != nil {
				t.Fatalf("%v: %s", err, out.String())
			}
			if testing.Verbose() {
				t.Log(out.String())
			}
			nat := "no"
			if l.A.nated() {
				nat = "yes"
			}
			mapping := k.Want.Mapping
			if nat == "no" {
				mapping = natsim.Independent
			}
			if f := d.UDP; f.NAT != nat || f.Mapping != dependsWords[mapping] || f.Filtering != dependsWords[k.Want.Filtering] || f.Blocked || d.Peers != 0 {
				t.Errorf("%s", out.String())
			}
			if len(d.Servers) != 2 {
				t.Errorf("%d servers", len(d.Servers))
			}
			for _, s := range d.Servers {
				if seen, err := netip.ParseAddrPort(s.Seen); err != nil || s.Error != "" || seen.Addr() != l.A.Public() {
					t.Errorf("%+v", s)
				}
			}
		})
	}
}
