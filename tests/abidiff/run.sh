#!/usr/bin/env bash
# Compares the C ABI of the library with that of the last release, crust.abi, by
# abidiff: symbols, prototypes, structs and numbers. What a program that was
# compiled against the release relies on must still be so; additions are fine. Then
# proves that the comparison can fail, and the golden files of tests/abi too, by
# seeding changes of each kind in copies of header and symbols.
#
#   tests/abidiff/run.sh [--release]
#
# --release writes crust.abi anew: to be done once for each release, and never to
# make a failure go away. The library is the one in build/, whose types come from
# crust.h: tests/abi and the compiler hold the two together.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
root=$(cd "$here/../.." && pwd -P)
library=${CRUST_LIBRARY:-$root/build/lib/libcrust.so.1}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
CC=${CC:-cc}
passed=0 failed=0

# ok NAME, not_ok NAME [FILE]: count a check; what FILE holds is shown.
ok() {
    passed=$((passed + 1))
    printf 'ok   %s\n' "$1"
}
not_ok() {
    failed=$((failed + 1))
    printf 'FAIL %s\n' "$1"
    [[ -z ${2:-} ]] || sed 's/^/     /' "$2"
}

# exports LIBRARY lists the functions that a library exports.
exports() { nm -D --defined-only "$1" | sed -n 's/.* T \(.*\)@@CRUST_1$/\1/p' | LC_ALL=C sort; }

# describe DIRECTORY SYMBOLS writes DIRECTORY/now.abi: what DIRECTORY/crust.h declares, of
# that only the SYMBOLS. The library itself has no debugging information, so a library
# of empty functions with the prototypes of the header stands for it.
describe() {
    local dir=$1 symbols=$2
    {
        printf '#include "crust.h"\n'
        awk -f "$root/tests/abi/layout.awk" "$dir/crust.h" | awk -f "$here/numbers.awk"
        "$CC" -E -P -DCRUST_STATIC -x c "$dir/crust.h" | awk -f "$here/probe.awk"
    } >"$dir/probe.c"
    { printf 'CRUST_1 {\n  global:\n    of_*;\n' && sed 's/.*/    &;/' "$symbols" && printf '  local:\n    *;\n};\n'; } >"$dir/probe.map"
    "$CC" -std=c99 -g -O0 -shared -fPIC -I"$dir" -o "$dir/libprobe.so" "$dir/probe.c" \
        -Wl,-soname,libcrust.so.1 -Wl,--version-script="$dir/probe.map" || return
    exports "$dir/libprobe.so" | diff "$symbols" - >"$dir/missing" || {
        printf 'symbols without a declaration: '
        sed -n 's/^< //p' "$dir/missing" | tr '\n' ' '
        return 1
    }
    abidw --no-show-locs --no-comp-dir-path --no-corpus-path --no-elf-needed --no-architecture --type-id-style hash "$dir/libprobe.so" >"$dir/now.abi"
}

# sizes FILE lists the structs of a description and their sizes.
sizes() { sed -n "s/.*<class-decl name='\([a-z_]*\)' size-in-bits='\([0-9]*\)'.*/\1 \2/p" "$1" | LC_ALL=C sort -u; }

# grown DIRECTORY prints a suppression for each struct that begins with struct_size and has
# become larger, which abidiff would call a change. It would then hide every change in
# that struct: offsets and sizes of its fields are held by numbers.awk.
grown() {
    local name
    sizes "$here/crust.abi" >"$1/sizes-then"
    sizes "$1/now.abi" >"$1/sizes-now"
    for name in $(join "$1/sizes-then" "$1/sizes-now" | awk '$3 > $2 { print $1 }'); do
        if grep -A 1 "^typedef struct $name {" "$1/crust.h" | grep -q 'struct_size;'; then
            printf '[suppress_type]\n  name = %s\n  type_kind = struct\n  has_data_member_inserted_at = end\n' "$name"
        fi
    done
}

# compatible DIRECTORY tells whether what describe wrote can replace the release.
compatible() {
    grown "$1" >"$1/grown.abignore"
    abidiff --no-architecture --no-added-syms --suppressions "$1/grown.abignore" "$here/crust.abi" "$1/now.abi"
}

# golden DIRECTORY SYMBOLS does what tests/abi compares with its golden files.
golden() {
    awk -f "$root/tests/abi/layout.awk" "$1/crust.h" >"$1/layout.inc"
    "$CC" -std=c99 -I"$1" "$root/tests/abi/layout.c" -o "$1/layout" && "$1/layout" >"$1/layout.txt" &&
        diff "$root/tests/abi/layout.golden" "$1/layout.txt" && LC_ALL=C sort "$root/capi/exports.txt" | diff - "$2"
}

# seed WANT NAME SED-PROGRAM [SYMBOL]: after the change of crust.h, or without SYMBOL in
# the library (+SYMBOL: with one more), abidiff must say so (WANT broken) or nothing (WANT
# fine); the golden files must notice either.
seed() {
    local want=$1 name=$2 program=$3 symbol=${4:-} dir=$work/seed verdict=fine
    rm -rf "$dir" && mkdir "$dir"
    sed "$program" "$root/include/crust.h" >"$dir/crust.h"
    case $symbol in
    +*) { cat "$work/symbols" && printf '%s\n' "${symbol#+}"; } | LC_ALL=C sort >"$dir/symbols" ;;
    *) grep -vx "${symbol:-none}" "$work/symbols" >"$dir/symbols" ;;
    esac
    if cmp -s "$dir/crust.h" "$root/include/crust.h" && cmp -s "$dir/symbols" "$work/symbols"; then
        not_ok "$name: the seed changes nothing; it must follow crust.h"
        return
    fi
    describe "$dir" "$dir/symbols" >"$dir/log" 2>&1 || {
        not_ok "$name: the seed cannot be described" "$dir/log"
        return
    }
    compatible "$dir" >"$dir/log" 2>&1 || verdict=broken
    if [[ $verdict != "$want" ]]; then
        not_ok "$name: abidiff should find it $want" "$dir/log"
    elif [[ $want == broken ]] && golden "$dir" "$dir/symbols" >"$dir/log" 2>&1; then
        not_ok "$name: the golden files do not notice"
    elif [[ $want == broken ]]; then
        ok "$name: is noticed by abidiff and by the golden files"
    else
        ok "$name: is allowed"
    fi
}

exports "$library" >"$work/symbols"
mkdir "$work/now"
cp "$root/include/crust.h" "$work/now/crust.h"
describe "$work/now" "$work/symbols" >"$work/log" 2>&1 || {
    cat "$work/log"
    printf 'crust.h and the library cannot be described\n'
    exit 1
}
if [[ ${1:-} == --release ]]; then
    cp "$work/now/now.abi" "$here/crust.abi"
    printf 'wrote tests/abidiff/crust.abi, %d bytes\n' "$(stat -c %s "$here/crust.abi")"
    exit 0
fi

if compatible "$work/now" >"$work/log" 2>&1; then
    ok "$(wc -l <"$work/symbols") functions, and what they take, are those of the last release, or more"
else
    not_ok "the ABI is not that of the last release any more" "$work/log"
fi

seed broken "a code that has another number" 's/\(CRUST_ERR_IO *= \)-20/\1-19/'
seed broken "a code that is gone" '/^ *CRUST_ERR_PROTOCOL /d'
seed broken "an event that has another number" 's/\(CRUST_EVENT_LOST *= \)11/\12011/'
seed broken "a constant that has another value" 's/\(define CRUST_HOW_RELAYED *\)5u/\16u/'
seed broken "a smaller field" 's/uint64_t  *took_us;/uint32_t took_us;/'
seed broken "a field in the middle of a struct that may grow" 's/uint64_t known; /uint64_t more, known; /'
seed broken "a smaller field in a struct that may grow" 's/uint64_t known; /uint32_t known; /'
seed broken "a struct that may grow loses a field" '/uint64_t known; /d'
seed broken "a struct that may not grow does" 's/^} crust_event;/    uint64_t more; } crust_event;/'
seed broken "a smaller field and one at the end" 's/uint64_t known; /uint32_t known; uint64_t more;/'
seed broken "two fields that have changed places" 's/uint64_t  *rtt_us;/uint64_t age_us;/; t; s/uint64_t  *age_us;/uint64_t rtt_us;/'
seed broken "two fields that have changed places and one at the end" '
    s/uint64_t  *rtt_us;/uint64_t age_us;/; t; s/uint64_t  *age_us;/uint64_t rtt_us;/; s/^} crust_peer_info;/uint64_t more; &/'
seed broken "a function that the library lacks" '' crust_unban
seed broken "a function that is gone from both" '/crust_has(/d' crust_has
seed fine "a code more" 's/^ *CRUST_ERR_PROTOCOL /    CRUST_ERR_NEW = -99,\n&/'
seed fine "a field at the end of a struct that may grow" 's/uint64_t known; /uint64_t known; uint64_t more;/'
seed fine "a function more" 's/^CRUST_API int CRUST_CALL crust_has(/CRUST_API int CRUST_CALL crust_new(void);\n&/' +crust_new

# What the golden files cannot see, because they know no prototypes.
prototype() {
    local dir=$work/prototype
    mkdir "$dir"
    sed 's/\(CRUST_CALL crust_disconnect(crust_service service, \)const crust_peer_id \*peer/\1crust_peer_id peer/
        s/typedef void (CRUST_CALL \*crust_release_fn)/typedef int (CRUST_CALL *crust_release_fn)/' "$root/include/crust.h" >"$dir/crust.h"
    describe "$dir" "$work/symbols" || return 1
    compatible "$dir" >"$dir/log" || true
    grep -q "crust_disconnect(" "$dir/log" && grep -q "'typedef crust_release_fn' changed" "$dir/log"
}
if prototype >"$work/log" 2>&1; then
    ok "a function and a callback with other arguments: are noticed by abidiff"
else
    not_ok "a function and a callback with other arguments: abidiff should find it broken" "$work/log"
fi

printf '%d passed, %d failed\n' "$passed" "$failed"
((failed == 0))
