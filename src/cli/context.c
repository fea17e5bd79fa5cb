/* context.c - finds the cluster, speaks to its head, and prints errors: one line, no more. */
#include "cli/context.h"
#include "base/clock.h"
#include "base/mem.h"
#include "cli/command.h"

#include <errno.h>
#include <pwd.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define CALL_TIMEOUT_MS 30000
#define REOPEN_PAUSE_MS 200

static char *default_dir(struct error *err)
{
    if (geteuid() == 0)
        return xstrdup("/var/lib/muster/default");
    const char *state = getenv("XDG_STATE_HOME");
    if (state && state[0] == '/') /* the XDG rule: a relative path counts as unset */
        return xasprintf("%s/muster", state);
    const char *home = getenv("HOME");
    if (!home || home[0] != '/') {
        const struct passwd *pw = getpwuid(geteuid());
        home = pw ? pw->pw_dir : NULL;
    }
    if (!home || home[0] != '/') {
        error_set(err, ERR_USAGE, "no home folder known; name the cluster's folder with --dir or MUSTER_DIR");
        return NULL;
    }
    return xasprintf("%s/.local/state/muster", home);
}

char *context_dir(const char *option, struct error *err)
{
    const char *env = getenv("MUSTER_DIR");
    const char *given = option ? option : env && *env ? env : NULL;
    if (!given) {
        char *dir = default_dir(err);
        return dir ? cli_keep(dir) : NULL;
    }
    if (!*given) {
        error_set(err, ERR_USAGE, "option --dir: \"\": expected a folder");
        return NULL;
    }
    char *dir;
    if (given[0] == '/') {
        dir = xstrdup(given);
    } else {
        char *cwd = getcwd(NULL, 0);
        if (!cwd) {
            error_sys(err, "cannot tell the working directory for --dir %s", shown(given));
            return NULL;
        }
        dir = xasprintf("%s/%s", cwd, given);
        free(cwd);
    }
    size_t len = strlen(dir);
    while (len > 1 && dir[len - 1] == '/')
        dir[--len] = 0;
    return cli_keep(dir);
}

char *context_socket(const char *dir)
{
    return cli_keep(xasprintf("%s/head.sock", dir));
}

static bool may_color(const struct context *ctx, int fd)
{
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");
    return !ctx->no_color && !(no && *no) && term && strcmp(term, "dumb") && isatty(fd);
}

int context_init(struct context *ctx, struct error *err)
{
    ctx->color = may_color(ctx, 1);
    ctx->color_err = may_color(ctx, 2);
    ctx->dir = context_dir(ctx->dir_option, err);
    return ctx->dir ? 0 : -1;
}

void context_end(struct context *ctx)
{
    client_close(ctx->client);
    ctx->client = NULL;
}

/* A cluster is reached through its folder, on this machine; the option may only confirm that. */
static int check_scheduler(const struct context *ctx, struct error *err)
{
    char host[256] = "";
    const char *name = ctx->scheduler;
    if (!name)
        return 0;
    const char *cluster = client_hello(ctx->client)->cluster;
    gethostname(host, sizeof host - 1);
    if (!strcasecmp(name, cluster) || !strcasecmp(name, "localhost") || !strcasecmp(name, host))
        return 0;
    return error_set(
        err, ERR_USAGE,
        "option /scheduler: \"%s\": expected %s, the cluster in %s; --dir or MUSTER_DIR choose another",
        shown(name), shown(cluster), shown(ctx->dir));
}

int context_open(struct context *ctx, struct error *err)
{
    if (ctx->client)
        return 0;
    struct stat st;
    const char *socket = context_socket(ctx->dir);
    if (stat(ctx->dir, &st) && (errno == ENOENT || errno == ENOTDIR))
        return error_set(err, ERR_UNAVAILABLE, "no cluster in %s; start one with 'muster cluster start'",
                         shown(ctx->dir));
    if (stat(socket, &st) && errno == ENOENT)
        return error_set(err, ERR_UNAVAILABLE,
                         "the cluster in %s has no running head; start it with 'muster cluster start'",
                         shown(ctx->dir));
    ctx->client = client_open(socket, CALL_TIMEOUT_MS, err);
    if (!ctx->client)
        return -1;
    return check_scheduler(ctx, err);
}

int context_call(struct context *ctx, Mu__Request *request, Mu__Reply **reply, struct error *err)
{
    if (context_open(ctx, err))
        return -1;
    return client_call(ctx->client, request, -1, reply, err);
}

bool context_lost(const struct error *err)
{
    return err->code == ERR_IO || err->code == ERR_PROTOCOL || err->code == ERR_UNAVAILABLE;
}

void context_alive(struct context *ctx)
{
    ctx->away_since = 0;
}

int context_reopen(struct context *ctx, int for_ms, struct error *err)
{
    if (!ctx->away_since)
        ctx->away_since = clock_boot_ms();
    for (;;) {
        if (clock_boot_ms() - ctx->away_since >= for_ms)
            return -1;
        struct timespec pause = {0, REOPEN_PAUSE_MS * 1000000L};
        nanosleep(&pause, NULL);
        client_close(ctx->client);
        ctx->client = NULL;
        if (!context_open(ctx, err))
            return 0;
        if (!context_lost(err))
            return -1;
    }
}

/* Error texts can repeat bytes of others (a job's name): they must not move the cursor. */
static void print_line(const struct context *ctx, const char *text)
{
    fflush(stdout);
    fprintf(stderr, "%s%s:%s ", ctx->color_err ? "\033[31m" : "", ctx->program,
            ctx->color_err ? "\033[0m" : "");
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if (*p < 0x20 || *p == 0x7f)
            fprintf(stderr, "\\x%02x", *p);
        else
            fputc(*p, stderr);
    }
    fputc('\n', stderr);
}

int context_fail(const struct context *ctx, const struct error *err)
{
    print_line(ctx, err->text);
    return err->code == ERR_USAGE ? EXIT_USAGE : EXIT_FAILED;
}

int context_usage(const struct context *ctx, const char *fmt, ...)
{
    struct error err = {0};
    va_list ap;
    va_start(ap, fmt);
    error_setv(&err, ERR_USAGE, fmt, ap);
    va_end(ap);
    return context_fail(ctx, &err);
}
