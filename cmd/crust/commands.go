package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	crust "github.com/libcrust/libcrust/core"
)

// infoWord is how connection info is written as one word.
var infoWord = base64.RawURLEncoding.Strict()

// defaultPriority is that of messages for which none is given: the least urgent
// of those that are never dropped, so that 0 can overtake.
const defaultPriority = crust.MustArrive

// maxBulkSize bounds the size of a bulk's messages. It is above the largest
// message, so that the answer of the service to too large ones can be seen.
const maxBulkSize = 4 * crust.MaxMessage

// usages are the commands of the contract in the order of the help.
var usages = []struct{ name, form, help string }{
	{"info", "info", "print the word that lets another peer connect to this one"},
	{"connect", "connect INFO | ENDPOINT[#PEER]", "connect to the peer that printed INFO, or to whoever is at ENDPOINT"},
	{"dial", "dial PEER [MESSAGES]", "connect to a peer of which only the id is known; [\"hello\"] goes with the call"},
	{"send", "send PEER TEXT", "send one message: the rest of the line"},
	{"receipt", "receipt PEER TEXT", "send one message and tell when it has arrived"},
	{"bulk", "bulk PEER COUNT SIZE [PRIORITY]", "send COUNT messages of SIZE bytes; priority 0 is the most urgent (default 1)"},
	{"datagram", "datagram PEER TEXT", "send one datagram, which may be lost: the rest of the line"},
	{"disconnect", "disconnect PEER", "end a session in order"},
	{"ban", "ban PEER|ADDRESS|PREFIX [SECONDS]", "blacklist a peer or addresses, for a time or until the end"},
	{"unban", "unban PEER|ADDRESS|PREFIX", "lift a ban"},
	{"bans", "bans", "list who is banned"},
	{"netchange", "netchange", "say that this machine's network has changed"},
	{"nat", "nat", "print what is known of the NATs in front of this machine"},
	{"peers", "peers", "list the connected peers"},
	{"known", "known", "list the peers of which gossip has told"},
	{"stats", "stats", "print the counters"},
	{"quit", "quit", "close in order, as the end of the input does"},
}

// command returns what runs a command, nil when there is none of this name.
func (p *peer) command(name string) func(ctx context.Context, arguments string) error {
	switch name {
	case "info":
		return p.commandInfo
	case "connect":
		return p.commandConnect
	case "dial":
		return p.commandDial
	case "send":
		return p.commandSend
	case "receipt":
		return p.commandReceipt
	case "bulk":
		return p.commandBulk
	case "datagram":
		return p.commandDatagram
	case "disconnect":
		return p.commandDisconnect
	case "ban":
		return p.commandBan
	case "unban":
		return p.commandUnban
	case "bans":
		return p.commandBans
	case "netchange":
		return p.commandNetchange
	case "nat":
		return p.commandNAT
	case "peers":
		return p.commandPeers
	case "known":
		return p.commandKnown
	case "stats":
		return p.commandStats
	}
	return nil
}

// misused is the error of a command with the wrong arguments.
func misused(name string) error {
	for _, u := range usages {
		if u.name == name {
			return invalid("wrong arguments; usage: %s", u.form)
		}
	}
	return invalid("%s cannot be used like that", name)
}

// helpText is what people are told about the commands.
func helpText() string {
	var b strings.Builder
	for _, u := range usages {
		fmt.Fprintf(&b, "  %-32s %s\n", u.form, u.help)
	}
	b.WriteString("PEER is a peer id or its first digits, as long as they fit one connected peer only; for dial, one that this peer has met.")
	return b.String()
}

// invalid is the error of a command that cannot be understood.
func invalid(format string, args ...any) error {
	return &commandError{crust.CodeInvalid, fmt.Sprintf(format, args...)}
}

// commandError is an error that is told as it stands.
type commandError struct {
	code crust.Code
	text string
}

func (e *commandError) Error() string { return e.text }
func (e *commandError) Unwrap() error { return e.code }

// execute runs one line. It reports whether the line asked for the end.
func (p *peer) execute(ctx context.Context, line string) (quit bool) {
	word, arguments, _ := strings.Cut(strings.TrimLeft(line, " \t"), " ")
	word = strings.TrimSpace(word)
	if word == "" {
		return false
	}
	if word == "quit" {
		if strings.TrimSpace(arguments) == "" {
			return true
		}
		p.out.tell(errorOf(misused("quit")))
		return false
	}
	if word == "help" && !p.out.asJSON {
		p.out.tell(&helpLines{})
		return false
	}
	run := p.command(word)
	if run == nil {
		p.out.tell(errorOf(invalid("unknown command %.40q", word)))
		return false
	}
	if err := run(ctx, arguments); err != nil {
		p.out.tell(errorOf(err))
	}
	return false
}

// helpLines is the answer to help, which is for people only.
type helpLines struct{ header }

func (*helpLines) name() string { return "help" }
func (*helpLines) text() string { return helpText() }

// words splits the arguments of a command and checks their number.
func words(name, arguments string, least, most int) ([]string, error) {
	w := strings.Fields(arguments)
	if len(w) < least || len(w) > most {
		return nil, misused(name)
	}
	return w, nil
}

func (p *peer) commandInfo(_ context.Context, arguments string) error {
	if _, err := words("info", arguments, 0, 0); err != nil {
		return err
	}
	return p.service.PrepareConnectionInfo(p.newToken())
}

func (p *peer) commandConnect(_ context.Context, arguments string) error {
	w, err := words("connect", arguments, 1, 1)
	if err != nil {
		return err
	}
	if strings.Contains(w[0], ":") {
		contact, err := crust.ParseContact(w[0])
		if err != nil {
			return &crust.Error{Op: "connect", Code: crust.CodeInvalid, Err: cause(err)}
		}
		return p.connect(func(token uint64) error { return p.service.ConnectEndpoint(contact, token) })
	}
	info, err := infoWord.DecodeString(strings.TrimRight(w[0], "="))
	if err != nil {
		return &crust.Error{Op: "connect", Code: crust.CodeBadInfo, Err: fmt.Errorf("%.40q is neither an endpoint such as tcp://203.0.113.5:5483 nor a word that info printed", w[0])}
	}
	return p.connect(func(token uint64) error { return p.service.Connect(info, token) })
}

func (p *peer) commandDial(_ context.Context, arguments string) error {
	word, rest, _ := strings.Cut(strings.TrimSpace(arguments), " ")
	if word == "" {
		return misused("dial")
	}
	first, err := parseFirst(rest)
	if err != nil {
		return err
	}
	who, err := p.resolveMet(word)
	if err != nil {
		return err
	}
	return p.connect(func(token uint64) error { return p.service.ConnectPeer(who, token, first...) })
}

// parseFirst reads the messages that go with a call: a JSON array of strings, or nothing.
// How many and how large they may be is the service's to say.
func parseFirst(text string) (first [][]byte, err error) {
	if text = strings.TrimSpace(text); text == "" {
		return nil, nil
	}
	var list []*string
	if !utf8.ValidString(text) || json.Unmarshal([]byte(text), &list) != nil || list == nil || slices.Contains(list, nil) {
		return nil, invalid("dial: MESSAGES is a JSON array of strings, such as [\"hello\"], not %.40q", text)
	}
	for _, m := range list {
		first = append(first, []byte(*m))
	}
	return first, nil
}

// connect begins a connect and notes when it was asked for, see
// answerAlreadyConnected.
func (p *peer) connect(begin func(token uint64) error) error {
	token := p.newToken()
	p.mu.Lock()
	p.connects[token] = p.sessions
	p.mu.Unlock()
	err := begin(token)
	if err != nil {
		p.mu.Lock()
		delete(p.connects, token)
		p.mu.Unlock()
	}
	return err
}

// peerAndText reads "PEER TEXT", where TEXT is the rest of the line.
func (p *peer) peerAndText(name, arguments string) (to crust.PeerID, text []byte, err error) {
	who, rest, found := strings.Cut(strings.TrimLeft(arguments, " \t"), " ")
	if !found || who == "" {
		return to, nil, misused(name)
	}
	to, err = p.resolve(name, who)
	return to, []byte(rest), err
}

func (p *peer) commandSend(ctx context.Context, arguments string) error {
	began := time.Now()
	to, text, err := p.peerAndText("send", arguments)
	if err != nil {
		return err
	}
	return p.senders.add(ctx, job{op: "send", peer: to, data: text, count: 1, priority: defaultPriority, began: began})
}

func (p *peer) commandReceipt(ctx context.Context, arguments string) error {
	began := time.Now()
	to, text, err := p.peerAndText("receipt", arguments)
	if err != nil {
		return err
	}
	return p.senders.add(ctx, job{op: "receipt", peer: to, data: text, count: 1, priority: defaultPriority, began: began, token: p.newToken()})
}

func (p *peer) commandBulk(ctx context.Context, arguments string) error {
	began := time.Now()
	w, err := words("bulk", arguments, 3, 4)
	if err != nil {
		return err
	}
	count, err := strconv.ParseUint(w[1], 10, 40)
	if err != nil || count == 0 {
		return invalid("bulk: COUNT is a whole number of at least 1 and below %d, not %.40q", uint64(1)<<40, w[1])
	}
	size, err := strconv.ParseUint(w[2], 10, 32)
	if err != nil || size > maxBulkSize {
		return invalid("bulk: SIZE is a number of bytes up to %d, not %.40q", maxBulkSize, w[2])
	}
	priority := uint64(defaultPriority)
	if len(w) == 4 {
		if priority, err = strconv.ParseUint(w[3], 10, 8); err != nil {
			return invalid("bulk: PRIORITY is a number from 0 to 255, not %.40q", w[3])
		}
	}
	to, err := p.resolve("bulk", w[0])
	if err != nil {
		return err
	}
	return p.senders.add(ctx, job{op: "bulk", peer: to, data: bulkData(int(size)), count: count, priority: uint8(priority), began: began})
}

// bulkData returns what bulk sends: bytes that are no UTF-8, so that nobody
// takes them for text.
func bulkData(size int) []byte {
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(0xff - i%64)
	}
	return data
}

// commandDatagram is answered at once, because a datagram does not wait.
func (p *peer) commandDatagram(_ context.Context, arguments string) error {
	began := time.Now()
	to, text, err := p.peerAndText("datagram", arguments)
	if err != nil {
		return err
	}
	if err := p.service.SendDatagram(to, text); err != nil {
		return err
	}
	p.out.tell(&sentReport{Peer: to, Count: 1, Bytes: uint64(len(text)), Took: milliseconds(time.Since(began))})
	return nil
}

func (p *peer) commandDisconnect(_ context.Context, arguments string) error {
	w, err := words("disconnect", arguments, 1, 1)
	if err != nil {
		return err
	}
	who, err := p.resolve("disconnect", w[0])
	if err != nil {
		return err
	}
	return p.service.Disconnect(who)
}

func (p *peer) commandNetchange(_ context.Context, arguments string) error {
	if _, err := words("netchange", arguments, 0, 0); err != nil {
		return err
	}
	p.service.NetworkChanged()
	return nil
}

func (p *peer) commandNAT(_ context.Context, arguments string) error {
	if _, err := words("nat", arguments, 0, 0); err != nil {
		return err
	}
	p.out.tell(natOf(p.service.NAT()))
	return nil
}

func (p *peer) commandPeers(_ context.Context, arguments string) error {
	if _, err := words("peers", arguments, 0, 0); err != nil {
		return err
	}
	p.out.tell(peersOf(p.service.Peers()))
	return nil
}

func (p *peer) commandKnown(_ context.Context, arguments string) error {
	if _, err := words("known", arguments, 0, 0); err != nil {
		return err
	}
	p.out.tell(knownOf(p.service.Known()))
	return nil
}

func (p *peer) commandStats(_ context.Context, arguments string) error {
	if _, err := words("stats", arguments, 0, 0); err != nil {
		return err
	}
	p.out.tell(statsOf(p.service.Stats()))
	return nil
}

// resolve finds the peer that PEER means: an id, or a prefix that fits one
// connected peer only.
func (p *peer) resolve(op, text string) (crust.PeerID, error) {
	return resolveAmong(op, text, "connected", p.connected)
}

// connected returns the connected peers.
func (p *peer) connected() (ids []crust.PeerID) {
	for _, info := range p.service.Peers() {
		ids = append(ids, info.Peer)
	}
	return ids
}

// resolveMet finds the peer that the PEER of dial means: an id, or a prefix that
// fits one only of the peers that this one has been connected to, the last maxMet.
func (p *peer) resolveMet(text string) (crust.PeerID, error) {
	return resolveAmong("dial", text, "known", func() []crust.PeerID {
		p.mu.Lock()
		defer p.mu.Unlock()
		return slices.Clone(p.met)
	})
}

// resolveAmong finds an id, or the only one of some peers, which what describes,
// whose id begins with text.
func resolveAmong(op, text, what string, among func() []crust.PeerID) (crust.PeerID, error) {
	prefix := strings.ToLower(text)
	if len(prefix) == 2*len(crust.PeerID{}) {
		id, err := crust.ParsePeerID(prefix)
		if err != nil {
			return id, &crust.Error{Op: op, Code: crust.CodeInvalid, Err: err}
		}
		return id, nil
	}
	if len(prefix) > 2*len(crust.PeerID{}) || strings.Trim(prefix, "0123456789abcdef") != "" {
		return crust.PeerID{}, invalid("%s: %.80q is no peer id and no beginning of one", op, text)
	}
	found := slices.DeleteFunc(among(), func(id crust.PeerID) bool { return !strings.HasPrefix(id.String(), prefix) })
	switch len(found) {
	case 0:
		return crust.PeerID{}, &crust.Error{Op: op, Code: crust.CodeUnknownPeer, Err: fmt.Errorf("no %s peer's id begins with %q", what, text)}
	case 1:
		return found[0], nil
	}
	return crust.PeerID{}, invalid("%s: the ids of %d %s peers begin with %q", op, len(found), what, text)
}

// cause takes the operation's name off an error that gets another one.
func cause(err error) error {
	var e *crust.Error
	if errors.As(err, &e) && e.Err != nil {
		return e.Err
	}
	return err
}
