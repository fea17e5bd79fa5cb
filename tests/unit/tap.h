/* tap.h - the few lines a C unit test needs to speak TAP to prove(1).
 *
 * `ok(cond, "sentence")` counts one test; a failed one prints file and line. `is_str` and
 * `is_int` also print both values. End main() with `return tap_done();`. */
#ifndef MUSTER_TESTS_TAP_H
#define MUSTER_TESTS_TAP_H

#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int tap_count, tap_failed;

#define ok(cond, ...) tap_ok((cond) ? true : false, __FILE__, __LINE__, #cond, __VA_ARGS__)
#define is_int(got, want, ...)                                                                               \
    do {                                                                                                     \
        long long g_ = (long long)(got), w_ = (long long)(want);                                             \
        if (!tap_ok(g_ == w_, __FILE__, __LINE__, #got " == " #want, __VA_ARGS__))                           \
            printf("#   got %lld, want %lld\n", g_, w_);                                                     \
    } while (0)
#define is_str(got, want, ...)                                                                               \
    do {                                                                                                     \
        const char *g_ = (got), *w_ = (want);                                                                \
        if (!tap_ok(g_ && w_ ? !strcmp(g_, w_) : g_ == w_, __FILE__, __LINE__, #got " eq " #want,            \
                    __VA_ARGS__))                                                                            \
            printf("#   got \"%s\", want \"%s\"\n", g_ ? g_ : "(null)", w_ ? w_ : "(null)");                 \
    } while (0)

__attribute__((format(printf, 5, 6))) static inline bool tap_ok(bool good, const char *file, int line,
                                                                const char *expr, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    printf("%sok %d - %s\n", good ? "" : "not ", ++tap_count, text);
    if (!good) {
        tap_failed++;
        printf("#   failed: %s at %s:%d\n", expr, file, line);
    }
    fflush(stdout);
    return good;
}

static inline int tap_done(void)
{
    printf("1..%d\n", tap_count);
    return tap_failed ? 1 : 0;
}

#endif
