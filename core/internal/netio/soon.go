package netio

import "time"

// SoonReader is a PacketConn that can be read without sleeping. A PacketConn of a
// Network may implement it.
type SoonReader interface {
	// ReadSoon is ReadBatch, but tries for about patience and does not give up the
	// processor to the Go scheduler meanwhile: n is 0, with no error, when nothing
	// has come. Not beside ReadBatch.
	ReadSoon(ps []Packets, patience time.Duration) (n int, err error)
}

// SingleReader is a PacketConn that knows whether its system has calls for many datagrams
// at once. A PacketConn of a Network may implement it.
type SingleReader interface {
	// Single returns why each datagram takes a system call of its own, as with kernels
	// and sandboxes that lack the other calls: it costs speed. nil: nothing is missing.
	Single() error
}
