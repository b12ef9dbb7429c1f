/*
 * start.c - starts Go inside a library for musl.
 *
 * Go's start of a library is a constructor, and takes the arguments, the environment and
 * the auxiliary vector of the process from where glibc gives them to constructors. musl
 * gives constructors nothing, as C has it: Go would read what happens to be in registers,
 * and crash. So build-lib.sh takes that constructor out, and here is another one, which
 * gives Go's start what it looks for. (It is Go's issue 13492.)
 *
 * Only in libraries for musl, and no part of package capi.
 */
#include <stdlib.h>
#include <sys/auxv.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

extern char **environ;

/* Go's start of a library, _rt0_amd64_lib of the package runtime. It keeps argv. */
void _rt0_amd64_linux_lib(long argc, char **argv);

/* What Go looks for in the auxiliary vector. */
static const unsigned long kinds[] = { AT_PAGESZ, AT_RANDOM, AT_SYSINFO_EHDR, AT_HWCAP, AT_HWCAP2, AT_SECURE };

__attribute__((constructor)) static void crust__start(void) {
    /* As a process begins: arguments, NULL, environment, NULL, auxiliary vector, AT_NULL. */
    static char *none[6] = { "libcrust" };
    size_t variables = 0, at = 0, i;
    char **block;
    while (environ && environ[variables]) variables++;
    block = calloc(3 + variables + 2 * COUNT(kinds) + 2, sizeof *block);
    if (!block) {
        _rt0_amd64_linux_lib(1, none);
        return;
    }
    block[at] = none[0];
    at += 2;
    for (i = 0; i < variables; i++) block[at++] = environ[i];
    at++;
    for (i = 0; i < COUNT(kinds); i++) {
        unsigned long value = getauxval(kinds[i]);
        if (!value) continue;
        block[at++] = (char *)kinds[i];
        block[at++] = (char *)value;
    }
    _rt0_amd64_linux_lib(1, block);
}
