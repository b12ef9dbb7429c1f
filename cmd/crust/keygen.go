package main

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/spf13/cobra"

	"github.com/libcrust/libcrust/core/identity"
)

func newKeygenCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "keygen FILE",
		Short: "Make an identity and print its peer id",
		Long: `keygen makes a new random identity, saves its secret in FILE with mode 0600 and
prints the peer id, 64 hexadecimal digits, which is public. It never overwrites a
file: an identity that is lost cannot be made again.

` + exitCodeHelp,
		Example: `  crust keygen node.identity
  crust peer --identity node.identity`,
		Args: arguments(1, "takes the name of one file"),
		RunE: func(cmd *cobra.Command, args []string) error { return keygen(cmd, args[0]) },
	}
}

func keygen(cmd *cobra.Command, file string) error {
	key, err := identity.Generate()
	if err != nil {
		return fmt.Errorf("keygen: %w", err)
	}
	defer key.Zero()
	if err := key.Save(file); errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("keygen: %s exists already and is left as it is; choose another name", file)
	} else if err != nil {
		return fmt.Errorf("keygen: %w", err)
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), key.ID())
	return err
}
