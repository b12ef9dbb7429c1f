/*
 * msg64.c - how many small messages pass from a C program to a C program.
 *
 *   msg64 [MESSAGES [SIZE [RUNS]]]      (5,000,000 of 64 bytes, 5 runs)
 *
 * Two processes on loopback, both in poll mode. The sender hands over batches as
 * fast as they are accepted and waits for WRITABLE when one is refused; the
 * receiver counts what its batches bring and answers one message when all have
 * arrived. A run lasts from the first crust_send_batch to the answer; one shorter
 * run before the first warms up. Prints one line of JSON.
 *
 * Build: cc -O2 msg64.c $(pkg-config --cflags --libs crust)
 */
#if !defined(_GNU_SOURCE)
#  define _GNU_SOURCE
#endif
#include <crust.h>

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NETWORK "msg64"
#define BATCH 256

static void die(const char *what) {
    fprintf(stderr, "msg64: %s: %s\n", what, crust_last_error());
    exit(1);
}

static void need(crust_result r, const char *what) {
    if (r < 0) die(what);
}

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static crust_service make_service(void) {
    crust_config *config = NULL;
    crust_service service = 0;
    need(crust_config_new(&config), "config");
    need(crust_config_set_str(config, CRUST_OPT_NETWORK_NAME, NETWORK), "network name");
    need(crust_config_add_listener(config, "tcp://127.0.0.1:0"), "listener");
    need(crust_service_new(config, NULL, &service), "service");
    crust_config_free(config);
    return service;
}

/* Waits for an event of a type and copies its data and peer. */
static size_t await(crust_service service, crust_event_type type, uint8_t *data, size_t room, crust_peer_id *peer) {
    for (;;) {
        crust_batch *batch = NULL;
        const crust_event *e;
        size_t n = 0, i, len = 0;
        int found = 0;
        need(crust_poll(service, -1, 1, &batch), "poll");
        e = crust_batch_events(batch, &n);
        for (i = 0; i < n; i++) {
            if (e[i].type == CRUST_EVENT_CONNECT_FAILED || e[i].type == CRUST_EVENT_LOST) {
                fprintf(stderr, "msg64: %s\n", e[i].text ? e[i].text : "the session was lost");
                exit(1);
            }
            if (e[i].type != type) continue;
            found = 1;
            len = (size_t)e[i].len;
            if (data && len <= room && len > 0) memcpy(data, e[i].data, len);
            if (peer && e[i].peer) *peer = *e[i].peer;
        }
        crust_batch_free(batch);
        if (found) return len;
    }
}

/* The receiver: its info goes to standard output, then it counts until its peer
 * has gone. A message's first 8 bytes say how many messages make a run. */
static int receive(void) {
    crust_service service = make_service();
    uint8_t info[4096];
    uint64_t got = 0;
    size_t len;
    need(crust_prepare_connection_info(service, 1), "info");
    len = await(service, CRUST_EVENT_CONNECTION_INFO, info, sizeof info, NULL);
    if (fwrite(&len, sizeof len, 1, stdout) != 1 || fwrite(info, 1, len, stdout) != len || fflush(stdout) != 0) return 1;
    for (;;) {
        crust_batch *batch = NULL;
        const crust_event *e;
        size_t n = 0, i;
        need(crust_poll(service, -1, 0, &batch), "poll");
        e = crust_batch_events(batch, &n);
        for (i = 0; i < n; i++) {
            if (e[i].type == CRUST_EVENT_LOST) {
                crust_batch_free(batch);
                need(crust_service_free(service), "free");
                return 0;
            }
            if (e[i].type != CRUST_EVENT_MESSAGE) continue;
            got++;
            if (e[i].len >= sizeof(uint64_t)) {
                uint64_t want;
                memcpy(&want, e[i].data, sizeof want);
                if (got == want) {
                    need(crust_send(service, e[i].peer, &got, sizeof got, 0), "answer");
                    got = 0;
                }
            }
        }
        crust_batch_free(batch);
    }
}

static double run(crust_service service, const crust_peer_id *peer, uint64_t messages, size_t size) {
    static crust_message batch[BATCH];
    uint8_t *data = calloc(1, size);
    uint64_t sent = 0;
    double start;
    size_t i;
    if (!data) return 0;
    memcpy(data, &messages, sizeof messages);
    for (i = 0; i < BATCH; i++) {
        memset(&batch[i], 0, sizeof batch[i]);
        batch[i].peer = peer;
        batch[i].data = data;
        batch[i].len = size;
        batch[i].priority = 1;
    }
    start = seconds();
    while (sent < messages) {
        crust_result why = CRUST_OK;
        crust_result n = crust_send_batch(service, batch, messages - sent < BATCH ? (size_t)(messages - sent) : BATCH, &why);
        need(n, "send");
        sent += (uint64_t)n;
        if (why == CRUST_ERR_WOULD_BLOCK) await(service, CRUST_EVENT_WRITABLE, NULL, 0, NULL);
        else need(why, "send");
    }
    await(service, CRUST_EVENT_MESSAGE, NULL, 0, NULL);
    free(data);
    return (double)messages / (seconds() - start);
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static pid_t start_receiver(FILE **out) {
    int fds[2];
    pid_t child;
    if (pipe(fds) != 0) die("pipe");
    child = fork();
    if (child == 0) {
        dup2(fds[1], 1);
        close(fds[0]);
        close(fds[1]);
        execl("/proc/self/exe", "msg64", "--receive", (char *)NULL);
        _exit(127);
    }
    close(fds[1]);
    *out = fdopen(fds[0], "r");
    if (child < 0 || !*out) die("cannot start the receiver");
    return child;
}

int main(int argc, char **argv) {
    uint64_t messages = argc > 1 ? strtoull(argv[1], NULL, 10) : 5000000;
    size_t size = argc > 2 ? strtoul(argv[2], NULL, 10) : 64;
    int runs = argc > 3 ? atoi(argv[3]) : 5, i, status = 1;
    double rates[99], sorted[99];
    uint8_t info[4096];
    size_t len = 0;
    crust_service service;
    crust_peer_id peer;
    FILE *from;
    pid_t child;
    if (argc > 1 && strcmp(argv[1], "--receive") == 0) return receive();
    if (messages == 0 || size < 8 || size > CRUST_MAX_MESSAGE || runs < 1 || runs > 99) {
        fprintf(stderr, "usage: msg64 [MESSAGES [SIZE [RUNS]]], SIZE from 8 to %u, RUNS from 1 to 99\n", CRUST_MAX_MESSAGE);
        return 2;
    }
    child = start_receiver(&from);
    if (fread(&len, sizeof len, 1, from) != 1 || len > sizeof info || fread(info, 1, len, from) != len) {
        fprintf(stderr, "msg64: the receiver gave no connection info\n");
        return 1;
    }
    service = make_service();
    need(crust_connect(service, info, len, 1), "connect");
    await(service, CRUST_EVENT_CONNECTED, NULL, 0, &peer);
    run(service, &peer, messages / 10 + 1, size);
    for (i = 0; i < runs; i++) rates[i] = run(service, &peer, messages, size);
    need(crust_service_free(service), "free");
    fclose(from);
    if (waitpid(child, &status, 0) != child || status != 0) {
        fprintf(stderr, "msg64: the receiver failed\n");
        return 1;
    }
    memcpy(sorted, rates, sizeof sorted);
    qsort(sorted, (size_t)runs, sizeof sorted[0], by_value);
    printf("{\"transport\":\"secure-tcp\",\"test\":\"msg%lu-c\",\"value\":%.0f,\"unit\":\"msg/s\",\"runs\":[", (unsigned long)size, sorted[runs / 2]);
    for (i = 0; i < runs; i++) printf("%s%.0f", i ? "," : "", rates[i]);
    printf("]}\n");
    return 0;
}
