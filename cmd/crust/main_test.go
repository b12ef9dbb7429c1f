package main

import (
	"os"
	"testing"
)

// asCommand, in the environment, has this test binary be the program itself.
const asCommand = "CRUST_TEST_AS_COMMAND"

// TestMain has no router asked for ports, and nothing broadcast: the services of these
// tests are on this machine's own network.
func TestMain(m *testing.M) {
	for _, name := range []string{"CRUST_PORTMAP", "CRUST_BEACON"} {
		if err := os.Setenv(name, "off"); err != nil {
			panic(err)
		}
	}
	if os.Getenv(asCommand) != "" {
		os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}
