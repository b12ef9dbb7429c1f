//go:build linux

package main

import "github.com/libcrust/libcrust/cmd/crust/benchkit"

// benchGoals and gridGoals are what libcrust promises of its sessions over UDP, for
// machines with AES hardware. Figures of their own were set on two shared cores;
// ratios hold on any machine.
var benchGoals = []benchkit.Goal{
	{About: "bulk, of quic-go's one stream", Least: true, Limit: 2, Transport: "secure-utp", Test: "bulk", Beside: "quic-go"},
	{About: "bulk, of go-libutp as it is", Least: true, Limit: 10, Transport: "secure-utp", Test: "bulk", Beside: "libutp"},
	{About: "64 sessions at once, of one", Least: true, Limit: 0.7, Transport: "secure-utp", Test: "bulk64", BesideTest: "bulk"},
	{About: "64-byte messages, msg/s", Least: true, Limit: 3e6, Transport: "secure-utp", Test: "msg64"},
	{About: "round trip p50, of quic-go", Limit: 1, Transport: "secure-utp", Test: "ping", Beside: "quic-go"},
	{About: "datagrams of 64 bytes, of raw UDP in batches", Least: true, Limit: 0.7, Transport: "secure-utp", Test: "datagram64", Beside: "raw-udp-batch"},
	{About: "datagrams of 1,100 bytes, of raw UDP in batches", Least: true, Limit: 0.7, Transport: "secure-utp", Test: "datagram", Beside: "raw-udp-batch"},
	{About: "sessions one after another, conn/s", Least: true, Limit: 200, Transport: "secure-utp", Test: "connect"},
}

var gridGoals = []benchkit.Goal{
	{About: "20 ms each way, of quic-go", Least: true, Limit: 0.8, Transport: "secure-utp", Test: "bulk@20ms,0", Beside: "quic-go"},
	{About: "20 ms each way, 1 % lost, of quic-go", Least: true, Limit: 0.8, Transport: "secure-utp", Test: "bulk@20ms,1%", Beside: "quic-go"},
}
