#!/usr/bin/env bash
# run.sh: tests a program that was written against crust 0.31 and nothing else, with the
# crate that takes its place. CRUST_LIB_DIR says where libcrust is.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
log=target/compat.log
cargo test --locked --no-run
(cd ../../bindings/rust/crust-compat && cargo test --locked --doc)
run=(cargo test --locked --offline --no-fail-fast -- --test-threads=4)
if unshare --net true 2>/dev/null; then
    run=(./in-own-network.sh "${run[@]}")
elif [ "${CI:-}" = true ]; then
    echo 'the kernel forbids network namespaces, and the tests of discovery need one'
    exit 1
else
    echo 'not run: discovery, and nodes that are reachable from outside: the kernel forbids network namespaces'
fi
status=0
"${run[@]}" 2>&1 | tee "$log" || status=1
sed -n 's/^test result: .* \([0-9]*\) passed; \([0-9]*\) failed; \([0-9]*\) ignored.*/\1 \2 \3/p' "$log" |
    awk -v status="$status" '{ p += $1; f += $2; i += $3 }
        END { printf "%d tests passed, %d failed, %d ignored\n", p, f, i; exit status || p == 0 || f > 0 }'
