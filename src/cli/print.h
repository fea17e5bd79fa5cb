/* print.h - how commands show things: tables, `Name : value` lists, times, sizes, JSON.
 *
 * Text from users and nodes goes through here: control characters are shown as \xNN, so that a
 * job's name cannot move the cursor. Off a terminal nothing is shortened or coloured.
 */
#ifndef MUSTER_CLI_PRINT_H
#define MUSTER_CLI_PRINT_H

#include "base/buf.h"
#include "cli/context.h"
#include "proto/model.pb-c.h"

#include <jansson.h>
#include <stdint.h>

/* ---- tables: two header lines (titles, rule), then a row per line, the name in column 1 ---- */
struct table;
/* What may happen to a column on a terminal that is too narrow. A sentence is what the reader looks for: it
 * is cut to a few words only when there is no column left to drop. */
enum column_fit { FIT_KEEP = 0, FIT_SHORTEN = 1, FIT_DROP = 2, FIT_SENTENCE = 3 };
struct column {
    const char *title; /* NULL ends the list */
    bool right;        /* numbers */
    enum column_fit fit;
};
struct table *table_new(const struct column *columns);
/* Adds a cell; rows fill up by themselves. NULL counts as "". */
void table_add(struct table *t, const char *text);
void table_addf(struct table *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void table_free(struct table *t);
/* Prints and frees it. As a list (`--format list`): one `Title : value` line per cell, a blank line
 * between rows. `paint` column's cells are coloured as states when allowed; -1: none. */
void table_print(struct context *ctx, struct table *t, bool as_list, int paint);

/* ---- `Name                             : value` ---- */
void show(const char *name, const char *value);
void showf(const char *name, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* --format list|table into a bool (true: list) */
enum list_format { FORMAT_DEFAULT, FORMAT_LIST, FORMAT_TABLE };
int option_format(const struct option *opt, void *field, const char *value, struct error *err);

/* ---- values; each returned text is cli_keep()'s or static ---- */
const char *time_text(int64_t wall_ms);          /* local "2026-11-24 10:00:00"; "" for 0 */
const char *duration_text(int64_t ms);           /* HPC Pack's d:h:m:s:ms: "0:0:1:5:20" */
const char *elapsed_text(int64_t ms);            /* for people: "1:05", "2:03:04" */
const char *units_text(const Mu__JobSpec *spec); /* "2-4 nodes" */
const char *allocation_nodes(Mu__NodeCores *const *list, size_t n); /* "node[01-04]" */
const char *join(char *const *list, size_t n, const char *between);

/* ---- JSON (docs/json.md) ---- */
json_t *json_time(int64_t wall_ms);               /* "2026-11-24T10:00:00.123Z" or null */
json_t *json_text(const char *s);                 /* broken UTF-8 becomes U+FFFD */
json_t *json_bytes(const void *data, size_t len); /* the same */
json_t *json_texts(char *const *list, size_t n);
json_t *json_env(Mu__Env *const *list, size_t n);
json_t *json_allocation(Mu__NodeCores *const *list, size_t n);
int json_print(json_t *value /* taken */); /* one document and a newline; returns EXIT_OK */

#endif
