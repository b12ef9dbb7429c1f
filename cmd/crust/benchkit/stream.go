package benchkit

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

// streamBuffer is the buffer of a program that batches small messages itself.
const streamBuffer = 64 << 10

// lengthSize is how many bytes the length before a message takes.
const lengthSize = 4

// NewStreamConn makes a Conn of a byte stream, used the way a program would:
// large messages and single ones are written as they are; small ones sent in
// series go, each behind its length, through a buffer of 64 KiB.
//
// Close calls closeStream, which must end a Receive that waits.
func NewStreamConn(stream io.ReadWriter, closeStream func() error) Conn {
	return &streamConn{stream: stream, closeStream: sync.OnceValue(closeStream)}
}

type streamConn struct {
	stream      io.ReadWriter
	closeStream func() error
	// The buffers are made when first needed: an idle connection has none.
	reader *bufio.Reader
	writer *bufio.Writer
}

// framed tells which messages go through a buffer.
func framed(size int) bool { return lengthSize+size <= streamBuffer }

func (c *streamConn) SendAll(count, size int) error {
	message := make([]byte, size)
	if !framed(size) {
		for range count {
			if _, err := c.stream.Write(message); err != nil {
				return err
			}
		}
		return nil
	}
	if c.writer == nil {
		c.writer = bufio.NewWriterSize(c.stream, streamBuffer)
	}
	var length [lengthSize]byte
	binary.BigEndian.PutUint32(length[:], uint32(size))
	for range count {
		if _, err := c.writer.Write(length[:]); err != nil {
			return err
		}
		if _, err := c.writer.Write(message); err != nil {
			return err
		}
	}
	return c.writer.Flush()
}

func (c *streamConn) ReceiveAll(count, size int) error {
	if !framed(size) {
		return c.receiveBytes(int64(count) * int64(size))
	}
	if c.reader == nil {
		c.reader = bufio.NewReaderSize(c.stream, streamBuffer)
	}
	for range count {
		length, err := c.reader.Peek(lengthSize)
		if err != nil {
			return unexpected(err)
		}
		if got := int(binary.BigEndian.Uint32(length)); got != size {
			return fmt.Errorf("a message of %d bytes arrived, not of %d", got, size)
		}
		if _, err := c.reader.Peek(lengthSize + size); err != nil {
			return unexpected(err)
		}
		if _, err := c.reader.Discard(lengthSize + size); err != nil {
			return unexpected(err)
		}
	}
	return nil
}

func (c *streamConn) receiveBytes(total int64) error {
	buffer := make([]byte, BulkSize)
	for total > 0 {
		n, err := c.source().Read(buffer[:min(total, BulkSize)])
		total -= int64(n)
		if err != nil && total > 0 {
			return unexpected(err)
		}
	}
	return nil
}

// source is where bytes come from: the buffer once there is one.
func (c *streamConn) source() io.Reader {
	if c.reader != nil {
		return c.reader
	}
	return c.stream
}

func (c *streamConn) Send(message []byte) error {
	_, err := c.stream.Write(message)
	return err
}

func (c *streamConn) Receive(message []byte) error {
	_, err := io.ReadFull(c.source(), message)
	return err
}

func (c *streamConn) Close() error { return c.closeStream() }

// Idle waits for a message in a goroutine that ends with the connection.
func (c *streamConn) Idle() {
	go func() {
		// What ends the wait is the close of either end: nothing to report.
		_ = c.Receive(make([]byte, 1))
	}()
}

// unexpected turns the end of a stream in the middle of a test into an error.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
