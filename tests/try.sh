# shellcheck shell=bash
# Counts the checks of a suite in shell. Sourced by suites, which set work to a directory
# of theirs.

passed=0
failed=0

# try NAME COMMAND... counts a check; the output shows only when it fails, its last 200
# lines. A command of several joins them by &&: the shell's -e does not hold in there.
try() {
    local name=$1
    shift
    # shellcheck disable=SC2154 # whoever sources this sets work
    if ("$@") >"$work/log" 2>&1; then
        passed=$((passed + 1))
        printf 'ok   %s\n' "$name"
    else
        failed=$((failed + 1))
        printf 'FAIL %s\n' "$name"
        tail -n 200 "$work/log" | sed 's/^/     /'
    fi
}
