/* store.c - the queue and the thread in front of a database.
 *
 * The head's loop only appends to a list under `lock`, which is never held during I/O. The thread takes
 * the whole list (up to GROUP_MAX bytes), commits it as one transaction under `db_lock`, and says so
 * through an eventfd. `db_lock` lets the head's thread use the database for loading and recovery while
 * the store's thread is idle or stuck. */
#include "store/backend.h"

#include "base/clock.h"
#include "base/mem.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/queue.h>
#include <unistd.h>

#define GROUP_MAX (16u * 1024 * 1024) /* bytes in one transaction, unless one batch is longer */
#define GROUP_BATCHES 1024

struct queued {
    STAILQ_ENTRY(queued) next;
    struct batch batch;
    uint64_t number;
    size_t bytes;
};
STAILQ_HEAD(queue, queued);

struct store {
    const struct store_backend *backend;
    void *db;
    int event_fd;
    pthread_t thread;
    pthread_mutex_t db_lock; /* taken before `lock` where both are held */

    pthread_mutex_t lock; /* all below */
    pthread_cond_t wake;
    struct queue queue;
    size_t queued_bytes; /* in the queue and in the commit that runs */
    uint64_t last, durable;
    bool stop, failed;
    struct error error; /* why it failed */
    struct store_stats stats;
};

/* ---- what backends share ---- */

const char *const store_tables[ROW_KIND_COUNT] = {
#define X(name, word) [name] = (word),
    ROW_KINDS(X)
#undef X
};

enum store_key store_key(enum row_kind kind)
{
    return kind == ROW_TASK ? KEY_ID_SUB : kind == ROW_NODE || kind == ROW_GROUP ? KEY_NAME : KEY_ID;
}

void aside_add(struct aside *aside, const struct row *row, const char *error)
{
    aside->rows = xgrow(aside->rows, &aside->cap, aside->count + 1, sizeof *aside->rows);
    aside->rows[aside->count++] = (struct aside_row){.id = row->id,
                                                     .sub = row->sub,
                                                     .name = row->name ? xstrdup(row->name) : NULL,
                                                     .error = xstrdup(error)};
}

void aside_free(struct aside *aside)
{
    for (size_t i = 0; i < aside->count; i++) {
        free(aside->rows[i].name);
        free(aside->rows[i].error);
    }
    free(aside->rows);
}

/* ---- queue and thread ---- */

static void notify(struct store *s)
{
    uint64_t one = 1;
    (void)!write(s->event_fd, &one, sizeof one); /* full means readable: nothing is lost */
}

static void drop(struct queue *q)
{
    struct queued *item;
    while ((item = STAILQ_FIRST(q))) {
        STAILQ_REMOVE_HEAD(q, next);
        batch_free(&item->batch);
        free(item);
    }
}

/* Moves the front of the queue to `group`; returns how many batches that is. Under `lock`. */
static size_t take_group(struct store *s, struct queue *group, struct batch **batches, size_t *bytes,
                         uint64_t *last)
{
    size_t count = 0;
    *bytes = 0;
    struct queued *item;
    while ((item = STAILQ_FIRST(&s->queue)) && count < GROUP_BATCHES) {
        if (count && *bytes + item->bytes > GROUP_MAX)
            break;
        STAILQ_REMOVE_HEAD(&s->queue, next);
        STAILQ_INSERT_TAIL(group, item, next);
        batches[count++] = &item->batch;
        *bytes += item->bytes;
        *last = item->number;
    }
    return count;
}

static size_t count_rows(struct batch *const *batches, size_t count)
{
    size_t rows = 0;
    for (size_t i = 0; i < count; i++)
        rows += batches[i]->count;
    return rows;
}

/* Writes one group. Called with `lock`, which is given up meanwhile. */
static void commit_group(struct store *s)
{
    struct batch *batches[GROUP_BATCHES];
    struct queue group = STAILQ_HEAD_INITIALIZER(group);
    uint64_t last = 0;
    size_t bytes, count = take_group(s, &group, batches, &bytes, &last);
    pthread_mutex_unlock(&s->lock);

    struct error err;
    size_t rows = count_rows(batches, count);
    int64_t began = clock_boot_us();
    pthread_mutex_lock(&s->db_lock);
    int rc = rows ? s->backend->commit(s->db, batches, count, &err) : 0;
    pthread_mutex_unlock(&s->db_lock);
    int64_t took = clock_boot_us() - began;
    drop(&group);

    pthread_mutex_lock(&s->lock);
    if (rc) {
        s->failed = true;
        s->error = err;
        drop(&s->queue);
        s->queued_bytes = 0;
    } else {
        s->queued_bytes -= bytes;
        s->durable = last;
        s->stats.batches += count;
        s->stats.rows += rows;
        s->stats.commits += rows > 0;
        s->stats.last_commit_us = took;
    }
    notify(s);
}

static void *store_thread(void *arg)
{
    struct store *s = arg;
    pthread_mutex_lock(&s->lock);
    for (;;) {
        if (!STAILQ_EMPTY(&s->queue))
            commit_group(s);
        else if (s->stop)
            break;
        else
            pthread_cond_wait(&s->wake, &s->lock);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

static int start_thread(struct store *s, struct error *err)
{
    sigset_t all, old; /* signals are the loop's */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int code = pthread_create(&s->thread, NULL, store_thread, s);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (code) {
        errno = code;
        return error_sys(err, "cannot start the store's thread");
    }
    pthread_setname_np(s->thread, "store");
    return 0;
}

static void store_free(struct store *s)
{
    drop(&s->queue);
    s->backend->close(s->db);
    if (s->event_fd >= 0)
        close(s->event_fd);
    pthread_mutex_destroy(&s->lock);
    pthread_mutex_destroy(&s->db_lock);
    pthread_cond_destroy(&s->wake);
    free(s);
}

/* A connection string of PostgreSQL, or the path of a file. */
static const struct store_backend *backend_of(const char *path, struct error *err)
{
    if (strncmp(path, "postgresql://", 13))
        return &store_sqlite;
#ifdef STORE_POSTGRES
    return &store_postgres;
#else
    error_set(err, ERR_USAGE, "store: this muster was built without PostgreSQL (meson option 'postgres')");
    return NULL;
#endif
}

int store_open(struct store **store, const char *path, uint64_t *generation, struct error *err)
{
    const struct store_backend *backend = backend_of(path, err);
    if (!backend)
        return -1;
    struct store *s = xcalloc(1, sizeof *s);
    s->backend = backend;
    STAILQ_INIT(&s->queue);
    pthread_mutex_init(&s->lock, NULL);
    pthread_mutex_init(&s->db_lock, NULL);
    pthread_cond_init(&s->wake, NULL);
    s->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int rc = s->event_fd < 0 ? error_sys(err, "cannot make an event descriptor")
                             : s->backend->open(&s->db, path, generation, err);
    if (!rc)
        rc = start_thread(s, err);
    if (rc) {
        store_free(s);
        return -1;
    }
    *store = s;
    return 0;
}

void store_close(struct store *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    s->stop = true;
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    store_free(s);
}

int store_load(struct store *s, store_row_fn *fn, void *arg, uint64_t *set_aside, struct error *err)
{
    uint64_t count = 0;
    pthread_mutex_lock(&s->db_lock);
    int rc = s->backend->load(s->db, fn, arg, &count, err);
    pthread_mutex_unlock(&s->db_lock);
    if (set_aside)
        *set_aside = count;
    return rc;
}

static size_t batch_bytes(const struct batch *batch)
{
    size_t bytes = sizeof(struct queued) + batch->cap * sizeof *batch->rows;
    for (size_t i = 0; i < batch->count; i++)
        bytes += batch->rows[i].len;
    return bytes;
}

uint64_t store_put(struct store *s, struct batch *batch)
{
    struct queued *item = xcalloc(1, sizeof *item);
    item->batch = *batch;
    item->bytes = batch_bytes(batch);
    *batch = (struct batch){0};
    pthread_mutex_lock(&s->lock);
    uint64_t number = item->number = ++s->last;
    bool failed = s->failed;
    if (!failed) {
        STAILQ_INSERT_TAIL(&s->queue, item, next);
        s->queued_bytes += item->bytes;
        pthread_cond_signal(&s->wake);
    }
    pthread_mutex_unlock(&s->lock);
    if (failed) {
        batch_free(&item->batch);
        free(item);
    }
    return number;
}

bool store_full(const struct store *store)
{
    struct store *s = (struct store *)store;
    pthread_mutex_lock(&s->lock);
    bool full = s->queued_bytes > STORE_QUEUE_MAX;
    pthread_mutex_unlock(&s->lock);
    return full;
}

int store_fd(const struct store *s)
{
    return s->event_fd;
}

uint64_t store_durable(struct store *s)
{
    uint64_t ignored;
    (void)!read(s->event_fd, &ignored, sizeof ignored);
    pthread_mutex_lock(&s->lock);
    uint64_t durable = s->durable;
    pthread_mutex_unlock(&s->lock);
    return durable;
}

bool store_failed(struct store *s, struct error *err)
{
    pthread_mutex_lock(&s->lock);
    bool failed = s->failed;
    if (failed && err)
        *err = s->error;
    pthread_mutex_unlock(&s->lock);
    return failed;
}

int store_recover(struct store *s, struct error *err)
{
    if (!store_failed(s, NULL))
        return 0;
    pthread_mutex_lock(&s->db_lock);
    int rc = s->backend->recover(s->db, err);
    pthread_mutex_unlock(&s->db_lock);
    if (rc)
        return -1;
    pthread_mutex_lock(&s->lock);
    assert(STAILQ_EMPTY(&s->queue)); /* nothing is queued while it is stuck */
    s->failed = false;
    pthread_mutex_unlock(&s->lock);
    notify(s);
    return 0;
}

void store_stats(struct store *s, struct store_stats *stats)
{
    pthread_mutex_lock(&s->lock);
    *stats = s->stats;
    pthread_mutex_unlock(&s->lock);
}
