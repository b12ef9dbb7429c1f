/*
 * peer.c - the C half of the demo: one service of libcrust in callback mode.
 *
 * It is led line by line over standard input and answers on standard output;
 * demo.py, the Python half, is at the other end of that pipe. Everything else
 * the two say to each other goes over libcrust, or over plain TCP for comparison.
 *
 *   it says               it is told
 *   id HEX                info HEX       connect to the peer that made this info
 *   info HEX              greet TEXT     send a text message
 *   connected HEX         send           send the whole buffer, then: time S, digest HEX
 *   heard TEXT            receive        fill the whole buffer, then: digest HEX
 *   ready                 tcp            listen for plain TCP, then: port N
 *   port N                tcp-send, tcp-receive   as above, over plain TCP
 *   time SECONDS          quit
 *   digest HEX
 *   error TEXT            (and status 1)
 */
#define _POSIX_C_SOURCE 200809L
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "crust.h"
#include "sha256.h"

enum { CHUNK = 65536, PATIENCE = 120 };

/* What the library's thread and the main thread share, under the mutex. */
static struct {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    crust_peer_id peer;
    int connected, lost, answered, heard;
    char greeting[256];
    char *info; /* hexadecimal */
    uint8_t *buffer;
    size_t size, filled; /* filled == size unless a stream is being received */
} shared = {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static crust_service service;

static void tell(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
    fflush(stdout);
}

static void die(const char *what, const char *why)
{
    tell("error %s: %s", what, why);
    exit(1);
}

static void check(crust_result result, const char *what)
{
    if (result < 0)
        die(what, crust_last_error());
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static char *to_hex(const uint8_t *data, size_t len)
{
    char *text = malloc(2 * len + 1);
    if (text == NULL)
        die("hexadecimal", "out of memory");
    for (size_t i = 0; i < len; i++)
        sprintf(text + 2 * i, "%02x", data[i]);
    text[2 * len] = 0;
    return text;
}

/* on_message runs on the library's thread with the mutex held. */
static void on_message(const crust_event *event)
{
    if (shared.filled < shared.size) { /* a piece of the stream */
        size_t room = shared.size - shared.filled, len = event->len < room ? (size_t)event->len : room;
        memcpy(shared.buffer + shared.filled, event->data, len);
        shared.filled += len;
        if (shared.filled == shared.size && crust_send(service, &shared.peer, "all", 3, 0) < 0)
            shared.lost = 1;
    } else if (event->len == 3 && memcmp(event->data, "all", 3) == 0) {
        shared.answered = 1;
    } else {
        size_t len = event->len < sizeof shared.greeting ? (size_t)event->len : sizeof shared.greeting - 1;
        memcpy(shared.greeting, event->data, len);
        shared.greeting[len] = 0;
        shared.heard = 1;
    }
}

/* on_events is called by the library with a batch of events, on its own thread. */
static void CRUST_CALL on_events(void *user, crust_service from, const crust_event *events, size_t n)
{
    (void)user;
    (void)from;
    pthread_mutex_lock(&shared.mutex);
    for (size_t i = 0; i < n; i++) {
        const crust_event *event = &events[i];
        switch (event->type) {
        case CRUST_EVENT_MESSAGE:
            on_message(event);
            break;
        case CRUST_EVENT_CONNECTION_INFO:
            shared.info = to_hex(event->data, (size_t)event->len);
            break;
        case CRUST_EVENT_CONNECTED:
            shared.peer = *event->peer;
            shared.connected = 1;
            break;
        case CRUST_EVENT_LISTENER_STARTED:
            check(crust_prepare_connection_info(service, 1), "connection info");
            break;
        case CRUST_EVENT_LISTENER_FAILED:
        case CRUST_EVENT_CONNECT_FAILED:
            die("libcrust", event->text ? event->text : crust_strerror(event->code));
            break;
        case CRUST_EVENT_LOST:
            shared.lost = 1;
            break;
        default:
            break;
        }
    }
    pthread_cond_broadcast(&shared.changed);
    pthread_mutex_unlock(&shared.mutex);
}

static int have_info(void) { return shared.info != NULL; }
static int have_peer(void) { return shared.connected; }
static int have_greeting(void) { return shared.heard; }
static int have_answer(void) { return shared.answered; }
static int have_all(void) { return shared.filled == shared.size; }

/* await returns when the condition holds. The mutex is not held by the caller. */
static void await(int (*condition)(void), const char *what)
{
    struct timespec limit;
    clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_sec += PATIENCE;
    pthread_mutex_lock(&shared.mutex);
    while (!condition() && !shared.lost)
        if (pthread_cond_timedwait(&shared.changed, &shared.mutex, &limit) != 0)
            break;
    int held = condition();
    pthread_mutex_unlock(&shared.mutex);
    if (!held)
        die(what, shared.lost ? "the peer was lost" : "nothing came in two minutes");
}

/* fill writes bytes that do not compress (xorshift64). */
static void fill(void)
{
    uint64_t x = 0x9e3779b97f4a7c15u ^ (uint64_t)getpid();
    for (size_t i = 0; i < shared.size; i += sizeof x) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        memcpy(shared.buffer + i, &x, sizeof x);
    }
}

static void tell_digest(void)
{
    char text[65];
    sha256_hex(shared.buffer, shared.size, text);
    tell("digest %s", text);
}

static void do_send(void)
{
    fill();
    shared.answered = 0;
    tell("ready");
    double begin = now();
    for (size_t at = 0; at < shared.size; at += CHUNK)
        check(crust_send_wait(service, &shared.peer, shared.buffer + at, CHUNK, 1, PATIENCE * 1000), "send");
    await(have_answer, "send");
    tell("time %.9f", now() - begin);
    tell_digest();
}

static void do_receive(void)
{
    memset(shared.buffer, 0, shared.size); /* its pages are real before the clock runs */
    pthread_mutex_lock(&shared.mutex);
    shared.filled = 0;
    pthread_mutex_unlock(&shared.mutex);
    tell("ready");
    await(have_all, "receive");
    tell_digest();
}

static int tcp_accept(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof address;
    int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, len) != 0 || listen(listener, 1) != 0 ||
        getsockname(listener, (struct sockaddr *)&address, &len) != 0)
        die("tcp", "cannot listen on 127.0.0.1");
    tell("port %d", ntohs(address.sin_port));
    int stream = accept(listener, NULL, NULL);
    close(listener);
    if (stream < 0)
        die("tcp", "nobody connected");
    setsockopt(stream, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return stream;
}

static void tcp_write(int stream, const uint8_t *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(stream, data, len);
        if (n <= 0)
            die("tcp", "the stream broke");
        data += n;
        len -= (size_t)n;
    }
}

static void tcp_read(int stream, uint8_t *data, size_t len)
{
    while (len > 0) {
        ssize_t n = read(stream, data, len < CHUNK ? len : CHUNK);
        if (n <= 0)
            die("tcp", "the stream broke");
        data += n;
        len -= (size_t)n;
    }
}

static void do_tcp_send(int stream)
{
    uint8_t answer;
    fill();
    tell("ready");
    double begin = now();
    for (size_t at = 0; at < shared.size; at += CHUNK)
        tcp_write(stream, shared.buffer + at, CHUNK);
    tcp_read(stream, &answer, 1);
    tell("time %.9f", now() - begin);
    tell_digest();
}

static void do_tcp_receive(int stream)
{
    memset(shared.buffer, 0, shared.size);
    tell("ready");
    tcp_read(stream, shared.buffer, shared.size);
    tcp_write(stream, (const uint8_t *)"!", 1);
    tell_digest();
}

static void do_connect(const char *hex)
{
    uint8_t info[4096];
    size_t len = strlen(hex) / 2;
    unsigned byte;
    if (len > sizeof info)
        die("info", "too long");
    for (size_t i = 0; i < len; i++) {
        if (sscanf(hex + 2 * i, "%2x", &byte) != 1)
            die("info", "not hexadecimal");
        info[i] = (uint8_t)byte;
    }
    check(crust_connect(service, info, len, 2), "connect");
    await(have_peer, "connect");
    char text[CRUST_PEER_ID_TEXT];
    check(crust_peer_id_format(&shared.peer, text), "peer id");
    tell("connected %s", text);
}

static void start(const char *network)
{
    crust_config *config;
    crust_callbacks callbacks = {.struct_size = sizeof callbacks, .on_events = on_events};
    crust_peer_id id;
    char text[CRUST_PEER_ID_TEXT];
    if (crust_abi_version() != CRUST_ABI_VERSION)
        die("libcrust", "the library is of another ABI version than the header");
    check(crust_config_new(&config), "configuration");
    check(crust_config_set_str(config, CRUST_OPT_NETWORK_NAME, network), "network name");
    check(crust_config_set_str(config, CRUST_OPT_APP_ID, "demo in C"), "app id");
    check(crust_config_add_listener(config, "tcp://127.0.0.1:0"), "listener");
    /* Events may come before crust_service_new returns: they wait for the handle. */
    pthread_mutex_lock(&shared.mutex);
    check(crust_service_new(config, &callbacks, &service), "service");
    pthread_mutex_unlock(&shared.mutex);
    crust_config_free(config);
    check(crust_service_id(service, &id), "id");
    check(crust_peer_id_format(&id, text), "peer id");
    tell("id %s", text);
    await(have_info, "connection info");
    tell("info %s", shared.info);
}

int main(int argc, char **argv)
{
    char line[8300];
    int stream = -1;
    if (argc != 3) {
        fprintf(stderr, "usage: peer NETWORK MIB\n");
        return 2;
    }
    shared.size = shared.filled = (size_t)strtoul(argv[2], NULL, 10) << 20;
    shared.buffer = malloc(shared.size);
    if (shared.buffer == NULL || shared.size == 0)
        die("buffer", "no memory of that size");
    start(argv[1]);
    while (fgets(line, sizeof line, stdin) != NULL) {
        line[strcspn(line, "\n")] = 0;
        if (strncmp(line, "info ", 5) == 0) {
            do_connect(line + 5);
        } else if (strncmp(line, "greet ", 6) == 0) {
            check(crust_send(service, &shared.peer, line + 6, strlen(line + 6), 0), "greet");
            await(have_greeting, "greeting");
            tell("heard %s", shared.greeting);
        } else if (strcmp(line, "send") == 0) {
            do_send();
        } else if (strcmp(line, "receive") == 0) {
            do_receive();
        } else if (strcmp(line, "tcp") == 0) {
            stream = tcp_accept();
        } else if (strcmp(line, "tcp-send") == 0) {
            do_tcp_send(stream);
        } else if (strcmp(line, "tcp-receive") == 0) {
            do_tcp_receive(stream);
        } else if (strcmp(line, "quit") == 0) {
            break;
        } else {
            die("unknown command", line);
        }
    }
    if (stream >= 0)
        close(stream);
    check(crust_service_free(service), "close");
    free(shared.info);
    free(shared.buffer);
    tell("bye");
    return 0;
}
