//go:build unix

package crust_test

import (
	"net"
	"strconv"
	"syscall"
	"testing"
	"time"

	crust "github.com/libcrust/libcrust/core"
)

// limitFiles bounds this process's descriptors, unless text is 0.
func limitFiles(text string) {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n == 0 {
		return
	}
	limit := syscall.Rlimit{Cur: n, Max: n}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		panic(err)
	}
}

// processorTime is what this process has taken of the processors.
func processorTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// Connections do not take the last descriptors from the program, and when they are
// gone, others come in again.
func TestConnectionsLeaveFilesToTheProgram(t *testing.T) {
	v := startVictim(t, 200) // of which 50 are kept back: a quarter
	var idle []net.Conn
	for range 300 {
		conn, err := net.Dial("tcp", v.at.Addr.String())
		if err == nil { // else it was refused already
			idle = append(idle, conn)
		}
	}
	deadline := time.Now().Add(20 * time.Second)
	for v.state().Stats.RefusedFiles == 0 {
		if time.Now().After(deadline) {
			t.Fatal("300 connections were accepted where there are 200 descriptors")
		}
		<-time.After(10 * time.Millisecond)
	}
	if !v.state().Files {
		t.Error("the program can open no file any more")
	}
	for _, conn := range idle {
		conn.Close()
	}
	n := newNode(t, crust.Config{NoListen: true})
	for try := 0; ; try++ {
		if err := n.ConnectEndpoint(crust.Contact{Endpoint: v.at}, 1); err != nil {
			t.Fatal(err)
		}
		e := n.next(crust.EventConnected, crust.EventConnectFailed)
		if e.Type == crust.EventConnected {
			return
		}
		if try == 100 {
			t.Fatalf("when all are gone nobody gets in: %v", e.Err())
		}
		<-time.After(50 * time.Millisecond)
	}
}
