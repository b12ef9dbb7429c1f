#!/usr/bin/env bash
# Proves that a clean clone builds and runs on a machine on which nothing was
# prepared: makes a minimal Debian or Ubuntu by debootstrap, clones the
# repository into it, and runs build.sh there.
#
#   tests/chroot/run.sh [OPTION...] [BUILD.SH-ARGUMENT...]     (default: demo)
#
#   --suite NAME    bookworm (default), trixie, jammy, noble, ...
#   --mirror URL    default: the mirror of this machine, when it is of the same
#                   distribution; needed when it is not
#   --user          run as an unprivileged user without sudo: build.sh must name
#                   what is missing and end with 3; that very command is then
#                   given to root, and build.sh runs again
#   --keep          leave the chroot where it is, and say where
#
# The commit that is cloned is HEAD: what is not committed is not there. Needs
# root, debootstrap, git and the network. The chroot is given how this machine
# reaches the network, and nothing else: resolver, proxies, package indexes, and
# certificates that this machine trusts beyond the usual ones.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
root=$(cd "$here/../.." && pwd -P)
suite=bookworm mirror='' as_user='' keep=''

fail() {
    printf 'chroot: %s\n' "$*" >&2
    exit 1
}

while [ $# -gt 0 ]; do
    case $1 in
    --suite) suite=${2:?--suite needs a name} && shift ;;
    --mirror) mirror=${2:?--mirror needs an address} && shift ;;
    --user) as_user=1 ;;
    --keep) keep=1 ;;
    --help | -h)
        sed -n '2,/^set -/p' "${BASH_SOURCE[0]}" | sed -n 's/^# \{0,1\}//p'
        exit 0
        ;;
    *) break ;;
    esac
    shift
done
[ $# -gt 0 ] || set -- demo

[ "$(id -u)" = 0 ] || fail "only root can make a chroot"
for tool in debootstrap git chroot mount; do
    command -v "$tool" >/dev/null || fail "$tool is not installed"
done

# Debootstrap has one recipe for all Debians and one for all Ubuntus; it may be older
# than a release and not know its name.
case $suite in
focal | jammy | noble | plucky | questing) distribution=ubuntu components=main,universe script=gutsy ;;
*) distribution=debian components=main script=sid ;;
esac

# shellcheck source=tests/chroot/mirror.sh
. "$here/mirror.sh"
[ -n "$mirror" ] || mirror=$(machine_mirror "$distribution")
[ -n "$mirror" ] || fail "this machine uses no archive of $distribution: name one with --mirror"

dir=$(mktemp -d "${TMPDIR:-/var/tmp}/libcrust-$suite.XXXXXX")
chmod 755 "$dir"
finish() {
    # A mount that stays would be removed with the directory.
    for mounted in proc dev/pts dev; do
        if mountpoint -q "$dir/$mounted"; then umount "$dir/$mounted" || exit 1; fi
    done
    if [ -n "$keep" ]; then echo "The chroot is kept in $dir"; else rm -rf --one-file-system "$dir"; fi
}
trap finish EXIT

make_system() {
    local log=$dir.log options=()
    echo "Making a minimal $suite from $mirror"
    # The keys of another distribution are not at hand; this system is thrown away.
    [ "$distribution" = debian ] || [ -e /usr/share/keyrings/ubuntu-archive-keyring.gpg ] || options=(--no-check-gpg)
    debootstrap --variant=minbase --components="$components" "${options[@]+"${options[@]}"}" "$suite" "$dir" "$mirror" "$script" >"$log" 2>&1 || {
        tail -n 5 "$log" >&2
        fail "debootstrap failed"
    }
    rm -f "$log"
    # What every installed system has: updates and security updates.
    {
        echo "deb $mirror $suite ${components//,/ }"
        echo "deb $mirror $suite-updates ${components//,/ }"
        case $distribution in
        debian) echo "deb ${mirror%/}-security $suite-security ${components//,/ }" ;;
        ubuntu) echo "deb $mirror $suite-security ${components//,/ }" ;;
        esac
    } >"$dir/etc/apt/sources.list"
    mount --bind /dev "$dir/dev"
    mount --bind /dev/pts "$dir/dev/pts"
    mount -t proc proc "$dir/proc"
}

# give_network tells the chroot how this machine reaches the network.
give_network() {
    local file
    cp -L /etc/resolv.conf /etc/hosts "$dir/etc/"
    apt-config dump 2>/dev/null | grep -i '^Acquire::[a-z]*::proxy' >"$dir/etc/apt/apt.conf.d/80proxy" || true
    for file in /etc/pip.conf /root/.config/pip/pip.conf /root/.cargo/config.toml; do
        if [ -f "$file" ]; then install -D -m 644 "$file" "$dir$file"; fi
    done
    give_certificates
    # Only what is set here, and is an address, a word or a number.
    env | grep -E '^(https?_proxy|no_proxy|all_proxy|HTTPS?_PROXY|NO_PROXY|ALL_PROXY|PIP_(INDEX_URL|EXTRA_INDEX_URL|TRUSTED_HOST|DEFAULT_TIMEOUT)|GOPROXY|GOSUMDB|GONOSUMDB|GONOPROXY|GOPRIVATE|CARGO_(NET|HTTP|REGISTRIES|SOURCE)_[A-Z_]*)=' >"$dir.env" || true
    if [ -s "$dir.machine-certificates" ]; then
        # These programs look at their own lists otherwise.
        printf '%s=/etc/ssl/certs/ca-certificates.crt\n' PIP_CERT CARGO_HTTP_CAINFO >>"$dir.env"
    fi
    rm -f "$dir.machine-certificates"
}

# give_certificates hands over the authorities this machine trusts beyond those of
# its distribution: a company's, for instance, that looks into the traffic.
give_certificates() {
    local bundle=/etc/ssl/certs/ca-certificates.crt number=0 certificate target=$dir/usr/local/share/ca-certificates
    : >"$dir.machine-certificates"
    [ -f "$bundle" ] || return 0
    mkdir -p "$target"
    while IFS= read -r -d '' certificate; do
        if ! grep -qrF -- "$(sed -n 2p <<<"$certificate")" /usr/share/ca-certificates 2>/dev/null; then
            number=$((number + 1))
            printf '%s\n' "$certificate" >"$target/machine-$number.crt"
            echo "$number" >>"$dir.machine-certificates"
        fi
    done < <(awk '/-----BEGIN/ {c = ""} {c = c $0 "\n"} /-----END/ {printf "%s%c", c, 0}' "$bundle")
    echo "Certificates this machine trusts beyond its distribution's: $number"
}

# inside USER COMMAND... runs a command in the chroot with a new environment.
inside() {
    local user=$1 home=/root settings=()
    shift
    [ "$user" = root ] || home=/home/$user
    mapfile -t settings <"$dir.env"
    # shellcheck disable=SC2016 # $HOME is the user's
    chroot "$dir" /usr/bin/env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        HOME="$home" USER="$user" LOGNAME="$user" SHELL=/bin/bash TERM="${TERM:-dumb}" LC_ALL=C.UTF-8 \
        "${settings[@]+"${settings[@]}"}" \
        setpriv --reuid "$user" --regid "$user" --init-groups /bin/bash -c 'cd "$HOME/libcrust" && exec "$@"' inside "$@"
}

# clone puts the last commit where a user would have cloned it to.
clone() {
    local home=$1
    git clone -q --no-hardlinks "file://$root" "$dir$home/libcrust"
    printf 'Cloned %s\n' "$(git -C "$dir$home/libcrust" log -1 --format='%h %s')"
}

# as_stranger is the run without privileges: refused with a command, then helped.
as_stranger() {
    local status=0 log=$dir/tmp/first.log command
    chroot "$dir" useradd --create-home --shell /bin/bash stranger
    clone /home/stranger
    chroot "$dir" chown -R stranger:stranger /home/stranger
    printf '\n$ ./build.sh %s\n' "$*"
    inside stranger ./build.sh "$@" 2>&1 | tee "$log" || status=${PIPESTATUS[0]}
    [ "$status" = 3 ] || fail "build.sh ended with $status where packages are missing, not with 3"
    command=$(sed -n 's/^ *sudo apt-get update && sudo //p' "$log")
    [ -n "$command" ] || fail "build.sh did not say which command installs what is missing"
    printf '\n# %s\n' "$command"
    # The clone for root is only a place to stand in.
    mkdir -p "$dir/root/libcrust"
    inside root apt-get update -q >/dev/null
    # shellcheck disable=SC2086 # the command is words
    inside root $command >"$dir/tmp/apt.log" 2>&1 || fail "the command that build.sh named does not work"
    printf '\n$ ./build.sh %s\n' "$*"
    inside stranger ./build.sh "$@"
}

begin=$SECONDS
make_system
give_network
if [ -n "$as_user" ]; then
    as_stranger "$@"
else
    clone /root
    printf '\n# ./build.sh %s\n' "$*"
    inside root ./build.sh "$@"
fi
printf '\nchroot: ./build.sh %s on a new %s ended with 0 after %d min %02d s\n' \
    "$*" "$suite" $(((SECONDS - begin) / 60)) $(((SECONDS - begin) % 60))
rm -f "$dir.env"
