# shellcheck shell=bash disable=SC2154
# musl on x86-64: the library as programs may link it, and as they may not, with musl of
# this machine's distribution. Sourced by run.sh.

musl_target=linux-amd64-musl musl_gcc=x86_64-linux-musl-gcc

# musl_programs links the driver with the shared library, and with the static one into a
# program that needs nothing at all.
musl_programs() {
    local out=$build/$musl_target
    driver "$musl_target" "$musl_gcc" -L"$out/lib" -lcrust -Wl,-rpath,"$out/lib" -o "$out/bin/driver" &&
        driver "$musl_target" "$musl_gcc" -DCRUST_STATIC -static "$out/lib/libcrust.a" -o "$out/bin/driver-static" &&
        readelf -d "$out/lib/libcrust.so" >"$work/dynamic.txt" &&
        [ "$(sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' "$work/dynamic.txt")" = libc.so ] &&
        ! readelf -l "$out/bin/driver-static" | grep 'interpreter'
}

# musl_dlopen shows what docs/PLATFORMS.md says of dlopen: musl refuses it, with these
# words. When this fails because it does not any more, the page has good news to tell.
musl_dlopen() {
    local out=$build/$musl_target
    cat >"$work/dlopen.c" <<'TEXT'
#include <dlfcn.h>
#include <stdio.h>
int main(int argc, char **argv) {
    void *library = dlopen(argv[argc - 1], RTLD_NOW);
    if (library) return 0;
    puts(dlerror());
    return 7;
}
TEXT
    "$musl_gcc" -Wall -Wextra -Werror "$work/dlopen.c" -o "$work/dlopen" || return 1
    local status=0
    "$work/dlopen" "$out/lib/libcrust.so" >"$work/dlopen.txt" || status=$?
    sed 's/^/note: /' "$work/dlopen.txt"
    [ "$status" = 7 ] && grep -q 'initial-exec TLS resolves to dynamic definition' "$work/dlopen.txt" &&
        LD_PRELOAD=$out/lib/libcrust.so "$work/dlopen" "$out/lib/libcrust.so"
}

run_musl() {
    local out=$build/$musl_target
    step 'musl: the library and the tool' ./build.sh lib --target "$musl_target"
    step 'musl: C programs, for the shared and the static library' musl_programs
    step 'musl: the C ABI' abi "$musl_target" "$musl_gcc"
    step 'musl: the C programs talk with this machine, over TCP and uTP' converse "musl-shared $out/bin/driver
musl-static $out/bin/driver-static"
    step 'musl: the tool talks with this machine' peers "$out/bin/crust"
    step 'musl: dlopen is refused, but for a library that was loaded with the program' musl_dlopen
}
