package observe

import (
	"cmp"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/libcrust/libcrust/core/internal/wire"
)

const (
	// maxStep is the greatest step of what counts as sequential.
	maxStep = 16
	// reach is how far the ports of two mappings of a sample made one right after
	// the other may be apart: a few steps, with others' mappings in between.
	reach = 2 * maxStep
	// maxBlock is the size of the largest block (RFC 7422 has 500 to 4,000 ports a
	// subscriber; a larger one is as good as random to those who have to guess).
	maxBlock = 2048
	// enoughRising ports in a row that only rise, within maxBlock, are sequential
	// however many of others' mappings are in between: chance does it 2 times in 7!.
	enoughRising = 7
	// enoughBlock ports within maxBlock are a block: chance does it about once in
	// ten thousand times.
	enoughBlock = 4
	// firstPort and portSpan are what NATs that count use (RFC 4787, section 4.2.2:
	// not the well-known ports for others); after the last port comes the first.
	firstPort = 1024
	portSpan  = 1<<16 - firstPort
	// maxPause is the longest time between two samples whose ports say how many
	// mappings others make, and maxRate the most that is believed, a second.
	maxPause = 30 * time.Second
	maxRate  = 1000
	// leastTime is the least that a rate is measured over.
	leastTime = 100 * time.Millisecond
	// MaxNext bounds the ports that Next returns for sequential allocation.
	MaxNext = 64
)

// allocation is how the NAT chooses ports.
type allocation struct {
	rule      wire.PortRule
	step      int
	rate      float64 // mappings of others a second
	low, high int
	last      record // the newest mapping, for sequential ones
	samples   int    // how many say so
}

// spare is how many of n that say the same may be liars: less than a third.
func spare(n int) int { return max(0, n-1) / 3 }

// allocation judges how ports are chosen. Only what was seen at an address that
// accept holds for counts.
func (v *view) allocation(mapping wire.Depends, accept func(netip.Addr) bool) allocation {
	ours := ballots(v.dialled, record.place, func(r record) bool { return accept(r.seen.Addr()) })
	kept := 0
	for _, r := range ours {
		if r.seen.Port() == r.local.Port() {
			kept++
		}
	}
	if kept*2 > len(ours) {
		return allocation{rule: wire.PortsPreserving}
	}
	var runs []sample
	for _, s := range v.samples {
		if p := points(s, accept); len(p) >= 3 {
			runs = append(runs, p)
		}
	}
	if a, ok := sequential(runs); ok {
		a.samples = len(runs)
		a.rate = v.rate(a, runs)
		return a
	}
	var ports []int
	for _, s := range runs {
		for _, r := range s {
			ports = append(ports, int(r.seen.Port()))
		}
	}
	if mapping >= wire.AddressDependent {
		for _, r := range ours {
			ports = append(ports, int(r.seen.Port()))
		}
	}
	slices.Sort(ports)
	ports = slices.Compact(ports)
	if low, high, ok := block(ports); ok {
		return allocation{rule: wire.PortsBlock, low: low, high: high, samples: len(runs)}
	}
	if len(runs) > 0 {
		return allocation{rule: wire.PortsRandom, samples: len(runs)}
	}
	return allocation{}
}

// points returns the mappings that a sample made, in order, without those that stood
// before and without ports that the NAT only kept.
func points(s sample, accept func(netip.Addr) bool) (out sample) {
	for _, r := range s {
		again := slices.ContainsFunc(out, func(o record) bool { return o.local == r.local && o.seen == r.seen })
		if r.made.Equal(r.at) && !again && accept(r.seen.Addr()) && r.seen.Port() != r.local.Port() {
			out = append(out, r)
		}
	}
	return out
}

// step returns how far it is from one mapping's port to another's in direction sign.
// From a high port to a low one it goes on at the first.
func step(a, b record, sign int) int {
	d := sign * (int(b.seen.Port()) - int(a.seen.Port()))
	if d < -portSpan/2 {
		d += portSpan
	}
	return d
}

// chain returns the longest part of a run whose ports go in direction sign in steps
// that one NAT, or others' mappings between, can have made; which of them are in it.
func chain(run sample, sign int) []int {
	length := make([]int, len(run))
	before := make([]int, len(run))
	end := 0
	for j := range run {
		length[j], before[j] = 1, -1
		for i := range j {
			if d := step(run[i], run[j], sign); d > 0 && d <= reach*(j-i) && length[i] >= length[j] {
				length[j], before[j] = length[i]+1, i
			}
		}
		if length[j] > length[end] {
			end = j
		}
	}
	var out []int
	for i := end; i >= 0; i = before[i] {
		out = append(out, i)
	}
	slices.Reverse(out)
	if n := len(run); len(out) < n && n >= enoughRising && rises(run, sign) {
		out = out[:0]
		for i := range run {
			out = append(out, i)
		}
	}
	return out
}

// rises reports whether the ports of a run only go in direction sign, not far.
func rises(run sample, sign int) bool {
	sum := 0
	for i := 1; i < len(run); i++ {
		d := step(run[i-1], run[i], sign)
		if d <= 0 {
			return false
		}
		sum += d
	}
	return sum < maxBlock
}

// sequential reports whether most runs are chains in one direction, and their step:
// what all distances within and between them are multiples of. A liar who knows
// where the others are can make it a divisor of the true one, so that twice as many
// ports have to be tried, not the wrong ones.
func sequential(runs []sample) (allocation, bool) {
	for _, sign := range []int{1, -1} {
		found, size := 0, 0
		var last record
		for _, run := range runs {
			c := chain(run, sign)
			if len(c) < len(run)-spare(len(run)) {
				continue
			}
			found++
			for _, i := range c {
				d := sign * (int(run[i].seen.Port()) - int(last.seen.Port()))
				if last.seen.IsValid() && d > 0 && run[i].at.Sub(last.at) <= maxPause {
					size = gcd(size, d)
				}
				last = run[i]
			}
		}
		if found*2 > len(runs) && size > 0 && size <= maxStep {
			return allocation{rule: wire.PortsSequential, step: sign * size, last: last}, true
		}
	}
	return allocation{}, false
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// rate returns how many mappings others make a second: the steps, within samples
// and from one to the next, that were not ours.
func (v *view) rate(a allocation, runs []sample) float64 {
	sign := cmp.Compare(a.step, 0)
	size := a.step * sign
	foreign, elapsed := 0, time.Duration(0)
	var last record
	for _, run := range runs {
		c := chain(run, sign)
		if len(c) < len(run)-spare(len(run)) {
			continue
		}
		from, to := run[c[0]], run[c[len(c)-1]]
		foreign += max(0, step(from, to, sign)/size-(c[len(c)-1]-c[0]))
		elapsed += to.at.Sub(from.at)
		pause := from.at.Sub(last.at)
		if d := step(last, from, sign); last.seen.IsValid() && pause > 0 && pause <= maxPause && d > 0 {
			if f := max(0, d/size-1-v.between(last.at, from.at)); float64(f) <= maxRate*pause.Seconds() {
				foreign += f
				elapsed += pause
			}
		}
		last = to
	}
	return min(float64(foreign)/max(elapsed, leastTime).Seconds(), maxRate)
}

// between returns how many mappings of our own are known to have been made between
// two moments, outside samples or in others.
func (v *view) between(from, to time.Time) (n int) {
	for _, r := range v.dialled {
		if r.at.After(from) && r.at.Before(to) {
			n++
		}
	}
	return n
}

// block returns the bounds of the block that sorted, distinct ports lie in, when all
// but those that liars may have told lie closely together.
func block(ports []int) (low, high int, ok bool) {
	drop := 0
	if len(ports) > enoughBlock {
		drop = spare(len(ports))
	}
	n := len(ports) - drop
	if n < enoughBlock {
		return 0, 0, false
	}
	width := maxBlock
	for i := 0; i+n <= len(ports); i++ {
		if w := ports[i+n-1] - ports[i]; w < width {
			low, high, width = ports[i], ports[i+n-1], w
		}
	}
	if width >= maxBlock {
		return 0, 0, false
	}
	low, high = widen(ports, low, high)
	width = high - low
	// Providers like blocks of a power of two that begin at a multiple of it.
	for size := 64; size <= maxBlock; size *= 2 {
		if start := low / size * size; high < start+size && width*2 >= size {
			return max(1, start), start + size - 1, true
		}
	}
	// Elsewhere the block goes on to both sides as far as ports are apart on average,
	// twice, so that only one end in seven lies outside.
	more := min(2*width/(n-1)+1, (maxBlock-width)/2)
	return max(1, low-more), min(1<<16-1, high+more), true
}

// widen takes those that were left out but are near to a block back into it: the
// nearest first, while it stays no wider than blocks are and eight times what it was: the
// densest part of a block is a small one.
func widen(ports []int, low, high int) (int, int) {
	limit := min(8*(high-low), maxBlock-1)
	for {
		below, _ := slices.BinarySearch(ports, low)
		above, _ := slices.BinarySearch(ports, high+1)
		down, up := math.MaxInt, math.MaxInt
		if below > 0 {
			down = low - ports[below-1]
		}
		if above < len(ports) {
			up = ports[above] - high
		}
		nearest := min(down, up)
		if nearest > limit || high-low+nearest > limit {
			return low, high
		}
		if down <= up {
			low -= down
		} else {
			high += up
		}
	}
}

// Next returns the external ports that the next mapping of a flow will likely
// have, the most likely first. With sequential allocation there are at most MaxNext,
// by what others' mappings since the last one make likely; with a block all of it but
// what is known to be in use, at most 2,048. Nothing else can be told: nil.
func (m *Machine) Next(f Flow, now time.Time) []uint16 {
	k, v := m.widest(f, now)
	if v == nil {
		return nil
	}
	d := m.judge(k, v, now)
	switch d.ports.rule {
	case wire.PortsSequential:
		return following(d.ports, now)
	case wire.PortsBlock:
		used := map[int]bool{}
		for _, r := range v.dialled {
			used[int(r.seen.Port())] = true
		}
		var out []uint16
		for p := d.ports.low; p <= d.ports.high && len(out) < maxBlock; p++ {
			if !used[p] {
				out = append(out, uint16(p))
			}
		}
		return out
	}
	return nil
}

// following returns the ports after the last one by how likely they are: how many
// mappings others have made since is a Poisson variable.
func following(a allocation, now time.Time) []uint16 {
	mean := max(a.rate*max(now.Sub(a.last.at), 0).Seconds(), 0.01)
	chance := func(k int) float64 { // its logarithm
		if k < 0 {
			return math.Inf(-1)
		}
		g, _ := math.Lgamma(float64(k) + 1)
		return float64(k)*math.Log(mean) - g
	}
	up := int(min(mean, portSpan))
	down := up - 1
	out := make([]uint16, 0, MaxNext)
	for len(out) < MaxNext {
		k := up
		if chance(down) > chance(up) {
			k = down
			down--
		} else {
			up++
		}
		offset := (int(a.last.seen.Port()) - firstPort + a.step*(k+1)) % portSpan
		if offset < 0 {
			offset += portSpan
		}
		out = append(out, uint16(firstPort+offset))
	}
	return out
}
