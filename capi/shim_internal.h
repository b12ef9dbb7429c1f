/*
 * shim_internal.h - what the C and the Go half of the library share. Nothing
 * here is exported; the names have two underscores to stay clear of crust.h.
 */
#ifndef CRUST_SHIM_INTERNAL_H
#define CRUST_SHIM_INTERNAL_H

#include "crust.h"

/* Room of the thread-local text of crust_last_error, with NUL. Go writes into
 * it with plain stores through the pointer that the shim hands over, so that a
 * failing call costs no second crossing. */
#define CRUST__ERROR_SIZE 512

/* A batch: this header and, in the same block, the events and all that they
 * point to. Go fills the block with plain stores and never keeps a pointer to
 * it. The size keeps the events aligned to 16. */
struct crust_batch {
    uint64_t     magic;    /* CRUST__BATCH_LIVE while the program owns it */
    size_t       events;   /* number of crust_event at crust__batch_base */
    size_t       used;     /* bytes from crust__batch_base on that mean something */
    size_t       capacity; /* bytes from crust__batch_base on */
    crust_batch *next;     /* in the free list */
    uint64_t     size_class;
    uint64_t     pad[2];
};
#define CRUST__BATCH_LIVE UINT64_C(0x6372757374626174)

/* Makes a batch with room for at least capacity bytes, NULL when there is no
 * memory. Its content is whatever it was. */
crust_batch *crust__batch_new(size_t capacity);
/* Batches given out and not freed, and bytes that wait in the free list. */
int64_t crust__batches_live(void);
int64_t crust__batch_bytes_cached(void);

/* An environment variable as it is now, NULL when it is not set. */
const char *crust__variable(const char *name);

/* Calls on_events, marking the thread as being inside a callback, and frees the batch. */
void crust__deliver(crust_events_fn fn, void *user, crust_service service, crust_batch *batch);
/* Calls on_release in the same way. */
void crust__release(crust_release_fn fn, void *user);

/* Calls on_release with a user that is no pointer for Go. */
void crust__release_number(crust_release_fn fn, uintptr_t user);
/* Asks the program about a peer, marking the thread as being inside a callback. */
int crust__ask(crust_gate_fn fn, uintptr_t user, const crust_peer_id *peer, const void *app_id, size_t app_id_len, const char *endpoint,
               uint8_t how, uint8_t role, uint8_t outbound);

/* Gives the ban of index i of an array of structs of a size. */
void crust__give_ban(crust_ban_info *bans, uint32_t size, size_t i, const crust_ban_info *ban);

/* Where threads wait inside crust_poll, see wait.c. Go changes refs and reads seq
 * with atomic operations; wait.c holds the rest behind this. */
typedef struct crust__waiter_head {
    int32_t  refs; /* the service, and each thread that is about to wait or does */
    uint32_t seq;  /* changes when there is reason to look again */
} crust__waiter_head;

crust__waiter_head *crust__waiter_new(void); /* refs is 1; NULL when there is no memory */
void crust__waiter_drop(crust__waiter_head *w);
void crust__waiter_wake(crust__waiter_head *w);
struct timespec;
void crust__deadline(struct timespec *at, int32_t timeout_ms);
/* Waits until seq is not seen any more, at most until deadline unless that is
 * NULL. Returns whether it changed. Drops a reference. */
int crust__waiter_wait(crust__waiter_head *w, uint32_t seen, const struct timespec *deadline);

/* The descriptor behind crust_service_fd: an eventfd on Linux, a pipe on other
 * Unix systems. fds[0] is read and given to the program, fds[1] is written; they
 * may be the same. Returns 0, an errno, or -1 where there is neither. */
int  crust__signal_open(int fds[2]);
void crust__signal_set(const int fds[2]);
int  crust__signal_clear(const int fds[2]); /* whether it was set */
void crust__signal_close(const int fds[2]);

#if defined(CRUST_TEST)
/* Only in builds with the tag crusttest, for tests/abi: a panic in a call, a
 * panic in the dispatcher at its next batch, and counters: 0 services,
 * 1 configurations, 2 batches, 3 bytes in the free list, 4 goroutines. */
CRUST_API crust_result CRUST_CALL crust__test_panic(crust_service service);
CRUST_API void CRUST_CALL crust__test_panic_dispatch(crust_service service);
CRUST_API int64_t CRUST_CALL crust__test_counter(int32_t what);
#endif

#endif
