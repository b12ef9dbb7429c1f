//go:build race

package punch

// thorough is false where a simulation takes ten times as long.
const thorough = false
