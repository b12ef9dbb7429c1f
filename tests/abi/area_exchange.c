/* Two services in one process, in poll mode. */
#include "host.h"
#include "tap.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void connected_says_who_and_how(void) {
    inbox a, b;
    crust_peer_id id_a, id_b, from_info;
    uint8_t *info;
    size_t len = 0;
    const crust_event *e;
    memset(&a, 0, sizeof a);
    memset(&b, 0, sizeof b);
    a.service = loopback_service(NULL);
    b.service = loopback_service(NULL);
    REQUIRE(a.service != 0 && b.service != 0);
    CHECK_CODE(CRUST_OK, crust_service_id(a.service, &id_a));
    CHECK_CODE(CRUST_OK, crust_service_id(b.service, &id_b));
    info = connection_info(&a, &len);
    REQUIRE(info != NULL);
    CHECK_CODE(CRUST_OK, crust_connection_info_peer(info, len, &from_info));
    CHECK(memcmp(&from_info, &id_a, sizeof id_a) == 0);
    info[len / 2] ^= 1;
    CHECK_CODE(CRUST_ERR_BAD_INFO, crust_connect(b.service, info, len, 1));
    CHECK_CODE(CRUST_ERR_BAD_INFO, crust_connection_info_peer(info, len, &from_info));
    info[len / 2] ^= 1;
    CHECK_CODE(CRUST_ERR_SELF, crust_connect(a.service, info, len, 1));
    CHECK_CODE(CRUST_OK, crust_connect(b.service, info, len, 4711));
    memset(info, 0, len); /* the library has a copy */
    e = inbox_await(&b, CRUST_EVENT_CONNECTED);
    REQUIRE(e != NULL);
    CHECK(e->token == 4711 && e->how == CRUST_HOW_DIALED && e->role == CRUST_ROLE_NODE && e->code == CRUST_OK);
    CHECK(e->peer && memcmp(e->peer, &id_a, sizeof id_a) == 0);
    CHECK(e->len == 3 && memcmp(e->data, "abi", 3) == 0);
    CHECK(e->endpoint && strncmp(e->endpoint, "tcp://127.0.0.1:", 16) == 0);
    CHECK(e->text == NULL && e->took_us > 0 && e->took_us < (uint64_t)PATIENCE_MS * 1000);
    CHECK(e->reserved0 == 0 && e->reserved1 == 0 && e->count == 0 && e->bytes == 0);
    e = inbox_await(&a, CRUST_EVENT_CONNECTED);
    REQUIRE(e != NULL);
    CHECK(e->token == 0 && e->how == CRUST_HOW_ACCEPTED && memcmp(e->peer, &id_b, sizeof id_b) == 0);
    free(info);
    inbox_done(&a);
    inbox_done(&b);
    CHECK_CODE(CRUST_OK, crust_service_free(a.service));
    CHECK_CODE(CRUST_OK, crust_service_free(b.service));
}

/* Records of the log come as events, with what happened as text and JSON, in time. */
static void records_come_as_events(void) {
    crust_config *config = loopback_config();
    inbox a, b;
    const crust_event *e;
    int connected = 0, stopped = 0, last = 0;
    uint8_t *info;
    size_t len = 0;
    memset(&a, 0, sizeof a);
    memset(&b, 0, sizeof b);
    REQUIRE(config != NULL);
    REQUIRE_CODE(CRUST_OK, crust_config_set_u64(config, CRUST_OPT_LOG_LEVEL, CRUST_LOG_INFO));
    REQUIRE_CODE(CRUST_OK, crust_service_new(config, NULL, &a.service));
    crust_config_free(config);
    b.service = loopback_service(NULL);
    REQUIRE(b.service != 0);
    info = connection_info(&b, &len);
    REQUIRE(info != NULL);
    CHECK_CODE(CRUST_OK, crust_connect(a.service, info, len, 1));
    free(info);
    while ((e = inbox_next(&a, PATIENCE_MS)) != NULL) {
        last = (int)e->type;
        if (e->type == CRUST_EVENT_CONNECTED) CHECK_CODE(CRUST_OK, crust_service_close(a.service));
        if (e->type != CRUST_EVENT_LOG) continue;
        CHECK(e->text && e->data && e->len >= 2 && e->data[0] == '{' && e->data[e->len - 1] == '}');
        CHECK(e->priority >= CRUST_LOG_ERROR && e->priority <= CRUST_LOG_INFO && e->code == CRUST_OK);
        CHECK(e->peer == NULL && e->endpoint == NULL && e->token == 0);
        CHECK(e->took_us > UINT64_C(1700000000000000) && e->took_us < UINT64_C(9000000000000000));
        if (strcmp(e->text, "connected") == 0) {
            char json[512];
            CHECK(e->priority == CRUST_LOG_INFO && e->len < sizeof json);
            memcpy(json, e->data, e->len < sizeof json ? (size_t)e->len : 0);
            json[e->len < sizeof json ? e->len : 0] = 0;
            CHECK(strstr(json, "\"how\":\"dialed\"") && strstr(json, "\"endpoint\":\"tcp://127.0.0.1:"));
            connected++;
        }
        stopped += strcmp(e->text, "service stopped") == 0;
    }
    CHECK(connected == 1 && stopped == 1 && last == CRUST_EVENT_STOPPED);
    inbox_done(&a);
    inbox_done(&b);
    CHECK_CODE(CRUST_OK, crust_service_free(a.service));
    CHECK_CODE(CRUST_OK, crust_service_free(b.service));
}

static void messages_of_all_sizes(void) {
    static const size_t sizes[] = {0, 1, 7, 8, 64, 1000, 65535, 65536, 65537, 300000, CRUST_MAX_MESSAGE};
    pair p;
    uint8_t *data = (uint8_t *)malloc(CRUST_MAX_MESSAGE + 1);
    size_t i, k;
    if (!CHECK(data != NULL)) return;
    for (i = 0; i <= CRUST_MAX_MESSAGE; i++) data[i] = (uint8_t)(i * 7 + (i >> 8));
    if (!CHECK(pair_make(&p))) goto end;
    for (k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
        const crust_event *e;
        CHECK_CODE(CRUST_OK, crust_send_wait(p.a.service, &p.id_b, data, sizes[k], 1, PATIENCE_MS));
        e = inbox_await(&p.b, CRUST_EVENT_MESSAGE);
        if (!e) break;
        CHECK(e->len == sizes[k] && e->data != NULL && memcmp(e->data, data, sizes[k]) == 0);
        CHECK(e->priority == 1 && e->token == 0 && e->text == NULL && e->endpoint == NULL);
    }
    CHECK_CODE(CRUST_ERR_TOO_BIG, crust_send(p.a.service, &p.id_b, data, CRUST_MAX_MESSAGE + 1, 1));
    CHECK_CODE(CRUST_ERR_TOO_BIG, crust_send_wait(p.a.service, &p.id_b, data, CRUST_MAX_MESSAGE + 1, 1, 0));
    CHECK_CODE(CRUST_OK, crust_send(p.a.service, &p.id_b, "unharmed", 8, 1));
    CHECK(inbox_await(&p.b, CRUST_EVENT_MESSAGE) != NULL);
end:
    pair_free(&p);
    free(data);
}

/* Counters follow the events they count. */
static int has_counted(void *arg) {
    pair *p = (pair *)arg;
    crust_peer_info info;
    memset(&info, 0, sizeof info);
    info.struct_size = sizeof info;
    return crust_peer(p->b.service, &p->id_a, &info) == CRUST_OK && info.received_messages == 1;
}

static void looking_at_a_session(void) {
    pair p;
    crust_peer_info info;
    crust_peer_id ids[3];
    size_t n = 3, len;
    char text[128];
    REQUIRE_OR(pair_make(&p), pair_free(&p));
    CHECK_CODE(CRUST_OK, crust_send(p.a.service, &p.id_b, "12345", 5, 0));
    CHECK(inbox_await(&p.b, CRUST_EVENT_MESSAGE) != NULL);
    CHECK(eventually(has_counted, &p));
    CHECK_CODE(CRUST_OK, crust_peers(p.a.service, ids, &n));
    CHECK(n == 1 && memcmp(&ids[0], &p.id_b, sizeof p.id_b) == 0);
    n = 0;
    CHECK_CODE(CRUST_ERR_BUFFER_TOO_SMALL, crust_peers(p.a.service, ids, &n));
    CHECK(n == 1);
    CHECK_CODE(CRUST_OK, crust_peers(p.a.service, NULL, &n));
    CHECK(n == 1);
    memset(&info, 0, sizeof info);
    info.struct_size = sizeof info;
    info.peer = p.id_a;
    CHECK_CODE(CRUST_OK, crust_peer(p.b.service, &info.peer, &info)); /* the id may lie in the struct */
    CHECK(info.struct_size == sizeof info && info.how == CRUST_HOW_DIALED && info.role == CRUST_ROLE_NODE);
    CHECK(memcmp(&info.peer, &p.id_a, sizeof p.id_a) == 0);
    CHECK(info.cipher == 1 || info.cipher == 2);
    CHECK(strncmp(info.endpoint, "tcp://127.0.0.1:", 16) == 0);
    CHECK(info.received_messages == 1 && info.received_bytes == 5 && info.age_us > 0);
    len = 0;
    CHECK_CODE(CRUST_OK, crust_listeners(p.a.service, NULL, &len));
    CHECK(len > 16 && len < sizeof text);
    n = len - 1;
    CHECK_CODE(CRUST_ERR_BUFFER_TOO_SMALL, crust_listeners(p.a.service, text, &n));
    CHECK(n == len && text[0] == 0);
    n = 0;
    CHECK_CODE(CRUST_ERR_BUFFER_TOO_SMALL, crust_listeners(p.a.service, text, &n));
    n = sizeof text;
    CHECK_CODE(CRUST_OK, crust_listeners(p.a.service, text, &n));
    CHECK(n == len && strlen(text) + 1 == len && strncmp(text, "tcp://127.0.0.1:", 16) == 0);
    CHECK_CODE(CRUST_OK, crust_stop_listening(p.a.service, text));
    len = sizeof text;
    CHECK_CODE(CRUST_OK, crust_listeners(p.a.service, text, &len));
    CHECK(len == 1 && text[0] == 0);
    pair_free(&p);
}

static void unknown_peers(void) {
    pair p;
    crust_peer_id nobody;
    crust_message m;
    crust_result why = 0;
    REQUIRE_OR(pair_make(&p), pair_free(&p));
    memset(&nobody, 3, sizeof nobody);
    memset(&m, 0, sizeof m);
    m.peer = &nobody;
    CHECK_CODE(CRUST_ERR_UNKNOWN_PEER, crust_send(p.a.service, &nobody, "x", 1, 0));
    CHECK_TEXT("not connected");
    CHECK_CODE(CRUST_ERR_UNKNOWN_PEER, crust_send_wait(p.a.service, &nobody, "x", 1, 0, -1));
    CHECK_CODE(CRUST_ERR_UNKNOWN_PEER, crust_disconnect(p.a.service, &nobody));
    CHECK(crust_send_batch(p.a.service, &m, 1, &why) == 0 && why == CRUST_ERR_UNKNOWN_PEER);
    CHECK_CODE(CRUST_OK, crust_disconnect(p.a.service, &p.id_b));
    {
        const crust_event *e = inbox_await(&p.a, CRUST_EVENT_LOST);
        if (e) CHECK(e->code == CRUST_ERR_DISCONNECTED);
        e = inbox_await(&p.b, CRUST_EVENT_LOST);
        if (e) CHECK(e->code == CRUST_ERR_DISCONNECTED && memcmp(e->peer, &p.id_a, sizeof p.id_a) == 0);
    }
    CHECK_CODE(CRUST_ERR_UNKNOWN_PEER, crust_send(p.a.service, &p.id_b, "x", 1, 0));
    pair_free(&p);
}

static void bans(void) {
    pair p;
    char id[65];
    const char *who[3];
    crust_ban_info list[3];
    size_t n = 3, i;
    const crust_event *e;
    REQUIRE_OR(pair_make(&p), pair_free(&p));
    for (i = 0; i < sizeof p.id_b; i++) snprintf(id + 2 * i, 3, "%02x", p.id_b.bytes[i]);
    who[0] = "192.0.2.77/24";
    who[1] = id;
    who[2] = "::1";
    CHECK_CODE(CRUST_OK, crust_ban(p.a.service, who, 2, 3600000, "spam"));
    e = inbox_await(&p.a, CRUST_EVENT_LOST);
    if (e) CHECK(e->code == CRUST_ERR_BANNED && memcmp(e->peer, &p.id_b, sizeof p.id_b) == 0);
    e = inbox_await(&p.b, CRUST_EVENT_LOST);
    if (e) CHECK(e->code == CRUST_ERR_BANNED);
    CHECK_CODE(CRUST_ERR_BANNED, crust_service_connect_peer(p.a.service, &p.id_b, 1));
    CHECK_CODE(CRUST_OK, crust_ban(p.a.service, who + 2, 1, 0, NULL));
    memset(list, 0xAA, sizeof list);
    CHECK_CODE(CRUST_OK, crust_bans(p.a.service, NULL, &n));
    CHECK(n == 3);
    list[0].struct_size = sizeof list[0];
    CHECK_CODE(CRUST_OK, crust_bans(p.a.service, list, &n));
    CHECK(n == 3 && strcmp(list[0].who, id) == 0 && strcmp(list[1].who, "192.0.2.0/24") == 0 && strcmp(list[2].who, "::1") == 0);
    CHECK(list[0].left_ms > 3000000 && list[0].left_ms <= 3600000 && strcmp(list[0].reason, "spam") == 0);
    CHECK(list[2].left_ms == 0 && list[2].reason[0] == 0 && list[2].reason[263] == 0 && list[2].struct_size == sizeof list[2]);
    list[0].struct_size = 7;
    CHECK_CODE(CRUST_ERR_ABI, crust_bans(p.a.service, list, &n));
    list[0].struct_size = sizeof list[0];
    n = 2;
    CHECK_CODE(CRUST_ERR_BUFFER_TOO_SMALL, crust_bans(p.a.service, list, &n));
    CHECK(n == 3);
    CHECK_CODE(3, crust_unban(p.a.service, who, 3));
    CHECK_CODE(0, crust_unban(p.a.service, who, 3));
    CHECK_CODE(CRUST_OK, crust_set_allowed(p.a.service, who + 2, 1, NULL, 0));
    CHECK_CODE(CRUST_OK, crust_set_allowed(p.a.service, NULL, 0, NULL, 0));
    pair_free(&p);
}

typedef struct gate_log {
    crust_gate_request last;
    char               app_id[8], endpoint[64];
    int                calls, released;
} gate_log;

static int CRUST_CALL gate(void *user, const crust_gate_request *request) {
    gate_log *log = (gate_log *)user;
    log->calls++;
    log->last = *request;
    memcpy(log->app_id, request->app_id, request->app_id_len < 8 ? request->app_id_len : 8);
    snprintf(log->endpoint, sizeof log->endpoint, "%s", request->endpoint);
    return request->app_id_len == 2;
}

static void CRUST_CALL gate_released(void *user) { ((gate_log *)user)->released++; }

/* Each call that writes a log is over before the event that is waited for. */
static void gates(void) {
    static const char *const app_ids[] = {"ok", "foe"};
    gate_log log, other;
    inbox a, b;
    crust_config *config = loopback_config();
    crust_peer_id id;
    char port[64];
    size_t len = sizeof port;
    const crust_event *e;
    int i;
    memset(&log, 0, sizeof log);
    memset(&other, 0, sizeof other);
    memset(&a, 0, sizeof a);
    REQUIRE(config != NULL);
    CHECK_CODE(CRUST_OK, crust_config_set_gate(config, gate, &other, gate_released));
    CHECK_CODE(CRUST_OK, crust_config_set_gate(config, gate, &log, gate_released));
    CHECK(other.released == 1 && log.released == 0);
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_set_gate(NULL, gate, &log, NULL));
    REQUIRE_CODE(CRUST_OK, crust_service_new(config, NULL, &a.service));
    crust_config_free(config);
    CHECK(log.released == 0);
    CHECK(inbox_await(&a, CRUST_EVENT_LISTENER_STARTED) != NULL);
    CHECK_CODE(CRUST_OK, crust_listeners(a.service, port, &len));
    for (i = 0; i < 2; i++) {
        memset(&b, 0, sizeof b);
        config = loopback_config();
        REQUIRE(config != NULL);
        CHECK_CODE(CRUST_OK, crust_config_set_bytes(config, CRUST_OPT_APP_ID, app_ids[i], strlen(app_ids[i])));
        REQUIRE_CODE(CRUST_OK, crust_service_new(config, NULL, &b.service));
        crust_config_free(config);
        CHECK_CODE(CRUST_OK, crust_service_id(b.service, &id));
        CHECK_CODE(CRUST_OK, crust_connect_endpoint(b.service, port, 5));
        e = inbox_await(&b, i == 0 ? CRUST_EVENT_CONNECTED : CRUST_EVENT_CONNECT_FAILED);
        if (e && i == 1) CHECK(e->code == CRUST_ERR_NOT_ALLOWED);
        CHECK(log.calls == i + 1 && memcmp(&log.last.peer, &id, sizeof id) == 0 && memcmp(log.app_id, app_ids[i], strlen(app_ids[i])) == 0);
        CHECK(log.last.struct_size == sizeof log.last && log.last.how == CRUST_HOW_ACCEPTED && log.last.outbound == 0);
        CHECK(strncmp(log.endpoint, "tcp://127.0.0.1:", 16) == 0);
        inbox_done(&b);
        CHECK_CODE(CRUST_OK, crust_service_free(b.service));
    }
    inbox_done(&a);
    CHECK(log.released == 0);
    CHECK_CODE(CRUST_OK, crust_service_free(a.service));
    CHECK(log.released == 1 && other.calls == 0);
}

static void batches_are_accepted_up_to_the_first_refused(void) {
    pair p;
    crust_peer_id nobody;
    crust_message m[6];
    crust_result why = 5;
    static uint8_t big[16];
    int i;
    REQUIRE_OR(pair_make(&p), pair_free(&p));
    memset(&nobody, 3, sizeof nobody);
    memset(m, 0, sizeof m);
    for (i = 0; i < 6; i++) {
        m[i].peer = &p.id_b;
        m[i].data = "abcdef" + i;
        m[i].len = 1;
        m[i].priority = 1;
    }
    CHECK(crust_send_batch(p.a.service, m, 6, &why) == 6 && why == CRUST_OK);
    CHECK(crust_send_batch(p.a.service, m, 6, NULL) == 6);
    m[3].peer = &nobody;
    CHECK(crust_send_batch(p.a.service, m, 6, &why) == 3 && why == CRUST_ERR_UNKNOWN_PEER);
    m[3].peer = NULL;
    CHECK(crust_send_batch(p.a.service, m, 6, &why) == 3 && why == CRUST_ERR_INVALID);
    m[3].peer = &p.id_b;
    m[2].data = NULL;
    CHECK(crust_send_batch(p.a.service, m, 6, &why) == 2 && why == CRUST_ERR_INVALID);
    m[2].data = big;
    m[2].len = CRUST_MAX_MESSAGE + 1;
    CHECK(crust_send_batch(p.a.service, m, 6, &why) == 2 && why == CRUST_ERR_TOO_BIG);
    m[2].len = UINT64_MAX;
    CHECK(crust_send_batch(p.a.service, m, 6, &why) == 2 && why == CRUST_ERR_TOO_BIG);
    m[2].len = 1;
    m[1].reserved[6] = 1;
    CHECK(crust_send_batch(p.a.service, m, 6, &why) == 1 && why == CRUST_ERR_INVALID);
    for (i = 0; i < 6 + 6 + 3 + 3 + 2 + 2 + 2 + 1; i++) {
        static const char want[] = "abcdefabcdefabcabcabababa";
        const crust_event *e = inbox_await(&p.b, CRUST_EVENT_MESSAGE);
        if (!e || !CHECK(e->len == 1 && e->data[0] == (uint8_t)want[i])) break;
    }
    pair_free(&p);
}

/* Fills the queue to a peer that does not read, and empties it again: each
 * message arrives once and in order, and each refusal is answered by WRITABLE. */
static void full_queues_refuse_and_tell(void) {
    enum { SIZE = 20000, MESSAGES = 6000 };
    pair p;
    crust_message m[16];
    uint8_t *data = (uint8_t *)calloc(16, SIZE);
    uint32_t sent = 0, received = 0, k;
    int refusals = 0, writable = 0;
    if (!CHECK(data != NULL)) return;
    if (!CHECK(pair_make(&p))) goto end;
    memset(m, 0, sizeof m);
    while (sent < MESSAGES) {
        crust_result why = 0, n;
        const crust_event *e;
        for (k = 0; k < 16; k++) {
            uint32_t number = sent + k;
            m[k].peer = &p.id_b;
            m[k].data = data + (size_t)k * SIZE;
            m[k].len = SIZE;
            m[k].priority = 1;
            memcpy(data + (size_t)k * SIZE, &number, sizeof number);
        }
        n = crust_send_batch(p.a.service, m, MESSAGES - sent < 16 ? MESSAGES - sent : 16, &why);
        if (!CHECK(n >= 0)) break;
        sent += (uint32_t)n;
        if (why == CRUST_OK) continue;
        if (!CHECK(why == CRUST_ERR_WOULD_BLOCK)) break;
        refusals++;
        /* Only now does b read, until a is writable. */
        while ((e = inbox_next(&p.a, 0)) == NULL) {
            const crust_event *got = inbox_next(&p.b, 20);
            uint32_t number;
            if (!got) continue;
            if (!CHECK(got->type == CRUST_EVENT_MESSAGE && got->len == SIZE)) goto end;
            memcpy(&number, got->data, sizeof number);
            if (!CHECK(number == received)) goto end;
            received++;
        }
        if (!CHECK(e->type == CRUST_EVENT_WRITABLE && memcmp(e->peer, &p.id_b, sizeof p.id_b) == 0)) goto end;
        writable++;
    }
    CHECK(refusals > 0);
    CHECK(refusals == writable);
    while (received < sent) {
        const crust_event *got = inbox_await(&p.b, CRUST_EVENT_MESSAGE);
        uint32_t number;
        if (!got) break;
        memcpy(&number, got->data, sizeof number);
        if (!CHECK(number == received)) break;
        received++;
    }
    CHECK(received == MESSAGES);
end:
    pair_free(&p);
    free(data);
}

static void send_wait_waits(void) {
    pair p;
    uint8_t *data = (uint8_t *)calloc(1, CRUST_MAX_MESSAGE);
    crust_result r = CRUST_OK;
    int i, sent = 0;
    if (!CHECK(data != NULL)) return;
    if (!CHECK(pair_make(&p))) goto end;
    for (i = 0; i < 100 && r == CRUST_OK; i++) {
        r = crust_send_wait(p.a.service, &p.id_b, data, CRUST_MAX_MESSAGE, 1, 300);
        sent += r == CRUST_OK;
    }
    CHECK_CODE(CRUST_ERR_TIMEOUT, r);
    CHECK(sent >= 2);
    for (i = 0; i < sent; i++) {
        const crust_event *e = inbox_await(&p.b, CRUST_EVENT_MESSAGE);
        if (!e || !CHECK(e->len == CRUST_MAX_MESSAGE)) break;
    }
    CHECK_CODE(CRUST_OK, crust_send_wait(p.a.service, &p.id_b, data, 10, 1, -1));
    CHECK(inbox_await(&p.b, CRUST_EVENT_MESSAGE) != NULL);
end:
    pair_free(&p);
    free(data);
}

/* 200 connects of all outcomes: each token has exactly one final event. */
static void each_token_has_one_final_event(void) {
    enum { TOKENS = 200 };
    int finals[TOKENS + 1], i, missing = 0, got = 0;
    inbox a, b;
    uint8_t *info;
    char port[64];
    size_t len = 0, text_len = sizeof port;
    memset(finals, 0, sizeof finals);
    memset(&a, 0, sizeof a);
    memset(&b, 0, sizeof b);
    a.service = loopback_service(NULL);
    b.service = loopback_service(NULL);
    REQUIRE(a.service != 0 && b.service != 0);
    info = connection_info(&a, &len);
    REQUIRE(info != NULL);
    CHECK_CODE(CRUST_OK, crust_listeners(a.service, port, &text_len));
    for (i = 1; i <= TOKENS; i++) {
        crust_result r;
        if (i % 4 == 0) r = crust_connect_endpoint(b.service, "tcp://127.0.0.1:1", (uint64_t)i);
        else if (i % 4 == 1) r = crust_connect_endpoint(b.service, port, (uint64_t)i);
        else if (i % 4 == 2) r = crust_connect(b.service, info, len, (uint64_t)i);
        else r = crust_connect(b.service, "rubbish", 7, (uint64_t)i);
        if (i % 4 == 3) CHECK_CODE(CRUST_ERR_BAD_INFO, r);
        else CHECK_CODE(CRUST_OK, r);
        got += r == CRUST_OK;
    }
    while (got > 0) {
        const crust_event *e = inbox_next(&b, PATIENCE_MS);
        if (!CHECK(e != NULL)) break;
        if (e->type != CRUST_EVENT_CONNECTED && e->type != CRUST_EVENT_ALREADY_CONNECTED && e->type != CRUST_EVENT_CONNECT_FAILED) continue;
        if (!CHECK(e->token >= 1 && e->token <= TOKENS)) break;
        finals[e->token]++;
        CHECK((e->type == CRUST_EVENT_CONNECT_FAILED) == (e->token % 4 == 0));
        if (e->type == CRUST_EVENT_CONNECT_FAILED) CHECK(e->code == CRUST_ERR_REFUSED && e->text && e->text[0]);
        got--;
    }
    CHECK(inbox_next(&b, 50) == NULL); /* and nothing more */
    for (i = 1; i <= TOKENS; i++) missing += finals[i] != (i % 4 == 3 ? 0 : 1);
    CHECK(missing == 0);
    free(info);
    inbox_done(&a);
    inbox_done(&b);
    CHECK_CODE(CRUST_OK, crust_service_free(a.service));
    CHECK_CODE(CRUST_OK, crust_service_free(b.service));
}

/* Waits for the next change of a group to a state, 0: any. */
static const crust_event *await_group(inbox *in, uint8_t state) {
    for (;;) {
        const crust_event *e = inbox_await(in, CRUST_EVENT_GROUP);
        if (!e || !state || e->how == state) return e;
    }
}

/* b keeps a, disconnects it, and asks for it again. */
static void a_group_is_kept(void) {
    inbox a, b;
    crust_peer_id id_a, ids[1];
    crust_group group;
    crust_group_info info;
    crust_group_peer peer;
    char at[128], contact[256], id_text[CRUST_PEER_ID_TEXT];
    const char *contacts[1];
    const void *infos[1];
    size_t lens[1] = {1}, len = sizeof at;
    const crust_event *e;
    memset(&a, 0, sizeof a);
    memset(&b, 0, sizeof b);
    a.service = loopback_service(NULL);
    b.service = loopback_service(NULL);
    REQUIRE(a.service != 0 && b.service != 0);
    CHECK_CODE(CRUST_OK, crust_service_id(a.service, &id_a));
    CHECK_CODE(CRUST_OK, crust_peer_id_format(&id_a, id_text));
    CHECK_CODE(CRUST_OK, crust_listeners(a.service, at, &len));
    at[strcspn(at, "\n")] = 0;
    snprintf(contact, sizeof contact, "%s#%s", at, id_text);
    memset(&group, 0, sizeof group);
    CHECK_CODE(CRUST_ERR_INVALID, crust_service_keep(b.service, NULL));
    CHECK_CODE(CRUST_ERR_ABI, crust_service_keep(b.service, &group));
    group.struct_size = sizeof group;
    CHECK_CODE(CRUST_ERR_INVALID, crust_service_keep(b.service, &group)); /* no name */
    group.name = "friends";
    CHECK_CODE(CRUST_ERR_INVALID, crust_service_keep(b.service, &group)); /* nobody */
    group.n_peers = 1;
    CHECK_CODE(CRUST_ERR_INVALID, crust_service_keep(b.service, &group)); /* peers is NULL */
    group.peers = ids;
    memset(ids, 0, sizeof ids);
    CHECK_CODE(CRUST_ERR_INVALID, crust_service_keep(b.service, &group)); /* a peer is zero */
    ids[0] = id_a;
    group.n_infos = 1;
    group.infos = infos;
    group.info_lens = lens;
    infos[0] = NULL;
    CHECK_CODE(CRUST_ERR_INVALID, crust_service_keep(b.service, &group)); /* an info is NULL */
    infos[0] = "x";
    CHECK_CODE(CRUST_ERR_BAD_INFO, crust_service_keep(b.service, &group));
    group.n_infos = 0;
    group.n_contacts = 1;
    group.contacts = contacts;
    contacts[0] = NULL;
    CHECK_CODE(CRUST_ERR_INVALID, crust_service_keep(b.service, &group)); /* a contact is NULL */
    contacts[0] = contact;
    group.n_peers = SIZE_MAX;
    CHECK_CODE(CRUST_ERR_LIMIT, crust_service_keep(b.service, &group));
    group.n_peers = 1;
    group.role = 9;
    CHECK_CODE(CRUST_ERR_INVALID, crust_service_keep(b.service, &group));
    group.role = 0;
    CHECK_CODE(0, crust_service_group(b.service, 0, NULL));
    CHECK_CODE(CRUST_OK, crust_service_keep(b.service, &group));
    e = await_group(&b, 0);
    if (e) CHECK(e->how == CRUST_GROUP_TRYING && e->len == 7 && memcmp(e->data, "friends", 7) == 0 && e->count == 0 && e->bytes == 1);
    e = await_group(&b, CRUST_GROUP_UP);
    if (e) CHECK(e->count == 1 && e->bytes == 1 && e->code == CRUST_OK && !e->text && e->took_us == 0 && e->peer && memcmp(e->peer, &id_a, sizeof id_a) == 0);
    inbox_await(&a, CRUST_EVENT_CONNECTED);
    CHECK_CODE(CRUST_OK, crust_disconnect(b.service, &id_a));
    inbox_await(&a, CRUST_EVENT_LOST);
    e = await_group(&b, CRUST_GROUP_DROPPED);
    if (e) CHECK(e->count == 0 && e->code == CRUST_ERR_DISCONNECTED && e->text && e->took_us == 0);
    memset(&info, 0xAA, sizeof info);
    info.struct_size = sizeof info;
    CHECK_CODE(1, crust_service_group(b.service, 0, &info));
    CHECK(strcmp(info.name, "friends") == 0 && info.up == 0 && info.wanted == 1 && info.any == 0 && info.code == 0);
    CHECK_CODE(1, crust_service_group(b.service, 1, &info));
    CHECK(info.struct_size == sizeof info && info.name[0] == 0 && info.wanted == 0);
    memset(&peer, 0xAA, sizeof peer);
    peer.struct_size = sizeof peer;
    CHECK_CODE(1, crust_service_group_peer(b.service, "friends", 0, &peer));
    CHECK(peer.state == CRUST_GROUP_DROPPED && peer.code == CRUST_ERR_DISCONNECTED && peer.next_ms == 0 && memcmp(&peer.peer, &id_a, sizeof id_a) == 0);
    CHECK_CODE(CRUST_ERR_INVALID, crust_service_group_peer(b.service, "others", 0, NULL));
    CHECK_CODE(CRUST_ERR_INVALID, crust_service_group_peer(b.service, NULL, 0, NULL));
    peer.struct_size = 7;
    CHECK_CODE(CRUST_ERR_ABI, crust_service_group_peer(b.service, "friends", 0, &peer));
    info.struct_size = 7;
    CHECK_CODE(CRUST_ERR_ABI, crust_service_group(b.service, 0, &info));
    CHECK_CODE(CRUST_OK, crust_service_keep(b.service, &group)); /* it asks again */
    e = await_group(&b, CRUST_GROUP_UP);
    if (e) CHECK(e->count == 1);
    inbox_await(&a, CRUST_EVENT_CONNECTED); /* before that it would not say goodbye */
    CHECK_CODE(CRUST_OK, crust_service_free(a.service));
    e = await_group(&b, CRUST_GROUP_DOWN);
    if (e) CHECK(e->took_us > 0 && e->code == CRUST_ERR_DISCONNECTED);
    CHECK_CODE(CRUST_ERR_INVALID, crust_service_release(b.service, "others"));
    CHECK_CODE(CRUST_OK, crust_service_release(b.service, "friends"));
    CHECK_CODE(0, crust_service_group(b.service, 0, NULL));
    memset(&group, 0, sizeof group);
    group.struct_size = sizeof group;
    group.name = "any";
    group.any = 2;
    group.role = CRUST_ROLE_CLIENT;
    CHECK_CODE(CRUST_OK, crust_service_keep(b.service, &group));
    info.struct_size = sizeof info;
    CHECK_CODE(1, crust_service_group(b.service, 0, &info));
    CHECK(info.any == 2 && info.role == CRUST_ROLE_CLIENT && info.wanted == 2);
    inbox_done(&a);
    inbox_done(&b);
    CHECK_CODE(CRUST_OK, crust_service_free(b.service));
}

/* a and c know each other's id only; both are connected to b. */
static void peers_meet_through_a_third(void) {
    pair p;
    inbox c;
    crust_peer_id id_c;
    const crust_event *e;
    const void *first[] = {"one", NULL};
    size_t sizes[] = {3, 0};
    memset(&c, 0, sizeof c);
    REQUIRE_OR(pair_make(&p), pair_free(&p));
    c.service = loopback_service(NULL);
    REQUIRE_OR(c.service != 0, pair_free(&p));
    CHECK_CODE(CRUST_OK, crust_service_id(c.service, &id_c));
    CHECK_CODE(CRUST_OK, crust_service_connect_peer(c.service, &p.id_a, 5)); /* nobody can introduce it yet */
    e = inbox_await(&c, CRUST_EVENT_CONNECT_FAILED);
    if (e) CHECK(e->token == 5 && e->code == CRUST_ERR_NO_ENDPOINT && e->peer && memcmp(e->peer, &p.id_a, sizeof p.id_a) == 0);
    if (!connect_inboxes(&p.b, &c)) goto end;
    CHECK_CODE(CRUST_OK, crust_service_connect_peer(c.service, &p.id_a, 6));
    e = inbox_await(&c, CRUST_EVENT_CONNECTED);
    if (e) CHECK(e->token == 6 && e->peer && memcmp(e->peer, &p.id_a, sizeof p.id_a) == 0);
    e = inbox_await(&p.a, CRUST_EVENT_CONNECTED);
    if (e) CHECK(e->token == 0 && e->peer && memcmp(e->peer, &id_c, sizeof id_c) == 0);
    CHECK_CODE(CRUST_OK, crust_service_connect_peer_with(c.service, &p.id_a, first, sizes, 2, 7));
    e = inbox_await(&c, CRUST_EVENT_ALREADY_CONNECTED);
    if (e) CHECK(e->token == 7);
    e = inbox_await(&p.a, CRUST_EVENT_MESSAGE);
    if (e) CHECK(e->len == 3 && memcmp(e->data, "one", 3) == 0 && e->priority == 1 && memcmp(e->peer, &id_c, sizeof id_c) == 0);
    e = inbox_await(&p.a, CRUST_EVENT_MESSAGE);
    if (e) CHECK(e->len == 0);
    CHECK_CODE(CRUST_OK, crust_disconnect(c.service, &p.id_a));
    CHECK(inbox_await(&p.a, CRUST_EVENT_LOST) != NULL && inbox_await(&c, CRUST_EVENT_LOST) != NULL);
    CHECK_CODE(CRUST_OK, crust_service_connect_peer_with(c.service, &p.id_a, first, sizes, 1, 8)); /* through the other one */
    e = inbox_await(&c, CRUST_EVENT_CONNECTED);
    if (e) CHECK(e->token == 8);
    CHECK(inbox_await(&p.a, CRUST_EVENT_CONNECTED) != NULL);
    e = inbox_await(&p.a, CRUST_EVENT_MESSAGE);
    if (e) CHECK(e->len == 3 && memcmp(e->data, "one", 3) == 0);
    CHECK_CODE(CRUST_OK, crust_send(p.a.service, &id_c, "hello", 5, 1));
    e = inbox_await(&c, CRUST_EVENT_MESSAGE);
    if (e) CHECK(e->len == 5 && memcmp(e->data, "hello", 5) == 0 && memcmp(e->peer, &p.id_a, sizeof p.id_a) == 0);
end:
    inbox_done(&c);
    CHECK_CODE(CRUST_OK, crust_service_free(c.service));
    pair_free(&p);
}

static void bootstrapping(void) {
    inbox a, b;
    crust_config *config;
    char port[64];
    const char *except;
    size_t len = sizeof port;
    const crust_event *e;
    memset(&a, 0, sizeof a);
    memset(&b, 0, sizeof b);
    a.service = loopback_service(NULL);
    config = loopback_config();
    REQUIRE(a.service != 0 && config != NULL);
    CHECK(inbox_await(&a, CRUST_EVENT_LISTENER_STARTED) != NULL);
    CHECK_CODE(CRUST_OK, crust_listeners(a.service, port, &len));
    except = port;
    CHECK_CODE(CRUST_OK, crust_config_add_contact(config, "tcp://127.0.0.1:1"));
    CHECK_CODE(CRUST_OK, crust_config_add_contact(config, port));
    REQUIRE_CODE(CRUST_OK, crust_service_new(config, NULL, &b.service));
    crust_config_free(config);
    CHECK_CODE(CRUST_OK, crust_bootstrap_except(b.service, &except, 1, 7));
    e = inbox_await(&b, CRUST_EVENT_BOOTSTRAP_FAILED);
    if (e) CHECK(e->token == 7 && e->code == CRUST_ERR_REFUSED);
    CHECK_CODE(CRUST_OK, crust_bootstrap(b.service, 8));
    e = inbox_await(&b, CRUST_EVENT_BOOTSTRAPPED);
    if (e) CHECK(e->token == 8 && e->peer && e->endpoint && strcmp(e->endpoint, port) == 0);
    CHECK_CODE(CRUST_OK, crust_stop_bootstrap(b.service));
    CHECK_CODE(CRUST_OK, crust_bootstrap(a.service, 9)); /* it has no contacts */
    e = inbox_await(&a, CRUST_EVENT_BOOTSTRAP_FAILED);
    if (e) CHECK(e->token == 9 && e->code == CRUST_ERR_NO_ENDPOINT && e->text && e->text[0]);
    inbox_done(&a);
    inbox_done(&b);
    CHECK_CODE(CRUST_OK, crust_service_free(a.service));
    CHECK_CODE(CRUST_OK, crust_service_free(b.service));
}

const tap_test exchange_tests[] = {
    {"CONNECTED says who and how", connected_says_who_and_how},
    {"records of the log come as events", records_come_as_events},
    {"messages of all sizes, one too big", messages_of_all_sizes},
    {"looking at peers, listeners and sessions", looking_at_a_session},
    {"unknown peers, and disconnecting", unknown_peers},
    {"bans", bans},
    {"gates", gates},
    {"a batch is accepted up to the first refused", batches_are_accepted_up_to_the_first_refused},
    {"a full queue refuses, WRITABLE follows once", full_queues_refuse_and_tell},
    {"crust_send_wait waits, and gives up", send_wait_waits},
    {"each token has exactly one final event", each_token_has_one_final_event},
    {"two peers meet through a third", peers_meet_through_a_third},
    {"a group is kept", a_group_is_kept},
    {"bootstrapping", bootstrapping},
};
const size_t exchange_count = sizeof exchange_tests / sizeof exchange_tests[0];
