package dial

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"time"
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
// first success and its step. A failure starts the next step at once. When one
// has succeeded or ctx ends, the context given to the others is canceled, and
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
	winner, errs, gaveUp := run(ctx, steps, launch, results)

	cancel()
	running.Wait()
	close(results)
	for late := range results {
		if late.err == nil && lose != nil {
			lose(late.value)
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

// run launches steps until one succeeds, all have failed, or ctx ends. errs has
// one place for each step.
func run[T any](ctx context.Context, steps []Step, launch func(int), results <-chan attempt[T]) (winner *attempt[T], errs []error, gaveUp error) {
	start := time.Now()
	errs = make([]error, len(steps))
	timer := time.NewTimer(0)
	defer timer.Stop()
	launched, failed := 0, 0
	for failed < len(steps) {
		if ctx.Err() != nil {
			break
		}
		var next <-chan time.Time
		if launched < len(steps) {
			timer.Reset(time.Until(start.Add(steps[launched].Delay)))
			next = timer.C
		}
		select {
		case <-ctx.Done():
		case <-next:
			launch(launched)
			launched++
		case r := <-results:
			if r.err == nil {
				return &r, errs, nil
			}
			errs[r.index] = r.err
			failed++
			if launched < len(steps) {
				launch(launched)
				launched++
			}
		}
	}
	return nil, errs, ctx.Err()
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
