package portmap

import "time"

// epoch follows the clock that a server counts since it last lost its mappings.
// The zero value has seen none.
type epoch struct {
	seen   bool
	server uint32
	at     time.Time
}

// pcp takes the epoch of a PCP answer and reports whether the server has lost its
// state since the answer before, by RFC 6887, section 8.5.
func (e *epoch) pcp(server uint32, now time.Time) (lost bool) {
	before := *e
	*e = epoch{seen: true, server: server, at: now}
	if !before.seen {
		return false
	}
	if int64(server) < int64(before.server)-1 {
		return true
	}
	client := int64(now.Sub(before.at) / time.Second)
	passed := int64(server) - int64(before.server)
	return client+2 < passed-passed/16 || passed+2 < client-client/16
}

// pmp does the same by RFC 6886, section 3.6: the server's clock may lose one
// second in eight, and two more.
func (e *epoch) pmp(server uint32, now time.Time) (lost bool) {
	before := *e
	*e = epoch{seen: true, server: server, at: now}
	if !before.seen {
		return false
	}
	expected := int64(before.server) + int64(now.Sub(before.at)/time.Second)*7/8
	return int64(server) < expected-2
}
