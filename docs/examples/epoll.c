/*
 * One thread, one epoll loop, any number of services and other descriptors: here two
 * services that find each other by connection info, and a timer at each tick of
 * which Alice sends a word. Bob answers. After three answers the loop ends.
 *
 *     cc -o epoll epoll.c $(pkg-config --cflags --libs crust)
 *     ./epoll [ENDPOINT]        where both listen, by default tcp://127.0.0.1:0
 */
#include <crust.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { ROUNDS = 3, TICK_MS = 20, PATIENCE_MS = 20000 };

struct peer {
    const char   *name;
    crust_service service;
    int           fd;
};
static struct peer   alice = {.name = "alice"}, bob = {.name = "bob"};
static crust_peer_id bob_id;
static int           connected, answers;

static void die(const char *what, const char *why) {
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

static crust_result check(const char *what, crust_result result) {
    if (result < 0) die(what, crust_last_error());
    return result;
}

static void handle(struct peer *self, const crust_event *event) {
    switch (event->type) {
    case CRUST_EVENT_LISTENER_STARTED:
        if (self == &alice) check("prepare", crust_prepare_connection_info(self->service, 1));
        break;
    case CRUST_EVENT_CONNECTION_INFO: /* real programs send these bytes to the other one somehow */
        check("connect", crust_connect(bob.service, event->data, (size_t)event->len, 2));
        break;
    case CRUST_EVENT_CONNECTED:
        if (self == &alice) {
            bob_id = *event->peer; /* what an event points to is gone with its batch */
            connected = 1;
        }
        break;
    case CRUST_EVENT_MESSAGE:
        printf("%s: %.*s\n", self->name, (int)event->len, (const char *)event->data);
        if (self == &bob)
            check("send", crust_send(self->service, event->peer, "tock", 4, 0));
        else
            answers++;
        break;
    case CRUST_EVENT_LISTENER_FAILED:
    case CRUST_EVENT_CONNECT_FAILED:
    case CRUST_EVENT_LOST:
        die(self->name, event->text);
        break;
    default: /* there are more, and later versions bring others */
        break;
    }
}

/* The descriptor stays readable while events wait: one batch each time is enough. */
static void take(struct peer *self) {
    crust_batch *batch;
    size_t       n;
    check("poll", crust_poll(self->service, 0, 0, &batch));
    const crust_event *events = crust_batch_events(batch, &n);
    for (size_t i = 0; i < n; i++) handle(self, &events[i]);
    crust_batch_free(batch);
}

static void tick(int timer) {
    uint64_t times;
    if (read(timer, &times, sizeof times) != sizeof times || !connected) return;
    crust_result result = crust_send(alice.service, &bob_id, "tick", 4, 0);
    if (result != CRUST_ERR_WOULD_BLOCK) check("send", result); /* full: the next tick tries again */
}

static void watch(int loop, int fd, struct peer *peer) {
    struct epoll_event want = {.events = EPOLLIN, .data.ptr = peer};
    if (epoll_ctl(loop, EPOLL_CTL_ADD, fd, &want) < 0) die("epoll_ctl", strerror(errno));
}

static void start(struct peer *self, crust_config *config, int loop) {
    intptr_t fd;
    check("new", crust_service_new(config, NULL, &self->service)); /* NULL: poll mode */
    check("fd", crust_service_fd(self->service, &fd));
    self->fd = (int)fd;
    watch(loop, self->fd, self);
}

int main(int argc, char **argv) {
    crust_config     *config;
    int               loop = epoll_create1(EPOLL_CLOEXEC), timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    struct itimerspec every = {{0, TICK_MS * 1000000L}, {0, TICK_MS * 1000000L}};
    if (loop < 0 || timer < 0 || timerfd_settime(timer, 0, &every, NULL) < 0) die("setup", strerror(errno));
    watch(loop, timer, NULL);

    check("config", crust_config_new(&config));
    check("config", crust_config_set_str(config, CRUST_OPT_NETWORK_NAME, "example"));
    check("config", crust_config_add_listener(config, argc > 1 ? argv[1] : "tcp://127.0.0.1:0"));
    start(&alice, config, loop);
    start(&bob, config, loop);
    crust_config_free(config);

    for (int ticks = 0; answers < ROUNDS;) {
        struct epoll_event ready[8];
        int                n = epoll_wait(loop, ready, 8, PATIENCE_MS);
        if (n < 0 && errno != EINTR) die("epoll_wait", strerror(errno));
        for (int i = 0; i < n; i++) {
            struct peer *peer = ready[i].data.ptr;
            if (peer) {
                take(peer);
            } else {
                if (++ticks > PATIENCE_MS / TICK_MS) die("timer", "nobody answers");
                tick(timer);
            }
        }
    }
    check("free", crust_service_free(alice.service)); /* the descriptors are the services' own */
    check("free", crust_service_free(bob.service));
    close(timer);
    close(loop);
    return 0;
}
