# shellcheck shell=bash
# build.sh fuzz: each fuzz target for a stated CPU time, with an account in docs/FUZZING.md.
# Sourced by build.sh.

command_fuzz() {
    need_to_compile
    need_python program
    install_needs
    ensure_go
    ensure_python
    python3 "$ROOT/.ci/fuzz.py" "$@"
}
