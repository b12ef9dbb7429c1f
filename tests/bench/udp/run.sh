#!/usr/bin/env bash
# Measures what reliable UDP is compared with: the kernel's TCP, quic-go, go-libutp
# and raw UDP, over the loopback interface and then over links with delay and loss.
# Takes about half an hour, best on a machine that does nothing else.
#
#   tests/bench/udp/run.sh [bench|datagrams|grid [OPTION...]]
#
# Without arguments it runs all three. Options are those of the program in this
# directory: -json, -runs N, -transports A,B; COMMAND -help lists them. Needs Go
# and a C++ compiler, and the grid needs network namespaces. Where build/bin/crust
# exists, which "build.sh lib" makes, the grid has libcrust's transports that are
# named in CRUST_GRID (crust-tcp if it is not set).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
out=$root/tests/bench/build
peers=tcp-cubic,tcp-bbr,quic-go,libutp,libutp-tuned

mkdir -p "$out"
(cd "$here" && go build -o "$out/udpbench" .)

grid=(grid)
if [[ -x $root/build/bin/crust ]]; then
	grid+=(-crust "$root/build/bin/crust" -transports "$peers,${CRUST_GRID:-crust-tcp}")
fi

case ${1:-all} in
all)
	"$out/udpbench" bench
	"$out/udpbench" datagrams
	exec "$out/udpbench" "${grid[@]}"
	;;
grid)
	exec "$out/udpbench" "${grid[@]}" "${@:2}"
	;;
*)
	exec "$out/udpbench" "$@"
	;;
esac
