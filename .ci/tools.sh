# shellcheck shell=bash disable=SC2034
# What the build needs from the machine, and how to get it. Sourced by build.sh,
# which sets ROOT and BUILD.
#
# Nothing is downloaded but through apt, the Go module proxy, PyPI and crates.io,
# each by its ordinary client.

GO_MINIMUM=1.26.0    # what go.mod asks for
GO_TOOLCHAIN=1.26.8  # what is fetched when the machine's Go is older
RUST_MINIMUM=1.85.0  # rust-version in bindings/rust/Cargo.toml
PYTHON_MINIMUM=3.9   # requires-python in bindings/python/pyproject.toml
STATICCHECK_VERSION=v0.8.2
GOLANGCI_VERSION=v2.15.0
GOVULNCHECK_VERSION=v1.9.0

# ---- talking ---------------------------------------------------------------

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
    BOLD=$'\033[1m' RED=$'\033[31m' GREEN=$'\033[32m' YELLOW=$'\033[33m' PLAIN=$'\033[0m'
else
    BOLD='' RED='' GREEN='' YELLOW='' PLAIN=''
fi

# say prints the heading of a step.
say() { printf '%s==> %s%s\n' "$BOLD" "$*" "$PLAIN"; }

# die says what is wrong in one sentence and ends with status 1.
die() {
    printf 'build.sh: %s\n' "$*" >&2
    exit 1
}

# have tells whether a command exists.
have() { command -v "$1" >/dev/null 2>&1; }

# at_least tells whether dotted version $1 is $2 or newer.
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

# ---- needs: collect what is missing, then install it in one go ---------------

NEED_PACKAGES=()
NEED_REASONS=()
LISTS_FRESH=''

# need PACKAGE REASON adds a package to what is missing.
need() {
    local package
    for package in "${NEED_PACKAGES[@]+"${NEED_PACKAGES[@]}"}"; do
        [ "$package" = "$1" ] && return
    done
    NEED_PACKAGES+=("$1")
    NEED_REASONS+=("$2")
}

# need_command COMMAND PACKAGE REASON
need_command() { have "$1" || need "$2" "$3"; }

# need_to_compile asks for what every build of the library uses.
need_to_compile() {
    need_command gcc gcc "compiles the C parts of the library"
    # The headers have to be asked for: minimal systems have a compiler without them.
    if ! have gcc || ! echo '#include <stdlib.h>' | gcc -E -xc - >/dev/null 2>&1; then
        need libc6-dev "headers of the C library"
    fi
    need_command g++ g++ "compiles libutp, the part of the library that is C++"
    need_command ld binutils "links the library and keeps its inner symbols private"
    need_command pkg-config pkg-config "finds libsodium"
    if ! have pkg-config || ! pkg-config --exists 'libsodium >= 1.0.18'; then
        need libsodium-dev "the cryptography inside the library"
    fi
    [ -e /etc/ssl/certs/ca-certificates.crt ] || [ -n "${SSL_CERT_FILE:-}" ] ||
        need ca-certificates "lets Go, pip and cargo check what they fetch"
    find_go || need golang-go "any Go, to fetch Go $GO_TOOLCHAIN with"
}

# native_target prints what capi/build-lib.sh calls this machine.
native_target() {
    case $(uname -m) in
    aarch64) printf 'linux-arm64\n' ;;
    arm*) printf 'linux-armv7\n' ;;
    *) printf 'linux-amd64\n' ;;
    esac
}

# needs_sodium TARGET tells whether libsodium is still to be made for a target.
needs_sodium() { [ "$1" != "$(native_target)" ] && [ ! -e "$BUILD/sodium/$1/stamp" ]; }

# need_target TARGET asks for the cross compilers of a target.
need_target() {
    [ "$1" != "$(native_target)" ] || return 0
    case $1 in
    linux-amd64) need_command x86_64-linux-gnu-g++ g++-x86-64-linux-gnu "compiles for x86-64" ;;
    linux-arm64) need_command aarch64-linux-gnu-g++ g++-aarch64-linux-gnu "compiles for ARM64" ;;
    linux-armv7) need_command arm-linux-gnueabihf-g++ g++-arm-linux-gnueabihf "compiles for ARMv7" ;;
    linux-amd64-musl) need_command x86_64-linux-musl-gcc musl-tools "compiles for musl" ;;
    windows-amd64) need_command x86_64-w64-mingw32-g++ g++-mingw-w64-x86-64-win32 "compiles for Windows" ;;
    esac
    if needs_sodium "$1"; then
        need_command make make "builds libsodium for other machines"
        need_rust rustc # its cargo fetches the source
    fi
}

# need_wine asks for the programs that stand in for Windows.
need_wine() { [ -e /usr/lib/wine/wine64 ] || need_command wine64 wine64 "runs what is built for Windows"; }

# need_qemu asks for the program that stands in for processors of ARM. It is called
# qemu-aarch64 in some packages and qemu-aarch64-static in others.
need_qemu() { have qemu-aarch64-static || need_command qemu-aarch64 qemu-user "runs what is built for ARM"; }

# need_python plain|venv asks for an interpreter, with venv for virtual
# environments too.
need_python() {
    have python3 || need python3 "runs the Python binding"
    if [ "$1" = venv ] && ! python3 -c 'import venv, ensurepip' >/dev/null 2>&1; then
        need python3-venv "a private place for pytest, ruff, mypy and coverage"
    fi
}

# need_rust COMPONENT... asks for a Rust that is new enough with the components
# named: rustc, clippy, rustfmt. Debian and Ubuntu keep newer compilers under
# names of their own: rustc-web, rustc-1.85.
need_rust() {
    local suffix component
    if find_rust; then
        suffix=$(dpkg-query -S "$(readlink -f "$(command -v rustc)")" 2>/dev/null | sed -n 's/^rustc\(-[^:]*\)\?:.*/\1/p') || suffix=''
    else
        refresh_lists
        suffix=$(newest_rust_suffix)
        need "cargo$suffix" "builds the Rust binding, which needs Rust $RUST_MINIMUM"
        need "rustc$suffix" "the compiler under it"
    fi
    for component in "$@"; do
        cargo "${component/rustfmt/fmt}" --version >/dev/null 2>&1 && continue
        case $component in
        clippy) need "rust$suffix-clippy" "lints the Rust binding" ;;
        rustfmt) need "rustfmt$suffix" "checks the format of the Rust binding" ;;
        esac
    done
}

# newest_rust_suffix prints what follows "rustc" in the name of the package whose
# version will do: "", "-web" or "-1.85".
newest_rust_suffix() {
    local package version
    for package in rustc rustc-web $(apt-cache --names-only search '^rustc-1\.[0-9]+$' 2>/dev/null | awk '{print $1}' | sort -rV); do
        version=$(apt-cache policy "$package" 2>/dev/null | awk '/Candidate:/ {print $2}')
        version=${version%%[+~-]*}
        if [ -n "$version" ] && [ "$version" != "(none)" ] && at_least "$version" "$RUST_MINIMUM"; then
            printf '%s\n' "${package#rustc}"
            return
        fi
    done
    # Without package lists: what the release is known to have.
    if grep -q '^VERSION_CODENAME=bookworm' /etc/os-release 2>/dev/null; then printf '%s\n' -web; fi
}

# as_root runs a command as root, by sudo when need be and when it asks nothing.
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }
may_be_root() { [ "$(id -u)" = 0 ] || { have sudo && sudo -n true 2>/dev/null; }; }

# refresh_lists runs apt-get update once, when it may. A list that cannot be
# refreshed is no reason to stop: what it names may do.
refresh_lists() {
    [ -z "$LISTS_FRESH" ] && have apt-get && may_be_root || return 0
    LISTS_FRESH=1
    mkdir -p "$BUILD"
    as_root apt-get update -q >"$BUILD/apt.log" 2>&1 ||
        printf 'apt-get update failed; going on with the old lists (see %s)\n' "$BUILD/apt.log" >&2
}

# install_needs installs what was asked for, when it may. Otherwise it says the
# command and ends with status 3.
install_needs() {
    [ ${#NEED_PACKAGES[@]} -gt 0 ] || return 0
    local i command="apt-get install -y --no-install-recommends --no-remove ${NEED_PACKAGES[*]}"
    say "Missing on this machine"
    for i in "${!NEED_PACKAGES[@]}"; do
        printf '    %-18s %s\n' "${NEED_PACKAGES[$i]}" "${NEED_REASONS[$i]}"
    done
    if ! have apt-get; then
        printf 'build.sh: there is no apt-get here; install the equivalents of: %s\n' "${NEED_PACKAGES[*]}" >&2
        exit 3
    fi
    if ! may_be_root; then
        printf 'build.sh: only root may install these packages. Run this, then build.sh again:\n\n' >&2
        printf '    sudo apt-get update && sudo %s\n\n' "$command" >&2
        exit 3
    fi
    say "Installing: $command"
    refresh_lists
    if ! as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -q -o DPkg::Lock::Timeout=300 --no-install-recommends --no-remove "${NEED_PACKAGES[@]}" >>"$BUILD/apt.log" 2>&1; then
        tail -n 20 "$BUILD/apt.log" >&2
        die "apt-get could not install: ${NEED_PACKAGES[*]} (the whole log is $BUILD/apt.log)"
    fi
    NEED_PACKAGES=()
    NEED_REASONS=()
    hash -r
}

# ---- Go ----------------------------------------------------------------------

go_version() { "$1" env GOVERSION 2>/dev/null | sed 's/^go//; s/[^0-9.].*//'; }

# find_go looks for a Go that is new enough and puts it first in PATH. It returns
# 0 as well when there is only an older one, which can fetch the newer.
find_go() {
    local candidate version
    GO_OLD=''
    for candidate in go /usr/local/go/bin/go "$HOME/sdk/go$GO_TOOLCHAIN/bin/go" "$HOME/go/bin/go" /usr/lib/go/bin/go; do
        have "$candidate" || continue
        version=$(cd / && GOTOOLCHAIN=local go_version "$candidate")
        [ -n "$version" ] || continue
        if at_least "$version" "$GO_MINIMUM"; then
            case $candidate in */*) PATH=$(dirname "$candidate"):$PATH ;; esac
            return 0
        fi
        at_least "$version" 1.16 && GO_OLD=${GO_OLD:-$candidate}
    done
    [ -n "$GO_OLD" ]
}

# ensure_go makes `go` in PATH a Go that can build the library. The toolchain is
# Go's own release, which the module proxy serves as a module and the checksum
# database vouches for; it lands in the module cache like any other.
ensure_go() {
    find_go || die "there is no Go on this machine and none could be installed"
    if [ -n "$GO_OLD" ] && ! at_least "$(cd / && GOTOOLCHAIN=local go_version go)" "$GO_MINIMUM"; then
        local platform version dir
        platform=$(cd / && GOTOOLCHAIN=local "$GO_OLD" env GOHOSTOS)-$(cd / && GOTOOLCHAIN=local "$GO_OLD" env GOHOSTARCH)
        version=v0.0.1-go$GO_TOOLCHAIN.$platform
        dir=$(cd / && "$GO_OLD" env GOMODCACHE)/golang.org/toolchain@$version
        if [ ! -x "$dir/bin/go" ]; then
            say "Fetching Go $GO_TOOLCHAIN for $platform from the module proxy"
            # An old Go cannot read the go.mod of the library, so it stands in one of its own.
            mkdir -p "$BUILD/toolchain"
            printf 'module toolchain\n' >"$BUILD/toolchain/go.mod"
            (cd "$BUILD/toolchain" && GOTOOLCHAIN=local GOFLAGS='' "$GO_OLD" mod download "golang.org/toolchain@$version") ||
                die "Go $GO_TOOLCHAIN could not be fetched; install Go $GO_MINIMUM or newer and run again"
            # Modules keep no execute bits; Go's own switching sets them the same way.
            chmod +x "$dir"/bin/* && find "$dir/pkg/tool" -type f -exec chmod +x {} +
        fi
        PATH=$dir/bin:$PATH
    fi
    # The build is the same whatever the machine's environment says.
    export PATH GOTOOLCHAIN=local GOFLAGS=-buildvcs=false GOWORK=off CGO_ENABLED=1
    unset GOOS GOARCH GOARM GOAMD64 GOEXPERIMENT
    hash -r
    printf 'Go       %s\n' "$(go version)"
}

# go_tool NAME MODULE VERSION installs a Go program into build/tools once and
# prints its path.
go_tool() {
    local bin=$BUILD/tools/$1-$3
    if [ ! -x "$bin" ]; then
        GOBIN=$BUILD/tools/new nice go install "$2@$3" >&2 || return 1
        mv "$BUILD/tools/new/$1" "$bin"
    fi
    printf '%s\n' "$bin"
}

# ---- Rust --------------------------------------------------------------------

# find_rust looks for a Rust that is new enough and puts it first in PATH.
find_rust() {
    local dir version
    for dir in '' "$HOME/.cargo/bin/" $(printf '%s\n' /usr/lib/rust-1.*/bin/ | sort -rV); do
        if ! have "${dir}cargo" || ! have "${dir}rustc"; then continue; fi
        version=$(cd / && "${dir}rustc" --version 2>/dev/null | awk '{print $2}')
        if [ -n "$version" ] && at_least "${version%%-*}" "$RUST_MINIMUM"; then
            [ -z "$dir" ] || PATH=${dir%/}:$PATH
            export PATH
            return 0
        fi
    done
    return 1
}

ensure_rust() {
    find_rust || die "Rust $RUST_MINIMUM or newer is needed; install it from your distribution or with rustup"
    printf 'Rust     %s\n' "$(rustc --version)"
}

# ---- Python --------------------------------------------------------------------

ensure_python() {
    have python3 || die "python3 is needed"
    python3 -c "import sys; sys.exit(sys.version_info < tuple(map(int, '$PYTHON_MINIMUM'.split('.'))))" ||
        die "Python $PYTHON_MINIMUM or newer is needed, python3 is $(python3 --version)"
    printf 'Python   %s\n' "$(python3 --version)"
}

# ensure_venv makes build/venv with the pinned tools of .ci/requirements.txt.
ensure_venv() {
    local stamp
    VENV=$BUILD/venv
    stamp=$(python3 -c 'import sys; print(sys.executable, sys.version)' | cat - "$ROOT/.ci/requirements.txt" | sha256sum)
    if [ "$(cat "$VENV/stamp" 2>/dev/null)" != "$stamp" ]; then
        say "Making build/venv with $(grep -cv '^#' "$ROOT/.ci/requirements.txt") pinned Python tools"
        rm -rf "$VENV"
        python3 -m venv "$VENV"
        "$VENV/bin/python" -m pip install -q --disable-pip-version-check -r "$ROOT/.ci/requirements.txt" ||
            die "pip could not install the tools of .ci/requirements.txt"
        printf '%s\n' "$stamp" >"$VENV/stamp"
    fi
}
