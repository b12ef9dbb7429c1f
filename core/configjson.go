package crust

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"strconv"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/libcrust/libcrust/core/identity"
)

// MaxConfigJSON is the longest text that ParseConfigJSON reads, in bytes.
const MaxConfigJSON = 1 << 20

// ParseConfigJSON reads a configuration from a JSON object, whose keys, units
// and defaults docs/CONFIG.md lists. A key that is left out or null keeps the
// default. An unknown key, a key given twice and a value of the wrong kind are
// errors that name the key.
//
// When "identity_file" is given, the identity is loaded from that file, which is
// created with mode 0600 when it does not exist; nothing else touches the file
// system. A relative path starts at the working directory.
//
// Errors are *Error: CodeInvalid for the text and for a file that is no identity
// file, CodePermission or CodeIO when the identity file cannot be read or made.
// Bounds between values, such as LostAfter against Heartbeat, are checked by New.
func ParseConfigJSON(data []byte) (Config, error) {
	cfg, identityFile, err := parseConfigText(data)
	if err != nil {
		return Config{}, &Error{Op: "config", Code: CodeInvalid, Err: err}
	}
	if identityFile == "" {
		return cfg, nil
	}
	if cfg.Identity, err = identity.LoadOrCreate(identityFile); err != nil {
		return Config{}, &Error{Op: "config", Code: identityCode(err), Err: err}
	}
	return cfg, nil
}

// identityCode tells a file that the system refuses from one that holds no
// identity.
func identityCode(err error) Code {
	var path *fs.PathError
	var link *os.LinkError
	var number syscall.Errno
	if errors.As(err, &path) || errors.As(err, &link) || errors.As(err, &number) || errors.Is(err, fs.ErrPermission) {
		return CodeOf(err)
	}
	return CodeInvalid
}

// configText is the state of reading one text.
type configText struct {
	cfg          Config
	identityFile string
}

// configKeys says how each key is read. The table is the whole vocabulary.
var configKeys = map[string]func(*configText, json.RawMessage) error{
	"network":          func(t *configText, v json.RawMessage) error { return readString(v, MaxNetworkName, &t.cfg.NetworkName) },
	"identity_file":    func(t *configText, v json.RawMessage) error { return readPath(v, &t.identityFile) },
	"app_id":           func(t *configText, v json.RawMessage) error { return readAppID(v, &t.cfg.AppID) },
	"role":             func(t *configText, v json.RawMessage) error { return readChoice(v, roles, &t.cfg.Role) },
	"cipher":           func(t *configText, v json.RawMessage) error { return readChoice(v, ciphers, &t.cfg.Cipher) },
	"listen":           func(t *configText, v json.RawMessage) error { return readList(v, ParseEndpoint, &t.cfg.Listen) },
	"contacts":         func(t *configText, v json.RawMessage) error { return readList(v, ParseContact, &t.cfg.Contacts) },
	"stun":             func(t *configText, v json.RawMessage) error { return readList(v, ParseSTUNServer, &t.cfg.STUN) },
	"only":             func(t *configText, v json.RawMessage) error { return readList(v, ParseHow, &t.cfg.Only) },
	"cache":            func(t *configText, v json.RawMessage) error { return readPath(v, &t.cfg.Cache) },
	"cache_peers":      func(t *configText, v json.RawMessage) error { return readCount(v, &t.cfg.CachePeers) },
	"gossip":           func(t *configText, v json.RawMessage) error { return readChoice(v, gossips, &t.cfg.Gossip) },
	"no_listen":        func(t *configText, v json.RawMessage) error { return readBool(v, &t.cfg.NoListen) },
	"no_network_watch": func(t *configText, v json.RawMessage) error { return readBool(v, &t.cfg.NoNetworkWatch) },
	"no_accept":        func(t *configText, v json.RawMessage) error { return readBool(v, &t.cfg.NoAccept) },

	"log_level":        readLogLevel,
	"tracer":           func(t *configText, v json.RawMessage) error { return readChoice(v, tracers, &t.cfg.Tracer) },
	"key_log":          func(t *configText, v json.RawMessage) error { return readPath(v, &t.cfg.KeyLogFile) },
	"beacon":           func(t *configText, v json.RawMessage) error { return readChoice(v, beacons, &t.cfg.Beacon) },
	"beacon_port":      func(t *configText, v json.RawMessage) error { return readPort(v, &t.cfg.BeaconPort) },
	"port_map":         func(t *configText, v json.RawMessage) error { return readChoice(v, portMaps, &t.cfg.PortMap) },
	"external_port":    func(t *configText, v json.RawMessage) error { return readPort(v, &t.cfg.ExternalPort) },
	"relay":            func(t *configText, v json.RawMessage) error { return readChoice(v, relays, &t.cfg.Relay) },
	"live_port":        func(t *configText, v json.RawMessage) error { return readPort(v, &t.cfg.LivePort) },
	"port_rotation_ms": func(t *configText, v json.RawMessage) error { return readMillis(v, &t.cfg.PortRotation) },

	"connect_timeout_ms":   func(t *configText, v json.RawMessage) error { return readMillis(v, &t.cfg.ConnectTimeout) },
	"bootstrap_timeout_ms": func(t *configText, v json.RawMessage) error { return readMillis(v, &t.cfg.BootstrapTimeout) },
	"handshake_timeout_ms": func(t *configText, v json.RawMessage) error { return readMillis(v, &t.cfg.HandshakeTimeout) },
	"heartbeat_ms":         func(t *configText, v json.RawMessage) error { return readMillis(v, &t.cfg.Heartbeat) },
	"lost_after_ms":        func(t *configText, v json.RawMessage) error { return readMillis(v, &t.cfg.LostAfter) },
	"close_timeout_ms":     func(t *configText, v json.RawMessage) error { return readMillis(v, &t.cfg.CloseTimeout) },
	"message_max_age_ms":   func(t *configText, v json.RawMessage) error { return readMillis(v, &t.cfg.MessageMaxAge) },

	"resume_window_ms": func(t *configText, v json.RawMessage) error { return readMillis(v, &t.cfg.ResumeWindow) },
	"no_resume":        func(t *configText, v json.RawMessage) error { return readBool(v, &t.cfg.NoResume) },

	"relay_circuits":          func(t *configText, v json.RawMessage) error { return readCount(v, &t.cfg.RelayCircuits) },
	"relay_per_peer":          func(t *configText, v json.RawMessage) error { return readCount(v, &t.cfg.RelayPerPeer) },
	"relay_bytes_per_second":  func(t *configText, v json.RawMessage) error { return readCount(v, &t.cfg.RelayBytesPerSecond) },
	"relay_bytes_per_circuit": func(t *configText, v json.RawMessage) error { return readCount(v, &t.cfg.RelayBytesPerCircuit) },
	"relay_lifetime_ms":       func(t *configText, v json.RawMessage) error { return readMillis(v, &t.cfg.RelayLifetime) },

	"resend_buffer_bytes":        func(t *configText, v json.RawMessage) error { return readCount(v, &t.cfg.ResendBuffer) },
	"send_queue_bytes":           func(t *configText, v json.RawMessage) error { return readCount(v, &t.cfg.SendQueue) },
	"event_queue_bytes":          func(t *configText, v json.RawMessage) error { return readCount(v, &t.cfg.EventQueue) },
	"max_memory_bytes":           func(t *configText, v json.RawMessage) error { return readCount(v, &t.cfg.MaxMemory) },
	"max_peers":                  func(t *configText, v json.RawMessage) error { return readCount(v, &t.cfg.MaxPeers) },
	"max_handshakes":             func(t *configText, v json.RawMessage) error { return readCount(v, &t.cfg.MaxHandshakes) },
	"max_handshakes_per_address": func(t *configText, v json.RawMessage) error { return readCount(v, &t.cfg.MaxHandshakesPerAddress) },
	"max_accepts_per_second":     func(t *configText, v json.RawMessage) error { return readCount(v, &t.cfg.MaxAcceptsPerSecond) },
	"max_accepts_per_address":    func(t *configText, v json.RawMessage) error { return readCount(v, &t.cfg.MaxAcceptsPerAddress) },
	"max_inbound":                func(t *configText, v json.RawMessage) error { return readCount(v, &t.cfg.MaxInbound) },
	"max_peers_per_address":      func(t *configText, v json.RawMessage) error { return readCount(v, &t.cfg.MaxPeersPerAddress) },
	"max_peers_per_prefix":       func(t *configText, v json.RawMessage) error { return readCount(v, &t.cfg.MaxPeersPerPrefix) },
	"peer_bytes_per_second":      func(t *configText, v json.RawMessage) error { return readCount(v, &t.cfg.PeerBytesPerSecond) },
	"peer_messages_per_second":   func(t *configText, v json.RawMessage) error { return readCount(v, &t.cfg.PeerMessagesPerSecond) },
	"handshake_percent":          func(t *configText, v json.RawMessage) error { return readCount(v, &t.cfg.HandshakePercent) },
	"reserved_files":             func(t *configText, v json.RawMessage) error { return readCount(v, &t.cfg.ReservedFiles) },
	"max_connects":               func(t *configText, v json.RawMessage) error { return readCount(v, &t.cfg.MaxConnects) },

	"allow_nodes":     func(t *configText, v json.RawMessage) error { return readList(v, ParsePrefix, &t.cfg.AllowNodes) },
	"allow_clients":   func(t *configText, v json.RawMessage) error { return readList(v, ParsePrefix, &t.cfg.AllowClients) },
	"bans":            func(t *configText, v json.RawMessage) error { return readList(v, ParseBan, &t.cfg.Bans) },
	"gate_timeout_ms": func(t *configText, v json.RawMessage) error { return readMillis(v, &t.cfg.GateTimeout) },
	"max_gates":       func(t *configText, v json.RawMessage) error { return readCount(v, &t.cfg.MaxGates) },
	"max_bans":        func(t *configText, v json.RawMessage) error { return readCount(v, &t.cfg.MaxBans) },
}

// parseConfigText reads the text and touches nothing else, so that hostile text
// can be tried on it.
func parseConfigText(data []byte) (Config, string, error) {
	if len(data) > MaxConfigJSON {
		return Config{}, "", fmt.Errorf("the text has %d bytes, at most %d are read", len(data), MaxConfigJSON)
	}
	if !utf8.Valid(data) {
		return Config{}, "", errors.New("the text is not UTF-8")
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return Config{}, "", errors.New("the text is empty, want a JSON object such as {}")
	}
	var whole json.RawMessage
	if err := json.Unmarshal(data, &whole); err != nil {
		return Config{}, "", syntaxSentence(data, err)
	}
	reader := json.NewDecoder(bytes.NewReader(data))
	if open, err := reader.Token(); err != nil || open != json.Delim('{') {
		return Config{}, "", errors.New("the text is JSON but no object, want {...}")
	}
	var text configText
	seen := make(map[string]bool, len(configKeys))
	for reader.More() {
		token, err := reader.Token()
		if err != nil {
			return Config{}, "", syntaxSentence(data, err)
		}
		key, _ := token.(string) // in an object every other token is a key, and a string
		var value json.RawMessage
		if err := reader.Decode(&value); err != nil {
			return Config{}, "", syntaxSentence(data, err)
		}
		read := configKeys[key]
		switch {
		case read == nil:
			return Config{}, "", fmt.Errorf("unknown key %q", key)
		case seen[key]:
			return Config{}, "", fmt.Errorf("key %q is given twice", key)
		}
		seen[key] = true
		if string(value) == "null" {
			continue
		}
		if err := read(&text, value); err != nil {
			return Config{}, "", fmt.Errorf("key %q: %w", key, err)
		}
	}
	return text.cfg, text.identityFile, nil
}

// syntaxSentence says where the text stops being JSON.
func syntaxSentence(data []byte, err error) error {
	var syntax *json.SyntaxError
	if !errors.As(err, &syntax) {
		return fmt.Errorf("the text is not JSON: %w", err)
	}
	at := min(max(int(syntax.Offset), 0), len(data))
	return fmt.Errorf("the text is not JSON: line %d: %w", 1+bytes.Count(data[:at], []byte{'\n'}), err)
}

func readString(v json.RawMessage, limit int, out *string) error {
	var s string
	if json.Unmarshal(v, &s) != nil {
		return fmt.Errorf("want a string, not %s", shown(v))
	}
	if len(s) > limit {
		return fmt.Errorf("the string has %d bytes, at most %d are allowed", len(s), limit)
	}
	*out = s
	return nil
}

func readPath(v json.RawMessage, out *string) error {
	if err := readString(v, 4096, out); err != nil {
		return err
	}
	if *out == "" {
		return errors.New("the path is empty")
	}
	return nil
}

func readAppID(v json.RawMessage, out *[]byte) error {
	var s string
	if err := readString(v, MaxAppID, &s); err != nil {
		return err
	}
	*out = []byte(s)
	return nil
}

// choice is a word that stands for a value.
type choice[T any] struct {
	word  string
	value T
}

// The words of settings that have a few values.
var (
	roles    = []choice[Role]{{"node", Node}, {"client", Client}}
	relays   = []choice[RelayMode]{{"off", RelayOff}, {"signal", RelaySignal}, {"data", RelayData}}
	gossips  = []choice[GossipMode]{{"on", GossipOn}, {"answer", GossipAnswer}, {"off", GossipOff}}
	tracers  = []choice[TracerMode]{{"off", TracerOff}, {"on", TracerOn}}
	portMaps = []choice[PortMapMode]{{"on", PortMapOn}, {"off", PortMapOff}}
	beacons  = []choice[BeaconMode]{{"on", BeaconOn}, {"off", BeaconOff}, {"listen", BeaconListen}, {"ask", BeaconAsk}}
	ciphers  = []choice[CipherChoice]{{"auto", CipherAuto}, {"chacha20-poly1305", CipherChaCha20Poly1305}}
)

// logLevels are the words for the levels of records; "off" is none of them.
var logLevels = []choice[slog.Level]{{"error", slog.LevelError}, {"warn", slog.LevelWarn}, {"info", slog.LevelInfo}, {"debug", slog.LevelDebug}, {"off", logOff}}

// logOff is above all levels.
const logOff = slog.Level(math.MaxInt)

// readLogLevel has records come as events, from a level on.
func readLogLevel(t *configText, v json.RawMessage) error {
	level := logOff
	if err := readChoice(v, logLevels, &level); err != nil {
		return err
	}
	if t.cfg.LogEvents = level != logOff; t.cfg.LogEvents {
		t.cfg.LogLevel = level
	}
	return nil
}

// readChoice reads one of a few words.
func readChoice[T any](v json.RawMessage, choices []choice[T], out *T) error {
	var s string
	if err := readString(v, math.MaxInt, &s); err != nil {
		return err
	}
	want := ""
	for i, c := range choices {
		if c.word == s {
			*out = c.value
			return nil
		}
		switch i {
		case 0:
		case len(choices) - 1:
			want += " or "
		default:
			want += ", "
		}
		want += strconv.Quote(c.word)
	}
	return fmt.Errorf("want %s, not %s", want, shown(v))
}

// readList reads an array of strings by parse. An empty array means the
// default, as a nil slice of Config does.
func readList[T any](v json.RawMessage, parse func(string) (T, error), out *[]T) error {
	var texts []*string // pointers, so that null is not taken for ""
	if json.Unmarshal(v, &texts) != nil {
		return fmt.Errorf("want an array of strings, not %s", shown(v))
	}
	var list []T
	for i, text := range texts {
		if text == nil {
			return fmt.Errorf("entry %d: want a string, not null", i+1)
		}
		value, err := parse(*text)
		if err != nil {
			return fmt.Errorf("entry %d: %w", i+1, err)
		}
		list = append(list, value)
	}
	*out = list
	return nil
}

func readBool(v json.RawMessage, out *bool) error {
	if json.Unmarshal(v, out) != nil {
		return fmt.Errorf("want true or false, not %s", shown(v))
	}
	return nil
}

func readMillis(v json.RawMessage, out *time.Duration) error {
	var ms int64
	if json.Unmarshal(v, &ms) != nil || ms < 0 || ms > math.MaxInt64/int64(time.Millisecond) {
		return fmt.Errorf("want a whole number of milliseconds, 0 or more, not %s", shown(v))
	}
	*out = time.Duration(ms) * time.Millisecond
	return nil
}

func readPort(v json.RawMessage, out *uint16) error {
	if json.Unmarshal(v, out) != nil {
		return fmt.Errorf("want a port, from 0 to 65535, not %s", shown(v))
	}
	return nil
}

func readCount(v json.RawMessage, out *int) error {
	var n int64
	if json.Unmarshal(v, &n) != nil || n < 0 || n > math.MaxInt32 {
		return fmt.Errorf("want a whole number from 0 to %d, not %s", math.MaxInt32, shown(v))
	}
	*out = int(n)
	return nil
}

// shown cuts a value to what fits in a sentence.
func shown(v json.RawMessage) string {
	const most = 60
	if len(v) <= most {
		return string(v)
	}
	cut := most
	for cut > 0 && !utf8.RuneStart(v[cut]) {
		cut--
	}
	return string(v[:cut]) + "..."
}
