#!/usr/bin/env bash
# Plays the demo against a built library: tests/demo/run.sh BUILD [--mib N].
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
build=$(cd "${1:?usage: tests/demo/run.sh BUILD [--mib N]}" && pwd -P)
shift

work=$build/demo
mkdir -p "$work"
${CC:-gcc} -std=c99 -Wall -Wextra -Wpedantic -Werror -O2 -pthread -I"$build/include" \
    -o "$work/peer" "$here/peer.c" -L"$build/lib" -lcrust -Wl,-rpath,"$build/lib"

export PYTHONPATH=$here/../../bindings/python/src CRUST_LIBRARY=$build/lib/libcrust.so.1
exec python3 "$here/demo.py" "$work/peer" "$@"
