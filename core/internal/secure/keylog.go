package secure

import (
	"encoding/hex"
	"fmt"

	"github.com/libcrust/libcrust/core/internal/wire"
)

// The lines of a key log, for who wants to read a capture of his own sessions, and for
// nobody else: whoever has one can read all of the session. docs/TRACER.md says what is in
// them. A line is written when a side has the keys; both sides write the same one.
const (
	keyLogStream   = "CRUST1_STREAM"
	keyLogDatagram = "CRUST1_DATAGRAM"
)

// keep remembers what a key log needs, when there is one.
func (h *handshake) keep(to *[]byte, what []byte) {
	if h.cfg.KeyLog != nil {
		*to = append([]byte(nil), what...)
	}
}

// directed returns ours and theirs in the order of initiator and responder.
func (h *handshake) directed(ours, theirs []byte) []any {
	if !h.initiator {
		ours, theirs = theirs, ours
	}
	return []any{hex.EncodeToString(ours), hex.EncodeToString(theirs)}
}

// logStream writes the line of a link: the nonce of its first flight, by which it is
// found, the key of the masks, the cipher, and of each side, the initiator's first, the
// key of Split and the hello.
func (h *handshake) logStream(c Cipher, send, receive [32]byte) {
	if h.cfg.KeyLog == nil {
		return
	}
	args := []any{keyLogStream, hex.EncodeToString(h.first), hex.EncodeToString(h.cfg.Network.mask[:]), uint8(c)}
	args = append(args, h.directed(send[:], receive[:])...)
	args = append(args, h.directed(h.mine, h.theirs)...)
	h.cfg.KeyLog(fmt.Appendf(nil, "%s %s %s %d %s %s %s %s\n", args...))
}

// logDatagram writes the line of an association: the id of its handshake, the key of the
// flights, the cipher, and of each side the key of Split and the hello, whose binding
// tells how datagrams to it are found.
func (h *handshake) logDatagram(id uint64, c Cipher, send, receive [32]byte) {
	if h.cfg.KeyLog == nil {
		return
	}
	args := []any{keyLogDatagram, id, hex.EncodeToString(h.cfg.Network.datagram[:]), uint8(c)}
	args = append(args, h.directed(send[:], receive[:])...)
	args = append(args, h.directed(h.mine, h.theirs)...)
	h.cfg.KeyLog(fmt.Appendf(nil, "%s %016x %s %d %s %s %s %s\n", args...))
}

// A nonce of a flight is what a stream is found by.
var _ = [1]struct{}{}[wire.FlightNonce-24]
