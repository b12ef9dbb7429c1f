package dial

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/libcrust/libcrust/core/internal/endpoint"
)

// ErrNoSteps is the error of a race without steps.
var ErrNoSteps = errors.New("no endpoint to try")

// RaceError is the error of a race that nobody won: the cause for each step that
// was tried and failed by itself, and, when the race was given up, why.
type RaceError struct {
	GaveUp error   // of the context; nil when every step failed
	Steps  []Step  // in the order of the plan
	Errs   []error // one for each of Steps
}

// Error names every endpoint with its cause.
func (f *RaceError) Error() string {
	var parts []string
	switch {
	case errors.Is(f.GaveUp, context.DeadlineExceeded):
		parts = append(parts, "nobody answered in time")
	case f.GaveUp != nil:
		parts = append(parts, "given up")
	}
	for i, s := range f.Steps {
		parts = append(parts, s.Endpoint.String()+": "+f.Errs[i].Error())
	}
	return strings.Join(parts, "; ")
}

// Unwrap returns GaveUp, if any, and the causes, the first step's first.
func (f *RaceError) Unwrap() []error {
	if f.GaveUp != nil {
		return append([]error{f.GaveUp}, f.Errs...)
	}
	return f.Errs
}

// PanicError is the error of an attempt that panicked.
type PanicError struct {
	Value any
	Stack []byte
}

// Error says what was thrown; the stack is for logs.
func (p *PanicError) Error() string { return fmt.Sprintf("panic: %v", p.Value) }

// attempt is the outcome of one step.
type attempt[T any] struct {
	index int
	value T
	err   error
}

// Race runs the steps, each in its own goroutine at its delay, and returns the
// first success and its step. A failure starts the next step at once. TCP is
// favoured: a success over another transport waits for Grace while TCP attempts
// are under way, and starts nothing meanwhile. When one has won or ctx ends, the context given to the others is canceled, and
// those that succeed all the same are handed to lose, if it is not nil, one
// after another on the caller's goroutine. try must return soon after its
// context is canceled: Race returns when every attempt has. What try returns
// must outlive that context, which ends with the race.
//
// The error is ErrNoSteps or a *RaceError. An attempt that panics has failed with
// a *PanicError.
func Race[T any](ctx context.Context, steps []Step, try func(context.Context, Step) (T, error), lose func(T)) (T, Step, error) {
	var zero T
	if len(steps) == 0 {
		return zero, Step{}, ErrNoSteps
	}
	attempts, cancel := context.WithCancel(ctx)
	defer cancel()
	var running sync.WaitGroup
	results := make(chan attempt[T], len(steps)) // nobody waits to report
	launch := func(i int) {
		running.Go(func() {
			value, err := guard(attempts, steps[i], try)
			results <- attempt[T]{i, value, err}
		})
	}
	r := runner[T]{steps: steps, launch: launch, results: results, errs: make([]error, len(steps))}
	winner, gaveUp := r.run(ctx)
	errs := r.errs

	cancel()
	running.Wait()
	close(results)
	if lose != nil {
		for late := range results {
			if late.err == nil {
				lose(late.value)
			}
		}
		for _, other := range r.lost {
			lose(other)
		}
	}
	if winner != nil {
		return winner.value, steps[winner.index], nil
	}
	failure := &RaceError{GaveUp: gaveUp}
	for i, err := range errs {
		if err != nil {
			failure.Steps = append(failure.Steps, steps[i])
			failure.Errs = append(failure.Errs, err)
		}
	}
	return zero, Step{}, failure
}

// runner is the state of one race.
type runner[T any] struct {
	steps   []Step
	launch  func(int)
	results <-chan attempt[T]
	errs    []error // one place for each step

	launched, failed int
	streams          int         // TCP attempts under way
	held             *attempt[T] // a success that waits for them
	lost             []T         // successes that came second
}

// run launches steps until one has won, all have failed, or ctx ends.
func (r *runner[T]) run(ctx context.Context) (winner *attempt[T], gaveUp error) {
	start := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for r.failed < len(r.steps) && ctx.Err() == nil && (r.held == nil || r.streams > 0) {
		var next <-chan time.Time
		if r.held != nil || r.launched < len(r.steps) {
			next = timer.C
		}
		if r.held == nil && next != nil {
			timer.Reset(time.Until(start.Add(r.steps[r.launched].Delay)))
		}
		select {
		case <-ctx.Done():
		case <-next:
			if r.held != nil {
				return r.held, nil
			}
			r.next()
		case a := <-r.results:
			switch stream := r.stream(a.index); {
			case a.err != nil:
				r.fail(a)
			case stream && r.held != nil:
				r.lost = append(r.lost, r.held.value)
				return &a, nil
			case stream:
				return &a, nil
			case r.held != nil:
				r.lost = append(r.lost, a.value)
			default:
				r.held = &a
				timer.Reset(Grace)
			}
		}
	}
	if r.held != nil {
		return r.held, nil
	}
	return nil, ctx.Err()
}

func (r *runner[T]) stream(i int) bool { return r.steps[i].Endpoint.Transport == endpoint.TCP }

// next launches the next step.
func (r *runner[T]) next() {
	if r.stream(r.launched) {
		r.streams++
	}
	r.launch(r.launched)
	r.launched++
}

// fail takes note of a failure.
func (r *runner[T]) fail(a attempt[T]) {
	r.errs[a.index] = a.err
	r.failed++
	if r.stream(a.index) {
		r.streams--
	}
	if r.held == nil && r.launched < len(r.steps) {
		r.next()
	}
}

// guard runs one attempt and turns a panic into an error.
func guard[T any](ctx context.Context, step Step, try func(context.Context, Step) (T, error)) (value T, err error) {
	defer func() {
		if thrown := recover(); thrown != nil {
			err = &PanicError{Value: thrown, Stack: debug.Stack()}
		}
	}()
	return try(ctx, step)
}
