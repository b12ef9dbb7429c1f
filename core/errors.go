package crust

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/endpoint"
)

// Code says what went wrong, with the same number in Go, C, Rust and Python.
// Codes are append-only. A receiver treats a code it does not know as
// CodeInternal.
//
// A Code is an error too, so that errors.Is(err, CodeTooBig) works; String gives
// the bare name, and Error, which the verbs of fmt prefer, "crust: " before it.
type Code int32

const (
	CodeOK             Code = 0
	CodeInvalid        Code = -1  // an argument is malformed or out of bounds
	CodeBadHandle      Code = -2  // C ABI: unknown, stale or freed handle
	CodeState          Code = -3  // not possible now, for instance bootstrap is already running
	CodeNoMemory       Code = -4  // C ABI: out of memory
	CodeWouldBlock     Code = -5  // the send queue is full; wait for EventWritable
	CodeTimeout        Code = -6  // no answer in time
	CodeCanceled       Code = -7  // given up by the program, or by closing the service
	CodeClosed         Code = -8  // the service is closed
	CodeBufferTooSmall Code = -9  // C ABI: the caller's buffer is too small
	CodeTooBig         Code = -10 // the message is over the limit
	CodeUnsupported    Code = -11 // this build or platform cannot
	CodeWouldDeadlock  Code = -12 // C ABI: a blocking call inside a callback
	CodeForked         Code = -13 // C ABI: the process forked after the library was loaded
	CodePanicked       Code = -14 // a fault inside the library was caught; the service is closed
	CodeInternal       Code = -15 // a fault inside the library
	CodeABI            Code = -16 // C ABI: struct_size or ABI version not acceptable

	CodeIO           Code = -20 // the operating system refused for another reason
	CodeAddressInUse Code = -21 // another program listens there
	CodeAddress      Code = -22 // the address does not exist on this machine or is malformed
	CodeUnreachable  Code = -23 // no route to the address
	CodeRefused      Code = -24 // nothing listens there
	CodeReset        Code = -25 // the connection broke
	CodePermission   Code = -26 // the operating system forbids it
	CodeLimit        Code = -27 // a limit on connections, handshakes or descriptors
	CodeSelf         Code = -40 // the peer is this service itself
	CodeUnknownPeer  Code = -41 // not connected to that peer
	CodeConnected    Code = -42 // already connected to that peer
	CodeBanned       Code = -43 // the peer or its address is blacklisted
	CodeNotAllowed   Code = -44 // the peer does not accept us
	CodeBadInfo      Code = -45 // connection info that is malformed, forged or expired
	CodeHandshake    Code = -46 // the other end did not complete the handshake
	CodeCrypto       Code = -47 // data that fails authentication
	CodeNetworkName  Code = -48 // no answer to the first flight: another network name, or no libcrust
	CodeWrongPeer    Code = -49 // somebody else than the expected peer answered
	CodeNoEndpoint   Code = -50 // nothing to try: no endpoint or contact was given
	CodeDisconnected Code = -51 // the connection was closed in order by either side
	CodePeerSilent   Code = -52 // nothing heard from the peer for the whole timeout
	CodeProtocol     Code = -53 // the peer broke the protocol
	CodeReplaced     Code = -54 // the peer restarted and came back as a new session
	CodeExpired      Code = -55 // a message grew too old in the queue and was dropped
)

var codeNames = map[Code]string{
	CodeOK: "ok", CodeInvalid: "invalid", CodeBadHandle: "bad_handle", CodeState: "state", CodeNoMemory: "no_memory",
	CodeWouldBlock: "would_block", CodeTimeout: "timeout", CodeCanceled: "canceled", CodeClosed: "closed",
	CodeBufferTooSmall: "buffer_too_small", CodeTooBig: "too_big", CodeUnsupported: "unsupported",
	CodeWouldDeadlock: "would_deadlock", CodeForked: "forked", CodePanicked: "panicked", CodeInternal: "internal",
	CodeABI: "abi", CodeIO: "io", CodeAddressInUse: "address_in_use", CodeAddress: "address",
	CodeUnreachable: "unreachable", CodeRefused: "refused", CodeReset: "reset", CodePermission: "permission",
	CodeLimit: "limit", CodeSelf: "self", CodeUnknownPeer: "unknown_peer", CodeConnected: "connected",
	CodeBanned: "banned", CodeNotAllowed: "not_allowed", CodeBadInfo: "bad_info", CodeHandshake: "handshake",
	CodeCrypto: "crypto", CodeNetworkName: "network_name", CodeWrongPeer: "wrong_peer", CodeNoEndpoint: "no_endpoint",
	CodeDisconnected: "disconnected", CodePeerSilent: "peer_silent", CodeProtocol: "protocol",
	CodeReplaced: "replaced", CodeExpired: "expired",
}

// String returns the code's name in snake_case, such as "would_block".
func (c Code) String() string {
	if name, ok := codeNames[c]; ok {
		return name
	}
	return fmt.Sprintf("code(%d)", int32(c))
}

// Error makes a Code usable as a target of errors.Is.
func (c Code) Error() string { return "crust: " + c.String() }

// Error is the type of every error of this package. It says what was tried, on
// which peer and endpoint as far as they are known, and why it failed.
//
// errors.Is(err, CodeX) tests the code. errors.Is(err, net.ErrClosed) holds for
// CodeClosed, and Timeout() for CodeTimeout and CodePeerSilent.
type Error struct {
	Op       string   // "listen", "connect", "send", ...
	Peer     PeerID   // zero when not known
	Endpoint Endpoint // zero when not known
	Code     Code
	Err      error // the cause; may be nil
}

// Error returns one sentence.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if !e.Peer.IsZero() {
		b.WriteString(" " + e.Peer.Short())
	}
	if !e.Endpoint.IsZero() {
		b.WriteString(" " + e.Endpoint.String())
	}
	b.WriteString(": ")
	if e.Err != nil {
		b.WriteString(e.Err.Error())
	} else {
		b.WriteString(sentence(e.Code))
	}
	return b.String()
}

// sentence says a code to a person when there is nothing better to say.
func sentence(c Code) string {
	switch c {
	case CodeWouldBlock:
		return "the send queue is full; wait until the peer is writable"
	case CodeClosed:
		return "the service is closed"
	case CodeUnknownPeer:
		return "not connected to this peer"
	case CodeSelf:
		return "this is our own service"
	case CodeDisconnected:
		return "closed in order"
	case CodeCanceled:
		return "canceled"
	case CodeConnected:
		return "already connected"
	}
	return strings.ReplaceAll(c.String(), "_", " ")
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is matches codes and, for CodeClosed, net.ErrClosed.
func (e *Error) Is(target error) bool {
	if c, ok := target.(Code); ok {
		return e.Code == c
	}
	return target == net.ErrClosed && e.Code == CodeClosed
}

// Timeout makes Error a net.Error.
func (e *Error) Timeout() bool { return e.Code == CodeTimeout || e.Code == CodePeerSilent }

// Temporary is part of net.Error. It reports whether the same call may succeed later.
func (e *Error) Temporary() bool { return e.Code == CodeWouldBlock || e.Code == CodeLimit }

// CodeOf returns the code of err: CodeOK for nil, the outermost *Error's code,
// or the code that fits a cause of the operating system.
func CodeOf(err error) Code {
	var e *Error
	var c Code
	switch {
	case err == nil:
		return CodeOK
	case errors.As(err, &e):
		return e.Code
	case errors.As(err, &c):
		return c
	}
	return systemCode(err)
}

// systemCode maps causes from below to codes.
func systemCode(err error) Code {
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, context.Canceled):
		return CodeCanceled
	case errors.Is(err, syscall.EADDRINUSE):
		return CodeAddressInUse
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return CodeAddress
	case errors.Is(err, syscall.ECONNREFUSED):
		return CodeRefused
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return CodeUnreachable
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return CodeLimit
	case errors.Is(err, os.ErrPermission):
		return CodePermission
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return CodeReset
	case errors.Is(err, net.ErrClosed):
		return CodeClosed
	case errors.As(err, &timeout) && timeout.Timeout():
		return CodeTimeout
	}
	return CodeIO
}

// fail makes an *Error, taking the code from the cause.
func fail(op string, peer identity.PeerID, ep endpoint.Endpoint, err error) *Error {
	return &Error{Op: op, Peer: peer, Endpoint: ep, Code: CodeOf(err), Err: err}
}
