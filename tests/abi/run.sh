#!/usr/bin/env bash
# Tests the C ABI of a built library.
#
#   tests/abi/run.sh LIBDIR
#
# LIBDIR holds libcrust.so, libcrust.a and pkgconfig/crust.pc, as
# capi/build-lib.sh makes them. Builds of the library with fault injection and
# with AddressSanitizer are made beside it, in LIBDIR/../obj. Prints TAP of each
# runner, one line for each other check, and last "N passed, N failed".
#
# ABI_FAST=1 leaves out valgrind and the AddressSanitizer build of the library.
set -euo pipefail

(($# == 1)) || {
    printf 'usage: tests/abi/run.sh LIBDIR\n' >&2
    exit 2
}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
lib=$(cd "$1" && pwd)
include=$root/include
work=$(dirname "$lib")/obj/abi
mkdir -p "$work"
passed=0 failed=0
CC=${CC:-cc} CXX=${CXX:-c++}
warnings=(-Wall -Wextra -Wpedantic -Werror)

ok() {
    passed=$((passed + 1))
    printf 'ok - %s\n' "$1"
}

not_ok() {
    failed=$((failed + 1))
    printf 'not ok - %s\n' "$1"
}

# check NAME COMMAND...: the command must succeed.
check() {
    local name=$1 log=$work/check.log
    shift
    if "$@" >"$log" 2>&1; then
        ok "$name"
    else
        not_ok "$name"
        sed 's/^/# /' "$log" | head -n 40
    fi
}

# same NAME WANT GOT: two files must be equal.
same() { check "$1" diff -u "$2" "$3"; }

# tap NAME COMMAND...: counts the lines of a runner, and its exit code.
tap() {
    local name=$1 log=$work/tap.log code=0
    shift
    printf '# %s\n' "$name"
    timeout -k 10 300 "$@" >"$log" 2>"$work/tap.err" || code=$?
    cat "$log"
    sed 's/^/# /' "$work/tap.err" | head -n 60
    local good bad
    good=$(grep -c '^ok ' "$log" || true)
    bad=$(grep -c '^not ok ' "$log" || true)
    passed=$((passed + good))
    failed=$((failed + bad))
    if ! grep -q '^1\.\.' "$log" || { ((code != 0)) && ((bad == 0)); }; then
        not_ok "$name ended early or with code $code"
    fi
}

sources=(tap host calls area_smoke area_version area_config area_argument area_life area_poll area_exchange area_udp area_resume area_callback area_process main)
hook_sources=(tap host calls hooks)

# compile OUT COMPILER-AND-FLAGS -- LINKER-FLAGS -- SOURCES
build() {
    local out=$1 flags=() link=() files=()
    shift
    while [[ $1 != -- ]]; do flags+=("$1") && shift; done
    shift
    while [[ $1 != -- ]]; do link+=("$1") && shift; done
    shift
    for source in "$@"; do files+=("$here/$source.c"); done
    "${flags[@]}" "${warnings[@]}" -D_GNU_SOURCE -I"$include" "${files[@]}" -x none -o "$out" "${link[@]}" -lpthread -ldl
}

headers() {
    local program=$work/header.c
    printf '#include <crust.h>\n#include <crust.h>\nint main(void) { return crust_abi_version() == CRUST_ABI_VERSION ? 0 : 1; }\n' >"$program"
    for standard in c99 c11 c17; do
        check "crust.h compiles as $standard" "$CC" "-std=$standard" "${warnings[@]}" -I"$include" -fsyntax-only "$program"
    done
    for standard in c++11 c++17 c++20; do
        check "crust.h compiles as $standard" "$CXX" "-std=$standard" "${warnings[@]}" -I"$include" -x c++ -fsyntax-only "$program"
    done
    check "the installed header is the one of the source" cmp "$include/crust.h" "$(dirname "$lib")/include/crust.h"
}

golden() {
    awk -f "$here/layout.awk" "$include/crust.h" >"$work/layout.inc"
    "$CC" -std=c99 "${warnings[@]}" -I"$include" -I"$work" "$here/layout.c" -o "$work/layout"
    "$work/layout" >"$work/layout.txt"
    same "layouts and numbers are those of layout.golden" "$here/layout.golden" "$work/layout.txt"
    "$CXX" -std=c++11 "${warnings[@]}" -I"$include" -I"$work" -x c++ "$here/layout.c" -o "$work/layout-cc"
    "$work/layout-cc" >"$work/layout-cc.txt"
    same "layouts are the same in C++" "$work/layout.txt" "$work/layout-cc.txt"

    "$CC" -std=c99 "${warnings[@]}" -I"$include" "$here/names.c" -o "$work/names" -L"$lib" -lcrust -Wl,-rpath,"$lib"
    "$work/names" >"$work/names.txt"
    go_codes >"$work/names-go.txt"
    same "codes and names are those of package crust" "$work/names-go.txt" "$work/names.txt"
    sed -n 's/^ *CRUST_ERR_[A-Z_]* *= *\(-[0-9]*\).*/\1/p; s/^ *CRUST_OK *= 0,$/0/p' "$include/crust.h" | sort -rn >"$work/numbers.txt"
    cut -d' ' -f1 "$work/names.txt" >"$work/numbers-lib.txt"
    same "every code of crust.h has a name" "$work/numbers.txt" "$work/numbers-lib.txt"
}

# The numbers and names in core/errors.go, as names.c prints them.
go_codes() {
    awk '
        /^\tCode[A-Za-z]+ +Code = / { number[$1] = $4 }
        /^var codeNames/ { table = 1 }
        table { line = $0; while (match(line, /Code[A-Za-z]+: "[a-z_]+"/)) {
            pair = substr(line, RSTART, RLENGTH); line = substr(line, RSTART + RLENGTH)
            split(pair, part, ": "); gsub(/"/, "", part[2]); print number[part[1]], part[2] } }
        table && /^}/ { exit }' "$root/core/errors.go" | sort -rn
}

symbols() {
    local so=$lib/libcrust.so
    LC_ALL=C sort "$root/capi/exports.txt" >"$work/exports.txt"
    nm -D --defined-only "$so" | sed -n 's/.* T \(.*\)@@CRUST_1$/\1/p' | LC_ALL=C sort >"$work/symbols.txt"
    same "the library exports capi/exports.txt as CRUST_1" "$work/exports.txt" "$work/symbols.txt"
    nm -D --defined-only "$so" | grep -vc ' T .*@@CRUST_1$' >"$work/others.txt" || true
    check "and nothing else but the version itself" test "$(<"$work/others.txt")" -le 1
    awk 'match($0, /CRUST_CALL crust_[a-z_0-9]+\(/) { print substr($0, RSTART + 11, RLENGTH - 12) }' "$include/crust.h" | LC_ALL=C sort >"$work/prototypes.txt"
    same "crust.h declares capi/exports.txt" "$work/exports.txt" "$work/prototypes.txt"
    nm --defined-only "$lib/libcrust.a" 2>/dev/null | awk '$2 == "T" { print $3 }' | LC_ALL=C sort >"$work/archive.txt"
    same "the archive defines capi/exports.txt" "$work/exports.txt" "$work/archive.txt"
    nm --defined-only "$lib/libcrust.a" 2>/dev/null | awk '$2 ~ /[A-Z]/ && $2 != "T" && $3 != "x_cgo_inittls"' >"$work/archive-others.txt"
    check "and no other global symbol" test ! -s "$work/archive-others.txt"

    readelf -d "$so" >"$work/dynamic.txt"
    check "the SONAME is libcrust.so.1" grep -q 'SONAME.*\[libcrust\.so\.1\]' "$work/dynamic.txt"
    check "libcrust.so.1 leads to the library" test "$(readlink -f "$lib/libcrust.so.1")" = "$(readlink -f "$so")"
    sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' "$work/dynamic.txt" | grep -vE '^(libc\.so\.6|ld-linux[-a-z0-9_.]*\.so\.[0-9]|libpthread\.so\.0|libm\.so\.6)$' >"$work/needed.txt" || true
    check "it needs the C library only" test ! -s "$work/needed.txt"
    check "relocations are read-only and bound at once" grep -q 'BIND_NOW' "$work/dynamic.txt"
    check "no relocation in code" sh -c "! grep -q TEXTREL '$work/dynamic.txt'"
    check "no RPATH" sh -c "! grep -qE 'RPATH|RUNPATH' '$work/dynamic.txt'"
    readelf -lW "$so" >"$work/segments.txt"
    check "RELRO is there" grep -q GNU_RELRO "$work/segments.txt"
    check "the stack is not executable" sh -c "grep GNU_STACK '$work/segments.txt' | grep -q 'RW '"
    check "no generated header was left" sh -c "! ls '$lib'/*.h '$(dirname "$lib")'/*.h 2>/dev/null"
    printf '# it asks for glibc %s\n' "$(objdump -T "$so" | sed -n 's/.*GLIBC_\([0-9.]*\).*/\1/p' | sort -uV | tail -n 1)"
}

# A second copy elsewhere must still be found: nothing in crust.pc is absolute.
pkgconfig() {
    local copy=$work/moved
    command -v pkg-config >/dev/null || {
        not_ok "pkg-config is installed"
        return
    }
    rm -rf "$copy" && mkdir -p "$copy/lib" "$copy/include"
    cp -P "$lib"/libcrust.* "$copy/lib" && cp -r "$lib/pkgconfig" "$copy/lib" && cp "$include/crust.h" "$copy/include"
    local flags
    flags=$(PKG_CONFIG_PATH=$copy/lib/pkgconfig pkg-config --cflags --libs crust)
    printf '#include <crust.h>\nint main(void) { return crust_version_number() == 0; }\n' >"$work/pc.c"
    # shellcheck disable=SC2086 # the flags are words
    check "pkg-config, shared, in another place" "$CC" -std=c99 "$work/pc.c" -o "$work/pc" $flags -Wl,-rpath,"$copy/lib"
    check "and the program runs" "$work/pc"
    rm -f "$copy"/lib/libcrust.so*
    flags=$(PKG_CONFIG_PATH=$copy/lib/pkgconfig pkg-config --static --cflags --libs crust)
    # shellcheck disable=SC2086
    check "pkg-config, static" "$CC" -std=c99 -DCRUST_STATIC "$work/pc.c" -o "$work/pc" $flags
    check "and that runs too" "$work/pc"
}

shared=(-L"$lib" -lcrust "-Wl,-rpath,$lib")

headers
golden
symbols
pkgconfig

build "$work/runner" "$CC" -std=c99 -O1 -g -- "${shared[@]}" -- "${sources[@]}"
tap "C99, shared library" "$work/runner"
build "$work/runner-cc" "$CXX" -std=c++11 -O1 -g -x c++ -- "${shared[@]}" -- "${sources[@]}"
tap "C++11, shared library" "$work/runner-cc" smoke version config argument exchange udp resume callback
build "$work/runner-static" "$CC" -std=c99 -O1 -g -DCRUST_STATIC -- "$lib/libcrust.a" -- "${sources[@]}"
tap "C99, static library" "$work/runner-static" smoke version config argument poll exchange udp resume callback

"$root/capi/build-lib.sh" --test "$work/test" | sed 's/^/# /'
build "$work/hooks" "$CC" -std=c99 -O1 -g -- -L"$work/test/lib" -lcrust -Wl,-rpath,"$work/test/lib" -- "${hook_sources[@]}"
tap "injected faults" "$work/hooks"
tap "pointers between Go and C" env LD_LIBRARY_PATH="$work/test/lib" "$work/runner" smoke config poll exchange udp resume callback

build "$work/runner-asan" "$CC" -std=c99 -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -- "${shared[@]}" -- "${sources[@]}"
tap "host with AddressSanitizer" "$work/runner-asan" smoke version config argument life poll exchange udp resume callback

if [[ ${ABI_FAST:-0} != 1 ]]; then
    "$root/capi/build-lib.sh" --asan "$work/asan" | sed 's/^/# /'
    build "$work/runner-asan-lib" "$CC" -std=c99 -O1 -g -fsanitize=address -- -L"$work/asan/lib" -lcrust -Wl,-rpath,"$work/asan/lib" -- "${sources[@]}"
    tap "host and library with AddressSanitizer" "$work/runner-asan-lib" smoke version config argument poll exchange udp resume callback
    if command -v valgrind >/dev/null; then
        tap "valgrind" valgrind --quiet --error-exitcode=9 --leak-check=full --show-leak-kinds=definite,indirect \
            --errors-for-leak-kinds=definite,indirect --undef-value-errors=no --suppressions="$here/valgrind.supp" \
            "$work/runner" smoke version
    else
        not_ok "valgrind is installed"
    fi
fi

printf '%d passed, %d failed\n' "$passed" "$failed"
((failed == 0))
