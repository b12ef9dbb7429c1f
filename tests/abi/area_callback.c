/* Callback mode. */
#include "calls.h"
#include "host.h"
#include "tap.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* Two services in callback mode, connected. */
typedef struct duo {
    recorder      a, b;
    crust_service sa, sb;
    crust_peer_id id_a, id_b;
} duo;

static int duo_make(duo *d) {
    crust_callbacks ca, cb;
    memset(d, 0, sizeof *d);
    recorder_init(&d->a);
    recorder_init(&d->b);
    ca = recorder_callbacks(&d->a);
    cb = recorder_callbacks(&d->b);
    d->sa = loopback_service(&ca);
    d->sb = loopback_service(&cb);
    if (!d->sa || !d->sb) return 0;
    CHECK_CODE(CRUST_OK, crust_service_id(d->sa, &d->id_a));
    CHECK_CODE(CRUST_OK, crust_service_id(d->sb, &d->id_b));
    if (!CHECK_CODE(CRUST_OK, crust_prepare_connection_info(d->sa, 1))) return 0;
    if (!recorder_wait(&d->a, CRUST_EVENT_CONNECTION_INFO, 1)) return 0;
    if (!CHECK_CODE(CRUST_OK, crust_connect(d->sb, d->a.info, d->a.info_len, 2))) return 0;
    return recorder_wait(&d->a, CRUST_EVENT_CONNECTED, 1) && recorder_wait(&d->b, CRUST_EVENT_CONNECTED, 1);
}

static void check_recorder(recorder *r) {
    CHECK(r->releases == 1);
    CHECK(r->by_type[CRUST_EVENT_STOPPED] == 1);
    CHECK(!r->after_release);
    CHECK(!r->after_stopped);
    CHECK(!r->overlapped);
    CHECK(r->threads == 1);
}

static void duo_free(duo *d) {
    if (d->sa) CHECK_CODE(CRUST_OK, crust_service_free(d->sa));
    if (d->sb) CHECK_CODE(CRUST_OK, crust_service_free(d->sb));
    if (d->sa) check_recorder(&d->a);
    if (d->sb) check_recorder(&d->b);
    recorder_destroy(&d->a);
    recorder_destroy(&d->b);
}

static void echo(recorder *r, crust_service service, const crust_event *e) {
    (void)r;
    if (e->type == CRUST_EVENT_MESSAGE) CHECK_CODE(CRUST_OK, crust_send(service, e->peer, e->data, (size_t)e->len, e->priority));
}

static void exchange(void) {
    enum { MESSAGES = 1000 };
    duo d;
    int i;
    REQUIRE_OR(duo_make(&d), duo_free(&d));
    d.b.each = echo;
    for (i = 0; i < MESSAGES; i++) CHECK_CODE(CRUST_OK, crust_send_wait(d.sa, &d.id_b, "ping", 4, 1, PATIENCE_MS));
    CHECK(recorder_wait(&d.b, CRUST_EVENT_MESSAGE, MESSAGES));
    CHECK(recorder_wait(&d.a, CRUST_EVENT_MESSAGE, MESSAGES));
    CHECK(d.a.message_bytes == 4 * MESSAGES);
    CHECK_CODE(CRUST_OK, crust_disconnect(d.sa, &d.id_b));
    CHECK(recorder_wait(&d.a, CRUST_EVENT_LOST, 1));
    CHECK(recorder_wait(&d.b, CRUST_EVENT_LOST, 1));
    duo_free(&d);
}

static void poll_mode_calls_are_refused(void) {
    recorder r;
    crust_callbacks c;
    crust_service s;
    crust_batch *batch = NULL;
    intptr_t fd;
    recorder_init(&r);
    c = recorder_callbacks(&r);
    s = loopback_service(&c);
    if (!s) return;
    CHECK_CODE(CRUST_ERR_STATE, crust_poll(s, 0, 0, &batch));
    CHECK_CODE(CRUST_ERR_STATE, crust_service_fd(s, &fd));
    CHECK_CODE(CRUST_ERR_STATE, crust_wakeup(s));
    CHECK_TEXT("callback mode");
    CHECK_CODE(CRUST_OK, crust_service_free(s));
    check_recorder(&r);
    recorder_destroy(&r);
}

static void try_to_block(recorder *r, crust_service service, const crust_event *e) {
    crust_service other = *(crust_service *)r->extra;
    crust_peer_id id;
    crust_batch *batch = NULL;
    if (e->type != CRUST_EVENT_LISTENER_STARTED) return;
    memset(&id, 1, sizeof id);
    CHECK_CODE(CRUST_ERR_WOULD_DEADLOCK, crust_service_free(service));
    CHECK_CODE(CRUST_ERR_WOULD_DEADLOCK, crust_service_free(other));
    CHECK_CODE(CRUST_ERR_WOULD_DEADLOCK, crust_poll(other, 0, 0, &batch));
    CHECK_CODE(CRUST_ERR_WOULD_DEADLOCK, crust_send_wait(service, &id, "x", 1, 0, 10));
    CHECK_TEXT("callback");
    /* All others are allowed. */
    CHECK_CODE(CRUST_OK, crust_service_id(service, &id));
    CHECK(crust_send(service, &id, "x", 1, 0) < 0); /* nobody is connected to itself */
    CHECK_CODE(CRUST_OK, crust_wakeup(other));
    CHECK_CODE(CRUST_OK, crust_prepare_connection_info(service, 5));
}

static void blocking_calls_inside_are_refused(void) {
    recorder r;
    crust_callbacks c;
    crust_service s, other = loopback_service(NULL);
    REQUIRE(other != 0);
    recorder_init(&r);
    r.each = try_to_block;
    r.extra = &other;
    c = recorder_callbacks(&r);
    s = loopback_service(&c);
    if (!s) return;
    CHECK(recorder_wait(&r, CRUST_EVENT_CONNECTION_INFO, 1));
    CHECK_CODE(CRUST_OK, crust_service_free(s));
    CHECK_CODE(CRUST_OK, crust_service_free(other)); /* this thread is inside no callback */
    check_recorder(&r);
    recorder_destroy(&r);
}

static void close_it(recorder *r, crust_service service, const crust_event *e) {
    (void)r;
    if (e->type == CRUST_EVENT_MESSAGE) CHECK_CODE(CRUST_OK, crust_service_close(service));
}

static int is_released(void *arg) { return recorder_released((recorder *)arg) == 1; }

static void close_inside(void) {
    duo d;
    REQUIRE_OR(duo_make(&d), duo_free(&d));
    d.b.each = close_it;
    CHECK_CODE(CRUST_OK, crust_send(d.sa, &d.id_b, "close", 5, 1));
    CHECK(recorder_wait(&d.b, CRUST_EVENT_STOPPED, 1));
    CHECK(recorder_wait(&d.a, CRUST_EVENT_LOST, 1));
    CHECK(eventually(is_released, &d.b)); /* before free */
    CHECK(d.b.by_type[CRUST_EVENT_LOST] == 1);
    duo_free(&d);
}

/* One side storms; the other is freed by another thread in the middle. */
static void *storm(void *arg) {
    duo *d = (duo *)arg;
    for (;;) {
        crust_result r = crust_send_wait(d->sa, &d->id_b, "0123456789012345678901234567890123456789012345678901234567890123", 64, 1, 2000);
        if (r != CRUST_OK) return NULL;
    }
}

static void free_under_a_storm(void) {
    int round;
    for (round = 0; round < 5; round++) {
        duo d;
        pthread_t threads[2];
        REQUIRE_OR(duo_make(&d), duo_free(&d));
        REQUIRE(pthread_create(&threads[0], NULL, storm, &d) == 0);
        REQUIRE(pthread_create(&threads[1], NULL, storm, &d) == 0);
        CHECK(recorder_wait(&d.b, CRUST_EVENT_MESSAGE, 10000));
        CHECK_CODE(CRUST_OK, crust_service_free(d.sb));
        d.sb = 0;
        check_recorder(&d.b);
        CHECK(d.b.by_type[CRUST_EVENT_LOST] == 1);
        pthread_join(threads[0], NULL);
        pthread_join(threads[1], NULL);
        duo_free(&d);
    }
}

typedef struct canary {
    uint64_t alive;
} canary;

static void CRUST_CALL poke(void *user, crust_service service, const crust_event *events, size_t n) {
    (void)service, (void)events, (void)n;
    CHECK(((canary *)user)->alive == 0xC0FFEE);
}

static void CRUST_CALL bury(void *user) {
    ((canary *)user)->alive = 0;
    free(user); /* under a sanitizer a later callback would be seen */
}

static void nothing_after_release(void) {
    int i;
    crust_config *config = loopback_config();
    REQUIRE(config != NULL);
    for (i = 0; i < 50; i++) {
        canary *user = (canary *)malloc(sizeof *user);
        crust_callbacks c;
        crust_service s = 0;
        REQUIRE(user != NULL);
        user->alive = 0xC0FFEE;
        memset(&c, 0, sizeof c);
        c.struct_size = sizeof c;
        c.user = user;
        c.on_events = poke;
        c.on_release = bury;
        REQUIRE_CODE(CRUST_OK, crust_service_new(config, &c, &s));
        if (i & 1) CHECK_CODE(CRUST_OK, crust_service_close(s));
        CHECK_CODE(CRUST_OK, crust_service_free(s));
    }
    crust_config_free(config);
}

static void release_is_optional(void) {
    crust_callbacks c;
    crust_service s;
    canary user;
    user.alive = 0xC0FFEE;
    memset(&c, 0, sizeof c);
    c.struct_size = sizeof c;
    c.on_events = poke;
    c.user = &user;
    s = loopback_service(&c);
    REQUIRE(s != 0);
    CHECK_CODE(CRUST_OK, crust_service_free(s));
}

static void CRUST_CALL block_in_release(void *user) {
    crust_service *s = (crust_service *)user;
    CHECK_CODE(CRUST_ERR_WOULD_DEADLOCK, crust_service_free(*s));
    *s = 0;
}

static void CRUST_CALL ignore(void *user, crust_service service, const crust_event *events, size_t n) {
    (void)user, (void)service, (void)events, (void)n;
}

static void free_inside_release_is_refused(void) {
    crust_callbacks c;
    crust_service s, copy;
    memset(&c, 0, sizeof c);
    c.struct_size = sizeof c;
    c.on_events = ignore;
    c.on_release = block_in_release;
    c.user = &copy;
    copy = s = loopback_service(&c);
    REQUIRE(s != 0);
    CHECK_CODE(CRUST_OK, crust_service_free(s));
    CHECK(copy == 0);
}

/* A callback that does not return: who sends to it waits, within a bound of memory, and nobody else; when it
 * returns, all comes. */
typedef struct valve {
    pthread_mutex_t lock;
    pthread_cond_t  opened;
    int             open;
} valve;

static void hold(recorder *r, crust_service service, const crust_event *e) {
    valve *v = (valve *)r->extra;
    (void)service;
    if (e->type != CRUST_EVENT_MESSAGE) return;
    pthread_mutex_lock(&v->lock);
    while (!v->open) pthread_cond_wait(&v->opened, &v->lock);
    pthread_mutex_unlock(&v->lock);
}

static void one_that_blocks_stops_its_senders_alone(void) {
    enum { SIZE = 60000, MOST = 2000 };
    static const char data[SIZE] = {0};
    valve             v = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0};
    crust_result      code = CRUST_OK;
    crust_callbacks   c;
    crust_service     other;
    crust_stats       stats;
    recorder          r;
    duo               d;
    uint64_t          sent = 0;
    REQUIRE_OR(duo_make(&d), duo_free(&d));
    recorder_init(&r);
    c = recorder_callbacks(&r);
    other = loopback_service(&c);
    d.b.extra = &v;
    d.b.each = hold;
    while (sent < MOST && code == CRUST_OK) {
        code = crust_send(d.sa, &d.id_b, data, SIZE, 1);
        if (code == CRUST_ERR_WOULD_BLOCK) code = crust_send_wait(d.sa, &d.id_b, data, SIZE, 1, 3000);
        sent += code == CRUST_OK;
    }
    CHECK_CODE(CRUST_ERR_TIMEOUT, code);
    memset(&stats, 0, sizeof stats);
    stats.struct_size = sizeof stats;
    CHECK_CODE(CRUST_OK, crust_service_stats(d.sb, &stats));
    CHECK(stats.event_bytes_queued <= 16u << 20 && stats.backpressure_pauses > 0);
    if (CHECK_CODE(CRUST_OK, crust_connect(other, d.a.info, d.a.info_len, 3)) && recorder_wait(&r, CRUST_EVENT_CONNECTED, 1)) {
        CHECK_CODE(CRUST_OK, crust_send(other, &d.id_a, "beside", 6, 1));
        CHECK(recorder_wait(&d.a, CRUST_EVENT_MESSAGE, 1));
    }
    pthread_mutex_lock(&v.lock);
    v.open = 1;
    pthread_cond_broadcast(&v.opened);
    pthread_mutex_unlock(&v.lock);
    CHECK(recorder_wait(&d.b, CRUST_EVENT_MESSAGE, sent));
    CHECK(d.b.message_bytes == sent * SIZE && d.b.by_type[CRUST_EVENT_LOST] == 0);
    CHECK_CODE(CRUST_OK, crust_service_free(other));
    recorder_destroy(&r);
    duo_free(&d);
}

const tap_test callback_tests[] = {
    {"two services exchange messages", exchange},
    {"the calls of poll mode are refused", poll_mode_calls_are_refused},
    {"blocking calls inside a callback are refused", blocking_calls_inside_are_refused},
    {"one that blocks stops its senders alone", one_that_blocks_stops_its_senders_alone},
    {"close inside a callback", close_inside},
    {"free from another thread under a storm of callbacks", free_under_a_storm},
    {"nothing is called after on_release", nothing_after_release},
    {"on_release is optional", release_is_optional},
    {"free inside on_release is refused", free_inside_release_is_refused},
};
const size_t callback_count = sizeof callback_tests / sizeof callback_tests[0];
