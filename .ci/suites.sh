# shellcheck shell=bash
# Runs suites one after another, keeps their logs, goes on after a failure and
# ends with a table. Sourced by build.sh.

SUITE_NAMES=()
SUITE_STATES=()
SUITE_SECONDS=()
SUITE_WORDS=()

# suite NAME WHAT COMMAND... runs COMMAND, shows its output as it comes and keeps
# it in build/log/NAME.log. Its last line is what the table says of it. Status 77
# means that the suite could not run here; the last line says why.
suite() {
    local name=$1 what=$2 log=$BUILD/log/$1.log status=0 begin=$SECONDS word
    shift 2
    mkdir -p "$BUILD/log"
    say "$name: $what"
    set +e
    (
        set -e
        "$@"
    ) 2>&1 </dev/null | tee "$log"
    status=${PIPESTATUS[0]}
    set -e
    word=$(sed 's/\x1b\[[0-9;]*[A-Za-z]//g; s/.*\r//' "$log" | grep -v '^[[:space:]]*$' | tail -n 1)
    SUITE_NAMES+=("$name")
    SUITE_SECONDS+=($((SECONDS - begin)))
    SUITE_WORDS+=("${word:0:100}")
    case $status in
    0) SUITE_STATES+=(ok) ;;
    77) SUITE_STATES+=(unable) ;;
    *) SUITE_STATES+=(FAILED) ;;
    esac
}

# suite_failure NAME prints what the log of a failed suite says of its failure, so
# that the end of a long output is enough to know it.
suite_failure() {
    local log=$BUILD/log/$1.log
    say "$1 failed; of its log"
    grep -anE -m 20 -- '--- FAIL|^FAIL|FAILED|panicked|^not ok|DATA RACE|ERROR:|^panic:' "$log" || true
    printf '%s\n' "... and the end:"
    tail -n 40 "$log"
}

# suite_digest NAME prints in a few lines why a suite failed.
suite_digest() {
    grep -anE -A 4 -- '--- FAIL|^FAILED |panicked|^not ok|DATA RACE|^panic:' "$BUILD/log/$1.log" |
        grep -vE '^--$|=== (RUN|PAUSE|CONT)|--- PASS' | cut -c 1-160 | tail -n 14 | sed 's/^/          /' || true
}

# suites_end prints what failed and the table, and returns 1 when a suite failed.
suites_end() {
    local i colour failed=0 unable=0 total=${#SUITE_NAMES[@]}
    printf '\n'
    for i in "${!SUITE_NAMES[@]}"; do
        if [ "${SUITE_STATES[$i]}" = FAILED ]; then
            suite_failure "${SUITE_NAMES[$i]}"
        fi
    done
    say "Summary"
    for i in "${!SUITE_NAMES[@]}"; do
        case ${SUITE_STATES[$i]} in
        ok) colour=$GREEN ;;
        unable)
            colour=$YELLOW
            unable=$((unable + 1))
            ;;
        *)
            colour=$RED
            failed=$((failed + 1))
            ;;
        esac
        printf '%s%-7s%s %-18s %5ss  %s\n' "$colour" "${SUITE_STATES[$i]}" "$PLAIN" \
            "${SUITE_NAMES[$i]}" "${SUITE_SECONDS[$i]}" "${SUITE_WORDS[$i]}"
        if [ "${SUITE_STATES[$i]}" = FAILED ]; then
            suite_digest "${SUITE_NAMES[$i]}"
        fi
    done
    printf '\n%d of %d ok, %d failed, %d could not run here, %d min %02d s; logs in %s\n' \
        $((total - failed - unable)) "$total" "$failed" "$unable" $((SECONDS / 60)) $((SECONDS % 60)) "$BUILD/log"
    [ "$failed" = 0 ]
}
