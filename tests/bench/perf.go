package main

import "github.com/libcrust/libcrust/cmd/crust/benchkit"

// goals are libcrust's, for machines with AES hardware. Figures of their own
// were set on two shared cores; ratios hold on any machine.
var goals = []benchkit.Goal{
	{About: "bulk, of raw TCP", Least: true, Limit: 0.62, Transport: "secure-tcp", Test: "bulk", Beside: "raw-tcp"},
	{About: "bulk, of go-libp2p TCP+Noise", Least: true, Limit: 2.4, Transport: "secure-tcp", Test: "bulk", Beside: "libp2p-noise"},
	{About: "bulk with ChaCha20-Poly1305, of raw TCP", Least: true, Limit: 0.35, Transport: "secure-tcp-chacha", Test: "bulk", Beside: "raw-tcp"},
	{About: "64-byte messages, Go to Go, msg/s", Least: true, Limit: 5e6, Transport: "secure-tcp", Test: "msg64"},
	{About: "64-byte messages, C to C, msg/s", Least: true, Limit: 3e6, Transport: "secure-tcp", Test: "msg64-c"},
	{About: "64-byte messages, Python to Python, msg/s", Least: true, Limit: 6e5, Transport: "secure-tcp", Test: "msg64-python"},
	{About: "1 KiB messages, Go to Go, msg/s", Least: true, Limit: 1e6, Transport: "secure-tcp", Test: "msg1k"},
	{About: "64-byte messages, of go-libp2p TCP+Noise", Least: true, Limit: 1, Transport: "secure-tcp", Test: "msg64", Beside: "libp2p-noise"},
	{About: "64-byte messages, of go-libp2p TCP+TLS", Least: true, Limit: 1, Transport: "secure-tcp", Test: "msg64", Beside: "libp2p-tls"},
	{About: "1 KiB messages, of go-libp2p TCP+Noise", Least: true, Limit: 1, Transport: "secure-tcp", Test: "msg1k", Beside: "libp2p-noise"},
	{About: "1 KiB messages, of go-libp2p TCP+TLS", Least: true, Limit: 1, Transport: "secure-tcp", Test: "msg1k", Beside: "libp2p-tls"},
	{About: "round trip p50, of raw TCP", Limit: 2, Transport: "secure-tcp", Test: "ping", Beside: "raw-tcp"},
	{About: "round trip p50, of go-libp2p TCP+Noise", Limit: 0.75, Transport: "secure-tcp", Test: "ping", Beside: "libp2p-noise"},
	{About: "round trip p50, of go-libp2p TCP+TLS", Limit: 0.75, Transport: "secure-tcp", Test: "ping", Beside: "libp2p-tls"},
	{About: "allocations per 64-byte message, both ends", Limit: 0.1, Transport: "secure-tcp", Test: "allocs"},
	{About: "idle pair, % of one core", Limit: 0.1, Transport: "secure-tcp", Test: "idle"},
	{About: "sessions one after another, of Go TLS 1.3", Least: true, Limit: 1.2, Transport: "secure-tcp", Test: "connect", Beside: "tls"},
	{About: "sessions one after another, of libp2p TCP+Noise", Least: true, Limit: 2.5, Transport: "secure-tcp", Test: "connect", Beside: "libp2p-noise"},
	{About: "sessions 8 at a time, of Go TLS 1.3", Least: true, Limit: 1.2, Transport: "secure-tcp", Test: "connect8", Beside: "tls"},
	{About: "sessions 8 at a time, of libp2p TCP+Noise", Least: true, Limit: 2.5, Transport: "secure-tcp", Test: "connect8", Beside: "libp2p-noise"},
	{About: "memory per idle session and end, KiB", Limit: 12, Transport: "secure-tcp", Test: "memory"},
}
