/*
 * Events by callback. Each service has one thread of the library, which calls
 * on_events; main only starts the services and waits. Bob connects to Alice, she sends
 * her inventory as ten messages, he closes when he has the last one.
 *
 *     cc -o callbacks callbacks.c $(pkg-config --cflags --libs crust) -pthread
 *     ./callbacks [ENDPOINT]        where both listen, by default tcp://127.0.0.1:0
 */
#include <crust.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MESSAGES = 10 };

/* What a callback needs comes by its user pointer. */
struct program {
    const char     *name;
    struct program *other;
    crust_service   service;
    int             heard;
};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t  changed = PTHREAD_COND_INITIALIZER;
static int             released; /* under lock */

static crust_result check(const char *what, crust_result result) {
    if (result < 0) {
        fprintf(stderr, "%s: %s\n", what, crust_last_error());
        exit(1);
    }
    return result;
}

static void send_inventory(crust_service service, const crust_peer_id *peer) {
    for (int i = 1; i <= MESSAGES; i++) {
        char line[32];
        int  len = snprintf(line, sizeof line, "item %d of %d", i, MESSAGES);
        check("send", crust_send(service, peer, line, (size_t)len, 1));
    }
}

/* Runs on one thread of the library, and never twice at once for a service. It may call
 * everything but crust_poll, crust_send_wait and crust_service_free; what takes long
 * belongs elsewhere, because meanwhile events queue up. */
static void on_events(void *user, crust_service service, const crust_event *events, size_t n) {
    struct program *self = user;
    for (size_t i = 0; i < n; i++) {
        const crust_event *event = &events[i];
        if (event->type == CRUST_EVENT_CONNECTION_INFO) {
            check("connect", crust_connect(self->other->service, event->data, (size_t)event->len, 2));
        } else if (event->type == CRUST_EVENT_CONNECTED && strcmp(self->name, "alice") == 0) {
            send_inventory(service, event->peer);
        } else if (event->type == CRUST_EVENT_MESSAGE) {
            printf("%s: %.*s\n", self->name, (int)event->len, (const char *)event->data);
            if (++self->heard == MESSAGES) check("close", crust_service_close(service)); /* STOPPED follows */
        } else if (event->type == CRUST_EVENT_LOST) { /* Bob is gone */
            if (strcmp(self->name, "alice") == 0) check("close", crust_service_close(service));
        } else if (event->type == CRUST_EVENT_CONNECT_FAILED || event->type == CRUST_EVENT_LISTENER_FAILED) {
            fprintf(stderr, "%s: %s\n", self->name, event->text);
            exit(1);
        }
    }
}

/* The very last call for a service: nobody uses the user pointer any more. */
static void on_release(void *user) {
    (void)user;
    pthread_mutex_lock(&lock);
    released++;
    pthread_cond_signal(&changed);
    pthread_mutex_unlock(&lock);
}

int main(int argc, char **argv) {
    struct program  alice = {.name = "alice"}, bob = {.name = "bob"};
    crust_callbacks callbacks = {.struct_size = sizeof callbacks, .on_events = on_events, .on_release = on_release};
    crust_config   *config;
    alice.other = &bob;
    bob.other = &alice;

    check("config", crust_config_new(&config));
    check("config", crust_config_set_str(config, CRUST_OPT_NETWORK_NAME, "example"));
    check("config", crust_config_add_listener(config, argc > 1 ? argv[1] : "tcp://127.0.0.1:0"));
    callbacks.user = &bob;
    check("new", crust_service_new(config, &callbacks, &bob.service));
    callbacks.user = &alice;
    check("new", crust_service_new(config, &callbacks, &alice.service));
    crust_config_free(config);
    /* Answers when the listeners have started. */
    check("prepare", crust_prepare_connection_info(alice.service, 1));

    pthread_mutex_lock(&lock);
    while (released < 2) pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
    check("free", crust_service_free(alice.service));
    check("free", crust_service_free(bob.service));
    return bob.heard != MESSAGES;
}
