//go:build race

package secure

// thorough is false where walking takes ten times as long.
const thorough = false
