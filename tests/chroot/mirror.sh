# shellcheck shell=bash
# Where this machine has its packages from. Sourced by what makes systems by debootstrap.

# machine_mirror DISTRIBUTION prints the first archive of debian or ubuntu that this
# machine uses, if it uses one.
machine_mirror() {
    cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null |
        sed -n "s/^URIs: *\([^ ]*\).*/\1/p; s/^deb  *\(\[[^]]*\] *\)\{0,1\}\([^ ]*\).*/\2/p" |
        grep "/$1/*\$" | head -n 1 || true
}
