package crust

import (
	"fmt"
	"os"
)

// PortMapMode says whether routers are asked for ports.
type PortMapMode uint8

const (
	// PortMapOn asks the routers of this machine to pass the ports of the listeners on,
	// by PCP, NAT-PMP and UPnP.
	PortMapOn PortMapMode = 0
	// PortMapOff asks nobody.
	PortMapOff PortMapMode = 1
)

// portMapVariable is the environment variable that turns port mapping off.
const portMapVariable = "CRUST_PORTMAP"

// checkPortMap checks the settings of port mapping, and lets the environment turn
// it off.
func (c *Config) checkPortMap() error {
	bad := func(format string, args ...any) error {
		return &Error{Op: "new", Code: CodeInvalid, Err: fmt.Errorf(format, args...)}
	}
	if c.PortMap > PortMapOff {
		return bad("port map mode %d is unknown", c.PortMap)
	}
	switch word := os.Getenv(portMapVariable); word {
	case "":
	case "off":
		c.PortMap = PortMapOff
	default:
		return bad("the environment variable %s is %q, want \"off\" or nothing", portMapVariable, word)
	}
	return nil
}
