//go:build race

package crust_test

const raceDetector = true
