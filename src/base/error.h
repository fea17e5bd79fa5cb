/* error.h - an error is a code for programs and one line of text for people.
 *
 * A function that can fail takes `struct error *err` as its last parameter,
 * returns -1 or NULL, and fills it. `err` may be NULL where the caller does not
 * care. The text names the thing, the value and what was expected; it carries no
 * newline and no program name: the caller adds those.
 */
#ifndef MUSTER_BASE_ERROR_H
#define MUSTER_BASE_ERROR_H

#include <stdarg.h>

/* The codes travel on the wire as numbers: append, never reorder. The second
 * column is what --json prints. */
#define ERROR_CODES(X)                                                                                       \
    X(ERR_NONE, "none")                                                                                      \
    X(ERR_USAGE, "usage")             /* an option or field has an impossible value: exit 2 */               \
    X(ERR_NOT_FOUND, "not-found")     /* no such job, task, node, group */                                   \
    X(ERR_DENIED, "denied")           /* the caller may not */                                               \
    X(ERR_STATE, "state")             /* not in this state */                                                \
    X(ERR_EXISTS, "exists")           /* already there */                                                    \
    X(ERR_LIMIT, "limit")             /* too many, too long, too big */                                      \
    X(ERR_IO, "io")                   /* the system refused: file, socket */                                 \
    X(ERR_PROTOCOL, "protocol")       /* the other end sent what it must not */                              \
    X(ERR_UNAVAILABLE, "unavailable") /* not now: no head, store full, shutting down */                      \
    X(ERR_VERSION, "version")         /* made by a newer or unknown version */                               \
    X(ERR_TIMEOUT, "timeout")                                                                                \
    X(ERR_INTERNAL, "internal")

enum error_code {
#define X(name, word) name,
    ERROR_CODES(X)
#undef X
};

struct error {
    enum error_code code;
    char text[512];
};

/* Fills `err` (when not NULL) and returns -1, so `return error_set(...)` is one line. */
int error_set(struct error *err, enum error_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
int error_setv(struct error *err, enum error_code code, const char *fmt, va_list ap);

/* As error_set() with ERR_IO, and ": " + strerror(errno) appended. Keeps errno. */
int error_sys(struct error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Puts "<prefix>: " before the text that is there. Returns -1. */
int error_prefix(struct error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The word of a code ("not-found"); "unknown" for a number outside the table. Static storage. */
const char *error_word(int code);

#endif
