//go:build unix

package udp

import "syscall"

// passingErrors are errors of reading after which datagrams may still come:
// what an earlier one met on its way (ICMP), and shortages.
var passingErrors = []error{
	syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EHOSTUNREACH, syscall.EHOSTDOWN, syscall.ENETUNREACH, syscall.ENETDOWN,
	syscall.ENETRESET, syscall.EMSGSIZE, syscall.EPROTO, syscall.ENOPROTOOPT, syscall.EOPNOTSUPP, syscall.EACCES, syscall.EPERM,
	syscall.ETIMEDOUT, syscall.EINTR, syscall.EAGAIN, syscall.ENOBUFS, syscall.ENOMEM,
}
