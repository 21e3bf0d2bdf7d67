/* Another wall clock for a process: LD_PRELOAD this, with MOZART_CLOCK=<seconds off>:<percent too fast>, or MOZART_CLOCK_FILE, a file whose
 * first eight bytes say how many seconds it is off from now on. Clocks that never go back are left alone. Built by the tests with
 * `cc -shared -fPIC`. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const long long SECOND = 1000000000LL;
static long long off, percent, since;
static const volatile long long *jump;

static int ask(clockid_t clock, struct timespec *at) {
    return (int)syscall(SYS_clock_gettime, clock, at);
}

__attribute__((constructor)) static void begin(void) {
    const char *given = getenv("MOZART_CLOCK");
    struct timespec now;
    if (given && sscanf(given, "%lld:%lld", &off, &percent) >= 1 && !ask(CLOCK_REALTIME, &now))
        since = now.tv_sec * SECOND + now.tv_nsec;
    const char *path = getenv("MOZART_CLOCK_FILE");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file >= 0) {
        void *page = mmap(NULL, sizeof *jump, PROT_READ, MAP_SHARED, file, 0);
        if (page != MAP_FAILED)
            jump = page;
        close(file);
    }
}

int clock_gettime(clockid_t clock, struct timespec *at) {
    int failed = ask(clock, at);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        long long real = at->tv_sec * SECOND + at->tv_nsec;
        long long shown = real + off * SECOND + (real - since) / 100 * percent;
        if (jump)
            shown += *jump * SECOND;
        at->tv_sec = shown / SECOND;
        at->tv_nsec = shown % SECOND;
    }
    return failed;
}

int gettimeofday(struct timeval *at, void *zone) {
    struct timespec now;
    (void)zone;
    if (!clock_gettime(CLOCK_REALTIME, &now)) {
        at->tv_sec = now.tv_sec;
        at->tv_usec = now.tv_nsec / 1000;
    }
    return 0;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at)
        *at = now.tv_sec;
    return now.tv_sec;
}
