#!/usr/bin/env bash
# Makes the Debian packages, twice, and installs them in a clean Debian stable: the
# programs of docs/examples are compiled and run there, and then the packages are
# purged, after which nothing may be left of them.
#
#   tests/deb/run.sh
#
# The system is made by debootstrap once and kept in build/cache. Its processes have a
# network of their own, with a loopback interface and nothing else. Needs root, and a
# kernel that lets it make namespaces; where that is forbidden it ends with 77.
# CRUST_DEB_SUITE names another release, CRUST_DEB_MIRROR another archive than that of
# this machine.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
root=$(cd "$here/../.." && pwd -P)
build=$root/build
suite=${CRUST_DEB_SUITE:-trixie} # Debian 13, stable since August 2025
base=$build/cache/debian-$suite.tar.gz
# shellcheck source=tests/chroot/mirror.sh
. "$root/tests/chroot/mirror.sh"

refusal=$({ [ "$(id -u)" = 0 ] || { echo "only root may make a chroot" && false; }; } 2>&1 &&
    unshare --mount --net --pid --fork chroot / true 2>&1) || {
    printf 'the packages cannot be installed here: %s\n' "$refusal"
    exit 77
}

work=$(mktemp -d "${TMPDIR:-/var/tmp}/libcrust-deb.XXXXXX")
system=$work/system
# The mounts are those of a namespace, and gone with the last process there.
trap 'rm -rf --one-file-system "$work"' EXIT
# shellcheck source=tests/try.sh
. "$root/tests/try.sh"

# make_base makes the clean system: what every Debian has, and compilers and Python.
make_base() {
    local mirror=${CRUST_DEB_MIRROR:-$(machine_mirror debian)} log=$build/log/debootstrap.out
    [ ! -e "$base" ] || return 0
    printf 'Making a minimal Debian %s, once\n' "$suite"
    mkdir -p "$build/cache" "$build/log"
    debootstrap --variant=minbase --include=gcc,g++,libc6-dev,pkgconf,python3 \
        "$suite" "$work/base" "${mirror:-http://deb.debian.org/debian}" sid >"$log" 2>&1 || {
        tail -n 5 "$log"
        return 1
    }
    rm -rf "$work/base/var/cache/apt/archives" "$work/base/var/lib/apt/lists"
    mkdir -p "$work/base/var/cache/apt/archives/partial" "$work/base/var/lib/apt/lists/partial"
    tar -C "$work/base" --exclude='./dev/*' --exclude='./proc/*' --exclude='./sys/*' -c . | gzip -1 >"$base.new"
    mv "$base.new" "$base"
    rm -rf --one-file-system "$work/base"
}

# inside COMMAND... runs a command in the system as root, as_user one as nobody.
inside() {
    # shellcheck disable=SC2016 # the inner shell's
    timeout -k 5 120 unshare --mount --net --pid --fork sh -ec '
        system=$1; shift
        ip link set lo up
        mount --bind /dev "$system/dev"
        mount -t proc proc "$system/proc"
        exec chroot "$system" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/nonexistent LC_ALL=C.UTF-8 \
            DEBIAN_FRONTEND=noninteractive "$@"' inside "$system" "$@"
}
as_user() { inside setpriv --reuid nobody --regid nogroup --clear-groups env CRUST_BEACON=off CRUST_PORTMAP=off "$@"; }

# files lists what there is in the system: names, kinds, modes, owners, links and what
# files hold. Left out is what tells of the past and is not of a package.
files() {
    (
        cd "$system"
        find . -xdev \( -path ./dev -o -path ./proc -o -path ./sys -o -path ./tmp -o -path ./var/log -o -path ./var/cache/apt \
            -o -path ./var/cache/ldconfig/aux-cache -o -path ./var/cache/debconf -o -path './var/lib/dpkg/*-old' -o -path ./var/lib/dpkg/status \
            -o -path './var/lib/dpkg/lock*' -o -path './var/lib/dpkg/triggers/Lock' -o -path ./var/lib/apt/extended_states -o -path ./var/lib/apt/lists \
            -o -path ./etc/ld.so.cache \) -prune -o -printf '%p %y %m %u %g %l\n' -type f -exec sha256sum {} +
    ) | LC_ALL=C sort
}

# packages lists what the system thinks it has.
# shellcheck disable=SC2016 # the fields are dpkg's
packages() { inside dpkg-query -W -f '${binary:Package} ${Version} ${db:Status-Status}\n'; }

# says NAME COMMAND...: as nobody, over either transport, it ends with 0 and says what it should.
says() {
    local name=$1 transport
    shift
    for transport in tcp utp; do
        as_user timeout 60 "$@" "$transport://127.0.0.1:0" >"$work/said" &&
            diff "$root/tests/examples/expected/$name.txt" "$work/said" || return
    done
}

# compile FILE OUT runs the command that the comment of an example tells, with its libraries.
compile() {
    local command
    command=$(sed -n 's/^ \*     \(c\(c\|++\) .*\)$/\1/p' "$root/docs/examples/$(basename "$1")")
    as_user sh -ec "cd /tmp/try && cp '$1' . && $command"
}

hashes() { (cd "$build/deb" && sha256sum ./*.deb); }
again() (
    # Whatever differs between two machines, but the compilers.
    umask 077
    hashes >"$work/first"
    TZ=Pacific/Kiritimati LANG=C "$root/build.sh" deb >"$work/again" 2>&1 || {
        cat "$work/again"
        return 1
    }
    hashes | diff "$work/first" -
)

# bill checks the bill of materials of what build.sh dist makes: JSON, with everything that
# Go says is linked in, and what no Go module is.
bill() {
    local library=$build/lib/libcrust.so.1 tool=$build/bin/crust module
    SOURCE_DATE_EPOCH=1 python3 "$root/.ci/bill.py" sbom "$library" "$tool" >"$work/bill" &&
        python3 -m json.tool "$work/bill" >"$work/json" || return
    for module in $(go version -m "$(readlink -f "$library")" "$tool" | sed -n 's/^\tdep\t\([^\t]*\)\t\([^\t]*\).*/\1@\2/p') libsodium@ libutp gcc@; do
        grep -q "\"purl\": .*$module" "$work/json" || {
            printf '%s is not in the bill\n' "$module"
            return 1
        }
    done
}

# pack packs two copies of the examples, of unlike times and modes, to the same bytes.
pack() {
    local kind
    for kind in tar.gz zip; do
        rm -rf "$work/pack"
        mkdir -p "$work/pack/one" "$work/pack/two"
        cp -r "$root/docs/examples" "$work/pack/one/"
        (umask 077 && cp -r "$root/docs/examples" "$work/pack/two/" && touch -d 2001-02-03 "$work/pack/two/examples"/*)
        SOURCE_DATE_EPOCH=1700000000 python3 "$root/.ci/pack.py" "$work/pack/one/examples" "$work/pack/one.$kind" &&
            SOURCE_DATE_EPOCH=1700000000 python3 "$root/.ci/pack.py" "$work/pack/two/examples" "$work/pack/two.$kind" &&
            cmp "$work/pack/one.$kind" "$work/pack/two.$kind" || return
    done
}

try "the bill of materials has everything that is linked in" bill
try "archives of the same files are the same to the bit" pack
"$root/build.sh" deb
try "packages made again are the same to the bit" again
try "lintian finds no fault" lintian --allow-root --fail-on error,warning --tag-display-limit 0 \
    --suppress-tags initial-upload-closes-no-bugs "$build"/deb/*.changes
make_base
mkdir "$system"
tar -C "$system" -xzf "$base"
install -d -m 1777 "$system/tmp"
install -d -o nobody -g nogroup "$system/tmp/try"
install -d "$system/tmp/debs"
cp "$build"/deb/*.deb "$system/tmp/debs/"
files >"$work/files-before"
packages >"$work/packages-before"
printf 'Debian %s, %d packages, without libcrust: %d files\n' "$(<"$system/etc/debian_version")" \
    "$(wc -l <"$work/packages-before")" "$(wc -l <"$work/files-before")"

try "apt-get installs the packages, and nothing else is needed" inside sh -c \
    'apt-get install -y -o Dpkg::Use-Pty=0 --no-install-recommends /tmp/debs/*.deb && dpkg --audit'
version=$(sed -n 's/^#define CRUST_VERSION_[MP][A-Z]* \([0-9]*\)$/\1/p' "$root/include/crust.h" | paste -sd.)
try "the system knows libcrust.so.1" inside sh -c 'ldconfig -p | grep -q "libcrust\.so\.1 "'
# shellcheck disable=SC2016 # the inner shell's
try "the library needs the C library only" inside sh -c \
    '[ "$(dpkg-query -W -f "\${Depends}" libcrust1 | sed "s/ (.*//")" = libc6 ]'
try "pkg-config knows version $version" test "$(as_user pkg-config --modversion crust)" = "$version"
for file in "$root"/docs/examples/*.c*; do
    name=$(basename "${file%.*}")
    try "$(basename "$file"): compile as its comment says" compile "/usr/share/doc/libcrust-dev/examples/$(basename "$file")"
    try "$(basename "$file"): runs" says "$name" "/tmp/try/$name"
done
try "the static library: compile" as_user sh -ec 'cd /tmp/try && cc -o static epoll.c -DCRUST_STATIC -l:libcrust.a -lpthread'
try "the static library: the program runs" says epoll /tmp/try/static
try "hello.py: runs" says hello python3 /usr/share/doc/python3-crust/examples/hello.py
try "Python knows version $version, and has compiled the module" as_user python3 -c "
import importlib.metadata, pathlib, crust
assert importlib.metadata.version('crust') == '$version', importlib.metadata.version('crust')
assert list(pathlib.Path(crust.__file__).parent.glob('__pycache__/*.pyc'))"
try "without the packages that need it the library stays" sh -c "! chroot '$system' dpkg --remove libcrust1"

files >"$work/files-installed"
try "the packages have brought files" test "$(wc -l <"$work/files-installed")" -gt $(($(wc -l <"$work/files-before") + 40))
try "apt-get purges the packages" inside apt-get purge -y libcrust1 libcrust-dev python3-crust
files >"$work/files-after"
packages >"$work/packages-after"
try "no file is left, none is another" diff "$work/files-before" "$work/files-after"
try "no package is left" diff "$work/packages-before" "$work/packages-after"

printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
