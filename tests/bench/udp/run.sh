#!/usr/bin/env bash
# Measures libcrust's sessions over UDP beside the kernel's TCP, quic-go, go-libutp
# and raw UDP: over the loopback interface, and over links with delay and loss.
#
#   tests/bench/udp/run.sh [bench|grid [OPTION...]]
#
# Without arguments it runs both, in about 40 minutes. Options are those of the
# program in this directory: -json, -runs N, -transports A,B; COMMAND -help lists
# them. Needs Go and a C++ compiler, and the grid needs network namespaces. libcrust
# takes part when bin/crust exists in build/, which "build.sh lib" makes, or in the
# directory that CRUST_PREFIX names.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
out=$root/tests/bench/build
crust=${CRUST_PREFIX:-$root/build}/bin/crust
bench=()
grid=()

mkdir -p "$out"
(cd "$here" && go build -o "$out/udpbench" .)
if [[ -x $crust ]]; then
	bench=(-crust "$crust")
	grid=(-crust "$crust" -transports "tcp-cubic,tcp-bbr,quic-go,libutp,libutp-tuned,secure-utp")
fi

case ${1:-all} in
all)
	"$out/udpbench" bench "${bench[@]}"
	exec "$out/udpbench" grid "${grid[@]}"
	;;
bench)
	exec "$out/udpbench" bench "${bench[@]}" "${@:2}"
	;;
grid)
	exec "$out/udpbench" grid "${grid[@]}" "${@:2}"
	;;
*)
	exec "$out/udpbench" "$@"
	;;
esac
