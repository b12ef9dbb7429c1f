#!/usr/bin/env bash
# Compiles the programs of docs/examples as their comments say, and with all warnings,
# by every compiler that is here, and runs them over TCP and UDP: what they say is
# compared. So is the C++ wrapper, include/crust.hpp, by wrapper.cc, also under
# AddressSanitizer, and the reference of the C ABI, which is made of the comments in its
# header. tests/examples/run.sh [BUILD]
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
root=$(cd "$here/../.." && pwd -P)
build=$(cd "${1:-$root/build}" && pwd -P)
examples=$root/docs/examples
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export CRUST_PORTMAP=off CRUST_BEACON=off
export PKG_CONFIG_PATH=$build/lib/pkgconfig LD_LIBRARY_PATH=$build/lib
export PYTHONPATH=$root/bindings/python/src PYTHONDONTWRITEBYTECODE=1 CRUST_LIBRARY=$build/lib/libcrust.so.1
warnings=(-Wall -Wextra -Wpedantic -Werror)
# shellcheck source=tests/try.sh
. "$root/tests/try.sh"

# says NAME COMMAND...: over either transport it ends with 0 and has said expected/NAME.txt.
says() {
    local name=$1 transport
    shift
    for transport in tcp utp; do
        timeout 60 "$@" "$transport://127.0.0.1:0" >"$work/said" || {
            printf 'over %s it ended with %s, and said:\n' "$transport" $?
            cat "$work/said"
            return 1
        }
        diff "$here/expected/$name.txt" "$work/said" || return
    done
}

# as_told FILE runs the command of its comment, in a directory of its own.
as_told() {
    local command
    command=$(sed -n 's/^ \*     \(c\(c\|++\) .*\)$/\1/p' "$1")
    [ -n "$command" ] || {
        echo "its comment names no command"
        return 1
    }
    cp "$1" "$work/told/" && cd "$work/told" && sh -c "$command"
}

# compilers COMMAND... prints those that are here.
compilers() {
    local compiler
    for compiler in "$@"; do
        if command -v "$compiler" >/dev/null; then printf '%s\n' "$compiler"; fi
    done
}

mkdir "$work/told"
flags=$(pkg-config --cflags --libs crust)
for file in "$examples"/*; do
    name=$(basename "$file")
    case $file in
    *.c) languages=(-std=c99 -D_GNU_SOURCE) available=$(compilers gcc clang) ;;
    *.cc) languages=(-std=c++17) available=$(compilers g++ clang++) ;;
    *.py)
        try "$name: runs" says "${name%.py}" python3 "$file"
        continue
        ;;
    *)
        try "$name: is a program that is tested" false
        continue
        ;;
    esac
    try "$name: compile as its comment says" as_told "$file"
    try "$name: runs" says "${name%.*}" "$work/told/${name%.*}"
    for compiler in $available; do
        # shellcheck disable=SC2086 # flags are words
        try "$name: $compiler has no warning" "$compiler" "${languages[@]}" "${warnings[@]}" -o "$work/program" "$file" $flags -pthread
    done
done

strict=("${warnings[@]}" -Wconversion -Wshadow -g -I"$root/include" "$here/wrapper.cc")
for compiler in $(compilers g++ clang++); do
    # shellcheck disable=SC2086
    try "crust.hpp: $compiler has no warning in C++20" "$compiler" -std=c++20 -fsyntax-only "${strict[@]}"
    # shellcheck disable=SC2086
    try "crust.hpp: $compiler has no warning in C++17" "$compiler" -std=c++17 "${strict[@]}" -o "$work/wrapper-$compiler" $flags -pthread
    try "crust.hpp: its tests pass" timeout 120 "$work/wrapper-$compiler"
done
# shellcheck disable=SC2086
try "crust.hpp: compile with AddressSanitizer" g++ -std=c++17 -fsanitize=address,undefined -fno-sanitize-recover=all \
    "${strict[@]}" -o "$work/wrapper-asan" $flags -pthread
try "crust.hpp: no error and no leak in its tests" timeout 120 "$work/wrapper-asan"

# reference NAME [SED-PROGRAM] makes the reference of crust.h, changed or not.
reference() {
    sed -e "${2:-}" "$root/include/crust.h" >"$work/crust.h" &&
        python3 "$root/.ci/cdocs.py" "$work/crust.h" "$root/capi/exports.txt" "$work/$1"
}
try "the reference has a page for each function" reference reference
# every_page: no page lacks the part that says from where a function may be called.
every_page() {
    local function
    while read -r function; do
        grep -q '<h2>Threads</h2>' "$work/reference/$function.html" || return
    done <"$root/capi/exports.txt"
}
try "and they say from where it may be called" every_page
without_comment() {
    if reference broken '/^.. Returns how many bytes crust_send_datagram/,/\*\//c /* */' >"$work/refusal" 2>&1; then
        echo "nothing was noticed"
        return 1
    fi
    grep 'crust_max_datagram has no comment' "$work/refusal"
}
try "a function without a comment is noticed" without_comment
printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
