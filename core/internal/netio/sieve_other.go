//go:build !linux

package netio

import "errors"

// sieves is whether the system has socket filters.
const sieves = false

func attach(uintptr, []instruction) error { return errors.ErrUnsupported }
func detach(uintptr) error                { return errors.ErrUnsupported }
func noRoom(error) bool                   { return false }
