/* A program as a user of the installed library would write it: two services of
 * one process meet, one says a word, the other repeats it. The argument is where
 * they listen, by default tcp://127.0.0.1:0. Ends with 0. */
#include <stdio.h>
#include <string.h>

#include <crust.h>

static int fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, crust_last_error());
    return 1;
}

/* Takes events of one service until one of the type wanted came, and handles it. */
static int take(crust_service service, crust_event_type wanted, crust_service other, char *heard)
{
    for (int tries = 0; tries < 100; tries++) {
        crust_batch *batch;
        size_t n;
        int found = 0;
        if (crust_poll(service, 1000, 1, &batch) < 0)
            return fail("poll");
        const crust_event *events = crust_batch_events(batch, &n);
        for (size_t i = 0; i < n; i++) {
            found |= events[i].type == wanted;
            if (events[i].type == CRUST_EVENT_CONNECTION_INFO &&
                crust_connect(other, events[i].data, (size_t)events[i].len, 2) < 0)
                return fail("connect");
            if (events[i].type == CRUST_EVENT_CONNECTED && heard == NULL &&
                crust_send(service, events[i].peer, "installed", 9, 0) < 0)
                return fail("send");
            if (events[i].type == CRUST_EVENT_MESSAGE && heard != NULL && events[i].len < 32)
                memcpy(heard, events[i].data, (size_t)events[i].len);
        }
        crust_batch_free(batch);
        if (found)
            return 0;
    }
    fprintf(stderr, "event %u did not come\n", (unsigned)wanted);
    return 1;
}

int main(int argc, char **argv)
{
    crust_config *config;
    crust_service a, b;
    char heard[32] = "";
    if (crust_config_new(&config) < 0 || crust_config_add_listener(config, argc > 1 ? argv[1] : "tcp://127.0.0.1:0") < 0 ||
        crust_config_set_str(config, CRUST_OPT_NETWORK_NAME, "install test") < 0)
        return fail("configuration");
    if (crust_service_new(config, NULL, &a) < 0 || crust_service_new(config, NULL, &b) < 0)
        return fail("service");
    crust_config_free(config);
    if (take(a, CRUST_EVENT_LISTENER_STARTED, b, NULL) || crust_prepare_connection_info(a, 1) < 0 ||
        take(a, CRUST_EVENT_CONNECTION_INFO, b, NULL) || take(b, CRUST_EVENT_CONNECTED, a, NULL) ||
        take(a, CRUST_EVENT_MESSAGE, b, heard))
        return 1;
    if (crust_service_free(a) < 0 || crust_service_free(b) < 0)
        return fail("free");
    printf("libcrust %s: %s\n", crust_version_string(), heard);
    return strcmp(heard, "installed") != 0;
}
