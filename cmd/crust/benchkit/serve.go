package benchkit

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A task is what the client asks of the server over a connection, in a message
// of MessageSize bytes. The server answers with a message of the same size when
// it is ready, and a receiving one answers once more when all has arrived.
type task struct {
	kind  taskKind
	size  int
	count int
}

type taskKind byte

const (
	taskReceive taskKind = 1 // count messages of size bytes
	taskEcho    taskKind = 2 // send back each of count messages of MessageSize bytes
	// taskDatagrams counts datagrams of size bytes for count nanoseconds from the
	// first on, and answers with their number in 8 bytes.
	taskDatagrams taskKind = 3
	taskSend      taskKind = 4 // count messages of size bytes the other way, and no more answer
	taskEchoSized taskKind = 5 // send back each of count messages of size bytes
)

func (t task) message() []byte {
	message := make([]byte, MessageSize)
	message[0] = byte(t.kind)
	binary.BigEndian.PutUint32(message[1:], uint32(t.size))
	binary.BigEndian.PutUint64(message[5:], uint64(t.count))
	return message
}

func parseTask(message []byte) (task, error) {
	t := task{
		kind:  taskKind(message[0]),
		size:  int(binary.BigEndian.Uint32(message[1:])),
		count: int(binary.BigEndian.Uint64(message[5:])),
	}
	if t.kind < taskReceive || t.kind > taskEchoSized {
		return t, fmt.Errorf("there is no task of kind %d", t.kind)
	}
	if t.size < 0 || t.size > MaxGridSize || t.count < 0 { // an int may have 32 bits
		return t, fmt.Errorf("a task of %d messages of %d bytes is out of bounds", t.count, t.size)
	}
	return t, nil
}

// Serve does what the other end of a connection asks for until that closes: the tasks of a
// Grid, for an end that strangers may dial.
func Serve(conn Conn) error { return serveTasks(noDatagrams{conn}) }

// noDatagrams is a Conn without what counting datagrams needs, which would keep all others
// from being served for as long as one asks.
type noDatagrams struct{ Conn }

// serveTasks does what the client asks for until it closes.
func serveTasks(conn Conn) error {
	message := make([]byte, MessageSize)
	for {
		if err := conn.Receive(message); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		t, err := parseTask(message)
		if err != nil {
			return err
		}
		if err := serveTask(conn, t, message); err != nil {
			return err
		}
	}
}

func serveTask(conn Conn, t task, buffer []byte) error {
	if err := conn.Send(buffer); err != nil {
		return err
	}
	switch t.kind {
	case taskDatagrams:
		return serveDatagrams(conn, t, buffer)
	case taskReceive:
		if err := conn.ReceiveAll(t.count, t.size); err != nil {
			return err
		}
		return conn.Send(buffer)
	case taskSend:
		return conn.SendAll(t.count, t.size)
	case taskEchoSized:
		buffer = make([]byte, t.size)
	}
	for range t.count {
		if err := conn.Receive(buffer); err != nil {
			return err
		}
		if err := conn.Send(buffer); err != nil {
			return err
		}
	}
	return nil
}

// begin asks for a task and waits until the server is ready.
func begin(conn Conn, t task) error {
	if err := conn.Send(t.message()); err != nil {
		return err
	}
	return conn.Receive(make([]byte, MessageSize))
}
