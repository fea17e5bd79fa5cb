/* options.h - the one reader of command-line options.
 *
 * A command describes its options in tables; reading them, help and manual pages are made from
 * the same tables. Every option may be written `--name VALUE`, `--name=VALUE` and, as HPC Pack's
 * users type it, `/name:VALUE`; a flag is `--name`, `--name=false`, `/name`, `/name:false`.
 * Names are compared without case and without hyphens (`--node-group` is `--nodegroup`). A word
 * like `/bin/true`, with a second slash before any colon, is not an option.
 */
#ifndef MUSTER_CLI_OPTIONS_H
#define MUSTER_CLI_OPTIONS_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct option;

/* Reads `value` into `field`. On -1 the text says only what was expected ("expected a number
 * from 1 to 9"): the reader puts the option and the value in front. */
typedef int option_set(const struct option *opt, void *field, const char *value, struct error *err);

struct option {
    const char *name;    /* lower case; NULL ends a table */
    const char *aliases; /* other names, blank-separated, or NULL */
    const char *value;   /* what help calls the value ("MIN[-MAX]"); NULL: a flag */
    const char *text;    /* help, without a final stop; NULL: hidden from help */
    option_set *set;     /* NULL: known by name, but refused in this version */
    size_t offset;       /* of the field in the command's argument struct */
    uint32_t min, max;   /* option_number, option_words: limits */
};

/* Options under one heading in the help. `offset` is where the struct that the options' offsets
 * count from begins in the command's arguments: that is how commands share a table. */
struct option_group {
    const char *title; /* "Job options"; NULL: "Options" */
    const struct option *options;
    size_t offset;
};

/* Words or names, in the order given. The list is owned by cli_keep(). */
struct words {
    char **list;
    size_t count, cap;
};
void words_add(struct words *w, char *word);

/* Fields' readers: */
int option_help(const struct option *opt, void *field, const char *value, struct error *err);
int option_flag(const struct option *opt, void *field /* bool */, const char *value, struct error *err);
int option_text(const struct option *opt, void *field /* const char * */, const char *value,
                struct error *err);
int option_number(const struct option *opt, void *field /* uint32_t */, const char *value, struct error *err);
/* Comma list, no empty parts, appended to; opt->max bounds the number of names (0: 10000). */
int option_names(const struct option *opt, void *field /* struct words */, const char *value,
                 struct error *err);

/* One table with the address of its arguments, as options_parse() takes them. */
struct option_table {
    const struct option *options; /* NULL ends the array */
    void *base;
};

/* Reads argv[0..argc). Options end at `--` and, with tail_after >= 0, at the word after that
 * many words (the command line of a task begins there); else they may stand anywhere. `words`
 * gets the rest. 0, or -1 with a line that names option, value and what was expected, or 1 when help
 * is asked for (an option read by option_help): nothing after it was read. */
int options_parse(const struct option_table *tables, int tail_after, int argc, char **argv,
                  struct words *words, struct error *err);

/* The name nearest to `word` when it is near enough to be meant, else NULL. */
const char *nearest_name(const char *word, const char *const *names, size_t count);

/* Text from outside as it may stand in a one-line message: control characters as \xNN, at most
 * about 100 bytes. Static storage, four at a time. */
const char *shown(const char *text);
const char *shown_long(const char *text); /* about 2000 */

/* Remembers an allocation that lives until the program ends. Returns it. */
void *cli_keep(void *p);
/* Frees them all: for programs that read many command lines (the fuzz target). */
void cli_release(void);

#endif
