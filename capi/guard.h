/*
 * guard.h - what every function of crust.h begins with: whether it may run at all, and
 * whether its pointers and lengths can be true.
 */
#ifndef CRUST_GUARD_H
#define CRUST_GUARD_H

#include "shim_internal.h"

#include <stdatomic.h>

extern atomic_int crust__forked; /* 1 in a child made by fork */
extern _Thread_local char crust__last_error[CRUST__ERROR_SIZE];

/* Notes why a function of crust.h fails, and returns the code. */
crust_result crust__fail(crust_result code, const char *function, const char *what);
crust_result crust__fail_forked(const char *function);

#define FORK_GUARD()                                                                                            \
    do {                                                                                                        \
        if (atomic_load_explicit(&crust__forked, memory_order_relaxed)) return crust__fail_forked(__func__);    \
    } while (0)
#define NEED(pointer)                                                                                           \
    do {                                                                                                        \
        if (!(pointer)) return crust__fail(CRUST_ERR_INVALID, __func__, #pointer " must not be NULL");          \
    } while (0)
#define NEED_BYTES(pointer, len)                                                                                \
    do {                                                                                                        \
        if (!(pointer) && (len) > 0)                                                                            \
            return crust__fail(CRUST_ERR_INVALID, __func__, #pointer " is NULL but " #len " is not 0");         \
        if ((uint64_t)(len) > (uint64_t)PTRDIFF_MAX || (uintptr_t)(len) > UINTPTR_MAX - (uintptr_t)(pointer))   \
            return crust__fail(CRUST_ERR_INVALID, __func__, #len " is larger than any memory block");           \
    } while (0)

/* Structs may be larger than ours when the program was built against a later
 * header; what we do not know must then be zero. The bound keeps a forgotten
 * struct_size from sending us through memory. */
#define MAX_STRUCT_SIZE 4096u

#endif
