//go:build !(cgo && amd64 && (linux || windows))

package secure

// wideGCM has no kernel here.
func wideGCM() *kernel { return nil }
