/* store.h - durability: rows in, rows out, on a thread of its own.
 *
 * The head hands over one batch per loop turn with store_put() and goes on; the store's thread
 * commits batches in order, several at once in one transaction when they have piled up, and
 * says through a descriptor that it got further. A batch that store_durable() covers survives
 * any crash (SQLite: WAL, synchronous=FULL).
 *
 * After a failed commit (full disk, I/O error) the store is *stuck*: that batch and all after it
 * are dropped and reported as failed, nothing is written until store_recover() has committed a
 * probe. The head then rebuilds its core from store_load().
 *
 * The same few functions stand before each backend (backend.h): sqlite.c, and postgres.c where it is
 * built in (meson option `postgres`).
 */
#ifndef MUSTER_STORE_STORE_H
#define MUSTER_STORE_STORE_H

#include "base/error.h"
#include "core/core.h"

#include <stdbool.h>
#include <stdint.h>

struct store;

/* Opens `path` (a file, made if absent, mode 0600; or "postgresql://..."), applies migrations, raises the
 * generation in one transaction and gives it back in *generation. Takes a lock: a second head is refused
 * (ERR_EXISTS). A store from a newer version is refused (ERR_VERSION) and left untouched. */
int store_open(struct store **store, const char *path, uint64_t *generation, struct error *err);

/* Commits what is queued, ends the thread, closes. NULL is fine. */
void store_close(struct store *store);

/* Reads every row, in no fixed order, on the caller's thread (call before the first put, or after
 * store_recover()). `fn` returning -1 with an error sets that row aside: it is moved to the table
 * `quarantine` with the error's text, and the loading goes on. The row is borrowed for the call. */
typedef int store_row_fn(const struct row *row, void *arg, struct error *err);
int store_load(struct store *store, store_row_fn *fn, void *arg, uint64_t *set_aside, struct error *err);

/* Takes over `batch` (it is empty after) and returns its number: 1, 2, ... An empty batch gets a
 * number too and is durable when all before it are. At most STORE_QUEUE_MAX bytes wait in the
 * queue: then store_full() says true and the head must take no commands until it is not. */
uint64_t store_put(struct store *store, struct batch *batch);
bool store_full(const struct store *store);
#define STORE_QUEUE_MAX (256u * 1024 * 1024)

/* Becomes readable when store_durable() or store_failed() has changed; owned by the store. */
int store_fd(const struct store *store);
/* Clears the descriptor and returns the highest number that is durable. */
uint64_t store_durable(struct store *store);
/* Whether the store is stuck; err says why ("store full: ..." for a full disk). */
bool store_failed(struct store *store, struct error *err);
/* Commits a probe row, on the caller's thread. 0: no longer stuck; the queue is empty, call
 * store_load() next. Numbers of batches that were dropped stay below those that store_durable()
 * gives later: forget them before this. */
int store_recover(struct store *store, struct error *err);

struct store_stats {
    uint64_t batches, commits, rows;
    int64_t last_commit_us;
};
void store_stats(struct store *store, struct store_stats *stats);

#endif
