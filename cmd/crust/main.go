// Command crust runs and inspects libcrust peers: `crust peer` is one peer for
// people or, with --json, for programs; `crust top` watches one; `crust doctor`
// explains a machine's network; `crust bench` measures; `crust keygen` makes an
// identity; `crust version` tells what this build is.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	crust "github.com/libcrust/libcrust/core"
)

// Exit codes, part of the stable contract of docs/PEER.md.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
)

const exitCodeHelp = `Exit codes:
  0  success
  1  failure; one sentence on standard error says why
  2  wrong use of the command line`

func main() {
	// With a handler in place, writing to a closed pipe is an error of the write
	// and not the end of the process, so that services are closed in order.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run executes one command line and returns the exit code.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRootCommand(stdin, stdout, stderr)
	root.SetArgs(args)
	err := root.Execute()
	if err == nil {
		return exitOK
	}
	if status, ok := err.(statusError); ok { //nolint:errorlint // wrapped in others, those are told
		return int(status)
	}
	fmt.Fprintf(stderr, "crust: %s\n", oneLine(err))
	var usage usageError
	if errors.As(err, &usage) {
		return exitUsage
	}
	return exitFailure
}

// usageError is an error of the person who typed the command line.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// oneLine makes one sentence of an error, also of joined ones.
func oneLine(err error) string {
	return strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}

func newRootCommand(stdin io.Reader, stdout, stderr io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use:   "crust",
		Short: "Reliable, encrypted peer-to-peer connections",
		Long: `crust runs peers that prove who they are and talk over encrypted connections.

Two terminals are enough to see it work:

  one$ crust peer --network orchard        other$ crust peer --network orchard
  info                                     connect WORD_PRINTED_BY_THE_FIRST
                                           send PEER hello

` + exitCodeHelp,
		Example: `  crust keygen ~/.orchard-identity
  crust peer --network orchard --identity ~/.orchard-identity
  crust peer --json --contact 203.0.113.5:5483 --bootstrap
  crust top --network orchard
  crust completion bash > /etc/bash_completion.d/crust`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       crust.Version,
		Args:          onlySubcommands,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(stdin)
	root.SetOut(stdout) // before the completion command is made, which keeps it
	root.SetErr(stderr)
	root.SetVersionTemplate("crust {{.Version}}\n")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%w (see %s --help)", err, cmd.CommandPath())
	})
	root.AddCommand(newPeerCommand(), newTopCommand(), newDoctorCommand(), newBenchCommand(), newCacheCommand(), newKeygenCommand(), newVersionCommand())
	root.SetHelpCommand(newHelpCommand())
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	if completion, _, err := root.Find([]string{"completion"}); err == nil {
		completion.Args = onlySubcommands
		completion.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	}
	wrongArgumentsAreUsage(root)
	return root
}

// newHelpCommand is the library's help command, but for unknown names, which
// are wrong use.
func newHelpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [command]",
		Short: "Help about any command",
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return usagef("no help for %q: unknown command (see %s --help)", strings.Join(args, " "), cmd.Root().Name())
			}
			about.InitDefaultHelpFlag()
			about.InitDefaultVersionFlag()
			return about.Help()
		},
	}
}

// wrongArgumentsAreUsage gives the exit code of wrong use to every command,
// also to those that the library brings along.
func wrongArgumentsAreUsage(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			var usage usageError
			err := check(cmd, args)
			if err == nil || errors.As(err, &usage) {
				return err
			}
			return usageError{err}
		}
	}
	for _, sub := range cmd.Commands() {
		wrongArgumentsAreUsage(sub)
	}
}

// onlySubcommands refuses words that are no subcommand, with a guess at what was
// meant.
func onlySubcommands(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	guess := ""
	if cmd.SuggestionsMinimumDistance <= 0 {
		cmd.SuggestionsMinimumDistance = 2
	}
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		guess = fmt.Sprintf("; did you mean %s?", strings.Join(near, " or "))
	}
	return usagef("unknown command %q%s (see %s --help)", args[0], guess, cmd.CommandPath())
}

// arguments says how many words a command takes, in the words of its help.
func arguments(want int, sentence string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != want {
			return usagef("%s %s (see %s --help)", cmd.Name(), sentence, cmd.CommandPath())
		}
		return nil
	}
}
