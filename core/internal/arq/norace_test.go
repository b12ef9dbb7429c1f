//go:build !race

package arq

// thorough is false where a simulation takes ten times as long.
const thorough = true
