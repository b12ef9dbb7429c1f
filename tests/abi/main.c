/*
 * The runner: all areas, or those named as arguments. With --child it is a
 * process of one purpose, for area_process.c.
 */
#if !defined(_GNU_SOURCE)
#  define _GNU_SOURCE
#endif
#include "host.h"
#include "tap.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int child(const char *purpose) {
    pair p;
    if (!pair_make(&p)) return 98;
    if (strcmp(purpose, "sigpipe") == 0) {
        int fds[2];
        signal(SIGPIPE, SIG_DFL);
        if (pipe(fds) != 0) return 97;
        close(fds[0]);
        if (write(fds[1], "x", 1) == 1) return 96;
        return 95; /* the write should have ended us */
    }
    if (strcmp(purpose, "sigint") == 0) {
        raise(SIGINT);
        return 95;
    }
    exit(7); /* with two services alive */
}

int main(int argc, char **argv) {
    if (argc == 3 && strcmp(argv[1], "--child") == 0) return child(argv[2]);
    tap_area("smoke", smoke_tests, smoke_count, argc, argv);
    tap_area("version", version_tests, version_count, argc, argv);
    tap_area("config", config_tests, config_count, argc, argv);
    tap_area("argument", argument_tests, argument_count, argc, argv);
    tap_area("life", life_tests, life_count, argc, argv);
    tap_area("poll", poll_tests, poll_count, argc, argv);
    tap_area("exchange", exchange_tests, exchange_count, argc, argv);
    tap_area("udp", udp_tests, udp_count, argc, argv);
    tap_area("resume", resume_tests, resume_count, argc, argv);
    tap_area("callback", callback_tests, callback_count, argc, argv);
    tap_area("process", process_tests, process_count, argc, argv);
    return tap_done();
}
