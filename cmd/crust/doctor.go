package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	crust "github.com/libcrust/libcrust/core"
)

// maxDoctorWait bounds how long doctor may listen for strangers.
const maxDoctorWait = time.Hour

func newDoctorCommand() *cobra.Command {
	var network string
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "doctor ENDPOINT[#PEER]...",
		Short: "Find out what stands between this machine and other peers",
		Long: `doctor starts a peer on random ports, connects to every peer that it is given, lets
them tell how they see this machine, and prints what follows about the NATs in
front of it. Peers in three different networks are enough to be sure; one tells
little. It fails when none can be reached.

` + exitCodeHelp,
		Example: `  crust doctor --network orchard 203.0.113.5:5483 198.51.100.7:5483 192.0.2.9:5483`,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if wait < 0 || wait > maxDoctorWait {
				return usagef("--wait is from 0 to %v, not %v", maxDoctorWait, wait)
			}
			if len(network) > crust.MaxNetworkName {
				return usagef("--network has %d bytes, at most %d are allowed", len(network), crust.MaxNetworkName)
			}
			var contacts []crust.Contact
			for _, text := range args {
				contact, err := crust.ParseContact(text)
				if err != nil {
					return usageError{err}
				}
				contacts = append(contacts, contact)
			}
			return doctor(cmd, network, contacts, wait)
		},
	}
	cmd.Flags().StringVar(&network, "network", "", "`NAME` of the network of those peers (default the public network)")
	cmd.Flags().DurationVar(&wait, "wait", 3*time.Second, "how much `TIME` connected peers have to tell what they see")
	return cmd
}

// doctor connects to peers and prints what they tell.
func doctor(cmd *cobra.Command, network string, contacts []crust.Contact, wait time.Duration) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	service, err := crust.New(crust.Config{NetworkName: network, ConnectTimeout: 15 * time.Second, MaxConnects: max(len(contacts), 1024)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, service.Close()) }()
	out := newOutput(cmd.OutOrStdout(), false)
	waiting := 0
	for i, contact := range contacts {
		if err := service.ConnectEndpoint(contact, uint64(i)+1); err != nil {
			return err
		}
		waiting++
	}
	for e := range service.Events(ctx) {
		if r := reportOf(&e); r != nil && e.Type != crust.EventMessage && e.Type != crust.EventDatagram {
			out.tell(r)
		}
		if e.Token != 0 && (e.Type == crust.EventConnected || e.Type == crust.EventAlreadyConnected || e.Type == crust.EventConnectFailed) {
			waiting--
		}
		if waiting == 0 {
			break
		}
	}
	if len(service.Peers()) > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	if ctx.Err() != nil {
		return errors.New("doctor: interrupted")
	}
	connected := len(service.Peers())
	out.tell(natOf(service.NAT()))
	if failure := out.failure(); failure != nil {
		return fmt.Errorf("cannot write the output: %w", failure)
	}
	if connected == 0 {
		return fmt.Errorf("doctor: none of the %d peers can be reached", len(contacts))
	}
	return nil
}
