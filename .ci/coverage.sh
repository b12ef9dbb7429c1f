# shellcheck shell=bash
# build.sh coverage: how much of Go, C, Rust and Python the tests run. Sourced by
# build.sh.
#
# Go is counted twice over and merged: by its own tests, and through the library,
# which C, Rust and Python programs drive. The C parts count by gcov, through the
# library only: a Go program ends without the counters of C being written.

# shellcheck source=.ci/test.sh
. "$ROOT/.ci/test.sh"

COVER=$BUILD/coverage

need_to_cover() {
    local major
    need_to_compile
    need_python venv
    need_rust rustc
    install_needs
    ensure_go
    ensure_python
    ensure_rust
    ensure_venv
    # The tools must be of the LLVM that rustc is built with.
    if ! find_llvm && have apt-cache; then
        refresh_lists
        major=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
        if apt-cache show "llvm-$major" >/dev/null 2>&1; then
            need "llvm-$major" "reads the coverage counters of Rust $(rustc --version | awk '{print $2}')"
            install_needs
        fi
    fi
}

# find_llvm sets LLVM_PROFDATA and LLVM_COV to tools that fit rustc.
find_llvm() {
    local major profdata
    major=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
    for profdata in "$(rustc --print sysroot)"/lib/rustlib/*/bin/llvm-profdata "/usr/lib/llvm-$major/bin/llvm-profdata" "llvm-profdata-$major"; do
        if have "$profdata"; then
            LLVM_PROFDATA=$profdata LLVM_COV=${profdata/profdata/cov}
            return 0
        fi
    done
    return 1
}

# shipped_packages lists what is counted: simnet and archtest are there for tests only.
shipped_packages() { go list ./core/... ./capi ./cmd/... | grep -v -e '/simnet$' -e '/archtest$'; }

cover_go() {
    local packages
    packages=$(shipped_packages | paste -sd,)
    mkdir -p "$COVER/data/go"
    # shellcheck disable=SC2046
    go test -count=1 -timeout 20m -cover -covermode=atomic -coverpkg="$packages" \
        $(unit_packages) ./tests/wronguse ./tests/hostile -args -test.gocoverdir="$COVER/data/go" |
        grep -v 'no test files' | sed 's/\tcoverage:.*//'
    printf '%d runs counted\n' "$(find "$COVER/data/go" -name 'covcounters.*' | wc -l)"
}

cover_library() {
    rm -rf "${COVER:?}/lib" # notes of files that have changed would stay behind
    "$ROOT/capi/build-lib.sh" --cover "$COVER/lib"
    mkdir -p "$COVER/data/library"
}

# cover_c runs the programs of tests/abi.
cover_c() {
    local source sources=()
    for source in tests/abi/*.c; do
        case $(basename "$source") in
        hooks.c | layout.c | names.c) ;; # programs of their own
        *) sources+=("$source") ;;
        esac
    done
    gcc -std=c99 -D_GNU_SOURCE -O1 -Iinclude "${sources[@]}" -o "$COVER/abi" \
        -L"$COVER/lib/lib" -lcrust -Wl,-rpath,"$COVER/lib/lib" -lpthread -ldl
    GOCOVERDIR=$COVER/data/library "$COVER/abi" | tee "$COVER/abi.log"
    printf '%d passed\n' "$(grep -c '^ok ' "$COVER/abi.log")"
}

cover_python() {
    cd bindings/python || return
    # Counters are written when the process exits, on the main thread, whose signal
    # stack Python's faulthandler has taken away by then: no signal to preempt it.
    export GODEBUG=asyncpreemptoff=1
    export GOCOVERDIR=$COVER/data/library CRUST_LIBRARY=$COVER/lib/lib/libcrust.so.1
    # Tests start interpreters of their own, which count too.
    mkdir -p "$COVER/data/python"
    export COVERAGE_FILE=$COVER/data/python/all COVERAGE_RCFILE=$COVER/data/coveragerc
    printf '[run]\nbranch = true\nparallel = true\npatch = subprocess\nsource = %s/src/crust\n' "$PWD" >"$COVERAGE_RCFILE"
    "$VENV/bin/python" -m coverage run -m pytest -q -p no:cacheprovider
    "$VENV/bin/python" -m coverage combine -q "$COVER/data/python"
    "$VENV/bin/python" -m coverage json -q -o "$COVER/data/python.json"
    "$VENV/bin/python" -m coverage html -q -d "$COVER/python"
    "$VENV/bin/python" -m coverage report | tail -n 1
}

cover_rust() {
    local program programs=()
    if ! find_llvm; then
        printf 'NOT COUNTED: there is no llvm-profdata here that fits %s\n' "$(rustc --version)"
        return 77
    fi
    cd bindings/rust || return
    export RUSTFLAGS='-C instrument-coverage' CARGO_TARGET_DIR=$COVER/rust-target CRUST_LIB_DIR=$COVER/lib/lib
    rm -rf "$COVER/data/rust"
    LLVM_PROFILE_FILE=$COVER/data/rust/build-%p.profraw cargo test --workspace --all-features --locked --tests --no-run --message-format=json \
        >"$COVER/data/rust.programs"
    mapfile -t programs < <(sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' "$COVER/data/rust.programs" | sort -u)
    for program in "${programs[@]}"; do
        printf '%s\n' "$(basename "$program")"
        (
            cd crust || exit
            GOCOVERDIR=$COVER/data/library LLVM_PROFILE_FILE=$COVER/data/rust/%p-%m.profraw \
                LD_LIBRARY_PATH=$CRUST_LIB_DIR "$program" --quiet
        )
    done
    "$LLVM_PROFDATA" merge -sparse "$COVER"/data/rust/*.profraw -o "$COVER/data/rust.profdata"
    local objects=("${programs[0]}")
    for program in "${programs[@]:1}"; do objects+=(-object "$program"); done
    "$LLVM_COV" export -summary-only -instr-profile "$COVER/data/rust.profdata" -ignore-filename-regex='(/tests/|/examples/|\.cargo|/rustc/)' \
        "${objects[@]}" >"$COVER/data/rust.json"
    "$LLVM_COV" show -format=html -output-dir="$COVER/rust" -instr-profile "$COVER/data/rust.profdata" \
        -ignore-filename-regex='(/tests/|/examples/|\.cargo|/rustc/)' "${objects[@]}" >/dev/null
    printf '%d test programs counted\n' "${#programs[@]}"
}

cover_report() {
    mkdir -p "$COVER/c"
    go tool covdata textfmt -i="$COVER/data/go,$COVER/data/library" -pkg="$(shipped_packages | paste -sd,)" -o "$COVER/data/go.out"
    go tool cover -html="$COVER/data/go.out" -o "$COVER/go.html"
    rm -f "$COVER"/c/*.gcov
    # The notes name the sources without a directory, so they have to be where gcov runs.
    find capi core -name '*.[ch]' ! -path '*/testdata/*' -exec cp -p {} "$COVER/c/" \;
    find capi core -name '*.c' ! -path '*/testdata/*' >"$COVER/data/sources"
    (cd "$COVER/c" && gcov -o "$COVER/lib/obj/gcov" ./*.c >/dev/null && rm -f ./*.c ./*.h)
    python3 .ci/coverage.py "$COVER"
}

command_coverage() {
    [ $# = 0 ] || usage_error "coverage takes no arguments"
    need_to_cover
    rm -rf "$COVER/data"
    mkdir -p "$COVER/data"
    use_library
    build_library
    suite cover-library "the library with counters" cover_library
    suite cover-go "the tests in Go" cover_go
    suite cover-c "the tests in C, through the library" cover_c
    suite cover-python "the tests in Python, through the library" cover_python
    suite cover-rust "the tests in Rust, through the library" cover_rust
    suite cover-report "one report" cover_report
    suites_end
}
