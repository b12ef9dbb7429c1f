package linklab

// packet is one that waits until it is due.
type packet struct {
	due    int64
	number uint64 // keeps the order of packets that are due together
	data   []byte
	up     bool // it leaves the node, and does not come to it
	node   *node
}

func (p *packet) before(q *packet) bool {
	return p.due < q.due || (p.due == q.due && p.number < q.number)
}

// timeline holds packets by the time at which they are due: a binary heap.
type timeline struct {
	packets []packet
	next    uint64
}

func (t *timeline) len() int { return len(t.packets) }

// first returns when the first packet is due; there must be one.
func (t *timeline) first() int64 { return t.packets[0].due }

func (t *timeline) push(p packet) {
	p.number = t.next
	t.next++
	t.packets = append(t.packets, p)
	h := t.packets
	i := len(h) - 1
	for i > 0 {
		parent := (i - 1) / 2
		if !p.before(&h[parent]) {
			break
		}
		h[i] = h[parent]
		i = parent
	}
	h[i] = p
}

// pop takes the first packet; there must be one.
func (t *timeline) pop() packet {
	h := t.packets
	first := h[0]
	last := h[len(h)-1]
	h[len(h)-1] = packet{}
	h = h[:len(h)-1]
	t.packets = h
	if len(h) == 0 {
		return first
	}
	i := 0
	for {
		child := 2*i + 1
		if child >= len(h) {
			break
		}
		if child+1 < len(h) && h[child+1].before(&h[child]) {
			child++
		}
		if !h[child].before(&last) {
			break
		}
		h[i] = h[child]
		i = child
	}
	h[i] = last
	return first
}

// buffers lends memory for packets, all of one size.
type buffers struct {
	size  int
	free  [][]byte
	made  int
	limit int
}

// take returns a buffer, or nil when all of the limit are in use.
func (b *buffers) take() []byte {
	if n := len(b.free); n > 0 {
		buffer := b.free[n-1]
		b.free = b.free[:n-1]
		return buffer[:b.size]
	}
	if b.made >= b.limit {
		return nil
	}
	b.made++
	return make([]byte, b.size)
}

func (b *buffers) give(buffer []byte) { b.free = append(b.free, buffer[:b.size]) }
