package main

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestFit(t *testing.T) {
	for _, c := range []struct {
		text  string
		limit int
		want  string
	}{
		{"", 0, ""},
		{"abc", 3, "abc"},
		{"abc", 2, "ab"},
		{"a\nb\rc\x00d", 20, "a b c\uFFFDd"},
		{"\xff", 20, "\uFFFD"},
		{"a€b", 4, "a€"},
		{"a€b", 3, "a"},
		{"a€b", 1, "a"},
		{"€", 2, ""},
		{"🙂", 3, ""},
	} {
		if got := fit(c.text, c.limit); got != c.want {
			t.Errorf("fit(%q, %d) = %q, want %q", c.text, c.limit, got, c.want)
		}
	}
}

func FuzzFit(f *testing.F) {
	f.Add("a€b\x00\xff", 3)
	f.Add(strings.Repeat("🙂", 200), 511)
	f.Fuzz(func(t *testing.T, text string, limit int) {
		limit &= 1023
		got := fit(text, limit)
		if len(got) > limit || !utf8.ValidString(got) || strings.ContainsAny(got, "\x00\n\r") {
			t.Errorf("fit(%q, %d) = %q", text, limit, got)
		}
	})
}

func TestDescribeFault(t *testing.T) {
	text := faultOf(func() {
		var none []int
		_ = none[len(text0)]
	})
	for _, part := range []string{"fault inside libcrust", "index out of range", "errors_test.go:"} {
		if !strings.Contains(text, part) {
			t.Errorf("%q does not contain %q", text, part)
		}
	}
	if text := faultOf(func() { panic("of our own") }); !strings.Contains(text, "of our own at errors_test.go:") {
		t.Errorf("%q does not say where", text)
	}
}

var text0 = "x"

func faultOf(f func()) (text string) {
	defer func() { text = describeInDefer(recover()) }()
	f()
	return ""
}

// describeInDefer stands where guard stands: called by the deferred function.
func describeInDefer(fault any) string { return describeFault(fault) }
