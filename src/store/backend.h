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
extern const struct store_backend store_postgres; /* where it is built in: STORE_POSTGRES */

/* How rows of a kind are found, and the table they are in. */
enum store_key { KEY_ID, KEY_ID_SUB, KEY_NAME };
enum store_key store_key(enum row_kind kind);
extern const char *const store_tables[ROW_KIND_COUNT];

/* Rows to set aside: they are moved after their table was read. */
struct aside {
    struct aside_row {
        uint64_t id;
        uint32_t sub;
        char *name, *error;
    } * rows;
    size_t count, cap;
};
void aside_add(struct aside *aside, const struct row *row, const char *error);
void aside_free(struct aside *aside);

#endif
