/*
 * hooks.c - a runner of its own, against a library built with --test: faults are
 * injected, and nothing may be left in the tables.
 */
#include "calls.h"
#include "host.h"
#include "tap.h"

#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif
crust_result crust__test_panic(crust_service service);
void crust__test_panic_dispatch(crust_service service);
int64_t crust__test_counter(int32_t what);
#ifdef __cplusplus
}
#endif
enum { SERVICES, CONFIGS, BATCHES, CACHED_BYTES, GOROUTINES };

static void a_panic_closes_the_service(void) {
    pair p;
    crust_peer_id id;
    const crust_event *e;
    int stopped = 0;
    REQUIRE_OR(pair_make(&p), pair_free(&p));
    CHECK_CODE(CRUST_ERR_PANICKED, crust__test_panic(p.a.service));
    CHECK_TEXT("index out of range");
    CHECK_TEXT("testhooks.go");
    CHECK_CODE(CRUST_ERR_PANICKED, crust_send(p.a.service, &p.id_b, "x", 1, 0));
    CHECK_TEXT("closed after a fault");
    CHECK_CODE(CRUST_ERR_PANICKED, crust_prepare_connection_info(p.a.service, 1));
    CHECK_CODE(CRUST_OK, crust_service_id(p.a.service, &id));
    while ((e = inbox_next(&p.a, PATIENCE_MS)) != NULL) stopped += e->type == CRUST_EVENT_STOPPED;
    CHECK(stopped == 1);
    CHECK(inbox_await(&p.b, CRUST_EVENT_LOST) != NULL);
    /* Others are not touched. */
    CHECK_CODE(CRUST_OK, crust_prepare_connection_info(p.b.service, 1));
    pair_free(&p);
}

static void a_panic_without_a_service(void) {
    CHECK_CODE(CRUST_ERR_BAD_HANDLE, crust__test_panic(0));
    CHECK_CODE(CRUST_ERR_BAD_HANDLE, crust__test_panic(12345));
}

static int is_released(void *arg) { return recorder_released((recorder *)arg) == 1; }

static void a_panic_of_the_dispatcher(void) {
    recorder r;
    crust_callbacks c;
    crust_service s;
    recorder_init(&r);
    c = recorder_callbacks(&r);
    s = loopback_service(&c);
    REQUIRE(s != 0);
    CHECK(recorder_wait(&r, CRUST_EVENT_LISTENER_STARTED, 1));
    crust__test_panic_dispatch(s);
    CHECK_CODE(CRUST_OK, crust_prepare_connection_info(s, 1));
    CHECK(recorder_wait(&r, CRUST_EVENT_STOPPED, 1));
    CHECK(eventually(is_released, &r));
    CHECK_CODE(CRUST_ERR_PANICKED, crust_prepare_connection_info(s, 1));
    CHECK_TEXT("injected into the dispatcher");
    CHECK_CODE(CRUST_OK, crust_service_free(s));
    CHECK(r.releases == 1 && r.by_type[CRUST_EVENT_STOPPED] == 1 && !r.after_stopped && !r.after_release);
    recorder_destroy(&r);
}

/* The last event itself is lost in a fault: STOPPED comes from the dispatcher. */
static void arm_late(recorder *r, crust_service service, const crust_event *e) {
    (void)r;
    if (e->type == CRUST_EVENT_LISTENER_STARTED) crust__test_panic_dispatch(service);
}

static void a_panic_at_the_last_event(void) {
    recorder r;
    crust_callbacks c;
    crust_service s;
    recorder_init(&r);
    r.each = arm_late;
    c = recorder_callbacks(&r);
    s = loopback_service(&c);
    REQUIRE(s != 0);
    CHECK(recorder_wait(&r, CRUST_EVENT_LISTENER_STARTED, 1));
    CHECK_CODE(CRUST_OK, crust_service_free(s));
    CHECK(r.releases == 1 && r.by_type[CRUST_EVENT_STOPPED] == 1 && !r.after_stopped && !r.after_release);
    recorder_destroy(&r);
}

static int is_quiet(void *arg) { return crust__test_counter(GOROUTINES) <= *(int64_t *)arg; }

static void nothing_is_left(void) {
    crust_config *config = loopback_config();
    int64_t goroutines;
    int i;
    REQUIRE(config != NULL);
    CHECK(crust__test_counter(SERVICES) == 0);
    CHECK(crust__test_counter(CONFIGS) == 1);
    CHECK(crust__test_counter(BATCHES) == 0);
    goroutines = crust__test_counter(GOROUTINES);
    for (i = 0; i < 1000; i++) {
        recorder r;
        crust_callbacks c;
        crust_service s = 0;
        recorder_init(&r);
        c = recorder_callbacks(&r);
        REQUIRE_CODE(CRUST_OK, crust_service_new(config, i & 1 ? &c : NULL, &s));
        REQUIRE_CODE(CRUST_OK, crust_service_free(s));
        recorder_destroy(&r);
    }
    CHECK(crust__test_counter(SERVICES) == 0);
    CHECK(crust__test_counter(BATCHES) == 0);
    CHECK(eventually(is_quiet, &goroutines));
    crust_config_free(config);
    CHECK(crust__test_counter(CONFIGS) == 0);
}

static void the_free_list_is_bounded(void) {
    pair p;
    crust_batch *batches[400];
    int i, n = 0;
    REQUIRE_OR(pair_make(&p), pair_free(&p));
    inbox_done(&p.b);
    for (i = 0; i < 400; i++) {
        REQUIRE_CODE(CRUST_OK, crust_send_wait(p.a.service, &p.id_b, "small", 5, 1, PATIENCE_MS));
        if (crust_poll(p.b.service, PATIENCE_MS, 1, &batches[n]) == 1) n++;
    }
    CHECK(n == 400);
    CHECK(crust__test_counter(BATCHES) >= n);
    for (i = 0; i < n; i++) crust_batch_free(batches[i]);
    pair_free(&p);
    CHECK(crust__test_counter(BATCHES) == 0);
    CHECK(crust__test_counter(CACHED_BYTES) > 0);
    CHECK(crust__test_counter(CACHED_BYTES) <= 14 << 20);
}

int main(int argc, char **argv) {
    static const tap_test tests[] = {
        {"a panic closes the service and nothing else", a_panic_closes_the_service},
        {"a panic needs a service", a_panic_without_a_service},
        {"a panic of the dispatcher", a_panic_of_the_dispatcher},
        {"a panic of the dispatcher at the last event", a_panic_at_the_last_event},
        {"1,000 services leave nothing in the tables", nothing_is_left},
        {"the free list of batches is bounded", the_free_list_is_bounded},
    };
    tap_area("hooks", tests, sizeof tests / sizeof tests[0], argc, argv);
    return tap_done();
}
