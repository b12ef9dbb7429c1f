# shellcheck shell=bash
# build.sh wheel: the Python package as a wheel with the library inside, and as a
# source distribution. Sourced by build.sh.

# shellcheck source=.ci/deb.sh
. "$ROOT/.ci/deb.sh"

# stage_package DIRECTORY copies what both are made of, with the same modes whatever
# the checkout has, so that nothing is written beside the sources.
stage_package() {
    rm -rf "$1"
    mkdir -p "$1"
    tar -c --exclude=__pycache__ --exclude='*.egg-info' --exclude=.pytest_cache --exclude=.ruff_cache --exclude=.mypy_cache \
        --exclude=bindings/python/build --exclude=testdata --mode=u=rwX,go=rX \
        go.mod go.sum LICENSE-APACHE LICENSE-MIT core capi include bindings/python | tar -x -C "$1"
    cp "$1"/LICENSE-* "$1/bindings/python/"
}

# make_sdist STAGE OUT DATE leaves crust-X.Y.Z.tar.gz in OUT. setuptools writes times and
# owners of the machine into the archive; it is packed again without them.
make_sdist() {
    local made=$2/sdist name
    "$VENV/bin/python" -m build --no-isolation --sdist --outdir "$made" "$1/bindings/python" >"$BUILD/log/sdist.log" 2>&1 || {
        cat "$BUILD/log/sdist.log" >&2
        die "the source distribution could not be made"
    }
    name=$(basename "$made"/crust-*.tar.gz .tar.gz)
    tar -xz -C "$made" -f "$made/$name.tar.gz"
    tar -c --sort=name --format=ustar --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX \
        --mtime="@$3" -C "$made" "$name" | gzip -9n >"$2/$name.tar.gz"
    rm -r "$made"
}

# wheel_tag WHEEL prints for which machines auditwheel finds it to be, by the versions of
# the symbols and by the libraries that it needs.
wheel_tag() {
    "$VENV/bin/auditwheel" show "$1" 2>"$BUILD/log/auditwheel.log" | tr -s '\n' ' ' |
        sed -n 's/.*following platform tag: "\([^"]*\)".*/\1/p'
}

# make_wheel DIRECTORY leaves a wheel with build/lib/libcrust.so.1 inside and a source
# distribution in build/DIRECTORY, and nothing else.
make_wheel() (
    umask 022
    out=$BUILD/$1 stage=$BUILD/$1/stage
    unset PYTHONPATH
    date=$(source_date)
    # shellcheck disable=SC2031 # each of these subshells has its own
    export SOURCE_DATE_EPOCH=$date
    rm -rf "$out"
    mkdir -p "$out" "$BUILD/log"
    stage_package "$stage"
    make_sdist "$stage" "$out" "$date"
    python3 "$ROOT/.ci/bill.py" licences "$BUILD/lib/libcrust.so.1" >"$stage/bindings/python/LICENSE-THIRD-PARTY"
    CRUST_BUNDLE=$BUILD/lib/libcrust.so.1 "$VENV/bin/python" -m build --no-isolation --wheel \
        --outdir "$out" "$stage/bindings/python" >"$BUILD/log/bdist.log" 2>&1 || {
        cat "$BUILD/log/bdist.log" >&2
        die "the wheel could not be made"
    }
    wheel=$(echo "$out"/crust-*.whl)
    tag=$(wheel_tag "$wheel")
    case $tag in
    manylinux_*) ;;
    *)
        "$VENV/bin/auditwheel" show "$wheel" >&2 || true
        die "the wheel would be for this machine alone: its library needs others, or auditwheel failed (see above)"
        ;;
    esac
    "$VENV/bin/python" -m wheel tags --remove --platform-tag "$tag" "$wheel" >/dev/null
    rm -r "$stage"
    for file in "$out"/*; do
        printf '    build/%s/%s  %s KiB\n' "$1" "$(basename "$file")" $(($(stat -c %s "$file") / 1024))
    done
)

command_wheel() {
    [ $# = 0 ] || usage_error "wheel takes no arguments"
    need_to_compile
    need_python venv
    install_needs
    ensure_go
    ensure_python
    ensure_venv
    build_library
    say "Making the wheel and the source distribution"
    make_wheel wheel
}
