package benchkit

import (
	"fmt"
	"net/netip"
	"os/exec"
)

// Foreign is a transport of another program: command makes a command that
// executes that program such that it calls Worker with its standard input and
// output; datagrams says whether the transport has them. So transports that cannot be linked into one program, or would change
// each other there, are measured in one run. It cannot run in this process.
func Foreign(name string, datagrams bool, command func() *exec.Cmd) Transport {
	return foreign{name, datagrams, command}
}

type foreign struct {
	name      string
	datagrams bool
	command   func() *exec.Cmd
}

func (f foreign) Name() string           { return f.name }
func (f foreign) CarriesDatagrams() bool { return f.datagrams }

func (f foreign) Listen(netip.Addr, func(Conn)) (Server, error) { return nil, f.elsewhere() }

func (f foreign) NewClient() (Client, error) { return nil, f.elsewhere() }

func (f foreign) elsewhere() error {
	return fmt.Errorf("%s runs only in processes of its own", f.name)
}
