#!/usr/bin/env bash
# Builds, tests and shows libcrust. Run it without arguments for help.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
BUILD=$ROOT/build
cd "$ROOT"
# shellcheck source=.ci/tools.sh
. "$ROOT/.ci/tools.sh"
# shellcheck source=.ci/suites.sh
. "$ROOT/.ci/suites.sh"

help() {
    cat <<'TEXT'
Usage: ./build.sh COMMAND [ARGUMENT...]

  demo [--mib N]  build the library, then let a C and a Python program meet over
                  it, talk, and stream 256 MiB (or N) each way, beside raw TCP
  lib             build everything a program links or runs:
                    build/bin/crust              the command-line tool
                    build/lib/libcrust.so*, .a   the library
                    build/include/crust.h*       its headers, for C and for C++
                    build/lib/pkgconfig, build/lib/cmake/Crust
  lib --target T  the same for another machine, in build/T: linux-amd64,
                  linux-arm64, linux-armv7, linux-amd64-musl, windows-amd64; see
                  docs/PLATFORMS.md
  test [NAME...]  run all tests, or the suites named; ends with a table
  bench [ARG...]  measure throughput, latency and connections
  check           formatters, linters, static analysis, type checks
  coverage        test coverage of Go, C, Rust and Python in one report:
                  build/coverage/report.txt and build/coverage/index.html
  fuzz [ARG...]   fuzz each target for a stated CPU time, 10 s unless --seconds N
                  says otherwise, or the targets named; docs/FUZZING.md keeps account
  wheel           the Python package into build/wheel: a wheel with the library
                  inside, and a source distribution
  docs            reference documentation into build/docs
  deb             Debian packages into build/deb: libcrust1, libcrust-dev,
                  python3-crust
  dist [--check]  a release of the last commit into build/dist: archives, Debian
                  packages, wheel, bill of materials, licences, checksums;
                  --check makes it twice and compares
  wireshark       the dissector for Wireshark into build/share/wireshark, and
                  where to copy it
  clean           remove build/ and what the bindings have built
  help            this text

Everything is built below build/. What is missing on the machine is installed
with apt-get when this runs as root or may use sudo without a password;
otherwise the exact command is printed and the exit status is 3. Other statuses:
0 all well, 1 something failed, 2 wrong usage.

Go 1.26 or newer is needed; with an older one, the right one is fetched from the
Go module proxy into the module cache. docs/BUILDING.md says more.
TEXT
}

usage_error() {
    printf 'build.sh: %s\n\n' "$1" >&2
    help >&2
    exit 2
}

# ---- the library ---------------------------------------------------------------

# fingerprint prints a digest of what the library and the tool are made of.
fingerprint() {
    {
        go version
        gcc --version
        g++ --version
        find go.mod go.sum build.sh .ci capi cmd core include cmake CMakeLists.txt -type f \
            ! -name '*_test.go' ! -path '*/testdata/*' -print0 | sort -z | xargs -0 sha256sum
    } | sha256sum
}

# build_library makes build/lib, build/include and build/bin, once for each state
# of the sources. Several runs at once wait for each other.
build_library() {
    local stamp
    mkdir -p "$BUILD/bin"
    exec 9>"$BUILD/.lock"
    flock 9
    stamp=$(fingerprint)
    if [ "$stamp" = "$(cat "$BUILD/.library" 2>/dev/null)" ] && [ -e "$BUILD/lib/libcrust.so" ] && [ -x "$BUILD/bin/crust" ]; then
        printf 'Library  build/lib/libcrust.so is up to date\n'
    else
        say "Building libcrust and the crust tool (the first time takes a minute or two)"
        rm -f "$BUILD/.library"
        "$ROOT/capi/build-lib.sh" "$BUILD"
        build_tool
        printf '%s\n' "$stamp" >"$BUILD/.library"
        printf 'Library  build/lib/libcrust.so, %s KiB\n' $(($(stat -L -c %s "$BUILD/lib/libcrust.so") / 1024))
    fi
    exec 9>&-
}

# build_tool makes the command-line tool. It holds libsodium like the library does,
# whose build has left the recipe and the compiled packages behind.
build_tool() {
    local recipe flags=''
    recipe=$BUILD/obj/$(go env GOOS)-$(go env GOARCH)-release/pc
    if [ -e "$recipe/libsodium.pc" ]; then
        flags="-O2 -g -L$(dirname "$(sed -n 's/^Libs: //p' "$recipe/libsodium.pc")")"
    fi
    PKG_CONFIG_PATH=$recipe${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH} CGO_LDFLAGS=$flags \
        go build -trimpath -tags netgo,osusergo -ldflags '-s -w -buildid=' -o "$BUILD/bin/crust" ./cmd/crust
}

# build_packages adds what CMake projects need; the .pc file comes with the library.
# It goes first: CMake removes the library when the command that builds it changes.
build_packages() {
    mkdir -p "$BUILD"
    cmake -S "$ROOT" -B "$BUILD/cmake" -DCRUST_OUTPUT_DIR="$BUILD" >"$BUILD/cmake.log" 2>&1 || {
        cat "$BUILD/cmake.log" >&2
        die "CMake could not configure the package files"
    }
}

# build_target TARGET makes build/TARGET/lib, include and bin. What it needs of
# libsodium for another machine than this one stays in build/sodium.
build_target() {
    local target=$1 out=$BUILD/$1 flags='-s -w -buildid=' tool=crust
    case $target in windows-*) tool=crust.exe flags+=" -extldflags '-static -Wl,--no-insert-timestamp'" ;; esac
    mkdir -p "$out/bin"
    exec 9>"$out/.lock"
    flock 9
    if [ "$target" != "$(native_target)" ]; then
        "$ROOT/capi/build-sodium.sh" "$target" "$BUILD/sodium/$target"
        export CRUST_SODIUM=$BUILD/sodium/$target/lib/libsodium.a
    fi
    "$ROOT/capi/build-lib.sh" --target "$target" "$out"
    "$ROOT/capi/build-lib.sh" --target "$target" --run "$out" \
        go build -buildmode=pie -trimpath -buildvcs=false -tags netgo,osusergo -ldflags "$flags" -o "$out/bin/$tool" ./cmd/crust
    exec 9>&-
}

# command_lib_target TARGET
command_lib_target() {
    "$ROOT/capi/build-lib.sh" --targets | grep -qxF -- "$1" ||
        usage_error "there is no target \"$1\"; there are: $("$ROOT/capi/build-lib.sh" --targets | paste -sd' ')"
    need_to_compile
    need_target "$1"
    install_needs
    ensure_go
    ! needs_sodium "$1" || ensure_rust
    say "Building libcrust and the crust tool for $1"
    build_target "$1"
    say "Ready"
    (cd "$BUILD" && printf '    build/%s\n' "$1"/bin/* "$1"/lib/*crust* "$1"/lib/pkgconfig/*.pc "$1"/include/crust.h)
    case $1 in
    *-musl) printf 'Programs are linked with it. musl refuses dlopen, and so Python: docs/PLATFORMS.md says what works.\n' ;;
    esac
}

command_lib() {
    if [ "${1:-}" = --target ]; then
        [ $# = 2 ] || usage_error "lib --target takes one target, such as linux-arm64"
        command_lib_target "$2"
        return
    fi
    [ $# = 0 ] || usage_error "lib takes no arguments but --target T"
    need_to_compile
    need_command cmake cmake "writes the package files for CMake projects"
    need_command make make "runs what CMake generates"
    install_needs
    ensure_go
    build_packages
    build_library
    say "Ready"
    (cd "$BUILD" && printf '    build/%s\n' bin/crust lib/libcrust.* lib/pkgconfig/*.pc lib/cmake/Crust/*.cmake include/crust.h*)
}

command_demo() {
    need_to_compile
    need_python plain
    install_needs
    ensure_go
    ensure_python
    build_library
    "$ROOT/tests/demo/run.sh" "$BUILD" "$@"
}

command_bench() {
    # Standard output is for the results, which may be JSON.
    {
        need_to_compile
        need_python plain
        install_needs
        ensure_go
        ensure_python
        build_library
    } >&2
    tests/bench/run.sh "$@"
}

command_clean() {
    [ $# = 0 ] || usage_error "clean takes no arguments"
    rm -rf "$BUILD" "$ROOT/bindings/rust/target" "$ROOT/bindings/rust/crust-compat/target" "$ROOT/tests/bench/build" \
        "$ROOT/tests/compat/target"
    find "$ROOT/bindings" "$ROOT/tests" -depth \( -name __pycache__ -o -name .pytest_cache -o -name .mypy_cache \
        -o -name .ruff_cache -o -name '*.egg-info' \) -exec rm -rf {} +
    printf 'Removed build/ and the caches of the bindings\n'
}

command_deb() {
    [ $# = 0 ] || usage_error "deb takes no arguments"
    need_to_compile
    need_python plain
    # shellcheck source=.ci/deb.sh
    . "$ROOT/.ci/deb.sh"
    need_for_deb
    install_needs
    ensure_go
    ensure_python
    build_packages
    build_library
    make_debs
}

command_wireshark() {
    local folder=''
    [ $# = 0 ] || usage_error "wireshark takes no arguments"
    mkdir -p "$BUILD/share/wireshark"
    cp "$ROOT"/tools/wireshark/* "$BUILD/share/wireshark/"
    if have tshark; then
        folder=$(tshark -G folders 2>/dev/null | sed -n 's/^Personal Lua Plugins:[[:space:]]*//p')
    fi
    say "Ready"
    printf '    build/share/wireshark/%s\n' "$(cd "$BUILD/share/wireshark" && echo crust.lua)" colorfilters
    printf 'Copy crust.lua to %s, or\n' "${folder:-the folder that Help > About Wireshark > Folders calls Personal Lua Plugins}"
    printf 'give it to one run: tshark -X lua_script:build/share/wireshark/crust.lua\n'
    printf 'View > Coloring Rules > Import takes the colours. docs/TRACER.md says more.\n'
}

command_docs() {
    [ $# = 0 ] || usage_error "docs takes no arguments"
    need_to_compile
    need_python venv
    need_rust rustc
    install_needs
    ensure_go
    ensure_rust
    ensure_python
    ensure_venv
    build_library
    # shellcheck source=.ci/docs.sh
    . "$ROOT/.ci/docs.sh"
    make_docs
}

main() {
    local command=${1:-help}
    [ $# = 0 ] || shift
    # Nothing that runs here asks the router of this machine, or broadcasts.
    export CRUST_PORTMAP=off CRUST_BEACON=off
    case $command in
    demo | lib | bench | deb | docs | wireshark | clean) "command_$command" "$@" ;;
    test | check | coverage | wheel | dist | fuzz)
        # shellcheck source=/dev/null
        . "$ROOT/.ci/$command.sh"
        "command_$command" "$@"
        ;;
    help | -h | --help) help ;;
    *) usage_error "there is no command \"$command\"" ;;
    esac
}

main "$@"
