#include "tap.h"
#include "crust.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int failures_of_test;
static int tests_run, tests_failed;

int tap_failed(const char *file, int line, const char *format, ...) {
    const char *name = strrchr(file, '/');
    va_list args;
    pthread_mutex_lock(&lock);
    failures_of_test++;
    printf("# %s:%d: ", name ? name + 1 : file, line);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n");
    fflush(stdout);
    pthread_mutex_unlock(&lock);
    return 0;
}

int tap_failures(void) {
    int n;
    pthread_mutex_lock(&lock);
    n = failures_of_test;
    pthread_mutex_unlock(&lock);
    return n;
}

int tap_code(const char *file, int line, const char *call, int want, int got) {
    if (got != want)
        return tap_failed(file, line, "%s = %d %s, want %d %s; last error: %s", call, got, crust_error_name(got), want, crust_error_name(want), crust_last_error());
    if (got < 0 && (!crust_last_error()[0] || strchr(crust_last_error(), '\n')))
        return tap_failed(file, line, "%s = %s without one clear sentence: \"%s\"", call, crust_error_name(got), crust_last_error());
    return 1;
}

int tap_text(const char *file, int line, const char *part) {
    if (strstr(crust_last_error(), part)) return 1;
    return tap_failed(file, line, "the last error \"%s\" does not contain \"%s\"", crust_last_error(), part);
}

void tap_area(const char *area, const tap_test *tests, size_t n, int argc, char **argv) {
    size_t i;
    int wanted = argc < 2, a;
    for (a = 1; a < argc; a++) wanted = wanted || strcmp(argv[a], area) == 0;
    if (!wanted) return;
    for (i = 0; i < n; i++) {
        int failed;
        pthread_mutex_lock(&lock);
        failures_of_test = 0;
        pthread_mutex_unlock(&lock);
        tests[i].run();
        pthread_mutex_lock(&lock);
        failed = failures_of_test > 0;
        tests_run++;
        tests_failed += failed;
        printf("%sok %d - %s: %s\n", failed ? "not " : "", tests_run, area, tests[i].name);
        fflush(stdout);
        pthread_mutex_unlock(&lock);
    }
}

int tap_done(void) {
    printf("1..%d\n", tests_run);
    return tests_failed > 0 || tests_run == 0;
}
