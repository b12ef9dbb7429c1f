#include "host.h"
#include "tap.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int eventually(int (*check)(void *arg), void *arg) {
    int64_t deadline = now_ms() + PATIENCE_MS;
    for (;;) {
        if (check(arg)) return 1;
        if (now_ms() > deadline) return 0;
        poll(NULL, 0, 5);
    }
}

crust_config *loopback_config(void) {
    crust_config *config = NULL;
    char network[64];
    snprintf(network, sizeof network, "abi tests %ld", (long)getpid());
    if (!CHECK_CODE(CRUST_OK, crust_config_new(&config))) return NULL;
    CHECK_CODE(CRUST_OK, crust_config_set_str(config, CRUST_OPT_NETWORK_NAME, network));
    CHECK_CODE(CRUST_OK, crust_config_set_str(config, CRUST_OPT_APP_ID, "abi"));
    CHECK_CODE(CRUST_OK, crust_config_add_listener(config, "tcp://127.0.0.1:0"));
    return config;
}

crust_service loopback_service(const crust_callbacks *callbacks) {
    crust_config *config = loopback_config();
    crust_service service = 0;
    if (!config) return 0;
    CHECK_CODE(CRUST_OK, crust_service_new(config, callbacks, &service));
    crust_config_free(config);
    return service;
}

const crust_event *inbox_next(inbox *in, int timeout_ms) {
    crust_result r;
    if (in->i < in->n) return &in->events[in->i++];
    crust_batch_free(in->batch);
    in->batch = NULL;
    in->i = in->n = 0;
    r = crust_poll(in->service, timeout_ms, 0, &in->batch);
    if (r <= 0) return NULL;
    in->events = crust_batch_events(in->batch, &in->n);
    if (!CHECK(in->n == (size_t)r)) return NULL;
    return &in->events[in->i++];
}

const crust_event *inbox_await(inbox *in, crust_event_type type) {
    int64_t deadline = now_ms() + PATIENCE_MS;
    for (;;) {
        int64_t left = deadline - now_ms();
        const crust_event *e = left > 0 ? inbox_next(in, (int)left) : NULL;
        if (!e) {
            tap_failed(__FILE__, __LINE__, "no event %u came; last error: %s", type, crust_last_error());
            return NULL;
        }
        if (e->type == type) return e;
        if (e->code != CRUST_OK && e->text) printf("# passed over event %u: %s\n", e->type, e->text);
    }
}

void inbox_done(inbox *in) {
    crust_batch_free(in->batch);
    in->batch = NULL;
    in->i = in->n = 0;
}

uint8_t *connection_info(inbox *a, size_t *len) {
    const crust_event *e;
    uint8_t *info;
    if (!CHECK_CODE(CRUST_OK, crust_prepare_connection_info(a->service, 77))) return NULL;
    e = inbox_await(a, CRUST_EVENT_CONNECTION_INFO);
    if (!e || !CHECK(e->token == 77) || !CHECK(e->data != NULL && e->len > 0)) return NULL;
    info = (uint8_t *)malloc((size_t)e->len);
    if (!info) return NULL;
    memcpy(info, e->data, (size_t)e->len);
    *len = (size_t)e->len;
    return info;
}

int connect_inboxes(inbox *a, inbox *b) {
    size_t len = 0;
    uint8_t *info = connection_info(a, &len);
    const crust_event *e;
    crust_result r;
    if (!info) return 0;
    r = crust_connect(b->service, info, len, 4711);
    free(info);
    if (!CHECK_CODE(CRUST_OK, r)) return 0;
    e = inbox_await(b, CRUST_EVENT_CONNECTED);
    if (!e || !CHECK(e->token == 4711)) return 0;
    return inbox_await(a, CRUST_EVENT_CONNECTED) != NULL;
}

int pair_make(pair *p) {
    memset(p, 0, sizeof *p);
    p->a.service = loopback_service(NULL);
    p->b.service = loopback_service(NULL);
    if (!p->a.service || !p->b.service) return 0;
    CHECK_CODE(CRUST_OK, crust_service_id(p->a.service, &p->id_a));
    CHECK_CODE(CRUST_OK, crust_service_id(p->b.service, &p->id_b));
    return connect_inboxes(&p->a, &p->b);
}

void pair_free(pair *p) {
    inbox_done(&p->a);
    inbox_done(&p->b);
    if (p->a.service) CHECK_CODE(CRUST_OK, crust_service_free(p->a.service));
    if (p->b.service) CHECK_CODE(CRUST_OK, crust_service_free(p->b.service));
}

void recorder_init(recorder *r) {
    memset(r, 0, sizeof *r);
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->changed, NULL);
}

void recorder_destroy(recorder *r) {
    free(r->info);
    pthread_cond_destroy(&r->changed);
    pthread_mutex_destroy(&r->lock);
}

static void record(recorder *r, const crust_event *e) {
    r->events++;
    if (e->type < sizeof r->by_type / sizeof r->by_type[0]) r->by_type[e->type]++;
    if (e->type == CRUST_EVENT_MESSAGE) r->message_bytes += e->len;
    if (e->peer) r->last_peer = *e->peer;
    if (e->type == CRUST_EVENT_CONNECTION_INFO) {
        free(r->info);
        r->info = (uint8_t *)malloc((size_t)e->len);
        r->info_len = (size_t)e->len;
        if (r->info) memcpy(r->info, e->data, r->info_len);
    }
}

static void CRUST_CALL on_events(void *user, crust_service service, const crust_event *events, size_t n) {
    recorder *r = (recorder *)user;
    size_t i;
    pthread_mutex_lock(&r->lock);
    if (r->inside++) r->overlapped = 1;
    if (!r->threads || !pthread_equal(r->thread, pthread_self())) {
        r->threads++;
        r->thread = pthread_self();
    }
    if (r->releases) r->after_release = 1;
    r->batches++;
    for (i = 0; i < n; i++) {
        if (r->by_type[CRUST_EVENT_STOPPED]) r->after_stopped = 1;
        record(r, &events[i]);
    }
    pthread_mutex_unlock(&r->lock);
    for (i = 0; r->each && i < n; i++) r->each(r, service, &events[i]);
    pthread_mutex_lock(&r->lock);
    r->inside--;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
}

static void CRUST_CALL on_release(void *user) {
    recorder *r = (recorder *)user;
    pthread_mutex_lock(&r->lock);
    r->releases++;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
}

crust_callbacks recorder_callbacks(recorder *r) {
    crust_callbacks c;
    memset(&c, 0, sizeof c);
    c.struct_size = sizeof c;
    c.user = r;
    c.on_events = on_events;
    c.on_release = on_release;
    return c;
}

int recorder_wait(recorder *r, crust_event_type type, uint64_t n) {
    struct timespec deadline;
    int ok = 1;
    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += PATIENCE_MS / 1000;
    pthread_mutex_lock(&r->lock);
    while (ok && r->by_type[type] < n) ok = pthread_cond_timedwait(&r->changed, &r->lock, &deadline) != ETIMEDOUT;
    ok = r->by_type[type] >= n;
    pthread_mutex_unlock(&r->lock);
    if (!ok) tap_failed(__FILE__, __LINE__, "event %u did not come %lu times", type, (unsigned long)n);
    return ok;
}

int recorder_released(recorder *r) {
    int n;
    pthread_mutex_lock(&r->lock);
    n = r->releases;
    pthread_mutex_unlock(&r->lock);
    return n;
}

int count_entries(const char *path) {
    DIR *dir = opendir(path);
    int n = 0;
    if (!dir) return -1;
    while (readdir(dir)) n++;
    closedir(dir);
    return n;
}
