/* uTP links, datagrams and ports. */
#if !defined(_GNU_SOURCE)
#  define _GNU_SOURCE
#endif
#include "host.h"
#include "tap.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* A service of this network with one listener, or the default ones when
 * endpoint is NULL. */
static crust_service udp_service(const char *endpoint, uint64_t live_port, uint64_t rotation_ms) {
    crust_config *config = NULL;
    crust_service service = 0;
    char network[64];
    snprintf(network, sizeof network, "abi udp tests %ld", (long)getpid());
    if (!CHECK_CODE(CRUST_OK, crust_config_new(&config))) return 0;
    CHECK_CODE(CRUST_OK, crust_config_set_str(config, CRUST_OPT_NETWORK_NAME, network));
    CHECK_CODE(CRUST_OK, crust_config_set_str(config, CRUST_OPT_APP_ID, "udp"));
    CHECK_CODE(CRUST_OK, crust_config_set_u64(config, CRUST_OPT_LIVE_PORT, live_port));
    CHECK_CODE(CRUST_OK, crust_config_set_u64(config, CRUST_OPT_PORT_ROTATION_MS, rotation_ms));
    if (endpoint) CHECK_CODE(CRUST_OK, crust_config_add_listener(config, endpoint));
    CHECK_CODE(CRUST_OK, crust_service_new(config, NULL, &service));
    crust_config_free(config);
    return service;
}

/* Two services that have no TCP, connected. */
static int utp_pair(pair *p) {
    memset(p, 0, sizeof *p);
    p->a.service = udp_service("utp://127.0.0.1:0", 0, 0);
    p->b.service = udp_service("utp://127.0.0.1:0", 0, 0);
    if (!p->a.service || !p->b.service) return 0;
    CHECK_CODE(CRUST_OK, crust_service_id(p->a.service, &p->id_a));
    CHECK_CODE(CRUST_OK, crust_service_id(p->b.service, &p->id_b));
    return connect_inboxes(&p->a, &p->b);
}

static crust_stats stats_of(crust_service service) {
    crust_stats stats;
    memset(&stats, 0, sizeof stats);
    stats.struct_size = sizeof stats;
    CHECK_CODE(CRUST_OK, crust_service_stats(service, &stats));
    return stats;
}

static void messages_over_utp(void) {
    static const size_t sizes[] = {0, 1, 1000, 70000, CRUST_MAX_MESSAGE};
    pair p;
    crust_peer_info info;
    uint8_t *data = (uint8_t *)malloc(CRUST_MAX_MESSAGE);
    size_t i;
    if (!CHECK(data != NULL)) return;
    CHECK(crust_has("utp") == 1);
    for (i = 0; i < CRUST_MAX_MESSAGE; i++) data[i] = (uint8_t)(i * 7 + (i >> 8));
    if (!CHECK(utp_pair(&p))) goto end;
    memset(&info, 0, sizeof info);
    info.struct_size = sizeof info;
    CHECK_CODE(CRUST_OK, crust_peer(p.b.service, &p.id_a, &info));
    CHECK(strncmp(info.endpoint, "utp://127.0.0.1:", 16) == 0);
    for (i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        const crust_event *e;
        CHECK_CODE(CRUST_OK, crust_send_wait(p.a.service, &p.id_b, data, sizes[i], 1, PATIENCE_MS));
        CHECK_CODE(CRUST_OK, crust_send_wait(p.b.service, &p.id_a, data, sizes[i], 0, PATIENCE_MS));
        e = inbox_await(&p.b, CRUST_EVENT_MESSAGE);
        if (!e || !CHECK(e->len == sizes[i] && memcmp(e->data, data, sizes[i]) == 0)) break;
        e = inbox_await(&p.a, CRUST_EVENT_MESSAGE);
        if (!e || !CHECK(e->len == sizes[i] && memcmp(e->data, data, sizes[i]) == 0)) break;
    }
end:
    pair_free(&p);
    free(data);
}

/* Datagrams may be lost, so each is sent until one has come. */
static const crust_event *exchange_datagram(pair *p, const void *data, size_t len) {
    int64_t deadline = now_ms() + PATIENCE_MS;
    while (now_ms() < deadline) {
        const crust_event *e;
        if (!CHECK_CODE(CRUST_OK, crust_send_datagram(p->a.service, &p->id_b, data, len))) return NULL;
        while ((e = inbox_next(&p->b, 500)) != NULL) {
            if (e->type == CRUST_EVENT_DATAGRAM && e->len == len) return e;
        }
    }
    tap_failed(__FILE__, __LINE__, "no datagram of %lu bytes came", (unsigned long)len);
    return NULL;
}

/* Counters follow the events they count. */
static int has_counted(void *arg) { return stats_of(*(crust_service *)arg).received_datagrams >= 3; }

static void datagrams(void) {
    pair p;
    crust_peer_id nobody;
    uint8_t data[70000];
    size_t sizes[3] = {1, 0, 0}, i;
    crust_stats stats;
    crust_result fits;
    REQUIRE_OR(utp_pair(&p), pair_free(&p));
    fits = crust_max_datagram(p.a.service, &p.id_b);
    CHECK(fits >= 1100 && fits < (crust_result)sizeof data);
    for (i = 0; i < sizeof data; i++) data[i] = (uint8_t)(i * 11 + (i >> 8));
    sizes[2] = (size_t)fits;
    for (i = 0; i < 3; i++) {
        const crust_event *e = exchange_datagram(&p, data, sizes[i]);
        if (!e) break;
        CHECK(e->data != NULL && memcmp(e->data, data, sizes[i]) == 0);
        CHECK(e->peer && memcmp(e->peer, &p.id_a, sizeof p.id_a) == 0);
        CHECK(e->code == CRUST_OK && e->priority == 0 && e->token == 0 && e->text == NULL && e->endpoint == NULL);
    }
    memset(&nobody, 3, sizeof nobody);
    CHECK_CODE(CRUST_ERR_TOO_BIG, crust_send_datagram(p.a.service, &p.id_b, data, sizeof data));
    CHECK_TEXT("70000 bytes");
    CHECK_CODE(CRUST_ERR_UNKNOWN_PEER, crust_send_datagram(p.a.service, &nobody, data, 1));
    CHECK_CODE(CRUST_ERR_UNKNOWN_PEER, crust_max_datagram(p.a.service, &nobody));
    CHECK_CODE(CRUST_ERR_INVALID, crust_send_datagram(p.a.service, NULL, data, 1));
    CHECK_CODE(CRUST_ERR_INVALID, crust_send_datagram(p.a.service, &p.id_b, NULL, 1));
    CHECK_CODE(CRUST_ERR_INVALID, crust_send_datagram(p.a.service, &p.id_b, data, SIZE_MAX));
    CHECK_CODE(CRUST_ERR_INVALID, crust_max_datagram(p.a.service, NULL));
    stats = stats_of(p.a.service);
    CHECK(stats.sent_datagrams >= 3 && stats.received_datagrams == 0 && stats.lost_datagrams == 0);
    CHECK(stats.circuits == 0 && stats.carried_bytes == 0);
    CHECK(eventually(has_counted, &p.b.service));
    CHECK(stats_of(p.b.service).sent_datagrams == 0);
    pair_free(&p);
}

static void datagrams_over_tcp(void) {
    pair p;
    uint8_t data[70000];
    crust_result fits;
    const crust_event *e;
    REQUIRE_OR(pair_make(&p), pair_free(&p));
    memset(data, 9, sizeof data);
    fits = crust_max_datagram(p.a.service, &p.id_b);
    CHECK(fits >= 1100 && fits < (crust_result)sizeof data);
    e = exchange_datagram(&p, data, (size_t)fits);
    if (e) CHECK(e->data[0] == 9 && memcmp(e->peer, &p.id_a, sizeof p.id_a) == 0);
    CHECK_CODE(CRUST_ERR_TOO_BIG, crust_send_datagram(p.a.service, &p.id_b, data, (size_t)fits + 1));
    pair_free(&p);
}

/* A program built when crust_stats ended earlier is given no more than it knows. */
static void stats_of_an_older_program(void) {
    enum { OLD_SIZE = 160 };
    crust_stats stats;
    crust_service s = loopback_service(NULL);
    REQUIRE(s != 0);
    memset(&stats, 0xAA, sizeof stats);
    stats.struct_size = OLD_SIZE;
    CHECK_CODE(CRUST_OK, crust_service_stats(s, &stats));
    CHECK(stats.struct_size == OLD_SIZE && stats.backpressure_pauses == 0);
    CHECK(offsetof(crust_stats, sent_datagrams) == OLD_SIZE && stats.sent_datagrams == UINT64_C(0xAAAAAAAAAAAAAAAA));
    CHECK_CODE(CRUST_OK, crust_service_free(s));
}

/* A port on loopback that is taken, of TCP and of UDP, until both are closed. */
static int take_port(int fds[2], uint16_t *port) {
    struct sockaddr_in at;
    socklen_t len = sizeof at;
    memset(&at, 0, sizeof at);
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    fds[0] = socket(AF_INET, SOCK_STREAM, 0);
    fds[1] = socket(AF_INET, SOCK_DGRAM, 0);
    if (fds[0] < 0 || fds[1] < 0) return 0;
    if (bind(fds[0], (struct sockaddr *)&at, sizeof at) != 0 || listen(fds[0], 1) != 0) return 0;
    if (getsockname(fds[0], (struct sockaddr *)&at, &len) != 0) return 0;
    if (bind(fds[1], (struct sockaddr *)&at, sizeof at) != 0) return 0;
    *port = ntohs(at.sin_port);
    return 1;
}

/* The port of the listener that starts next; 0, noted, when none does. */
static unsigned started_port(inbox *in) {
    const crust_event *e = inbox_await(in, CRUST_EVENT_LISTENER_STARTED);
    const char *colon = e && e->endpoint ? strrchr(e->endpoint, ':') : NULL;
    return colon ? (unsigned)strtoul(colon + 1, NULL, 10) : 0;
}

static void live_ports(void) {
    static const char *const endpoints[] = {"tcp://127.0.0.1:0", "utp://127.0.0.1:0"};
    inbox in;
    int fds[2] = {-1, -1};
    uint16_t port = 0;
    size_t i;
    unsigned got;
    crust_config *c = NULL;
    REQUIRE_CODE(CRUST_OK, crust_config_new(&c));
    CHECK_CODE(CRUST_OK, crust_config_set_u64(c, CRUST_OPT_LIVE_PORT, 65535));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_set_u64(c, CRUST_OPT_LIVE_PORT, 65536));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_set_str(c, CRUST_OPT_LIVE_PORT, "5483"));
    CHECK_TEXT("does not take a string");
    crust_config_free(c);
    REQUIRE(take_port(fds, &port));
    for (i = 0; i < 2; i++) {
        memset(&in, 0, sizeof in);
        in.service = udp_service(endpoints[i], port, 0);
        got = in.service ? started_port(&in) : 0;
        CHECK(got != 0 && got != port); /* it is taken: a random one */
        inbox_done(&in);
        if (in.service) CHECK_CODE(CRUST_OK, crust_service_free(in.service));
    }
    close(fds[0]);
    close(fds[1]);
    for (i = 0; i < 2; i++) {
        memset(&in, 0, sizeof in);
        in.service = udp_service(endpoints[i], port, 0);
        if (in.service) CHECK(started_port(&in) == port);
        inbox_done(&in);
        if (in.service) CHECK_CODE(CRUST_OK, crust_service_free(in.service));
    }
}

static void ports_rotate(void) {
    crust_config *c = NULL;
    crust_service s = 0;
    const crust_event *e;
    char first[64] = "";
    pair p;
    REQUIRE_CODE(CRUST_OK, crust_config_new(&c));
    CHECK_CODE(CRUST_OK, crust_config_set_u64(c, CRUST_OPT_PORT_ROTATION_MS, 999));
    CHECK_CODE(CRUST_ERR_INVALID, crust_service_new(c, NULL, &s));
    CHECK_TEXT("PortRotation");
    crust_config_free(c);
    memset(&p, 0, sizeof p);
    p.a.service = udp_service("utp://127.0.0.1:0", 0, 1000);
    p.b.service = udp_service("tcp://127.0.0.1:0", 0, 0);
    REQUIRE_OR(p.a.service != 0 && p.b.service != 0, pair_free(&p));
    CHECK_CODE(CRUST_OK, crust_service_id(p.b.service, &p.id_b));
    e = inbox_await(&p.a, CRUST_EVENT_LISTENER_STARTED);
    if (e) snprintf(first, sizeof first, "%s", e->endpoint);
    CHECK_CODE(CRUST_OK, crust_connect_endpoint(p.b.service, first, 1));
    CHECK(inbox_await(&p.b, CRUST_EVENT_CONNECTED) != NULL);
    CHECK(inbox_await(&p.a, CRUST_EVENT_CONNECTED) != NULL);
    e = inbox_await(&p.a, CRUST_EVENT_LISTENER_STARTED);
    if (e) CHECK(strcmp(e->endpoint, first) != 0);
    e = inbox_await(&p.a, CRUST_EVENT_LISTENER_STOPPED);
    if (e) CHECK(e->endpoint && strcmp(e->endpoint, first) == 0 && e->code == CRUST_OK && e->peer == NULL && e->text == NULL);
    CHECK_CODE(CRUST_OK, crust_send(p.a.service, &p.id_b, "still here", 10, 0));
    CHECK(inbox_await(&p.b, CRUST_EVENT_MESSAGE) != NULL);
    pair_free(&p);
}

/* No listener asked for: one of each transport. */
static void default_listeners(void) {
    crust_service s = udp_service(NULL, 0, 0);
    char text[512] = "";
    size_t len = sizeof text;
    inbox in;
    REQUIRE(s != 0);
    memset(&in, 0, sizeof in);
    in.service = s;
    CHECK(inbox_await(&in, CRUST_EVENT_LISTENER_STARTED) != NULL);
    CHECK(inbox_await(&in, CRUST_EVENT_LISTENER_STARTED) != NULL);
    CHECK_CODE(CRUST_OK, crust_listeners(s, text, &len));
    CHECK(strstr(text, "tcp://") != NULL && strstr(text, "utp://") != NULL);
    inbox_done(&in);
    CHECK_CODE(CRUST_OK, crust_service_free(s));
}

const tap_test udp_tests[] = {
    {"messages over uTP alone", messages_over_utp},
    {"datagrams of all sizes, one too big", datagrams},
    {"datagrams over TCP", datagrams_over_tcp},
    {"crust_stats of an older program", stats_of_an_older_program},
    {"a live port is tried first", live_ports},
    {"ports rotate and sessions stay", ports_rotate},
    {"listeners of TCP and uTP by default", default_listeners},
};
const size_t udp_count = sizeof udp_tests / sizeof udp_tests[0];
