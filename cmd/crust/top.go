package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/gdamore/tcell/v2"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"
)

const (
	// leastTop and mostTop bound how often top looks.
	leastTop, mostTop = 200 * time.Millisecond, time.Minute
)

// topFlags are the flags of `crust top` as they were typed.
type topFlags struct {
	peer     peerFlags
	attach   string
	interval time.Duration
}

func newTopCommand() *cobra.Command {
	var f topFlags
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Watch a peer live, on a terminal",
		Long: `top shows a peer on the terminal as it works: its peers with their rates, round trips
and queues, what is known of the NATs in front of it, and what happens. It watches a
peer that runs elsewhere on this machine, by --attach and the socket that crust peer
--control made, and changes nothing there; or it starts one itself, with the flags of
crust peer, which ends with it.

  q  quit        space  pause            s, S  sort by the next, the previous column
  ?  help        r      reverse          up, down, page up, page down, home, end  scroll

Neither a mouse nor colours are needed; NO_COLOR in the environment turns colours off.
For programs there is crust peer --json.

` + exitCodeHelp,
		Example: `  crust peer --network orchard --control ~/.orchard.socket
  crust top --attach ~/.orchard.socket

  crust top --network orchard --contact 203.0.113.5:5483 --bootstrap`,
		Args: arguments(0, "takes no arguments, only flags"),
		RunE: func(cmd *cobra.Command, _ []string) error { return runTop(cmd, &f) },
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&f.attach, "attach", "", "watch the peer that has this `SOCKET` by --control; no other flag but --interval goes with it (default start a peer)")
	flags.DurationVar(&f.interval, "interval", time.Second, "look every `TIME`, from 200ms to 1m")
	f.peer.add(cmd)
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("interval", cobra.NoFileCompletions))
	return cmd
}

// check finds what is wrong with the flags before anything is made.
func (f *topFlags) check(cmd *cobra.Command) error {
	if f.interval < leastTop || f.interval > mostTop {
		return usagef("--interval is from %v to %v, not %v", leastTop, mostTop, f.interval)
	}
	if !cmd.Flags().Changed("attach") {
		return nil
	}
	if f.attach == "" {
		return usagef("--attach needs the name of a socket")
	}
	return f.alone(cmd)
}

// alone refuses flags of a peer beside --attach.
func (f *topFlags) alone(cmd *cobra.Command) (err error) {
	cmd.LocalFlags().VisitAll(func(flag *pflag.Flag) {
		if flag.Changed && flag.Name != "attach" && flag.Name != "interval" && err == nil {
			err = usagef("--%s is for a peer that top starts, and goes not with --attach", flag.Name)
		}
	})
	return err
}

// runTop shows a peer until it is told to quit.
func runTop(cmd *cobra.Command, f *topFlags) error {
	if err := f.check(cmd); err != nil {
		return err
	}
	if !onTerminal(cmd.InOrStdin()) || !onTerminal(cmd.OutOrStdout()) {
		return errors.New("top needs a terminal for its input and output; for programs there is crust peer --json")
	}
	if f.attach != "" {
		conn, err := net.DialTimeout("unix", f.attach, 5*time.Second)
		if err != nil {
			return fmt.Errorf("no peer can be watched there: %w", err)
		}
		return show(conn, f.interval, "attached to "+f.attach)
	}
	return f.own(cmd)
}

// own starts a peer, shows it and ends it.
func (f *topFlags) own(cmd *cobra.Command) error {
	cfg, err := f.peer.settings(cmd)
	if err != nil {
		return err
	}
	if cfg.Identity != nil {
		defer cfg.Identity.Zero()
	}
	cfg.LogEvents = false // the screen is for what it shows
	commands, quit := io.Pipe()
	ours, theirs := net.Pipe()
	return f.peer.serve(cmd, cfg, newOutput(io.Discard, true), commands, func(c *control, run func() error) error {
		c.watch(theirs)
		ended := make(chan error, 1)
		go func() {
			err := run()
			c.close() // has the screen hear that it is over
			ended <- err
		}()
		err := show(ours, f.interval, "own peer")
		_ = quit.Close() // it never fails
		return errors.Join(err, <-ended)
	})
}

// show shows what comes over a connection to a control until it is told to quit. The
// terminal is as before then, whatever happens.
func show(conn net.Conn, interval time.Duration, source string) error {
	defer conn.Close()
	screen, err := tcell.NewScreen()
	if err == nil {
		err = screen.Init()
	}
	if err != nil {
		return fmt.Errorf("this terminal (TERM is %q) cannot be used: %w", os.Getenv("TERM"), err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	defer screen.Fini() // also when something below panics, before that is printed
	return newTopScreen(screen, conn, interval, source).run(ctx)
}

// onTerminal reports whether a stream is a terminal.
func onTerminal(stream any) bool {
	file, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}
