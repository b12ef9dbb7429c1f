#!/usr/bin/env bash
# Measures libcrust beside raw TCP, Go's TLS and go-libp2p in one interleaved run,
# and from C to C and from Python to Python, and tells which of its performance
# goals it reaches here. Takes about ten minutes, best on a machine that does nothing
# else.
#
#   tests/bench/run.sh [OPTION...]
#
# Options are those of the program in this directory: -json, -runs N, -tests
# bulk,ping, -transports secure-tcp,raw-tcp, -strict, -profile DIRECTORY; -help
# lists them. Needs Go, a C compiler, Python 3 and the library in build/lib, which
# "build.sh lib" makes; CRUST_PREFIX names another directory with include/ and lib/.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
prefix=${CRUST_PREFIX:-$root/build}
out=$here/build

if [[ ! -e $prefix/lib/libcrust.so.1 ]]; then
	echo "run.sh: there is no library in $prefix/lib: run ./build.sh lib first" >&2
	exit 1
fi

mkdir -p "$out"
(cd "$here" && go build -o "$out/bench" .)
"${CC:-cc}" -O2 -o "$out/msg64" "$here/c/msg64.c" -I"$prefix/include" -L"$prefix/lib" -lcrust -Wl,-rpath,"$prefix/lib"

export CRUST_LIBRARY=$prefix/lib/libcrust.so.1
exec "$out/bench" \
	-program "$out/msg64 5000000 64 1" \
	-program "${PYTHON:-python3} $here/python/msg64.py 2000000 --runs 1" \
	"$@"
