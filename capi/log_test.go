package main

import (
	"log/slog"
	"testing"

	crust "github.com/libcrust/libcrust/core"
)

// TestLogLevels: each level of C is one of slog and back, and levels between count as the
// one below.
func TestLogLevels(t *testing.T) {
	for number, level := range map[uint64]slog.Level{1: slog.LevelError, 2: slog.LevelWarn, 3: slog.LevelInfo, 4: slog.LevelDebug} {
		var cfg crust.Config
		if err := setLogLevel(&cfg, number); err != nil || cfg.LogLevel != level || !cfg.LogEvents || uint64(logLevel(level)) != number {
			t.Errorf("%d: %v, %v, %v", number, cfg.LogLevel, cfg.LogEvents, err)
		}
		if got := logLevel(level + 1); uint64(got) != number {
			t.Errorf("%v is %d", level+1, got)
		}
	}
	cfg := crust.Config{LogEvents: true}
	if err := setLogLevel(&cfg, 0); err != nil || cfg.LogEvents {
		t.Errorf("off: %v, %v", cfg.LogEvents, err)
	}
	if err := setLogLevel(&cfg, 5); err == nil {
		t.Error("5 is taken")
	}
	if logLevel(slog.LevelDebug-4) != 4 {
		t.Error("what is below debug is debug")
	}
}

// A text sets the level, also to the one that is zero in Go, and what it does not say stays.
func TestLoadJSONLogLevel(t *testing.T) {
	c := config{cfg: crust.Config{LogEvents: true, LogLevel: slog.LevelDebug}}
	for text, want := range map[string]slog.Level{`{}`: slog.LevelDebug, `{"log_level":"info"}`: slog.LevelInfo} {
		c.cfg.LogLevel = slog.LevelDebug
		if err := c.loadJSON([]byte(text)); err != nil || c.cfg.LogLevel != want || !c.cfg.LogEvents {
			t.Errorf("%s: %v, %v, %v", text, c.cfg.LogLevel, c.cfg.LogEvents, err)
		}
	}
}
