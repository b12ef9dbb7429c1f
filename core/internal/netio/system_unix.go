//go:build unix

package netio

import "github.com/libcrust/libcrust/core/internal/transport/tcp"

var (
	_ TryWriter  = (*tcp.Conn)(nil)
	_ LazyReader = (*tcp.Conn)(nil)
)
