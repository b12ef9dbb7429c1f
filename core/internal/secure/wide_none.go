//go:build !(cgo && amd64 && (linux || windows))

package secure

// wideGCM has no kernel here.
func wideGCM() *kernel { return nil }

// wideChaCha has no kernel here.
func wideChaCha() *kernel { return nil }
