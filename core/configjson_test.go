package crust

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libcrust/libcrust/core/identity"
)

const peerText = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"

// everyKey sets every key but identity_file to something that is not its default.
const everyKey = `{
	"network": "blue",
	"app_id": "chat/3 \u00e9",
	"role": "client",
	"cipher": "chacha20-poly1305",
	"listen": ["tcp://127.0.0.1:5483", "[::1]:0"],
	"only": ["dialed", "relayed"],
	"stun": ["stun.example.org:3478", "203.0.113.9"],
	"contacts": ["203.0.113.5:5483", "tcp://[2001:db8::1]:40000#` + peerText + `"],
	"no_listen": true,
	"relay": "data",
	"relay_circuits": 16,
	"relay_per_peer": 17,
	"relay_bytes_per_second": 18,
	"relay_bytes_per_circuit": 19,
	"relay_lifetime_ms": 20,
	"no_accept": true,
	"no_network_watch": true,
	"live_port": 5483,
	"port_map": "off",
	"beacon": "listen",
	"beacon_port": 22,
	"external_port": 21, "cache": "/tmp/cache", "cache_peers": 22, "gossip": "answer", "tracer": "on", "key_log": "/tmp/keys", "log_level": "warn",
	"port_rotation_ms": 14,
	"connect_timeout_ms": 1,
	"bootstrap_timeout_ms": 2,
	"handshake_timeout_ms": 3,
	"heartbeat_ms": 4,
	"lost_after_ms": 5,
	"close_timeout_ms": 6,
	"message_max_age_ms": 7,
	"send_queue_bytes": 8,
	"event_queue_bytes": 9,
	"max_memory_bytes": 41,
	"max_peers": 10,
	"max_handshakes": 11,
	"max_handshakes_per_address": 12,
	"max_connects": 13,
	"resume_window_ms": 14,
	"no_resume": true,
	"resend_buffer_bytes": 15,
	"max_accepts_per_second": 23,
	"max_accepts_per_address": 24,
	"handshake_percent": 25,
	"reserved_files": 26,
	"allow_nodes": ["10.0.0.0/8", "2001:db8::1"], "allow_clients": ["192.0.2.1"], "bans": ["` + peerText + `", "198.51.100.77/24"], "max_bans": 27, "gate_timeout_ms": 28, "max_gates": 29,
	"max_inbound": 27,
	"max_peers_per_address": 28,
	"max_peers_per_prefix": 29,
	"peer_bytes_per_second": 30,
	"peer_messages_per_second": 31
}`

func TestParseConfigJSONReadsEveryKey(t *testing.T) {
	got, err := ParseConfigJSON([]byte(everyKey))
	if err != nil {
		t.Fatal(err)
	}
	peer, err := ParsePeerID(peerText)
	if err != nil {
		t.Fatal(err)
	}
	tcp := func(text string) Endpoint { return Endpoint{Transport: TCP, Addr: netip.MustParseAddrPort(text)} }
	want := Config{
		NetworkName: "blue", AppID: []byte("chat/3 é"), Role: Client, Cipher: CipherChaCha20Poly1305,
		Listen:   []Endpoint{tcp("127.0.0.1:5483"), tcp("[::1]:0")},
		Contacts: []Contact{{Endpoint: tcp("203.0.113.5:5483")}, {Endpoint: tcp("[2001:db8::1]:40000"), Peer: peer}},
		NoListen: true, NoAccept: true, NoNetworkWatch: true, LivePort: 5483, PortRotation: 14 * time.Millisecond,
		ConnectTimeout: time.Millisecond, BootstrapTimeout: 2 * time.Millisecond, HandshakeTimeout: 3 * time.Millisecond,
		Heartbeat: 4 * time.Millisecond, LostAfter: 5 * time.Millisecond, CloseTimeout: 6 * time.Millisecond,
		MessageMaxAge: 7 * time.Millisecond, SendQueue: 8, MaxMemory: 41, EventQueue: 9, MaxPeers: 10, MaxHandshakes: 11,
		MaxHandshakesPerAddress: 12, MaxConnects: 13,
		ResumeWindow: 14 * time.Millisecond, NoResume: true, ResendBuffer: 15,
		Relay: RelayData, RelayCircuits: 16, RelayPerPeer: 17, RelayBytesPerSecond: 18, RelayBytesPerCircuit: 19,
		RelayLifetime: 20 * time.Millisecond, Only: []How{Dialed, Relayed}, STUN: []string{"stun.example.org:3478", "203.0.113.9"}, PortMap: PortMapOff, ExternalPort: 21, Beacon: BeaconListen, BeaconPort: 22,
		Cache: "/tmp/cache", CachePeers: 22, Gossip: GossipAnswer, Tracer: TracerOn, KeyLogFile: "/tmp/keys", LogLevel: slog.LevelWarn, LogEvents: true,
		MaxAcceptsPerSecond: 23, MaxAcceptsPerAddress: 24, HandshakePercent: 25, ReservedFiles: 26,
		AllowNodes:   []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::1/128")},
		AllowClients: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}, MaxBans: 27, GateTimeout: 28 * time.Millisecond, MaxGates: 29,
		Bans:       []BanEntry{{Peer: peer}, {Prefix: netip.MustParsePrefix("198.51.100.0/24")}},
		MaxInbound: 27, MaxPeersPerAddress: 28, MaxPeersPerPrefix: 29, PeerBytesPerSecond: 30, PeerMessagesPerSecond: 31,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v, want\n%+v", got, want)
	}
}

// Every field of Config that text can express must have a key, and the test
// above must set it: a field added later is caught here.
func TestParseConfigJSONCoversConfig(t *testing.T) {
	cfg, err := ParseConfigJSON([]byte(everyKey))
	if err != nil {
		t.Fatal(err)
	}
	inCode := []string{"Identity", "OnEvents", "Logger", "Gate", "KeyLog"} // Identity by identity_file, KeyLog by key_log
	v := reflect.ValueOf(cfg)
	for i := range v.NumField() {
		field := v.Type().Field(i)
		if name := field.Name; field.IsExported() && v.Field(i).IsZero() != slices.Contains(inCode, name) {
			t.Errorf("Config.%s has no key, or the text of this test does not set it", name)
		}
	}
	var given map[string]any
	if err := json.Unmarshal([]byte(everyKey), &given); err != nil {
		t.Fatal(err)
	}
	for key := range configKeys {
		if _, ok := given[key]; !ok && key != "identity_file" {
			t.Errorf("the text of this test does not set %q", key)
		}
	}
}

func TestParseConfigJSONDefaults(t *testing.T) {
	for _, text := range []string{
		`{}`, " \n{ }\n", `{"network":null,"listen":null,"heartbeat_ms":null,"identity_file":null}`,
		`{"listen":[],"contacts":[],"heartbeat_ms":0,"max_peers":0,"role":"node","cipher":"auto","network":"","no_listen":false,"relay":"signal","port_map":"on","external_port":0,"beacon":"on","beacon_port":0,"gossip":"on","tracer":"off"}`,
	} {
		got, err := ParseConfigJSON([]byte(text))
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if !reflect.DeepEqual(got, Config{}) {
			t.Errorf("%s gives %+v, want the zero Config", text, got)
		}
	}
}

func TestParseConfigJSONRefuses(t *testing.T) {
	long := strings.Repeat("n", 257)
	for _, c := range []struct{ text, want string }{
		{``, `config: the text is empty, want a JSON object such as {}`},
		{" \n", `config: the text is empty, want a JSON object such as {}`},
		{`null`, `config: the text is JSON but no object, want {...}`},
		{`[{}]`, `config: the text is JSON but no object, want {...}`},
		{`"x"`, `config: the text is JSON but no object, want {...}`},
		{"{\n\"network\": blue}", `config: the text is not JSON: line 2: invalid character 'b' looking for beginning of value`},
		{`{"network":"blue"`, `config: the text is not JSON: line 1: unexpected end of JSON input`},
		{`{} {}`, `config: the text is not JSON: line 1: invalid character '{' after top-level value`},
		{"{\"network\":\"\xff\"}", `config: the text is not UTF-8`},
		{`{"Network":"blue"}`, `config: unknown key "Network"`},
		{`{"colour":null}`, `config: unknown key "colour"`},
		{`{"network":"a","network":"b"}`, `config: key "network" is given twice`},
		{`{"network":7}`, `config: key "network": want a string, not 7`},
		{`{"network":"` + long + `"}`, `config: key "network": the string has 257 bytes, at most 256 are allowed`},
		{`{"app_id":"` + long + `"}`, `config: key "app_id": the string has 257 bytes, at most 256 are allowed`},
		{`{"app_id":["` + long + `"]}`, `config: key "app_id": want a string, not ["` + long[:58] + `...`},
		{`{"identity_file":""}`, `config: key "identity_file": the path is empty`},
		{`{"role":"server"}`, `config: key "role": want "node" or "client", not "server"`},
		{`{"relay":"on"}`, `config: key "relay": want "off", "signal" or "data", not "on"`},
		{`{"relay":1}`, `config: key "relay": want a string, not 1`},
		{`{"cipher":"rot13"}`, `config: key "cipher": want "auto" or "chacha20-poly1305", not "rot13"`},
		{`{"listen":"tcp://0.0.0.0:0"}`, `config: key "listen": want an array of strings, not "tcp://0.0.0.0:0"`},
		{`{"listen":[null]}`, `config: key "listen": entry 1: want a string, not null`},
		{`{"listen":["tcp://0.0.0.0:0","tcp://localhost:1"]}`, `config: key "listen": entry 2: endpoint "tcp://localhost:1": `},
		{`{"contacts":["tcp://1.2.3.4:5#abc"]}`, `config: key "contacts": entry 1: `},
		{`{"no_listen":1}`, `config: key "no_listen": want true or false, not 1`},
		{`{"no_accept":"yes"}`, `config: key "no_accept": want true or false, not "yes"`},
		{`{"heartbeat_ms":"20s"}`, `config: key "heartbeat_ms": want a whole number of milliseconds, 0 or more, not "20s"`},
		{`{"heartbeat_ms":-1}`, `config: key "heartbeat_ms": want a whole number of milliseconds, 0 or more, not -1`},
		{`{"heartbeat_ms":1.5}`, `config: key "heartbeat_ms": want a whole number of milliseconds, 0 or more, not 1.5`},
		{`{"heartbeat_ms":9223372036855}`, `config: key "heartbeat_ms": want a whole number of milliseconds, 0 or more, not 9223372036855`},
		{`{"max_peers":-5}`, `config: key "max_peers": want a whole number from 0 to 2147483647, not -5`},
		{`{"max_peers":2147483648}`, `config: key "max_peers": want a whole number from 0 to 2147483647, not 2147483648`},
		{`{"network":"` + strings.Repeat(" ", MaxConfigJSON) + `"}`, `config: the text has 1048590 bytes, at most 1048576 are read`},
	} {
		_, err := ParseConfigJSON([]byte(c.text))
		switch {
		case err == nil:
			t.Errorf("%.80s: no error", c.text)
		case !strings.HasPrefix(err.Error(), c.want):
			t.Errorf("%.80s:\n got %s\nwant %s", c.text, err, c.want)
		case !errors.Is(err, CodeInvalid):
			t.Errorf("%.80s: code %v, want invalid", c.text, CodeOf(err))
		case strings.ContainsRune(err.Error(), '\n'):
			t.Errorf("%.80s: the error has more than one line: %q", c.text, err)
		}
	}
}

func TestParseConfigJSONIdentityFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "id")
	text, err := json.Marshal(map[string]any{"identity_file": file})
	if err != nil {
		t.Fatal(err)
	}
	first, err := ParseConfigJSON(text)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if mode := info.Mode().Perm(); mode != 0o600 {
		t.Errorf("the new identity file has mode %04o, want 0600", mode)
	}
	again, err := ParseConfigJSON(text)
	if err != nil {
		t.Fatal(err)
	}
	saved, err := identity.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	if first.Identity.ID() != saved.ID() || again.Identity.ID() != saved.ID() {
		t.Errorf("peer ids %v, %v and %v, want the same three times", first.Identity.ID(), again.Identity.ID(), saved.ID())
	}
}

func TestParseConfigJSONIdentityFileRefused(t *testing.T) {
	dir := t.TempDir()
	open, bad, inDir := filepath.Join(dir, "open"), filepath.Join(dir, "bad"), filepath.Join(dir, "no", "id")
	for path, mode := range map[string]os.FileMode{open: 0o644, bad: 0o600} {
		if err := os.WriteFile(path, []byte("hello\n"), mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		path, want string
		code       Code
	}{
		{open, "is open to other users", CodePermission},
		{bad, "is not an identity file", CodeInvalid},
		{dir, "is not an identity file", CodeInvalid},
		{inDir, "no such file or directory", CodeIO},
	} {
		text, err := json.Marshal(map[string]any{"identity_file": c.path})
		if err != nil {
			t.Fatal(err)
		}
		_, err = ParseConfigJSON(text)
		if err == nil || !strings.Contains(err.Error(), c.want) || CodeOf(err) != c.code {
			t.Errorf("%s: got %v (code %v), want %q and code %v", c.path, err, CodeOf(err), c.want, c.code)
		}
	}
}

// A text that is refused must not leave a file behind.
func TestParseConfigJSONMakesNoFileForABadText(t *testing.T) {
	file := filepath.Join(t.TempDir(), "id")
	for _, rest := range []string{`,"nonsense":1}`, `,"role":"server"}`, `,`} {
		if _, err := ParseConfigJSON([]byte(`{"identity_file":"` + file + `"` + rest)); err == nil {
			t.Errorf("no error for %s", rest)
		}
		if _, err := os.Stat(file); !os.IsNotExist(err) {
			t.Errorf("%s: the identity file was made (%v)", rest, err)
		}
	}
}

// docs/CONFIG.md and the table of keys must list the same names.
func TestConfigDocumentListsTheKeys(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "docs", "CONFIG.md"))
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|").FindAllSubmatch(text, -1) {
		documented[string(row[1])] = true
	}
	for key := range configKeys {
		if !documented[key] {
			t.Errorf("docs/CONFIG.md has no row for %q", key)
		}
	}
	for key := range documented {
		if configKeys[key] == nil {
			t.Errorf("docs/CONFIG.md has a row for %q, which is no key", key)
		}
	}
	example := regexp.MustCompile("(?s)```json\n(.*?)```").FindSubmatch(text)
	if example == nil {
		t.Fatal("docs/CONFIG.md has no example")
	}
	if _, _, err := parseConfigText(example[1]); err != nil {
		t.Errorf("the example of docs/CONFIG.md: %v", err)
	}
}

// FuzzParseConfigJSON tries the reading of text without the identity file.
// Whatever is accepted must be an object of known keys, within its bounds.
func FuzzParseConfigJSON(f *testing.F) {
	for _, seed := range []string{
		everyKey, `{}`, `null`, `[]`, `{"network":null}`, `{"network":"a","network":"b"}`, `{"listen":["tcp://[::1]:0"]}`,
		`{"contacts":["tcp://1.2.3.4:5#` + peerText + `"]}`, `{"heartbeat_ms":1e3}`, `{"identity_file":"id"}`, `{"role":"client"} `,
		"{\"app_id\":\"\\ud800\"}", `{"":1}`, "\ufeff{}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, path, err := parseConfigText(data)
		if err != nil {
			if err.Error() == "" || !reflect.DeepEqual(cfg, Config{}) || path != "" {
				t.Fatalf("error %q beside a configuration", err)
			}
			return
		}
		var object map[string]json.RawMessage
		if err := json.Unmarshal(data, &object); err != nil || object == nil {
			t.Fatalf("accepted %q, which is no object: %v", data, err)
		}
		for key := range object {
			if configKeys[key] == nil {
				t.Fatalf("accepted the unknown key %q", key)
			}
		}
		if len(cfg.NetworkName) > MaxNetworkName || len(cfg.AppID) > MaxAppID || cfg.Heartbeat < 0 || cfg.MaxPeers < 0 {
			t.Fatalf("accepted values out of bounds: %+v", cfg)
		}
		again, _, err := parseConfigText(bytes.Clone(data))
		if err != nil || !reflect.DeepEqual(cfg, again) {
			t.Fatalf("read twice, the text gives %+v and %+v, %v", cfg, again, err)
		}
	})
}
