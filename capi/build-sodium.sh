#!/usr/bin/env bash
# Builds libsodium for another target than this machine, as a static library that
# may become a part of a shared one.
#
#   capi/build-sodium.sh TARGET OUTDIR
#
# TARGET is one of capi/build-lib.sh; the cross compiler is the one that script
# would take, or CC. Result: OUTDIR/lib/libsodium.a and OUTDIR/include, which
# build-lib.sh takes by CRUST_SODIUM=OUTDIR/lib/libsodium.a. Nothing is built when
# it is there already.
#
# The source is libsodium's own release archive, unchanged, as the Rust crate
# libsodium-sys-stable carries it: cargo fetches that one crate and the index
# vouches for it, and the digest below for both. CRUST_SODIUM_SOURCE names an
# archive to take instead, where there is no cargo.
set -euo pipefail

crate=libsodium-sys-stable crate_version=1.24.3
digest=eb9873cc5ccd7b26ef058394264663c99e9c047b423be1ffd484071774198f26 # of LATEST.tar.gz in it

fail() {
    printf 'build-sodium.sh: %s\n' "$*" >&2
    exit 1
}

(($# == 2)) || fail "want a target and an output directory"
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
target=$1
triple=$("$here/build-lib.sh" --triple "$target")
compiler=${CC:-$triple-gcc}
mkdir -p "$2"
out=$(cd "$2" && pwd)

stamp="$digest $target $compiler $($compiler --version | head -n 1)"
if [[ -f $out/lib/libsodium.a && $(cat "$out/stamp" 2>/dev/null) == "$stamp" ]]; then
    exit 0
fi
say() { printf 'libsodium: %s\n' "$*"; }

# fetch prints the path of the release archive.
fetch() {
    local cache=${CARGO_HOME:-$HOME/.cargo}/registry/cache found
    found=$(find "$cache" -name "$crate-$crate_version.crate" 2>/dev/null | head -n 1)
    if [[ -z $found ]]; then
        command -v cargo >/dev/null || fail "cargo is not installed, which fetches the source of libsodium"
        (cd / && cargo info --quiet "$crate@$crate_version" >/dev/null) || fail "cargo could not fetch $crate $crate_version"
        found=$(find "$cache" -name "$crate-$crate_version.crate" | head -n 1)
        [[ -n $found ]] || fail "cargo has left no $crate-$crate_version.crate below $cache"
    fi
    tar -xzf "$found" -C "$work" "$crate-$crate_version/LATEST.tar.gz"
    printf '%s\n' "$work/$crate-$crate_version/LATEST.tar.gz"
}

work=$(mktemp -d "$out/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
archive=${CRUST_SODIUM_SOURCE:-$(fetch)}
[[ $(sha256sum <"$archive") == "$digest  -" ]] || fail "$archive is not the archive that this recipe is written for: its digest differs"
say "building for $target (half a minute, once)"
mkdir "$work/source" "$work/build"
tar -xzf "$archive" -C "$work/source" --strip-components=1
build() {
    cd "$work/build"
    ../source/configure --host="$triple" --prefix="$out" --disable-shared --enable-static --with-pic \
        --disable-dependency-tracking --disable-pie CC="$compiler" CFLAGS='-O2'
    make -j "$(nproc)" -C src/libsodium install
}
(build) >"$out/build.log" 2>&1 || {
    tail -n 20 "$out/build.log" >&2
    fail "libsodium could not be built for $target (the whole log is $out/build.log)"
}
rm -f "$out/lib/libsodium.la"
printf '%s\n' "$stamp" >"$out/stamp"
