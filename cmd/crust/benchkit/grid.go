package benchkit

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Grid is what a full run measures: each combination of one size and one connection, and
// of two sizes and more connections, is a test of its own. Its tests are not in [Tests];
// their names say their parameters:
//
//	out-SIZE-CONNECTIONS  messages from the dialling end to the accepting one
//	in-SIZE-CONNECTIONS   the other way
//	rtt-SIZE              round trips of one message
//	dial-AT_A_TIME        how long a connection takes
type Grid struct {
	// Sizes are those of messages, in bytes, over one connection. Nil means 64 to 512 Ki.
	Sizes []int
	// Streams are the numbers of connections at once beyond one, over which messages of
	// the sizes StreamSizes go. Nil means 8 and 64.
	Streams []int
	// Pings are the sizes of messages of round trips. Nil means 64 to 16 Ki.
	Pings []int
}

// StreamSizes are the sizes of messages of tests over several connections.
var StreamSizes = []int{MessageSize, BulkSize}

// Bounds of the parameters of a grid.
const (
	MaxGridSize    = 2 << 20 // the largest message of libcrust
	MaxGridStreams = 512
)

// Directions of streams, as the dialling end sees them.
const (
	Out = "out"
	In  = "in"
)

// withDefaults is the grid of a full run.
func (g Grid) withDefaults() Grid {
	if g.Sizes == nil {
		g.Sizes = []int{64, 256, 1024, 8 << 10, 64 << 10, 512 << 10}
	}
	if g.Streams == nil {
		g.Streams = []int{8, 64}
	}
	if g.Pings == nil {
		g.Pings = []int{64, 1024, 16 << 10}
	}
	return g
}

// Tests returns the tests of the grid, each once.
func (g Grid) Tests() []Test {
	g = g.withDefaults()
	var tests []Test
	add := func(t Test) {
		if !slices.ContainsFunc(tests, func(other Test) bool { return other.Name == t.Name }) {
			tests = append(tests, t)
		}
	}
	for _, direction := range []string{Out, In} {
		for _, size := range g.Sizes {
			add(streamTest(direction, size, 1))
		}
		for _, size := range StreamSizes {
			for _, n := range g.Streams {
				add(streamTest(direction, size, n))
			}
		}
	}
	for _, size := range g.Pings {
		add(pingTest(size))
	}
	add(dialTest(1))
	add(dialTest(8))
	return tests
}

// gridTest returns the test of a name of a grid, and whether it is one.
func gridTest(name string) (Test, bool) {
	words := strings.Split(name, "-")
	var n []int
	for _, word := range words[1:] {
		k, err := strconv.Atoi(word)
		if err != nil || k < 1 || strconv.Itoa(k) != word {
			return Test{}, false
		}
		n = append(n, k)
	}
	switch {
	case (words[0] == Out || words[0] == In) && len(n) == 2 && n[0] <= MaxGridSize && n[1] <= MaxGridStreams:
		return streamTest(words[0], n[0], n[1]), true
	case words[0] == "rtt" && len(n) == 1 && n[0] <= MaxGridSize:
		return pingTest(n[0]), true
	case words[0] == "dial" && len(n) == 1 && n[0] <= MaxGridStreams:
		return dialTest(n[0]), true
	}
	return Test{}, false
}

// InGrid tells whether a test is one of a [Grid].
func InGrid(test string) bool {
	_, is := gridTest(test)
	return is
}

// Stream says what a test of a grid streams: its direction, size and connections; ok is
// false for other tests.
func Stream(test string) (direction string, size, connections int, ok bool) {
	t, is := gridTest(test)
	if !is || t.direction == "" {
		return "", 0, 0, false
	}
	return t.direction, t.size, t.workers, true
}

// RoundTrip says of a test of a grid the size of its messages; ok is false for those that
// are not of round trips.
func RoundTrip(test string) (size int, ok bool) {
	t, is := gridTest(test)
	return t.size, is && t.direction == "" && t.size > 0
}

// Dialled says of a test of a grid how many connections are made at a time; ok is false for
// those that are not of connecting.
func Dialled(test string) (atATime int, ok bool) {
	t, is := gridTest(test)
	return t.workers, is && t.direction == "" && t.size == 0
}

// SizeText writes a number of bytes as people do: 64 B, 8 KiB, 2 MiB.
func SizeText(n int) string {
	switch {
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<10 && n%(1<<10) == 0:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d B", n)
}

func streamTest(direction string, size, connections int) Test {
	about := SizeText(size) + " messages, " + map[string]string{Out: "sent to the other end", In: "received from the other end"}[direction]
	if connections > 1 {
		about += fmt.Sprintf(", over %d connections in total", connections)
	}
	return Test{
		Name: fmt.Sprintf("%s-%d-%d", direction, size, connections), Unit: "msg/s", About: about,
		size: size, workers: connections, direction: direction, measure: measureGridStream,
	}
}

func pingTest(size int) Test {
	return Test{
		Name: fmt.Sprintf("rtt-%d", size), Unit: "us", About: "round trip of a " + SizeText(size) + " message, median",
		LessIsBetter: true, size: size, measure: measureGridPing,
	}
}

func dialTest(workers int) Test {
	about := "time of a new connection, median, one after another"
	if workers > 1 {
		about = fmt.Sprintf("time of a new connection, median, %d at a time", workers)
	}
	return Test{Name: fmt.Sprintf("dial-%d", workers), Unit: "us", About: about, LessIsBetter: true, workers: workers, measure: measureDial}
}

// measureGridStream is measureStreams in either direction, for one connection and more.
func measureGridStream(ctx context.Context, b *bench) (Outcome, error) {
	return b.withConns(ctx, b.test.workers, func(conns []Conn, _ serverEnd) (Outcome, error) {
		if err := b.prepare(conns...); err != nil {
			return Outcome{}, err
		}
		took, err := b.pass(conns, b.count)
		if err != nil {
			return Outcome{}, err
		}
		rate := float64(b.count*len(conns)) / took.Seconds()
		return Outcome{Value: rate, Count: b.count, Extra: map[string]float64{"mb_s": rate * float64(b.test.size) / 1e6}}, nil
	})
}

// measureGridPing is measurePing for messages of any size.
func measureGridPing(ctx context.Context, b *bench) (Outcome, error) {
	return b.pings(ctx, task{kind: taskEchoSized, size: b.test.size}, max(b.volume.Pings/10, 1))
}

// measureDial times new connections, handshakes included.
func measureDial(ctx context.Context, b *bench) (Outcome, error) {
	times, took, err := b.connects(ctx)
	if err != nil {
		return Outcome{}, err
	}
	outcome := spread(times)
	outcome.Extra["conn_s"] = float64(len(times)) / took.Seconds()
	return outcome, nil
}
