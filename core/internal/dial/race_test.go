package dial

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libcrust/libcrust/core/internal/endpoint"
)

var errRefused = errors.New("refused")

// course scripts a race: what each step does, by its port.
type course struct {
	mu      sync.Mutex
	start   time.Time
	begun   map[uint16]time.Duration // when each attempt began
	running int
	lost    []uint16
	script  map[uint16]outcome
}

// outcome is what an attempt does: after a while succeed, fail or panic. With
// stubborn it finishes although its context ended.
type outcome struct {
	after    time.Duration
	err      error
	panics   bool
	stubborn bool
}

func steps(delays ...time.Duration) (out []Step) {
	for i, d := range delays {
		addr := netip.AddrPortFrom(netip.MustParseAddr("203.0.113.5"), uint16(i+1))
		out = append(out, Step{endpoint.New(endpoint.TCP, addr), d})
	}
	return out
}

func (c *course) try(ctx context.Context, s Step) (uint16, error) {
	port := s.Endpoint.Addr.Port()
	c.mu.Lock()
	if _, twice := c.begun[port]; twice {
		panic("an endpoint was tried twice")
	}
	c.begun[port] = time.Since(c.start)
	c.running++
	o := c.script[port]
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.running--
	}()
	end := ctx.Done()
	if o.stubborn {
		end = nil
	}
	select {
	case <-time.After(o.after):
	case <-end:
		return 0, ctx.Err()
	}
	if o.panics {
		panic("out of the window")
	}
	if o.err != nil {
		return 0, o.err
	}
	return port, nil
}

func (c *course) lose(port uint16) { c.lost = append(c.lost, port) }

// run races the course in a bubble and checks that nothing is left running.
func (c *course) run(t *testing.T, ctx context.Context, plan []Step) (uint16, Step, error) {
	t.Helper()
	c.start, c.begun = time.Now(), map[uint16]time.Duration{}
	value, step, err := Race(ctx, plan, c.try, c.lose)
	if c.running != 0 {
		t.Fatalf("%d attempts run on after Race returned", c.running)
	}
	if err == nil && step.Endpoint.Addr.Port() != value {
		t.Fatalf("value %d comes with step %v", value, step)
	}
	return value, step, err
}

const ms = time.Millisecond

func TestRace(t *testing.T) {
	const forever = 1000 * time.Hour
	for _, c := range []struct {
		name   string
		delays []time.Duration
		script map[uint16]outcome
		winner uint16 // 0: none
		took   time.Duration
		begun  map[uint16]time.Duration
		lost   []uint16
	}{
		{name: "the first succeeds before the second begins", delays: []time.Duration{0, 250 * ms},
			script: map[uint16]outcome{1: {after: 100 * ms}},
			winner: 1, took: 100 * ms, begun: map[uint16]time.Duration{1: 0}},
		{name: "a silent endpoint holds nobody up", delays: []time.Duration{0, 250 * ms},
			script: map[uint16]outcome{1: {after: forever}, 2: {after: 30 * ms}},
			winner: 2, took: 280 * ms, begun: map[uint16]time.Duration{1: 0, 2: 250 * ms}},
		{name: "a failure starts the next at once", delays: []time.Duration{0, 250 * ms, 500 * ms},
			script: map[uint16]outcome{1: {after: 10 * ms, err: errRefused}, 2: {after: 5 * ms, err: errRefused}, 3: {after: ms}},
			winner: 3, took: 16 * ms, begun: map[uint16]time.Duration{1: 0, 2: 10 * ms, 3: 15 * ms}},
		{name: "a later step may win over an earlier one", delays: []time.Duration{0, 0},
			script: map[uint16]outcome{1: {after: 20 * ms}, 2: {after: 10 * ms}},
			winner: 2, took: 10 * ms, begun: map[uint16]time.Duration{1: 0, 2: 0}},
		{name: "who succeeds too late is handed to lose", delays: []time.Duration{0, 0, 0},
			script: map[uint16]outcome{1: {after: 10 * ms}, 2: {after: 40 * ms, stubborn: true}, 3: {after: 60 * ms, stubborn: true, err: errRefused}},
			winner: 1, took: 60 * ms, begun: map[uint16]time.Duration{1: 0, 2: 0, 3: 0}, lost: []uint16{2}},
		{name: "a panic is a failure", delays: []time.Duration{0, 250 * ms},
			script: map[uint16]outcome{1: {panics: true}, 2: {}},
			winner: 2, begun: map[uint16]time.Duration{1: 0, 2: 0}},
		{name: "all fail", delays: []time.Duration{0, time.Hour},
			script: map[uint16]outcome{1: {after: 10 * ms, err: errRefused}, 2: {after: 20 * ms, err: errRefused}},
			took:   30 * ms, begun: map[uint16]time.Duration{1: 0, 2: 10 * ms}},
		{name: "a first delay is waited for", delays: []time.Duration{time.Second},
			script: map[uint16]outcome{1: {}},
			winner: 1, took: time.Second, begun: map[uint16]time.Duration{1: time.Second}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				race := &course{script: c.script}
				value, _, err := race.run(t, t.Context(), steps(c.delays...))
				if value != c.winner || (err == nil) != (c.winner != 0) {
					t.Errorf("the winner is %d, %v; want %d", value, err, c.winner)
				}
				if took := time.Since(race.start); took != c.took {
					t.Errorf("took %v, want %v", took, c.took)
				}
				if len(race.begun) != len(c.begun) {
					t.Errorf("begun %v, want %v", race.begun, c.begun)
				}
				for port, at := range c.begun {
					if race.begun[port] != at {
						t.Errorf("%d began at %v, want %v", port, race.begun[port], at)
					}
				}
				if !slices.Equal(race.lost, c.lost) {
					t.Errorf("lost %v, want %v", race.lost, c.lost)
				}
			})
		})
	}
}

func TestRaceWithoutSteps(t *testing.T) {
	_, _, err := Race(t.Context(), nil, func(context.Context, Step) (int, error) { t.Error("tried"); return 0, nil }, nil)
	if !errors.Is(err, ErrNoSteps) {
		t.Errorf("Race = %v", err)
	}
}

func TestRaceNamesEveryCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		race := &course{script: map[uint16]outcome{1: {after: 20 * ms, err: errRefused}, 2: {panics: true}}}
		_, _, err := race.run(t, t.Context(), steps(0, 0))
		const want = "tcp://203.0.113.5:1: refused; tcp://203.0.113.5:2: panic: out of the window"
		if err == nil || err.Error() != want {
			t.Errorf("error %q\nwant  %q", err, want)
		}
		var failure *RaceError
		var thrown *PanicError
		if !errors.Is(err, errRefused) || !errors.As(err, &failure) || failure.GaveUp != nil || len(failure.Steps) != 2 {
			t.Errorf("%#v does not hold its causes", err)
		}
		if !errors.As(err, &thrown) || !strings.Contains(string(thrown.Stack), "race_test.go") {
			t.Errorf("%#v does not hold the panic and its stack", err)
		}
	})
}

func TestRaceGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		race := &course{script: map[uint16]outcome{
			1: {after: 10 * ms, err: errRefused}, 2: {after: time.Hour}, 3: {after: 1500 * ms, stubborn: true}, 4: {after: time.Hour},
		}}
		_, _, err := race.run(t, ctx, steps(0, 0, 0, 2*time.Second))
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, errRefused) {
			t.Fatalf("error %v, want the deadline and the cause known by then", err)
		}
		if want := "nobody answered in time; tcp://203.0.113.5:1: refused"; err.Error() != want {
			t.Errorf("error %q, want %q", err, want)
		}
		if !slices.Equal(race.lost, []uint16{3}) {
			t.Errorf("lost %v, want the success that came too late", race.lost)
		}
	})
}

func TestRaceCanceledBefore(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err := Race(ctx, steps(0), func(context.Context, Step) (int, error) { t.Error("tried"); return 0, nil }, nil)
	if !errors.Is(err, context.Canceled) || err.Error() != "given up" {
		t.Errorf("Race = %v", err)
	}
}

func TestRaceCancelsTheOthersOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		canceled := make(chan uint16, 2)
		_, _, err := Race(t.Context(), steps(0, 0, 0), func(ctx context.Context, s Step) (int, error) {
			if s.Endpoint.Addr.Port() == 2 {
				return 2, ctx.Err()
			}
			<-ctx.Done()
			canceled <- s.Endpoint.Addr.Port()
			return 0, ctx.Err()
		}, nil)
		if err != nil || len(canceled) != 2 {
			t.Errorf("Race = %v; %d attempts were canceled, want 2", err, len(canceled))
		}
		if t.Context().Err() != nil {
			t.Error("the caller's context ended")
		}
	})
}

// TestRaceFavoursTCP: steps 1 and 2 are TCP, 3 and 4 are uTP.
func TestRaceFavoursTCP(t *testing.T) {
	const forever = 1000 * time.Hour
	for _, c := range []struct {
		name   string
		delays []time.Duration
		script map[uint16]outcome
		winner uint16
		took   time.Duration
		lost   []uint16
	}{
		{name: "TCP that comes within the grace wins", delays: []time.Duration{0, forever, 0, forever},
			script: map[uint16]outcome{1: {after: 90 * ms}, 3: {after: 10 * ms}},
			winner: 1, took: 90 * ms, lost: []uint16{3}},
		{name: "the grace is short", delays: []time.Duration{0, forever, 0, forever},
			script: map[uint16]outcome{1: {after: forever}, 3: {after: 10 * ms}},
			winner: 3, took: 10*ms + Grace},
		{name: "nothing starts during the grace", delays: []time.Duration{0, 30 * ms, 0, forever},
			script: map[uint16]outcome{1: {after: 40 * ms, err: errRefused}, 2: {}, 3: {after: 10 * ms}},
			winner: 3, took: 40 * ms},
		{name: "without TCP under way there is nothing to wait for", delays: []time.Duration{0, forever, 0, forever},
			script: map[uint16]outcome{1: {after: 5 * ms, err: errRefused}, 2: {after: ms, err: errRefused}, 3: {after: 10 * ms}, 4: {after: forever}},
			winner: 3, took: 10 * ms},
		{name: "of two over uTP the first wins", delays: []time.Duration{0, forever, 0, 0},
			script: map[uint16]outcome{1: {after: forever}, 3: {after: 20 * ms}, 4: {after: 10 * ms}},
			winner: 4, took: 10*ms + Grace, lost: []uint16{3}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				race := &course{script: c.script}
				plan := steps(c.delays...)
				for i := 2; i < 4; i++ {
					plan[i].Endpoint.Transport = endpoint.UTP
				}
				slices.SortStableFunc(plan, func(a, b Step) int { return int(a.Delay - b.Delay) })
				value, _, err := race.run(t, t.Context(), plan)
				if err != nil || value != c.winner {
					t.Errorf("the winner is %d, %v; want %d", value, err, c.winner)
				}
				if took := time.Since(race.start); took != c.took {
					t.Errorf("took %v, want %v", took, c.took)
				}
				if !slices.Equal(race.lost, c.lost) {
					t.Errorf("lost %v, want %v", race.lost, c.lost)
				}
			})
		})
	}
}

func TestRaceGivenUpDuringTheGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*ms)
		defer cancel()
		race := &course{script: map[uint16]outcome{1: {after: time.Hour}, 2: {after: 10 * ms}}}
		plan := steps(0, 0)
		plan[1].Endpoint.Transport = endpoint.UTP
		if value, _, err := race.run(t, ctx, plan); err != nil || value != 2 {
			t.Errorf("Race = %d, %v; the success that was waiting was lost", value, err)
		}
	})
}
