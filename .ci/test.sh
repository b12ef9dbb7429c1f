# shellcheck shell=bash
# build.sh test: every test there is, one suite after another. Sourced by build.sh.

# shellcheck source=.ci/wheel.sh
. "$ROOT/.ci/wheel.sh"

# need_to_test [SUITE...] asks for what these suites need, or all.
need_to_test() {
    if [ $# = 0 ] || [[ " $* " == *" platforms "* ]]; then
        need_target windows-amd64
        need_wine
        need_target linux-arm64
        need_target linux-armv7
        [ "${CRUST_PLATFORMS:-}" != all ] || need_target linux-amd64-musl
        need_qemu
    fi
    need_to_compile
    need_python venv
    need_rust rustc
    need_command cmake cmake "the install tests consume the library by CMake"
    need_command make make "runs what CMake generates"
    need_command abidiff abigail-tools "compares the C ABI with that of the last release"
    need_for_deb
    need_command lintian lintian "looks for faults in the Debian packages"
    need_command debootstrap debootstrap "makes the Debian in which they are installed"
    [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || need debian-archive-keyring "knows that it is Debian's"
    need_command tshark tshark "shows captures to the dissector of tools/wireshark"
    need_command valgrind valgrind "looks for leaks in programs that use the library"
    need_command ip iproute2 "makes the networks of the port mapping tests"
    need_command nft nftables "the router of the port mapping tests"
    need_command miniupnpd miniupnpd-nftables "maps ports in that router"
    need_command upnpc miniupnpc "asks that router beside libcrust"
    need_command tmux tmux "the terminal in which crust top is looked at"
    # Where systemd runs, the package would start a server for all: there what needs it is left out.
    [ -d /run/systemd/system ] || need_command turnserver coturn "a server of STUN that is not ours, for natlab"
    [ -d /run/systemd/system ] || need_command prometheus prometheus "scrapes peers and answers the queries of the board, for metrics"
    install_needs
    ensure_go
    ensure_python
    ensure_rust
    ensure_venv
}

# What every binding needs to find the library that was just built.
use_library() {
    export CRUST_LIBRARY=$BUILD/lib/libcrust.so.1 CRUST_LIB_DIR=$BUILD/lib
    export PYTHONPATH=$ROOT/bindings/python/src PYTHONDONTWRITEBYTECODE=1
}

# The packages of the library itself; those below tests/ need it built.
unit_packages() { go list ./... | grep -v '/tests/' | grep -v '/archtest$'; }

run_format() {
    local files
    files=$(gofmt -l core capi cmd tests)
    if [ -n "$files" ]; then
        printf 'gofmt would change:\n%s\n%d files are not formatted\n' "$files" "$(printf '%s\n' "$files" | wc -l)"
        return 1
    fi
    printf '%d Go files formatted\n' "$(find core capi cmd tests -name '*.go' | wc -l)"
}

run_vet() { go vet ./... && printf 'nothing found in %d packages\n' "$(go list ./... | wc -l)"; }

# gotest ARGUMENT... runs go test and sums it up.
gotest() { go test -json -timeout 15m "$@" | python3 "$ROOT/.ci/gotest.py"; }

# One processor a package (as many packages at a time as there are): in Go 1.26 the
# timers of a testing/synctest bubble share one context of the race detector, and two
# that end at once on two processors crash it, or make it fail a check of its own.
run_unit() {
    # shellcheck disable=SC2046
    gotest -race -cpu 1 -shuffle=on $(unit_packages)
}

# fuzzed_packages lists the directories of the module in which there are fuzz targets.
fuzzed_packages() {
    grep -rl --include='*_test.go' '^func Fuzz' core capi cmd tests |
        grep -v '^tests/bench/' | xargs -n 1 dirname | sort -u | sed 's,^,./,'
}

# Each fuzz target for a moment, which also proves that it still is one. The bound
# is a number of inputs: with a time, go test now and then calls its end a failure.
# A package is linked once for all of its targets.
run_fuzz() {
    local package target program=$BUILD/fuzz.test cache count=0 runs=${CRUST_FUZZ_RUNS:-3000}
    cache=$(go env GOCACHE)/fuzz
    for package in $(fuzzed_packages); do
        go test -c -fuzz=. -o "$program" "$package"
        for target in $("$program" -test.list '^Fuzz'); do
            if ! (cd "$package" && "$program" -test.run '^$' -test.fuzz "^$target\$" -test.fuzztime "${runs}x" -test.parallel 2 \
                -test.fuzzcachedir "$cache/$(go list .)") >"$BUILD/log/fuzz.out" 2>&1; then
                cat "$BUILD/log/fuzz.out"
                printf '%s in %s failed\n' "$target" "$package"
                return 1
            fi
            if ! grep -q '^fuzz: ' "$BUILD/log/fuzz.out"; then
                printf '%-34s cannot be fuzzed on this machine\n' "$target"
                continue
            fi
            printf '%-34s %s\n' "$target" "$(grep -o 'execs: [0-9]*' "$BUILD/log/fuzz.out" | tail -n 1)"
            count=$((count + 1))
        done
    done
    rm -f "$program"
    printf '%d fuzz targets, %s inputs each, no failure\n' "$count" "$runs"
    [ "$count" -gt 0 ]
}

# libutp and the engine around it are C++ and C, where Go looks at no bound: the
# same tests and hostile packets again, with AddressSanitizer in all of C, and
# with every pointer watched that goes there from Go. So for the record ciphers in C.
run_sanitizer() {
    local runs=${CRUST_FUZZ_RUNS:-3000} package=./core/internal/transport/utp target
    export GOEXPERIMENT=cgocheck2 ASAN_OPTIONS=detect_leaks=0
    for target in $(go test -asan -list '^Fuzz' $package | grep '^Fuzz'); do
        go test -asan -run '^$' -fuzz "^$target\$" -fuzztime "${runs}x" -parallel 2 $package
    done
    gotest -asan $package
    gotest -asan -run 'Wide' ./core/internal/secure
}

# The benchmarks are modules of their own, because of what they compare with. Here
# they measure for a moment only, which shows that they work.
run_bench() {
    local module
    for module in tests/bench tests/bench/udp; do
        (cd "$module" && go vet ./... && gotest ./...)
    done
}

run_archtest() { gotest ./core/internal/archtest; }

run_library() {
    build_packages
    build_library
    printf 'libcrust %s with %d functions\n' "$(PKG_CONFIG_PATH=$BUILD/lib/pkgconfig pkg-config --modversion crust)" "$(grep -c . capi/exports.txt)"
}

run_abi() { tests/abi/run.sh "$BUILD/lib"; }

run_interop() { CRUST=$BUILD/bin/crust tests/interop/run.sh; }

run_rust() {
    local log=$BUILD/log/rust.out
    (cd bindings/rust && cargo test --workspace --all-features --locked) 2>&1 | tee "$log"
    # cargo ends with the doc tests of one crate; the sum says more.
    sed -n 's/^test result: .* \([0-9]*\) passed; \([0-9]*\) failed; \([0-9]*\) ignored.*/\1 \2 \3/p' "$log" |
        awk '{ p += $1; f += $2; i += $3 } END { printf "%d tests passed, %d failed, %d ignored\n", p, f, i; exit p == 0 || f > 0 }'
}

run_python() { (cd bindings/python && "$VENV/bin/python" -m pytest -q -p no:cacheprovider); }

# The package as its users get it, and how fast it is.
run_wheel() {
    make_wheel wheel
    make_wheel wheel-again >/dev/null
    tests/wheel/run.sh "$BUILD"
}

# run_go_tests PACKAGE runs a package below tests/ and shows what it says.
run_go_tests() {
    local log=$BUILD/log/$1.out
    go test -count=1 -v -timeout 15m "./tests/$1/..." >"$log" 2>&1 || {
        cat "$log"
        printf '%d of %d tests failed\n' "$(grep -c '^ *--- FAIL' "$log")" "$(grep -c '^ *--- ' "$log")"
        return 1
    }
    grep -v '^ *=== ' "$log" || true
    printf '%d tests passed, %d skipped\n' "$(grep -c '^ *--- PASS' "$log")" "$(grep -c '^ *--- SKIP' "$log")"
}

run_demo() { tests/demo/run.sh "$BUILD" --mib 16; }

# list_suites prints "name what" for each suite, in the order in which they run.
list_suites() {
    local path name
    printf '%s\n' \
        "format gofmt" \
        "vet go vet" \
        "unit the library's packages, shuffled, under the race detector, with the fuzz corpora" \
        "fuzz every fuzz target for a moment" \
        "sanitizer the C and C++ in the core, with AddressSanitizer" \
        "archtest the law of the rooms" \
        "library build, exported symbols, packages" \
        "abi the C ABI: behaviour, layout, sanitizer, valgrind" \
        "rust the Rust binding, its doc tests and examples" \
        "python the Python binding" \
        "bench the benchmarks, for a moment"
    for path in tests/*/; do
        name=$(basename "$path")
        case $name in
        abi | bench | chroot | demo) continue ;;
        esac
        if [ -x "${path}run.sh" ]; then
            printf '%s tests/%s/run.sh\n' "$name" "$name"
        elif compgen -G "${path}*_test.go" >/dev/null; then
            printf '%s tests/%s\n' "$name" "$name"
        fi
    done
    printf '%s\n' "demo the demo, with 16 MiB"
}

# run_suite NAME runs one suite by its name.
run_suite() {
    if declare -F "run_$1" >/dev/null; then
        "run_$1"
    elif [ -x "tests/$1/run.sh" ]; then
        "tests/$1/run.sh"
    else
        run_go_tests "$1"
    fi
}

command_test() {
    local known name what
    known=$(list_suites)
    for name in "$@"; do
        grep -q "^$name " <<<"$known" ||
            usage_error "there is no suite \"$name\"; there are: $(cut -d' ' -f1 <<<"$known" | paste -sd' ')"
    done
    need_to_test "$@"
    use_library
    mkdir -p "$BUILD/log"
    if [ $# -gt 0 ] && [[ " $* " != *" library "* ]]; then
        build_packages
        build_library
    fi
    while read -r name what; do
        if [ $# = 0 ] || [[ " $* " == *" $name "* ]]; then
            suite "$name" "$what" run_suite "$name"
        fi
    done <<<"$known"
    suites_end
}
