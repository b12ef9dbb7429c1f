/*
 * signal.c - the descriptor that a program waits on in its own loop. Setting
 * and clearing never block and never fail in a way that matters: a full pipe is
 * readable, which is all that is wanted.
 */
#if defined(__linux__) && !defined(_GNU_SOURCE)
#  define _GNU_SOURCE
#endif
#include "shim_internal.h"

#if defined(_WIN32)

int  crust__signal_open(int fds[2]) { fds[0] = fds[1] = -1; return -1; }
void crust__signal_set(const int fds[2]) { (void)fds; }
int  crust__signal_clear(const int fds[2]) { (void)fds; return 0; }
void crust__signal_close(const int fds[2]) { (void)fds; }

#else

#  include <errno.h>
#  include <fcntl.h>
#  include <unistd.h>
#  if defined(__linux__)
#    include <sys/eventfd.h>
#  endif

int crust__signal_open(int fds[2]) {
#  if defined(__linux__)
    fds[0] = fds[1] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return fds[0] < 0 ? errno : 0;
#  else
    int i;
    if (pipe(fds) != 0) return errno;
    for (i = 0; i < 2; i++) {
        if (fcntl(fds[i], F_SETFD, FD_CLOEXEC) < 0 || fcntl(fds[i], F_SETFL, O_NONBLOCK) < 0) {
            int e = errno;
            crust__signal_close(fds);
            return e;
        }
    }
    return 0;
#  endif
}

void crust__signal_set(const int fds[2]) {
    uint64_t one = 1;
    while (write(fds[1], &one, sizeof one) < 0 && errno == EINTR) {}
}

int crust__signal_clear(const int fds[2]) {
    uint64_t count;
    ssize_t n;
    do n = read(fds[0], &count, sizeof count);
    while (n < 0 && errno == EINTR);
    return n > 0; /* never is more than one write under way, see poll.go */
}

void crust__signal_close(const int fds[2]) {
    if (fds[0] >= 0) close(fds[0]);
    if (fds[1] >= 0 && fds[1] != fds[0]) close(fds[1]);
}

#endif
