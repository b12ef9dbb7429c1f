// Package conformance lets every language's library talk with every other's.
//
// Each language has a driver, a program that obeys the same few commands, one a
// line, and answers in the same words:
//
//	driver NETWORKNAME [LISTEN...]     listens there, or on tcp://127.0.0.1:0: "ready PEERID"
//	info                               "info BASE64URL"
//	connect BASE64URL                  "connected PEERID TRANSPORT" or "connect_failed CODE TEXT";
//	                                   the side that accepts prints "connected ..." too
//	pattern PEERID COUNT SIZE PRIORITY sends COUNT messages of SIZE bytes, then "sent COUNT";
//	                                   byte i of message k is k*31 + i*7 + 3 modulo 256, where k
//	                                   runs on from command to command
//	verify PEERID COUNT SIZE           when COUNT further messages have come: "verified COUNT"
//	toobig PEERID                      tries 2 MiB and a byte: "refused too_big"
//	disconnect PEERID                  both sides print "lost PEERID disconnected"
//	quit, or the end of the input      "bye", exit code 0
//	anything else                      "error ..."
package conformance

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// outcome is one cell of the table.
type outcome struct {
	passed bool
	took   time.Duration
}

// Listeners of drivers.
const (
	tcp = "tcp://127.0.0.1:0"
	utp = "utp://127.0.0.1:0"
)

// ways are how the pairs of the matrix meet: where each side listens, and what
// they must meet by.
var ways = []struct {
	name, by         string
	listenA, listenB []string
}{
	{"tcp", "tcp", []string{tcp}, []string{tcp}},
	{"utp", "utp", []string{utp}, []string{utp}},
	{"mixed", "tcp", []string{tcp, utp}, []string{utp}},
}

// TestMatrix runs every ordered pair: the first makes the connection info, the
// second connects with it. It does so over TCP, over uTP, and with both to choose
// from, when it must be TCP.
func TestMatrix(t *testing.T) {
	run := wanted(t)
	programs := buildAll(t, run)
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			outcomes := make(map[[2]string]outcome)
			for _, a := range run {
				for _, b := range run {
					began := time.Now()
					passed := t.Run(a+"-"+b, func(t *testing.T) {
						network := fmt.Sprintf("conformance %s %s %d", a, b, time.Now().UnixNano())
						pair(t, start(t, a, programs[a], network, way.listenA...), start(t, b, programs[b], network, way.listenB...), way.by)
					})
					outcomes[[2]string{a, b}] = outcome{passed, time.Since(began)}
				}
			}
			fmt.Fprint(os.Stdout, table(way.name, run, outcomes))
		})
	}
}

// buildAll builds the drivers of the languages.
func buildAll(t *testing.T, run []string) map[string]program {
	w := newWorkshop(t)
	programs := make(map[string]program)
	for _, language := range run {
		programs[language] = w.build(t, language)
	}
	return programs
}

// TestMixedMesh connects each language with each other in one network, in which
// two listen over TCP alone and two over uTP alone: everybody has sessions of
// both kinds at once.
func TestMixedMesh(t *testing.T) {
	run := wanted(t)
	programs := buildAll(t, run)
	network := fmt.Sprintf("conformance mesh %d", time.Now().UnixNano())
	all := make([]*driver, len(run))
	for i, language := range run {
		all[i] = start(t, language, programs[language], network, []string{tcp, utp}[i%2])
	}
	for i, a := range all {
		for j, b := range all[:i] {
			if (i+j)%2 == 1 {
				meet(a, b, []string{"tcp", "utp"}[i%2])
			} else {
				meet(b, a, []string{"tcp", "utp"}[j%2])
			}
		}
	}
	for _, size := range []int{64, 20 << 10} {
		for i, a := range all {
			for _, b := range all[:i] {
				exchange(a, b, 100, size, 1)
			}
		}
	}
	for i, a := range all {
		for _, b := range all[:i] {
			part(a, b)
		}
	}
	for _, d := range all {
		d.tell("quit")
		d.end()
	}
}

// table shows the matrix to people.
func table(way string, run []string, outcomes map[[2]string]outcome) string {
	var b strings.Builder
	passed := 0
	fmt.Fprintf(&b, "\nconformance, %s: rows give connection info, columns connect\n%10s", way, "")
	for _, column := range run {
		fmt.Fprintf(&b, "%14s", column)
	}
	for _, row := range run {
		fmt.Fprintf(&b, "\n%10s", row)
		for _, column := range run {
			cell, result := outcomes[[2]string{row, column}], "FAILED"
			if cell.passed {
				result = "ok"
				passed++
			}
			fmt.Fprintf(&b, "%14s", fmt.Sprintf("%s %5.2f s", result, cell.took.Seconds()))
		}
	}
	var took time.Duration
	for _, cell := range outcomes {
		took += cell.took
	}
	fmt.Fprintf(&b, "\n%d passed, %d failed, in %.1f s\n", passed, len(run)*len(run)-passed, took.Seconds())
	return b.String()
}

// meet lets b connect with a's connection info, which must be over a transport.
func meet(a, b *driver, by string) {
	a.t.Helper()
	a.tell("info")
	b.tell("connect %s", strings.TrimPrefix(a.expect("info "), "info "))
	a.expectAll("connected " + b.id + " " + by)
	b.expectAll("connected " + a.id + " " + by)
}

// part lets a end the session with b.
func part(a, b *driver) {
	a.t.Helper()
	a.tell("disconnect %s", b.id)
	a.expectAll("lost " + b.id + " disconnected")
	b.expectAll("lost " + a.id + " disconnected")
}

// pair is the conversation of two drivers.
func pair(t *testing.T, a, b *driver, by string) {
	if a.id == b.id || len(a.id) != 64 || len(b.id) != 64 {
		t.Fatalf("peer ids %q and %q, want two different ones of 64 digits", a.id, b.id)
	}
	meet(a, b, by)

	exchange(a, b, 1000, 64, 1)
	exchange(a, b, 100, 20<<10, 0)
	exchange(a, b, 1, 2<<20, 2)

	for _, d := range []*driver{a, b} {
		other := a
		if d == a {
			other = b
		}
		d.tell("toobig %s", other.id)
		d.expectAll("refused too_big")
		d.tell("nonsense")
		d.expect("error ")
	}
	exchange(a, b, 1, 0, 1) // the session is unharmed, and an empty message is a message
	exchange(a, b, 10, 100, 200)

	if a.language <= b.language { // each side of each couple of languages is the one that ends it, once
		part(a, b)
	} else {
		part(b, a)
	}

	a.tell("quit")
	a.end()
	if err := b.input.Close(); err != nil {
		t.Fatal(err)
	}
	b.end()
}

// exchange sends count messages of size bytes each way at the same time, and
// has each side check what it gets byte for byte.
func exchange(a, b *driver, count, size, priority int) {
	a.t.Helper()
	a.tell("verify %s %d %d", b.id, count, size)
	b.tell("verify %s %d %d", a.id, count, size)
	a.tell("pattern %s %d %d %d", b.id, count, size, priority)
	b.tell("pattern %s %d %d %d", a.id, count, size, priority)
	done := []string{fmt.Sprintf("sent %d", count), fmt.Sprintf("verified %d", count)}
	a.expectAll(done...)
	b.expectAll(done...)
}
