package main

// #include <stdlib.h>
// #include "shim_internal.h"
import "C"

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"sync"
	"time"
	"unicode/utf8"
	"unsafe"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/identity"
)

// config is what a crust_config names. The pointer that C holds is a handle and
// is never followed, so that a freed configuration is an error and no crash. It
// comes to Go as a number, because Go must not see a pointer that is none.
type config struct {
	mu           sync.Mutex // a promise of the header, kept even when the program does not
	cfg          crust.Config
	identityFile string
	seed         []byte // empty or identity.SeedSize; cleared when replaced and when freed
	gate         *gate  // nil: there is none
}

var configs = table[config]{kind: kindConfig, what: "crust_config_new"}

// configAt returns the configuration behind p, and its handle.
func configAt(op string, p C.uintptr_t) (*config, error) {
	if c := configs.getPointer(uintptr(p)); c != nil {
		return c, nil
	}
	return nil, failure(op, crust.CodeBadHandle, "the configuration was freed or is none")
}

// edit finds the configuration behind p and changes it.
func edit(op string, p C.uintptr_t, change func(*config) error) error {
	c, err := configAt(op, p)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return invalid(op, change(c))
}

// setUint sets an option whose value is a number.
func (c *config) setUint(option int32, v uint64) error {
	switch option {
	case C.CRUST_OPT_ROLE:
		return setSmall(&c.cfg.Role, v, uint64(crust.Client))
	case C.CRUST_OPT_CIPHER:
		return setSmall(&c.cfg.Cipher, v, uint64(crust.CipherChaCha20Poly1305))
	case C.CRUST_OPT_RELAY:
		return setSmall(&c.cfg.Relay, v, uint64(crust.RelayData))
	case C.CRUST_OPT_GOSSIP:
		return setSmall(&c.cfg.Gossip, v, uint64(crust.GossipOff))
	case C.CRUST_OPT_LOG_LEVEL:
		return setLogLevel(&c.cfg, v)
	case C.CRUST_OPT_TRACER:
		return setSmall(&c.cfg.Tracer, v, uint64(crust.TracerOn))
	case C.CRUST_OPT_NO_LISTEN:
		return setBool(&c.cfg.NoListen, v)
	case C.CRUST_OPT_NO_ACCEPT:
		return setBool(&c.cfg.NoAccept, v)
	case C.CRUST_OPT_NO_NETWORK_WATCH:
		return setBool(&c.cfg.NoNetworkWatch, v)
	case C.CRUST_OPT_NO_RESUME:
		return setBool(&c.cfg.NoResume, v)
	case C.CRUST_OPT_NO_PORT_MAP:
		return setSmall(&c.cfg.PortMap, v, uint64(crust.PortMapOff))
	case C.CRUST_OPT_EXTERNAL_PORT:
		return setSmall(&c.cfg.ExternalPort, v, math.MaxUint16)
	case C.CRUST_OPT_BEACON:
		return setSmall(&c.cfg.Beacon, v, uint64(crust.BeaconAsk))
	case C.CRUST_OPT_BEACON_PORT:
		return setSmall(&c.cfg.BeaconPort, v, math.MaxUint16)
	case C.CRUST_OPT_LIVE_PORT:
		return setSmall(&c.cfg.LivePort, v, math.MaxUint16)
	case C.CRUST_OPT_ONLY:
		return setWays(&c.cfg.Only, v)
	}
	if d := c.duration(option); d != nil {
		if v > uint64(math.MaxInt64/time.Millisecond) {
			return fmt.Errorf("%d ms is longer than any duration", v)
		}
		*d = time.Duration(v) * time.Millisecond
		return nil
	}
	if n := c.size(option); n != nil {
		if v > math.MaxInt {
			return fmt.Errorf("%d is too large", v)
		}
		if option == C.CRUST_OPT_SEND_QUEUE_BYTES && v != 0 && v < crust.MaxMessage {
			return fmt.Errorf("a send queue of %d bytes cannot hold the largest message of %d bytes", v, crust.MaxMessage)
		}
		*n = int(v)
		return nil
	}
	return wrongOption(option, "number")
}

func setSmall[T ~uint8 | ~uint16](to *T, v, greatest uint64) error {
	if v > greatest {
		return fmt.Errorf("%d is out of bounds, the greatest value is %d", v, greatest)
	}
	*to = T(v)
	return nil
}

// setWays sets ways from the sum of a bit for each.
func setWays(to *[]crust.How, v uint64) error {
	var ways []crust.How
	for h := crust.Dialed; h <= crust.Relayed; h++ {
		if bit := uint64(1) << h; v&bit != 0 {
			ways = append(ways, h)
			v &^= bit
		}
	}
	if v != 0 {
		return fmt.Errorf("bit %d stands for no way in which links come about", bits.TrailingZeros64(v))
	}
	*to = ways
	return nil
}

func setBool(to *bool, v uint64) error {
	if v > 1 {
		return fmt.Errorf("%d is out of bounds, want 0 or 1", v)
	}
	*to = v == 1
	return nil
}

// duration returns the field of an option in milliseconds, nil for others.
func (c *config) duration(option int32) *time.Duration {
	switch option {
	case C.CRUST_OPT_CONNECT_TIMEOUT_MS:
		return &c.cfg.ConnectTimeout
	case C.CRUST_OPT_BOOTSTRAP_TIMEOUT_MS:
		return &c.cfg.BootstrapTimeout
	case C.CRUST_OPT_HANDSHAKE_TIMEOUT_MS:
		return &c.cfg.HandshakeTimeout
	case C.CRUST_OPT_HEARTBEAT_MS:
		return &c.cfg.Heartbeat
	case C.CRUST_OPT_LOST_AFTER_MS:
		return &c.cfg.LostAfter
	case C.CRUST_OPT_CLOSE_TIMEOUT_MS:
		return &c.cfg.CloseTimeout
	case C.CRUST_OPT_MESSAGE_MAX_AGE_MS:
		return &c.cfg.MessageMaxAge
	case C.CRUST_OPT_PORT_ROTATION_MS:
		return &c.cfg.PortRotation
	case C.CRUST_OPT_RESUME_WINDOW_MS:
		return &c.cfg.ResumeWindow
	case C.CRUST_OPT_GATE_TIMEOUT_MS:
		return &c.cfg.GateTimeout
	}
	return nil
}

// size returns the field of an option that counts bytes or things, nil for others.
func (c *config) size(option int32) *int {
	switch option {
	case C.CRUST_OPT_SEND_QUEUE_BYTES:
		return &c.cfg.SendQueue
	case C.CRUST_OPT_EVENT_QUEUE_BYTES:
		return &c.cfg.EventQueue
	case C.CRUST_OPT_MAX_PEERS:
		return &c.cfg.MaxPeers
	case C.CRUST_OPT_MAX_HANDSHAKES:
		return &c.cfg.MaxHandshakes
	case C.CRUST_OPT_MAX_HANDSHAKES_PER_ADDRESS:
		return &c.cfg.MaxHandshakesPerAddress
	case C.CRUST_OPT_MAX_CONNECTS:
		return &c.cfg.MaxConnects
	case C.CRUST_OPT_RESEND_BUFFER_BYTES:
		return &c.cfg.ResendBuffer
	case C.CRUST_OPT_CACHE_PEERS:
		return &c.cfg.CachePeers
	case C.CRUST_OPT_MAX_BANS:
		return &c.cfg.MaxBans
	case C.CRUST_OPT_MAX_GATES:
		return &c.cfg.MaxGates
	}
	return nil
}

// wrongOption tells an option of another kind from one that does not exist.
func wrongOption(option int32, kind string) error {
	var c config
	known := c.duration(option) != nil || c.size(option) != nil ||
		option >= C.CRUST_OPT_NETWORK_NAME && option <= C.CRUST_OPT_ONLY || option >= C.CRUST_OPT_TRACER && option <= C.CRUST_OPT_LOG_LEVEL
	if known {
		return fmt.Errorf("option %d does not take a %s", option, kind)
	}
	return fmt.Errorf("option %d is not known", option)
}

// setString sets an option whose value is text.
func (c *config) setString(option int32, v string) error {
	if !utf8.ValidString(v) {
		return errors.New("the text is not UTF-8")
	}
	switch option {
	case C.CRUST_OPT_NETWORK_NAME:
		if len(v) > crust.MaxNetworkName {
			return fmt.Errorf("the network name has %d bytes, at most %d are allowed", len(v), crust.MaxNetworkName)
		}
		c.cfg.NetworkName = v
	case C.CRUST_OPT_IDENTITY_FILE:
		c.setSeed(nil)
		c.identityFile = v
	case C.CRUST_OPT_APP_ID:
		return c.setBytes(option, []byte(v))
	case C.CRUST_OPT_CACHE:
		c.cfg.Cache = v
	case C.CRUST_OPT_KEY_LOG:
		c.cfg.KeyLogFile = v
	default:
		return wrongOption(option, "string")
	}
	return nil
}

// setBytes sets an option whose value is bytes, and copies them.
func (c *config) setBytes(option int32, v []byte) error {
	switch option {
	case C.CRUST_OPT_IDENTITY_SEED:
		if len(v) != identity.SeedSize {
			return fmt.Errorf("the seed has %d bytes, want %d", len(v), identity.SeedSize)
		}
		c.setSeed(v)
		c.identityFile = ""
	case C.CRUST_OPT_APP_ID:
		if len(v) > crust.MaxAppID {
			return fmt.Errorf("the app id has %d bytes, at most %d are allowed", len(v), crust.MaxAppID)
		}
		c.cfg.AppID = slices.Clone(v)
	default:
		return wrongOption(option, "byte string")
	}
	return nil
}

// setSeed replaces the secret by a copy of seed and clears the old one.
func (c *config) setSeed(seed []byte) {
	clear(c.seed)
	c.seed = slices.Clone(seed)
}

// loadJSON merges what the text sets over what is set already. Lists are added to.
func (c *config) loadJSON(text []byte) error {
	from, err := crust.ParseConfigJSON(text)
	if err != nil {
		return err
	}
	if from.Identity != nil {
		seed := from.Identity.Seed()
		c.setSeed(seed)
		c.identityFile = ""
		clear(seed)
		from.Identity.Zero()
	}
	to := &c.cfg
	to.Listen = append(to.Listen, from.Listen...)
	to.Contacts = append(to.Contacts, from.Contacts...)
	to.STUN = append(to.STUN, from.STUN...)
	to.Bans = append(to.Bans, from.Bans...)
	to.AllowNodes = append(to.AllowNodes, from.AllowNodes...)
	to.AllowClients = append(to.AllowClients, from.AllowClients...)
	if from.Only != nil {
		to.Only = from.Only
	}
	if from.AppID != nil {
		to.AppID = from.AppID
	}
	merge(&to.NetworkName, from.NetworkName)
	merge(&to.Role, from.Role)
	merge(&to.NoListen, from.NoListen)
	merge(&to.NoAccept, from.NoAccept)
	merge(&to.Cipher, from.Cipher)
	merge(&to.LivePort, from.LivePort)
	merge(&to.NoResume, from.NoResume)
	merge(&to.NoNetworkWatch, from.NoNetworkWatch)
	merge(&to.PortMap, from.PortMap)
	merge(&to.ExternalPort, from.ExternalPort)
	merge(&to.Beacon, from.Beacon)
	merge(&to.BeaconPort, from.BeaconPort)
	merge(&to.Cache, from.Cache)
	merge(&to.Gossip, from.Gossip)
	merge(&to.Tracer, from.Tracer)
	merge(&to.KeyLogFile, from.KeyLogFile)
	if from.LogEvents {
		to.LogEvents, to.LogLevel = true, from.LogLevel
	}
	merge(&to.Relay, from.Relay)
	merge(&to.RelayCircuits, from.RelayCircuits)
	merge(&to.RelayPerPeer, from.RelayPerPeer)
	merge(&to.RelayBytesPerSecond, from.RelayBytesPerSecond)
	merge(&to.RelayBytesPerCircuit, from.RelayBytesPerCircuit)
	merge(&to.RelayLifetime, from.RelayLifetime)
	loaded := config{cfg: from}
	for option := int32(C.CRUST_OPT_CONNECT_TIMEOUT_MS); option <= C.CRUST_OPT_GATE_TIMEOUT_MS; option++ {
		if d := c.duration(option); d != nil {
			merge(d, *loaded.duration(option))
		}
		if n := c.size(option); n != nil {
			merge(n, *loaded.size(option))
		}
	}
	return nil
}

// merge sets to unless the new value is the zero value, which means default.
func merge[T comparable](to *T, from T) {
	var zero T
	if from != zero {
		*to = from
	}
}

// forService returns what to make a service from, with an identity of its own
// that the service may clear.
func (c *config) forService() (crust.Config, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	cfg := c.cfg
	cfg.Listen = slices.Clone(cfg.Listen)
	cfg.Contacts = slices.Clone(cfg.Contacts)
	cfg.STUN, cfg.Only = slices.Clone(cfg.STUN), slices.Clone(cfg.Only)
	cfg.AppID = slices.Clone(cfg.AppID)
	err := checkEnvironment(&cfg)
	switch {
	case err != nil:
	case len(c.seed) > 0:
		cfg.Identity, err = identity.FromSeed(c.seed)
	case c.identityFile != "":
		cfg.Identity, err = loadIdentity(c.identityFile)
	default:
		cfg.Identity, err = identity.Generate()
	}
	return cfg, err
}

// checkEnvironment lets the environment turn port mapping and the beacon off, also
// when the program has changed it: what Go knows is the environment that the process
// began with, which crust.New looks at.
func checkEnvironment(cfg *crust.Config) error {
	off, err := variableOff("CRUST_PORTMAP")
	if off {
		cfg.PortMap = crust.PortMapOff
	}
	if err != nil {
		return err
	}
	if off, err = variableOff("CRUST_BEACON"); off {
		cfg.Beacon = crust.BeaconOff
	}
	return err
}

// variableOff reports whether an environment variable is "off".
func variableOff(name string) (bool, error) {
	text := C.CString(name)
	defer C.free(unsafe.Pointer(text))
	value := C.crust__variable(text)
	if value == nil {
		return false, nil
	}
	switch word := C.GoString(value); word {
	case "":
		return false, nil
	case "off":
		return true, nil
	default:
		return false, failure("crust_service_new", crust.CodeInvalid, "the environment variable %s is %q, want \"off\" or nothing", name, word)
	}
}

// loadIdentity reads or makes an identity file with the errors of "identity_file"
// in a JSON configuration.
func loadIdentity(path string) (*identity.Key, error) {
	text, err := json.Marshal(map[string]string{"identity_file": path})
	if err != nil {
		return nil, err
	}
	cfg, err := crust.ParseConfigJSON(text)
	return cfg.Identity, err
}

//export goCrustIdentityGenerate
func goCrustIdentityGenerate(seed *C.uint8_t, id *C.crust_peer_id, why *C.char) (rc C.int32_t) {
	defer guard(0, why, &rc)
	key, err := identity.Generate()
	if err != nil {
		return result(why, failure("crust_identity_generate", crust.CodeInternal, "%w", err))
	}
	defer key.Zero()
	secret := key.Seed()
	defer clear(secret)
	copy(unsafe.Slice((*byte)(seed), identity.SeedSize), secret)
	if id != nil {
		*peerID(id) = key.ID()
	}
	return C.CRUST_OK
}

//export goCrustConfigNew
func goCrustConfigNew(out *C.uintptr_t, why *C.char) (rc C.int32_t) {
	defer guard(0, why, &rc)
	handle, err := configs.add(new(config))
	if err == nil {
		*out = C.uintptr_t(handle)
	}
	return result(why, err)
}

//export goCrustConfigFree
func goCrustConfigFree(p C.uintptr_t) {
	var room [C.CRUST__ERROR_SIZE]C.char
	var rc C.int32_t
	defer guard(0, &room[0], &rc)
	c, err := configAt("crust_config_free", p)
	if err != nil || !configs.removePointer(uintptr(p)) {
		return
	}
	c.mu.Lock()
	clear(c.seed)
	g := c.gate
	c.gate = nil
	c.mu.Unlock()
	g.drop()
}

//export goCrustConfigSetU64
func goCrustConfigSetU64(p C.uintptr_t, option C.int32_t, value C.uint64_t, why *C.char) (rc C.int32_t) {
	defer guard(0, why, &rc)
	return result(why, edit("crust_config_set_u64", p, func(c *config) error { return c.setUint(int32(option), uint64(value)) }))
}

//export goCrustConfigSetStr
func goCrustConfigSetStr(p C.uintptr_t, option C.int32_t, value *C.char, why *C.char) (rc C.int32_t) {
	defer guard(0, why, &rc)
	return result(why, edit("crust_config_set_str", p, func(c *config) error { return c.setString(int32(option), C.GoString(value)) }))
}

//export goCrustConfigSetBytes
func goCrustConfigSetBytes(p C.uintptr_t, option C.int32_t, value unsafe.Pointer, n C.size_t, why *C.char) (rc C.int32_t) {
	defer guard(0, why, &rc)
	return result(why, edit("crust_config_set_bytes", p, func(c *config) error { return c.setBytes(int32(option), borrow(value, n)) }))
}

//export goCrustConfigAddListener
func goCrustConfigAddListener(p C.uintptr_t, text *C.char, why *C.char) (rc C.int32_t) {
	defer guard(0, why, &rc)
	return result(why, edit("crust_config_add_listener", p, func(c *config) error {
		ep, err := crust.ParseEndpoint(C.GoString(text))
		if err == nil {
			c.cfg.Listen = append(c.cfg.Listen, ep)
		}
		return err
	}))
}

//export goCrustConfigAddContact
func goCrustConfigAddContact(p C.uintptr_t, text *C.char, why *C.char) (rc C.int32_t) {
	defer guard(0, why, &rc)
	return result(why, edit("crust_config_add_contact", p, func(c *config) error {
		contact, err := crust.ParseContact(C.GoString(text))
		if err == nil {
			c.cfg.Contacts = append(c.cfg.Contacts, contact)
		}
		return err
	}))
}

//export goCrustConfigAddSTUN
func goCrustConfigAddSTUN(p C.uintptr_t, text *C.char, why *C.char) (rc C.int32_t) {
	defer guard(0, why, &rc)
	return result(why, edit("crust_config_add_stun", p, func(c *config) error {
		server, err := crust.ParseSTUNServer(C.GoString(text))
		switch {
		case err != nil:
			return err
		case len(c.cfg.STUN) >= crust.MaxSTUN:
			return fmt.Errorf("there are %d STUN servers already, and no more are allowed", crust.MaxSTUN)
		}
		c.cfg.STUN = append(c.cfg.STUN, server)
		return nil
	}))
}

//export goCrustConfigLoadJSON
func goCrustConfigLoadJSON(p C.uintptr_t, text *C.char, n C.size_t, why *C.char) (rc C.int32_t) {
	defer guard(0, why, &rc)
	return result(why, edit("crust_config_load_json", p, func(c *config) error {
		return c.loadJSON(own(unsafe.Pointer(text), n))
	}))
}
