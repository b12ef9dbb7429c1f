// Package conformance lets every language's library talk with every other's.
//
// Each language has a driver, a program that obeys the same few commands, one a
// line, and answers in the same words:
//
//	driver NETWORKNAME                 listens on tcp://127.0.0.1:0 and prints "ready PEERID"
//	info                               "info BASE64URL"
//	connect BASE64URL                  "connected PEERID" or "connect_failed CODE TEXT";
//	                                   the side that accepts prints "connected PEERID" too
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

// TestMatrix runs every ordered pair: the first makes the connection info, the
// second connects with it.
func TestMatrix(t *testing.T) {
	run := wanted(t)
	w := newWorkshop(t)
	programs := make(map[string]program)
	for _, language := range run {
		programs[language] = w.build(t, language)
	}
	outcomes := make(map[[2]string]outcome)
	for _, a := range run {
		for _, b := range run {
			began := time.Now()
			passed := t.Run(a+"-"+b, func(t *testing.T) { pair(t, a, b, programs[a], programs[b]) })
			outcomes[[2]string{a, b}] = outcome{passed, time.Since(began)}
		}
	}
	fmt.Fprint(os.Stdout, table(run, outcomes))
}

// table shows the matrix to people.
func table(run []string, outcomes map[[2]string]outcome) string {
	var b strings.Builder
	passed := 0
	fmt.Fprintf(&b, "\nconformance: rows give connection info, columns connect\n%10s", "")
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
	fmt.Fprintf(&b, "\n%d passed, %d failed\n", passed, len(run)*len(run)-passed)
	return b.String()
}

// pair is the conversation of two drivers.
func pair(t *testing.T, languageA, languageB string, programA, programB program) {
	network := fmt.Sprintf("conformance %s %s %d", languageA, languageB, time.Now().UnixNano())
	a := start(t, languageA, programA, network)
	b := start(t, languageB, programB, network)
	if a.id == b.id || len(a.id) != 64 || len(b.id) != 64 {
		t.Fatalf("peer ids %q and %q, want two different ones of 64 digits", a.id, b.id)
	}

	a.tell("info")
	b.tell("connect %s", strings.TrimPrefix(a.expect("info "), "info "))
	a.expectAll("connected " + b.id)
	b.expectAll("connected " + a.id)

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

	if languageA <= languageB { // each side of each couple of languages is the one that ends it, once
		a.tell("disconnect %s", b.id)
	} else {
		b.tell("disconnect %s", a.id)
	}
	a.expectAll("lost " + b.id + " disconnected")
	b.expectAll("lost " + a.id + " disconnected")

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
