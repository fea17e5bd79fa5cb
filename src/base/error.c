/* error.c - filling in struct error. */
#include "base/error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

int error_setv(struct error *err, enum error_code code, const char *fmt, va_list ap)
{
    if (err) {
        err->code = code;
        vsnprintf(err->text, sizeof err->text, fmt, ap);
    }
    return -1;
}

int error_set(struct error *err, enum error_code code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    error_setv(err, code, fmt, ap);
    va_end(ap);
    return -1;
}

int error_sys(struct error *err, const char *fmt, ...)
{
    int saved = errno;
    if (err) {
        va_list ap;
        va_start(ap, fmt);
        error_setv(err, ERR_IO, fmt, ap);
        va_end(ap);
        size_t len = strlen(err->text);
        snprintf(err->text + len, sizeof err->text - len, ": %s", strerror(saved));
    }
    errno = saved;
    return -1;
}

int error_prefix(struct error *err, const char *fmt, ...)
{
    if (err) {
        char old[sizeof err->text];
        memcpy(old, err->text, sizeof old);
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(err->text, sizeof err->text, fmt, ap);
        va_end(ap);
        size_t len = strlen(err->text);
        snprintf(err->text + len, sizeof err->text - len, ": %.*s", (int)(sizeof old - 1), old);
    }
    return -1;
}

const char *error_word(int code)
{
    static const char *const words[] = {
#define X(name, word) word,
        ERROR_CODES(X)
#undef X
    };
    if (code < 0 || (size_t)code >= sizeof words / sizeof words[0])
        return "unknown";
    return words[code];
}
