/* One short conversation in each mode: what runs under slow tools too. */
#include "host.h"
#include "tap.h"

#include <stdlib.h>
#include <string.h>

static void by_poll(void) {
    pair p;
    crust_message m[2];
    crust_result why = 0;
    const crust_event *e;
    int i;
    REQUIRE_OR(pair_make(&p), pair_free(&p));
    memset(m, 0, sizeof m);
    for (i = 0; i < 2; i++) {
        m[i].peer = &p.id_b;
        m[i].data = "hello";
        m[i].len = 5;
    }
    CHECK_CODE(CRUST_OK, crust_send(p.b.service, &p.id_a, "hi", 2, 0));
    CHECK(crust_send_batch(p.a.service, m, 2, &why) == 2);
    for (i = 0; i < 2; i++) {
        e = inbox_await(&p.b, CRUST_EVENT_MESSAGE);
        if (e) CHECK(e->len == 5 && memcmp(e->data, "hello", 5) == 0);
    }
    e = inbox_await(&p.a, CRUST_EVENT_MESSAGE);
    if (e) CHECK(e->len == 2 && memcmp(e->data, "hi", 2) == 0);
    CHECK_CODE(CRUST_OK, crust_disconnect(p.a.service, &p.id_b));
    CHECK(inbox_await(&p.a, CRUST_EVENT_LOST) != NULL);
    CHECK(inbox_await(&p.b, CRUST_EVENT_LOST) != NULL);
    pair_free(&p);
}

static void by_callback(void) {
    recorder r;
    crust_callbacks c;
    inbox in;
    crust_service s;
    uint8_t *info;
    crust_peer_id id;
    size_t len = 0;
    recorder_init(&r);
    c = recorder_callbacks(&r);
    s = loopback_service(&c);
    memset(&in, 0, sizeof in);
    in.service = loopback_service(NULL);
    REQUIRE(s != 0 && in.service != 0);
    info = connection_info(&in, &len);
    REQUIRE(info != NULL);
    CHECK_CODE(CRUST_OK, crust_connect(s, info, len, 1));
    free(info);
    CHECK_CODE(CRUST_OK, crust_service_id(s, &id));
    CHECK(inbox_await(&in, CRUST_EVENT_CONNECTED) != NULL);
    CHECK(recorder_wait(&r, CRUST_EVENT_CONNECTED, 1));
    CHECK_CODE(CRUST_OK, crust_send(in.service, &id, "hello", 5, 0));
    CHECK(recorder_wait(&r, CRUST_EVENT_MESSAGE, 1));
    CHECK_CODE(CRUST_OK, crust_service_free(s));
    CHECK(r.releases == 1 && r.message_bytes == 5);
    CHECK(inbox_await(&in, CRUST_EVENT_LOST) != NULL);
    inbox_done(&in);
    CHECK_CODE(CRUST_OK, crust_service_free(in.service));
    recorder_destroy(&r);
}

const tap_test smoke_tests[] = {
    {"a conversation by poll", by_poll},
    {"a conversation by callback", by_callback},
};
const size_t smoke_count = sizeof smoke_tests / sizeof smoke_tests[0];
