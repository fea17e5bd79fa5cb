/* buf.c - a growable byte string. */
#include "base/buf.h"
#include "base/mem.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void buf_free(struct buf *b)
{
    free(b->data);
    *b = (struct buf)BUF_INIT;
}

void buf_reset(struct buf *b)
{
    b->len = 0;
    if (b->data)
        b->data[0] = 0;
}

char *buf_reserve(struct buf *b, size_t room)
{
    b->data = xgrow(b->data, &b->cap, b->len + room + 1, 1);
    b->data[b->len] = 0; /* a string even if nothing follows */
    return b->data + b->len;
}

void buf_added(struct buf *b, size_t len)
{
    assert(b->data && b->len + len < b->cap);
    b->len += len;
    b->data[b->len] = 0;
}

void buf_add(struct buf *b, const void *data, size_t len)
{
    char *at = buf_reserve(b, len);
    if (len)
        memcpy(at, data, len);
    buf_added(b, len);
}

void buf_adds(struct buf *b, const char *s)
{
    buf_add(b, s, strlen(s));
}

void buf_addc(struct buf *b, char c)
{
    buf_add(b, &c, 1);
}

void buf_addv(struct buf *b, const char *fmt, va_list ap)
{
    va_list again;
    va_copy(again, ap);
    int len = vsnprintf(NULL, 0, fmt, again);
    va_end(again);
    assert(len >= 0);
    char *at = buf_reserve(b, (size_t)len);
    vsnprintf(at, (size_t)len + 1, fmt, ap);
    buf_added(b, (size_t)len);
}

void buf_addf(struct buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    buf_addv(b, fmt, ap);
    va_end(ap);
}

void buf_consume(struct buf *b, size_t len)
{
    assert(len <= b->len);
    if (!len)
        return;
    memmove(b->data, b->data + len, b->len - len);
    b->len -= len;
    b->data[b->len] = 0;
}

const char *buf_str(const struct buf *b)
{
    return b->data ? b->data : "";
}

char *buf_detach(struct buf *b)
{
    char *s = b->data ? b->data : xstrdup("");
    *b = (struct buf)BUF_INIT;
    return s;
}
