/* mem.h - allocation that never returns NULL: out of memory ends the process (the
 * supervisor restarts it; all state that matters is in the store or in attempt folders). */
#ifndef MUSTER_BASE_MEM_H
#define MUSTER_BASE_MEM_H

#include <stddef.h>

void *xmalloc(size_t size);                /* uninitialised */
void *xcalloc(size_t count, size_t size);  /* zeroed; overflow of the product aborts */
void *xrealloc(void *p, size_t size);      /* p may be NULL */
char *xstrdup(const char *s);              /* s must not be NULL */
char *xstrndup(const char *s, size_t max); /* at most max bytes, terminated */
void *xmemdup(const void *p, size_t size); /* size 0 gives a valid pointer */
char *xasprintf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Grows an array so that it can hold `need` items of `size` bytes: *cap is in items. */
void *xgrow(void *array, size_t *cap, size_t need, size_t size);

#endif
