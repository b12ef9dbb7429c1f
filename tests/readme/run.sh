#!/usr/bin/env bash
# Runs the programs of README.md, as they stand there. tests/readme/run.sh [BUILD]
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
root=$(cd "$here/../.." && pwd -P)
build=$(cd "${1:-$root/build}" && pwd -P)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0
failed=0

# try LANGUAGE COMMAND...: the program must end with 0 and print its one line.
try() {
    local language=$1 status=0
    shift
    ("$@") >"$work/out" 2>"$work/err" || status=$?
    if [ "$status" = 0 ] && [ "$(cat "$work/out")" = "alice says hello" ]; then
        passed=$((passed + 1))
        printf 'ok   %s: %s\n' "$language" "$(cat "$work/out")"
    else
        failed=$((failed + 1))
        printf 'FAIL %s ended with %s\n' "$language" "$status"
        sed 's/^/     /' "$work/out" "$work/err"
    fi
}

in_go() { cd "$root" && timeout 120 go run "$work/example.go"; }

in_c() {
    cd "$work"
    PKG_CONFIG_PATH=$build/lib/pkgconfig bash -eu compile.sh
    timeout 60 ./a.out
}

# As a user's own crate, which depends on ours by path.
in_rust() {
    mkdir -p "$work/rust/src"
    cp "$work/main.rs" "$work/rust/src/"
    cp "$root/bindings/rust/Cargo.lock" "$work/rust/"
    printf '[package]\nname = "example"\nversion = "0.0.0"\nedition = "2024"\n\n[dependencies]\ncrust = { path = "%s" }\n\n[workspace]\n' \
        "$root/bindings/rust/crust" >"$work/rust/Cargo.toml"
    cd "$work/rust"
    CRUST_LIB_DIR=$build/lib CARGO_TARGET_DIR=$build/readme-rust cargo build --quiet
    LD_LIBRARY_PATH=$build/lib timeout 60 "$build/readme-rust/debug/example"
}

# The same program with the archive in it needs no library to be found.
in_rust_static() {
    cd "$work/rust"
    CRUST_STATIC=1 CRUST_LIB_DIR=$build/lib CARGO_TARGET_DIR=$build/readme-rust-static cargo build --quiet
    if readelf -d "$build/readme-rust-static/debug/example" | grep -E 'NEEDED.*(libcrust|libstdc)' >&2; then
        return 1
    fi
    timeout 60 "$build/readme-rust-static/debug/example"
}

in_python() {
    PYTHONPATH=$root/bindings/python/src CRUST_LIBRARY=$build/lib/libcrust.so.1 timeout 60 python3 "$work/example.py"
}

python3 "$here/examples.py" "$root/README.md" "$work"
try Go in_go
try C in_c
try Rust in_rust
try "Rust, static" in_rust_static
try Python in_python

# Files that the README points to must be there.
missing=$(grep -o '](\([^)#]*\))' "$root/README.md" | tr -d '()]' | while read -r file; do
    case $file in http*) continue ;; esac
    [ -e "$root/$file" ] || echo "$file"
done)
if [ -z "$missing" ]; then
    passed=$((passed + 1))
    echo "ok   links"
else
    failed=$((failed + 1))
    printf 'FAIL links to nothing: %s\n' "$missing"
fi

# Tests that the documents name must be there.
if (cd "$root" && go test -count=1 -v ./tests/readme) >"$work/out" 2>&1; then
    passed=$((passed + 1))
    echo "ok   tests that are named: $(grep -o 'names [0-9]* tests' "$work/out" | paste -sd, | sed 's/,/, /g')"
else
    failed=$((failed + 1))
    cat "$work/out"
    echo "FAIL tests that are named"
fi

printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
