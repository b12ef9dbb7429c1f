#!/usr/bin/env bash
# in-own-network.sh COMMAND...: runs it in a network of its own, with a LAN, and with an
# address that counts as one of the Internet.
set -euo pipefail
exec unshare --net bash -euc '
    ip link set lo up
    ip link add lan0 type veth peer name lan1
    ip address add 10.77.0.1/24 broadcast + dev lan0
    ip address add 198.51.100.1/32 dev lan0
    ip link set lan1 up
    ip link set lan0 up
    unset CRUST_BEACON
    CRUST_COMPAT_LAN=1 CRUST_COMPAT_GLOBAL=198.51.100.1 exec "$@"
' in-own-network "$@"
