package main

import (
	"os"
	"testing"
)

// TestMain has no router asked for ports: the services of these tests are on this
// machine's own network.
func TestMain(m *testing.M) {
	if err := os.Setenv("CRUST_PORTMAP", "off"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}
