package benchkit

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// DatagramSize is the size in bytes of the larger datagrams of the tests: what
// every path takes.
const DatagramSize = 1100

// Datagrammer is a Transport that may carry unreliable datagrams. Its Conns are
// then DatagramSenders where they are dialled and DatagramReceivers where they are
// accepted. Other transports are left out of the tests of datagrams.
type Datagrammer interface{ CarriesDatagrams() bool }

// DatagramSender is a Conn that sends datagrams.
type DatagramSender interface {
	// SendDatagrams sends datagrams of size bytes, as fast as the transport takes
	// them, for a time, and returns how many it sent.
	SendDatagrams(size int, d time.Duration) (sent int, err error)
}

// DatagramReceiver is a Conn that receives datagrams.
type DatagramReceiver interface {
	// ReceiveDatagrams returns how many datagrams of size bytes come within a time
	// from the first of them on.
	ReceiveDatagrams(size int, d time.Duration) (received int, err error)
}

func carriesDatagrams(t Transport) bool {
	d, ok := t.(Datagrammer)
	return ok && d.CarriesDatagrams()
}

var errNoDatagrams = errors.New("the connection carries no datagrams")

// measureDatagrams counts what arrives while the other end sends what it can.
func measureDatagrams(ctx context.Context, b *bench) (Outcome, error) {
	return b.withConn(ctx, func(conn Conn, server serverEnd) (Outcome, error) {
		sender, ok := conn.(DatagramSender)
		if !ok {
			return Outcome{}, errNoDatagrams
		}
		if _, _, err := b.datagrams(conn, sender, b.volume.Duration/5); err != nil {
			return Outcome{}, err
		}
		received, sent, err := b.datagrams(conn, sender, b.volume.Duration)
		if err != nil {
			return Outcome{}, err
		}
		return Outcome{Value: received, Extra: map[string]float64{
			"sent": sent, "mb_s": received * float64(b.test.size) / 1e6,
		}}, nil
	})
}

// datagrams sends for a time and returns how many a second arrived and were sent.
func (b *bench) datagrams(conn Conn, sender DatagramSender, d time.Duration) (received, sent float64, err error) {
	if err := begin(conn, task{kind: taskDatagrams, size: b.test.size, count: int(d)}); err != nil {
		return 0, 0, fmt.Errorf("begin: %w", err)
	}
	start := time.Now()
	n, err := sender.SendDatagrams(b.test.size, d+d/4) // longer than the other end counts
	if err != nil {
		return 0, 0, fmt.Errorf("send: %w", err)
	}
	took := time.Since(start)
	message := make([]byte, MessageSize)
	if err := conn.Receive(message); err != nil {
		return 0, 0, fmt.Errorf("wait for the answer: %w", err)
	}
	return float64(binary.BigEndian.Uint64(message)) / d.Seconds(), float64(n) / took.Seconds(), nil
}

// serveDatagrams counts, and answers how many.
func serveDatagrams(conn Conn, t task, buffer []byte) error {
	receiver, ok := conn.(DatagramReceiver)
	if !ok {
		return errNoDatagrams
	}
	n, err := receiver.ReceiveDatagrams(t.size, time.Duration(t.count))
	if err != nil {
		return err
	}
	clear(buffer)
	binary.BigEndian.PutUint64(buffer, uint64(n)) //nolint:gosec // not negative
	return conn.Send(buffer)
}
