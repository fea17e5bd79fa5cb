/* sqlite.c - the store in an SQLite file.
 *
 * WAL with synchronous=FULL: a commit is one append and one sync; the checkpoint runs on the store's
 * thread once the log has grown to CHECKPOINT_PAGES. Statements are prepared once per kind of row, with
 * the same four parameters: ?1 id, ?2 sub, ?3 name, ?4 row.
 *
 * The file is locked by flock() on path.lock, which other readers (a person with sqlite3) do not need.
 * Its version is PRAGMA user_version = number of migrations applied. A newer file is told from its
 * header before SQLite opens it, so that not even its log is touched. */
#include "store/backend.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "migrations.h"

#define SCHEMA_VERSION ((int)(sizeof migrations / sizeof migrations[0]))
#define APPLICATION_ID 0x4d757374 /* "Must"; migration 0001 sets it */
#define CHECKPOINT_PAGES "2000"
#define LOG_KEEP "67108864"
#define PROBE_BYTES (256 * 1024)
#define BUSY_MS 5000

static const struct {
    const char *put, *del, *get;
} key_sql[] = {
    [KEY_ID] = {"INSERT INTO %s (id, row) VALUES (?1, ?4) ON CONFLICT DO UPDATE SET row = ?4",
                "DELETE FROM %s WHERE id = ?1", "SELECT id, 0, NULL, row FROM %s"},
    [KEY_ID_SUB] = {"INSERT INTO %s (id, sub, row) VALUES (?1, ?2, ?4) ON CONFLICT DO UPDATE SET row = ?4",
                    "DELETE FROM %s WHERE id = ?1 AND sub = ?2", "SELECT id, sub, NULL, row FROM %s"},
    [KEY_NAME] = {"INSERT INTO %s (name, row) VALUES (?3, ?4) ON CONFLICT DO UPDATE SET row = ?4",
                  "DELETE FROM %s WHERE name = ?3", "SELECT 0, 0, name, row FROM %s"},
};
enum verb { VERB_PUT, VERB_DELETE, VERB_DELETE_UP_TO, VERB_COUNT };

struct sqlite {
    char *path;
    int lock_fd;
    sqlite3 *db; /* NULL after a recovery that failed to open it again */
    sqlite3_stmt *statements[ROW_KIND_COUNT][VERB_COUNT]; /* DELETE_UP_TO: events only */
    sqlite3_stmt *begin, *commit;
};

/* ---- errors and small statements ---- */

/* The errno of the file operation that failed last, in the file or its log. SQLite tells a full disk apart
 * by itself, but not a full quota or a limit on file sizes. */
static int last_errno(sqlite3 *db)
{
    int code = 0;
    sqlite3_file *log = NULL;
    sqlite3_file_control(db, "main", SQLITE_FCNTL_JOURNAL_POINTER, &log);
    if (log && log->pMethods)
        log->pMethods->xFileControl(log, SQLITE_FCNTL_LAST_ERRNO, &code);
    if (!code)
        sqlite3_file_control(db, "main", SQLITE_FCNTL_LAST_ERRNO, &code);
    return code;
}

static int fail(struct sqlite *q, struct error *err)
{
    int code = q->db ? sqlite3_errcode(q->db) & 0xff : SQLITE_CANTOPEN;
    int sys = q->db && (code == SQLITE_IOERR || code == SQLITE_CANTOPEN) ? last_errno(q->db) : 0;
    const char *text = sys ? strerror(sys) : q->db ? sqlite3_errmsg(q->db) : "cannot be opened";
    if (code == SQLITE_FULL || sys == ENOSPC || sys == EDQUOT || sys == EFBIG)
        return error_set(err, ERR_UNAVAILABLE, "store full: %s: %s", q->path, text);
    if (code == SQLITE_NOTADB || code == SQLITE_CORRUPT)
        return error_set(err, ERR_PROTOCOL, "store %s is damaged: %s", q->path, text);
    return error_set(err, ERR_IO, "store %s: %s", q->path, text);
}

static int run(struct sqlite *q, const char *sql, struct error *err)
{
    return sqlite3_exec(q->db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : fail(q, err);
}

/* The one integer that a query gives. */
static int query_int(struct sqlite *q, const char *sql, int64_t *value, struct error *err)
{
    sqlite3_stmt *stmt = NULL;
    int rc = -1;
    if (sqlite3_prepare_v2(q->db, sql, -1, &stmt, NULL) == SQLITE_OK && sqlite3_step(stmt) == SQLITE_ROW) {
        *value = sqlite3_column_int64(stmt, 0);
        /* A statement that changes something is done only when stepped to its end. */
        rc = sqlite3_step(stmt) == SQLITE_DONE ? 0 : -1;
    }
    if (rc)
        fail(q, err);
    sqlite3_finalize(stmt);
    return rc;
}

static int step(sqlite3_stmt *stmt)
{
    int rc = sqlite3_step(stmt);
    sqlite3_reset(stmt);
    return rc == SQLITE_DONE ? 0 : -1;
}

static void rollback(struct sqlite *q)
{
    if (!sqlite3_get_autocommit(q->db)) /* some errors have rolled back already */
        sqlite3_exec(q->db, "ROLLBACK", NULL, NULL, NULL);
}

/* ---- opening ---- */

static uint32_t big_endian(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static int refuse_version(const char *path, int64_t version, struct error *err)
{
    return error_set(
        err, ERR_VERSION,
        "store %s has version %lld: this program knows up to %d; use the newer muster that made it", path,
        (long long)version, SCHEMA_VERSION);
}

/* Looks at the file's header (sqlite.org/fileformat2.html): 60 user_version, 68 application_id. */
static int check_header(const char *path, struct error *err)
{
    uint8_t h[100];
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_sys(err, "cannot open the store %s", path);
    ssize_t n = pread(fd, h, sizeof h, 0);
    close(fd);
    if (n < 0)
        return error_sys(err, "cannot read the store %s", path);
    if (n == 0)
        return 0; /* new */
    if (n < (ssize_t)sizeof h || memcmp(h, "SQLite format 3", 16))
        return error_set(err, ERR_PROTOCOL, "%s is not a store of muster", path);
    uint32_t version = big_endian(h + 60), application = big_endian(h + 68);
    if (application && application != APPLICATION_ID)
        return error_set(err, ERR_PROTOCOL, "%s is not a store of muster", path);
    return version > (uint32_t)SCHEMA_VERSION ? refuse_version(path, version, err) : 0;
}

static int migrate(struct sqlite *q, int64_t version, struct error *err)
{
    for (int i = (int)version; i < SCHEMA_VERSION; i++) {
        char done[64];
        snprintf(done, sizeof done, "PRAGMA user_version = %d", i + 1);
        if (run(q, "BEGIN IMMEDIATE", err))
            return -1;
        if (run(q, migrations[i].sql, err) || run(q, done, err) || run(q, "COMMIT", err)) {
            rollback(q);
            return error_prefix(err, "migration %s", migrations[i].name);
        }
    }
    /* The header must tell the version, see check_header(). */
    return version < SCHEMA_VERSION ? run(q, "PRAGMA wal_checkpoint(TRUNCATE)", err) : 0;
}

static int prepare(struct sqlite *q, sqlite3_stmt **stmt, const char *sql, const char *table,
                   struct error *err)
{
    char text[256];
    snprintf(text, sizeof text, sql, table);
    if (sqlite3_prepare_v3(q->db, text, -1, SQLITE_PREPARE_PERSISTENT, stmt, NULL) != SQLITE_OK)
        return fail(q, err);
    return 0;
}

static int prepare_all(struct sqlite *q, struct error *err)
{
    for (int kind = 0; kind < ROW_KIND_COUNT; kind++) {
        enum store_key key = store_key((enum row_kind)kind);
        sqlite3_stmt **of = q->statements[kind];
        if (prepare(q, &of[VERB_PUT], key_sql[key].put, store_tables[kind], err) ||
            prepare(q, &of[VERB_DELETE], key_sql[key].del, store_tables[kind], err) ||
            (kind == ROW_EVENT &&
             prepare(q, &of[VERB_DELETE_UP_TO], "DELETE FROM %s WHERE id <= ?1", store_tables[kind], err)))
            return -1;
    }
    return prepare(q, &q->begin, "BEGIN IMMEDIATE", "", err) || prepare(q, &q->commit, "COMMIT", "", err) ? -1
                                                                                                          : 0;
}

static void close_db(struct sqlite *q)
{
    for (int kind = 0; kind < ROW_KIND_COUNT; kind++)
        for (int verb = 0; verb < VERB_COUNT; verb++)
            sqlite3_finalize(q->statements[kind][verb]);
    memset(q->statements, 0, sizeof q->statements);
    sqlite3_finalize(q->begin);
    sqlite3_finalize(q->commit);
    q->begin = q->commit = NULL;
    sqlite3_close(q->db);
    q->db = NULL;
}

static int open_db(struct sqlite *q, struct error *err)
{
    static const char setup[] = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
                                "PRAGMA wal_autocheckpoint = " CHECKPOINT_PAGES ";"
                                "PRAGMA journal_size_limit = " LOG_KEEP "; PRAGMA cache_size = -16384;"
                                "PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF";
    int64_t version = 0;
    if (check_header(q->path, err))
        return -1;
    if (sqlite3_open_v2(q->path, &q->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK)
        return fail(q, err);
    sqlite3_busy_timeout(q->db, BUSY_MS);
    /* Until the version is known, closing must not move the log of a newer store into its file. */
    sqlite3_db_config(q->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    if (query_int(q, "PRAGMA user_version", &version, err))
        return -1;
    if (version < 0 || version > SCHEMA_VERSION)
        return refuse_version(q->path, version, err);
    sqlite3_db_config(q->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, NULL);
    if (run(q, setup, err) || migrate(q, version, err))
        return -1;
    return prepare_all(q, err);
}

static void sqlite_close(void *db)
{
    struct sqlite *q = db;
    if (!q)
        return;
    close_db(q);
    if (q->lock_fd >= 0)
        close(q->lock_fd);
    free(q->path);
    free(q);
}

static int lock(struct sqlite *q, struct error *err)
{
    char *path = xasprintf("%s.lock", q->path);
    q->lock_fd = file_lock(AT_FDCWD, path, err);
    if (q->lock_fd < 0 && err && err->code == ERR_EXISTS)
        error_set(err, ERR_EXISTS, "store %s is in use: another head runs on it", q->path);
    free(path);
    return q->lock_fd < 0 ? -1 : 0;
}

static int sqlite_open(void **db, const char *path, uint64_t *generation, struct error *err)
{
    struct sqlite *q = xcalloc(1, sizeof *q);
    int64_t raised = 0;
    q->path = xstrdup(path);
    q->lock_fd = -1;
    if (lock(q, err) || open_db(q, err) ||
        query_int(q, "UPDATE meta SET value = value + 1 WHERE key = 'generation' RETURNING value", &raised,
                  err)) {
        sqlite_close(q);
        return -1;
    }
    *generation = (uint64_t)raised;
    *db = q;
    return 0;
}

/* ---- writing ---- */

static int write_row(struct sqlite *q, const struct row *row)
{
    enum verb verb = !row->deleted ? VERB_PUT : row->up_to ? VERB_DELETE_UP_TO : VERB_DELETE;
    sqlite3_stmt *stmt = q->statements[row->kind][verb];
    enum store_key key = store_key(row->kind);
    if (key == KEY_NAME)
        sqlite3_bind_text(stmt, 3, row->name, -1, SQLITE_STATIC);
    else
        sqlite3_bind_int64(stmt, 1, (int64_t)row->id);
    if (key == KEY_ID_SUB)
        sqlite3_bind_int64(stmt, 2, row->sub);
    if (verb == VERB_PUT) /* a message of nothing but defaults packs to no bytes, which is not NULL */
        sqlite3_bind_blob64(stmt, 4, row->len ? (void *)row->data : "", row->len, SQLITE_STATIC);
    return step(stmt);
}

static int write_batches(struct sqlite *q, struct batch *const *batches, size_t count)
{
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < batches[i]->count; j++)
            if (write_row(q, &batches[i]->rows[j]))
                return -1;
    return 0;
}

static int sqlite_commit(void *db, struct batch *const *batches, size_t count, struct error *err)
{
    struct sqlite *q = db;
    if (step(q->begin) || write_batches(q, batches, count) || step(q->commit)) {
        fail(q, err);
        rollback(q);
        return -1;
    }
    return 0;
}

/* Opened anew, because after a failed write or sync the old connection's view of the log is not to be
 * relied on; then as much is written as a busy turn would write. */
static int sqlite_recover(void *db, struct error *err)
{
    struct sqlite *q = db;
    char sql[128];
    if (q->db) /* moving the log into the file would take the room that the log needs */
        sqlite3_db_config(q->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    close_db(q);
    if (open_db(q, err)) {
        close_db(q);
        return -1;
    }
    snprintf(sql, sizeof sql, "INSERT OR REPLACE INTO probe VALUES (1, zeroblob(%d)); DELETE FROM probe",
             PROBE_BYTES);
    return run(q, sql, err);
}

/* ---- loading ---- */

static int move_aside(struct sqlite *q, enum row_kind kind, const struct aside *aside)
{
    static const char *const where[] = {
        [KEY_ID] = "id = ?1", [KEY_ID_SUB] = "id = ?1 AND sub = ?2", [KEY_NAME] = "name = ?3"};
    char *copy = xasprintf("INSERT INTO quarantine (kind, id, sub, name, row, error)"
                           " SELECT '%s', ?1, ?2, ?3, row, ?4 FROM %s WHERE %s",
                           store_tables[kind], store_tables[kind], where[store_key(kind)]);
    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(q->db, copy, -1, &stmt, NULL) == SQLITE_OK ? step(q->begin) : -1;
    for (size_t i = 0; !rc && i < aside->count; i++) {
        const struct aside_row *r = &aside->rows[i];
        struct row gone = {.kind = kind, .id = r->id, .sub = r->sub, .name = r->name, .deleted = true};
        sqlite3_bind_int64(stmt, 1, (int64_t)r->id);
        sqlite3_bind_int64(stmt, 2, r->sub);
        sqlite3_bind_text(stmt, 3, r->name, -1, SQLITE_STATIC);
        sqlite3_bind_text(stmt, 4, r->error, -1, SQLITE_STATIC);
        rc = step(stmt) || write_row(q, &gone) ? -1 : 0;
    }
    if (rc || step(q->commit))
        rollback(q);
    sqlite3_finalize(stmt);
    free(copy);
    return rc;
}

static int load_kind(struct sqlite *q, enum row_kind kind, store_row_fn *fn, void *arg, uint64_t *set_aside,
                     struct error *err)
{
    sqlite3_stmt *stmt = NULL;
    struct aside aside = {0};
    int rc;
    if (prepare(q, &stmt, key_sql[store_key(kind)].get, store_tables[kind], err))
        return -1;
    while ((rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        struct row row = {.kind = kind,
                          .id = (uint64_t)sqlite3_column_int64(stmt, 0),
                          .sub = (uint32_t)sqlite3_column_int64(stmt, 1),
                          .name = (char *)sqlite3_column_text(stmt, 2),
                          .data = (uint8_t *)sqlite3_column_blob(stmt, 3),
                          .len = (size_t)sqlite3_column_bytes(stmt, 3)};
        struct error why = {.text = "refused without a reason"};
        if (fn(&row, arg, &why))
            aside_add(&aside, &row, why.text);
    }
    if (rc != SQLITE_DONE)
        fail(q, err);
    sqlite3_finalize(stmt);
    /* When they cannot be moved (a full disk), they are found again at the next start. */
    if (rc == SQLITE_DONE && aside.count)
        move_aside(q, kind, &aside);
    *set_aside += aside.count;
    aside_free(&aside);
    return rc == SQLITE_DONE ? 0 : -1;
}

static int sqlite_load(void *db, store_row_fn *fn, void *arg, uint64_t *set_aside, struct error *err)
{
    struct sqlite *q = db;
    for (int kind = 0; kind < ROW_KIND_COUNT; kind++)
        if (load_kind(q, (enum row_kind)kind, fn, arg, set_aside, err))
            return -1;
    return 0;
}

const struct store_backend store_sqlite = {
    .open = sqlite_open,
    .close = sqlite_close,
    .commit = sqlite_commit,
    .load = sqlite_load,
    .recover = sqlite_recover,
};
