package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	crust "github.com/libcrust/libcrust/core"
)

const (
	// maxJobs bounds what waits to be sent to one peer.
	maxJobs = 4096
	// maxWaiting bounds the bytes that wait to be sent to one peer, apart from
	// the first job.
	maxWaiting = 8 << 20
	// sendRun is how many messages of a bulk are handed over at once.
	sendRun = 256
)

// job is messages for one peer: those of one command, or one message to echo.
type job struct {
	op       string // "send", "receipt" or "bulk"; "echo" is not answered
	peer     crust.PeerID
	data     []byte // sent count times
	count    uint64
	priority uint8
	began    time.Time
	token    uint64 // of a receipt, else 0
}

// senders hands messages to the service in the order in which they were asked
// for, peer by peer, and waits where a send queue is full without holding up
// anybody else. A peer has a goroutine only while it has jobs.
type senders struct {
	service *crust.Service
	out     *output
	running sync.WaitGroup // the goroutines of the queues
	open    receipts

	mu      sync.Mutex
	queues  map[crust.PeerID]*sendQueue // guarded by mu; peers with jobs
	asked   int                         // guarded by mu; jobs of commands that are not done
	idle    chan struct{}               // guarded by mu; closed when asked becomes 0, nil when nobody waits
	stopped bool                        // guarded by mu; no more jobs
}

// sendQueue is the jobs of one peer. All fields are guarded by senders.mu.
type sendQueue struct {
	jobs    []job
	waiting int           // bytes of data in jobs
	room    chan struct{} // closed, and made anew, when a job has been taken
}

func newSenders(service *crust.Service, out *output) *senders {
	return &senders{service: service, out: out, queues: make(map[crust.PeerID]*sendQueue)}
}

// add queues a job. It returns an error with CodeLimit when too much waits for
// this peer already.
func (s *senders) add(ctx context.Context, j job) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return &crust.Error{Op: j.op, Peer: j.peer, Code: crust.CodeClosed}
	}
	if q := s.queues[j.peer]; q != nil && !q.fits(j) {
		return &crust.Error{Op: j.op, Peer: j.peer, Code: crust.CodeLimit, Err: fmt.Errorf("%d commands wait for this peer already", len(q.jobs))}
	}
	s.asked++
	s.push(ctx, j)
	return nil
}

// echo sends data back. It copies what has to wait, and waits itself when too
// much of this peer does: then the peer sends faster than it reads.
func (s *senders) echo(ctx context.Context, peer crust.PeerID, data []byte, priority uint8) error {
	s.mu.Lock()
	q := s.queues[peer]
	s.mu.Unlock()
	if q == nil {
		if err := s.service.Send(peer, data, priority); crust.CodeOf(err) != crust.CodeWouldBlock {
			return err
		}
	}
	j := job{op: "echo", peer: peer, data: bytes.Clone(data), count: 1, priority: priority}
	s.mu.Lock()
	for {
		q := s.queues[peer]
		if q == nil || q.fits(j) {
			break
		}
		room := q.room
		s.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return nil
		}
		s.mu.Lock()
	}
	if !s.stopped {
		s.push(ctx, j)
	}
	s.mu.Unlock()
	return nil
}

// fits reports whether one more job may wait.
func (q *sendQueue) fits(j job) bool {
	return len(q.jobs) == 0 || len(q.jobs) < maxJobs && q.waiting+len(j.data) <= maxWaiting
}

// push queues a job and starts the peer's goroutine when there is none. The
// caller holds s.mu.
func (s *senders) push(ctx context.Context, j job) {
	q := s.queues[j.peer]
	if q == nil {
		q = &sendQueue{room: make(chan struct{})}
		s.queues[j.peer] = q
		s.running.Go(func() { s.serve(ctx, j.peer, q) })
	}
	q.jobs = append(q.jobs, j)
	q.waiting += len(j.data)
}

// serve runs the jobs of one peer until there are none.
func (s *senders) serve(ctx context.Context, peer crust.PeerID, q *sendQueue) {
	for {
		s.mu.Lock()
		close(q.room)
		if len(q.jobs) == 0 {
			delete(s.queues, peer)
			s.mu.Unlock()
			return
		}
		q.room = make(chan struct{})
		j := q.jobs[0]
		q.jobs[0] = job{} // lets go of the data
		q.jobs = q.jobs[1:]
		q.waiting -= len(j.data)
		s.mu.Unlock()
		s.do(ctx, j)
	}
}

// do sends a job's messages and tells the outcome.
func (s *senders) do(ctx context.Context, j job) {
	var accepted uint64
	var err error
	if j.op == "receipt" {
		err = s.handReceipt(ctx, j)
	} else {
		accepted, err = s.hand(ctx, j)
	}
	if j.op == "echo" {
		return // when it failed, the peer is lost or the service stops, which events tell
	}
	switch {
	case err != nil && j.count == 1:
		s.out.tell(errorOf(err))
	case err != nil:
		s.out.tell(&errorReport{Code: crust.CodeOf(err).String(), Error: fmt.Sprintf("%s; %d of the %d messages were accepted", oneLine(err), accepted, j.count)})
	default:
		s.out.tell(&sentReport{Peer: j.peer, Count: j.count, Bytes: j.count * uint64(len(j.data)), Took: milliseconds(time.Since(j.began))})
		if early := s.open.accepted(j.token); early != nil {
			s.out.tell(early)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked--; s.asked == 0 && s.idle != nil {
		close(s.idle)
		s.idle = nil
	}
}

// hand hands a job's messages to the service, waiting for room, and returns how
// many were accepted.
func (s *senders) hand(ctx context.Context, j job) (uint64, error) {
	run := make([]crust.Message, min(j.count, sendRun))
	for i := range run {
		run[i] = crust.Message{Peer: j.peer, Data: j.data, Priority: j.priority}
	}
	for accepted := uint64(0); accepted < j.count; {
		if ctx.Err() != nil {
			return accepted, givenUp(j)
		}
		n, err := s.service.SendBatch(run[:min(j.count-accepted, sendRun)])
		accepted += uint64(n)
		if err == nil {
			continue
		}
		if crust.CodeOf(err) != crust.CodeWouldBlock {
			return accepted, err
		}
		if err := s.service.SendWait(ctx, j.peer, j.data, j.priority); err != nil {
			return accepted, err
		}
		accepted++
	}
	return j.count, nil
}

// receiptPause is how long a message with a receipt waits before it is offered
// again to a service that has no room for it.
const receiptPause = 5 * time.Millisecond

// handReceipt hands a message with a receipt to the service, waiting for room.
func (s *senders) handReceipt(ctx context.Context, j job) error {
	s.open.begin(j)
	for {
		err := s.service.SendReceipt(j.peer, j.data, j.priority, j.token)
		if crust.CodeOf(err) != crust.CodeWouldBlock {
			if err != nil {
				s.open.refused(j.token)
			}
			return err
		}
		select {
		case <-time.After(receiptPause):
		case <-ctx.Done():
			s.open.refused(j.token)
			return givenUp(j)
		}
	}
}

// givenUp is the error of a job that the end has overtaken.
func givenUp(j job) error {
	return &crust.Error{Op: "send", Peer: j.peer, Code: crust.CodeCanceled, Err: errors.New("given up, because this peer stops")}
}

// wait returns when all jobs of commands are done, or when ctx ends.
func (s *senders) wait(ctx context.Context) {
	s.mu.Lock()
	if s.asked == 0 {
		s.mu.Unlock()
		return
	}
	if s.idle == nil {
		s.idle = make(chan struct{})
	}
	idle := s.idle
	s.mu.Unlock()
	select {
	case <-idle:
	case <-ctx.Done():
	}
}

// stop refuses further jobs and waits for the goroutines of those under way,
// which the end of their context hurries.
func (s *senders) stop() {
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
	s.running.Wait()
}
