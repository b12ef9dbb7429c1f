package bootstrap

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// inNamespace runs a child in a mount namespace of its own.
func inNamespace(t *testing.T, role string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s", childRole, role, t.TempDir()))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Unshareflags: syscall.CLONE_NEWNS}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	switch out, err := cmd.CombinedOutput(); {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EINVAL), cmd.ProcessState.ExitCode() == noMount:
		t.Skipf("no mount namespaces here: %v %s", err, out)
	case err != nil:
		t.Fatalf("%v\n%s", err, out)
	}
}

// noMount is the exit code of a child that may not mount.
const noMount = 77

// tmpfs mounts a file system of some KiB.
func tmpfs(dir string, kib int) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	return unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dk", kib))
}

func TestAFullDisk(t *testing.T)     { inNamespace(t, "full") }
func TestAReadOnlyDisk(t *testing.T) { inNamespace(t, "readonly") }

func TestWithoutPermission(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can become another user")
	}
	dir, err := os.MkdirTemp("", "bootstrap")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	for name, mode := range map[string]os.FileMode{"readable": 0o644, "unreadable": 0o600} {
		path := filepath.Join(dir, name)
		writeFile(t, path, written5(t))
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	program := filepath.Join(dir, "test")
	writeFile(t, program, readFile(t, os.Args[0])) // where others may run it
	if err := errors.Join(os.Chmod(program, 0o755), os.Chmod(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program)
	cmd.Dir, cmd.Env = dir, []string{childRole + "=nobody " + dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// childOnFullDisk opens books on a disk that has no room for them, and fills one on
// which they are.
func childOnFullDisk(dir string) int {
	if err := tmpfs(dir, 64); err != nil {
		fmt.Println(err)
		return noMount
	}
	path := filepath.Join(dir, "cache")
	if err := inMemory(path, 50, unix.ENOSPC, 0); err != nil { // it would take 112 KiB
		return complain("a new file: %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 { // the lock
		return complain("left behind: %v %v", left, err)
	}
	c, err := Open(path, Options{Peers: 10})
	if err != nil {
		return complain("a small file: %v", err)
	}
	filler, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		return complain("%v", err)
	}
	for err == nil {
		_, err = filler.Write(make([]byte, 4096))
	}
	if !errors.Is(err, unix.ENOSPC) {
		return complain("the disk is not full: %v", err)
	}
	for n := range 100 { // its place was taken when it was made
		if err := c.Reached(start, contact(n)); err != nil {
			return complain("writing on a full disk: %v", err)
		}
	}
	if err := c.Close(); err != nil {
		return complain("%v", err)
	}
	if err := inMemory(path, 50, unix.ENOSPC, 10); err != nil { // it cannot grow
		return complain("growing on a full disk: %v", err)
	}
	r, err := Inspect(path)
	if err != nil || len(r.Entries) != 10 || r.Damage != nil {
		return complain("afterwards: %+v %v", r, err)
	}
	return holes(dir)
}

// holes opens a file with holes on a full disk, and makes them while it is mapped:
// there is no room to write to them, which shows as a fault.
func holes(dir string) int {
	h := header{count: 10}
	path := filepath.Join(dir, "cache")
	c, err := Open(path, Options{Peers: 10})
	if err != nil {
		return complain("%v", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return complain("%v", err)
	}
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(h.at(0, 1)), int64(h.half())); err != nil {
		return complain("no holes: %v", err)
	}
	filler, err := os.OpenFile(filepath.Join(dir, "filler2"), os.O_RDWR|os.O_CREATE, 0o600)
	for err == nil {
		_, err = filler.Write(make([]byte, 4096))
	}
	var w *Warning
	faults := 0
	for n := range 40 {
		if err := c.Reached(start, contact(200+n%10)); errors.As(err, &w) {
			faults++
		} else if err != nil {
			return complain("%v", err)
		}
	}
	if faults != 1 || !w.Memory || !c.InMemory() {
		return complain("%d faults, %+v", faults, w)
	}
	list, err := c.List()
	if err != nil || len(list) != 10 || list[0].Peer != id(209) {
		return complain("%v %v", numbers(list), err)
	}
	c.Close()
	r, err := Inspect(path)
	if err != nil || len(r.Entries) == 0 {
		return complain("%+v %v", r, err)
	}
	if err := inMemory(path, 10, unix.ENOSPC, len(r.Entries)); err != nil {
		return complain("a file with holes: %v", err)
	}
	return 0
}

func childOnReadOnlyDisk(dir string) int {
	if err := tmpfs(dir, 1024); err != nil {
		fmt.Println(err)
		return noMount
	}
	path := filepath.Join(dir, "cache")
	c, err := Open(path, Options{Peers: 50})
	if err != nil {
		return complain("%v", err)
	}
	for n := range 4 {
		if err := c.Reached(start, contact(n)); err != nil {
			return complain("%v", err)
		}
	}
	c.Close()
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return complain("%v", err)
	}
	if err := inMemory(path, 50, unix.EROFS, 4); err != nil {
		return complain("a file that is there: %v", err)
	}
	if err := inMemory(filepath.Join(dir, "new"), 50, unix.EROFS, 0); err != nil {
		return complain("a new file: %v", err)
	}
	if r, err := Inspect(path); err != nil || len(r.Entries) != 4 {
		return complain("%+v %v", r, err)
	}
	return 0
}
