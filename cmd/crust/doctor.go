package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"slices"
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
	doctorLook  = 50 * time.Millisecond
	// doctorAlone is how long doctor waits for routers at most when no helper is named:
	// what it says then, it says within a second.
	doctorAlone = 500 * time.Millisecond
)

// Exit codes of doctor, part of the contract of docs/DOCTOR.md.
const (
	exitLimited = 3
	exitBroken  = 4
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
them tell how they see this machine and try to reach it, and says what follows: about
interfaces, the NATs in front of this machine and the routers that map ports, the
clock, the size of packets, which peers can be met and how, and what can be changed.

Peers in three different networks are enough to be sure; one tells little. Servers of
STUN may help, and tell about UDP only. Without either doctor tells within a second
what the machine itself knows. docs/DOCTOR.md explains every diagnosis.

Exit codes:
  0  healthy: peers can reach this machine
  1  failure of doctor itself; one sentence on standard error says why
  2  wrong use of the command line
  3  limited: peers are met, but not by everybody or not at once, or too little is known
  4  broken: nobody is met`,
		Example: `  crust doctor --network orchard 203.0.113.5:5483 198.51.100.7:5483 192.0.2.9:5483
  crust doctor --stun stun.example.org:3478 --json
  crust doctor`,
		RunE: func(cmd *cobra.Command, args []string) error {
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
			if len(contacts)+len(f.stun) == 0 && !cmd.Flags().Changed("wait") {
				f.wait = doctorAlone
			}
			return doctor(cmd, &f, contacts)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&f.network, "network", "", "`NAME` of the network of those peers (default the public network)")
	flags.StringArrayVar(&f.stun, "stun", nil, "`HOST:PORT` of a STUN server to ask as well; repeatable")
	flags.DurationVar(&f.wait, "wait", 30*time.Second, "how much `TIME` there is at most to find out, once peers are connected; without any, half a second")
	flags.BoolVar(&f.json, "json", false, "one JSON object, for programs")
	for _, name := range []string{"network", "stun", "wait"} {
		cobra.CheckErr(cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions))
	}
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	return cmd
}

// examination is one run of doctor.
type examination struct {
	flags    *doctorFlags
	contacts []crust.Contact
	began    time.Time
	out      *output
	service  *crust.Service

	interfaces []networkInterface
	helpers    []helperReport
	refused    error // why the system lets no listener be; nil if it lets one
	listening  bool
}

// doctor examines, and prints what it has found.
func doctor(cmd *cobra.Command, f *doctorFlags, contacts []crust.Contact) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	e := &examination{flags: f, contacts: contacts, began: time.Now(), out: newOutput(cmd.OutOrStdout(), f.json), helpers: []helperReport{}}
	if e.interfaces, err = localInterfaces(); err != nil {
		e.interfaces = nil // as good as none; what is refused below says why
	}
	e.service, err = crust.New(crust.Config{
		NetworkName: f.network, STUN: f.stun, ConnectTimeout: 15 * time.Second, MaxConnects: max(len(contacts), 1024), Beacon: crust.BeaconOff, Gossip: crust.GossipOff,
	})
	if err != nil {
		if crust.CodeOf(err) == crust.CodeInvalid {
			return usageError{err}
		}
		return err
	}
	defer func() {
		if failure := e.service.Close(); failure != nil { // which is told, instead of an exit code alone
			err = errors.Join(err, failure)
		}
	}()
	if err := e.meet(ctx); err != nil {
		return err
	}
	e.measure(ctx)
	if ctx.Err() != nil {
		return errors.New("doctor: interrupted")
	}
	report := e.report()
	e.out.tell(report)
	if failure := e.out.failure(); failure != nil {
		return fmt.Errorf("cannot write the output: %w", failure)
	}
	return report.status()
}

// local reports whether a contact, or a server, is on this machine: no network is
// needed to get there.
func (e *examination) local() bool {
	for _, server := range e.flags.stun {
		if at, err := netip.ParseAddrPort(server); err == nil && at.Addr().IsLoopback() {
			return true
		}
	}
	return slices.ContainsFunc(e.contacts, func(c crust.Contact) bool { return c.Endpoint.Addr.Addr().IsLoopback() })
}

// meet connects to all helpers, and notes how that ended.
func (e *examination) meet(ctx context.Context) error {
	if !connected(e.interfaces) && !e.local() {
		for _, c := range e.contacts {
			e.helpers = append(e.helpers, helperReport{Contact: c.Endpoint.String(), Code: crust.CodeUnreachable.String(), Error: "this machine has no network"})
		}
		e.hear(ctx, 0)
		return nil
	}
	waiting := 0
	for i, c := range e.contacts {
		e.helpers = append(e.helpers, helperReport{Contact: c.Endpoint.String()})
		if _, err := sourceTo(c.Endpoint.Addr); err != nil {
			if code := systemCode(err); code != crust.CodeOK { // over UDP it would be silence
				e.helpers[i].Code, e.helpers[i].Error = code.String(), oneLine(err)
				continue
			}
		}
		waiting++
		if err := e.service.ConnectEndpoint(c, uint64(i)+1); err != nil {
			return err
		}
	}
	e.hear(ctx, waiting)
	return nil
}

// systemCode returns why the system knows no way to an address, CodeOK when its error
// says nothing of the kind.
func systemCode(err error) crust.Code {
	switch {
	case errors.Is(err, os.ErrPermission):
		return crust.CodePermission
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return crust.CodeUnreachable
	}
	return crust.CodeOK
}

// hear takes events until so many connects have ended, or, of none, all that are there.
func (e *examination) hear(ctx context.Context, waiting int) {
	for ctx.Err() == nil {
		batch, err := e.service.TryNextBatch(0)
		if waiting > 0 && (err != nil || len(batch.Events) == 0) {
			batch, err = e.service.NextBatch(ctx, 0)
		}
		if err != nil || len(batch.Events) == 0 {
			return
		}
		for i := range batch.Events {
			if e.take(&batch.Events[i]) {
				waiting--
			}
		}
		batch.Release()
	}
}

// take notes an event, and reports whether it ends a connect.
func (e *examination) take(v *crust.Event) (ended bool) {
	if r := reportOf(v); r != nil && !e.flags.json && v.Type != crust.EventMessage && v.Type != crust.EventDatagram {
		e.out.tell(r)
	}
	switch v.Type {
	case crust.EventListenerStarted:
		e.listening = true
	case crust.EventListenerFailed:
		if crust.CodeOf(v.Err()) == crust.CodePermission {
			e.refused = v.Err()
		}
	}
	if v.Token == 0 || v.Token > uint64(len(e.helpers)) {
		return false
	}
	h := &e.helpers[v.Token-1]
	switch v.Type {
	case crust.EventConnected, crust.EventAlreadyConnected:
		h.Peer, h.Took = v.Peer.String(), milliseconds(v.Took())
		h.Code = crust.CodeOK.String()
		return true
	case crust.EventConnectFailed:
		h.Code, h.Error = v.Code().String(), why(v)
		return true
	}
	return false
}

// measure waits until the service has found out what it can.
func (e *examination) measure(ctx context.Context) {
	peers, least := len(e.service.Peers())+len(e.flags.stun), time.Duration(0)
	if len(e.service.Peers()) > 0 {
		least = doctorLeast
	}
	if peers == 0 && len(e.contacts) > 0 || !connected(e.interfaces) && !e.local() {
		return // there is nobody who could tell
	}
	began := time.Now()
	ticker := time.NewTicker(doctorLook)
	defer ticker.Stop()
	for time.Since(began) < e.flags.wait {
		select {
		case <-ticker.C:
			report := e.service.NAT()
			if time.Since(began) >= least && !(report.Pending && peers > 0) && !(asked(report) && peers == 0) {
				e.hear(ctx, 0)
				return
			}
		case <-ctx.Done():
			return
		}
	}
	e.hear(ctx, 0)
}

// asked reports whether a router may yet answer that was asked for a port.
func asked(r crust.NATReport) bool {
	return slices.ContainsFunc(r.Mapped, func(m crust.MappedPort) bool { return m.Err != nil })
}

// report says what was found.
func (e *examination) report() *doctorReport {
	facts := e.service.NAT()
	out := doctorOf(facts, len(e.service.Peers()))
	out.Interfaces, out.Helpers = append([]networkInterface{}, e.interfaces...), e.helpers
	out.MTU = lookAtWay(out.Interfaces, e.helper())
	slices.SortStableFunc(out.Interfaces, byUse)
	out.Clock = lookAtClock(e.began, time.Now())
	out.conclude(e, facts)
	return out
}

// helper returns where a helper is that answered, the first if none did; it is not
// valid when there is none.
func (e *examination) helper() (at netip.AddrPort) {
	for i, h := range e.helpers {
		if to := e.contacts[i].Endpoint.Addr; !at.IsValid() || h.Error == "" {
			at = to
			if h.Error == "" {
				break
			}
		}
	}
	return at
}
