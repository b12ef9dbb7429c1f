package crust_test

import (
	"strings"
	"testing"

	crust "github.com/libcrust/libcrust/core"
)

// Unknown words of the environment are told, naming the variable.
func TestPortMapVariable(t *testing.T) {
	for _, c := range []struct {
		word string
		good bool
	}{{"", true}, {"off", true}, {"on", false}, {"OFF", false}, {"0", false}} {
		t.Setenv("CRUST_PORTMAP", c.word)
		s, err := crust.New(crust.Config{NoListen: true})
		if s != nil {
			s.Close()
		}
		if c.good != (err == nil) {
			t.Errorf("%q: %v", c.word, err)
		}
		if err != nil && (crust.CodeOf(err) != crust.CodeInvalid || !strings.Contains(err.Error(), "CRUST_PORTMAP") || !strings.Contains(err.Error(), c.word)) {
			t.Errorf("%q: %v", c.word, err)
		}
	}
	t.Setenv("CRUST_PORTMAP", "")
	if _, err := crust.New(crust.Config{NoListen: true, PortMap: 2}); crust.CodeOf(err) != crust.CodeInvalid {
		t.Errorf("a mode that is not known: %v", err)
	}
}
