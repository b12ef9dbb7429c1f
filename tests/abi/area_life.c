/* From crust_service_new to the stale handle. */
#include "calls.h"
#include "host.h"
#include "tap.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static void close_ends_with_stopped(void) {
    pair p;
    inbox *in = &p.a;
    const crust_event *e;
    crust_batch *batch = NULL;
    int lost = 0, stopped = 0;
    REQUIRE_OR(pair_make(&p), pair_free(&p));
    CHECK_CODE(CRUST_OK, crust_service_close(p.a.service));
    CHECK_CODE(CRUST_OK, crust_service_close(p.a.service));
    while ((e = inbox_next(in, PATIENCE_MS)) != NULL) {
        CHECK(!stopped); /* nothing comes after it */
        if (e->type == CRUST_EVENT_LOST) {
            lost++;
            CHECK(e->peer && memcmp(e->peer, &p.id_b, sizeof p.id_b) == 0);
            CHECK(e->code == CRUST_ERR_DISCONNECTED);
        }
        if (e->type == CRUST_EVENT_STOPPED) {
            stopped = 1;
            CHECK(e->code == CRUST_OK && e->text == NULL);
        }
    }
    CHECK(lost == 1);
    CHECK(stopped == 1);
    CHECK_CODE(CRUST_ERR_CLOSED, crust_poll(p.a.service, -1, 0, &batch));
    CHECK_CODE(CRUST_ERR_CLOSED, crust_poll(p.a.service, 0, 0, &batch));
    CHECK_CODE(CRUST_ERR_CLOSED, crust_prepare_connection_info(p.a.service, 3));
    CHECK_CODE(CRUST_ERR_CLOSED, crust_listen(p.a.service, "127.0.0.1:0"));
    CHECK_CODE(CRUST_ERR_CLOSED, crust_connect_endpoint(p.a.service, "127.0.0.1:9", 3));
    CHECK_CODE(CRUST_ERR_CLOSED, crust_bootstrap(p.a.service, 3));
    CHECK(crust_send(p.a.service, &p.id_b, "x", 1, 0) < 0);
    /* The peer learns it. */
    e = inbox_await(&p.b, CRUST_EVENT_LOST);
    if (e) CHECK(e->code == CRUST_ERR_DISCONNECTED && e->text && e->text[0]);
    pair_free(&p);
}

static void free_without_reading(void) {
    pair p;
    crust_service stale;
    REQUIRE_OR(pair_make(&p), pair_free(&p));
    stale = p.a.service;
    CHECK_CODE(CRUST_OK, crust_send(p.a.service, &p.id_b, "hello", 5, 0));
    CHECK_CODE(CRUST_OK, crust_service_free(p.a.service));
    p.a.service = 0;
    check_calls(stale, CRUST_ERR_BAD_HANDLE, CRUST_ERR_BAD_HANDLE);
    CHECK(inbox_await(&p.b, CRUST_EVENT_MESSAGE) != NULL); /* what was accepted is delivered */
    CHECK(inbox_await(&p.b, CRUST_EVENT_LOST) != NULL);
    pair_free(&p);
}

static void batches_outlive_their_service(void) {
    crust_service s = loopback_service(NULL);
    crust_batch *batch = NULL;
    const crust_event *events;
    const void *base = NULL;
    size_t n = 0, len = 0;
    REQUIRE(s != 0);
    REQUIRE(crust_poll(s, PATIENCE_MS, 1, &batch) == 1);
    CHECK_CODE(CRUST_OK, crust_service_free(s));
    events = crust_batch_events(batch, &n);
    REQUIRE(n == 1 && events[0].type == CRUST_EVENT_LISTENER_STARTED);
    CHECK(strncmp(events[0].endpoint, "tcp://127.0.0.1:", 16) == 0);
    CHECK_CODE(CRUST_OK, crust_batch_memory(batch, &base, &len));
    CHECK((const void *)events == base);
    CHECK(events[0].endpoint > (const char *)base && events[0].endpoint + strlen(events[0].endpoint) < (const char *)base + len);
    crust_batch_free(batch);
}

typedef struct poller {
    crust_service   service;
    crust_result    result;
    pthread_mutex_t lock;
    int             rounds;
} poller;

static void *poll_for_ever(void *arg) {
    poller *p = (poller *)arg;
    for (;;) {
        crust_batch *batch = NULL;
        crust_result r = crust_poll(p->service, -1, 0, &batch);
        crust_batch_free(batch);
        pthread_mutex_lock(&p->lock);
        p->rounds++;
        p->result = r;
        pthread_mutex_unlock(&p->lock);
        if (r <= 0) return NULL;
    }
}


static void free_wakes_pollers(void) {
    poller p[3];
    pthread_t threads[3];
    crust_service s = loopback_service(NULL);
    size_t i;
    REQUIRE(s != 0);
    memset(p, 0, sizeof p);
    for (i = 0; i < 3; i++) {
        p[i].service = s;
        pthread_mutex_init(&p[i].lock, NULL);
        REQUIRE(pthread_create(&threads[i], NULL, poll_for_ever, &p[i]) == 0);
    }
    CHECK_CODE(CRUST_OK, crust_service_free(s));
    for (i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
        /* BAD_HANDLE when the thread came to call it only afterwards. */
        CHECK(p[i].result == CRUST_ERR_CLOSED || p[i].result == CRUST_ERR_BAD_HANDLE);
    }
}

static void stopped_wakes_all_pollers(void) {
    poller p[3];
    pthread_t threads[3];
    crust_service s = loopback_service(NULL);
    size_t i;
    REQUIRE(s != 0);
    memset(p, 0, sizeof p);
    for (i = 0; i < 3; i++) {
        p[i].service = s;
        pthread_mutex_init(&p[i].lock, NULL);
        REQUIRE(pthread_create(&threads[i], NULL, poll_for_ever, &p[i]) == 0);
    }
    CHECK_CODE(CRUST_OK, crust_service_close(s));
    for (i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
        CHECK(p[i].result == CRUST_ERR_CLOSED);
    }
    CHECK_CODE(CRUST_OK, crust_service_free(s));
}

typedef struct freer {
    crust_service service;
    crust_result  result;
} freer;

static void *free_it(void *arg) {
    freer *f = (freer *)arg;
    f->result = crust_service_free(f->service);
    return NULL;
}

static void free_from_many_threads_happens_once(void) {
    enum { THREADS = 8 };
    freer f[THREADS];
    pthread_t threads[THREADS];
    int i, ok = 0;
    crust_service s = loopback_service(NULL);
    REQUIRE(s != 0);
    for (i = 0; i < THREADS; i++) {
        f[i].service = s;
        REQUIRE(pthread_create(&threads[i], NULL, free_it, &f[i]) == 0);
    }
    for (i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        CHECK(f[i].result == CRUST_OK || f[i].result == CRUST_ERR_BAD_HANDLE);
        ok += f[i].result == CRUST_OK;
    }
    CHECK(ok == 1);
}

static int threads_now(void) { return count_entries("/proc/self/task"); }
static int fds_now(void) { return count_entries("/proc/self/fd"); }

static int enough_threads_gone(void *arg) { return threads_now() <= *(int *)arg; }
static int enough_fds_gone(void *arg) { return fds_now() <= *(int *)arg; }

static int make_and_free(const crust_config *config, int callbacks) {
    recorder r;
    crust_callbacks c;
    crust_service s = 0;
    intptr_t fd;
    recorder_init(&r);
    c = recorder_callbacks(&r);
    if (!CHECK_CODE(CRUST_OK, crust_service_new(config, callbacks ? &c : NULL, &s))) return 0;
    if (!callbacks) CHECK_CODE(CRUST_OK, crust_service_fd(s, &fd));
    CHECK_CODE(CRUST_OK, crust_service_free(s));
    if (callbacks) {
        CHECK(r.releases == 1);
        CHECK(r.by_type[CRUST_EVENT_STOPPED] == 1);
    }
    recorder_destroy(&r);
    return 1;
}

static void thousand_services_leave_nothing(void) {
    crust_config *config = loopback_config();
    int i, fds, threads;
    REQUIRE(config != NULL);
    for (i = 0; i < 50; i++) REQUIRE(make_and_free(config, i & 1));
    fds = fds_now();
    /* The pool of threads of the Go runtime may still grow by a few; 500 of the
     * services have a thread of their own. */
    threads = threads_now() + 4;
    for (i = 0; i < 1000; i++) REQUIRE(make_and_free(config, i & 1));
    CHECK(eventually(enough_fds_gone, &fds));
    CHECK(eventually(enough_threads_gone, &threads));
    crust_config_free(config);
}

static void many_services_at_once(void) {
    enum { SERVICES = 100 };
    crust_config *config = loopback_config();
    crust_service s[SERVICES];
    int i, j;
    REQUIRE(config != NULL);
    for (i = 0; i < SERVICES; i++) REQUIRE_CODE(CRUST_OK, crust_service_new(config, NULL, &s[i]));
    for (i = 0; i < SERVICES; i++) {
        for (j = 0; j < i; j++) CHECK(s[i] != s[j]);
    }
    for (i = 0; i < SERVICES; i++) CHECK_CODE(CRUST_OK, crust_service_free(s[i]));
    crust_config_free(config);
}

const tap_test life_tests[] = {
    {"close brings LOST, then STOPPED, then CLOSED", close_ends_with_stopped},
    {"free without reading delivers what was accepted", free_without_reading},
    {"batches outlive their service", batches_outlive_their_service},
    {"free wakes threads inside crust_poll", free_wakes_pollers},
    {"STOPPED wakes all threads inside crust_poll", stopped_wakes_all_pollers},
    {"one of many frees wins", free_from_many_threads_happens_once},
    {"100 services at once", many_services_at_once},
    {"1,000 services leave no thread and no descriptor", thousand_services_leave_nothing},
};
const size_t life_count = sizeof life_tests / sizeof life_tests[0];
