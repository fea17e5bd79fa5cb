/* context.h - what every command shares: which cluster, its head, and how to print.
 *
 * The cluster is a folder: --dir, else MUSTER_DIR, else /var/lib/muster/default for root and
 * ${XDG_STATE_HOME:-~/.local/state}/muster for others. Exit codes are 0 (done), 1 (failed) and
 * 2 (usage: nothing was tried); commands that wait for a job return its exit code.
 */
#ifndef MUSTER_CLI_CONTEXT_H
#define MUSTER_CLI_CONTEXT_H

#include "base/error.h"
#include "cli/options.h"
#include "wire/link.h"

#include <stdbool.h>

#define EXIT_OK 0
#define EXIT_FAILED 1
#define EXIT_USAGE 2
#define EXIT_INTERRUPTED 130

struct context {
    /* Common options; read by the table context_options. */
    const char *dir_option;
    const char *scheduler;
    bool json, no_color, help;

    char program[96];      /* "muster job submit": stands before every message */
    char *dir;             /* the cluster's folder, absolute */
    bool color, color_err; /* stdout / stderr may be coloured */
    struct client *client; /* NULL until context_open() */
    int64_t away_since;    /* clock_boot_ms() of the first failure since the head last answered; 0: none */
};

/* Fills dir, color from the options and the environment. */
int context_init(struct context *ctx, struct error *err);
void context_end(struct context *ctx);

/* The cluster's folder by the rule above; `option` may be NULL. Owned by cli_keep(). NULL: error. */
char *context_dir(const char *option, struct error *err);
/* The head's socket in it. Owned by cli_keep(). */
char *context_socket(const char *dir);

/* Connects to the head (once) and checks /scheduler against its name. */
int context_open(struct context *ctx, struct error *err);
/* Opens when needed, asks, gives the reply (client_reply_free()). */
int context_call(struct context *ctx, Mu__Request *request, Mu__Reply **reply, struct error *err);
/* After a failure that may pass (context_lost()): pauses, then connects anew, again and again until the head
 * has been away for `for_ms`. A head that is restarted must not end a command that only waits. */
int context_reopen(struct context *ctx, int for_ms, struct error *err);
void context_alive(struct context *ctx);    /* the head has answered: it counts as away no longer */
bool context_lost(const struct error *err); /* whether that is worth trying */

/* Prints "program: text" on stderr and returns the exit code that fits: 2 for ERR_USAGE, else 1. */
int context_fail(const struct context *ctx, const struct error *err);
/* The same for an error of usage found by the command itself. Returns 2. */
int context_usage(const struct context *ctx, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
