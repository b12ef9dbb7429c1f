#!/usr/bin/env bash
# Shows captures of libcrust to tshark with the dissector of tools/wireshark: of scripted
# conversations, whole, from the middle on and damaged; and of peers that talk in a network
# of their own, in clear, sealed, and while somebody blocks every secure way.
#
#   tests/tracer/run.sh [UPDATE=1 writes the golden files]
#
# CRUST is the command-line tool, build/bin/crust when it is not given. The second half
# needs root and a kernel that lets it make namespaces; without these it is left out, which
# the last line says.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
root=$(cd "$here/../.." && pwd -P)
crust=${CRUST:-$root/build/bin/crust}
data=$here/testdata
dissector=$root/tools/wireshark/crust.lua

if [ "${1:-}" != inside ]; then
    work=$(mktemp -d "${TMPDIR:-/tmp}/libcrust-tracer.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    # Nobody's own configuration, and no plugin but this one.
    export HOME=$work XDG_CONFIG_HOME=$work XDG_DATA_HOME=$work
    export CRUST_PORTMAP=off CRUST_BEACON=off work
    echo 0 >"$work/passed"
fi

passed() { echo $(($(cat "$work/passed") + 1)) >"$work/passed" && printf 'ok   %s\n' "$1"; }
failed() {
    printf 'FAIL %s\n' "$1"
    touch "$work/failed"
}

# same NAME WANT GOT
same() { if diff -u "$2" "$3" | head -n 60 | sed 's/^/     /' && cmp -s "$2" "$3"; then passed "$1"; else failed "$1"; fi; }

# holds NAME COMMAND... : the command must succeed.
holds() {
    local name=$1
    shift
    if "$@"; then passed "$name"; else failed "$name"; fi
}

# show ARGUMENT... : tshark with the dissector, before those of other programs: a free port may be
# one that tshark takes for ENIP or TZSP.
show() { tshark -n -X "lua_script:$dissector" -o tcp.try_heuristic_first:TRUE -o udp.try_heuristic_first:TRUE "$@" 2>"$work/err"; }

# details ARGUMENT... : everything that the dissector says, and nothing of others.
details() { show -V -O crust "$@" | grep -vE '^(Frame|Raw packet|Internet Protocol|Transmission|User Datagram|Ethernet) ?|^$'; }

# lines ARGUMENT... : the info column of what is libcrust's.
lines() { show -T fields -E separator=' ' -e _ws.col.Protocol -e _ws.col.Info "$@" | grep '^CRUST ' || true; }

# golden NAME FILE: compares standard input with a golden file.
golden() {
    cat >"$work/$2"
    if [ -n "${UPDATE:-}" ]; then cp "$work/$2" "$data/$2"; fi
    same "$1" "$data/$2" "$work/$2"
}

scripted() {
    details -r "$data/conversation.pcap" | golden "a scripted conversation in clear, every field" conversation.txt
    show -r "$data/conversation.pcap" -Y 'frame.number >= 20' -w "$work/middle.pcap"
    lines -r "$work/middle.pcap" | golden "the same from the middle on" middle.txt
    show -2 -r "$data/conversation.pcap" -V -O crust | grep -v '^$' >"$work/second.txt"
    show -r "$data/conversation.pcap" -V -O crust | grep -v '^$' >"$work/first.txt"
    same "the second pass says what the first one said" "$work/first.txt" "$work/second.txt"
    local content=(-T fields -e crust.frame.type -e crust.message.data -e crust.message.size -e crust.piece.data -e crust.gossip.kind -e crust.reason -Y 'crust.type > 0')
    show -r "$data/conversation.pcap" "${content[@]}" >"$work/clear.fields"
    for cipher in aes chacha; do
        show -r "$data/$cipher.pcap" -o "crust.key_log:$data/$cipher.keys" "${content[@]}" >"$work/$cipher.fields"
        same "sealed by $cipher, with the key log: the same content" "$work/clear.fields" "$work/$cipher.fields"
        lines -r "$data/$cipher.pcap" -o crust.network:net | golden "sealed by $cipher, with the network name: its flights" "$cipher.named.txt"
        holds "and without anything: nothing" test -z "$(lines -r "$data/$cipher.pcap")"
        holds "with another name: nothing" test -z "$(lines -r "$data/$cipher.pcap" -o crust.network:another)"
    done
}

# 10,000 damaged captures, in files of 2,500, each with seeds of its own.
damaged() {
    local seed capture options n=0
    for seed in 1 2 3 4; do
        capture=conversation options=()
        [ "$seed" != 3 ] || capture=aes options=(-o "crust.key_log:$data/aes.keys" -o crust.network:net)
        [ "$seed" != 4 ] || capture=chacha options=(-o "crust.key_log:$data/chacha.keys" -o crust.network:net)
        python3 "$here/mutate.py" "$data/$capture.pcap" "$work/damaged.pcap" 2500 "$seed"
        if ! show -r "$work/damaged.pcap" -V -O crust "${options[@]}" >"$work/damaged.txt" || [ "$(grep -c '^Frame ' "$work/damaged.txt")" -lt 2500 ]; then
            failed "2,500 damaged captures of $capture, seed $seed: tshark has ended"
            cat "$work/err"
            continue
        fi
        if grep -i -m 5 'lua error' "$work/damaged.txt" "$work/err"; then
            failed "2,500 damaged captures of $capture, seed $seed: the dissector has failed"
            continue
        fi
        n=$((n + $(grep -c '^libcrust' "$work/damaged.txt")))
    done
    holds "10,000 damaged captures: nothing breaks, and $n frames are still read" test "$n" -gt 4000
}

# watch FILE: captures what goes over the loopback interface until unwatch.
watch() {
    dumpcap -q -i lo -w "$1" >"$work/dumpcap" 2>&1 &
    watcher=$!
    for _ in $(seq 100); do
        [ ! -s "$1" ] || return 0
        sleep 0.05
    done
    cat "$work/dumpcap"
    return 1
}
unwatch() {
    sleep 0.5 # what the kernel still has
    kill -INT "$watcher"
    wait "$watcher" || true
}

# await FILE TEXT: waits until a peer has said something, up to 20 s.
await() {
    for _ in $(seq 400); do
        ! grep -q "$2" "$1" || return 0
        sleep 0.05
    done
    printf 'no %s in %s:\n' "$2" "$1"
    cat "$1"
    return 1
}

# peer NAME ARGUMENT... : runs a peer that reads its commands from the pipe NAME.in.
peer() {
    local name=$1
    shift
    mkfifo "$work/$name.in"
    "$crust" peer --json --network orchard --gossip off "$@" <"$work/$name.in" >"$work/$name.out" 2>"$work/$name.err" &
}

# talk TRANSPORT CAPTURE: two peers meet over a transport and talk.
talk() {
    rm -f "$work"/[ab].*
    watch "$work/$2"
    peer a --listen tcp://127.0.0.1:40001 --listen utp://127.0.0.1:40001 --tracer tracer://127.0.0.1:40002 --key-log "$work/keys" --echo
    exec 7>"$work/a.in"
    peer b --listen tcp://127.0.0.1:0 --listen utp://127.0.0.1:0 --tracer dial
    exec 8>"$work/b.in"
    await "$work/a.out" '"endpoint":"tracer:' && await "$work/b.out" listener_started
    echo "connect $1" >&8
    await "$work/b.out" '"connected"'
    echo "send $(sed -n 's/.*"started".*"peer":"\([0-9a-f]*\)".*/\1/p' "$work/a.out") pears-and-plums" >&8
    await "$work/b.out" 'pears-and-plums'
    echo quit >&8
    echo quit >&7
    exec 7>&- 8>&-
    await "$work/a.out" '"stopped"' && await "$work/b.out" '"stopped"'
    unwatch
}

# count FIELD CAPTURE ARGUMENT... : how many packets have it.
count() {
    local filter=$1 file=$2
    shift 2
    show -r "$work/$file" "$@" -Y "$filter" | grep -c . || true
}

live() {
    ip link set lo up
    : >"$work/keys"
    local word=70656172732d616e642d706c756d73 # pears-and-plums
    talk tcp://127.0.0.1:40001 tcp.pcapng
    holds "TCP between peers: unknown without the network name" test "$(count crust tcp.pcapng)" = 0
    holds "named with it" test "$(count 'crust.kind == 2' tcp.pcapng -o crust.network:orchard)" -gt 4
    holds "not with another one" test "$(count crust tcp.pcapng -o crust.network:other)" = 0
    holds "decrypted with the key log" test "$(count "crust.message.data contains $word" tcp.pcapng -o "crust.key_log:$work/keys")" = 2
    holds "and no protocol violation" test "$(count 'crust && _ws.expert.severity == error' tcp.pcapng -o "crust.key_log:$work/keys")" = 0
    talk tracer://127.0.0.1:40002 tracer.pcapng
    holds "in clear between peers: read without anything" test "$(count "crust.message.data contains $word" tracer.pcapng)" = 2
    holds "and no protocol violation" test "$(count 'crust && _ws.expert.severity == error' tracer.pcapng)" = 0
    udp
    beacons
    refusals
}

# udp: the same over UDP, where the words are in the stream inside.
udp() {
    talk utp://127.0.0.1:40001 utp.pcapng
    holds "UDP between peers: unknown without the network name" test "$(count crust utp.pcapng)" = 0
    holds "its handshake is named with it" test "$(count 'crust.flight.type' utp.pcapng -o crust.network:orchard)" -ge 3
    holds "not with another one" test "$(count crust utp.pcapng -o crust.network:other)" = 0
    holds "decrypted with the key log" test "$(count "crust.inner.data contains $word" utp.pcapng -o "crust.key_log:$work/keys")" -ge 2
    holds "and no protocol violation" test "$(count 'crust && _ws.expert.severity == error' utp.pcapng -o crust.network:orchard -o "crust.key_log:$work/keys")" = 0
}

# beacons: what a peer says on the loopback network of this namespace.
beacons() {
    rm -f "$work"/[ab].*
    watch "$work/beacon.pcapng"
    CRUST_BEACON='' peer a --listen tcp://127.0.0.1:0
    exec 7>"$work/a.in"
    await "$work/a.out" listener_started
    sleep 1.5 # the first is late by up to 0.1 s
    echo quit >&7
    exec 7>&-
    await "$work/a.out" '"stopped"'
    unwatch
    holds "beacons: unknown without the network name" test "$(count crust beacon.pcapng)" = 0
    holds "read with it" test "$(count 'crust.beacon.kind == 1 && crust.record.peer' beacon.pcapng -o crust.network:orchard)" -ge 1
    holds "and the goodbye" test "$(count 'crust.beacon.kind == 3' beacon.pcapng -o crust.network:orchard)" -ge 1
}

# refusals: who dials in clear where nobody asked for that gets no byte; and who blocks all
# secure ways gets no session in clear.
refusals() {
    rm -f "$work"/[ab].*
    watch "$work/refused.pcapng"
    peer a --listen tcp://127.0.0.1:40001 --tracer tracer://127.0.0.1:40002
    exec 7>"$work/a.in"
    peer b --no-accept --listen tcp://127.0.0.1:0 --tracer dial
    exec 8>"$work/b.in"
    await "$work/a.out" '"endpoint":"tracer:' && await "$work/b.out" listener_started
    echo "connect tracer://127.0.0.1:40001" >&8
    await "$work/b.out" '"connect_failed"'
    holds "a dial in clear to a port that is not: not one byte comes back" \
        test "$(count 'tcp.srcport == 40001 && tcp.len > 0' refused.pcapng)" = 0
    echo info >&7
    await "$work/a.out" '"event":"info"'
    # The man in the middle: every packet to a secure port is lost.
    nft -f - <<'N'
table ip middle {
    chain out {
        type filter hook output priority 0;
        tcp dport 40001 drop
        meta l4proto udp drop
    }
}
N
    : >"$work/b.out"
    echo "connect $(sed -n 's/.*"info":"\([^"]*\)".*/\1/p' "$work/a.out")" >&8
    sleep 5
    echo quit >&8
    echo quit >&7
    exec 7>&- 8>&-
    await "$work/b.out" '"stopped"'
    unwatch
    holds "while somebody blocks every secure way: it is tried" test "$(count 'tcp.dstport == 40001 && tcp.flags.syn == 1 || tcp.port == 40001' refused.pcapng)" -gt 0
    holds "no packet goes to the port in clear" test "$(count 'tcp.port == 40002' refused.pcapng)" = 0
    holds "and there is no session" test -z "$(grep '"connected"' "$work/b.out")"
    nft delete table ip middle
}

# leave: what still runs after a failure, dumpcap and peers, ends with this shell.
leave() {
    local running
    running=$(jobs -pr)
    # shellcheck disable=SC2086
    [ -z "$running" ] || kill $running 2>/dev/null || true
    wait || true
}

if [ "${1:-}" = inside ]; then
    trap leave EXIT
    live
    exit
fi

scripted
damaged
left=''
if [ ! -x "$crust" ]; then
    left="; peers were not captured: there is no $crust"
elif ! unshare --net true 2>/dev/null; then
    left='; peers were not captured: no namespaces can be made here'
elif ! unshare --net "$here/run.sh" inside; then
    failed "the captures of peers"
fi
printf '%d checks passed%s\n' "$(cat "$work/passed")" "$left"
[ ! -e "$work/failed" ]
