package main

// #include "shim_internal.h"
import "C"

import (
	"log/slog"

	crust "github.com/libcrust/libcrust/core"
)

// logLevels are the levels by their numbers in C.
var logLevels = [...]slog.Level{C.CRUST_LOG_ERROR: slog.LevelError, C.CRUST_LOG_WARN: slog.LevelWarn, C.CRUST_LOG_INFO: slog.LevelInfo, C.CRUST_LOG_DEBUG: slog.LevelDebug}

// logLevel returns the number of a level in C.
func logLevel(level slog.Level) uint8 {
	for number := uint8(C.CRUST_LOG_ERROR); number < C.CRUST_LOG_DEBUG; number++ {
		if level >= logLevels[number] {
			return number
		}
	}
	return C.CRUST_LOG_DEBUG
}

// setLogLevel has records come as events, from a level on.
func setLogLevel(cfg *crust.Config, v uint64) error {
	number := uint8(C.CRUST_LOG_OFF)
	if err := setSmall(&number, v, C.CRUST_LOG_DEBUG); err != nil {
		return err
	}
	cfg.LogEvents, cfg.LogLevel = number != C.CRUST_LOG_OFF, logLevels[number]
	return nil
}
