//go:build linux

package natlab

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/libcrust/libcrust/tests/linklab"
)

// confined is in the environment of a process of this test binary that runs its
// arguments without the right to open sockets of IP.
const confined = "CRUST_NATLAB_CONFINED"

func init() {
	if os.Getenv(confined) == "" {
		return
	}
	runtime.LockOSThread()
	if err := confine(); err != nil {
		panic(err)
	}
	panic(syscall.Exec(os.Args[1], os.Args[1:], slices.DeleteFunc(os.Environ(), func(v string) bool { return v == confined+"=1" })))
}

// confine has the kernel refuse sockets of IP to this thread and what it becomes, as
// sandboxes do.
func confine() error {
	const nr, domain = 0, 16 // offsets in struct seccomp_data
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: nr},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_SOCKET, Jf: 4},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: domain},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.AF_INET, Jt: 1},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.AF_INET6, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EACCES)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	return errors.Join(unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), install(program))
}

// TestDoctorAlone: without a network, without permission and without a helper doctor
// says so, within a second.
func TestDoctorAlone(t *testing.T) {
	crust, err := Build(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	const address = "ip link set lo up\nip link add eth0 type veth peer name eth1\nip address add 198.18.0.2/24 dev eth0\nip link set eth0 up\nip link set eth1 up\n"
	const helper = "tcp://203.0.113.5:5483"
	for _, c := range []struct {
		name, commands string
		confined       bool
		helpers        []string
		kind           string
		exit           int
	}{
		{"nothing is up", "", false, []string{helper}, "no-network", 4},
		{"nothing is up, and nobody named", "", false, nil, "no-network", 4},
		{"the machine alone", "ip link set lo up", false, []string{helper}, "no-network", 4},
		{"no route", address, false, []string{helper, "utp://203.0.113.5:5483"}, "no-route", 4},
		{"a route that is forbidden", address + "ip route add prohibit default", false, []string{helper}, "no-permission", 4},
		{"no sockets", address + "ip route add default dev eth0", true, []string{helper}, "no-permission", 4},
		{"no sockets, and nobody named", address + "ip route add default dev eth0", true, nil, "no-permission", 4},
		{"no helper", address + "ip route add default dev eth0", false, nil, "no-helper", 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, err := linklab.NewNamespace()
			if errors.Is(err, linklab.ErrUnavailable) {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer n.Close()
			if err := shell(n, c.commands, ""); err != nil {
				t.Fatal(err)
			}
			best := time.Hour
			for range 8 { // other work must not make it late
				words := append([]string{crust, "doctor", "--json", "--network", "natlab"}, c.helpers...)
				env := environment("off")
				if c.confined {
					words, env = append([]string{os.Args[0]}, words...), append(env, confined+"=1")
				}
				command := exec.Command(words[0], words[1:]...)
				command.Env = env
				began := time.Now()
				d := listen(t, n, command)
				best = min(best, time.Since(began))
				if d.Kind != c.kind || d.exit != c.exit {
					t.Fatalf("doctor calls it %q, %+v", d.Kind, d)
				}
				if best < time.Second {
					break
				}
			}
			if best >= time.Second {
				t.Errorf("doctor took %v at best", best)
			}
		})
	}
}

// install installs a filter of system calls in this thread.
func install(program []unix.SockFilter) error {
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, pointerTo(program), 0, 0)
}

// pointerTo returns the address of a filter, as system calls take it. It is never freed.
func pointerTo(program []unix.SockFilter) uintptr {
	kept = &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	return uintptr(unsafe.Pointer(kept))
}

var kept *unix.SockFprog
