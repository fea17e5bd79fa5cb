/* buf.h - a growable byte string.
 *
 * Invariants: data is never NULL once anything was added and then data[len] == 0, so a buf
 * of text can be handed out as a C string; len excludes that zero. `struct buf b = BUF_INIT;`
 * is a valid empty buf. buf_free() makes it BUF_INIT again.
 */
#ifndef MUSTER_BASE_BUF_H
#define MUSTER_BASE_BUF_H

#include <stdarg.h>
#include <stddef.h>

struct buf {
    char *data;
    size_t len;
    size_t cap;
};
#define BUF_INIT                                                                                             \
    {                                                                                                        \
        NULL, 0, 0                                                                                           \
    }

void buf_free(struct buf *b);
void buf_reset(struct buf *b);                             /* len = 0, memory kept */
void buf_add(struct buf *b, const void *data, size_t len); /* append bytes */
void buf_adds(struct buf *b, const char *s);               /* append a C string */
void buf_addc(struct buf *b, char c);
void buf_addf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buf_addv(struct buf *b, const char *fmt, va_list ap);
char *buf_reserve(struct buf *b,
                  size_t room);            /* at least `room` writable bytes at data+len; then buf_added() */
void buf_added(struct buf *b, size_t len); /* that many of them were written */
void buf_consume(struct buf *b, size_t len); /* drop the first len bytes */
const char *buf_str(const struct buf *b);    /* "" when empty; valid until the next change */
char *buf_detach(struct buf *b);             /* the caller frees it; b is empty after */

#endif
