package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	crust "github.com/libcrust/libcrust/core"
)

// pruneAfter is what prune takes without --older.
const pruneAfter = 30 * 24 * time.Hour

// cacheFlags are those of all commands about a bootstrap cache.
type cacheFlags struct {
	path   string
	asJSON bool
}

func (f *cacheFlags) add(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVar(&f.path, "cache", "", "the `FILE` (default the user's own, see crust cache --help)")
	cmd.Flags().BoolVar(&f.asJSON, "json", false, "print JSON, one object a line")
	return cmd
}

// open opens the file that is meant.
func (f *cacheFlags) open() (*crust.Cache, error) {
	path := f.path
	if path == "" {
		var err error
		if path, err = crust.DefaultCachePath(); err != nil {
			return nil, err
		}
	}
	return crust.OpenCache(path)
}

func newCacheCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cache",
		Short: "Look into a bootstrap cache",
		Long: `cache looks into a bootstrap cache: the file in which peers write down whom they were
connected to directly, so that they find them again. It may be used while peers run.

Without --cache it is the file of the user: bootstrap.cache in the directory crust of
$XDG_STATE_HOME (~/.local/state), of %LocalAppData% on Windows, and of
~/Library/Application Support on macOS.

` + exitCodeHelp,
		Args: onlySubcommands,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newCacheListCommand(), newCacheVerifyCommand(), newCachePruneCommand())
	return cmd
}

func newCacheListCommand() *cobra.Command {
	var f cacheFlags
	return f.add(&cobra.Command{
		Use:   "list",
		Short: "Print the peers, the one that was reached last first",
		Long: `list prints the peers of a bootstrap cache, the one that was reached last first.

` + exitCodeHelp,
		Example: `  crust cache list
  crust cache list --cache node.cache --json`,
		Args: arguments(0, "takes no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cache, err := f.open()
			if err != nil {
				return err
			}
			list, err := cache.List()
			if err != nil {
				return err
			}
			return printPeers(cmd, f.asJSON, list)
		},
	})
}

func newCacheVerifyCommand() *cobra.Command {
	var f cacheFlags
	return f.add(&cobra.Command{
		Use:   "verify",
		Short: "Check every slot of the file",
		Long: `verify reads a bootstrap cache from end to end and prints what is wrong with it. It fails
when the file has lost something. It changes nothing: a service mends what can be
mended when it opens the file.

` + exitCodeHelp,
		Example: `  crust cache verify --cache node.cache`,
		Args:    arguments(0, "takes no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cache, err := f.open()
			if err != nil {
				return err
			}
			report, err := cache.Verify()
			if err != nil {
				return err
			}
			return printVerdict(cmd, f.asJSON, &report)
		},
	})
}

func newCachePruneCommand() *cobra.Command {
	var f cacheFlags
	var older time.Duration
	cmd := f.add(&cobra.Command{
		Use:   "prune",
		Short: "Remove peers that were not reached for long",
		Long: `prune removes the peers that were last reached longer ago than --older from a bootstrap
cache, and prints them.

` + exitCodeHelp,
		Example: `  crust cache prune --older 168h`,
		Args:    arguments(0, "takes no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if older < 0 {
				return usagef("--older is at least 0, not %v", older)
			}
			cache, err := f.open()
			if err != nil {
				return err
			}
			removed, err := cache.Prune(older)
			if err != nil {
				return err
			}
			return printPeers(cmd, f.asJSON, removed)
		},
	})
	cmd.Flags().DurationVar(&older, "older", pruneAfter, "remove those last reached longer ago than this `TIME`")
	return cmd
}

// cachedPeer is the JSON form of a peer of a cache. The field names are stable.
type cachedPeer struct {
	Peer      crust.PeerID     `json:"peer"`
	Role      string           `json:"role"`
	Reached   time.Time        `json:"reached"`
	Failed    *time.Time       `json:"failed,omitempty"`
	Failures  int              `json:"failures"`
	Endpoints []cachedEndpoint `json:"endpoints"`
}

type cachedEndpoint struct {
	Endpoint crust.Endpoint `json:"endpoint"`
	Worked   *time.Time     `json:"worked,omitempty"`
}

// when returns a time as it is told, nil for none.
func when(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// printPeers prints peers, one a line.
func printPeers(cmd *cobra.Command, asJSON bool, list []crust.CachedPeer) error {
	var b strings.Builder
	encoder := json.NewEncoder(&b)
	for _, p := range list {
		row := cachedPeer{Peer: p.Peer, Role: p.Role.String(), Reached: p.Reached.UTC(), Failed: when(p.Failed), Failures: p.Failures, Endpoints: []cachedEndpoint{}}
		var where []string
		for _, e := range p.Endpoints {
			row.Endpoints = append(row.Endpoints, cachedEndpoint{e.Endpoint, when(e.Worked)})
			where = append(where, e.Endpoint.String())
		}
		if asJSON {
			if err := encoder.Encode(&row); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(&b, "%s  %s  %s", p.Peer, row.Reached.Format("2006-01-02T15:04:05Z"), strings.Join(where, " "))
		if p.Failures > 0 {
			fmt.Fprintf(&b, "  failures: %d", p.Failures)
		}
		b.WriteByte('\n')
	}
	return write(cmd, b.String())
}

// cacheVerdict is the JSON form of what verify finds. The field names are stable.
type cacheVerdict struct {
	Sound   bool          `json:"sound"`
	Version int           `json:"version"`
	Size    int64         `json:"size"`
	Want    int64         `json:"want"`
	Slots   int           `json:"slots"`
	Peers   int           `json:"peers"`
	Writes  uint64        `json:"writes"`
	Damage  []cacheDamage `json:"damage"`
}

type cacheDamage struct {
	Where string `json:"where"`
	Error string `json:"error"`
	Lost  bool   `json:"lost"`
}

// printVerdict prints what verify has found. Its error says that something is lost.
func printVerdict(cmd *cobra.Command, asJSON bool, r *crust.CacheReport) error {
	v := cacheVerdict{
		Sound: len(r.Damage) == 0, Version: r.Version, Size: r.Size, Want: r.Want, Slots: r.Slots, Peers: r.Peers, Writes: r.Writes, Damage: []cacheDamage{},
	}
	var b strings.Builder
	lost := 0
	fmt.Fprintf(&b, "version %d, %d bytes, %d of %d slots in use, written %d times\n", r.Version, r.Size, r.Peers, r.Slots, r.Writes)
	for _, d := range r.Damage {
		v.Damage = append(v.Damage, cacheDamage{d.Where, d.Err.Error(), d.Lost})
		outcome := "nothing is lost"
		if d.Lost || d.Where == "size" && r.Size < r.Want {
			outcome = "something may be lost"
			lost++
		}
		fmt.Fprintf(&b, "%s: %v; %s\n", d.Where, d.Err, outcome)
	}
	if v.Sound {
		b.WriteString("nothing is wrong\n")
	}
	text := b.String()
	if asJSON {
		line, err := json.Marshal(&v)
		if err != nil {
			return err
		}
		text = string(line) + "\n"
	}
	if err := write(cmd, text); err != nil {
		return err
	}
	if lost > 0 {
		return fmt.Errorf("cache verify: %d things are wrong by which something may be lost", lost)
	}
	return nil
}

// write prints text as a whole.
func write(cmd *cobra.Command, text string) error {
	if _, err := fmt.Fprint(cmd.OutOrStdout(), text); err != nil {
		return fmt.Errorf("cannot write the output: %w", err)
	}
	return nil
}
