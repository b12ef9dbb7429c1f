/*
 * host.h - what the tests need again and again: services on loopback, a queue to
 * read events from, connected pairs, a recorder for callbacks, deadlines.
 */
#ifndef HOST_H
#define HOST_H

#include "crust.h"

#include <pthread.h>
#include <stddef.h>

#define PATIENCE_MS 20000 /* for what must happen; a test fails after it */

/* Milliseconds of a clock that never goes back. */
int64_t now_ms(void);
/* Waits until check(arg) is true, asking every few milliseconds. */
int eventually(int (*check)(void *arg), void *arg);

/* A configuration of a network of the tests' own with one listener on loopback. */
crust_config *loopback_config(void);
/* A service of loopback_config, in poll mode or with callbacks; 0 on failure, which is noted. */
crust_service loopback_service(const crust_callbacks *callbacks);

/* Events of a service in poll mode, one after another. */
typedef struct inbox {
    crust_service      service;
    crust_batch       *batch;
    const crust_event *events;
    size_t             n, i;
} inbox;
/* The next event, NULL after timeout_ms or when the queue is closed. It stays
 * until the next call. */
const crust_event *inbox_next(inbox *in, int timeout_ms);
/* The next event of a type; what comes before it is passed over. NULL, noted, after PATIENCE_MS. */
const crust_event *inbox_await(inbox *in, crust_event_type type);
void inbox_done(inbox *in);

/* Makes b connect to a by connection info, and waits until both say CONNECTED.
 * Returns 1, or 0 which is noted. */
int connect_inboxes(inbox *a, inbox *b);
/* a's connection info, in memory to be freed; NULL, noted. */
uint8_t *connection_info(inbox *a, size_t *len);

/* Two connected services in poll mode. */
typedef struct pair {
    inbox         a, b;
    crust_peer_id id_a, id_b;
} pair;
int  pair_make(pair *p);
void pair_free(pair *p);

/* What a service in callback mode has been told. Counters are guarded by lock;
 * wait with recorder_wait. */
typedef struct recorder {
    pthread_mutex_t lock;
    pthread_cond_t  changed;
    uint64_t        events, batches, by_type[32], message_bytes;
    int             releases, after_release, after_stopped, inside, overlapped;
    int             threads;
    pthread_t       thread;
    crust_peer_id   last_peer;
    uint8_t        *info; /* of the last CONNECTION_INFO */
    size_t          info_len;
    /* Called for each event with no lock held, when not NULL. */
    void (*each)(struct recorder *r, crust_service service, const crust_event *event);
    void *extra;
} recorder;
void recorder_init(recorder *r);
void recorder_destroy(recorder *r);
crust_callbacks recorder_callbacks(recorder *r);
/* Waits until an event type was seen n times. Returns 1, or 0 which is noted. */
int recorder_wait(recorder *r, crust_event_type type, uint64_t n);
int recorder_released(recorder *r);

/* Number of entries of a directory such as /proc/self/fd. */
int count_entries(const char *path);

#endif
