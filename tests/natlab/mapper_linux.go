package natlab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/libcrust/libcrust/tests/linklab"
)

// mapped returns the rules of a kernel's router that has chains for miniupnpd, of the
// names that it expects. What is for the router itself meets the rules of input first.
func mapped(nat, input string) string {
	return `table inet filter {
	chain miniupnpd { }
	chain prerouting_miniupnpd { }
	chain postrouting_miniupnpd { }
	chain input {
		type filter hook input priority filter; policy accept;
` + input + `
		iifname != "link0" accept
		ct state established,related accept
		drop
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
		iifname "lan" accept
		ct state established,related accept
		jump miniupnpd
	}
	chain prerouting { type nat hook prerouting priority dstnat; policy accept; jump prerouting_miniupnpd; }
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		jump postrouting_miniupnpd
		oifname "link0" meta l4proto { tcp, udp } masquerade ` + nat + `
	}
}
`
}

// noPCP drops what says in its first byte that it is of version 2, as PCP does and
// NAT-PMP does not (RFC 6887 section 9).
const noPCP = `		iifname "lan" udp dport 5351 @th,64,8 2 drop`

// serve runs miniupnpd on a kernel's router, with a line of configuration of its own.
// It is killed with the laboratory.
func serve(h *linklab.Host, line string) error {
	dir, err := os.MkdirTemp("", "natlab")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) // it has been read by then
	settings := `ext_ifname=link0
listening_ip=lan
http_port=0
min_lifetime=5
max_lifetime=86400
secure_mode=yes
ipv6_disable=yes
system_uptime=no
notify_interval=900
uuid=6c9a9f0d-0d0f-4e08-8c5b-5f2d0a7c1e01
` + line + `
allow 1024-65535 192.168.1.0/24 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
`
	config, log := filepath.Join(dir, "miniupnpd.conf"), filepath.Join(dir, "log")
	if err := os.WriteFile(config, []byte(settings), 0o600); err != nil {
		return err
	}
	out, err := os.Create(log)
	if err != nil {
		return err
	}
	defer out.Close()
	daemon := exec.Command("miniupnpd", "-d", "-f", config, "-P", filepath.Join(dir, "pid"))
	daemon.Stdout, daemon.Stderr = out, out
	if err := h.Start(daemon); err != nil {
		return fmt.Errorf("%w: %w", linklab.ErrUnavailable, err)
	}
	go daemon.Wait()          //nolint:errcheck // it is killed
	ready := "HTTP listening" // what it says last before it listens everywhere
	if strings.Contains(line, "enable_natpmp=yes") {
		ready = "Listening for NAT-PMP"
	}
	for range 500 {
		if text, err := os.ReadFile(log); err != nil || strings.Contains(string(text), ready) {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
	text, _ := os.ReadFile(log)
	return fmt.Errorf("miniupnpd does not start: %s", text)
}
