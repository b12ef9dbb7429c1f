package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/identity"
)

// peerFlags are the flags of `crust peer` as they were typed.
type peerFlags struct {
	listen    []string
	livePort  uint16
	rotation  time.Duration
	noPortMap bool
	noBeacon  bool
	external  uint16
	window    time.Duration
	noResume  bool
	relay     string
	network   string
	identity  string
	appID     string
	contacts  []string
	stun      []string
	only      []string
	cache     string
	gossip    string
	tracer    []string
	keyLog    string
	logLevel  string
	logJSON   bool
	keep      []string
	bootstrap bool
	role      string
	noAccept  bool
	control   string
	echo      bool
	quiet     bool
	metrics   string
	json      bool
	config    string
}

func newPeerCommand() *cobra.Command {
	var f peerFlags
	cmd := &cobra.Command{
		Use:   "peer",
		Short: "Run one peer, for people or (--json) for programs",
		Long: `peer runs one peer until "quit" or the end of its input. It reads one command per
line from standard input and writes one line per event to standard output; type
"help" for the commands. With --json both directions are a stable contract for
programs, which docs/PEER.md describes.

A peer whose input is /dev/null stops at once; to run one in the background, keep
its input open: tail -f /dev/null | crust peer --echo

` + exitCodeHelp,
		Example: `  # a peer on a random port, another that connects to it
  crust peer --network orchard
  crust peer --network orchard --contact 192.0.2.7:40123 --bootstrap

  # a peer that keeps its identity, on a fixed port, and sends everything back
  crust peer --identity node.identity --listen tcp://0.0.0.0:5483 --echo

  # a peer at port 5483 of TCP and UDP, or at random ports when it is taken
  crust peer --live-port 5483

  # one line per event for a program; the settings come from a file
  crust peer --json --config node.json`,
		Args: arguments(0, "takes no arguments, only flags"),
		RunE: func(cmd *cobra.Command, _ []string) error { return runPeer(cmd, &f) },
	}
	f.add(cmd)
	cmd.Flags().StringVar(&f.logLevel, "log-level", "off", "log to standard error from `LEVEL` on: error, warn, info (a handful of lines for each session), debug (each attempt) or off; see docs/LOGS.md")
	cmd.Flags().BoolVar(&f.logJSON, "log-json", false, "log one JSON object per line")
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("log-level", cobra.FixedCompletions([]string{"off", "error", "warn", "info", "debug"}, cobra.ShellCompDirectiveNoFileComp)))
	cmd.Flags().BoolVar(&f.json, "json", false, "one JSON object per line, for programs")
	return cmd
}

// add adds the flags of what the peer is to a command.
func (f *peerFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringArrayVar(&f.listen, "listen", nil, "accept connections at `ENDPOINT`, such as tcp://0.0.0.0:5483 or utp://0.0.0.0:5483; port 0 is a random one; repeatable (default one random port per transport)")
	flags.Uint16Var(&f.livePort, "live-port", 0, "`PORT` of TCP and UDP that listeners with port 0 try first, 5483 by convention; where it is taken they get a random one (default random ports)")
	flags.DurationVar(&f.rotation, "port-rotation", 0, "move listeners with port 0 to a new random port every `TIME`, at least 1s; sessions stay (default never)")
	flags.BoolVar(&f.noPortMap, "no-portmap", false, "ask no router to pass the ports of the listeners on; so does CRUST_PORTMAP=off in the environment")
	flags.BoolVar(&f.noBeacon, "no-beacon", false, "say nothing to the networks that this machine is in, and hear nobody there; so does CRUST_BEACON=off in the environment")
	flags.Uint16Var(&f.external, "external-port", 0, "`PORT` that routers must give, or none, to one listener over TCP and to one over UDP (default any port)")
	flags.StringVar(&f.network, "network", "", "`NAME` of the network; peers of different names never connect (default the public network)")
	flags.StringVar(&f.identity, "identity", "", "`FILE` that holds the secret key, created with mode 0600 if missing (default a fresh identity)")
	flags.StringVar(&f.appID, "app-id", "", "`TEXT` of up to 256 bytes that peers are shown")
	flags.StringSliceVar(&f.only, "only", nil, "`WAY,...` in which links may come about: dialed, accepted, mapped, punched, relayed (default all)")
	flags.StringArrayVar(&f.stun, "stun", nil, "`HOST:PORT` of a STUN server to ask, in clear, what it sees of the UDP socket; repeatable")
	flags.StringArrayVar(&f.contacts, "contact", nil, "`ENDPOINT[#PEER]` to bootstrap from; repeatable")
	flags.StringVar(&f.cache, "cache", "", "`FILE` in which peers are written down that were connected to directly, to bootstrap from; default means the user's own, see crust cache --help (default none)")
	flags.StringVar(&f.gossip, "gossip", "on", "`WHAT` peers tell each other of where they can be dialled: on (this peer and others that it knows of), answer (only itself, to those that ask) or off")
	flags.StringArrayVar(&f.tracer, "tracer", nil, "allow sessions IN CLEAR, for looking at them, and accept them at `ENDPOINT`, such as tracer://127.0.0.1:0; dial only lets connect dial such; repeatable (default none)")
	flags.StringVar(&f.keyLog, "key-log", "", "`FILE` to which the keys of every session are appended, so that captures of them can be read: whoever has it reads everything (default none)")
	flags.BoolVar(&f.bootstrap, "bootstrap", false, "connect to the first contact that answers")
	flags.StringArrayVar(&f.keep, "keep", nil, "`PEER|N` to stay connected to: a peer id, ENDPOINT#PEER, or any N nodes; repeatable")
	flags.StringVar(&f.role, "role", "node", "`ROLE` that peers are told: node or client")
	flags.BoolVar(&f.noAccept, "no-accept", false, "refuse connections that peers begin")
	flags.DurationVar(&f.window, "resume-window", 0, "let a session whose link is gone wait `TIME` for another one, no longer than the other side does (default 30s)")
	flags.BoolVar(&f.noResume, "no-resume", false, "lose a session with its link")
	flags.StringVar(&f.relay, "relay", "signal", "`WHAT` is done for peers that cannot reach each other: off, signal (carry the letters by which they meet) or data (carry their links too, where peers can reach this one)")
	flags.BoolVar(&f.echo, "echo", false, "send every message back to whom it came from")
	flags.BoolVar(&f.quiet, "quiet-messages", false, "do not print received messages of over 256 bytes, only count them in stats")
	flags.StringVar(&f.metrics, "metrics", "", "serve the counters to Prometheus, in clear, at http://`ADDRESS`/metrics: a port of 127.0.0.1, or IP:PORT (default nowhere)")
	flags.StringVar(&f.control, "control", "", "`SOCKET` at which this user's other programs may look at the peer, as crust top --attach does (default none)")
	flags.StringVar(&f.config, "config", "", "`FILE` with settings as JSON (docs/CONFIG.md); a flag given beside it replaces its setting")
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions([]string{"node", "client"}, cobra.ShellCompDirectiveNoFileComp)))
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("only", cobra.FixedCompletions([]string{"dialed", "accepted", "mapped", "punched", "relayed"}, cobra.ShellCompDirectiveNoFileComp)))
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("relay", cobra.FixedCompletions([]string{"off", "signal", "data"}, cobra.ShellCompDirectiveNoFileComp)))
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("gossip", cobra.FixedCompletions([]string{"on", "answer", "off"}, cobra.ShellCompDirectiveNoFileComp)))
	for _, name := range []string{"listen", "live-port", "port-rotation", "external-port", "resume-window", "network", "app-id", "contact", "stun", "keep", "metrics", "tracer"} {
		cobra.CheckErr(cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions))
	}
}

// settings makes the configuration: the file first, then every flag that was
// given.
func (f *peerFlags) settings(cmd *cobra.Command) (crust.Config, error) {
	var cfg crust.Config
	if err := f.check(cmd, &cfg); err != nil { // wrong flags are told before any file is touched
		return cfg, err
	}
	if f.config == "" && f.identity == "" {
		return cfg, nil
	}
	if f.config != "" {
		fromFile, err := readConfig(f.config)
		if err != nil {
			return cfg, err
		}
		cfg = fromFile
	}
	if f.identity != "" {
		key, err := identity.LoadOrCreate(f.identity)
		if err != nil {
			return cfg, err
		}
		if cfg.Identity != nil {
			cfg.Identity.Zero()
		}
		cfg.Identity = key
	}
	return cfg, f.check(cmd, &cfg)
}

// check reads the flags that were given and sets them in cfg.
func (f *peerFlags) check(cmd *cobra.Command, cfg *crust.Config) error {
	given := cmd.Flags().Changed
	if given("network") {
		if len(f.network) > crust.MaxNetworkName {
			return usagef("--network has %d bytes, at most %d are allowed", len(f.network), crust.MaxNetworkName)
		}
		cfg.NetworkName = f.network
	}
	if given("app-id") {
		if len(f.appID) > crust.MaxAppID {
			return usagef("--app-id has %d bytes, at most %d are allowed", len(f.appID), crust.MaxAppID)
		}
		cfg.AppID = []byte(f.appID)
	}
	if given("role") {
		switch f.role {
		case "node":
			cfg.Role = crust.Node
		case "client":
			cfg.Role = crust.Client
		default:
			return usagef("--role is node or client, not %q", f.role)
		}
	}
	for name, file := range map[string]string{"identity": f.identity, "config": f.config, "cache": f.cache, "key-log": f.keyLog, "control": f.control} {
		if given(name) && file == "" {
			return usagef("--%s needs the name of a file", name)
		}
	}
	if given("no-accept") {
		cfg.NoAccept = f.noAccept
	}
	if given("listen") {
		cfg.Listen, cfg.NoListen = nil, false
		for _, text := range f.listen {
			ep, err := crust.ParseEndpoint(text)
			if err != nil {
				return usagef("--listen: %w", err)
			}
			cfg.Listen = append(cfg.Listen, ep)
		}
	}
	if given("live-port") {
		cfg.LivePort = f.livePort
	}
	if given("port-rotation") {
		if f.rotation < 0 || f.rotation > 0 && f.rotation < time.Second {
			return usagef("--port-rotation is 0 for never or at least 1s, not %v", f.rotation)
		}
		cfg.PortRotation = f.rotation
	}
	f.checkNear(given, cfg)
	if err := f.checkSight(given, cfg); err != nil {
		return err
	}
	if given("external-port") {
		cfg.ExternalPort = f.external
	}
	if given("resume-window") {
		if f.window < time.Millisecond {
			return usagef("--resume-window is at least 1ms, not %v; --no-resume turns it off", f.window)
		}
		cfg.ResumeWindow = f.window
	}
	if given("no-resume") {
		cfg.NoResume = f.noResume
	}
	if given("relay") {
		modes := map[string]crust.RelayMode{"off": crust.RelayOff, "signal": crust.RelaySignal, "data": crust.RelayData}
		mode, ok := modes[f.relay]
		if !ok {
			return usagef("--relay is off, signal or data, not %q", f.relay)
		}
		cfg.Relay = mode
	}
	if given("cache") {
		cfg.Cache = f.cache
	}
	if err := f.checkWays(given, cfg); err != nil {
		return err
	}
	if _, err := f.groups(); err != nil {
		return err
	}
	if given("contact") {
		cfg.Contacts = nil
		for _, text := range f.contacts {
			contact, err := crust.ParseContact(text)
			if err != nil {
				return usagef("--contact: %w", err)
			}
			cfg.Contacts = append(cfg.Contacts, contact)
		}
	}
	return nil
}

// checkNear sets what is said to routers and to neighbours.
func (f *peerFlags) checkNear(given func(string) bool, cfg *crust.Config) {
	if given("no-portmap") {
		cfg.PortMap = crust.PortMapOn
		if f.noPortMap {
			cfg.PortMap = crust.PortMapOff
		}
	}
	if given("no-beacon") {
		cfg.Beacon = crust.BeaconOn
		if f.noBeacon {
			cfg.Beacon = crust.BeaconOff
		}
	}
}

// checkLog is check for --log-level and --log-json.
func (f *peerFlags) checkLog(given func(string) bool, cfg *crust.Config) error {
	if !given("log-level") {
		return nil
	}
	level, ok := map[string]slog.Level{"error": slog.LevelError, "warn": slog.LevelWarn, "info": slog.LevelInfo, "debug": slog.LevelDebug}[f.logLevel]
	if !ok && f.logLevel != "off" {
		return usagef("--log-level is off, error, warn, info or debug, not %q", f.logLevel)
	}
	cfg.LogEvents, cfg.LogLevel = ok, level
	return nil
}

// logTo has records that are wanted written to w, not told as events.
func (f *peerFlags) logTo(w io.Writer, cfg *crust.Config) {
	if !cfg.LogEvents {
		return
	}
	options := &slog.HandlerOptions{Level: cfg.LogLevel}
	var h slog.Handler = slog.NewTextHandler(w, options)
	if f.logJSON {
		h = slog.NewJSONHandler(w, options)
	}
	cfg.Logger, cfg.LogEvents = slog.New(h), false
}

// checkSight is check for --tracer, --key-log and the log. Listeners in clear are added to those
// that there are anyway.
func (f *peerFlags) checkSight(given func(string) bool, cfg *crust.Config) error {
	if given("key-log") {
		cfg.KeyLogFile = f.keyLog
	}
	if err := f.checkLog(given, cfg); err != nil {
		return err
	}
	if !given("tracer") {
		return nil
	}
	cfg.Tracer = crust.TracerOn
	if cfg.Listen == nil && !cfg.NoListen {
		cfg.Listen = []crust.Endpoint{{Transport: crust.TCP, Addr: netip.MustParseAddrPort("[::]:0")}, {Transport: crust.UTP, Addr: netip.MustParseAddrPort("[::]:0")}}
	}
	for _, text := range f.tracer {
		if text == "dial" {
			continue
		}
		ep, err := crust.ParseEndpoint(text)
		if err == nil && ep.Transport != crust.Tracer {
			err = fmt.Errorf("%s is not in clear, want tracer://IP:PORT", ep)
		}
		if err != nil {
			return usagef("--tracer: %w", err)
		}
		if !slices.Contains(cfg.Listen, ep) { // flags are looked at twice
			cfg.Listen, cfg.NoListen = append(cfg.Listen, ep), false
		}
	}
	return nil
}

// checkWays is check for --gossip, --only and --stun.
func (f *peerFlags) checkWays(given func(string) bool, cfg *crust.Config) error {
	if given("gossip") {
		mode, err := crust.ParseGossipMode(f.gossip)
		if err != nil {
			return usagef("--gossip is on, answer or off, not %q", f.gossip)
		}
		cfg.Gossip = mode
	}
	if given("only") {
		cfg.Only = nil
		for _, text := range f.only {
			how, err := crust.ParseHow(text)
			if err != nil {
				return usagef("--only: %w", err)
			}
			cfg.Only = append(cfg.Only, how)
		}
	}
	if given("stun") {
		cfg.STUN = nil
		for _, text := range f.stun {
			server, err := crust.ParseSTUNServer(text)
			if err != nil {
				return usagef("--stun: %w", err)
			}
			cfg.STUN = append(cfg.STUN, server)
		}
	}
	return nil
}

// readConfig reads the settings of a file.
func readConfig(file string) (crust.Config, error) {
	f, err := os.Open(file)
	if err != nil {
		return crust.Config{}, fmt.Errorf("cannot read the settings: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, crust.MaxConfigJSON+1)) // what is longer is refused
	if err != nil {
		return crust.Config{}, fmt.Errorf("cannot read the settings: %w", err)
	}
	cfg, err := crust.ParseConfigJSON(text)
	if err != nil {
		return crust.Config{}, fmt.Errorf("%s: %w", file, err)
	}
	return cfg, nil
}

// runPeer makes the service and serves events and commands until the end.
func runPeer(cmd *cobra.Command, f *peerFlags) error {
	cfg, err := f.settings(cmd)
	if err != nil {
		return err
	}
	if cfg.Identity != nil {
		defer cfg.Identity.Zero()
	}
	f.logTo(cmd.ErrOrStderr(), &cfg)
	out := newOutput(cmd.OutOrStdout(), f.json)
	return f.serve(cmd, cfg, out, cmd.InOrStdin(), func(_ *control, run func() error) error { return run() })
}

// serve makes the peer of the flags and what is beside it, and has it watched by with,
// which gets what runs the peer until its commands end.
func (f *peerFlags) serve(cmd *cobra.Command, cfg crust.Config, out *output, commands io.Reader, with func(c *control, run func() error) error) error {
	var err error
	var scraped *metricsServer
	if cmd.Flags().Changed("metrics") {
		at, err := parseMetricsAddress(f.metrics)
		if err != nil {
			return usagef("--metrics: %w", err)
		}
		if scraped, err = listenMetrics(at); err != nil {
			return err
		}
		defer scraped.Close() //nolint:errcheck // it has served
	}
	var socket net.Listener
	if f.control != "" { // before there is anything that would have to be closed
		if socket, err = listenPrivate(f.control); err != nil {
			return fmt.Errorf("cannot make the control socket: %w", err)
		}
		defer socket.Close()
	}
	p, err := f.start(cfg, out)
	if err != nil {
		return err
	}
	if scraped != nil {
		scraped.serve(p.service)
		p.scraped = scraped.report()
	}
	c := newControl(p)
	defer c.close()
	if socket != nil {
		c.listen(socket)
	}
	return with(c, func() error { return p.run(commands, f.bootstrap) })
}

// start makes the peer of the flags.
func (f *peerFlags) start(cfg crust.Config, out *output) (*peer, error) {
	service, err := crust.New(cfg)
	if err != nil {
		if crust.CodeOf(err) == crust.CodeInvalid {
			return nil, usageError{err}
		}
		return nil, err
	}
	p := newPeer(service, out, cfg.CloseTimeout)
	p.echo, p.quiet = f.echo, f.quiet
	if p.groups, err = f.groups(); err != nil {
		return nil, errors.Join(err, service.Close())
	}
	return p, nil
}

// The names of the groups of --keep.
const (
	keptPeers = "peers"
	keptNodes = "nodes"
)

// groups reads --keep: one group of the peers, and one of any nodes.
func (f *peerFlags) groups() ([]crust.Group, error) {
	peers, nodes := crust.Group{Name: keptPeers}, crust.Group{Name: keptNodes}
	for _, text := range f.keep {
		n, notNumber := strconv.ParseUint(text, 10, 64)
		switch {
		case notNumber == nil && len(text) < 10:
			if n < 1 || n > crust.MaxKept || nodes.Any != 0 {
				return nil, usagef("--keep N is given once, for 1 to %d nodes, not %q", crust.MaxKept, text)
			}
			nodes.Any = int(n)
		case strings.Contains(text, "#"):
			contact, err := crust.ParseContact(text)
			if err != nil {
				return nil, usagef("--keep: %w", err)
			}
			peers.Contacts = append(peers.Contacts, contact)
		default:
			id, err := crust.ParsePeerID(text)
			if err != nil {
				return nil, usagef("--keep is a peer id, ENDPOINT#PEER or a number: %w", err)
			}
			peers.Peers = append(peers.Peers, id)
		}
	}
	var groups []crust.Group
	if len(peers.Peers)+len(peers.Contacts) > 0 {
		groups = append(groups, peers)
	}
	if nodes.Any > 0 {
		groups = append(groups, nodes)
	}
	return groups, nil
}
