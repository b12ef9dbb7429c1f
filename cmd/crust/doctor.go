package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	crust "github.com/libcrust/libcrust/core"
)

const (
	// maxDoctorWait bounds how long doctor may measure.
	maxDoctorWait = time.Hour
	// doctorLeast is how long connected peers have, at least, to begin to tell what they
	// see; doctorLook how often doctor looks whether there is more to come.
	doctorLeast = 1500 * time.Millisecond
	doctorLook  = 100 * time.Millisecond
)

// doctorFlags are the flags of `crust doctor` as they were typed.
type doctorFlags struct {
	network string
	wait    time.Duration
	stun    []string
	json    bool
}

func newDoctorCommand() *cobra.Command {
	var f doctorFlags
	cmd := &cobra.Command{
		Use:   "doctor [ENDPOINT[#PEER]...]",
		Short: "Find out what stands between this machine and other peers",
		Long: `doctor starts a peer on random ports, connects to every peer that it is given, lets
them tell how they see this machine and try to reach it, and says what follows about
the NATs in front of it, and what can be done. Peers in three different networks are
enough to be sure; one tells little. Servers of STUN may help, and tell about UDP
only. It fails when nobody answers.

` + exitCodeHelp,
		Example: `  crust doctor --network orchard 203.0.113.5:5483 198.51.100.7:5483 192.0.2.9:5483
  crust doctor --stun stun.example.org:3478 --json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args)+len(f.stun) == 0 {
				return usagef("doctor needs an ENDPOINT, or --stun")
			}
			if f.wait < 0 || f.wait > maxDoctorWait {
				return usagef("--wait is from 0 to %v, not %v", maxDoctorWait, f.wait)
			}
			if len(f.network) > crust.MaxNetworkName {
				return usagef("--network has %d bytes, at most %d are allowed", len(f.network), crust.MaxNetworkName)
			}
			var contacts []crust.Contact
			for _, text := range args {
				contact, err := crust.ParseContact(text)
				if err != nil {
					return usageError{err}
				}
				contacts = append(contacts, contact)
			}
			return doctor(cmd, &f, contacts)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&f.network, "network", "", "`NAME` of the network of those peers (default the public network)")
	flags.StringArrayVar(&f.stun, "stun", nil, "`HOST:PORT` of a STUN server to ask as well; repeatable")
	flags.DurationVar(&f.wait, "wait", 30*time.Second, "how much `TIME` there is at most to find out, once peers are connected")
	flags.BoolVar(&f.json, "json", false, "one JSON object, for programs")
	return cmd
}

// doctorReport is what doctor found: a nat, and what it means.
type doctorReport struct {
	natReport
	Kind    string         `json:"kind"`
	Advice  []string       `json:"advice"`
	Peers   int            `json:"peers"`
	Servers []serverReport `json:"servers"`
}

// serverReport is what a server of STUN has said.
type serverReport struct {
	Server string `json:"server"`
	Seen   string `json:"seen"`  // "" for nothing
	Error  string `json:"error"` // "" for none
}

func (*doctorReport) name() string { return "doctor" }

func (r *doctorReport) text() string {
	lines := []string{r.natReport.text()}
	for _, s := range r.Servers {
		if s.Error != "" {
			lines = append(lines, s.Server+": "+s.Error)
		} else if s.Seen != "" {
			lines = append(lines, s.Server+" sees "+s.Seen)
		}
	}
	lines = append(lines, "", r.Kind+":")
	for _, sentence := range r.Advice {
		lines = append(lines, "  "+sentence)
	}
	return strings.Join(lines, "\n")
}

// doctorOf says what a report means.
func doctorOf(r crust.NATReport, peers int) *doctorReport {
	d := diagnose(r)
	out := &doctorReport{natReport: *natOf(r).(*natReport), Kind: d.kind, Advice: d.advice, Peers: peers, Servers: []serverReport{}}
	for _, s := range r.Servers {
		one := serverReport{Server: s.Server}
		if s.Seen.IsValid() {
			one.Seen = s.Seen.String()
		}
		if s.Err != nil {
			one.Error = s.Err.Error()
		}
		out.Servers = append(out.Servers, one)
	}
	return out
}

// doctor connects to peers and prints what they tell.
func doctor(cmd *cobra.Command, f *doctorFlags, contacts []crust.Contact) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	service, err := crust.New(crust.Config{
		NetworkName: f.network, STUN: f.stun, ConnectTimeout: 15 * time.Second, MaxConnects: max(len(contacts), 1024), Beacon: crust.BeaconOff, Gossip: crust.GossipOff,
	})
	if err != nil {
		if crust.CodeOf(err) == crust.CodeInvalid {
			return usageError{err}
		}
		return err
	}
	defer func() { err = errors.Join(err, service.Close()) }()
	out := newOutput(cmd.OutOrStdout(), f.json)
	waiting := 0
	for i, contact := range contacts {
		if err := service.ConnectEndpoint(contact, uint64(i)+1); err != nil {
			return err
		}
		waiting++
	}
	for e := range service.Events(ctx) {
		if r := reportOf(&e); r != nil && !f.json && e.Type != crust.EventMessage && e.Type != crust.EventDatagram {
			out.tell(r)
		}
		if e.Token != 0 && (e.Type == crust.EventConnected || e.Type == crust.EventAlreadyConnected || e.Type == crust.EventConnectFailed) {
			waiting--
		}
		if waiting == 0 {
			break
		}
	}
	if len(service.Peers())+len(f.stun) > 0 {
		measure(ctx, service, f.wait)
	}
	if ctx.Err() != nil {
		return errors.New("doctor: interrupted")
	}
	report := service.NAT()
	out.tell(doctorOf(report, len(service.Peers())))
	if failure := out.failure(); failure != nil {
		return fmt.Errorf("cannot write the output: %w", failure)
	}
	if len(service.Peers()) == 0 && len(report.UDP.External) == 0 {
		return fmt.Errorf("doctor: none of the %d peers can be reached, and no server has answered", len(contacts))
	}
	return nil
}

// measure waits until the service has found out what it can.
func measure(ctx context.Context, service *crust.Service, most time.Duration) {
	began := time.Now()
	ticker := time.NewTicker(doctorLook)
	defer ticker.Stop()
	for time.Since(began) < most {
		select {
		case <-ticker.C:
			if time.Since(began) >= doctorLeast && !service.NAT().Pending {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}
