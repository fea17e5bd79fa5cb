/* backend.h - what store.c asks of a database. Calls never overlap: store.c holds a lock. */
#ifndef MUSTER_STORE_BACKEND_H
#define MUSTER_STORE_BACKEND_H

#include "store/store.h"

struct store_backend {
    /* Opens, applies migrations, raises the generation. Takes whatever keeps a second head out. */
    int (*open)(void **db, const char *path, uint64_t *generation, struct error *err);
    void (*close)(void *db); /* NULL is fine */
    /* All batches in one transaction, in order, durable when it returns 0; else none of them. */
    int (*commit)(void *db, struct batch *const *batches, size_t count, struct error *err);
    int (*load)(void *db, store_row_fn *fn, void *arg, uint64_t *set_aside, struct error *err);
    /* After a failed commit: whether rows can be written again. */
    int (*recover)(void *db, struct error *err);
};

extern const struct store_backend store_sqlite;

#endif
