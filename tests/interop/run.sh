#!/usr/bin/env bash
# Lets another implementation of the protocol, in Rust, talk with ours.
#
#   tests/interop/run.sh [PART-OF-A-SCENARIO'S-NAME]
#
# The last line is "N passed, N failed". Needs Go and cargo. Builds into
# build/interop. CRUST names another crust program than one built here.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
root=$(cd ../.. && pwd)
export CARGO_TARGET_DIR=$root/build/interop
cargo build --quiet --locked
if [[ -z ${CRUST:-} ]]; then
	CRUST=$root/build/interop/crust
	(cd "$root" && go build -o "$CRUST" ./cmd/crust)
fi
exec "$CARGO_TARGET_DIR/debug/crust-interop" against "$CRUST" "$root/docs/PROTOCOL.md" "$@"
