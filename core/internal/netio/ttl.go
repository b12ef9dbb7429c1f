package netio

import "net/netip"

// TTLWriter is a PacketConn that can send datagrams which do not travel far. A
// PacketConn of a Network may implement it.
type TTLWriter interface {
	// WriteTTL is WriteBatch for datagrams with a time to live (hop limit) of ttl,
	// from 1 to 255. Its error is also errors.ErrUnsupported, wrapped, where the
	// system has no such thing; then nothing has been sent.
	WriteTTL(ttl int, ps []Packets) error
}

// Opener is a Network that can send the first packet of a TCP connection so that it
// does not travel far. A Network may implement it.
type Opener interface {
	// SendOpener sends the SYN of a connection from local to remote with a time to
	// live (hop limit) of ttl, from 1 to 255, and gives the connection up before it
	// returns, without a word to anybody: the NATs that the SYN has passed are left as
	// if it went on. local must name a port, which may be that of a listener of the
	// same Network; afterwards the same two ends can be dialled. Errors are those of
	// Dial, and errors.ErrUnsupported, wrapped, where the system has no such thing; then
	// nothing has been sent.
	SendOpener(local, remote netip.AddrPort, ttl int) error
}
