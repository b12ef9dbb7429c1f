//go:build linux

// Command scale measures a libcrust service beside a go-libp2p host that have as many
// peers, and how soon a newcomer is connected while somebody floods their port with
// junk. Both are measured in one run, in turns. Results are for people; docs/RELIABILITY.md
// has some.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/libcrust/libcrust/tests/scale"
)

func main() {
	stacks := []scale.Stack{scale.Crust(), libp2pStack{}}
	if scale.Child(stacks...) {
		return
	}
	peers := flag.Int("peers", 1000, "how many `peers` are connected at the end; half and a quarter are measured, too")
	seconds := flag.Int("seconds", 30, "for how many `seconds` each is watched while nothing is sent, and then again")
	rate := flag.Int("flood", 1000, "how many `connections` a second the flood begins")
	newcomers := flag.Int("newcomers", 100, "how many `peers` connect meanwhile, one after the other")
	flag.Parse()
	if *peers < 4 || *seconds < 1 || *rate < 1 || *newcomers < 1 || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	for _, measure := range []func(scale.Stack) error{
		func(s scale.Stack) error { return grow(s, *peers, time.Duration(*seconds)*time.Second) },
		func(s scale.Stack) error { return flooded(s, *rate, *newcomers) },
	} {
		for _, s := range stacks {
			if err := measure(s); err != nil {
				fmt.Fprintf(os.Stderr, "scale: %s: %v\n", s.Name(), err)
				os.Exit(1)
			}
		}
	}
}

// grow measures a hub whose peers become more.
func grow(s scale.Stack, peers int, span time.Duration) error {
	f, err := scale.New(s, 1)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // the results are there
	empty, err := f.Rest(0, time.Second)
	if err != nil {
		return err
	}
	fmt.Printf("%s\n%s\n", s.Name(), scale.Heading)
	for _, n := range []int{peers / 4, peers / 2, peers} {
		took, err := f.Grow(n)
		if err != nil {
			return err
		}
		time.Sleep(span) // what follows a connection is not idle
		r, err := f.Rest(0, span)
		if err != nil {
			return err
		}
		fmt.Println(scale.Line(empty, r, took, 0))
	}
	return nil
}

// flooded measures how long newcomers take to connect, first alone and then in a flood.
func flooded(s scale.Stack, rate, newcomers int) error {
	f, err := scale.New(s, 1)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // the results are there
	if err := report(s, f, "alone", newcomers); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	began, done := time.Now(), make(chan int)
	go func() { done <- scale.Flood(ctx, port(f.Addresses[0]), net.IPv4(127, 0, 0, 2), rate) }()
	time.Sleep(3 * time.Second)
	err = report(s, f, "in the flood", newcomers)
	stop()
	fmt.Printf("%s: the flood was %.0f connections a second\n", s.Name(), float64(<-done)/time.Since(began).Seconds())
	return err
}

// report has newcomers connect, one after the other, and prints how long they took.
func report(s scale.Stack, f *scale.Field, when string, newcomers int) error {
	var took []time.Duration
	failed := 0
	for range newcomers {
		c, err := s.Client()
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		began := time.Now()
		if err := c.Connect(ctx, f.Addresses[0]); err != nil {
			failed++
		} else {
			took = append(took, time.Since(began))
		}
		cancel()
		if err := c.Close(); err != nil {
			return err
		}
	}
	if len(took) == 0 {
		fmt.Printf("%s, %s: none of %d newcomers was connected\n", s.Name(), when, newcomers)
		return nil
	}
	slices.Sort(took)
	at := func(share float64) time.Duration {
		return took[int(share*float64(len(took)-1))].Round(100 * time.Microsecond)
	}
	fmt.Printf("%s, %s: %d newcomers, median %v, p90 %v, p99 %v, most %v; %d failed\n", s.Name(), when, len(took), at(0.5), at(0.9), at(0.99), at(1), failed)
	return nil
}

// port returns where a hub listens, of an address in the words of its stack.
func port(address string) string {
	if at, _, ok := strings.Cut(strings.TrimPrefix(address, "tcp://"), "#"); ok {
		return at
	}
	words := strings.Split(address, "/") // "", "ip4", ADDRESS, "tcp", PORT, "p2p", ID
	return netip.MustParseAddrPort(words[2] + ":" + words[4]).String()
}
