/* stepmain.c - main program of muster-step.
 *
 * muster-keeper starts it as the task's user: descriptor 3 is the connection of one mpiexec
 * (MUSTER_STEP_ROLE=root, a unix socket) or of the step above in the tree (branch, TCP, TLS as the
 * server), descriptor 4 the packed StepContext in a sealed memfd. `muster-step --probe --out FOLDER`
 * records, once per boot, what makes later starts fast.
 */
#include "base/log.h"
#include "base/mem.h"
#include "step/conn.h"
#include "step/step.h"
#include "step/template.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define FD_CONNECTION 3
#define FD_CONTEXT 4
#define CONTEXT_MAX (64u * 1024 * 1024)
#define LAST_WORDS_MS 2000

struct server {
    struct event_base *base;
    struct conn *up;
    struct step *step;
    bool over;
};

static void step_up(void *arg, Mu__StepFrame *frame)
{
    struct server *s = arg;
    if (s->up)
        conn_send(s->up, frame);
}

static void step_over(void *arg)
{
    struct server *s = arg;
    s->over = true;
    event_base_loopbreak(s->base);
}

static void up_frame(void *arg, Mu__StepFrame *frame)
{
    struct server *s = arg;
    if (!s->over)
        step_frame(s->step, frame);
}

static void up_closed(void *arg, const struct error *err)
{
    struct server *s = arg;
    s->up = NULL;
    if (!s->over)
        step_abandoned(s->step);
}

static const struct conn_ops up_ops = {.frame = up_frame, .closed = up_closed};

static void on_term(evutil_socket_t sig, short what, void *arg)
{
    struct server *s = arg;
    /* The keeper ends the attempt: the ranks get their notice from it as well. */
    step_terminated(s->step, sig);
}

static Mu__StepContext *read_context(struct error *err)
{
    struct stat st;
    if (fstat(FD_CONTEXT, &st)) {
        error_sys(err, "descriptor %d does not hold the step's context", FD_CONTEXT);
        return NULL;
    }
    size_t size = (size_t)st.st_size;
    if (size == 0 || size > CONTEXT_MAX) {
        error_set(err, ERR_PROTOCOL, "the step's context has %zu bytes", size);
        return NULL;
    }
    uint8_t *bytes = xmalloc(size);
    /* The offset of the memfd is shared with whoever reads it at the same time: pread. */
    ssize_t n = pread(FD_CONTEXT, bytes, size, 0);
    Mu__StepContext *c = n == (ssize_t)size ? mu__step_context__unpack(NULL, size, bytes) : NULL;
    explicit_bzero(bytes, size);
    free(bytes);
    close(FD_CONTEXT);
    if (!c || !c->n_nodes || c->my_index >= c->n_nodes || c->psk.len < 16) {
        if (c)
            mu__step_context__free_unpacked(c, NULL);
        error_set(err, ERR_PROTOCOL, "the step's context is broken");
        return NULL;
    }
    return c;
}

static int serve(bool root)
{
    struct error err;
    struct server s = {0};
    /* The key is in our memory: no core file, no debugger of the same user's other programs. */
    prctl(PR_SET_DUMPABLE, 0);
    signal(SIGPIPE, SIG_IGN);
    fcntl(FD_CONNECTION, F_SETFD, FD_CLOEXEC);
    fcntl(FD_CONTEXT, F_SETFD, FD_CLOEXEC);
    Mu__StepContext *context = read_context(&err);
    if (!context) {
        log_error("%s", err.text);
        return 1;
    }
    s.base = event_base_new();
    struct step_config config = {
        .base = s.base, .context = context, .up = step_up, .over = step_over, .arg = &s};
    s.step = step_new(&config);
    s.up = conn_new(s.base, FD_CONNECTION, root ? CONN_PLAIN : CONN_TLS_SERVER, context->psk.data,
                    context->psk.len, NULL, 0, &up_ops, &s, &err);
    if (!s.up) {
        log_error("%s", err.text);
        return 1;
    }
    struct event *term = evsignal_new(s.base, SIGTERM, on_term, &s);
    evsignal_add(term, NULL);
    if (!s.over)
        event_base_dispatch(s.base);
    conn_close_flushed(s.up, LAST_WORDS_MS);
    event_free(term);
    step_free(s.step);
    mu__step_context__free_unpacked(context, NULL);
    event_base_free(s.base);
    _exit(0); /* past libpmix's threads */
}

static int probe(const char *folder)
{
    struct error err;
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* an agent that is started anew clears up and probes again */
    if (template_record(folder, &err)) {
        fprintf(stderr, "muster-step: %s\n", err.text);
        return 1;
    }
    return 0;
}

static const char usage[] =
    "muster-step - serves one MPI step on one node; started by muster-keeper\n\n"
    "usage: muster-step --probe --out FOLDER   record this boot's topology and PMIx settings\n"
    "       muster-step --help | --version\n";

int main(int argc, char **argv)
{
    const char *role = getenv("MUSTER_STEP_ROLE");
    log_open("muster-step", 2);
    if (argc == 2 && !strcmp(argv[1], "--help")) {
        fputs(usage, stdout);
        return 0;
    }
    if (argc == 2 && !strcmp(argv[1], "--version")) {
        puts("muster-step (Muster) " MUSTER_VERSION);
        return 0;
    }
    if (argc == 4 && !strcmp(argv[1], "--probe") && !strcmp(argv[2], "--out"))
        return probe(argv[3]);
    if (argc == 1 && role && (!strcmp(role, "root") || !strcmp(role, "branch")))
        return serve(!strcmp(role, "root"));
    fputs(usage, stderr);
    return 2;
}
