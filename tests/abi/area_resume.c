/* Sessions that outlive their links, and receipts. */
#if !defined(_GNU_SOURCE)
#  define _GNU_SOURCE
#endif
#include "host.h"
#include "tap.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* A relay of TCP in front of a listener, which cuts its connections when told. It
 * carries one connection after another. */
typedef struct relay {
    pthread_t thread;
    int       listener, control[2];
    uint16_t  port, target;
} relay;

static struct sockaddr_in loopback_at(uint16_t port) {
    struct sockaddr_in at;
    memset(&at, 0, sizeof at);
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    at.sin_port = htons(port);
    return at;
}

/* Moves what has come from one end to the other. Returns 0 at its end. */
static int carry(int from, int to) {
    char data[16384];
    ssize_t n = read(from, data, sizeof data), done = 0;
    while (n > 0 && done < n) {
        ssize_t k = send(to, data + done, (size_t)(n - done), MSG_NOSIGNAL);
        if (k <= 0) return 0;
        done += k;
    }
    return n > 0;
}

static int dial_port(uint16_t port) {
    struct sockaddr_in at = loopback_at(port);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&at, sizeof at) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

/* Carries one connection. Returns 0 when the relay is to end. */
static int relay_one(relay *r, int in) {
    struct pollfd fds[3];
    int out = dial_port(r->target), goes_on = 1, end = 0;
    fds[0].fd = r->control[0];
    fds[1].fd = in;
    fds[2].fd = out;
    fds[0].events = fds[1].events = fds[2].events = POLLIN;
    while (out >= 0 && !end && poll(fds, 3, -1) > 0) {
        char order;
        if (fds[0].revents) {
            goes_on = read(r->control[0], &order, 1) == 1 && order == 'c';
            break;
        }
        if (fds[1].revents) end |= !carry(in, out);
        if (fds[2].revents) end |= !carry(out, in);
    }
    close(in);
    if (out >= 0) close(out);
    return goes_on;
}

static void *relay_run(void *arg) {
    relay *r = (relay *)arg;
    struct pollfd fds[2];
    fds[0].fd = r->control[0];
    fds[1].fd = r->listener;
    fds[0].events = fds[1].events = POLLIN;
    while (poll(fds, 2, -1) > 0) {
        if (fds[0].revents) {
            char order;
            if (read(r->control[0], &order, 1) != 1 || order != 'c') break; /* nothing to cut */
        }
        if (fds[1].revents) {
            int in = accept(r->listener, NULL, NULL);
            if (in >= 0 && !relay_one(r, in)) break;
        }
    }
    return NULL;
}

static int relay_start(relay *r, uint16_t target) {
    struct sockaddr_in at = loopback_at(0);
    socklen_t len = sizeof at;
    memset(r, 0, sizeof *r);
    r->target = target;
    r->listener = socket(AF_INET, SOCK_STREAM, 0);
    if (r->listener < 0 || bind(r->listener, (struct sockaddr *)&at, sizeof at) != 0 || listen(r->listener, 8) != 0) return 0;
    if (getsockname(r->listener, (struct sockaddr *)&at, &len) != 0 || pipe(r->control) != 0) return 0;
    r->port = ntohs(at.sin_port);
    return pthread_create(&r->thread, NULL, relay_run, r) == 0;
}

static void relay_cut(relay *r) { CHECK(write(r->control[1], "c", 1) == 1); }

static void relay_end(relay *r) {
    CHECK(write(r->control[1], "e", 1) == 1);
    pthread_join(r->thread, NULL);
    close(r->listener);
    close(r->control[0]);
    close(r->control[1]);
}

/* b connects to a through the relay. */
static int connect_through(pair *p, relay *r, uint64_t no_resume) {
    crust_config *config;
    const crust_event *e;
    char contact[64];
    memset(p, 0, sizeof *p);
    p->a.service = loopback_service(NULL);
    config = loopback_config();
    if (!p->a.service || !config) return 0;
    CHECK_CODE(CRUST_OK, crust_config_set_u64(config, CRUST_OPT_NO_LISTEN, 1));
    CHECK_CODE(CRUST_OK, crust_config_set_u64(config, CRUST_OPT_NO_RESUME, no_resume));
    CHECK_CODE(CRUST_OK, crust_config_set_u64(config, CRUST_OPT_RESUME_WINDOW_MS, PATIENCE_MS));
    CHECK_CODE(CRUST_OK, crust_service_new(config, NULL, &p->b.service));
    crust_config_free(config);
    CHECK_CODE(CRUST_OK, crust_service_id(p->a.service, &p->id_a));
    CHECK_CODE(CRUST_OK, crust_service_id(p->b.service, &p->id_b));
    e = inbox_await(&p->a, CRUST_EVENT_LISTENER_STARTED);
    if (!e || !CHECK(relay_start(r, (uint16_t)strtoul(strrchr(e->endpoint, ':') + 1, NULL, 10)))) return 0;
    snprintf(contact, sizeof contact, "tcp://127.0.0.1:%u", r->port);
    CHECK_CODE(CRUST_OK, crust_connect_endpoint(p->b.service, contact, 3));
    return inbox_await(&p->b, CRUST_EVENT_CONNECTED) != NULL && inbox_await(&p->a, CRUST_EVENT_CONNECTED) != NULL;
}

/* Expects the next message at a, which a number begins. */
static int next_number(pair *p, uint32_t want) {
    const crust_event *e = inbox_await(&p->a, CRUST_EVENT_MESSAGE);
    uint32_t number = 0;
    if (!e || !CHECK(e->len == sizeof number)) return 0;
    memcpy(&number, e->data, sizeof number);
    return CHECK(number == want);
}

static void sessions_outlive_their_links(void) {
    pair p;
    relay r;
    crust_peer_info info;
    crust_stats stats;
    const crust_event *e;
    uint32_t sent = 0, received = 0;
    int cut;
    REQUIRE_OR(connect_through(&p, &r, 0), pair_free(&p));
    for (cut = 0; cut < 3; cut++) {
        uint32_t until = sent + 500;
        for (; sent < until; sent++) CHECK_CODE(CRUST_OK, crust_send(p.b.service, &p.id_a, &sent, sizeof sent, 1));
        relay_cut(&r);
        e = inbox_await(&p.b, CRUST_EVENT_SUSPENDED);
        if (!e) break;
        CHECK(e->peer && memcmp(e->peer, &p.id_a, sizeof p.id_a) == 0);
        CHECK(e->code < 0 && e->text && e->text[0] && e->endpoint && strncmp(e->endpoint, "tcp://", 6) == 0);
        CHECK_CODE(CRUST_OK, crust_send(p.b.service, &p.id_a, &sent, sizeof sent, 1)); /* as before */
        sent++;
        e = inbox_await(&p.b, CRUST_EVENT_RESUMED);
        if (!e) break;
        CHECK(e->peer && memcmp(e->peer, &p.id_a, sizeof p.id_a) == 0);
        CHECK(e->code == CRUST_OK && e->text == NULL && e->how == CRUST_HOW_DIALED && e->endpoint != NULL);
    }
    while (received < sent && next_number(&p, received)) received++;
    CHECK(received == sent);
    memset(&info, 0, sizeof info);
    info.struct_size = sizeof info;
    CHECK_CODE(CRUST_OK, crust_peer(p.b.service, &p.id_a, &info));
    CHECK(info.resumed == 3 && info.suspended == 0);
    stats.struct_size = sizeof stats;
    CHECK_CODE(CRUST_OK, crust_service_stats(p.b.service, &stats));
    CHECK(stats.resumptions == 3 && stats.refused_sessions == 0 && stats.alerts == 0);
    info.resumed = 77;
    info.struct_size = 168; /* a program from when the struct ended there */
    CHECK_CODE(CRUST_OK, crust_peer(p.b.service, &p.id_a, &info));
    CHECK(info.struct_size == 168 && info.resumed == 77);
    pair_free(&p);
    relay_end(&r);
}

static void sessions_that_do_not_resume(void) {
    pair p;
    relay r;
    const crust_event *e;
    REQUIRE_OR(connect_through(&p, &r, 1), pair_free(&p));
    relay_cut(&r);
    while ((e = inbox_next(&p.b, PATIENCE_MS)) != NULL && e->type != CRUST_EVENT_LOST) CHECK(e->type != CRUST_EVENT_SUSPENDED);
    CHECK(e && e->code == CRUST_ERR_RESET && e->count == 0);
    pair_free(&p);
    relay_end(&r);
}

static void receipts(void) {
    pair p;
    crust_peer_id nobody;
    const crust_event *e;
    uint64_t token;
    int lost = 0, told = 0;
    REQUIRE_OR(pair_make(&p), pair_free(&p));
    memset(&nobody, 3, sizeof nobody);
    CHECK_CODE(CRUST_ERR_INVALID, crust_send_receipt(p.a.service, NULL, "x", 1, 0, 1));
    CHECK_CODE(CRUST_ERR_INVALID, crust_send_receipt(p.a.service, &p.id_b, NULL, 1, 0, 1));
    CHECK_CODE(CRUST_ERR_UNKNOWN_PEER, crust_send_receipt(p.a.service, &nobody, "x", 1, 0, 1));
    for (token = 1; token <= 100; token++) CHECK_CODE(CRUST_OK, crust_send_receipt(p.a.service, &p.id_b, "x", 1, 1, token));
    for (token = 1; token <= 100; token++) {
        e = inbox_await(&p.a, CRUST_EVENT_DELIVERED);
        if (!e || !CHECK(e->token == token)) break;
        CHECK(e->code == CRUST_OK && e->text == NULL && e->peer && memcmp(e->peer, &p.id_b, sizeof p.id_b) == 0);
        if (!CHECK(inbox_await(&p.b, CRUST_EVENT_MESSAGE) != NULL)) break;
    }
    /* A session that ends first: each receipt has a last word all the same. */
    for (token = 101; token <= 110; token++) CHECK_CODE(CRUST_OK, crust_send_receipt(p.a.service, &p.id_b, "x", 1, 1, token));
    CHECK_CODE(CRUST_OK, crust_disconnect(p.b.service, &p.id_a));
    while (!lost || told < 10) {
        e = inbox_next(&p.a, PATIENCE_MS);
        if (!CHECK(e != NULL)) break;
        if (e->type == CRUST_EVENT_LOST) lost = 1;
        if (e->type != CRUST_EVENT_DELIVERED) continue;
        CHECK(e->token == (uint64_t)(101 + told));
        CHECK((e->code == CRUST_OK) == (e->text == NULL));
        told++;
    }
    pair_free(&p);
}

const tap_test resume_tests[] = {
    {"sessions outlive their links", sessions_outlive_their_links},
    {"sessions that do not resume", sessions_that_do_not_resume},
    {"each receipt has one answer", receipts},
};
const size_t resume_count = sizeof resume_tests / sizeof resume_tests[0];
