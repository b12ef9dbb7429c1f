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
    date=$(source_date)
    rm -rf "$out"
    mkdir -p "$out" "$BUILD/log"
    stage_package "$stage"
    (unset PYTHONPATH && SOURCE_DATE_EPOCH=$date make_sdist "$stage" "$out" "$date")
    bundle "$stage" "$out" "$BUILD/lib/libcrust.so.1"
    rm -r "$stage"
    list_made "$out"
)

# python_platform TARGET prints what Python calls a target.
python_platform() {
    case $1 in
    linux-amd64) printf 'linux-x86_64\n' ;;
    linux-arm64) printf 'linux-aarch64\n' ;;
    linux-armv7) printf 'linux-armv7l\n' ;;
    windows-amd64) printf 'win-amd64\n' ;;
    esac
}

# make_target_wheel DIRECTORY TARGET LIBRARY leaves a wheel with a library for a target
# inside in build/DIRECTORY, and nothing else.
make_target_wheel() (
    umask 022
    out=$BUILD/$1 stage=$BUILD/$1/stage
    rm -rf "$out"
    mkdir -p "$out" "$BUILD/log"
    stage_package "$stage"
    _PYTHON_HOST_PLATFORM=$(python_platform "$2")
    export _PYTHON_HOST_PLATFORM # for which Python makes wheels
    bundle "$stage" "$out" "$3"
    rm -r "$stage"
    list_made "$out"
)

# bundle STAGE OUT LIBRARY leaves a wheel with a library inside in OUT, with the tag of the
# machines for which it is: as auditwheel finds, and for Windows that of every one.
bundle() (
    stage=$1 out=$2 library=$3
    unset PYTHONPATH
    # shellcheck disable=SC2031 # each of these subshells has its own
    SOURCE_DATE_EPOCH=$(source_date)
    export SOURCE_DATE_EPOCH
    python3 "$ROOT/.ci/bill.py" licences "$library" >"$stage/bindings/python/LICENSE-THIRD-PARTY"
    CRUST_BUNDLE=$library "$VENV/bin/python" -m build --no-isolation --wheel \
        --outdir "$out" "$stage/bindings/python" >"$BUILD/log/bdist.log" 2>&1 || {
        cat "$BUILD/log/bdist.log" >&2
        die "the wheel could not be made"
    }
    wheel=$(echo "$out"/crust-*.whl)
    case $wheel in
    *-win_amd64.whl) return ;;
    esac
    tag=$(wheel_tag "$wheel")
    case $tag in
    manylinux_*) ;;
    *)
        "$VENV/bin/auditwheel" show "$wheel" >&2 || true
        die "the wheel would be for this machine alone: its library needs others, or auditwheel failed (see above)"
        ;;
    esac
    "$VENV/bin/python" -m wheel tags --remove --platform-tag "$tag" "$wheel" >/dev/null
)

# list_made DIR prints what is in a directory below build.
list_made() {
    local file
    for file in "$1"/*; do
        printf '    %s  %s KiB\n' "build${file#"$BUILD"}" $(($(stat -c %s "$file") / 1024))
    done
}

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
