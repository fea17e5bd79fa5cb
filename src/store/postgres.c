/* postgres.c - the store in a PostgreSQL database, for sites with two head nodes.
 *
 * The connection string names database and schema (options=-csearch_path=...); its password belongs into
 * a passfile. Who leads: a session-wide advisory lock, which the server gives up when the leader's
 * connection ends. A leader that lost its connection without noticing is fenced: every transaction first
 * locks the row of the generation and fails where it is no longer this head's.
 *
 * Rows of one transaction are sent in pipeline mode, in slices: the server's answers to a slice are read
 * before the next is sent, so that neither end fills the other's buffers. */
#include "store/backend.h"

#include "base/mem.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "migrations_postgres.h"

#define SCHEMA_VERSION ((int64_t)(sizeof migrations / sizeof migrations[0]))
#define SLICE_ROWS 256
#define SLICE_BYTES (1024 * 1024)
/* The same for every cluster in one schema; the schema's oid tells schemas of one database apart. */
#define TAKE_LOCK                                                                                            \
    "SELECT pg_try_advisory_lock(1299542900, (SELECT oid::int FROM pg_namespace WHERE nspname = "            \
    "current_schema()))::int"

static const struct {
    const char *put, *del, *get;
} key_sql[] = {
    [KEY_ID] = {"INSERT INTO %s (id, row) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET row = excluded.row",
                "DELETE FROM %s WHERE id = $1", "SELECT id, 0::bigint, NULL::text, row FROM %s"},
    [KEY_ID_SUB] = {"INSERT INTO %s (id, sub, row) VALUES ($1, $2, $3)"
                    " ON CONFLICT (id, sub) DO UPDATE SET row = excluded.row",
                    "DELETE FROM %s WHERE id = $1 AND sub = $2", "SELECT id, sub, NULL::text, row FROM %s"},
    [KEY_NAME] =
        {"INSERT INTO %s (name, row) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET row = excluded.row",
         "DELETE FROM %s WHERE name = $1", "SELECT 0::bigint, 0::bigint, name, row FROM %s"},
};

struct postgres {
    PGconn *conn;
    uint64_t generation; /* ours; 0: not raised so far */
};

/* ---- errors and small statements ---- */

static int fail(struct postgres *q, const PGresult *result, struct error *err)
{
    const char *state = result ? PQresultErrorField(result, PG_DIAG_SQLSTATE) : NULL;
    const char *text =
        result && *PQresultErrorMessage(result) ? PQresultErrorMessage(result) : PQerrorMessage(q->conn);
    int len = (int)strcspn(text, "\n");
    if (state && (!strcmp(state, "53100") || !strcmp(state, "53200")))
        return error_set(err, ERR_UNAVAILABLE, "store full: %.*s", len, text);
    if (PQstatus(q->conn) != CONNECTION_OK)
        return error_set(err, ERR_UNAVAILABLE, "store: no connection to PostgreSQL: %.*s", len, text);
    return error_set(err, ERR_IO, "store: %.*s", len, text);
}

/* Takes over the result. */
static int check(struct postgres *q, PGresult *result, struct error *err)
{
    ExecStatusType status = PQresultStatus(result);
    int rc = status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK ? 0 : fail(q, result, err);
    PQclear(result);
    return rc;
}

static int run(struct postgres *q, const char *sql, struct error *err)
{
    return check(q, PQexec(q->conn, sql), err);
}

/* The one integer that a query gives; none is -1. */
static int query_int(struct postgres *q, const char *sql, int64_t *value, struct error *err)
{
    PGresult *result = PQexec(q->conn, sql);
    *value = -1;
    if (PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) == 1 && !PQgetisnull(result, 0, 0))
        *value = strtoll(PQgetvalue(result, 0, 0), NULL, 10);
    return check(q, result, err);
}

static void rollback(struct postgres *q)
{
    if (PQtransactionStatus(q->conn) != PQTRANS_IDLE)
        PQclear(PQexec(q->conn, "ROLLBACK"));
}

/* ---- opening ---- */

static int migrate(struct postgres *q, struct error *err)
{
    int64_t version = 0;
    if (query_int(q, "SELECT (to_regclass('muster_version') IS NOT NULL)::int", &version, err))
        return -1;
    if (version && query_int(q, "SELECT number FROM muster_version", &version, err))
        return -1;
    if (version < 0 || version > SCHEMA_VERSION)
        return error_set(
            err, ERR_VERSION,
            "store has version %lld: this program knows up to %lld; use the newer muster that made it",
            (long long)version, (long long)SCHEMA_VERSION);
    for (int64_t i = version; i < SCHEMA_VERSION; i++) {
        char done[160];
        snprintf(
            done, sizeof done,
            "CREATE TABLE IF NOT EXISTS muster_version (number bigint NOT NULL); DELETE FROM muster_version;"
            "INSERT INTO muster_version VALUES (%lld)",
            (long long)i + 1);
        if (run(q, "BEGIN", err))
            return -1;
        if (run(q, migrations[i].sql, err) || run(q, done, err) || run(q, "COMMIT", err)) {
            rollback(q);
            return error_prefix(err, "migration %s", migrations[i].name);
        }
    }
    return 0;
}

static int prepare(struct postgres *q, const char *name, const char *sql, const char *table,
                   struct error *err)
{
    char text[256];
    snprintf(text, sizeof text, sql, table);
    return check(q, PQprepare(q->conn, name, text, 0, NULL), err);
}

/* Statements are named after what they do: "put3" writes a row of kind 3. */
static int prepare_all(struct postgres *q, struct error *err)
{
    for (int kind = 0; kind < ROW_KIND_COUNT; kind++) {
        enum store_key key = store_key((enum row_kind)kind);
        char put[16], del[16];
        snprintf(put, sizeof put, "put%d", kind);
        snprintf(del, sizeof del, "del%d", kind);
        if (prepare(q, put, key_sql[key].put, store_tables[kind], err) ||
            prepare(q, del, key_sql[key].del, store_tables[kind], err))
            return -1;
    }
    return prepare(q, "range", "DELETE FROM %s WHERE id <= $1", store_tables[ROW_EVENT], err);
}

/* On a fresh connection: becomes the leader, or says why not. */
static int take_over(struct postgres *q, struct error *err)
{
    int64_t got = 0;
    if (PQstatus(q->conn) != CONNECTION_OK)
        return fail(q, NULL, err);
    if (run(q, "SET synchronous_commit = on; SET client_min_messages = warning", err) ||
        query_int(q, TAKE_LOCK, &got, err))
        return -1;
    if (got != 1)
        return error_set(err, ERR_EXISTS, "store is in use: another head leads");
    return migrate(q, err) ? -1 : prepare_all(q, err);
}

static void postgres_close(void *db)
{
    struct postgres *q = db;
    if (!q)
        return;
    PQfinish(q->conn);
    free(q);
}

static int postgres_open(void **db, const char *path, uint64_t *generation, struct error *err)
{
    struct postgres *q = xcalloc(1, sizeof *q);
    int64_t raised = 0;
    q->conn = PQconnectdb(path);
    if (take_over(q, err) ||
        query_int(q, "UPDATE meta SET value = value + 1 WHERE key = 'generation' RETURNING value", &raised,
                  err)) {
        postgres_close(q);
        return -1;
    }
    *generation = q->generation = (uint64_t)raised;
    *db = q;
    return 0;
}

/* ---- writing ---- */

static int send_row(struct postgres *q, const struct row *row)
{
    char statement[16], id[24], sub[16];
    const char *values[3];
    int lengths[3] = {0}, formats[3] = {0}, n = 0;
    snprintf(id, sizeof id, "%" PRId64, (int64_t)row->id);
    snprintf(sub, sizeof sub, "%" PRIu32, row->sub);
    snprintf(statement, sizeof statement,
             row->up_to     ? "range"
             : row->deleted ? "del%d"
                            : "put%d",
             (int)row->kind);
    enum store_key key = store_key(row->kind);
    values[n++] = key == KEY_NAME ? row->name : id;
    if (key == KEY_ID_SUB)
        values[n++] = sub;
    if (!row->deleted) {
        lengths[n] = (int)row->len;
        formats[n] = 1;
        values[n++] = row->len ? (const char *)row->data : "";
    }
    return PQsendQueryPrepared(q->conn, statement, n, values, lengths, formats, 0) == 1 ? 0 : -1;
}

/* Reads the answers to `count` statements and the sync after them. */
static int read_answers(struct postgres *q, size_t count, struct error *err)
{
    int rc = PQpipelineSync(q->conn) == 1 ? 0 : fail(q, NULL, err);
    for (size_t i = 0; !rc && i <= count;) {
        PGresult *result = PQgetResult(q->conn);
        ExecStatusType status = result ? PQresultStatus(result) : PGRES_COMMAND_OK;
        if (!result) { /* the end of one statement's answers */
            if (PQstatus(q->conn) != CONNECTION_OK)
                return fail(q, NULL, err);
            i++;
            continue;
        }
        if (status == PGRES_PIPELINE_SYNC) {
            PQclear(result);
            return 0;
        }
        if (status != PGRES_COMMAND_OK) {
            rc = fail(q, result, err);
            /* The rest of the slice is skipped by the server; its sync still comes. */
            while (status != PGRES_PIPELINE_SYNC && PQstatus(q->conn) == CONNECTION_OK) {
                PQclear(result);
                result = PQgetResult(q->conn);
                status = result ? PQresultStatus(result) : PGRES_COMMAND_OK;
            }
        }
        PQclear(result);
    }
    return rc;
}

static int write_batches(struct postgres *q, struct batch *const *batches, size_t count, struct error *err)
{
    size_t waiting = 0, bytes = 0;
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < batches[i]->count; j++) {
            if (send_row(q, &batches[i]->rows[j]))
                return fail(q, NULL, err);
            waiting++;
            bytes += batches[i]->rows[j].len;
            if (waiting >= SLICE_ROWS || bytes >= SLICE_BYTES) {
                if (read_answers(q, waiting, err))
                    return -1;
                waiting = bytes = 0;
            }
        }
    return waiting ? read_answers(q, waiting, err) : 0;
}

/* Locks the generation's row until the end of the transaction: no other head gets in between. */
static int check_fence(struct postgres *q, struct error *err)
{
    int64_t value = 0;
    if (query_int(q, "SELECT value FROM meta WHERE key = 'generation' FOR UPDATE", &value, err))
        return -1;
    if ((uint64_t)value != q->generation)
        return error_set(err, ERR_EXISTS,
                         "store was taken over by another head (generation %lld, ours is %llu)",
                         (long long)value, (unsigned long long)q->generation);
    return 0;
}

static int postgres_commit(void *db, struct batch *const *batches, size_t count, struct error *err)
{
    struct postgres *q = db;
    int rc = run(q, "BEGIN", err) || check_fence(q, err) ? -1 : 0;
    if (!rc) {
        rc = PQenterPipelineMode(q->conn) == 1 ? write_batches(q, batches, count, err) : fail(q, NULL, err);
        if (PQexitPipelineMode(q->conn) != 1 && !rc)
            rc = fail(q, NULL, err);
    }
    if (rc || run(q, "COMMIT", err)) {
        rollback(q);
        return -1;
    }
    return 0;
}

static int postgres_recover(void *db, struct error *err)
{
    struct postgres *q = db;
    PQreset(q->conn);
    if (take_over(q, err) || run(q, "BEGIN", err))
        return -1;
    if (check_fence(q, err) ||
        run(q, "UPDATE meta SET value = value WHERE key = 'generation'; COMMIT", err)) {
        rollback(q);
        return -1;
    }
    return 0;
}

/* ---- loading ---- */

static int move_aside(struct postgres *q, enum row_kind kind, const struct aside *aside)
{
    static const char *const where[] = {[KEY_ID] = "id = $1::bigint",
                                        [KEY_ID_SUB] = "id = $1::bigint AND sub = $2::bigint",
                                        [KEY_NAME] = "name = $3::text"};
    char *sql = xasprintf("WITH gone AS (DELETE FROM %s WHERE %s RETURNING row)"
                          " INSERT INTO quarantine (kind, id, sub, name, row, error)"
                          " SELECT '%s', $1::bigint, $2::bigint, $3::text, row, $4::text FROM gone",
                          store_tables[kind], where[store_key(kind)], store_tables[kind]);
    int rc = 0;
    for (size_t i = 0; !rc && i < aside->count; i++) {
        const struct aside_row *r = &aside->rows[i];
        char id[24], sub[16];
        snprintf(id, sizeof id, "%" PRId64, (int64_t)r->id);
        snprintf(sub, sizeof sub, "%" PRIu32, r->sub);
        const char *values[] = {id, sub, r->name, r->error};
        rc = check(q, PQexecParams(q->conn, sql, 4, NULL, values, NULL, NULL, 0), NULL);
    }
    free(sql);
    return rc;
}

static int64_t get_int(const PGresult *result, int column)
{
    uint32_t part[2];
    memcpy(part, PQgetvalue(result, 0, column), sizeof part);
    return (int64_t)((uint64_t)ntohl(part[0]) << 32 | ntohl(part[1]));
}

static void load_row(const PGresult *result, enum row_kind kind, store_row_fn *fn, void *arg,
                     struct aside *aside)
{
    struct row row = {.kind = kind,
                      .id = (uint64_t)get_int(result, 0),
                      .sub = (uint32_t)get_int(result, 1),
                      .name = PQgetisnull(result, 0, 2) ? NULL : PQgetvalue(result, 0, 2),
                      .data = (uint8_t *)PQgetvalue(result, 0, 3),
                      .len = (size_t)PQgetlength(result, 0, 3)};
    struct error why = {.text = "refused without a reason"};
    if (fn(&row, arg, &why))
        aside_add(aside, &row, why.text);
}

static int load_kind(struct postgres *q, enum row_kind kind, store_row_fn *fn, void *arg, uint64_t *set_aside,
                     struct error *err)
{
    struct aside aside = {0};
    char sql[128];
    int rc = 0;
    snprintf(sql, sizeof sql, key_sql[store_key(kind)].get, store_tables[kind]);
    /* Row by row: a table may be longer than memory has room for twice. */
    if (PQsendQueryParams(q->conn, sql, 0, NULL, NULL, NULL, NULL, 1) != 1 ||
        PQsetSingleRowMode(q->conn) != 1)
        return fail(q, NULL, err);
    for (PGresult *result; (result = PQgetResult(q->conn));) {
        ExecStatusType status = PQresultStatus(result);
        if (status == PGRES_SINGLE_TUPLE)
            load_row(result, kind, fn, arg, &aside);
        else if (status != PGRES_TUPLES_OK)
            rc = fail(q, result, err);
        PQclear(result);
    }
    if (!rc && aside.count)
        move_aside(q, kind, &aside);
    *set_aside += aside.count;
    aside_free(&aside);
    return rc;
}

static int postgres_load(void *db, store_row_fn *fn, void *arg, uint64_t *set_aside, struct error *err)
{
    for (int kind = 0; kind < ROW_KIND_COUNT; kind++)
        if (load_kind(db, (enum row_kind)kind, fn, arg, set_aside, err))
            return -1;
    return 0;
}

const struct store_backend store_postgres = {
    .open = postgres_open,
    .close = postgres_close,
    .commit = postgres_commit,
    .load = postgres_load,
    .recover = postgres_recover,
};
