package benchkit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// bench is one run of one test over one transport.
type bench struct {
	transport Transport
	test      Test
	volume    Volume
	count     int  // messages of a run; zero means to be calibrated
	together  bool // both ends are in this process
	serve     func(ends int) (serverEnd, error)
}

// warmConnections are made before a memory run starts to count, so that what
// exists once per process is not counted.
const warmConnections = 20

// settleTime is what both ends get, after connecting, to finish what they do in
// the background, before memory or idle time is counted: 0.5 s by default.
func (b *bench) settleTime() time.Duration { return b.volume.Idle / 6 }

// withConns runs f over n connections, each of a client of its own, to one new server.
func (b *bench) withConns(ctx context.Context, n int, f func([]Conn, serverEnd) (Outcome, error)) (outcome Outcome, err error) {
	server, err := b.serve(1)
	if err != nil {
		return outcome, err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	conns := make([]Conn, n)
	for i := range conns {
		var client Client
		if client, err = b.transport.NewClient(); err != nil {
			return outcome, err
		}
		defer func() { err = errors.Join(err, client.Close()) }()
		if conns[i], err = client.Dial(ctx, server.Addresses()[0]); err != nil {
			return outcome, fmt.Errorf("dial the %d. connection: %w", i+1, err)
		}
		defer func() { err = errors.Join(err, conns[i].Close()) }()
	}
	return f(conns, server)
}

// withConn runs f over one connection to a new server.
func (b *bench) withConn(ctx context.Context, f func(Conn, serverEnd) (Outcome, error)) (Outcome, error) {
	return b.withConns(ctx, 1, func(conns []Conn, server serverEnd) (Outcome, error) { return f(conns[0], server) })
}

// stream sends count messages and returns the time from the first send to the
// answer that all have arrived.
func (b *bench) stream(conn Conn, count int) (time.Duration, error) {
	if err := begin(conn, task{kind: taskReceive, size: b.test.size, count: count}); err != nil {
		return 0, fmt.Errorf("begin: %w", err)
	}
	start := time.Now()
	if err := conn.SendAll(count, b.test.size); err != nil {
		return 0, fmt.Errorf("send: %w", err)
	}
	if err := conn.Receive(make([]byte, MessageSize)); err != nil {
		return 0, fmt.Errorf("wait for the answer: %w", err)
	}
	return time.Since(start), nil
}

// prepare warms both ends of some connections up. It finds how many messages over each make
// a run last as long as it should, where that is not known.
func (b *bench) prepare(conns ...Conn) error {
	if b.count > 0 {
		_, err := b.pass(conns, max(1, b.count/10))
		return err
	}
	enough := b.volume.Duration / 5
	for try := 4; b.count == 0; try *= 4 {
		took, err := b.pass(conns, try)
		if err != nil {
			return err
		}
		if took >= enough {
			b.count = max(1, int(float64(try)*float64(b.volume.Duration)/float64(took)))
		}
	}
	return nil
}

// pass lets count messages go over each of some connections, in the test's direction,
// and returns the time until all have arrived.
func (b *bench) pass(conns []Conn, count int) (time.Duration, error) {
	failed := make([]error, len(conns))
	var workers sync.WaitGroup
	start := time.Now()
	for i, conn := range conns {
		workers.Go(func() {
			if b.test.direction != In {
				_, failed[i] = b.stream(conn, count)
				return
			}
			if failed[i] = begin(conn, task{kind: taskSend, size: b.test.size, count: count}); failed[i] == nil {
				failed[i] = conn.ReceiveAll(count, b.test.size)
			}
		})
	}
	workers.Wait()
	return time.Since(start), errors.Join(failed...)
}

func measureStream(ctx context.Context, b *bench) (Outcome, error) {
	return b.withConn(ctx, func(conn Conn, server serverEnd) (Outcome, error) {
		if err := b.prepare(conn); err != nil {
			return Outcome{}, err
		}
		sender, receiver, err := b.bothUse(server, detailTime)
		if err != nil {
			return Outcome{}, err
		}
		took, err := b.stream(conn, b.count)
		if err != nil {
			return Outcome{}, err
		}
		senderAfter, receiverAfter, err := b.bothUse(server, detailTime)
		if err != nil {
			return Outcome{}, err
		}
		outcome := Outcome{Value: float64(b.count) / took.Seconds(), Count: b.count}
		if b.test.size == BulkSize {
			outcome.Value *= BulkSize / 1e6
		}
		if !b.together {
			outcome.Extra = perMessage(senderAfter.CPU-sender.CPU, receiverAfter.CPU-receiver.CPU, b.count)
		}
		return outcome, nil
	})
}

// measureStreams streams over several connections at once.
func measureStreams(ctx context.Context, b *bench) (Outcome, error) {
	return b.withConns(ctx, b.test.workers, func(conns []Conn, server serverEnd) (Outcome, error) {
		if err := b.prepare(conns...); err != nil {
			return Outcome{}, err
		}
		sender, receiver, err := b.bothUse(server, detailTime)
		if err != nil {
			return Outcome{}, err
		}
		took, err := b.pass(conns, b.count)
		if err != nil {
			return Outcome{}, err
		}
		senderAfter, receiverAfter, err := b.bothUse(server, detailTime)
		if err != nil {
			return Outcome{}, err
		}
		all := len(conns) * b.count
		outcome := Outcome{Value: float64(all) * float64(b.test.size) / 1e6 / took.Seconds(), Count: b.count}
		if !b.together {
			outcome.Extra = perMessage(senderAfter.CPU-sender.CPU, receiverAfter.CPU-receiver.CPU, all)
		}
		return outcome, nil
	})
}

// perMessage is the processor time of each end for a message, which tells about a
// transport also where the machine is busy with something else.
func perMessage(sender, receiver time.Duration, count int) map[string]float64 {
	return map[string]float64{"send_ns": float64(sender) / float64(count), "receive_ns": float64(receiver) / float64(count)}
}

func measurePing(ctx context.Context, b *bench) (Outcome, error) {
	outcome, err := b.pings(ctx, task{kind: taskEcho, size: MessageSize}, b.volume.Pings/10)
	delete(outcome.Extra, "p90") // is only in a grid
	return outcome, err
}

// pings times round trips of messages that the other end sends back as the task says, the
// first of them to warm up.
func (b *bench) pings(ctx context.Context, t task, warm int) (Outcome, error) {
	return b.withConn(ctx, func(conn Conn, _ serverEnd) (Outcome, error) {
		t.count = warm + b.volume.Pings
		if err := begin(conn, t); err != nil {
			return Outcome{}, err
		}
		message := make([]byte, t.size)
		times := make([]float64, 0, t.count)
		for range t.count {
			start := time.Now()
			if err := conn.Send(message); err != nil {
				return Outcome{}, err
			}
			if err := conn.Receive(message); err != nil {
				return Outcome{}, err
			}
			times = append(times, micros(start))
		}
		return spread(times[warm:]), nil
	})
}

// micros is the time since start in microseconds.
func micros(start time.Time) float64 { return float64(time.Since(start).Nanoseconds()) / 1e3 }

// spread makes an outcome of times in microseconds.
func spread(times []float64) Outcome {
	slices.Sort(times)
	return Outcome{Value: quantile(times, 0.5), Extra: map[string]float64{"p90": quantile(times, 0.9), "p99": quantile(times, 0.99)}}
}

// measureConnect counts new connections, handshakes and closes included.
func measureConnect(ctx context.Context, b *bench) (Outcome, error) {
	times, took, err := b.connects(ctx)
	if err != nil {
		return Outcome{}, err
	}
	return Outcome{Value: float64(len(times)) / took.Seconds()}, nil
}

// connects lets each of the test's workers, a client of its own, make and close connections
// one after another. It returns how long each took to make, in microseconds, and how long
// all of it took.
func (b *bench) connects(ctx context.Context) (all []float64, took time.Duration, err error) {
	server, err := b.serve(1)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	address := server.Addresses()[0]
	clients := make([]Client, b.test.workers)
	for i := range clients {
		if clients[i], err = b.transport.NewClient(); err != nil {
			return nil, 0, err
		}
		defer func() { err = errors.Join(err, clients[i].Close()) }()
		if _, err := connectOnce(ctx, clients[i], address); err != nil {
			return nil, 0, err
		}
	}
	times, failed := make([][]float64, len(clients)), make([]error, len(clients))
	start := time.Now()
	var workers sync.WaitGroup
	for i, client := range clients {
		workers.Go(func() {
			for failed[i] == nil && (time.Since(start) < b.volume.Duration || len(times[i]) == 0) {
				var one float64
				one, failed[i] = connectOnce(ctx, client, address)
				times[i] = append(times[i], one)
			}
		})
	}
	workers.Wait()
	return slices.Concat(times...), time.Since(start), errors.Join(failed...)
}

// connectOnce makes and closes a connection, and returns how long it took to make, in
// microseconds.
func connectOnce(ctx context.Context, client Client, address string) (float64, error) {
	start := time.Now()
	conn, err := client.Dial(ctx, address)
	if err != nil {
		return 0, fmt.Errorf("dial: %w", err)
	}
	took := micros(start)
	if err := conn.Close(); err != nil {
		return 0, fmt.Errorf("close: %w", err)
	}
	return took, nil
}

// measureMemory measures each end where it stands alone: many clients at one
// server for the accepting end, one client at many servers for the dialling end.
func measureMemory(ctx context.Context, b *bench) (Outcome, error) {
	accepting, acceptingRSS, err := b.memoryAccepting(ctx)
	if err != nil {
		return Outcome{}, fmt.Errorf("accepting end: %w", err)
	}
	dialling, diallingRSS, err := b.memoryDialling(ctx)
	if err != nil {
		return Outcome{}, fmt.Errorf("dialling end: %w", err)
	}
	return Outcome{Value: max(accepting, dialling), Extra: map[string]float64{
		"accepting": accepting, "dialling": dialling, "rss_accepting": acceptingRSS, "rss_dialling": diallingRSS,
	}}, nil
}

func (b *bench) memoryAccepting(ctx context.Context) (value, rss float64, err error) {
	server, err := b.serve(1)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	return b.growth(ctx, server.Usage, func(int) (Client, string, error) {
		client, err := b.transport.NewClient()
		return client, server.Addresses()[0], err
	})
}

func (b *bench) memoryDialling(ctx context.Context) (value, rss float64, err error) {
	server, err := b.serve(warmConnections + b.volume.Connections)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	client, err := b.transport.NewClient()
	if err != nil {
		return 0, 0, err
	}
	return b.growth(ctx, takeUsage, func(i int) (Client, string, error) {
		return client, server.Addresses()[i], nil
	})
}

// growth makes connections, the i-th by end(i), and returns by how many KiB the
// use grew for each.
func (b *bench) growth(
	ctx context.Context, use func(detail) (usage, error), end func(int) (Client, string, error),
) (value, rss float64, err error) {
	clients := map[Client]struct{}{}
	defer func() {
		for client := range clients {
			err = errors.Join(err, client.Close())
		}
	}()
	var before, after usage
	for i := range warmConnections + b.volume.Connections {
		if i == warmConnections {
			if before, err = b.settled(ctx, use); err != nil {
				return 0, 0, err
			}
		}
		client, address, err := end(i)
		if err != nil {
			return 0, 0, err
		}
		clients[client] = struct{}{}
		conn, err := client.Dial(ctx, address)
		if err != nil {
			return 0, 0, fmt.Errorf("dial the %d. connection: %w", i+1, err)
		}
		if conn, ok := conn.(idler); ok {
			conn.Idle()
		}
	}
	if after, err = b.settled(ctx, use); err != nil {
		return 0, 0, err
	}
	each := func(before, after uint64) float64 {
		return (float64(after) - float64(before)) / 1024 / float64(b.volume.Connections)
	}
	return each(before.Heap+before.Stack, after.Heap+after.Stack), each(before.RSS, after.RSS), nil
}

// settled reads the use after background work has had time to end.
func (b *bench) settled(ctx context.Context, use func(detail) (usage, error)) (usage, error) {
	if err := pause(ctx, b.settleTime()); err != nil {
		return usage{}, err
	}
	return use(detailLive)
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// measureAllocs counts heap allocations per message in both processes.
func measureAllocs(ctx context.Context, b *bench) (Outcome, error) {
	return b.withConn(ctx, func(conn Conn, server serverEnd) (Outcome, error) {
		if err := b.prepare(conn); err != nil {
			return Outcome{}, err
		}
		sender, receiver, err := b.bothUse(server, detailCounts)
		if err != nil {
			return Outcome{}, err
		}
		if _, err := b.stream(conn, b.count); err != nil {
			return Outcome{}, err
		}
		senderAfter, receiverAfter, err := b.bothUse(server, detailCounts)
		if err != nil {
			return Outcome{}, err
		}
		send := float64(senderAfter.Mallocs-sender.Mallocs) / float64(b.count)
		receive := float64(receiverAfter.Mallocs-receiver.Mallocs) / float64(b.count)
		return Outcome{
			Value: send + receive, Count: b.count,
			Extra: map[string]float64{"send": send, "receive": receive},
		}, nil
	})
}

// measureIdle counts the processor time of both processes while nothing is sent.
func measureIdle(ctx context.Context, b *bench) (Outcome, error) {
	return b.withConn(ctx, func(_ Conn, server serverEnd) (Outcome, error) {
		// Collect first, so that no collection falls into the time watched.
		if _, _, err := b.bothUse(server, detailLive); err != nil {
			return Outcome{}, err
		}
		if err := pause(ctx, b.settleTime()); err != nil {
			return Outcome{}, err
		}
		client, accepting, err := b.bothUse(server, detailTime)
		if err != nil {
			return Outcome{}, err
		}
		start := time.Now()
		if err := pause(ctx, b.volume.Idle); err != nil {
			return Outcome{}, err
		}
		clientAfter, acceptingAfter, err := b.bothUse(server, detailTime)
		if err != nil {
			return Outcome{}, err
		}
		used := clientAfter.CPU - client.CPU + acceptingAfter.CPU - accepting.CPU
		return Outcome{Value: 100 * used.Seconds() / time.Since(start).Seconds()}, nil
	})
}

// bothUse reads the use of the dialling and of the accepting process.
func (b *bench) bothUse(server serverEnd, how detail) (client, accepting usage, err error) {
	if accepting, err = server.Usage(how); err != nil {
		return client, accepting, err
	}
	client, err = takeUsage(how)
	return client, accepting, err
}
