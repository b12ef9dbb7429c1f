//go:build ignore
// The line above keeps the Go package of this directory from compiling a C program.

/*
 * driver.c - the conformance driver of the C ABI: poll mode, with the service's
 * descriptor and standard input in one poll(2). Windows has neither: there a
 * thread reads the input, and the rest waits for events for a moment at a time.
 *
 *   driver NETWORKNAME [LISTEN...]
 *
 * Commands come one a line, answers go one a line, events are handled meanwhile:
 * info, connect INFO, pattern PEER COUNT SIZE PRIORITY, verify PEER COUNT SIZE,
 * toobig PEER, disconnect PEER, quit.
 */
#include <crust.h>

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#ifdef _WIN32
#  include <io.h>
#  include <windows.h>
#else
#  include <poll.h>
#endif

/* A message that arrived and was checked against the pattern on arrival. */
typedef struct arrival {
    struct arrival *next;
    uint64_t        size;
    int64_t         wrong_at; /* the first byte that differs, -1 for none */
} arrival;

/* A pattern or verify command in progress. */
typedef struct job {
    struct job *next;
    uint64_t    count, done;
    size_t      size;
    uint8_t     priority;
} job;

/* One peer. Numbers run on across commands and sessions. */
typedef struct peer {
    struct peer  *next;
    crust_peer_id id;
    char          name[CRUST_PEER_ID_TEXT];
    uint64_t      next_sent, next_received, next_verified;
    job          *sending, *verifying;
    arrival      *first, **end;
    int           blocked; /* a WRITABLE will come */
} peer;

static crust_service service;
static peer *peers;
static int stopped, closing;
static int starting; /* listeners that have not started */

static void say(const char *format, ...) {
    va_list args;
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
    if (fflush(stdout) != 0) exit(1);
}

static void say_error(crust_result r) { say("error %s %s", crust_error_name(r), crust_last_error()); }

static void *grab(size_t size) {
    void *p = calloc(1, size);
    if (!p) {
        fprintf(stderr, "driver: no memory\n");
        exit(1);
    }
    return p;
}

static uint8_t pattern_byte(uint64_t number, uint64_t i) { return (uint8_t)(number * 31 + i * 7 + 3); }

static peer *peer_of(const crust_peer_id *id) {
    peer *p;
    for (p = peers; p; p = p->next) {
        if (memcmp(&p->id, id, sizeof *id) == 0) return p;
    }
    p = (peer *)grab(sizeof *p);
    p->id = *id;
    p->end = &p->first;
    crust_peer_id_format(id, p->name);
    p->next = peers;
    peers = p;
    return p;
}

static void add_job(job **list, uint64_t count, size_t size, uint8_t priority) {
    job *j = (job *)grab(sizeof *j);
    j->count = count;
    j->size = size;
    j->priority = priority;
    while (*list) list = &(*list)->next;
    *list = j;
}

static void drop_job(job **list) {
    job *j = *list;
    *list = j->next;
    free(j);
}

/* ---- base64url without padding ---- */

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static char *encode(const uint8_t *data, size_t len) {
    char *out = (char *)grab(len / 3 * 4 + 5), *o = out;
    size_t i;
    for (i = 0; i < len; i += 3) {
        size_t left = len - i < 3 ? len - i : 3, k;
        uint32_t v = (uint32_t)data[i] << 16 | (left > 1 ? (uint32_t)data[i + 1] << 8 : 0) | (left > 2 ? data[i + 2] : 0);
        for (k = 0; k <= left; k++) *o++ = digits[v >> (18 - 6 * k) & 63];
    }
    return out;
}

/* Returns the bytes and their number, NULL for what is no base64url. */
static uint8_t *decode(const char *text, size_t *len) {
    size_t n = strlen(text), i;
    uint8_t *out = (uint8_t *)grab(n * 3 / 4 + 3);
    uint32_t v = 0;
    int bits = 0;
    *len = 0;
    for (i = 0; i < n; i++) {
        const char *d = strchr(digits, text[i]);
        if (!d) {
            free(out);
            return NULL;
        }
        v = v << 6 | (uint32_t)(d - digits);
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            out[(*len)++] = (uint8_t)(v >> bits);
        }
    }
    return out;
}

/* ---- sending and verifying ---- */

/* Sends what the queue takes. One message at a time: the pattern is what is
 * tested here, not speed. */
static void pump(peer *p) {
    while (p->sending && !p->blocked) {
        job *j = p->sending;
        uint8_t *data = (uint8_t *)grab(j->size + 1);
        crust_result r = CRUST_OK;
        while (j->done < j->count) {
            size_t i;
            for (i = 0; i < j->size; i++) data[i] = pattern_byte(p->next_sent, i);
            r = crust_send(service, &p->id, data, j->size, j->priority);
            if (r != CRUST_OK) break;
            p->next_sent++;
            j->done++;
        }
        free(data);
        if (r == CRUST_ERR_WOULD_BLOCK) {
            p->blocked = 1;
            return;
        }
        if (r != CRUST_OK) say_error(r);
        else say("sent %llu", (unsigned long long)j->count);
        drop_job(&p->sending);
    }
}

static void arrived(peer *p, const crust_event *e) {
    arrival *a = (arrival *)grab(sizeof *a);
    uint64_t i, number = p->next_received++;
    a->size = e->len;
    a->wrong_at = -1;
    for (i = 0; i < e->len && a->wrong_at < 0; i++) {
        if (e->data[i] != pattern_byte(number, i)) a->wrong_at = (int64_t)i;
    }
    *p->end = a;
    p->end = &a->next;
}

/* Answers verify commands for which everything has arrived. */
static void settle(peer *p) {
    while (p->verifying) {
        job *j = p->verifying;
        while (j->done < j->count && p->first) {
            arrival *a = p->first;
            unsigned long long number = (unsigned long long)p->next_verified;
            if (a->size != j->size) {
                say("error message %llu has %llu bytes, want %llu", number, (unsigned long long)a->size, (unsigned long long)j->size);
            } else if (a->wrong_at >= 0) {
                say("error message %llu differs at byte %lld", number, (long long)a->wrong_at);
            } else {
                j->done++;
            }
            p->next_verified++;
            p->first = a->next;
            if (!p->first) p->end = &p->first;
            if (a->size != j->size || a->wrong_at >= 0) {
                free(a);
                drop_job(&p->verifying);
                j = NULL;
                break;
            }
            free(a);
        }
        if (!j) continue;
        if (j->done < j->count) return;
        say("verified %llu", (unsigned long long)j->count);
        drop_job(&p->verifying);
    }
}

/* ---- events ---- */

static void on_event(const crust_event *e) {
    peer *p = e->peer ? peer_of(e->peer) : NULL;
    crust_peer_id own;
    char name[CRUST_PEER_ID_TEXT];
    char *text;
    switch (e->type) {
    case CRUST_EVENT_LISTENER_STARTED:
        if (--starting == 0 && crust_service_id(service, &own) == CRUST_OK && crust_peer_id_format(&own, name) == CRUST_OK) say("ready %s", name);
        break;
    case CRUST_EVENT_LISTENER_FAILED: say("error %s %s", crust_error_name(e->code), e->text); break;
    case CRUST_EVENT_CONNECTION_INFO:
        text = encode(e->data, (size_t)e->len);
        say("info %s", text);
        free(text);
        break;
    case CRUST_EVENT_CONNECTED: say("connected %s %.*s", p->name, (int)strcspn(e->endpoint, ":"), e->endpoint); break;
    case CRUST_EVENT_ALREADY_CONNECTED: say("error already connected to %s", p->name); break;
    case CRUST_EVENT_CONNECT_FAILED: say("connect_failed %s %s", crust_error_name(e->code), e->text ? e->text : ""); break;
    case CRUST_EVENT_MESSAGE: arrived(p, e); break;
    case CRUST_EVENT_WRITABLE: p->blocked = 0; break;
    case CRUST_EVENT_LOST:
        p->blocked = 0;
        say("lost %s %s", p->name, crust_error_name(e->code));
        break;
    case CRUST_EVENT_STOPPED: stopped = 1; break;
    default: break; /* a later version's events mean nothing here */
    }
}

/* Takes all events there are. When there are none, it waits for some, not longer
 * than the time given. */
static void take_events(int32_t timeout_ms) {
    for (;;) {
        crust_batch *batch = NULL;
        size_t n = 0, i;
        crust_result r = crust_poll(service, 0, timeout_ms, &batch);
        const crust_event *events = crust_batch_events(batch, &n);
        if (r < 0 && r != CRUST_ERR_CLOSED) say_error(r);
        for (i = 0; i < n; i++) on_event(&events[i]);
        crust_batch_free(batch);
        if (r <= 0) return;
        timeout_ms = 0;
    }
}

/* ---- commands ---- */

static int number(const char *text, uint64_t limit, uint64_t *out) {
    char *end = NULL;
    unsigned long long v;
    if (!text || !*text || *text == '-') return 0;
    errno = 0;
    v = strtoull(text, &end, 10);
    *out = v;
    return errno == 0 && *end == 0 && v <= limit;
}

static void do_connect(const char *word) {
    size_t len = 0;
    uint8_t *info = word ? decode(word, &len) : NULL;
    crust_result r;
    if (!info) {
        say("error invalid connect wants connection info in base64url");
        return;
    }
    r = crust_connect(service, info, len, 1);
    if (r != CRUST_OK) say("connect_failed %s %s", crust_error_name(r), crust_last_error());
    free(info);
}

static void do_toobig(const crust_peer_id *id) {
    size_t size = (size_t)CRUST_MAX_MESSAGE + 1;
    void *data = grab(size);
    crust_result r = crust_send(service, id, data, size, 1);
    if (r == CRUST_OK) say("error accepted a message of %lu bytes", (unsigned long)size);
    else say("refused %s", crust_error_name(r));
    free(data);
}

static void close_service(void) {
    if (closing) return;
    closing = 1;
    crust_service_close(service);
}

/* Commands whose first argument is a peer. */
static void command_for(const crust_peer_id *id, char **words) {
    uint64_t count = 0, size = 0, priority = 0;
    peer *p = peer_of(id);
    if (strcmp(words[0], "toobig") == 0) {
        do_toobig(id);
    } else if (strcmp(words[0], "disconnect") == 0) {
        crust_result r = crust_disconnect(service, id);
        if (r != CRUST_OK) say_error(r);
    } else if (!number(words[2], UINT32_MAX, &count) || !number(words[3], CRUST_MAX_MESSAGE, &size)) {
        say("error invalid %s wants PEER COUNT SIZE", words[0]);
    } else if (strcmp(words[0], "verify") == 0) {
        add_job(&p->verifying, count, (size_t)size, 0);
    } else if (!number(words[4], 255, &priority)) {
        say("error invalid pattern wants PEER COUNT SIZE PRIORITY");
    } else {
        add_job(&p->sending, count, (size_t)size, (uint8_t)priority);
    }
}

static void command(char *line) {
    static const char *const with_peer[] = {"pattern", "verify", "toobig", "disconnect"};
    char *words[6] = {NULL, NULL, NULL, NULL, NULL, NULL}, *rest = NULL, *word;
    crust_peer_id id;
    size_t n = 0;
    for (word = strtok_r(line, " \t\r", &rest); word && n < 6; word = strtok_r(NULL, " \t\r", &rest)) words[n++] = word;
    if (n == 0) return;
    if (strcmp(words[0], "quit") == 0) {
        close_service();
        return;
    }
    if (strcmp(words[0], "info") == 0) {
        crust_result r = crust_prepare_connection_info(service, 1);
        if (r != CRUST_OK) say_error(r);
        return;
    }
    if (strcmp(words[0], "connect") == 0) {
        do_connect(words[1]);
        return;
    }
    for (n = 0; n < sizeof with_peer / sizeof with_peer[0]; n++) {
        if (strcmp(words[0], with_peer[n]) != 0) continue;
        if (crust_peer_id_parse(words[1], &id) != CRUST_OK) say("error invalid %s wants a peer id of 64 hexadecimal digits", words[0]);
        else command_for(&id, words);
        return;
    }
    say("error invalid unknown command %s", words[0]);
}

/* ---- input ---- */

#ifdef _WIN32

static char   piece[4096]; /* what the thread has read */
static LONG   have = -1;   /* how many bytes that is, 0 at the end of input, -1 for none yet */
static HANDLE emptied;     /* the thread may read on */

static DWORD WINAPI read_on(LPVOID unused) {
    int n;
    (void)unused;
    do {
        n = read(0, piece, sizeof piece);
        InterlockedExchange(&have, n < 0 ? 0 : n);
    } while (n > 0 && WaitForSingleObject(emptied, INFINITE) == WAIT_OBJECT_0);
    return 0;
}

/* Prepares for input, and lets lines end as they do elsewhere. */
static int begin(void) {
    emptied = CreateEvent(NULL, FALSE, FALSE, NULL);
    return emptied && _setmode(0, _O_BINARY) != -1 && _setmode(1, _O_BINARY) != -1 && CreateThread(NULL, 0, read_on, NULL, 0, NULL);
}

/* What read(2) of standard input would do without blocking. */
static ssize_t input(char *to, size_t room) {
    static LONG taken;
    LONG n = InterlockedCompareExchange(&have, 0, 0), some;
    if (n < 0) {
        errno = EAGAIN;
        return -1;
    }
    some = (size_t)(n - taken) < room ? n - taken : (LONG)room;
    memcpy(to, piece + taken, (size_t)some);
    taken += some;
    if (n > 0 && taken == n) {
        taken = 0;
        InterlockedExchange(&have, -1);
        SetEvent(emptied);
    }
    return some;
}

#else

static intptr_t fd = -1;

static int begin(void) {
    return crust_service_fd(service, &fd) == CRUST_OK && fcntl(0, F_SETFL, fcntl(0, F_GETFL) | O_NONBLOCK) == 0;
}

static ssize_t input(char *to, size_t room) { return read(0, to, room); }

#endif

/* Reads what there is and does each whole line. Returns 0 at the end of input. */
static int read_commands(void) {
    static char buffer[1 << 16];
    static size_t used;
    char *end;
    ssize_t n = input(buffer + used, sizeof buffer - 1 - used);
    if (n < 0) return errno == EAGAIN || errno == EINTR;
    if (n == 0) return 0;
    used += (size_t)n;
    buffer[used] = 0;
    while ((end = strchr(buffer, '\n')) != NULL) {
        *end = 0;
        command(buffer);
        used -= (size_t)(end + 1 - buffer);
        memmove(buffer, end + 1, used + 1);
    }
    if (used == sizeof buffer - 1) {
        say("error invalid a line of over %lu bytes", (unsigned long)used);
        used = 0;
    }
    return 1;
}

static int start(const char *network, char **listen, int count) {
    crust_config *config = NULL;
    int i;
    crust_result r = crust_config_new(&config);
    if (r == CRUST_OK) r = crust_config_set_str(config, CRUST_OPT_NETWORK_NAME, network);
    for (i = 0; i < count && r == CRUST_OK; i++) r = crust_config_add_listener(config, listen[i]);
    starting = count;
    if (r == CRUST_OK) r = crust_service_new(config, NULL, &service);
    crust_config_free(config);
    return r == CRUST_OK;
}

#ifdef _WIN32

/* Waits for something to do and does it. Returns 0 when it cannot. */
static int turn(void) {
    take_events(5);
    if (!closing && !read_commands()) close_service();
    return 1;
}

#else

static int turn(void) {
    struct pollfd wait[2];
    wait[0].fd = (int)fd;
    wait[1].fd = closing ? -1 : 0;
    wait[0].events = wait[1].events = POLLIN;
    wait[0].revents = wait[1].revents = 0;
    if (poll(wait, 2, -1) < 0 && errno != EINTR) return 0;
    if (wait[0].revents) take_events(0);
    if (wait[1].revents && !read_commands()) close_service();
    return 1;
}

#endif

int main(int argc, char **argv) {
    char usual[] = "tcp://127.0.0.1:0", *alone[] = {usual};
    peer *p;
    if (argc < 2) {
        fprintf(stderr, "usage: driver NETWORKNAME [LISTEN...]\n");
        return 2;
    }
    if (crust_abi_version() != CRUST_ABI_VERSION || !start(argv[1], argc > 2 ? argv + 2 : alone, argc > 2 ? argc - 2 : 1) || !begin()) {
        fprintf(stderr, "driver: %s\n", crust_last_error());
        return 1;
    }
    while (!stopped) {
        if (!turn()) return 1;
        for (p = peers; p; p = p->next) {
            pump(p);
            settle(p);
        }
    }
    if (crust_service_free(service) != CRUST_OK) return 1;
    say("bye");
    return 0;
}
