#!/usr/bin/env bash
# Carries a published overlay over libcrust, see overlay.py, with the packages of
# requirements.txt in an environment of their own. tests/overlay/run.sh [BUILD]
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
root=$(cd "$here/../.." && pwd -P)
build=$(cd "${1:-$root/build}" && pwd -P)
venv=$build/overlay-venv

# Made once for each state of requirements.txt.
stamp=$(python3 -c 'import sys; print(sys.executable, sys.version)' | cat - "$here/requirements.txt" | sha256sum)
if [ "$(cat "$venv/stamp" 2>/dev/null)" != "$stamp" ]; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/python" -m pip install -q --disable-pip-version-check --require-hashes --only-binary :all: --no-deps \
        -r "$here/requirements.txt" || {
        echo "pip could not install the packages of tests/overlay/requirements.txt"
        exit 1
    }
    printf '%s\n' "$stamp" >"$venv/stamp"
fi
export PYTHONPATH=$root/bindings/python/src:$root/bindings/python/examples PYTHONDONTWRITEBYTECODE=1 CRUST_PORTMAP=off CRUST_BEACON=off
export CRUST_LIBRARY=${CRUST_LIBRARY:-$build/lib/libcrust.so.1}
exec timeout 300 "$venv/bin/python" "$here/overlay.py"
