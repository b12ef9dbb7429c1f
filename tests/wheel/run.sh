#!/usr/bin/env bash
# Installs the Python package as its users get it and tries it: the wheel in a fresh
# environment without any compiler, where it runs the binding's own tests, and the
# source distribution. Then measures it beside plain asyncio. The archives are those
# of "build.sh wheel". tests/wheel/run.sh [BUILD]
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
root=$(cd "$here/../.." && pwd -P)
build=$(cd "${1:-$root/build}" && pwd -P)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Whatever names the checkout's own package or library is for other suites.
unset PYTHONPATH CRUST_LIBRARY CRUST_LIB_DIR CRUST_BUNDLE
export PYTHONDONTWRITEBYTECODE=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
# shellcheck source=tests/try.sh
. "$root/tests/try.sh"

wheel=$(echo "$build"/wheel/crust-*.whl)
sdist=$(echo "$build"/wheel/crust-*.tar.gz)
if [ ! -e "$wheel" ] || [ ! -e "$sdist" ]; then
    echo "there is no wheel or no source distribution in $build/wheel: run ./build.sh wheel"
    exit 1
fi
python3 -m venv "$work/venv"
python3 -m zipfile -e "$wheel" "$work/unpacked"
library=$work/unpacked/crust/_lib/libcrust.so.1

# alone COMMAND... runs it with the commands of the fresh environment and no others.
alone() { env -i PATH="$work/venv/bin" HOME="$work" LANG=C.UTF-8 CRUST_PORTMAP=off CRUST_BEACON=off PYTHONDONTWRITEBYTECODE=1 "$@"; }

# What the file name promises, by another way than the one by which it was made.
needed_glibc() {
    readelf --dyn-syms -W "$library" | grep -o '@GLIBC_[0-9.]*' | sed 's/@GLIBC_//' | sort -uV | tail -n 1
}
check_tag() {
    local version tag
    version=$(needed_glibc)
    tag=py3-none-manylinux_${version//./_}_$(uname -m)
    echo "the library needs glibc $version, the wheel is $(basename "$wheel")"
    [[ $wheel == *-"$tag".whl ]] && grep -qx "Tag: $tag" "$work"/unpacked/crust-*.dist-info/WHEEL
}
check_needed() {
    readelf -d "$library" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | tee "$work/needed"
    grep -q '^libc\.so' "$work/needed" && ! grep -vE '^(libc|libm|libdl|libpthread|librt|libresolv)\.so\.[0-9]+$|^ld-linux.*\.so\.[0-9]+$' "$work/needed"
}
check_contents() {
    cmp "$library" "$build/lib/libcrust.so.1" &&
        (cd "$work/unpacked" && ls crust/py.typed crust/_service.py crust-*.dist-info/RECORD) &&
        find "$work/unpacked" -name 'LICENSE*' && grep -rq 'jamesruan/sodium' "$work"/unpacked/crust-*.dist-info/LICENSE-THIRD-PARTY
}
check_again() {
    (cd "$build/wheel" && sha256sum -- *) >"$work/first" &&
        (cd "$build/wheel-again" && sha256sum -- *) | diff "$work/first" -
}
no_compiler() {
    alone "$BASH" -c 'command -v python && ! command -v cc gcc g++ c++ clang go ld pkg-config bash'
}
install() { alone python -m pip install --no-index --no-deps "$wheel"; }
check_library() {
    alone python -c '
import crust, sys
print(crust.library_path, crust.version())
sys.exit(not crust.library_path.startswith(sys.prefix) or crust.version() != crust.__version__)'
}

# The binding's own tests, in a place that has what they read of the repository, but not
# the package. Those that need a compiler are left out, and no others.
own_tests() {
    local place=$work/repository
    mkdir -p "$place/bindings/python" "$place/capi" "$place/tests/conformance" &&
        cp -r "$root/include" "$place/" &&
        cp -r "$root"/bindings/python/{tests,examples,README.md} "$place/bindings/python/" &&
        cp "$root/capi/exports.txt" "$place/capi/" &&
        cp "$root/tests/conformance/driver.py" "$place/tests/conformance/" &&
        cd "$place/bindings/python" &&
        alone python -m unittest discover -v -s tests 2>&1 | tee "$work/own.log" &&
        ! grep ' \.\.\. skipped' "$work/own.log" | grep -v 'there is no C compiler'
}

# The source distribution where nothing can be compiled: one sentence says so.
sdist_refuses() {
    local log=$work/refusal
    if alone "$build/venv/bin/python" -m pip wheel --no-index --no-deps --no-build-isolation -w "$work/none" "$sdist" >"$log" 2>&1; then
        echo "a wheel was made without compilers"
        return 1
    fi
    cat "$log"
    grep -q '^ *crust: libcrust cannot be built here, because there is no bash, .*no go, no gcc, no g++ in PATH: install Go .*, or take a wheel, .*\.$' "$log"
}
sdist_without() {
    alone CRUST_BUNDLE=none "$build/venv/bin/python" -m pip wheel --no-index --no-deps --no-build-isolation -w "$work/pure" "$sdist" &&
        ls "$work"/pure/crust-*-py3-none-any.whl
}
sdist_builds() {
    "$build/venv/bin/python" -m pip wheel --no-index --no-deps --no-build-isolation -w "$work/built" "$sdist" &&
        python3 -m venv --without-pip "$work/other" &&
        "$build/venv/bin/python" -m pip --python "$work/other/bin/python" install --no-index --no-deps "$work"/built/crust-*-linux_*.whl &&
        "$work/other/bin/python" -c '
import crust, sys
with crust.Service(listen=[]) as service:
    print(service.id, crust.library_path)
sys.exit(not crust.library_path.startswith(sys.prefix))'
}

try "the tag is that of the glibc it needs: $(basename "$wheel"), glibc $(needed_glibc)" check_tag
try "the library inside needs the C library and nothing else" check_needed
try "the wheel has the library that was built, types and licences" check_contents
if [ -d "$build/wheel-again" ]; then
    try "made twice, the wheel and the source distribution are the same" check_again
fi
try "there is no compiler where it is tried" no_compiler
try "the wheel installs in a fresh environment, offline" install
try "the package there brings its library" check_library
begin=$SECONDS
try "the binding's own tests" own_tests
printf '     %s in %d s, %s\n' "$(grep -o '^Ran [0-9]* tests' "$work/own.log")" $((SECONDS - begin)) "$(tail -n 1 "$work/own.log")"
try "the source distribution says why it cannot be built without compilers" sdist_refuses
try "the source distribution makes a package without a library" sdist_without
begin=$SECONDS
try "the source distribution builds, with its library" sdist_builds
printf '     in %d s\n' $((SECONDS - begin))
rate() { alone python "$here/rate.py" --least 3 | tee "$work/rate"; }
try "64-byte messages beside plain asyncio: at least 3 times as many, by processor time" rate
sed 's/^/     /' "$work/rate"

printf '%d passed, %d failed; %s\n' "$passed" "$failed" "$(tail -n 1 "$work/rate")"
[ "$failed" = 0 ]
