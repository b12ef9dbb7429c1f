// Package utp is uTP (BEP 29) between two authenticated peers, as connections of
// package net. What it speaks is libutp's protocol; what it stands on is a Path,
// which carries packets of up to 60,000 bytes and does not lose them: sealing,
// loss, congestion and the size of datagrams are the path's business. Nothing of
// uTP is seen on the wire, and nobody but the peer can put a packet in.
//
// # How libutp is used
//
// libutp is the C++ library in the module github.com/anacrolix/go-libutp, which
// also has a binding for Go. That binding puts one lock around all sockets of a
// process, has no half-close, no clock but the real one, and the faults listed
// below. So this package imports the module for the library, pinned in go.mod,
// and calls it through its own engine (engine.c), which declares what it uses of
// utp.h. The engine gives libutp its clock, its random numbers and its packet
// size through libutp's own callbacks: no linker tricks, and the same on every
// system. Time comes from package time, so that it all runs in a testing/synctest
// bubble.
//
// Each Port has a context of libutp to itself, with one connection in it. libutp
// keeps no other state, but for one static array in utp_writev, which a lock
// covers for the time of a copy.
//
// # Who acknowledges
//
// libutp's window grows by at most one packet, or 3,000 bytes, a round trip
// (apply_ccontrol in utp_internal.cpp), its timeout is a second at least, and it
// sends one small packet a round trip (Nagle's rule). Over a path that recovers
// losses itself, a second loop of that kind only harms. So a packet that the path
// has accepted is acknowledged to the local libutp at once, as performance
// enhancing proxies do (RFC 3135, section 3.1.2). The peer's own
// acknowledgements, which travel all the same, say how much of its receive window
// is free and when everything has arrived. It follows that a path which accepts a
// packet must deliver it or end: nothing here repeats it.
//
// A receiver acknowledges when an eighth of its window or 64 packets have come
// or a quarter of the window is free again: as nothing waits for less, an
// exchange of short messages costs no packets but the messages'.
//
// # Bounds
//
// Per connection: received and not read at most Config.Window bytes, up to
// MaxWindow for a reader that keeps up, checked on arrival, packets before their
// turn included; written and not taken by the path one packet; on the way at most
// the peer's window, and 900 packets. A connection has no goroutine and no timer
// of its own.
//
// # Faults of go-libutp, and what became of them
//
//  1. Connection ids from an unseeded rand(): they come from crypto/rand, a
//     context of its own knows no earlier connection.
//  2. Black holes of large packets: uTP packets are not datagrams; the path cuts them.
//  3. Foreign packets taken for uTP, STUN answered by RST: only a Path's packets come in,
//     and no packet without a connection is answered by libutp.
//  4. Missed deadlines, other errors than package os's: deadlines of our own.
//  5. Interleaved writes: writers take turns.
//  6. Receive window not enforced: a packet beyond it ends the connection.
//  7. No sign of life: the session's part, and the path's end closes the Port.
//  8. SYN_RECV for ever: Accept's context ends it, and a Port takes one SYN.
//  9. Backlog of five, overflowing unseen: there is none, one connection per path.
//  10. Close loses what was written: it goes on until the peer has acknowledged
//     the end, within Config.Linger; Port.Done tells.
//  11. abort() on wrong calls and options: every call is checked in the engine
//     first, options come from checked constants.
//  12. Slow or lost dial errors: what a path refuses is offered again within
//     10 ms, a closed Port answers at once, and a context ends Dial.
//  13. Sending under a global lock: paths are called without any lock.
//  14. A hundred read errors close the socket: nothing reads, paths call Input.
//  15. Small ones: id 0xffff is not drawn; closed sockets are freed at once and
//     kept in no map; nothing is logged, resolved or scoped.
package utp
