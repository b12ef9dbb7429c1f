//go:build !linux

package udp

// batch is empty: every datagram has a call of its own.
type batch struct{ c *Conn }

func (b *batch) init(c *Conn) error {
	b.c = c
	// A system may refuse large buffers, and then has small ones.
	_ = c.socket.SetReadBuffer(receiveBuffer)
	_ = c.socket.SetWriteBuffer(sendBuffer)
	dontFragment(c.raw)
	return nil
}

// Single returns nil: nothing is missing here that other systems of the kind have.
func (c *Conn) Single() error { return nil }

func (b *batch) read(ps []Packets) (int, error) { return b.c.readOne(ps) }

func (b *batch) write(ps []Packets) error { return b.c.writeEach(ps) }

func (b *batch) maxSegments() int { return 1 }

func (b *batch) stats(*Stats) {}
