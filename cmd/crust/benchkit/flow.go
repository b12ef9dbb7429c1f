package benchkit

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
)

// ChunkSize is the size in bytes of a chunk of a flow.
const ChunkSize = 16 << 10

// FlowReport is what the ends of a flow print, a JSON object a line: where the
// receiving end listens, and what arrived there within a time from the first byte
// on, all of it right.
type FlowReport struct {
	Address string  `json:"address,omitempty"`
	Bytes   int64   `json:"bytes,omitempty"`
	Seconds float64 `json:"seconds,omitempty"`
}

// noise is what chunks are cut from.
var noise = sync.OnceValue(func() []byte {
	b := make([]byte, 4*ChunkSize)
	_, _ = rand.NewChaCha8([32]byte{'f', 'l', 'o', 'w'}).Read(b) // never fails
	return b
})

// FillChunk makes b, of ChunkSize bytes, the n-th chunk of a flow. No two are alike.
func FillChunk(b []byte, n uint64) {
	at := int(n * 7919 % (3 * ChunkSize)) //nolint:gosec // small
	copy(b[:ChunkSize], noise()[at:])
	binary.BigEndian.PutUint64(b, n)
}

// FlowChecker checks the bytes of a flow as they come, in pieces of any size.
type FlowChecker struct {
	want [ChunkSize]byte
	n    uint64 // of the chunk
	at   int    // in it
}

// Check returns an error when b does not follow what was checked before.
func (c *FlowChecker) Check(b []byte) error {
	for len(b) > 0 {
		if c.at == 0 {
			FillChunk(c.want[:], c.n)
		}
		k := min(len(b), ChunkSize-c.at)
		if !bytes.Equal(b[:k], c.want[c.at:c.at+k]) {
			return fmt.Errorf("other bytes arrived than were sent, after %d", c.n*ChunkSize+uint64(c.at)) //nolint:gosec // not negative
		}
		b = b[k:]
		if c.at += k; c.at == ChunkSize {
			c.at = 0
			c.n++
		}
	}
	return nil
}
