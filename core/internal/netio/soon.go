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
