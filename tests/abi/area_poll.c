/* Poll mode: waiting, waking, and the descriptor. */
#include "host.h"
#include "tap.h"

#include <poll.h>
#include <pthread.h>
#include <string.h>

static int readable(intptr_t fd, int timeout_ms) {
    struct pollfd p;
    p.fd = (int)fd;
    p.events = POLLIN;
    p.revents = 0;
    return poll(&p, 1, timeout_ms) == 1 && (p.revents & POLLIN);
}

static void drain(crust_service s) {
    crust_batch *batch = NULL;
    while (crust_poll(s, 0, 0, &batch) > 0) crust_batch_free(batch);
}

/* With nothing left, the descriptor may be readable once more, because the notice
 * of an event may come after the event was taken; a poll that finds nothing ends
 * that. */
static int falls_silent(crust_service s, intptr_t fd) {
    crust_batch *batch = NULL;
    if (readable(fd, 0) && crust_poll(s, 0, 0, &batch) != 0) return 0;
    return !readable(fd, 0);
}

static int is_listening(void *arg) {
    crust_stats stats;
    memset(&stats, 0, sizeof stats);
    stats.struct_size = sizeof stats;
    return crust_service_stats(*(crust_service *)arg, &stats) == CRUST_OK && stats.listeners == 1 && stats.events_queued == 1;
}

static void timeouts(void) {
    crust_service s = loopback_service(NULL);
    crust_batch *batch = NULL;
    int64_t start;
    inbox in;
    REQUIRE(s != 0);
    memset(&in, 0, sizeof in);
    in.service = s;
    CHECK(inbox_await(&in, CRUST_EVENT_LISTENER_STARTED) != NULL);
    inbox_done(&in);
    CHECK(crust_poll(s, 0, 0, &batch) == 0 && batch == NULL);
    start = now_ms();
    CHECK(crust_poll(s, 60, 0, &batch) == 0 && batch == NULL);
    CHECK(now_ms() - start >= 55);
    CHECK_CODE(CRUST_OK, crust_service_free(s));
}

static void wakeups(void) {
    crust_service s = loopback_service(NULL);
    crust_batch *batch = NULL;
    intptr_t fd = -1;
    int64_t start;
    REQUIRE(s != 0);
    CHECK(eventually(is_listening, &s));
    CHECK_CODE(CRUST_OK, crust_service_fd(s, &fd));
    drain(s);
    CHECK(!readable(fd, 0));
    CHECK_CODE(CRUST_OK, crust_wakeup(s));
    CHECK(readable(fd, 0));
    start = now_ms();
    CHECK(crust_poll(s, -1, 0, &batch) == 0);
    CHECK(now_ms() - start < PATIENCE_MS);
    CHECK(!readable(fd, 0));
    CHECK(crust_poll(s, 1, 0, &batch) == 0); /* one poll only */
    CHECK_CODE(CRUST_OK, crust_service_free(s));
}

static void *wake_it(void *arg) {
    crust_wakeup(*(crust_service *)arg);
    return NULL;
}

static void wakeup_from_another_thread(void) {
    crust_service s = loopback_service(NULL);
    crust_batch *batch = NULL;
    pthread_t thread;
    REQUIRE(s != 0);
    CHECK(eventually(is_listening, &s));
    drain(s);
    REQUIRE(pthread_create(&thread, NULL, wake_it, &s) == 0);
    CHECK(crust_poll(s, -1, 0, &batch) == 0);
    pthread_join(thread, NULL);
    CHECK_CODE(CRUST_OK, crust_service_free(s));
}

static void descriptor_is_level_triggered(void) {
    pair p;
    intptr_t fd = -1, again = -1;
    crust_batch *batch = NULL;
    int i;
    REQUIRE_OR(pair_make(&p), pair_free(&p));
    inbox_done(&p.a);
    CHECK_CODE(CRUST_OK, crust_service_fd(p.a.service, &fd));
    CHECK_CODE(CRUST_OK, crust_service_fd(p.a.service, &again));
    CHECK(fd >= 0 && fd == again);
    drain(p.a.service);
    CHECK(falls_silent(p.a.service, fd));
    for (i = 0; i < 100; i++) {
        crust_result got = 0;
        CHECK_CODE(CRUST_OK, crust_send(p.b.service, &p.id_a, "one", 3, 1));
        CHECK_CODE(CRUST_OK, crust_send(p.b.service, &p.id_a, "two", 3, 1));
        while (got < 2) {
            crust_result r;
            REQUIRE(readable(fd, PATIENCE_MS));
            CHECK(readable(fd, 0)); /* still: looking does not change it */
            r = crust_poll(p.a.service, 0, 1, &batch);
            REQUIRE(r == 0 || r == 1); /* 0: the notice came after the event was taken */
            got += r;
            crust_batch_free(batch);
        }
    }
    while (crust_poll(p.a.service, 0, 0, &batch) > 0) crust_batch_free(batch);
    CHECK(falls_silent(p.a.service, fd));
    CHECK_CODE(CRUST_OK, crust_service_close(p.a.service));
    for (;;) {
        crust_result r;
        if (!CHECK(readable(fd, PATIENCE_MS))) break;
        r = crust_poll(p.a.service, 0, 1, &batch);
        if (r > 0 && crust_batch_events(batch, NULL)->type == CRUST_EVENT_STOPPED) {
            crust_batch_free(batch);
            break;
        }
        crust_batch_free(batch);
        REQUIRE(r >= 0);
    }
    pair_free(&p);
}

static void limits_are_kept(void) {
    pair p;
    crust_batch *batch = NULL;
    int i, got = 0;
    uint8_t data[3000];
    REQUIRE_OR(pair_make(&p), pair_free(&p));
    inbox_done(&p.a);
    for (i = 0; i < 1000; i++) {
        memset(data, i, sizeof data);
        REQUIRE_CODE(CRUST_OK, crust_send_wait(p.b.service, &p.id_a, data, (size_t)i * 3, 1, PATIENCE_MS));
    }
    while (got < 1000) {
        size_t n = 0, k;
        const crust_event *e;
        crust_result r = crust_poll(p.a.service, PATIENCE_MS, 7, &batch);
        REQUIRE(r > 0 && r <= 7);
        e = crust_batch_events(batch, &n);
        for (k = 0; k < n; k++, got++) {
            CHECK(e[k].type == CRUST_EVENT_MESSAGE && e[k].len == (uint64_t)got * 3 && e[k].priority == 1);
            CHECK(e[k].data != NULL && (e[k].len == 0 || e[k].data[e[k].len - 1] == (uint8_t)got));
            CHECK(e[k].peer == e[0].peer); /* one copy for a run of messages */
        }
        CHECK(memcmp(e[0].peer, &p.id_b, sizeof p.id_b) == 0);
        crust_batch_free(batch);
    }
    pair_free(&p);
}

typedef struct share {
    crust_service    service;
    int              want;
    int             *got; /* by all pollers, guarded by lock */
    pthread_mutex_t *lock;
} share;

static void *take_part(void *arg) {
    share *s = (share *)arg;
    for (;;) {
        crust_batch *batch = NULL;
        crust_result r = crust_poll(s->service, PATIENCE_MS, 3, &batch);
        int all;
        crust_batch_free(batch);
        pthread_mutex_lock(s->lock);
        if (r > 0) *s->got += r;
        all = *s->got >= s->want;
        pthread_mutex_unlock(s->lock);
        if (all || r < 0) {
            crust_wakeup(s->service); /* the next one, which passes it on */
            return NULL;
        }
        if (r == 0) return NULL;
    }
}

static void several_threads_share_a_queue(void) {
    enum { THREADS = 4, MESSAGES = 5000 };
    pair p;
    pthread_t threads[THREADS];
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    share s;
    int i, got = 0;
    REQUIRE_OR(pair_make(&p), pair_free(&p));
    inbox_done(&p.a);
    s.service = p.a.service;
    s.want = MESSAGES;
    s.got = &got;
    s.lock = &lock;
    for (i = 0; i < THREADS; i++) REQUIRE(pthread_create(&threads[i], NULL, take_part, &s) == 0);
    for (i = 0; i < MESSAGES; i++) REQUIRE_CODE(CRUST_OK, crust_send_wait(p.b.service, &p.id_a, "share", 5, 1, PATIENCE_MS));
    for (i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    CHECK(got == MESSAGES);
    pair_free(&p);
}

const tap_test poll_tests[] = {
    {"timeouts", timeouts},
    {"a wakeup makes one poll return", wakeups},
    {"a wakeup from another thread", wakeup_from_another_thread},
    {"the descriptor is level-triggered", descriptor_is_level_triggered},
    {"limits are kept, runs share a peer id", limits_are_kept},
    {"several threads share a queue", several_threads_share_a_queue},
};
const size_t poll_count = sizeof poll_tests / sizeof poll_tests[0];
