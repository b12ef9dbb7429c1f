//go:build !unix

package crust_test

import "time"

func limitFiles(string) {}

func processorTime() time.Duration { return 0 }
