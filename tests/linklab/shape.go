// Package linklab is a link laboratory: hosts in network namespaces of their own,
// joined by one program that gives every direction of every link delay, jitter,
// loss, reordering, duplication, a rate and an MTU, and puts NATs between. Real
// kernels and real programs run at the ends. It needs neither netem nor any
// installed tool: only network namespaces and TUN devices.
//
// Everything belongs to the process: nothing is left behind when it ends, however
// it ends.
package linklab

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

// Shape is what one direction of a link does to packets. The zero value lets
// everything pass at once. Sizes are of whole IP packets.
//
// A packet meets, in this order: the cut, the MTU, the queue and the rate, loss,
// duplication, delay with jitter and reordering. So lost packets use the rate, as
// on a radio link, and do not arrive.
type Shape struct {
	// Delay is the time on the way, behind the rate. At least 0.
	Delay time.Duration
	// Jitter is added to Delay or taken off it, evenly distributed between -Jitter
	// and +Jitter. It never changes the order. At most Delay.
	Jitter time.Duration
	// Loss is the share of packets that are lost, 0 to 1.
	Loss float64
	// LossBurst is the mean length of a run of lost packets. Up to 1, and by
	// default, each packet is lost or not by itself. From there on, losses come in
	// runs of geometric length (Gilbert's model), at the same share.
	LossBurst float64
	// Reorder is the share of packets that ReorderBy holds back while others
	// overtake them, 0 to 1.
	Reorder float64
	// ReorderBy is how long they are held back. Zero means 5 ms.
	ReorderBy time.Duration
	// Duplicate is the share of packets that arrive twice, 0 to 1.
	Duplicate float64
	// Rate is in bits per second. Zero means no bound.
	Rate int64
	// Burst is the number of bytes that may pass at once after a pause. Zero means
	// that each packet takes its time, as on a wire.
	Burst int
	// Queue is the number of bytes that may wait for the rate; what comes then is
	// dropped. Zero means what the rate carries in 50 ms, at least 64 KiB.
	Queue int
	// MTU is the size in bytes of the largest packet that passes. Zero means the
	// laboratory's MTU. Packets are never fragmented on the way.
	MTU int
	// ICMP tells the sender of a packet that is too large what would fit. Without
	// it, the link is a black hole for such packets. Senders behind a NAT are told
	// about their own link only.
	ICMP bool
	// Cut drops everything.
	Cut bool
}

const (
	defaultReorderBy = 5 * time.Millisecond
	defaultQueueTime = 50 * time.Millisecond
	leastQueue       = 64 << 10
)

// queue returns the bound of the queue in bytes.
func (s *Shape) queue() int64 {
	if s.Queue > 0 {
		return int64(s.Queue)
	}
	return max(leastQueue, s.Rate/8*int64(defaultQueueTime)/int64(time.Second))
}

// check tells what is wrong with a shape.
func (s *Shape) check() error {
	for _, share := range []struct {
		name  string
		value float64
	}{{"loss", s.Loss}, {"reorder", s.Reorder}, {"duplicate", s.Duplicate}} {
		if !(share.value >= 0 && share.value <= 1) {
			return fmt.Errorf("%s is %v, which is no share between 0 and 100%%", share.name, share.value)
		}
	}
	switch {
	case s.Delay < 0 || s.Delay > time.Minute:
		return fmt.Errorf("delay is %v, which is not between 0 and 1m", s.Delay)
	case s.Jitter < 0 || s.Jitter > s.Delay:
		return fmt.Errorf("jitter is %v, which is not between 0 and the delay of %v", s.Jitter, s.Delay)
	case s.ReorderBy < 0 || s.ReorderBy > time.Minute:
		return fmt.Errorf("reorder-by is %v, which is not between 0 and 1m", s.ReorderBy)
	case s.Rate < 0 || s.Rate > 1e12:
		return fmt.Errorf("rate is %d bit/s, which is not between 0 and 1tbit", s.Rate)
	case s.Burst < 0 || s.Queue < 0 || s.Burst > 1<<30 || s.Queue > 1<<30:
		return errors.New("burst and queue are between 0 and 1gb")
	case s.MTU != 0 && (s.MTU < 68 || s.MTU > 65535):
		return fmt.Errorf("mtu is %d, which is not between 68 and 65535", s.MTU)
	case !(s.LossBurst >= 0 && s.LossBurst <= 1e6):
		return fmt.Errorf("loss-burst is %v, which is not between 0 and 1000000", s.LossBurst)
	case s.LossBurst > 1 && s.Loss > 0.9:
		return errors.New("loss in bursts is at most 90%")
	}
	return nil
}

// Set changes a shape by words of the form key=value, such as "delay=20ms",
// "loss=1%", "rate=200mbit", "queue=1mb", "icmp", "cut=off". Keys are the names of
// the fields in lower case with hyphens. Nothing is changed when a word is wrong.
func (s *Shape) Set(words ...string) error {
	next := *s
	for _, word := range words {
		key, value, given := strings.Cut(word, "=")
		if !given && (key == "icmp" || key == "cut") {
			value = "on"
		}
		if err := next.set(key, value); err != nil {
			return fmt.Errorf("%q: %w", word, err)
		}
	}
	if err := next.check(); err != nil {
		return err
	}
	*s = next
	return nil
}

func (s *Shape) set(key, value string) (err error) {
	switch key {
	case "delay":
		s.Delay, err = time.ParseDuration(value)
	case "jitter":
		s.Jitter, err = time.ParseDuration(value)
	case "loss":
		s.Loss, err = parseShare(value)
	case "loss-burst":
		s.LossBurst, err = strconv.ParseFloat(value, 64)
	case "reorder":
		s.Reorder, err = parseShare(value)
	case "reorder-by":
		s.ReorderBy, err = time.ParseDuration(value)
	case "duplicate":
		s.Duplicate, err = parseShare(value)
	case "rate":
		s.Rate, err = parseRate(value)
	case "burst":
		s.Burst, err = parseSize(value)
	case "queue":
		s.Queue, err = parseSize(value)
	case "mtu":
		s.MTU, err = strconv.Atoi(value)
	case "icmp":
		s.ICMP, err = parseSwitch(value)
	case "cut":
		s.Cut, err = parseSwitch(value)
	default:
		err = errors.New("there is no such setting; there are delay, jitter, loss, loss-burst, reorder, reorder-by, " +
			"duplicate, rate, burst, queue, mtu, icmp and cut")
	}
	return err
}

func parseSwitch(text string) (bool, error) {
	switch text {
	case "on":
		return true, nil
	case "off":
		return false, nil
	}
	return false, errors.New("it is on or off")
}

// parseShare reads "1%" or "0.01".
func parseShare(text string) (float64, error) {
	digits, percent := strings.CutSuffix(text, "%")
	share, err := strconv.ParseFloat(digits, 64)
	if percent {
		share /= 100
	}
	return share, err
}

// parseUnit reads a number behind which one of the units stands.
func parseUnit(text string, units []string, factors []float64) (float64, error) {
	text = strings.ToLower(text)
	factor := 1.0
	for i, unit := range units {
		if digits, ok := strings.CutSuffix(text, unit); ok {
			text, factor = digits, factors[i]
			break
		}
	}
	value, err := strconv.ParseFloat(text, 64)
	if err == nil && !(value*factor >= 0 && value*factor < 1e15) {
		err = errors.New("it is out of bounds")
	}
	return value * factor, err
}

// parseRate reads "200mbit", "1gbit", "64kbit" or bits per second.
func parseRate(text string) (int64, error) {
	rate, err := parseUnit(text, []string{"gbit", "mbit", "kbit", "bit"}, []float64{1e9, 1e6, 1e3, 1})
	return int64(rate), err
}

// parseSize reads "64kb", "1mb" (by 1,024) or bytes.
func parseSize(text string) (int, error) {
	size, err := parseUnit(text, []string{"gb", "mb", "kb", "b"}, []float64{1 << 30, 1 << 20, 1 << 10, 1})
	return int(size), err
}

// Counters are of one direction of a link, in packets since the beginning.
type Counters struct {
	Packets    uint64 `json:"packets"` // that came in
	Bytes      uint64 `json:"bytes"`   // that came in
	Lost       uint64 `json:"lost"`
	QueueDrops uint64 `json:"queue_drops"`
	TooLarge   uint64 `json:"too_large"`
	CutDrops   uint64 `json:"cut_drops"`
	NATDrops   uint64 `json:"nat_drops"` // that the NAT refused
	Duplicated uint64 `json:"duplicated"`
	Reordered  uint64 `json:"reordered"`
	// Delivered counts packets that came out, copies included.
	Delivered uint64 `json:"delivered"`
	// Refused counts packets that the receiving kernel did not take, or for which
	// the laboratory had no memory: more than a few mean that it is overloaded.
	Refused uint64 `json:"refused"`
}

// pipe is one direction of a link. Times are in nanoseconds since the
// laboratory's beginning.
type pipe struct {
	shape  Shape
	random *rand.Rand
	busy   int64 // when the wire will have sent all that was admitted
	last   int64 // when the last packet arrives that was not held back
	losing bool  // Gilbert's bad state
	count  Counters
}

func newPipe(shape Shape, seed, stream uint64) pipe {
	return pipe{shape: shape, random: rand.New(rand.NewPCG(seed, stream))}
}

// fits tells whether a packet may pass by the cut and the MTU.
func (p *pipe) fits(size int) bool {
	p.count.Packets++
	p.count.Bytes += uint64(size)
	switch {
	case p.shape.Cut:
		p.count.CutDrops++
	case p.shape.MTU > 0 && size > p.shape.MTU:
		p.count.TooLarge++
	default:
		return true
	}
	return false
}

// admit takes a packet that fits and returns how many copies of it arrive, and when.
func (p *pipe) admit(now int64, size int) (due [2]int64, copies int) {
	s := &p.shape
	leaves := now
	if s.Rate > 0 {
		begin := max(now, p.busy)
		burst := int64(s.Burst) * 8 * int64(time.Second) / s.Rate
		if waiting := float64(begin-burst-now) * float64(s.Rate) / 8e9; waiting > 0 && int64(waiting)+int64(size) > s.queue() {
			p.count.QueueDrops++
			return due, 0
		}
		p.busy = begin + int64(size)*8*int64(time.Second)/s.Rate
		leaves = max(now, p.busy-burst)
	}
	if p.lose() {
		p.count.Lost++
		return due, 0
	}
	copies = 1
	if s.Duplicate > 0 && p.random.Float64() < s.Duplicate {
		p.count.Duplicated++
		copies = 2
	}
	for i := range copies {
		due[i] = p.arrival(leaves)
	}
	return due, copies
}

// arrival returns when a packet arrives that leaves the wire's near end.
func (p *pipe) arrival(leaves int64) int64 {
	s := &p.shape
	at := leaves + int64(s.Delay)
	if s.Jitter > 0 {
		at += p.random.Int64N(2*int64(s.Jitter)+1) - int64(s.Jitter)
	}
	at = max(at, p.last)
	if s.Reorder > 0 && p.random.Float64() < s.Reorder {
		p.count.Reordered++
		by := s.ReorderBy
		if by == 0 {
			by = defaultReorderBy
		}
		return at + int64(by)
	}
	p.last = at
	return at
}

// lose decides on the loss of one packet.
func (p *pipe) lose() bool {
	loss := p.shape.Loss
	if loss <= 0 {
		return false
	}
	if p.shape.LossBurst <= 1 {
		return p.random.Float64() < loss
	}
	// The bad state is left with probability 1/burst, and entered with the one
	// that makes its share the loss.
	leave := 1 / p.shape.LossBurst
	if p.losing {
		p.losing = p.random.Float64() >= leave
	} else {
		p.losing = p.random.Float64() < leave*loss/(1-loss)
	}
	return p.losing
}

// reshape changes the shape. Packets on their way arrive as planned; those that
// wait for the old rate do too.
func (p *pipe) reshape(shape Shape) {
	p.shape = shape
	if shape.Rate == 0 {
		p.busy = 0
	}
}
