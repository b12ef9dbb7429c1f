package netio

// TTLWriter is a PacketConn that can send datagrams which do not travel far. A
// PacketConn of a Network may implement it.
type TTLWriter interface {
	// WriteTTL is WriteBatch for datagrams with a time to live (hop limit) of ttl,
	// from 1 to 255. Its error is also errors.ErrUnsupported, wrapped, where the
	// system has no such thing; then nothing has been sent.
	WriteTTL(ttl int, ps []Packets) error
}
