package benchkit

import (
	"math"
	"strings"
	"testing"
)

func TestGoals(t *testing.T) {
	result := func(transport, test string, value float64) Result {
		return Result{Transport: transport, Test: test, Value: value, Runs: []float64{value}}
	}
	results := []Result{result("a", "bulk", 70), result("a", "bulk64", 35), result("b", "bulk", 35), result("c", "bulk", 0)}
	for _, c := range []struct {
		goal    Goal
		figure  float64
		reached bool
	}{
		{Goal{Least: true, Limit: 70, Transport: "a", Test: "bulk"}, 70, true},
		{Goal{Least: true, Limit: 70.1, Transport: "a", Test: "bulk"}, 70, false},
		{Goal{Limit: 70, Transport: "a", Test: "bulk"}, 70, true},
		{Goal{Limit: 69.9, Transport: "a", Test: "bulk"}, 70, false},
		{Goal{Least: true, Limit: 2, Transport: "a", Test: "bulk", Beside: "b"}, 2, true},
		{Goal{Least: true, Limit: 0.6, Transport: "a", Test: "bulk64", BesideTest: "bulk"}, 0.5, false},
		{Goal{Least: true, Limit: 1, Transport: "a", Test: "bulk64", Beside: "b", BesideTest: "bulk"}, 1, true},
		{Goal{Limit: 1, Transport: "a", Test: "bulk", Beside: "c"}, math.NaN(), false},
		{Goal{Limit: 1, Transport: "a", Test: "ping"}, math.NaN(), false},
		{Goal{Limit: 1, Transport: "a", Test: "bulk64", Beside: "b"}, math.NaN(), false},
	} {
		got := c.goal.figure(results)
		if got != c.figure && !(math.IsNaN(got) && math.IsNaN(c.figure)) || c.goal.reached(got) != c.reached {
			t.Errorf("%+v: %v, reached %v; want %v, %v", c.goal, got, c.goal.reached(got), c.figure, c.reached)
		}
	}
	var text strings.Builder
	missed, unknown, err := WriteGoals(&text, []Goal{
		{About: "fast", Least: true, Limit: 5e6, Transport: "a", Test: "bulk"},
		{About: "slow", Limit: 5e4, Transport: "a", Test: "bulk"},
		{About: "late", Limit: 12, Transport: "a", Test: "ping"},
	}, results)
	if err != nil || missed != 1 || unknown != 1 {
		t.Errorf("%d missed, %d unknown, %v; want 1 and 1", missed, unknown, err)
	}
	for _, want := range []string{"MISS    fast", "70.0    at least 5.00 M", "pass    slow", "at most 50 k", "-       late", "1 of 3 goals reached"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("there is no %q in\n%s", want, text.String())
		}
	}
}
