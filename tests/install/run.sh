#!/usr/bin/env bash
# Installs the library and uses it as strangers' projects do: by find_package, by
# add_subdirectory, by FetchContent and by pkg-config, from an installed prefix, from one that was
# moved, and from the build tree; in C programs without any C++, and inside a C++
# program and a shared library. tests/install/run.sh [BUILD]
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
root=$(cd "$here/../.." && pwd -P)
build=$(cd "${1:-$root/build}" && pwd -P)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# shellcheck source=tests/try.sh
. "$root/tests/try.sh"

# says PROGRAM: it runs over TCP and over UDP, for which a part of the library is C++.
says() { [ "$("$1")" = "libcrust $version: installed" ] && [ "$("$1" utp://127.0.0.1:0)" = "libcrust $version: installed" ]; }
needs() { readelf -d "$1" | grep -q 'NEEDED.*\[libcrust\.so\.1\]'; }
plain() { readelf -d "$1" | grep -q 'NEEDED.*libc\.so' && ! readelf -d "$1" | grep -E 'NEEDED.*(libstdc|libgcc_s|libsodium)'; }
alone() { plain "$1" && ! needs "$1"; }
# Grepping the output of a command that fails: pipefail would hide the match.
refuses() {
    local pattern=$1
    shift
    if "$@" >"$work/refusal" 2>&1; then
        echo "this should have been refused: $*"
        return 1
    fi
    # CMake folds long lines.
    tr -s '\n ' ' ' <"$work/refusal" | grep -q "$pattern" || {
        cat "$work/refusal"
        return 1
    }
}

# consume NAME CMAKE-ARGUMENT... configures, builds and runs the consumer in both kinds.
consume() {
    local name=$1 source=$2 dir=$work/$1
    shift 2
    try "$name: configure" cmake -S "$here/$source" -B "$dir" "$@"
    try "$name: build" cmake --build "$dir"
    try "$name: the program with the shared library runs" says "$dir/consumer_shared"
    try "$name: it asks for the library by its SONAME" needs "$dir/consumer_shared"
    try "$name: the program with the archive runs" says "$dir/consumer_static"
    try "$name: it does not ask for the library" alone "$dir/consumer_static"
}

# pkg_config NAME PREFIX LIBDIR compiles with what pkg-config answers.
pkg_config() {
    local name=$1 lib=$2/$3 flags
    export PKG_CONFIG_PATH=$lib/pkgconfig
    try "$name: pkg-config knows version $version" test "$(pkg-config --modversion crust)" = "$version"
    flags=$(pkg-config --cflags --libs crust) || flags=
    # shellcheck disable=SC2086 # flags are words
    try "$name: compile and link" cc -o "$work/pc" "$here/main.c" $flags -Wl,-rpath,"$lib"
    try "$name: the program runs" says "$work/pc"
    # shellcheck disable=SC2086
    try "$name: compile and link C++ with crust.hpp" c++ -std=c++17 -o "$work/pcc" "$root/docs/examples/raii.cc" $flags -Wl,-rpath,"$lib"
    try "$name: that program runs" "$work/pcc"
    flags=$(pkg-config --cflags crust)
    # shellcheck disable=SC2046,SC2086
    try "$name: compile and link the archive" cc -o "$work/pcs" "$here/main.c" $flags "$lib/libcrust.a" \
        $(pkg-config --static --libs-only-l crust | sed 's/-lcrust//')
    try "$name: that program runs" says "$work/pcs"
    try "$name: it asks for no C++ library" plain "$work/pcs"
}

# embed LIBDIR puts the archive where its inner parts could clash with the host's.
embed() {
    local include=(-I"$build/include" -DCRUST_STATIC -Dmain=consume)
    try "C++ host: compile and link the archive" sh -c "cc -c ${include[*]} -o '$work/consume.o' '$here/main.c' &&
        c++ -std=c++11 -Wall -Wextra -Werror -o '$work/host' '$here/host.cc' '$work/consume.o' '$1/libcrust.a' -lpthread"
    try "C++ host: it runs, with an operator new and exceptions of its own" says "$work/host"
    try "C++ host: link the shared library" \
        c++ -std=c++11 -o "$work/host-shared" "$here/host.cc" "$work/consume.o" -L"$1" -lcrust -Wl,-rpath,"$1"
    try "C++ host: that runs too" says "$work/host-shared"
    try "shared library around the archive: link" \
        cc -fPIC -shared "${include[@]}" -o "$work/libaround.so" "$here/main.c" "$1/libcrust.a" -lpthread -Wl,-z,defs
    try "shared library around the archive: it asks for no C++ library" alone "$work/libaround.so"
    try "shared library around the archive: a program runs with it" sh -c "
        printf 'int consume(int, char **);\nint main(int c, char **v) { return consume(c, v); }\n' >'$work/around.c' &&
        cc -o '$work/around' '$work/around.c' -L'$work' -laround -Wl,-rpath,'$work'"
    try "shared library around the archive: and says what it should" says "$work/around"
}

version=$(sed -n 's/^#define CRUST_VERSION_[MP][A-Z]* \([0-9]*\)$/\1/p' "$build/include/crust.h" | paste -sd.)
printf 'Using libcrust %s from %s, installing into %s\n' "$version" "$build" "$work"

libdir=lib/deep/er # not the usual depth: paths must be worked out, not assumed
try "configure the library" cmake -S "$root" -B "$work/library" \
    -DCMAKE_INSTALL_PREFIX="$work/prefix" -DCMAKE_INSTALL_LIBDIR=$libdir
try "build the library" cmake --build "$work/library"
try "install the library" cmake --install "$work/library"
try "building again does nothing" sh -c "cmake --build '$work/library' | grep -q 'Built target crust_build' &&
    ! cmake --build '$work/library' | grep -q 'Building libcrust'"

consume installed find_package -DCMAKE_PREFIX_PATH="$work/prefix" -DCrust_DIR="$work/prefix/$libdir/cmake/Crust"
pkg_config installed "$work/prefix" $libdir
mv "$work/prefix" "$work/moved"
consume moved find_package -DCrust_DIR="$work/moved/$libdir/cmake/Crust"
pkg_config moved "$work/moved" $libdir
consume build-tree find_package -DCMAKE_PREFIX_PATH="$build"
pkg_config build-tree "$build" lib
embed "$build/lib"
consume subdirectory add_subdirectory -DCRUST_SOURCE="$root" -DCRUST_OUTPUT_DIR="$work/library/out"
# The same sources, so that nothing is built again.
try "pack the sources" tar -C "$root" -czf "$work/libcrust.tar.gz" --transform 's,^,libcrust/,' \
    CMakeLists.txt LICENSE-APACHE LICENSE-MIT capi cmake core go.mod go.sum include
consume fetched fetch_content -DCRUST_ARCHIVE="$work/libcrust.tar.gz" -DCRUST_OUTPUT_DIR="$work/library/out"

try "another minor version is refused" refuses 'requested version "0.2"' \
    cmake -S "$here/find_package" -B "$work/refused" -DCMAKE_PREFIX_PATH="$build" -DCRUST_WANTED_VERSION=0.2
try "an unknown component is refused by name" refuses 'the component "quantum" is not installed' \
    cmake -S "$here/find_package" -B "$work/refused" -DCMAKE_PREFIX_PATH="$build" \
    -DCRUST_WANTED_VERSION=0.1 -DCRUST_WANTED_COMPONENTS=quantum
rm "$work/moved/$libdir/libcrust.a"
try "a component that was not installed is refused by name" refuses 'the component "static" is not installed' \
    cmake -S "$here/find_package" -B "$work/refused2" -DCrust_DIR="$work/moved/$libdir/cmake/Crust"
try "the other component still works" cmake -S "$here/find_package" -B "$work/shared-only" \
    -DCrust_DIR="$work/moved/$libdir/cmake/Crust" -DCRUST_WANTED_COMPONENTS=shared

printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
