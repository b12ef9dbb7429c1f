package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// vocabulary pairs the peer ids, endpoints and infos of a document with those of
// the run, each with one only.
type vocabulary struct {
	toActual, toDocument map[string]string
}

func (v *vocabulary) pair(document, actual string) error {
	known, is := v.toActual[document]
	back, was := v.toDocument[actual]
	switch {
	case !is && !was:
		v.toActual[document], v.toDocument[actual] = actual, document
		return nil
	case is && was && known == actual && back == document:
		return nil
	}
	return fmt.Errorf("%q stands for %q, not for %q", document, known, actual)
}

// command replaces the words of a command, also beginnings of peer ids.
func (v *vocabulary) command(text string) string {
	words := strings.Split(text, " ")
	for i, word := range words {
		endpoint, id, both := strings.Cut(word, "#")
		if actual, ok := v.toActual[endpoint]; ok {
			words[i] = actual
			if both {
				words[i] += "#" + v.toActual[id]
			}
			continue
		}
		for document, actual := range v.toActual {
			if len(word) >= 4 && len(document) == 64 && strings.HasPrefix(document, word) {
				words[i] = actual[:len(word)]
			}
		}
	}
	return strings.Join(words, " ")
}

// same compares a value of the document with that of the run. Times, counters
// of a moment and sentences differ from run to run; everything else must not.
func (v *vocabulary) same(event, key string, document, actual any) error {
	switch d := document.(type) {
	case float64:
		r, ok := actual.(float64)
		if !ok || r < 0 {
			return fmt.Errorf("%s: %v, want a number", key, actual)
		}
		if strings.HasSuffix(key, "_ms") || event == "stats" || event == "peers" || event == "lost" || r == d {
			return nil
		}
	case string:
		r, ok := actual.(string)
		switch {
		case !ok:
			return fmt.Errorf("%s: %v, want a string", key, actual)
		case slices.Contains([]string{"peer", "endpoint", "info"}, key) && d != "" && r != "":
			return v.pair(d, r)
		case key == "error" && r != "":
			return nil
		case d == r:
			return nil
		}
	case bool:
		if actual == document {
			return nil
		}
	case []any:
		r, ok := actual.([]any)
		if !ok || len(r) != len(d) {
			return fmt.Errorf("%s: %v, want %v", key, actual, document)
		}
		for i := range d {
			if err := v.object(event, d[i].(map[string]any), r[i].(map[string]any)); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("%s: %v, want %v", key, actual, document)
}

func (v *vocabulary) object(event string, document, actual map[string]any) error {
	for key, d := range document {
		r, ok := actual[key]
		if !ok {
			return fmt.Errorf("no %s in %v", key, actual)
		}
		if err := v.same(event, key, d, r); err != nil {
			return err
		}
	}
	if len(document) != len(actual) {
		return fmt.Errorf("%v has other fields than %v", actual, document)
	}
	return nil
}

// TestDocumentedConversation replays the conversation of docs/PEER.md.
func TestDocumentedConversation(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "PEER.md"))
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)```transcript\n(.*?)\n```").FindSubmatch(text)
	if block == nil {
		t.Fatal("docs/PEER.md has no transcript")
	}
	peers := map[string]*running{}
	v := vocabulary{map[string]string{}, map[string]string{}}
	seen := map[string]bool{}
	for n, said := range strings.Split(string(block[1]), "\n") {
		if len(said) < 4 {
			t.Fatalf("line %d: %q", n+1, said)
		}
		who, sign, what := said[:1], said[1:3], said[3:]
		switch sign {
		case "$ ":
			arguments, ok := strings.CutPrefix(what, "crust peer ")
			if !ok {
				t.Fatalf("line %d: %q starts no peer", n+1, said)
			}
			peers[who] = startText(t, strings.Fields(arguments)...)
		case "> ":
			if what == "(end of input)" {
				peers[who].input.Close()
			} else {
				peers[who].tell("%s", v.command(what))
			}
		case "< ":
			want, err := parseLine(what)
			if err != nil {
				t.Fatalf("line %d: %v", n+1, err)
			}
			got := peers[who].next(want.event())
			seen[want.event()] = true
			if !slices.Equal(got.keys, want.keys) {
				t.Errorf("line %d: fields %q, want %q", n+1, got.keys, want.keys)
			}
			if err := v.object(want.event(), want.fields, got.fields); err != nil {
				t.Errorf("line %d: %v", n+1, err)
			}
		default:
			t.Fatalf("line %d: %q", n+1, said)
		}
	}
	for who, p := range peers {
		if rest, code := p.end(); len(rest) != 0 || code != exitOK {
			t.Errorf("%s ended with exit code %d after %q, want 0 and nothing more", who, code, rest)
		}
	}
	for _, event := range []string{"started", "listener_started", "info", "connected", "connect_failed", "message", "datagram", "sent", "delivered", "lost", "peers", "stats", "error", "stopped"} {
		if !seen[event] {
			t.Errorf("the conversation shows no %s", event)
		}
	}
}
