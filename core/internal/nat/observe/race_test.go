//go:build race

package observe

// thorough is false where a simulation takes ten times as long.
const thorough = false
