/* The process around the library: fork, signals, unloading, threads. */
#include "calls.h"
#include "host.h"
#include "tap.h"

#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* In the child of a fork: every function refuses, the pure ones work, nothing hangs. */
static void forked_child(crust_service s, crust_batch *batch) {
    crust_config *config = (crust_config *)(uintptr_t)77;
    crust_service fresh = 1;
    crust_peer_id id;
    uint8_t seed[CRUST_SEED_SIZE];
    const void *base = NULL;
    size_t n = 0;
    alarm(20);
    check_calls(s, CRUST_ERR_FORKED, CRUST_ERR_FORKED);
    CHECK_TEXT("forked");
    CHECK_CODE(CRUST_ERR_FORKED, crust_service_close(s));
    CHECK_CODE(CRUST_ERR_FORKED, crust_service_free(s));
    CHECK_CODE(CRUST_ERR_FORKED, crust_service_id(s, &id));
    CHECK_CODE(CRUST_ERR_FORKED, crust_service_new(NULL, NULL, &fresh));
    CHECK_CODE(CRUST_ERR_FORKED, crust_config_new(&config));
    CHECK_CODE(CRUST_ERR_FORKED, crust_config_set_u64(config, CRUST_OPT_ROLE, 0));
    CHECK_CODE(CRUST_ERR_FORKED, crust_identity_generate(seed, &id));
    CHECK_CODE(CRUST_ERR_FORKED, crust_connection_info_peer("x", 1, &id));
    crust_config_free(config);
    CHECK(strcmp(crust_error_name(CRUST_ERR_FORKED), "forked") == 0);
    CHECK(crust_abi_version() == CRUST_ABI_VERSION);
    CHECK(crust_peer_id_parse("00", &id) == CRUST_ERR_INVALID);
    CHECK(crust_batch_events(batch, &n) != NULL && n == 1);
    CHECK_CODE(CRUST_OK, crust_batch_memory(batch, &base, &n));
    crust_batch_free(batch);
}

static void forking(void) {
    crust_service s = loopback_service(NULL);
    crust_batch *batch = NULL;
    crust_peer_id id;
    int status = -1;
    pid_t child;
    REQUIRE(s != 0);
    REQUIRE(crust_poll(s, PATIENCE_MS, 1, &batch) == 1);
    child = fork();
    if (child == 0) {
        int before = tap_failures();
        forked_child(s, batch);
        _exit(tap_failures() == before ? 0 : 1);
    }
    REQUIRE(child > 0);
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    /* The parent goes on as if nothing had been. */
    CHECK_CODE(CRUST_OK, crust_service_id(s, &id));
    crust_batch_free(batch);
    CHECK_CODE(CRUST_OK, crust_service_free(s));
}

static volatile sig_atomic_t interrupts;
static void on_interrupt(int number) {
    (void)number;
    interrupts++;
}

static void dispositions_are_kept(void) {
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGPIPE, SIGCHLD, SIGUSR1, SIGALRM};
    struct sigaction mine, before[7], after;
    pair p;
    int i, made;
    memset(&mine, 0, sizeof mine);
    mine.sa_handler = on_interrupt;
    mine.sa_flags = SA_RESTART;
    sigaction(SIGINT, &mine, NULL);
    mine.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &mine, NULL);
    for (i = 0; i < 7; i++) sigaction(numbers[i], NULL, &before[i]);
    made = CHECK(pair_make(&p));
    if (made) {
        CHECK_CODE(CRUST_OK, crust_send(p.a.service, &p.id_b, "x", 1, 1));
        CHECK(inbox_await(&p.b, CRUST_EVENT_MESSAGE) != NULL);
    }
    pair_free(&p);
    for (i = 0; i < 7; i++) {
        sigaction(numbers[i], NULL, &after);
        CHECK(after.sa_handler == before[i].sa_handler);
    }
    interrupts = 0;
    raise(SIGINT);
    CHECK(interrupts == 1);
    {
        int fds[2];
        REQUIRE(pipe(fds) == 0);
        close(fds[0]);
        CHECK(write(fds[1], "x", 1) == -1); /* and the process lives */
        close(fds[1]);
    }
}

/* Runs this program again as a child of one purpose, see main.c. */
static int run_child(const char *purpose) {
    int status = -1;
    pid_t child = fork();
    if (child == 0) {
        execl("/proc/self/exe", "runner", "--child", purpose, (char *)NULL);
        _exit(99);
    }
    if (child < 0 || waitpid(child, &status, 0) != child) return -1;
    return status;
}

static void default_signals_still_end_the_process(void) {
    int status = run_child("sigpipe");
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGPIPE);
    status = run_child("sigint");
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGINT);
}

static void exit_with_a_live_service(void) {
    int64_t start = now_ms();
    int status = run_child("exit");
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7);
    CHECK(now_ms() - start < 2000);
}

static void unloading_does_nothing(void) {
    crust_service s = loopback_service(NULL);
    crust_peer_id id;
    Dl_info where;
    void *handle;
    union {
        uint32_t (CRUST_CALL *function)(void);
        void *object;
    } address;
    int i;
    REQUIRE(s != 0);
    address.function = crust_abi_version;
    REQUIRE(dladdr(address.object, &where) != 0);
    for (i = 0; i < 3; i++) {
        handle = dlopen(where.dli_fname, RTLD_NOW);
        REQUIRE(handle != NULL);
        CHECK(dlclose(handle) == 0);
    }
    CHECK_CODE(CRUST_OK, crust_service_id(s, &id));
    CHECK_CODE(CRUST_OK, crust_service_free(s));
}

typedef struct worker {
    crust_service service;
    crust_peer_id peer;
    int           failures;
} worker;

static void *short_call(void *arg) {
    worker *w = (worker *)arg;
    w->failures = crust_send_wait(w->service, &w->peer, "thread", 6, 1, PATIENCE_MS) != CRUST_OK;
    return NULL;
}

static void many_short_threads_call(void) {
    enum { ROUNDS = 20, THREADS = 32 };
    pair p;
    worker w[THREADS];
    pthread_t threads[THREADS];
    int round, i, received;
    REQUIRE_OR(pair_make(&p), pair_free(&p));
    for (round = 0; round < ROUNDS; round++) {
        for (i = 0; i < THREADS; i++) {
            w[i].service = p.a.service;
            w[i].peer = p.id_b;
            REQUIRE(pthread_create(&threads[i], NULL, short_call, &w[i]) == 0);
        }
        for (i = 0; i < THREADS; i++) {
            pthread_join(threads[i], NULL);
            CHECK(w[i].failures == 0);
        }
    }
    for (received = 0; received < ROUNDS * THREADS; received++) {
        if (!inbox_await(&p.b, CRUST_EVENT_MESSAGE)) break;
    }
    CHECK(received == ROUNDS * THREADS);
    pair_free(&p);
}

const tap_test process_tests[] = {
    {"a forked child is refused and does not hang", forking},
    {"signal dispositions are kept", dispositions_are_kept},
    {"signals that end a process still do", default_signals_still_end_the_process},
    {"exit with a live service", exit_with_a_live_service},
    {"dlclose does nothing", unloading_does_nothing},
    {"many short-lived threads call", many_short_threads_call},
};
const size_t process_count = sizeof process_tests / sizeof process_tests[0];
