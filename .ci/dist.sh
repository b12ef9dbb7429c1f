# shellcheck shell=bash
# build.sh dist: what a release consists of, into build/dist. Sourced by build.sh.

# shellcheck source=.ci/deb.sh
. "$ROOT/.ci/deb.sh"
# shellcheck source=.ci/wheel.sh
. "$ROOT/.ci/wheel.sh"

# this_target prints the target that this machine is.
this_target() { uname -m | sed 's/^x86_64$/amd64/; s/^aarch64$/arm64/; s/^armv.*/armv7/; s/^/linux-/'; }

# dist_targets prints the targets of which there are archives: all that build.sh lib
# --target builds.
dist_targets() { if declare -F build_target >/dev/null; then "$ROOT/capi/build-lib.sh" --targets; else this_target; fi; }

# built TARGET prints where the files for a target are.
built() { if [ "$1" = "$(this_target)" ]; then printf '%s\n' "$BUILD"; else printf '%s\n' "$BUILD/$1"; fi; }

# sodium_versions TARGET... prints the versions of libsodium that is linked into what was
# built for targets.
sodium_versions() {
    local target
    for target in "$@"; do
        if [ "$target" = "$(this_target)" ]; then
            pkg-config --modversion libsodium
        else
            sed -n 's/^#define SODIUM_VERSION_STRING "\(.*\)"$/\1/p' "$BUILD/sodium/$target/include/sodium/version.h"
        fi
    done | sort -u
}

need_for_dist() {
    local target
    for target in $(dist_targets); do [ "$target" = "$(this_target)" ] || need_target "$target"; done
    need_command git git "tells what belongs to the release, and its time"
    need_for_deb
}

# check_committed ends the program when the files are not those of the commit.
check_committed() {
    git -C "$ROOT" rev-parse --verify -q HEAD >/dev/null ||
        die "a release is made of a commit, and there is no git repository here"
    [ -z "$(git -C "$ROOT" status --porcelain)" ] ||
        die "a release is made of a commit, and there are changes that are not committed: $(git -C "$ROOT" status --porcelain | head -n 3 | tr '\n' ' ')"
}

# stage_target TARGET DIR copies what was built for a target, and what goes with it.
stage_target() {
    local target=$1 dir=$2 from
    from=$(built "$target")
    mkdir -p "$dir/docs" "$dir/bin"
    cp -a "$from/include" "$from/lib" "$dir/"
    find "$from/bin" -maxdepth 1 -type f -exec cp {} "$dir/bin/" \;
    cp "$ROOT"/LICENSE-* "$ROOT/README.md" "$ROOT/CHANGELOG.md" "$dir/"
    cp "$ROOT"/docs/*.md "$ROOT"/docs/*.svg "$dir/docs/"
    cp -r "$ROOT/docs/examples" "$dir/docs/"
    (cd "$dir" && bill licences "$target") >"$dir/LICENSES-LINKED.txt"
}

# target_wheel TARGET DIR puts the wheel for another machine than this into DIR.
target_wheel() {
    local target=$1 library
    library=$(built "$1")/lib/libcrust.so.1
    case $target in
    "$(this_target)") return ;; # it is there
    *-musl) return ;;           # Python opens libraries when it runs, see docs/PLATFORMS.md
    windows-*) library=$(built "$1")/bin/crust.dll ;;
    esac
    (
        CRUST_SODIUM_VERSION=$(sodium_versions "$target")
        export CRUST_SODIUM_VERSION
        make_target_wheel "wheel-$target" "$target" "$library"
    )
    cp "$BUILD/wheel-$target"/crust-*.whl "$2/"
}

# bill WHAT TARGET... runs bill.py for the binaries below the current directory.
bill() {
    local what=$1
    shift
    # shellcheck disable=SC2046 # names without spaces
    CRUST_SODIUM_VERSION=$(sodium_versions "$@" | paste -sd' ') python3 "$ROOT/.ci/bill.py" "$what" $(binaries)
}

# binaries prints the files below the current directory that tell what is linked in.
binaries() { find . -type f \( -path '*/lib/libcrust.so.*' -o -path '*/bin/crust*' \) ! -name '*.a' | sed 's,^\./,,' | LC_ALL=C sort; }

# make_dist DIR makes the release in DIR, below build.
make_dist() (
    out=$BUILD/$1 stage=$BUILD/$1/stage
    version=$(library_version)
    SOURCE_DATE_EPOCH=$(source_date)
    export SOURCE_DATE_EPOCH
    rm -rf "$out"
    mkdir -p "$stage"
    make_debs
    say "Making the wheel and the source distribution"
    make_wheel wheel
    cp "$BUILD"/deb/*.deb "$BUILD"/wheel/crust-* "$out/"
    targets=$(dist_targets)
    for target in $targets; do
        name=libcrust-$version-$target kind=tar.gz
        case $target in windows-*) kind=zip ;; esac
        if [ "$target" != "$(this_target)" ]; then
            say "Building libcrust and the crust tool for $target"
            (build_target "$target")
        fi
        target_wheel "$target" "$out"
        stage_target "$target" "$stage/$name"
        python3 "$ROOT/.ci/pack.py" "$stage/$name" "$out/$name.$kind"
    done
    mkdir "$stage/libcrust-$version"
    git -C "$ROOT" ls-files -z | tar -C "$ROOT" -c --null -T - | tar -x -C "$stage/libcrust-$version"
    python3 "$ROOT/.ci/pack.py" "$stage/libcrust-$version" "$out/libcrust-$version-source.tar.gz"
    # shellcheck disable=SC2086 # words
    (cd "$stage" && bill sbom $targets) >"$out/libcrust-$version.cdx.json"
    # shellcheck disable=SC2086
    (cd "$stage" && bill licences $targets) >"$out/LICENSES-LINKED.txt"
    rm -rf "$stage"
    sums=$(cd "$out" && sha256sum -- *)
    printf '%s\n' "$sums" >"$out/SHA256SUMS"
    say "Release $version of $(git -C "$ROOT" log -1 --format='%h, %cs')"
    for file in "$out"/*; do
        printf '    build/%s/%-44s %6s KiB\n' "$1" "$(basename "$file")" $((($(stat -c %s "$file") + 1023) / 1024))
    done
)

# check_dist makes the release of the last commit twice, in clones of unlike names, at
# unlike times of the day, the second one with nothing that was compiled before, and
# compares. The clones stay in build/dist-check when they differ.
check_dist() {
    local work=$BUILD/dist-check one=$BUILD/dist-check/one two=$BUILD/dist-check/another/place/for/two clone
    check_committed
    rm -rf "$work"
    for clone in "$one" "$two"; do
        git clone -q "file://$ROOT" "$clone"
    done
    say "Making the release of $(git -C "$ROOT" log -1 --format=%h) for the first time"
    "$one/build.sh" dist || die "the release could not be made in $one"
    say "Making it again, elsewhere, from nothing (some minutes)"
    (umask 077 && TZ=Pacific/Kiritimati GOCACHE=$work/cache "$two/build.sh" dist) || die "the release could not be made in $two"
    if ! diff "$one/build/dist/SHA256SUMS" "$two/build/dist/SHA256SUMS"; then
        die "the two differ in what is listed above; they are $one/build/dist and $two/build/dist"
    fi
    say "Both are the same to the bit: $(wc -l <"$one/build/dist/SHA256SUMS") files"
    rm -rf "$work"
}

command_dist() {
    local check=''
    if [ "${1:-}" = --check ]; then check=1 && shift; fi
    [ $# = 0 ] || usage_error "dist takes no arguments but --check"
    need_to_compile
    need_python venv
    need_for_dist
    install_needs
    check_committed
    ensure_go
    ensure_python
    [ "$(dist_targets)" = "$(this_target)" ] || ensure_rust # cargo fetches the source of libsodium
    if [ -n "$check" ]; then
        check_dist
        return
    fi
    ensure_venv
    build_packages
    build_library
    make_dist dist
}
