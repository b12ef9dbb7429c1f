package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	crust "github.com/libcrust/libcrust/core"
)

// maxLine is the longest command in bytes: a message of the largest size and
// the words before it.
const maxLine = crust.MaxMessage + 1024

// defaultCloseTimeout is that of crust.Config.
const defaultCloseTimeout = 5 * time.Second

// maxMet bounds the peers that dial knows by the first digits of their ids.
const maxMet = 1024

// peer is one run of `crust peer`: a goroutine prints the events, one reads the
// commands, and senders send.
type peer struct {
	service      *crust.Service
	out          *output
	senders      *senders
	closeTimeout time.Duration
	echo         bool          // send every message back
	quiet        bool          // do not print large messages
	groups       []crust.Group // to be kept
	scraped      report        // where the counters are served, nil: nowhere
	lastToken    atomic.Uint64

	mu       sync.Mutex
	sessions uint64                  // guarded by mu; number of sessions told so far
	told     map[crust.PeerID]uint64 // guarded by mu; which of them is this peer's, while connected
	connects map[uint64]uint64       // guarded by mu; by token: sessions when the connect was asked for
	class    map[crust.PeerID]string // guarded by mu; what the link of each connected peer is
	met      []crust.PeerID          // guarded by mu; who has been connected, the last one last; at most maxMet
}

func newPeer(service *crust.Service, out *output, closeTimeout time.Duration) *peer {
	if closeTimeout == 0 {
		closeTimeout = defaultCloseTimeout
	}
	return &peer{
		service: service, out: out, senders: newSenders(service, out), closeTimeout: closeTimeout,
		told: make(map[crust.PeerID]uint64), connects: make(map[uint64]uint64), class: make(map[crust.PeerID]string),
	}
}

func (p *peer) newToken() uint64 { return p.lastToken.Add(1) }

// run serves until the end of the commands, a signal, the loss of the reader of
// our output, or the service's own end.
func (p *peer) run(commands io.Reader, bootstrap bool) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	p.out.tell(&startedReport{Peer: p.service.ID()})
	if p.scraped != nil {
		p.out.tell(p.scraped)
	}
	for _, g := range p.groups {
		if err := p.service.Keep(g); err != nil {
			p.out.tell(errorOf(err))
		}
	}
	if bootstrap {
		if err := p.service.Bootstrap(p.newToken()); err != nil {
			p.out.tell(&bootstrapFailedReport{Code: crust.CodeOf(err).String(), Error: oneLine(err)})
		}
	}
	ended := make(chan error, 1)
	go func() { ended <- p.printEvents(ctx) }()
	done := make(chan struct{})
	go func() { // not joined: a read of standard input cannot be interrupted
		defer close(done)
		p.readCommands(ctx, commands)
	}()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)

	var stopped error // why the service stopped by itself
	byItself := false
	select {
	case <-done:
		p.finishSending(signals)
	case <-signals:
	case <-p.out.broken:
	case stopped = <-ended:
		byItself = true
	}
	signal.Stop(signals) // a second signal ends the process
	cancel()
	p.senders.stop()
	p.service.Stop()
	if !byItself {
		stopped = <-ended
	}
	err := errors.Join(stopped, p.service.Close())
	if failure := p.out.failure(); failure != nil {
		return fmt.Errorf("cannot write the output: %w", failure)
	}
	return err
}

// finishSending lets the sends that are under way be accepted, as long as
// closing may take.
func (p *peer) finishSending(signals <-chan os.Signal) {
	ctx, cancel := context.WithTimeout(context.Background(), p.closeTimeout)
	defer cancel()
	go func() {
		select {
		case <-signals:
		case <-p.out.broken:
		case <-ctx.Done():
		}
		cancel()
	}()
	p.senders.wait(ctx)
}

// printEvents tells every event until the service has stopped. It returns why
// the service stopped by itself, if it did.
func (p *peer) printEvents(ctx context.Context) error {
	var stopped error
	for {
		batch, err := p.service.NextBatch(context.Background(), 0)
		if err != nil {
			if crust.CodeOf(err) == crust.CodeClosed {
				return stopped
			}
			return errors.Join(stopped, err)
		}
		for i := range batch.Events {
			e := &batch.Events[i]
			if e.Type == crust.EventStopped {
				stopped = e.Err()
			}
			p.handle(ctx, e)
		}
		batch.Release()
		p.out.flush()
	}
}

// handle tells one event.
func (p *peer) handle(ctx context.Context, e *crust.Event) {
	switch e.Type {
	case crust.EventMessage:
		if !p.quiet || len(e.Data) <= maxShownText {
			p.out.put(reportOf(e))
		}
		if p.echo {
			p.echoBack(ctx, e)
		}
		return
	case crust.EventDatagram:
		if p.quiet && len(e.Data) > maxShownText {
			return
		}
	case crust.EventDelivered:
		if r := p.senders.open.delivered(e); r != nil {
			p.out.put(r)
		}
		return
	case crust.EventConnected:
		p.mu.Lock()
		p.sessions++
		p.told[e.Peer] = p.sessions
		p.class[e.Peer] = classOf(e)
		p.meet(e.Peer)
		delete(p.connects, e.Token)
		p.mu.Unlock()
	case crust.EventLost:
		p.mu.Lock()
		delete(p.told, e.Peer)
		delete(p.class, e.Peer)
		p.mu.Unlock()
	case crust.EventResumed:
		p.mu.Lock()
		from, to := p.class[e.Peer], classOf(e)
		p.class[e.Peer] = to
		p.mu.Unlock()
		p.out.put(reportOf(e))
		if slices.Index(classes, from) < slices.Index(classes, to) {
			p.out.put(&upgradedReport{Peer: e.Peer, From: from, To: to})
		}
		return
	case crust.EventConnectFailed:
		p.mu.Lock()
		delete(p.connects, e.Token)
		p.mu.Unlock()
	case crust.EventAlreadyConnected:
		p.answerAlreadyConnected(e)
		return
	case crust.EventStopped:
		if e.Err() != nil {
			p.out.put(errorOf(e.Err()))
		}
		p.out.put(&stoppedReport{})
		return
	}
	if r := reportOf(e); r != nil {
		p.out.put(r)
	}
}

// classes are what links are, the better ones last.
var classes = []string{"", "relayed", "utp", "tcp"}

// classOf returns what the link is that an event tells of.
func classOf(e *crust.Event) string {
	if e.How() == crust.Relayed {
		return "relayed"
	}
	return e.Endpoint().Transport.String()
}

// meet notes that a peer has been connected. The caller holds p.mu.
func (p *peer) meet(id crust.PeerID) {
	if i := slices.Index(p.met, id); i >= 0 {
		p.met = slices.Delete(p.met, i, i+1)
	}
	p.met = append(p.met, id)
	p.met = slices.Delete(p.met, 0, max(0, len(p.met)-maxMet))
}

// answerAlreadyConnected answers a connect that found a session. When that
// session was told after the connect was asked for, for instance because both
// sides connected at once, "connected" was the answer already. Otherwise the
// answer is an error that changes nothing.
func (p *peer) answerAlreadyConnected(e *crust.Event) {
	p.mu.Lock()
	asked, ours := p.connects[e.Token]
	delete(p.connects, e.Token)
	answered := ours && p.told[e.Peer] > asked
	p.mu.Unlock()
	if !answered {
		p.out.put(errorOf(&crust.Error{Op: "connect", Peer: e.Peer, Code: crust.CodeConnected}))
	}
}

// echoBack sends a message back to whom it came from. When the output waits for
// its reader, or the peer does not read what is sent back, this waits too, and
// with it the network.
func (p *peer) echoBack(ctx context.Context, e *crust.Event) {
	err := p.senders.echo(ctx, e.Peer, e.Data, e.Priority)
	switch crust.CodeOf(err) {
	case crust.CodeOK, crust.CodeUnknownPeer, crust.CodeClosed: // lost or stopping, which events tell
	default:
		p.out.put(errorOf(err))
	}
}

// readCommands executes the lines of r until its end, quit, or the end of ctx.
func (p *peer) readCommands(ctx context.Context, r io.Reader) {
	lines := bufio.NewReaderSize(r, 64<<10)
	for ctx.Err() == nil {
		line, whole, err := readLine(lines)
		switch {
		case !whole:
			p.out.tell(errorOf(&commandError{crust.CodeTooBig, fmt.Sprintf("the command is longer than %d bytes", maxLine)}))
		case p.execute(ctx, line):
			return
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				p.out.tell(errorOf(&commandError{crust.CodeIO, "cannot read the commands: " + err.Error()}))
			}
			return
		}
	}
}

// readLine reads one line without its end. It skips lines longer than maxLine
// and reports that they were not whole.
func readLine(r *bufio.Reader) (line string, whole bool, err error) {
	var b strings.Builder
	whole = true
	for {
		piece, err := r.ReadSlice('\n')
		if b.Len()+len(piece) > maxLine {
			whole = false
			b.Reset()
		}
		if whole {
			b.Write(piece)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		return strings.TrimSuffix(strings.TrimSuffix(b.String(), "\n"), "\r"), whole, err
	}
}
