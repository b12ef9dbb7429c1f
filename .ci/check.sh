# shellcheck shell=bash
# build.sh check: everything that looks at the code without running it. Sourced
# by build.sh.

# shellcheck source=.ci/test.sh
. "$ROOT/.ci/test.sh"

need_to_check() {
    need_to_compile
    need_python venv
    need_rust clippy rustfmt
    need_command shellcheck shellcheck "lints the shell scripts"
    install_needs
    ensure_go
    ensure_python
    ensure_rust
    ensure_venv
}

check_modules() {
    go mod tidy -diff && go mod verify
}

check_staticcheck() {
    local tool
    tool=$(go_tool staticcheck honnef.co/go/tools/cmd/staticcheck "$STATICCHECK_VERSION")
    "$tool" ./... && printf 'staticcheck %s: nothing found\n' "$STATICCHECK_VERSION"
}

check_golangci() {
    local tool
    tool=$(go_tool golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint "$GOLANGCI_VERSION")
    "$tool" run --allow-parallel-runners ./... && printf 'golangci-lint %s: nothing found\n' "$GOLANGCI_VERSION"
}

check_vulnerabilities() {
    local tool log=$BUILD/log/govulncheck.out status=0
    tool=$(go_tool govulncheck golang.org/x/vuln/cmd/govulncheck "$GOVULNCHECK_VERSION")
    "$tool" ./... >"$log" 2>&1 || status=$?
    cat "$log"
    if [ "$status" != 0 ] && grep -q 'fetching vulnerabilities:' "$log"; then
        printf 'NOT CHECKED: the Go vulnerability database (vuln.go.dev) cannot be reached from here\n'
        return 77
    fi
    return "$status"
}

# The header must be C99 and C++11, must declare exactly the functions that the
# library exports, and must have the numbers of the Go API.
check_header() {
    local declared=$BUILD/log/declared exported=$BUILD/log/exported
    echo '#include "crust.h"' | gcc -std=c99 -Wall -Wextra -Wpedantic -Werror -fsyntax-only -Iinclude -xc -
    echo '#include "crust.h"' | g++ -std=c++11 -Wall -Wextra -Wpedantic -Werror -fsyntax-only -Iinclude -xc++ -
    echo '#include "crust.h"' | gcc -E -P -Iinclude -xc - | tr '\n' ' ' | tr ';' '\n' |
        grep -v typedef | grep -o 'crust_[a-z0-9_]*(' | tr -d '(' | sort >"$declared"
    nm -D --defined-only build/lib/libcrust.so | sed -n 's/.* [A-Z] \([^@]*\).*/\1/p' | grep -v '^CRUST_' | sort >"$exported"
    diff "$declared" "$exported" || {
        echo "crust.h (left) and libcrust.so (right) differ in their functions"
        return 1
    }
    sort capi/exports.txt | diff - "$exported" || {
        echo "capi/exports.txt (left) and libcrust.so (right) differ"
        return 1
    }
    compare_codes
    printf '%d functions and %d codes agree\n' "$(grep -c . "$declared")" "$(grep -c . "$BUILD/log/codes-c")"
}

# compare_codes holds the result codes of crust.h, Go and Python against each other.
compare_codes() {
    sed -n 's/^ *CRUST_ERR_\([A-Z_]*\) *= *\(-[0-9]*\).*/\1 \2/p' include/crust.h | tr -d _ | sort >"$BUILD/log/codes-c"
    sed -n 's/^\tCode\([A-Za-z]*\) *Code = \(-[0-9]*\).*/\1 \2/p' core/errors.go | tr "[:lower:]" "[:upper:]" | sort >"$BUILD/log/codes-go"
    PYTHONPATH=bindings/python/src CRUST_LIBRARY=$BUILD/lib/libcrust.so.1 python3 -c '
import crust
for code in crust.Code:
    if code < 0:
        print(code.name.replace("_", ""), int(code))' | sort >"$BUILD/log/codes-python"
    local other
    for other in go python; do
        diff "$BUILD/log/codes-c" "$BUILD/log/codes-$other" || {
            echo "the codes of crust.h (left) and $other (right) differ"
            return 1
        }
    done
}

check_law() { run_archtest; }

check_rustfmt() { (cd bindings/rust && cargo fmt --all --check && cd crust-compat && cargo fmt --check) && echo "the Rust binding is formatted"; }

check_clippy() {
    (cd bindings/rust && cargo clippy --workspace --all-targets --all-features --locked -- -D warnings)
    (cd bindings/rust/crust-compat && cargo clippy --all-targets --locked -- -D warnings)
}

# The Python outside the binding keeps to the same rules.
python_programs() { find .ci tests -name '*.py' ! -path '*/build/*' | sort; }

check_ruff() {
    (cd bindings/python && "$VENV/bin/ruff" check . && "$VENV/bin/ruff" format --check .)
    # shellcheck disable=SC2046
    "$VENV/bin/ruff" check --config bindings/python/pyproject.toml $(python_programs)
    # shellcheck disable=SC2046
    "$VENV/bin/ruff" format --check --config bindings/python/pyproject.toml $(python_programs)
}

check_mypy() {
    (cd bindings/python && "$VENV/bin/mypy" --cache-dir "$BUILD/mypy")
    local program
    for program in .ci/*.py tests/demo/*.py tests/readme/*.py; do
        MYPYPATH=bindings/python/src "$VENV/bin/mypy" --cache-dir "$BUILD/mypy" --strict --no-error-summary "$program"
    done
    printf 'mypy --strict: nothing found\n'
}

check_shell() {
    local scripts
    scripts=$(find build.sh .ci capi tests bindings -type f \( -name '*.sh' -o -path .ci/run \) ! -path '*/target/*' ! -path '*/build/*' | sort)
    # shellcheck disable=SC2086
    shellcheck -x $scripts && printf '%d scripts, nothing found\n' "$(wc -w <<<"$scripts")"
}

# The benchmarks' own modules bring the libraries that libcrust is compared with.
check_bench() {
    local module tool
    tool=$(go_tool staticcheck honnef.co/go/tools/cmd/staticcheck "$STATICCHECK_VERSION")
    for module in tests/bench tests/bench/udp; do
        (cd "$module" && go vet ./... && "$tool" ./... && go mod verify) || return
    done
    printf 'go vet and staticcheck found nothing in two modules\n'
}

command_check() {
    [ $# = 0 ] || usage_error "check takes no arguments"
    need_to_check
    use_library
    build_library
    suite format "gofmt" run_format
    suite vet "go vet" run_vet
    suite modules "go mod tidy, go mod verify" check_modules
    suite law "the law of the rooms" check_law
    suite header "crust.h against C, C++, the library, Go and Python" check_header
    suite staticcheck "staticcheck $STATICCHECK_VERSION" check_staticcheck
    suite golangci-lint "golangci-lint $GOLANGCI_VERSION" check_golangci
    suite govulncheck "known vulnerabilities" check_vulnerabilities
    suite bench-modules "go vet and staticcheck of tests/bench and tests/bench/udp" check_bench
    suite cargo-fmt "format of the Rust binding" check_rustfmt
    suite clippy "lint of the Rust binding" check_clippy
    suite ruff "lint and format of Python" check_ruff
    suite mypy "types of Python" check_mypy
    suite shellcheck "lint of the shell scripts" check_shell
    suites_end
}
