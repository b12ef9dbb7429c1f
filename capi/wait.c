/*
 * wait.c - how a thread waits inside crust_poll: outside of Go. A goroutine that
 * waits on behalf of a C thread costs two more switches each time, because the
 * thread must be handed the goroutine back; waiting here halves the time in which
 * an event reaches the program.
 *
 * It is an eventcount. Go counts the thread in (refs), notes seq, and looks for
 * events; only when there are none does the thread wait for seq to change. Whoever
 * brings an event looks at refs afterwards. So either the looking finds the event
 * or the event finds the waiting.
 */
#include "shim_internal.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#if defined(__linux__)
#  define WAIT_CLOCK CLOCK_MONOTONIC
#else
#  define WAIT_CLOCK CLOCK_REALTIME /* the only one that conditions know everywhere */
#endif

struct crust__waiter {
    crust__waiter_head head;
    pthread_mutex_t    lock;
    pthread_cond_t     changed;
};

crust__waiter_head *crust__waiter_new(void) {
    struct crust__waiter *w = calloc(1, sizeof *w);
    pthread_condattr_t attributes;
    if (!w) return NULL;
    w->head.refs = 1;
    pthread_condattr_init(&attributes);
#if defined(__linux__)
    pthread_condattr_setclock(&attributes, WAIT_CLOCK);
#endif
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    return &w->head;
}

void crust__waiter_drop(crust__waiter_head *head) {
    struct crust__waiter *w = (struct crust__waiter *)head;
    if (__atomic_sub_fetch(&w->head.refs, 1, __ATOMIC_ACQ_REL) > 0) return;
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

void crust__waiter_wake(crust__waiter_head *head) {
    struct crust__waiter *w = (struct crust__waiter *)head;
    pthread_mutex_lock(&w->lock);
    __atomic_add_fetch(&w->head.seq, 1, __ATOMIC_SEQ_CST);
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
}

void crust__deadline(struct timespec *at, int32_t timeout_ms) {
    clock_gettime(WAIT_CLOCK, at);
    at->tv_sec += timeout_ms / 1000;
    at->tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (at->tv_nsec >= 1000000000) {
        at->tv_sec++;
        at->tv_nsec -= 1000000000;
    }
}

int crust__waiter_wait(crust__waiter_head *head, uint32_t seen, const struct timespec *deadline) {
    struct crust__waiter *w = (struct crust__waiter *)head;
    int changed, error = 0;
#if !defined(_WIN32)
    int cancel;
    /* A thread that is cancelled while it waits would leave the lock to nobody. */
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
#endif
    pthread_mutex_lock(&w->lock);
    while (w->head.seq == seen && error != ETIMEDOUT) {
        error = deadline ? pthread_cond_timedwait(&w->changed, &w->lock, deadline) : pthread_cond_wait(&w->changed, &w->lock);
    }
    changed = w->head.seq != seen;
    pthread_mutex_unlock(&w->lock);
    crust__waiter_drop(head);
#if !defined(_WIN32)
    pthread_setcancelstate(cancel, NULL);
#endif
    return changed;
}
