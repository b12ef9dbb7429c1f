# shellcheck shell=bash
# build.sh deb: packages for Debian and its kin into build/deb. Sourced by build.sh.

need_for_deb() {
    need_command cmake cmake "installs what is packaged"
    need_command make make "runs what CMake generates"
    need_command dh debhelper "makes Debian packages"
    need_command dpkg-shlibdeps dpkg-dev "finds out which packages the library needs"
    need_command dh_python3 dh-python "packages the Python binding"
}

# library_version prints the version that crust.h tells.
library_version() { sed -n 's/^#define CRUST_VERSION_[MP][A-Z]* \([0-9]*\)$/\1/p' "$ROOT/include/crust.h" | paste -sd.; }

# source_date prints the time that everything made from these sources bears, in seconds:
# SOURCE_DATE_EPOCH, or when the last commit was made.
source_date() {
    printf '%s\n' "${SOURCE_DATE_EPOCH:-$(git -C "$ROOT" log -1 --format=%ct 2>/dev/null ||
        die "there is no git repository here to tell the time from: set SOURCE_DATE_EPOCH")}"
}

# make_debs packages what build_library has made.
make_debs() (
    umask 022
    version=$(library_version)
    date=$(source_date)
    source=$BUILD/deb/libcrust-$version stage=$BUILD/deb/libcrust-$version/stage
    export SOURCE_DATE_EPOCH=$date # in this subshell alone
    rm -rf "$BUILD/deb"
    mkdir -p "$source/docs"
    cp -r "$ROOT/.ci/debian" "$source/debian"
    cp -r "$ROOT/docs/examples" "$source/docs/"
    cp "$ROOT/CHANGELOG.md" "$source/"
    printf 'libcrust (%s-1) unstable; urgency=medium\n\n  * This version: its changelog says what is new.\n\n -- %s  %s\n' \
        "$version" "$(sed -n 's/^Maintainer: //p' "$source/debian/control")" \
        "$(LC_ALL=C date --utc --date="@$date" '+%a, %d %b %Y %H:%M:%S +0000')" >"$source/debian/changelog"
    python3 "$ROOT/.ci/bill.py" copyright "$BUILD/lib/libcrust.so.1" >"$source/debian/copyright"
    if ! cmake -S "$ROOT" -B "$BUILD/deb/cmake" -DCMAKE_INSTALL_PREFIX=/usr -DCRUST_OUTPUT_DIR="$BUILD" \
        -DCMAKE_INSTALL_LIBDIR="lib/$(dpkg-architecture -qDEB_HOST_MULTIARCH)" >"$BUILD/deb/log" 2>&1 ||
        ! DESTDIR=$stage cmake --install "$BUILD/deb/cmake" >>"$BUILD/deb/log" 2>&1; then
        cat "$BUILD/deb/log" >&2
        die "CMake could not install what is packaged"
    fi
    python=$stage/usr/lib/python3/dist-packages
    mkdir -p "$python"
    (cd "$ROOT/bindings/python/src" && find crust -name _lib -prune -o \( -name '*.py' -o -name py.typed \) -print0 |
        tar -c --null -T - | tar -x --no-same-owner -C "$python")
    chmod -R u=rwX,go=rX "$python"
    write_dist_info "$version" "$python/crust-$version.dist-info"
    # dpkg-deb changes only the times that are later than SOURCE_DATE_EPOCH.
    find "$source" -exec touch --no-dereference --date="@$date" {} +
    say "Packaging libcrust $version for $(dpkg-architecture -qDEB_HOST_ARCH)"
    # -d: what would have to be installed to build the library was asked for above.
    if ! (cd "$source" && dpkg-buildpackage --build=binary --no-sign --no-check-builddeps >>"$BUILD/deb/log" 2>&1); then
        tail -n 30 "$BUILD/deb/log" >&2
        die "the packages could not be made (the whole log is $BUILD/deb/log)"
    fi
    (cd "$BUILD" && printf '    build/%s\n' deb/*.deb)
)

# write_dist_info VERSION DIR tells pip and importlib.metadata of the Python package.
write_dist_info() {
    mkdir -p "$2"
    {
        printf 'Metadata-Version: 2.1\nName: crust\nVersion: %s\n' "$1"
        sed -n 's/^description = "\(.*\)"$/Summary: \1/p; s/^requires-python = "\(.*\)"$/Requires-Python: \1/p' \
            "$ROOT/bindings/python/pyproject.toml"
        printf 'License: MIT OR Apache-2.0\n'
    } >"$2/METADATA"
    printf 'debian\n' >"$2/INSTALLER"
}
