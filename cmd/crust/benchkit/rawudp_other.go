//go:build !linux

package benchkit

// RawUDP is UDP without encryption and without repair, by calls that only Linux has.
func RawUDP() []Transport { return nil }
