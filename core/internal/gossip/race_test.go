//go:build race

package gossip

// thorough is false where a simulation takes ten times as long.
const thorough = false
