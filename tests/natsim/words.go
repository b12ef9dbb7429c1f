package natsim

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// kinds are the names of usual NATs, in other words.
var kinds = map[string]string{
	"full-cone":  "mapping=independent filter=independent",
	"cone":       "mapping=independent filter=address-port",
	"home":       "mapping=independent filter=address-port ports=preserve",
	"restricted": "mapping=independent filter=address ports=preserve",
	"symmetric":  "mapping=address-port filter=address-port ports=random",
	"sequential": "mapping=address-port filter=address-port ports=sequential",
	"block":      "mapping=address-port filter=address-port ports=random low=40000 high=40511",
	"firewall":   "firewall=on filter=address-port ipv6=firewall",
}

// names are the values that words take.
var names = struct {
	depends   map[string]Depends
	ports     map[string]Ports
	strangers map[string]Strangers
	ipv6      map[string]IPv6
	switches  map[string]bool
}{
	depends:   map[string]Depends{"independent": Independent, "address": OnAddress, "address-port": OnAddressPort},
	ports:     map[string]Ports{"random": Random, "preserve": Preserve, "sequential": Sequential},
	strangers: map[string]Strangers{"drop": Drop, "refuse": Refuse, "accept": Accept, "punish": Punish},
	ipv6:      map[string]IPv6{"firewall": IPv6Firewall, "open": IPv6Open, "off": IPv6Off},
	switches:  map[string]bool{"on": true, "off": false},
}

// Parse reads a configuration from words of the form key=value, in which later ones
// overrule earlier ones:
//
//	mapping, filter   independent, address or address-port
//	ports             random, preserve or sequential
//	step, low, high, addresses
//	                  numbers
//	tcp-mapping, tcp-filter, tcp-ports, tcp-step, tcp-low, tcp-high, tcp-parity
//	                  the same for TCP, where it differs
//	noise             mappings of others per second
//	timeout, tcp-timeout, tcp-opening, punishment
//	                  as "30s"
//	strangers         drop, refuse, accept or punish
//	ipv6              firewall, open or off
//	parity, refresh, hairpin, arbitrary, firewall, udp
//	                  on or off
//
// One word alone is a kind of NAT: full-cone, cone, home, restricted, symmetric,
// sequential, block or firewall; "home" is a cone that preserves ports.
func Parse(words ...string) (Config, error) {
	var c Config
	var tcp []string
	for _, word := range words {
		key, _, _ := strings.Cut(word, "=")
		switch rule, ok := strings.CutPrefix(key, "tcp-"); {
		case ok && rule != "timeout" && rule != "opening":
			tcp = append(tcp, strings.TrimPrefix(word, "tcp-"))
		default:
			if err := c.words(word); err != nil {
				return Config{}, err
			}
		}
	}
	if len(tcp) > 0 {
		other := c
		for _, word := range tcp {
			if err := other.words(word); err != nil {
				return Config{}, fmt.Errorf("of TCP: %w", err)
			}
		}
		c.TCP = &other
	}
	return c, c.Check()
}

// MustParse is Parse of words in one string, with commas or blanks between. It
// panics when they are wrong: the test is.
func MustParse(text string) Config {
	c, err := Parse(strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' })...)
	if err != nil {
		panic("natsim: " + err.Error())
	}
	return c
}

// words sets what one word says.
func (c *Config) words(word string) error {
	if kind, ok := kinds[word]; ok {
		for _, w := range strings.Fields(kind) {
			if err := c.words(w); err != nil {
				return err
			}
		}
		return nil
	}
	key, value, _ := strings.Cut(word, "=")
	if err := c.set(key, value); err != nil {
		return fmt.Errorf("%q: %w", word, err)
	}
	return nil
}

func (c *Config) set(key, value string) (err error) {
	switch key {
	case "mapping":
		return choose(&c.Mapping, names.depends, value)
	case "filter":
		return choose(&c.Filter, names.depends, value)
	case "ports":
		return choose(&c.Ports, names.ports, value)
	case "strangers":
		return choose(&c.Strangers, names.strangers, value)
	case "ipv6":
		return choose(&c.IPv6, names.ipv6, value)
	case "step":
		c.Step, err = strconv.Atoi(value)
	case "addresses":
		c.Addresses, err = strconv.Atoi(value)
	case "low":
		err = port(&c.Low, value)
	case "high":
		err = port(&c.High, value)
	case "noise":
		c.Noise, err = strconv.ParseFloat(value, 64)
	case "timeout":
		c.UDPTimeout, err = time.ParseDuration(value)
	case "tcp-timeout":
		c.TCPTimeout, err = time.ParseDuration(value)
	case "tcp-opening":
		c.TCPOpening, err = time.ParseDuration(value)
	case "punishment":
		c.Punishment, err = time.ParseDuration(value)
	case "parity":
		return choose(&c.Parity, names.switches, value)
	case "refresh":
		return choose(&c.InboundRefresh, names.switches, value)
	case "hairpin":
		return choose(&c.Hairpin, names.switches, value)
	case "arbitrary":
		return choose(&c.Arbitrary, names.switches, value)
	case "firewall":
		return choose(&c.Firewall, names.switches, value)
	case "udp":
		err = choose(&c.NoUDP, names.switches, value)
		c.NoUDP = !c.NoUDP
	default:
		return errors.New("a NAT knows full-cone, cone, home, restricted, symmetric, sequential, block, mapping, filter, ports, step, low, high, " +
			"addresses, parity, noise, timeout, tcp-timeout, tcp-opening, punishment, strangers, refresh, hairpin, arbitrary, firewall, ipv6, udp, and " +
			"mapping to parity with tcp- in front")
	}
	return err
}

func port(at *uint16, text string) error {
	v, err := strconv.ParseUint(text, 10, 16)
	*at = uint16(v)
	return err
}

// choose sets what a name stands for.
func choose[T any](at *T, of map[string]T, name string) error {
	v, ok := of[name]
	if !ok {
		return errors.New("it has no such value")
	}
	*at = v
	return nil
}
