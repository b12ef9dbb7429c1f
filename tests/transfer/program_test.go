//go:build linux

package transfer_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	crust "github.com/libcrust/libcrust/core"
)

// The two programs of a transfer. Each is this test binary, started again in a
// host of the laboratory. They write lines that begin with a word:
//
//	info HEX               receiver: where it is
//	at NUMBER NANOSECONDS  receiver: a share has come; the longest silence in it
//	event NAME TRANSPORT   both: a session came, was suspended, resumed or lost
//	sum HEX                both: hash of all that was sent, or has come, in order
//	memory BYTES           both: the most that was resident
//	unacked BYTES          sender: the most that was kept for resending
//	fault TEXT             both: it is over
//
// and read lines: "again" has the sender connect again.

const (
	messageSize = 64 << 10
	// heartbeat and lostAfter are short, so that a connection which a NAT forgot
	// without a word is noticed.
	heartbeat, lostAfter = 500 * time.Millisecond, 2 * time.Second
	// resendBuffer is the default of Config.ResendBuffer.
	resendBuffer = 8 << 20
)

// job is what a program is told by its environment.
type job struct {
	role   string
	listen string
	info   string
	seed   uint64
	total  int // messages
	shares int
}

func (j *job) environment() []string {
	return append(os.Environ(), fmt.Sprintf("CRUST_TRANSFER=%s %s %s %d %d %d", j.role, j.listen, j.info, j.seed, j.total, j.shares))
}

// runProgram runs a program if this process is to be one.
func runProgram() bool {
	text, ok := os.LookupEnv("CRUST_TRANSFER")
	if !ok {
		return false
	}
	var j job
	if _, err := fmt.Sscan(text, &j.role, &j.listen, &j.info, &j.seed, &j.total, &j.shares); err != nil {
		say("fault %v", err)
		return true
	}
	var err error
	if j.role == "send" {
		err = j.send()
	} else {
		err = j.receive()
	}
	if err != nil {
		say("fault %v", err)
	}
	say("memory %d", residentMost())
	return true
}

var saying sync.Mutex

func say(format string, args ...any) {
	saying.Lock()
	defer saying.Unlock()
	fmt.Printf(format+"\n", args...)
}

// residentMost returns the most memory of this process that was resident, in bytes.
func residentMost() int {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return -1
	}
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	var kib int
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		return -1
	}
	return kib << 10
}

// filler makes the contents of messages: message number i begins with i.
type filler struct{ random *rand.ChaCha8 }

func newFiller(seed uint64) *filler {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	return &filler{rand.NewChaCha8(key)}
}

func (f *filler) fill(p []byte, number uint64) {
	f.random.Read(p) //nolint:errcheck // it never fails
	binary.BigEndian.PutUint64(p, number)
}

// service makes a program's service.
func (j *job) service() (*crust.Service, error) {
	cfg := crust.Config{Heartbeat: heartbeat, LostAfter: lostAfter, ResumeWindow: time.Minute, CloseTimeout: 30 * time.Second}
	for _, transport := range []string{"tcp", "utp"} {
		ep, err := crust.ParseEndpoint(transport + "://" + j.listen)
		if err != nil {
			return nil, err
		}
		cfg.Listen = append(cfg.Listen, ep)
	}
	return crust.New(cfg)
}

func tell(e *crust.Event) {
	transport := e.Endpoint().Transport.String()
	say("event %v %s", e.Type, transport)
}

func (j *job) send() error {
	info, err := hex.DecodeString(j.info)
	if err != nil {
		return err
	}
	peer, _, err := crust.ParseConnectionInfo(info)
	if err != nil {
		return err
	}
	s, err := j.service()
	if err != nil {
		return err
	}
	defer s.Close() //nolint:errcheck // all is said by then
	if err := s.Connect(info, 1); err != nil {
		return err
	}
	go func() {
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			if err := s.Connect(info, 2); err != nil {
				say("fault %v", err)
			}
		}
	}()
	connected, lost := make(chan struct{}), make(chan error, 1)
	go func() {
		for e := range s.Events(context.Background()) {
			switch e.Type {
			case crust.EventConnected:
				tell(&e)
				close(connected)
			case crust.EventSuspended, crust.EventResumed:
				tell(&e)
			case crust.EventLost:
				tell(&e)
				lost <- e.Err()
			}
		}
	}()
	select {
	case <-connected:
	case <-time.After(30 * time.Second):
		return fmt.Errorf("not connected")
	}
	var unacked atomic.Int64
	go func() {
		for range time.Tick(5 * time.Millisecond) {
			if p, ok := s.Peer(peer); ok && int64(p.UnackedBytes) > unacked.Load() {
				unacked.Store(int64(p.UnackedBytes))
			}
		}
	}()
	hash, fill, p := sha256.New(), newFiller(j.seed), make([]byte, messageSize)
	for i := range uint64(j.total) {
		fill.fill(p, i)
		hash.Write(p)
		if err := s.SendWait(context.Background(), peer, p, 1); err != nil {
			return fmt.Errorf("message %d: %w", i, err)
		}
	}
	if err := s.Disconnect(peer); err != nil {
		return err
	}
	if err := <-lost; crust.CodeOf(err) != crust.CodeDisconnected {
		return err
	}
	say("unacked %d", unacked.Load())
	say("sum %x", hash.Sum(nil))
	return nil
}

func (j *job) receive() error {
	s, err := j.service()
	if err != nil {
		return err
	}
	defer s.Close() //nolint:errcheck // all is said by then
	if err := s.PrepareConnectionInfo(1); err != nil {
		return err
	}
	hash, next, share := sha256.New(), uint64(0), 1
	var last time.Time
	var silence time.Duration
	for e := range s.Events(context.Background()) {
		switch e.Type {
		case crust.EventListenerFailed:
			return e.Err()
		case crust.EventConnectionInfo:
			say("info %x", e.Data)
		case crust.EventConnected, crust.EventSuspended, crust.EventResumed:
			tell(&e)
		case crust.EventMessage:
			if len(e.Data) != messageSize || binary.BigEndian.Uint64(e.Data) != next {
				return fmt.Errorf("message %d of %d bytes where %d was due", binary.BigEndian.Uint64(e.Data), len(e.Data), next)
			}
			next++
			hash.Write(e.Data)
			now := time.Now()
			if !last.IsZero() {
				silence = max(silence, now.Sub(last))
			}
			last = now
			if int(next) >= j.total*share/j.shares {
				say("at %d %d", share, silence)
				share, silence = share+1, 0
			}
		case crust.EventLost:
			tell(&e)
			if e.Code() != crust.CodeDisconnected || next != uint64(j.total) {
				return fmt.Errorf("lost after %d of %d messages: %w", next, j.total, e.Err())
			}
			say("sum %x", hash.Sum(nil))
			return nil
		}
	}
	return nil
}
