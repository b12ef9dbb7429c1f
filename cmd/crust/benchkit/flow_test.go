package benchkit

import (
	"strings"
	"testing"
)

func TestFlowIsChecked(t *testing.T) {
	flow := make([]byte, 5*ChunkSize)
	for i := range uint64(5) {
		FillChunk(flow[i*ChunkSize:][:ChunkSize], i)
	}
	for _, step := range []int{1, 7, 1000, ChunkSize, len(flow)} {
		var c FlowChecker
		for at := 0; at < len(flow); at += step {
			if err := c.Check(flow[at:min(at+step, len(flow))]); err != nil {
				t.Fatalf("in steps of %d: %v", step, err)
			}
		}
	}
	for name, wrong := range map[string][]byte{
		"a flipped bit": func() []byte { b := append([]byte(nil), flow...); b[70_000] ^= 4; return b }(),
		"a gap":         append(append([]byte(nil), flow[:20_000]...), flow[20_001:]...),
		"a lost chunk":  append(append([]byte(nil), flow[:ChunkSize]...), flow[2*ChunkSize:]...),
		"one doubled":   append(append([]byte(nil), flow[:ChunkSize]...), flow...),
	} {
		var c FlowChecker
		if err := c.Check(wrong); err == nil || !strings.Contains(err.Error(), "other bytes") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
