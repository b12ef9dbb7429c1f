/*
 * tap.h - a test runner that prints TAP. A test is a function; CHECK notes a
 * failure and goes on, REQUIRE notes it and leaves the test. Both are C99 and
 * C++11.
 */
#ifndef TAP_H
#define TAP_H

#include <stddef.h>

typedef struct tap_test {
    const char *name;
    void (*run)(void);
} tap_test;

/* Notes a failure of the running test; any thread. Returns 0. */
int tap_failed(const char *file, int line, const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 3, 4)))
#endif
    ;

#define CHECK(condition) ((condition) ? 1 : tap_failed(__FILE__, __LINE__, "%s", #condition))
#define REQUIRE(condition)            \
    do {                              \
        if (!CHECK(condition)) return; \
    } while (0)
#define REQUIRE_OR(condition, cleanup) \
    do {                               \
        if (!CHECK(condition)) {       \
            cleanup;                   \
            return;                    \
        }                              \
    } while (0)
/* The code must be the one wanted, and a failure must have left a sentence. */
#define CHECK_CODE(want, call) tap_code(__FILE__, __LINE__, #call, (want), (call))
#define REQUIRE_CODE(want, call)            \
    do {                                    \
        if (!CHECK_CODE(want, call)) return; \
    } while (0)
/* crust_last_error of this thread must contain the text. */
#define CHECK_TEXT(part) tap_text(__FILE__, __LINE__, (part))

int tap_code(const char *file, int line, const char *call, int want, int got);
int tap_text(const char *file, int line, const char *part);

/* Runs the tests of an area whose name is among the arguments, or all when there
 * are none. */
void tap_area(const char *area, const tap_test *tests, size_t n, int argc, char **argv);
/* How many checks of the running test have failed. */
int tap_failures(void);
/* Prints the plan; the exit code of the program. */
int tap_done(void);

/* Each area is one file. */
extern const tap_test version_tests[], config_tests[], argument_tests[], life_tests[], poll_tests[], exchange_tests[],
    callback_tests[], process_tests[], smoke_tests[], udp_tests[], resume_tests[];
extern const size_t version_count, config_count, argument_count, life_count, poll_count, exchange_count, callback_count,
    process_count, smoke_count, udp_count, resume_count;

#endif
