/*
 * new.c - the part of the C++ library that libutp uses, for musl.
 *
 * Debian has a C compiler for musl, but no C++ library. libutp asks for memory by new and
 * delete and needs nothing else of it. Without memory it ends the process, as it would
 * with a C++ library, whose exception nothing catches.
 */
#include <stdlib.h>

/* operator new(size_t), operator delete(void *, size_t) */
void *_Znwm(size_t size);
void  _ZdlPvm(void *p, size_t size);

void *_Znwm(size_t size) {
    void *p = malloc(size ? size : 1);
    if (!p) abort();
    return p;
}

void _ZdlPvm(void *p, size_t size) {
    (void)size;
    free(p);
}
