//go:build unix && !linux

package tcp

import "syscall"

const soReusePort = syscall.SO_REUSEPORT
