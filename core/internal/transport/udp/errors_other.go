//go:build !unix

package udp

import "syscall"

// passingErrors are errors of reading after which datagrams may still come:
// Winsock reports what an earlier one met on its way (connection reset, network
// reset, unreachable), a datagram that was too long, and shortages.
var passingErrors = []error{
	syscall.Errno(10054), syscall.Errno(10052), syscall.Errno(10051), syscall.Errno(10065), syscall.Errno(10061),
	syscall.Errno(10040), syscall.Errno(10055), syscall.Errno(10004),
}
