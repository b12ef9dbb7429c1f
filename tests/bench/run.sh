#!/usr/bin/env bash
# Measures libcrust beside others, each comparison in one interleaved run, and tells
# which of its performance goals it reaches here. Best on a machine that does nothing
# else.
#
#   tests/bench/run.sh [tcp|udp|grid|full|pages] [OPTION...]
#
#   tcp    sessions over TCP beside raw TCP, Go's TLS and go-libp2p, and from C to C
#          and from Python to Python: about ten minutes
#   udp    sessions over UDP beside raw UDP, quic-go and go-libutp: about six minutes
#   grid   sessions over UDP beside the kernel's TCP, quic-go and go-libutp over links
#          with delay and loss: about half an hour, and needs network namespaces
#
#   full   crust bench --full: libcrust beside raw TCP and UDP, and in clear, by the sizes of messages and
#          numbers of connections, in less than five minutes; writes docs/bench, plots
#          included, and the tables of docs/BENCHMARKS.md and README.md
#   pages  the tables and plots alone, from docs/bench/full.json
#
# Without a word of these it runs tcp and udp. Options are those of the programs in
# this directory and in udp/: -json, -runs N, -tests bulk,ping, -transports A,B,
# -strict, -profile DIRECTORY; -help lists them. Needs Go, a C and a C++ compiler,
# Python 3 and the library in build/lib, which "build.sh lib" makes; CRUST_PREFIX names
# another directory with bin/, include/ and lib/.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
prefix=${CRUST_PREFIX:-$root/build}
out=$here/build

if [[ ! -e $prefix/lib/libcrust.so.1 ]]; then
	echo "run.sh: there is no library in $prefix/lib: run ./build.sh lib first" >&2
	exit 1
fi

# over_tcp OPTION... measures sessions over TCP.
over_tcp() {
	mkdir -p "$out"
	(cd "$here" && go build -o "$out/bench" .)
	"${CC:-cc}" -O2 -o "$out/msg64" "$here/c/msg64.c" -I"$prefix/include" -L"$prefix/lib" -lcrust -Wl,-rpath,"$prefix/lib"
	CRUST_LIBRARY=$prefix/lib/libcrust.so.1 "$out/bench" \
		-program "$out/msg64 5000000 64 1" \
		-program "${PYTHON:-python3} $here/python/msg64.py 2000000 --runs 1" \
		"$@"
}

# over_udp OPTION... measures sessions over UDP, by the crust tool as it was built.
over_udp() { CRUST_PREFIX=$prefix "$here/udp/run.sh" "$@"; }

# between FILE NAME puts standard input between the two comments of that name in a page.
between() {
	awk -v name="$2" -v input=/dev/stdin '
		$0 == "<!-- " name " -->" { print; while ((getline line < input) > 0) print line; inside = found = 1 }
		$0 == "<!-- /" name " -->" { inside = 0 }
		!inside && $0 != "<!-- " name " -->" { print }
		END { exit !found }
	' "$1" >"$out/page" || {
		echo "run.sh: $1 has no comment <!-- $2 -->" >&2
		return 1
	}
	cat "$out/page" >"$1"
}

# pages draws docs/bench/full.json and writes its tables.
pages() {
	local crust=$prefix/bin/crust
	mkdir -p "$out"
	"$crust" bench plot "$root/docs/bench/full.json" "$root/docs/bench"
	rm -f "$root"/docs/bench/*.png
	"$crust" bench report "$root/docs/bench/full.json" | between "$root/docs/BENCHMARKS.md" "full run"
	"$crust" bench report --short "$root/docs/bench/full.json" | between "$root/README.md" "full run"
}

# full measures, and keeps what was measured in docs/.
full() {
	mkdir -p "$root/docs/bench" "$out"
	"$prefix/bin/crust" bench --full --save "$out/full.json" "$@"
	cp "$out/full.json" "$root/docs/bench/full.json"
	pages
}

case ${1:-} in
full)
	full "${@:2}"
	;;
pages)
	pages
	;;
tcp)
	over_tcp "${@:2}"
	;;
udp)
	over_udp bench "${@:2}"
	;;
grid)
	over_udp grid "${@:2}"
	;;
-* | '')
	failed=0
	over_tcp "$@" || failed=$?
	over_udp bench "$@" || failed=$?
	exit "$failed"
	;;
*)
	echo "run.sh: there is no \"$1\": say tcp, udp, grid, full or pages, or nothing" >&2
	exit 2
	;;
esac
