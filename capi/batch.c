/*
 * batch.c - the memory of batches: blocks of a few sizes, recycled through a
 * bounded free list, so that a program that polls in a loop touches the same
 * warm memory again and again. Everything here is pure C and works in a forked
 * child too.
 */
#include "shim_internal.h"

#include <stdatomic.h>
#include <stdlib.h>

/* Sizes of blocks, and how many of each the free list keeps: 13.4 MiB at most. A
 * batch is filled up to 256 KiB, so larger blocks hold one large message. */
enum { SIZE_CLASSES = 6 };
static const size_t class_size[SIZE_CLASSES] = {4u << 10, 16u << 10, 64u << 10, 256u << 10, 1u << 20, (2u << 20) + (64u << 10)};
#if defined(__SANITIZE_ADDRESS__)
/* Nothing is recycled, so that the sanitizer sees each use after free. */
static const unsigned class_keep[SIZE_CLASSES] = {0, 0, 0, 0, 0, 0};
#else
static const unsigned class_keep[SIZE_CLASSES] = {64, 32, 16, 16, 2, 2};
#endif
#define NO_CLASS UINT64_MAX /* larger than the largest class: never recycled */
#define BATCH_DEAD UINT64_C(0x6465616462617463)

static struct {
    /* Only ever tried, never waited for: whoever finds it taken goes to the
     * allocator instead. So a fork at any moment cannot leave a lock that the
     * child would wait for. */
    atomic_flag  busy;
    crust_batch *head[SIZE_CLASSES];
    unsigned     kept[SIZE_CLASSES];
} list = {ATOMIC_FLAG_INIT, {0}, {0}};

static _Atomic int64_t live;
static _Atomic int64_t cached;

static int list_try(void) { return !atomic_flag_test_and_set_explicit(&list.busy, memory_order_acquire); }
static void list_leave(void) { atomic_flag_clear_explicit(&list.busy, memory_order_release); }

static crust_batch *list_take(uint64_t c) {
    crust_batch *b = NULL;
    if (!list_try()) return NULL;
    b = list.head[c];
    if (b) {
        list.head[c] = b->next;
        list.kept[c]--;
        atomic_fetch_sub_explicit(&cached, (int64_t)class_size[c], memory_order_relaxed);
    }
    list_leave();
    return b;
}

static int list_give(crust_batch *b) {
    uint64_t c = b->size_class;
    int taken = 0;
    if (c == NO_CLASS || !list_try()) return 0;
    if (list.kept[c] < class_keep[c]) {
        b->next = list.head[c];
        list.head[c] = b;
        list.kept[c]++;
        atomic_fetch_add_explicit(&cached, (int64_t)class_size[c], memory_order_relaxed);
        taken = 1;
    }
    list_leave();
    return taken;
}

crust_batch *crust__batch_new(size_t capacity) {
    crust_batch *b = NULL;
    uint64_t c = 0;
    size_t size;
    if (capacity > SIZE_MAX - sizeof *b) return NULL;
    size = capacity + sizeof *b;
    while (c < SIZE_CLASSES && class_size[c] < size) c++;
    if (c < SIZE_CLASSES) {
        size = class_size[c];
        b = list_take(c);
    } else {
        c = NO_CLASS;
    }
    if (!b) b = malloc(size);
    if (!b) return NULL;
    b->magic = CRUST__BATCH_LIVE;
    b->events = 0;
    b->used = 0;
    b->capacity = size - sizeof *b;
    b->next = NULL;
    b->size_class = c;
    atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
    return b;
}

void CRUST_CALL crust_batch_free(crust_batch *batch) {
    if (!batch || batch->magic != CRUST__BATCH_LIVE) return;
    batch->magic = BATCH_DEAD;
    atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
    if (!list_give(batch)) free(batch);
}

const crust_event *CRUST_CALL crust_batch_events(const crust_batch *batch, size_t *n) {
    if (n) *n = batch ? batch->events : 0;
    return batch ? (const crust_event *)(const void *)(batch + 1) : NULL;
}

crust_result CRUST_CALL crust_batch_memory(const crust_batch *batch, const void **base, size_t *len) {
    if (base) *base = batch ? (const void *)(batch + 1) : NULL;
    if (len) *len = batch ? batch->used : 0;
    return CRUST_OK;
}

int64_t crust__batches_live(void) { return atomic_load_explicit(&live, memory_order_relaxed); }
int64_t crust__batch_bytes_cached(void) { return atomic_load_explicit(&cached, memory_order_relaxed); }
