#!/usr/bin/env bash
# Builds libcrust: the one place that knows its compiler and linker flags.
#
#   capi/build-lib.sh [OPTION] OUTDIR
#
#   (none)            the release: shared and static library
#   --debug           with symbols and without optimisation of the C part
#   --asan            with AddressSanitizer in Go and C; shared only
#   --cover           with coverage counters; shared only. When a program that
#                     uses the library exits, Go's counters go to $GOCOVERDIR
#                     and those of the C parts to OUTDIR/obj/gcov, for gcov
#                     beside copies of the sources, whose names are unique
#   --test            with the fault injection that tests/abi uses, and with Go's
#                     dearest check of pointers; shared only
#   --target OS-ARCH  one of those that --targets prints; needs the cross compilers
#                     of C and C++ for that (docs/PLATFORMS.md names them), and
#                     libsodium for it, which capi/build-sodium.sh makes
#   --run             OUTDIR is followed by a command, which is run in place of the
#                     build, with the compilers and flags of the target
#   --targets         prints the targets, and builds nothing
#   --triple OS-ARCH  prints what the compilers call a target, and builds nothing
#
# Result: OUTDIR/lib/libcrust.so.X.Y.Z with its links, lib/libcrust.a,
# lib/pkgconfig/crust.pc, include/crust.h and crust.hpp; for Windows bin/crust.dll,
# lib/libcrust.dll.a (MinGW), lib/crust.lib (others) and lib/crust.def. Nothing is
# rebuilt when nothing has changed.
#
# libsodium is linked statically, and hidden, when the compiler finds
# libsodium.a, dynamically otherwise. The C++ library, which libutp needs, is always
# linked statically and hidden: what links libcrust needs none, and may have its own.
# CC and CXX are respected; CRUST_SODIUM names a libsodium.a that the compiler would
# not find, beside ../include.
set -euo pipefail

usage() {
    sed -n '2,/^set -euo/p' "${BASH_SOURCE[0]}" | sed -n 's/^# \{0,1\}//p'
}

fail() {
    printf 'build-lib.sh: %s\n' "$*" >&2
    exit 1
}

# The targets: the name, what the compilers call it, and Go.
targets='linux-amd64 x86_64-linux-gnu GOOS=linux GOARCH=amd64
linux-arm64 aarch64-linux-gnu GOOS=linux GOARCH=arm64
linux-armv7 arm-linux-gnueabihf GOOS=linux GOARCH=arm GOARM=7
linux-amd64-musl x86_64-linux-musl GOOS=linux GOARCH=amd64
windows-amd64 x86_64-w64-mingw32 GOOS=windows GOARCH=amd64'

# recipe TARGET prints the line of a target without the name.
recipe() {
    local line
    line=$(grep "^$1 " <<<"$targets") ||
        fail "no recipe for \"$1\"; there is one for $(cut -d' ' -f1 <<<"$targets" | paste -sd' ')"
    printf '%s\n' "${line#* }"
}

variant=release target='' run=''
while (($# > 0)); do
    case $1 in
    --debug | --asan | --cover | --test) variant=${1#--} ;;
    --target)
        (($# > 1)) || fail "--target needs a value such as windows-amd64"
        target=$2
        shift
        ;;
    --run) run=yes ;;
    --targets)
        cut -d' ' -f1 <<<"$targets"
        exit 0
        ;;
    --triple)
        (($# > 1)) || fail "--triple needs a target such as windows-amd64"
        triple=$(recipe "$2")
        printf '%s\n' "${triple%% *}"
        exit 0
        ;;
    --help | -h)
        usage
        exit 0
        ;;
    -*) fail "unknown option $1 (see --help)" ;;
    *) break ;;
    esac
    shift
done
(($# == 1)) || [[ -n $run && $# -gt 1 ]] || fail "want one output directory (see --help)"

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
mkdir -p "$1"
out=$(cd "$1" && pwd)
shift

for tool in go sed sha256sum nm readelf; do
    command -v "$tool" >/dev/null || fail "$tool is not installed"
done
unset GOOS GOARCH GOARM GOAMD64 GOEXPERIMENT
export GOFLAGS='' CGO_ENABLED=1
native=$(go env GOHOSTOS)-$(go env GOHOSTARCH)
[[ $native == linux-arm ]] && native=linux-armv7
target=${target:-$native}
settings=$(recipe "$target")
read -r triple settings <<<"$settings"
# shellcheck disable=SC2086,SC2163
export $settings
prefix=
[[ $target == "$native" ]] || prefix=$triple-
musl=
if [[ $target == *-musl ]]; then # the binutils are those of the machine, and there is no C++ library
    musl=yes
    export CC=${CC:-${prefix}gcc} CXX=${CXX:-${prefix}gcc} CGO_CXXFLAGS=${CGO_CXXFLAGS--O2 -g -fno-exceptions -fno-rtti}
    prefix=
    case $variant in release | debug) ;; *) fail "for musl there is only the release and --debug" ;; esac
fi
export CC=${CC:-${prefix}gcc} CXX=${CXX:-${prefix}g++}
command -v "${CC%% *}" >/dev/null || fail "the C compiler ${CC%% *} is not installed"
command -v "${CXX%% *}" >/dev/null || fail "the C++ compiler ${CXX%% *} is not installed"

header=$root/include/crust.h
version_part() { sed -n "s/^#define CRUST_VERSION_$1 \\([0-9]*\\)\$/\\1/p" "$header"; }
version=$(version_part MAJOR).$(version_part MINOR).$(version_part PATCH)
abi=$(sed -n 's/^#define CRUST_ABI_VERSION *\([0-9]*\)u.*/\1/p' "$header")
[[ $version =~ ^[0-9]+\.[0-9]+\.[0-9]+$ && -n $abi ]] || fail "cannot read the version from include/crust.h"

obj=$out/obj/$target-$variant
mkdir -p "$obj" "$out/lib/pkgconfig" "$out/include"
if command -v flock >/dev/null; then # two builds into one place take turns
    exec 9>"$out/obj/lock"
    flock 9
fi

exports=$obj/exports.txt
if [[ $variant == test ]]; then
    cat "$here/exports.txt" "$here/exports_test.txt"
else
    cat "$here/exports.txt"
fi | LC_ALL=C sort >"$exports"

# The archive of libsodium goes in whole by its name, so that the linker cannot
# prefer the shared one. The flag in CGO_LDFLAGS only tells the build cache the
# two ways apart: it does not look at what pkg-config answers.
sodium=${CRUST_SODIUM:-$($CC -print-file-name=libsodium.a)}
if [[ -f $sodium ]]; then
    sodium=$(cd "$(dirname "$sodium")" && pwd)/$(basename "$sodium")
    mkdir -p "$obj/pc"
    cflags=
    [[ $target == windows-* ]] && cflags='-DSODIUM_STATIC=1'
    [[ -n ${CRUST_SODIUM:-} ]] && cflags+=" -I$(dirname "$(dirname "$sodium")")/include"
    printf 'Name: libsodium\nDescription: the static library\nVersion: 1.0\nLibs: %s\nCflags: %s\n' \
        "$sodium" "$cflags" >"$obj/pc/libsodium.pc"
    export PKG_CONFIG_PATH=$obj/pc${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}
    CGO_LDFLAGS="-O2 -g -L$(dirname "$sodium")"
else
    [[ $target == "$native" ]] || fail "there is no libsodium.a for $triple"
    sodium=
    CGO_LDFLAGS='-O2 -g'
fi
if [[ -n $musl ]]; then
    $CC -O2 -fPIC -c "$here/musl/new.c" -o "$obj/new.o"
    CGO_LDFLAGS+=" $obj/libnew.a"
    rm -f "$obj/libnew.a" && ar rcsD "$obj/libnew.a" "$obj/new.o"
fi
export CGO_LDFLAGS
# Said for what --run runs, too: Go's build cache knows what was compiled by the flags.
export CGO_CFLAGS=${CGO_CFLAGS--O2 -g}
if [[ -n $run ]]; then
    exec 9>&-
    exec "$@"
fi

# archive NAME prints the path of a static library of the C++ compiler.
archive() {
    local path
    path=$($CXX -print-file-name="$1")
    [[ -f $path ]] || fail "$CXX has no $1 (on Debian it is in the package libstdc++-N-dev, elsewhere in libstdc++-static)"
    printf '%s\n' "$path"
}
cxx_parts=()
[[ -n $musl ]] || cxx_parts=("$(archive libstdc++.a)" "$(archive libgcc_eh.a)")

# What the build depends on. An unchanged stamp means an unchanged result.
stamp() {
    printf '%s\n' "$version $abi $variant $target $CC $CXX" "${CGO_CFLAGS-}" "${CGO_CXXFLAGS-}"
    go version
    $CC --version | head -n 1
    $CXX --version | head -n 1
    [[ -n $musl ]] || sha256sum "${cxx_parts[@]}"
    (cd "$root" && find core capi include go.mod go.sum -type f ! -name '*_test.go' ! -path '*/testdata/*' -print0 |
        LC_ALL=C sort -z | xargs -0 sha256sum)
    [[ -z $sodium ]] || sha256sum "$sodium"
}
new_stamp=$(stamp | sha256sum | cut -d' ' -f1)
main_result=$out/lib/libcrust.so.$version
[[ $GOOS == windows ]] && main_result=$out/bin/crust.dll
if [[ -f $out/obj/stamp && $(<"$out/obj/stamp") == "$new_stamp" && -f $main_result ]]; then
    printf 'libcrust %s (%s, %s) is up to date in %s\n' "$version" "$variant" "$target" "$out"
    exit 0
fi
rm -f "$out/obj/stamp"

# cover_compiler puts a script in the compiler's place that adds counters to our
# C files and keeps their notes in OUTDIR/obj/gcov. Go's build cache knows
# compilers by name: a name of its own keeps it from answering with objects whose
# notes lie elsewhere.
cover_compiler() {
    local gcov=$out/obj/gcov wrapper sources
    sources=$(find "$here" "$root/core" -name '*.c' ! -path '*/testdata/*' -printf '%f\n' | LC_ALL=C sort)
    [[ -z $(uniq -d <<<"$sources") ]] || fail "two C files are named $(uniq -d <<<"$sources")"
    sources=$(paste -sd'|' <<<"$sources")
    mkdir -p "$gcov"
    wrapper=$(find "$gcov" -name 'cc-cover-*' | head -n 1)
    if [[ -z $wrapper ]]; then
        wrapper=$gcov/cc-cover-$RANDOM$RANDOM$RANDOM
        cat >"$wrapper" <<EOF
#!/bin/sh
for word; do
    case \$word in
    $sources) exec $CC "\$@" -O0 -g --coverage -fprofile-update=atomic -dumpdir '$gcov/' -dumpbase "\$word" -dumpbase-ext .c ;;
    esac
done
exec $CC "\$@"
EOF
        chmod +x "$wrapper"
    fi
    CC=$wrapper
}

tags=netgo,osusergo # names are never resolved, so the C resolver is not needed
buildflags=(-trimpath -buildvcs=false)
strip='-s -w'
case $variant in
debug)
    CGO_CFLAGS='-O0 -g'
    buildflags=(-buildvcs=false -gcflags=all='-N -l')
    strip=
    ;;
asan)
    buildflags+=(-asan)
    strip=
    ;;
cover)
    cover_compiler
    buildflags=(-buildvcs=false -cover -covermode=atomic "-coverpkg=./core/...,./capi")
    tags+=,crustcover
    ;;
test)
    tags+=,crusttest
    export GOEXPERIMENT=cgocheck2 # every store of a Go pointer into memory of C is fatal
    ;;
esac
buildflags+=(-tags "$tags")

say() { printf 'libcrust: %s\n' "$*"; }

build_shared() {
    local map=$obj/exports.map lib=libcrust.so.$version ext
    {
        printf 'CRUST_%s {\n  global:\n' "$abi"
        sed 's/.*/    &;/' "$exports"
        printf '  local:\n    *;\n};\n'
    } >"$map"
    ext="-Wl,-soname,libcrust.so.$abi -Wl,--version-script=$map -Wl,--exclude-libs,ALL"
    ext+=" -Wl,-z,relro,-z,now -Wl,-z,noexecstack -Wl,--no-undefined -Wl,--build-id=none"
    [[ $variant == cover ]] && ext+=" --coverage"
    [[ $variant == asan ]] && ext=${ext/ -Wl,--no-undefined/} # the host brings the sanitizer
    say "linking $lib ($variant, $target)"
    if [[ -n $musl ]]; then
        # shellcheck disable=SC2086 # words
        $CC -shared -Wl,-Bsymbolic -Wl,-z,nodelete $ext "$obj/crust.o" -o "$obj/$lib"
    else
        (cd "$root" && go build "${buildflags[@]}" -buildmode=c-shared \
            -ldflags "$strip -buildid= -extldflags '$ext'" -o "$obj/$lib" ./capi)
    fi
    rm -f "$obj/${lib%.*}.h" # the header cgo writes is not ours
    mv -f "$obj/$lib" "$out/lib/$lib"
    ln -sfn "$lib" "$out/lib/libcrust.so.$abi"
    ln -sfn "libcrust.so.$abi" "$out/lib/libcrust.so"
    nm -D --defined-only "$out/lib/$lib" | sed -n 's/.* [A-Z] \([^@]*\).*/\1/p' | grep -v "^CRUST_$abi\$" |
        LC_ALL=C sort | diff - "$exports" >"$obj/symbols.diff" ||
        fail "the library exports other symbols than capi/exports.txt: $(tr '\n' ' ' <"$obj/symbols.diff")"
    # With a sanitizer it may: the sanitizer's own library needs it.
    if [[ $variant != asan ]] && readelf -d "$out/lib/$lib" | grep -E 'NEEDED.*(libstdc\+\+|libgcc_s)'; then
        fail "the library needs a C++ library at run time"
    fi
}

# The archive is one object in which only the functions of crust.h are global,
# libsodium and what is used of the C++ library included, so that it cannot clash
# with anything in the host and links with a C compiler. Section groups are
# resolved: the linker of a C++ host would else take the host's group of the same
# name (DW.ref.__gxx_personality_v0) for ours, whose symbols are hidden.
build_static() {
    local go_archive=$obj/go.a objcopy=${prefix}objcopy ld=${prefix}ld ar=${prefix}ar
    say "linking libcrust.a ($target)"
    (cd "$root" && go build "${buildflags[@]}" -buildmode=c-archive -ldflags "$strip -buildid=" -o "$go_archive" ./capi)
    rm -f "$obj/go.h"
    [[ -z $musl ]] || start_for_musl "$go_archive"
    "$ld" -r --force-group-allocation --whole-archive "$go_archive" --no-whole-archive ${sodium:+"$sodium"} \
        ${cxx_parts[@]+"${cxx_parts[@]}"} -o "$obj/crust.o"
    "$objcopy" --keep-global-symbols="$exports" "$obj/crust.o"
    "$objcopy" --strip-debug "$obj/crust.o"
    rm -f "$out/lib/libcrust.a"
    "$ar" rcsD "$out/lib/libcrust.a" "$obj/crust.o"
}

# start_for_musl ARCHIVE gives what Go has built another start, see musl/start.c.
start_for_musl() {
    local parts=$obj/parts
    rm -rf "$parts"
    mkdir "$parts"
    (cd "$parts" && ar x "$1")
    objcopy --globalize-symbol=_rt0_amd64_linux_lib --remove-section=.init_array --remove-section=.rela.init_array "$parts/go.o"
    $CC -O2 -fPIC -Wall -Wextra -Werror -c "$here/musl/start.c" -o "$parts/start.o"
    cp "$obj/new.o" "$parts/"
    rm "$1"
    ar rcsD "$1" "$parts"/*.o
}

# Go writes a module definition file of its own unless --export-all-symbols is
# given; ours then decides. The LIBRARY line is the name that programs import. The
# threads of the C parts are those of winpthreads, which goes in like the rest. No
# file says when it was made.
build_dll() {
    local def=$out/lib/crust.def ext
    mkdir -p "$out/bin"
    { printf 'LIBRARY crust.dll\nEXPORTS\n' && sed 's/^/    /' "$exports"; } >"$def"
    ext="-static -static-libgcc -Wl,--export-all-symbols -Wl,--exclude-all-symbols $def"
    ext+=" -Wl,--no-insert-timestamp"
    say "linking crust.dll ($variant, $target)"
    (cd "$root" && go build "${buildflags[@]}" -buildmode=c-shared \
        -ldflags "$strip -buildid= -extldflags '$ext'" -o "$obj/crust.dll" ./capi)
    rm -f "$obj/crust.h" # the header cgo writes is not ours
    check_dll "$obj/crust.dll"
    mv -f "$obj/crust.dll" "$out/bin/crust.dll"
    (cd "$out/lib" && for name in libcrust.dll.a crust.lib; do
        "${prefix}dlltool" --deterministic-libraries -d crust.def -t crust -l "$name"
    done)
}

# check_dll fails when the DLL exports something else than capi/exports.txt, or needs
# a library that is not a part of every Windows.
check_dll() {
    local imports
    "${prefix}objdump" -p "$1" | sed -n '/Ordinal\/Name Pointer/,/^$/s/^\t\[ *[0-9]*\] //p' |
        sed 's/.* //' | LC_ALL=C sort | diff - "$exports" >"$obj/symbols.diff" ||
        fail "crust.dll exports other symbols than capi/exports.txt: $(tr '\n' ' ' <"$obj/symbols.diff")"
    imports=$("${prefix}objdump" -p "$1" | sed -n 's/^\tDLL Name: //p' |
        grep -viE '^(kernel32|advapi32|ws2_32|bcrypt|ntdll|msvcrt|ucrtbase|api-ms-win-[a-z0-9-]*)\.dll$') ||
        return 0
    fail "crust.dll needs what not every Windows has: $(tr '\n' ' ' <<<"$imports")"
}

write_pc() {
    local private='-lpthread' requires=
    [[ -n $sodium ]] || requires='Requires.private: libsodium'
    cat >"$out/lib/pkgconfig/crust.pc" <<EOF
prefix=\${pcfiledir}/../..
exec_prefix=\${prefix}
libdir=\${prefix}/lib
includedir=\${prefix}/include

Name: crust
Description: Reliable, encrypted peer-to-peer connections
Version: $version
$requires
Libs: -L\${libdir} -lcrust
Libs.private: $private
Cflags: -I\${includedir}
EOF
    sed -i '/^$/N;/^\n$/D' "$out/lib/pkgconfig/crust.pc"
}

if [[ $GOOS == windows ]]; then
    build_dll
else
    # For musl the shared library is made of what the static one is.
    case $variant in release | debug) build_static ;; esac
    build_shared
fi
cp -f "$header" "${header}pp" "$out/include/"
write_pc
printf '%s\n' "$new_stamp" >"$out/obj/stamp"
say "done in $out"
