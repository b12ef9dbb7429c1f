package crust_test

import (
	"os"
	"testing"
)

// TestMain has no router asked for ports, and nothing broadcast: the services of these
// tests are on this machine's own network.
func TestMain(m *testing.M) {
	for _, name := range []string{"CRUST_PORTMAP", "CRUST_BEACON"} {
		if err := os.Setenv(name, "off"); err != nil {
			panic(err)
		}
	}
	if os.Getenv(floodEnv) != "" {
		runVictim()
		return
	}
	if what := os.Getenv(helperEnv); what != "" {
		runHelper(what)
		return
	}
	os.Exit(m.Run())
}
