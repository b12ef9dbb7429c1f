package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/gdamore/tcell/v2"
)

// maxTopLine is the longest line of a control in bytes: some 60,000 peers.
const maxTopLine = 32 << 20

// topScreen shows a topModel on a terminal. One goroutine has the model and the
// screen; others read the connection, write to it, and read keys.
type topScreen struct {
	screen   tcell.Screen
	conn     net.Conn
	interval time.Duration
	model    *topModel
	lines    chan []byte   // from the control
	ended    chan error    // why no more come
	asks     chan struct{} // has the writer ask once
	faults   chan any      // panics of other goroutines
	waiting  int           // answers that are due
}

func newTopScreen(screen tcell.Screen, conn net.Conn, interval time.Duration, source string) *topScreen {
	return &topScreen{
		screen: screen, conn: conn, interval: interval, model: newTopModel(source),
		lines: make(chan []byte, 64), ended: make(chan error, 1), asks: make(chan struct{}, 1), faults: make(chan any, 1),
	}
}

// topQuestions are what is asked at each look.
var topQuestions = []string{"stats", "peers", "nat"}

// run shows until it is told to quit, by a key or a signal.
func (t *topScreen) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	keys := make(chan tcell.Event, 16)
	t.spawn(func() { t.screen.ChannelEvents(keys, ctx.Done()) })
	t.spawn(func() { t.read(ctx) })
	t.spawn(func() { t.ask(ctx) })
	ticker := time.NewTicker(t.interval)
	defer ticker.Stop()
	t.look()
	t.model.width, t.model.height = t.screen.Size()
	for !t.model.quit {
		t.draw()
		select {
		case e, ok := <-keys:
			if !ok {
				return errors.New("the terminal has gone")
			}
			t.take(e)
		case line := <-t.lines:
			t.hear(line)
			for more := true; more && len(t.lines) > 0; { // one screen for all that is there
				select {
				case line := <-t.lines:
					t.hear(line)
				default:
					more = false
				}
			}
		case err := <-t.ended:
			if t.model.over == "" {
				t.model.over = "the connection to the peer is gone"
				if err != nil {
					t.model.over += " (" + oneLine(err) + ")"
				}
			}
		case <-ticker.C:
			t.look()
		case fault := <-t.faults:
			panic(fault) // where the terminal is given back first
		case <-signals:
			return nil
		}
	}
	return nil
}

// spawn starts a goroutine whose panic is one of run.
func (t *topScreen) spawn(f func()) {
	go func() {
		defer func() {
			if fault := recover(); fault != nil {
				t.faults <- fault
			}
		}()
		f()
	}()
}

// look asks, unless answers are still due: then the peer is slow, and asking more
// would not make it faster.
func (t *topScreen) look() {
	if t.waiting > 0 || t.model.over != "" {
		return
	}
	select {
	case t.asks <- struct{}{}:
		t.waiting = len(topQuestions)
	default:
	}
}

// hear takes a line of the control.
func (t *topScreen) hear(line []byte) {
	for _, q := range topQuestions {
		if t.waiting > 0 && isEvent(line, q) {
			t.waiting--
		}
	}
	t.model.line(line)
}

// isEvent reports whether a line is of an event.
func isEvent(line []byte, name string) bool {
	prefix := `{"event":"` + name + `"`
	return len(line) >= len(prefix) && string(line[:len(prefix)]) == prefix
}

// read reads lines until the connection ends.
func (t *topScreen) read(ctx context.Context) {
	lines := bufio.NewScanner(t.conn)
	lines.Buffer(nil, maxTopLine)
	for lines.Scan() {
		select {
		case t.lines <- append([]byte(nil), lines.Bytes()...):
		case <-ctx.Done():
			return
		}
	}
	select {
	case t.ended <- lines.Err():
	case <-ctx.Done():
	}
}

// ask writes the questions, each time it is told to.
func (t *topScreen) ask(ctx context.Context) {
	for {
		select {
		case <-t.asks:
			for _, q := range topQuestions {
				if _, err := fmt.Fprintln(t.conn, q); err != nil {
					return // the reader has noticed, too
				}
			}
		case <-ctx.Done():
			return
		}
	}
}

// take takes a key, or a new size.
func (t *topScreen) take(e tcell.Event) {
	switch e := e.(type) {
	case *tcell.EventResize:
		t.model.width, t.model.height = e.Size()
		t.screen.Sync()
	case *tcell.EventKey:
		k := keyOf(e)
		if k != 0 && k == keyTest {
			panic("the key that tests press")
		}
		if t.model.help && k != keyQuit {
			k = keyHelp
		}
		t.model.key(k)
	}
}

// keyOf returns what a key means, 0 for nothing.
func keyOf(e *tcell.EventKey) topKey {
	switch e.Key() {
	case tcell.KeyCtrlC, tcell.KeyEscape:
		return keyQuit
	case tcell.KeyUp:
		return keyUp
	case tcell.KeyDown:
		return keyDown
	case tcell.KeyPgUp:
		return keyPageUp
	case tcell.KeyPgDn:
		return keyPageDown
	case tcell.KeyHome:
		return keyHome
	case tcell.KeyEnd:
		return keyEnd
	case tcell.KeyRune:
		return map[rune]topKey{'q': keyQuit, 'Q': keyQuit, ' ': keyPause, 'p': keyPause, 's': keySort, 'S': keySortBack, 'r': keyReverse, '?': keyHelp,
			'h': keyHelp, 'k': keyUp, 'j': keyDown, 'g': keyHome, 'G': keyEnd, 'P': keyTest}[e.Rune()]
	}
	return 0
}

// topStyles are the styles of a terminal: blue and yellow, which all eyes tell apart;
// what they mark is marked by words and signs as well.
var topStyles = map[topStyle]tcell.Style{
	stylePlain:   tcell.StyleDefault,
	styleTitle:   tcell.StyleDefault.Reverse(true),
	styleFaint:   tcell.StyleDefault.Foreground(tcell.ColorTeal),
	styleWarning: tcell.StyleDefault.Foreground(tcell.ColorYellow).Bold(true),
}

// draw shows the model.
func (t *topScreen) draw() {
	t.screen.Clear()
	for y, line := range t.model.view() {
		x := 0
		for _, span := range line {
			for _, r := range span.text {
				t.screen.SetContent(x, y, r, nil, topStyles[span.style])
				x++
			}
		}
	}
	t.screen.Show()
}
