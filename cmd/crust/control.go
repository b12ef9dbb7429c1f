package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	crust "github.com/libcrust/libcrust/core"
)

const (
	// maxWatchers bounds the connections to a control socket.
	maxWatchers = 16
	// watcherQueue is how many lines may wait for a watcher; one that is slower is let go.
	watcherQueue = 1024
	// watcherPatience is how long one line may take to be taken.
	watcherPatience = 10 * time.Second
	// maxWatcherLine is the longest command of a watcher, in bytes.
	maxWatcherLine = 256
)

// looks are the commands that a control socket takes: they change nothing.
var looks = []string{"peers", "stats", "nat", "known", "bans"}

// control lets others look at a running peer, over a socket of this machine that only
// its user may open: what happens, and the answers to commands that change nothing, in
// the lines of --json. Who does not read is let go, so that nobody slows the peer.
type control struct {
	p *peer

	mu       sync.Mutex
	listener net.Listener      // guarded by mu; nil: none
	watchers map[*watcher]bool // guarded by mu
	closed   bool              // guarded by mu
	running  sync.WaitGroup
	looking  atomic.Int32 // the number of watchers
}

// watcher is one who looks. Its lines go through a queue to a goroutine that writes.
type watcher struct {
	conn  net.Conn
	lines chan []byte
	once  sync.Once
	gone  chan struct{} // closed when it has been let go
}

// newControl makes the control of a peer, and has it hear what the peer tells.
func newControl(p *peer) *control {
	c := &control{p: p, watchers: make(map[*watcher]bool)}
	p.out.tap, p.out.tapped = c.publish, c.wants
	return c
}

// listen serves watchers at a socket until close.
func (c *control) listen(l net.Listener) {
	c.mu.Lock()
	c.listener = l
	c.mu.Unlock()
	c.running.Add(1)
	go func() {
		defer c.running.Done()
		for {
			conn, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil { // out of descriptors, for a while
				time.Sleep(100 * time.Millisecond)
				continue
			}
			c.watch(conn)
		}
	}()
}

// watch serves one watcher. One too many is told so, and let go.
func (c *control) watch(conn net.Conn) {
	w := &watcher{conn: conn, lines: make(chan []byte, watcherQueue), gone: make(chan struct{})}
	c.mu.Lock()
	full := c.closed || len(c.watchers) >= maxWatchers
	if !full {
		w.push(c.line(&startedReport{Peer: c.p.service.ID()})) // before anything that happens
		for _, ep := range c.p.service.Listeners() {
			w.push(c.line(&listenerStartedReport{Endpoint: ep}))
		}
		c.watchers[w] = true
		c.looking.Add(1)
		c.running.Add(2)
	}
	c.mu.Unlock()
	if full {
		_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = conn.Write(c.line(errorOf(&commandError{crust.CodeLimit, fmt.Sprintf("there are %d watchers already", maxWatchers)})))
		conn.Close()
		return
	}
	go func() {
		defer c.running.Done()
		w.write()
	}()
	go func() {
		defer c.running.Done()
		c.read(w)
		c.mu.Lock()
		delete(c.watchers, w)
		c.looking.Add(-1)
		c.mu.Unlock()
		w.push(nil) // after the last answer
		<-w.gone
	}()
}

// line is a report as it is written.
func (c *control) line(r report) []byte {
	r.stamp(r.name(), milliseconds(time.Since(c.p.out.start)))
	return encode(r)
}

// encode writes a report that is stamped in the form of --json.
func encode(r report) []byte {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(r); err != nil {
		return nil // of what is told, everything can be written
	}
	return []byte(b.String())
}

// read answers commands until the watcher goes.
func (c *control) read(w *watcher) {
	commands := bufio.NewScanner(w.conn)
	commands.Buffer(nil, maxWatcherLine)
	for commands.Scan() {
		word := strings.TrimSpace(commands.Text())
		var answer report
		switch word {
		case "":
			continue
		case "peers":
			answer = peersOf(c.p.service.Peers())
		case "stats":
			answer = statsOf(c.p.service.Stats())
		case "nat":
			answer = natOf(c.p.service.NAT())
		case "known":
			answer = knownOf(c.p.service.Known())
		case "bans":
			answer = bansOf(c.p.service.Bans())
		default:
			answer = errorOf(invalid("%.40q is nothing that can be asked here; there are %s", word, strings.Join(looks, ", ")))
		}
		if !w.push(c.line(answer)) {
			return
		}
	}
	if errors.Is(commands.Err(), bufio.ErrTooLong) {
		w.push(c.line(errorOf(&commandError{crust.CodeTooBig, fmt.Sprintf("the command is longer than %d bytes", maxWatcherLine)})))
	}
}

// publish hands a line that the peer tells to all watchers. It never waits.
func (c *control) publish(line []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for w := range c.watchers {
		w.push(line)
	}
}

// wants reports whether anybody is to be told of what the peer tells.
func (c *control) wants(r report) bool {
	switch r.(type) {
	case *messageReport, *datagramReport, *sentReport, *deliveredReport, *infoReport, *peersReport, *statsReport, *natReport, *knownReport, *bansReport:
		return false // it is for the peer's own reader
	}
	return c.looking.Load() > 0
}

// close lets all watchers go once they have been told what waits for them, and
// removes the socket.
func (c *control) close() {
	c.mu.Lock()
	c.closed = true
	if c.listener != nil {
		c.listener.Close()
	}
	for w := range c.watchers {
		_ = w.conn.SetWriteDeadline(time.Now().Add(time.Second))
		w.push(nil) // the last line
	}
	c.mu.Unlock()
	c.running.Wait()
}

// push queues a line, nil after the last one. A watcher whose queue is full is let go.
func (w *watcher) push(line []byte) bool {
	select {
	case <-w.gone:
		return false
	default:
	}
	select {
	case w.lines <- line:
		return true
	default:
		w.release()
		return false
	}
}

// release lets the watcher go.
func (w *watcher) release() {
	w.once.Do(func() {
		close(w.gone)
		w.conn.Close()
	})
}

// write writes what is queued until the watcher goes.
func (w *watcher) write() {
	defer w.release()
	for {
		select {
		case line := <-w.lines:
			if line == nil {
				return
			}
			if err := w.conn.SetWriteDeadline(time.Now().Add(watcherPatience)); err != nil {
				return
			}
			if _, err := w.conn.Write(line); err != nil {
				return
			}
		case <-w.gone:
			return
		}
	}
}
