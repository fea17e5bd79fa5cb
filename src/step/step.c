/* step.c - one node's part of an MPI step.
 *
 * Life: REQUEST (root: plan) or LAUNCH (branch) -> ranks are forked, children connected -> ranks run
 * -> all have ended, or a fault ended them -> processes that they left are killed, output is
 * drained -> DONE goes up when all branches below are done -> root: RESULT.
 *
 * The first fault decides what is reported. It comes with a grace: after a plain non-zero exit
 * the other ranks may finish by themselves for that long (their own last words are worth having);
 * after a signal, an abort or a lost node they are ended at once. Ending is SIGTERM, then SIGKILL.
 */
#include "step/step.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "step/affinity.h"
#include "step/gather.h"
#include "step/launch.h"
#include "step/links.h"
#include "step/pmixhost.h"
#include "step/rank.h"
#include "step/rankenv.h"
#include "step/sweep.h"
#include "step/tree.h"

#include <assert.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define GRACE_EXIT_MS 500    /* after a non-zero exit, before the others are told to end */
#define GRACE_TERM_MS 250    /* between SIGTERM and SIGKILL */
#define GRACE_BRANCH_MS 800  /* after that a branch that has not confirmed the end is given up */
#define GRACE_SILENT_MS 500  /* between the loss of a rank's PMI connection and calling it broken */
#define DRAIN_MS 1000        /* silence of what ended ranks left open, before it is closed here */
#define CODE_STARTED_NOT 255 /* -1 of MS-MPI: could not be started, interrupted */
#define CODE_TIMEOUT 254     /* -2 */
#define CODE_LOST 253        /* -3: left before finalize, step server lost */
#define MAPPING_MAX 1000     /* a longer PMI_process_mapping does not fit into a PMI-1 value */

struct step {
    struct step_config config;
    Mu__StepLaunch *launch; /* owned: unpacked memory of a branch, or built by the root */
    uint32_t me;            /* index in launch->nodes */
    uint32_t size;
    uint32_t *rank_node; /* [size] */
    uint32_t *rank_section;

    struct rank *ranks; /* of this node, ascending */
    uint32_t ranks_n;
    uint32_t exited_n; /* ended, or never started */
    uint32_t barrier_n;
    struct kvs *kvs;
    char *mapping; /* NULL: too long */
    struct gather *gather;
    struct pmixhost *pmix;
    uint32_t *pmix_rank_node; /* as rank_node, over the nodes that have ranks */
    const char **pmix_names;
    uint64_t modex_last;
    struct modex_waiting {
        struct modex_waiting *next;
        uint64_t id;
        struct pmixmod_event *event;
    } * modexes; /* our questions */
    struct modex_asked {
        struct modex_asked *next;
        uint64_t local_id, id;
        uint32_t from;
    } * asked; /* questions of other nodes: libpmix knows them by local_id */
    struct fence {
        struct fence *next;
        struct pmixmod_event *event;
        char *key;
    } * fences;            /* of libpmix, until the bytes come back */
    char tmpdir[PATH_MAX]; /* made when something needs it */
    struct event *fail_event;
    int fail_fd;    /* where ranks say why they do not start */
    int64_t credit; /* bytes of output that may be sent up */

    struct links *links;
    uint32_t *done;      /* per node, root and inner nodes: 1 when it is done */
    uint32_t done_below; /* branches (whole subtrees' nodes) that are done */
    uint32_t below;      /* how many nodes are below */

    struct event *kill_event, *grace_event, *timeout_event, *branch_event, *drain_event;
    bool root, tmpdir_made, reading_paused;
    bool output_seen; /* since the last look of the drain timer */
    bool ending, swept, local_done, finished;

    /* root */
    bool faulted, fault_quiet; /* quiet: end without a word */
    bool others_ended;         /* somebody had to be ended because of the fault */
    bool family_seen[3];
    uint32_t family_rank[3], family_node[3];
    uint32_t ranks_ended;
    Mu__StepFault *fault; /* the first */
};

static void check_over(struct step *s);
static void fault(struct step *s, int64_t rank, int code, uint32_t grace_ms, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));

/* ---- sending ---- */

#define FRAME(kind_, field, value)                                                                           \
    (&(Mu__StepFrame){.base = PROTOBUF_C_MESSAGE_INIT(&mu__step_frame__descriptor),                          \
                      .kind_case = MU__STEP_FRAME__KIND_##kind_,                                             \
                      .field = (value)})

static void up(struct step *s, Mu__StepFrame *f)
{
    s->config.up(s->config.arg, f);
}

static const char *node_name(const struct step *s, uint32_t node)
{
    return node < s->launch->n_nodes ? s->launch->nodes[node]->peer->name : "?";
}

static void note(struct step *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void note(struct step *s, const char *fmt, ...)
{
    if (!s->launch || !s->launch->request->verbose)
        return;
    struct buf b = BUF_INIT;
    va_list ap;
    va_start(ap, fmt);
    buf_addf(&b, "%s: ", node_name(s, s->me));
    buf_addv(&b, fmt, ap);
    va_end(ap);
    Mu__StepNote n = MU__STEP_NOTE__INIT;
    n.text = b.data;
    up(s, FRAME(NOTE, note, &n));
    buf_free(&b);
}

static void add_after(struct event *e, uint32_t ms)
{
    struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = (suseconds_t)(ms % 1000) * 1000};
    evtimer_add(e, &tv);
}

static struct event *after(struct step *s, uint32_t ms, event_callback_fn fn)
{
    struct event *e = evtimer_new(s->config.base, fn, s);
    add_after(e, ms);
    return e;
}

/* ---- ending ---- */

static void on_kill_time(evutil_socket_t fd, short what, void *arg)
{
    struct step *s = arg;
    for (uint32_t i = 0; i < s->ranks_n; i++)
        if (!s->ranks[i].exited)
            rank_signal(&s->ranks[i], SIGKILL);
    add_after(s->kill_event, GRACE_TERM_MS); /* until they are gone: a kill can miss what was just forked */
}

/* Bytes that nobody is left to write are not waited for: a process outside of the step can hold a
 * rank's output (it was handed over, or opened through /proc), and one of another user's we cannot end. */
static void on_drain_time(evutil_socket_t fd, short what, void *arg)
{
    struct step *s = arg;
    if (s->reading_paused || s->output_seen) { /* there is more, or the reader is slow */
        s->output_seen = false;
        add_after(s->drain_event, DRAIN_MS);
        return;
    }
    note(s, "output is still held open by a process outside of the step; it is not waited for");
    for (uint32_t i = 0; i < s->ranks_n; i++)
        rank_close_output(&s->ranks[i]);
    check_over(s);
}

static void on_branch_time(evutil_socket_t fd, short what, void *arg)
{
    struct step *s = arg;
    for (uint32_t n = 0; n < s->launch->n_nodes; n++) {
        if (tree_branch(s->me, n) && !s->done[n]) {
            note(s, "node %s did not confirm the end", node_name(s, n));
            s->done[n] = 1;
            s->done_below++;
        }
    }
    check_over(s);
}

static void end_here(struct step *s, uint32_t grace_ms)
{
    if (s->links) {
        Mu__StepEnd e = MU__STEP_END__INIT;
        e.grace_ms = grace_ms;
        links_send_all(s->links, FRAME(END, end, &e));
    }
    for (uint32_t i = 0; i < s->ranks_n; i++) {
        if (!s->ranks[i].exited) {
            rank_signal(&s->ranks[i], grace_ms ? SIGTERM : SIGKILL);
            rank_signal(&s->ranks[i], SIGCONT); /* a stopped process takes no SIGTERM */
        }
    }
    if (s->ending)
        return;
    s->ending = true;
    s->kill_event = after(s, grace_ms ? grace_ms : GRACE_TERM_MS, on_kill_time);
    if (s->below && !s->branch_event)
        s->branch_event = after(s, grace_ms + GRACE_BRANCH_MS, on_branch_time);
    check_over(s);
}

static void on_grace_time(evutil_socket_t fd, short what, void *arg)
{
    struct step *s = arg;
    s->others_ended = s->ranks_ended < s->size;
    end_here(s, GRACE_TERM_MS);
}

/* Root: the first fault is kept; whatever needs it more urgently shortens the grace. */
static void take_fault(struct step *s, const Mu__StepFault *f)
{
    if (!s->faulted) {
        s->faulted = true;
        s->fault = xmalloc(sizeof *s->fault);
        mu__step_fault__init(s->fault);
        s->fault->rank = f->rank;
        s->fault->node = f->node;
        s->fault->code = f->code;
        s->fault->text = xstrdup(f->text);
    }
    if (s->ending)
        return;
    if (f->grace_ms) {
        if (!s->grace_event)
            s->grace_event = after(s, f->grace_ms, on_grace_time);
        return;
    }
    s->others_ended = s->ranks_ended + 1 < s->size || !s->launch;
    end_here(s, GRACE_TERM_MS);
}

/* rank -1: the node itself. */
static void fault(struct step *s, int64_t rank, int code, uint32_t grace_ms, const char *fmt, ...)
{
    struct buf text = BUF_INIT;
    va_list ap;
    va_start(ap, fmt);
    buf_addv(&text, fmt, ap);
    va_end(ap);
    Mu__StepFault f = MU__STEP_FAULT__INIT;
    f.rank = rank;
    f.node = s->me;
    f.text = (char *)buf_str(&text);
    f.code = code;
    f.grace_ms = grace_ms;
    if (s->root)
        take_fault(s, &f);
    else
        up(s, FRAME(FAULT, fault, &f));
    buf_free(&text);
}

static void result(struct step *s)
{
    struct buf text = BUF_INIT;
    Mu__StepResult r = MU__STEP_RESULT__INIT;
    if (s->faulted) {
        r.code = s->fault->code;
        if (!s->fault_quiet) {
            if (s->fault->rank >= 0)
                buf_addf(&text, "rank %u on %s ", (unsigned)s->fault->rank, node_name(s, s->fault->node));
            buf_adds(&text, s->fault->text);
            if (s->others_ended)
                buf_adds(&text, "; the step was ended");
        }
        r.text = (char *)buf_str(&text);
    }
    up(s, FRAME(RESULT, result, &r));
    buf_free(&text);
}

/* All processes are gone from this node; is the subtree, is the step? */
static void check_over(struct step *s)
{
    if (s->finished)
        return;
    if (s->exited_n == s->ranks_n && !s->swept) {
        s->swept = true;
        for (uint32_t i = 0; i < s->ranks_n; i++)
            rank_signal(&s->ranks[i], SIGKILL); /* what a rank left behind in its group */
        for (uint32_t i = 0; i < s->ranks_n; i++)
            rank_reap(&s->ranks[i]);
        sweep_children();
    }
    if (!s->swept)
        return;
    for (uint32_t i = 0; i < s->ranks_n && !s->local_done; i++)
        if (!rank_drained(&s->ranks[i])) {
            if (!s->drain_event)
                s->drain_event = after(s, DRAIN_MS, on_drain_time);
            return;
        }
    if (!s->local_done) {
        s->local_done = true;
        if (!s->root && s->launch) {
            Mu__StepDone d = MU__STEP_DONE__INIT;
            d.node = s->me;
            up(s, FRAME(DONE, done, &d));
        }
    }
    if (s->done_below < s->below)
        return;
    s->finished = true;
    if (s->root)
        result(s);
    s->config.over(s->config.arg);
}

/* ---- what a rank tells ---- */

static struct rank *find_rank(struct step *s, uint32_t number)
{
    uint32_t lo = 0, hi = s->ranks_n;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (s->ranks[mid].number == number)
            return &s->ranks[mid];
        if (s->ranks[mid].number < number)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

static void pause_reading(struct step *s, bool pause)
{
    if (s->reading_paused == pause)
        return;
    s->reading_paused = pause;
    for (uint32_t i = 0; i < s->ranks_n; i++)
        rank_pause(&s->ranks[i], pause);
}

static void rank_output(void *arg, struct rank *r, int stream, const char *data, size_t len)
{
    struct step *s = arg;
    Mu__StepOutput o = MU__STEP_OUTPUT__INIT;
    o.node = s->me;
    o.rank = r->number;
    o.stream = (uint32_t)stream;
    o.data = (ProtobufCBinaryData){len, (uint8_t *)data};
    s->output_seen = true;
    s->credit -= (int64_t)len;
    if (s->credit <= 0)
        pause_reading(s, true);
    up(s, FRAME(OUTPUT, output, &o));
    if (!len)
        check_over(s);
}

static void rank_input_taken(void *arg, struct rank *r, size_t len)
{
    Mu__StepInputCredit c = MU__STEP_INPUT_CREDIT__INIT;
    c.bytes = (uint32_t)len;
    up(arg, FRAME(INPUT_CREDIT, input_credit, &c));
}

/* Root: two families in one step cannot talk to each other. */
static void take_family(struct step *s, uint32_t rank, uint32_t node, uint32_t family)
{
    static const char *const names[] = {"", "PMI-1 (MPICH, Intel MPI)", "PMIx (Open MPI)"};
    if (family < FAMILY_PMI1 || family > FAMILY_PMIX)
        return;
    if (!s->family_seen[family]) {
        s->family_seen[family] = true;
        s->family_rank[family] = rank;
        s->family_node[family] = node;
    }
    if (s->family_seen[FAMILY_PMI1] && s->family_seen[FAMILY_PMIX])
        fault(s, -1, CODE_STARTED_NOT, 0,
              "mixed MPI families in one step: rank %u on %s speaks %s, rank %u on %s speaks %s",
              s->family_rank[1], node_name(s, s->family_node[1]), names[1], s->family_rank[2],
              node_name(s, s->family_node[2]), names[2]);
}

static void rank_family(void *arg, struct rank *r, enum family family)
{
    struct step *s = arg;
    if (s->root) {
        take_family(s, r->number, s->me, family);
        return;
    }
    if (s->family_seen[family])
        return;
    s->family_seen[family] = true;
    Mu__StepFamily f = MU__STEP_FAMILY__INIT;
    f.rank = r->number;
    f.family = family;
    up(s, FRAME(FAMILY, family, &f));
}

static void contribute(struct step *s, const char *key, const uint32_t *ranks, size_t n, const void *data,
                       size_t len)
{
    struct error err;
    if (gather_add(s->gather, key, ranks, n, data, len, &err))
        fault(s, -1, CODE_LOST, 0, "node %s: %s", node_name(s, s->me), err.text);
}

static void rank_barrier(void *arg, struct rank *r)
{
    struct step *s = arg;
    if (++s->barrier_n < s->ranks_n)
        return;
    s->barrier_n = 0;
    struct buf puts = BUF_INIT;
    kvs_take_puts(s->kvs, &puts);
    contribute(s, "pmi1", NULL, 0, puts.data, puts.len);
    buf_free(&puts);
}

static void rank_abort(void *arg, struct rank *r, int code, const char *text)
{
    fault(arg, r->number, code & 0xff ? code & 0xff : 1, 0, "called MPI_Abort with code %d%s%s", code,
          text[0] ? ": " : "", text);
}

static void on_silent_time(evutil_socket_t fd, short what, void *arg)
{
    struct rank *r = arg;
    struct step *s = r->arg;
    if (!r->exited && !s->ending)
        fault(s, r->number, CODE_LOST, 0, "closed its PMI connection before MPI_Finalize");
}

static void rank_hung_up(void *arg, struct rank *r)
{
    struct step *s = arg;
    const struct timeval wait = {.tv_usec = GRACE_SILENT_MS * 1000};
    event_base_once(s->config.base, -1, EV_TIMEOUT, on_silent_time, r, &wait);
}

static void rank_broken(void *arg, struct rank *r, const struct error *err)
{
    fault(arg, r->number, CODE_LOST, 0, "broke the PMI conversation: %s", err->text);
}

/* What children said that did not get as far as their program. */
static void on_start_failure(evutil_socket_t fd, short what, void *arg)
{
    struct step *s = arg;
    struct spawn_failure f;
    while (read(fd, &f, sizeof f) == sizeof f) {
        struct rank *r = find_rank(s, f.tag);
        if (!r)
            continue;
        const Mu__StepSection *k = s->launch->request->sections[s->rank_section[r->number]];
        struct error err;
        spawn_failure_text(&f, k->argv[0], k->wdir, &err);
        r->unstarted = true;
        fault(s, r->number, CODE_STARTED_NOT, 0, "cannot be started: %s", err.text);
    }
}

static void blame(struct step *s, struct rank *r)
{
    int status = r->status;
    on_start_failure(event_get_fd(s->fail_event), EV_READ, s); /* said before it ended */
    if (s->pmix)
        pmixhost_catch_up(s->pmix); /* so was this */
    if (r->unstarted)
        return;
    bool early = r->family != FAMILY_NONE && !r->finalized;
    if (WIFSIGNALED(status)) {
        int sig = WTERMSIG(status);
        fault(s, r->number, 128 + sig, 0, "was killed by signal %d (%s)", sig, strsignal(sig));
    } else if (early && WEXITSTATUS(status) == 0) {
        fault(s, r->number, CODE_LOST, 0, "exited with code 0 before MPI_Finalize");
    } else if (WEXITSTATUS(status)) {
        fault(s, r->number, WEXITSTATUS(status), early ? 0 : GRACE_EXIT_MS, "exited with code %d%s",
              WEXITSTATUS(status), early ? " before MPI_Finalize" : "");
    }
}

/* Root. */
static void take_exit(struct step *s, uint32_t n)
{
    s->ranks_ended += n;
}

static void rank_exited(void *arg, struct rank *r)
{
    struct step *s = arg;
    s->exited_n++;
    if (!s->ending)
        blame(s, r);
    if (s->root) {
        take_exit(s, 1);
    } else {
        Mu__StepExit e = MU__STEP_EXIT__INIT;
        e.node = s->me;
        e.rank = r->number;
        e.status = r->status;
        up(s, FRAME(EXIT, exit, &e));
    }
    check_over(s);
}

static const struct rank_ops rank_ops = {
    .output = rank_output,
    .input_taken = rank_input_taken,
    .family = rank_family,
    .barrier = rank_barrier,
    .abort = rank_abort,
    .broken = rank_broken,
    .hung_up = rank_hung_up,
    .exited = rank_exited,
};

/* ---- operations over all nodes ---- */

static uint32_t gather_expected(void *arg, const uint32_t *ranks, size_t n)
{
    struct step *s = arg;
    uint32_t first = s->links ? links_first(s->links) : 0, count = s->links ? links_count(s->links) : 0;
    if (!n)
        return (s->ranks_n ? 1 : 0) + count; /* only a root can be without ranks */
    bool *in = xcalloc(count + 1, sizeof *in);
    uint32_t expected = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t node = ranks[i] < s->size ? s->rank_node[ranks[i]] : UINT32_MAX;
        uint32_t branch = node == UINT32_MAX ? 0 : tree_branch(s->me, node);
        uint32_t slot = node == s->me ? count : branch ? branch - first : UINT32_MAX;
        if (slot != UINT32_MAX && !in[slot]) {
            in[slot] = true;
            expected++;
        }
    }
    free(in);
    return expected;
}

static void release_pmi1(struct step *s, const Mu__StepRelease *r)
{
    struct error err;
    if (kvs_merge(s->kvs, r->data.data, r->data.len, &err)) {
        fault(s, -1, CODE_LOST, 0, "node %s: %s", node_name(s, s->me), err.text);
        return;
    }
    for (uint32_t i = 0; i < s->ranks_n; i++)
        if (s->ranks[i].pmi && s->ranks[i].comm.fd >= 0)
            pmi1_barrier_out(s->ranks[i].pmi);
}

static void release_pmix(struct step *s, const Mu__StepRelease *r)
{
    for (struct fence **at = &s->fences; *at; at = &(*at)->next) {
        struct fence *f = *at;
        if (strcmp(f->key, r->key))
            continue;
        *at = f->next;
        pmixhost_answer(s->pmix, f->event, 0, r->data.data, r->data.len);
        free(f->key);
        free(f);
        return;
    }
}

static void release(struct step *s, Mu__StepRelease *r)
{
    if (s->links)
        links_send_all(s->links, FRAME(RELEASE, release, r));
    if (!strcmp(r->key, "pmi1"))
        release_pmi1(s, r);
    else if (s->pmix)
        release_pmix(s, r);
}

static void gather_complete(void *arg, const char *key, const uint32_t *ranks, size_t n,
                            const struct buf *data)
{
    struct step *s = arg;
    ProtobufCBinaryData bytes = {data->len, (uint8_t *)data->data};
    if (s->root) {
        Mu__StepRelease r = MU__STEP_RELEASE__INIT;
        r.key = (char *)key;
        r.data = bytes;
        release(s, &r);
        return;
    }
    Mu__StepGather g = MU__STEP_GATHER__INIT;
    g.key = (char *)key;
    g.data = bytes;
    g.ranks = (uint32_t *)ranks;
    g.n_ranks = n;
    up(s, FRAME(GATHER, gather, &g));
}

static const struct gather_ops gather_ops = {.complete = gather_complete, .expected = gather_expected};

/* ---- PMIx ---- */

/* Its name is in every rank's environment; itself it is made when libpmix starts, or now. */
static void name_tmpdir(struct step *s)
{
    const Mu__StepContext *c = s->config.context;
    const char *parent = c && c->run_dir && c->run_dir[0] ? c->run_dir : "/tmp";
    snprintf(s->tmpdir, sizeof s->tmpdir, "%s/mpi-%s-%u", parent, s->launch->nspace + strlen("muster-"),
             s->me);
}

static int make_tmpdir(struct step *s, struct error *err)
{
    /* The name is random, and an existing one is refused: nobody can have put it there for us. */
    if (!s->tmpdir_made && mkdir(s->tmpdir, 0700))
        return error_sys(err, "cannot make folder %s", s->tmpdir);
    s->tmpdir_made = true;
    return 0;
}

static void route(struct step *s, uint32_t to, Mu__StepFrame *f)
{
    uint32_t branch = tree_branch(s->me, to);
    if (branch && s->links)
        links_send(s->links, branch, f);
    else if (!s->root)
        up(s, f);
}

static void pmix_fence(struct step *s, struct pmixmod_event *e)
{
    struct buf key = BUF_INIT;
    buf_adds(&key, "pmix");
    for (size_t i = 0; i < e->ranks_n; i++)
        buf_addf(&key, ",%u", e->ranks[i]);
    struct fence *f = xcalloc(1, sizeof *f);
    f->event = e;
    f->key = buf_detach(&key);
    f->next = s->fences;
    s->fences = f;
    /* The bytes are copied before the answer may free the event. */
    struct buf data = e->data;
    e->data = (struct buf)BUF_INIT;
    uint32_t *ranks = xmemdup(e->ranks, e->ranks_n * sizeof *ranks);
    char *name = xstrdup(f->key);
    contribute(s, name, ranks, e->ranks_n, data.data, data.len);
    free(name);
    free(ranks);
    buf_free(&data);
}

static void pmix_modex(struct step *s, struct pmixmod_event *e)
{
    if (e->rank >= s->size) {
        pmixhost_answer(s->pmix, e, -1, NULL, 0);
        return;
    }
    struct modex_waiting *w = xcalloc(1, sizeof *w);
    w->id = ++s->modex_last;
    w->event = e;
    w->next = s->modexes;
    s->modexes = w;
    Mu__StepModex m = MU__STEP_MODEX__INIT;
    m.from = s->me;
    m.to = s->rank_node[e->rank];
    m.id = w->id;
    m.rank = e->rank;
    route(s, m.to, FRAME(MODEX, modex, &m));
}

static void take_modex(struct step *s, const Mu__StepModex *m)
{
    struct modex_asked *a = xcalloc(1, sizeof *a);
    a->local_id = ++s->modex_last;
    a->id = m->id;
    a->from = m->from;
    a->next = s->asked;
    s->asked = a;
    if (s->pmix && pmixhost_modex(s->pmix, m->rank, a->local_id) == 0)
        return;
    /* libpmix waits for an answer: a node that cannot give one says so. */
    s->asked = a->next;
    free(a);
    Mu__StepModexReply r = MU__STEP_MODEX_REPLY__INIT;
    r.to = m->from;
    r.id = m->id;
    r.status = -1;
    route(s, r.to, FRAME(MODEX_REPLY, modex_reply, &r));
}

static void pmix_modex_local(struct step *s, struct pmixmod_event *e)
{
    for (struct modex_asked **at = &s->asked; *at; at = &(*at)->next) {
        struct modex_asked *a = *at;
        if (a->local_id != e->id)
            continue;
        *at = a->next;
        Mu__StepModexReply r = MU__STEP_MODEX_REPLY__INIT;
        r.to = a->from;
        r.id = a->id;
        r.status = e->status;
        r.data = (ProtobufCBinaryData){e->data.len, (uint8_t *)e->data.data};
        route(s, r.to, FRAME(MODEX_REPLY, modex_reply, &r));
        free(a);
        break;
    }
    pmixhost_answer(s->pmix, e, 0, NULL, 0);
}

static void take_modex_reply(struct step *s, const Mu__StepModexReply *r)
{
    for (struct modex_waiting **at = &s->modexes; *at; at = &(*at)->next) {
        struct modex_waiting *w = *at;
        if (w->id != r->id)
            continue;
        *at = w->next;
        pmixhost_answer(s->pmix, w->event, r->status, r->data.data, r->data.len);
        free(w);
        return;
    }
}

static void pmix_event(void *arg, struct pmixmod_event *e)
{
    struct step *s = arg;
    struct rank *r = find_rank(s, e->rank);
    switch (e->kind) {
    case PMIXMOD_CONNECTED:
        if (r)
            rank_set_family(r, FAMILY_PMIX);
        pmixhost_answer(s->pmix, e, r ? 0 : -1, NULL, 0);
        break;
    case PMIXMOD_FINALIZED:
        if (r)
            r->finalized = true;
        pmixhost_answer(s->pmix, e, 0, NULL, 0);
        break;
    case PMIXMOD_ABORT:
        if (r)
            rank_abort(s, r, e->status, "");
        pmixhost_answer(s->pmix, e, 0, NULL, 0);
        break;
    case PMIXMOD_FENCE:
        pmix_fence(s, e);
        break;
    case PMIXMOD_MODEX:
        pmix_modex(s, e);
        break;
    case PMIXMOD_MODEX_LOCAL:
        pmix_modex_local(s, e);
        break;
    }
}

static void pmix_failed(void *arg, const struct error *err)
{
    struct step *s = arg;
    fault(s, -1, CODE_STARTED_NOT, 0, "node %s: %s", node_name(s, s->me), err->text);
}

static void pmix_refused(void *arg, uid_t uid)
{
    note(arg, "PMIx: a connection of user %d was refused", (int)uid);
}

static int pmix_starting(void *arg, struct error *err)
{
    return make_tmpdir(arg, err);
}

static const struct pmixhost_ops pmixhost_ops = {
    .starting = pmix_starting, .event = pmix_event, .failed = pmix_failed, .refused = pmix_refused};

/* Nodes without ranks (a root that only directs) are not in PMIx's map. */
static void open_pmix(struct step *s)
{
    uint32_t nodes = (uint32_t)s->launch->n_nodes, dense = 0;
    uint32_t *to_dense = xcalloc(nodes, sizeof *to_dense);
    s->pmix_names = xcalloc(nodes, sizeof *s->pmix_names);
    s->pmix_rank_node = xcalloc(s->size, sizeof *s->pmix_rank_node);
    for (uint32_t i = 0; i < nodes; i++) {
        if (!s->launch->nodes[i]->ranks)
            continue;
        s->pmix_names[dense] = node_name(s, i);
        to_dense[i] = dense++;
    }
    for (uint32_t r = 0; r < s->size; r++)
        s->pmix_rank_node[r] = to_dense[s->rank_node[r]];
    struct pmixmod_setup setup = {.nspace = s->launch->nspace,
                                  .size = s->size,
                                  .rank_node = s->pmix_rank_node,
                                  .node_names = s->pmix_names,
                                  .nodes = dense,
                                  .my_node = to_dense[s->me],
                                  .uid = geteuid(),
                                  .gid = getegid(),
                                  .tmpdir = s->tmpdir};
    free(to_dense);
    char *folder = NULL;
    const Mu__StepContext *c = s->config.context;
    if (c && c->hwloc_xml && c->hwloc_xml[0] == '/') {
        folder = xstrdup(c->hwloc_xml);
        *strrchr(folder, '/') = 0;
    }
    struct error err;
    s->pmix = pmixhost_new(s->config.base, &setup, folder, &pmixhost_ops, s, &err);
    free(folder);
    if (!s->pmix)
        note(s, "PMIx is not offered, PMI-1 is: %s", err.text);
}

/* ---- starting ---- */

static void map_ranks(struct step *s)
{
    const Mu__StepLaunch *l = s->launch;
    s->rank_node = xcalloc(s->size, sizeof *s->rank_node);
    s->rank_section = xcalloc(s->size, sizeof *s->rank_section);
    uint32_t *nodes = xcalloc(l->n_blocks, sizeof *nodes), *counts = xcalloc(l->n_blocks, sizeof *counts);
    uint32_t *dense = xcalloc(l->n_nodes, sizeof *dense), next = 0, r = 0;
    for (size_t i = 0; i < l->n_nodes; i++)
        dense[i] = l->nodes[i]->ranks ? next++ : 0;
    for (size_t b = 0; b < l->n_blocks; b++) {
        nodes[b] = dense[l->blocks[b]->node];
        counts[b] = l->blocks[b]->ranks;
        for (uint32_t i = 0; i < counts[b]; i++)
            s->rank_node[r++] = l->blocks[b]->node;
    }
    r = 0;
    for (size_t k = 0; k < l->request->n_sections; k++)
        for (uint32_t i = 0; i < l->request->sections[k]->ranks; i++)
            s->rank_section[r++] = (uint32_t)k;
    struct buf mapping = BUF_INIT;
    pmi1_mapping(nodes, counts, l->n_blocks, &mapping);
    if (mapping.len <= MAPPING_MAX)
        s->mapping = buf_detach(&mapping);
    buf_free(&mapping);
    free(nodes);
    free(counts);
    free(dense);
}

static uint32_t ranks_on_host(const struct step *s)
{
    const Mu__StepLaunch *l = s->launch;
    const char *host = l->nodes[s->me]->peer->physical_host;
    uint32_t sum = 0;
    for (size_t i = 0; i < l->n_nodes; i++)
        if (i == s->me || (host && host[0] && !strcmp(host, l->nodes[i]->peer->physical_host)))
            sum += l->nodes[i]->ranks;
    return sum;
}

static struct rankenv *section_env(struct step *s, uint32_t section)
{
    const Mu__StepRequest *q = s->launch->request;
    const Mu__StepContext *c = s->config.context;
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    struct rankenv_facts facts = {
        .pmix = s->pmix != NULL,
        .own_network = c && c->interface && c->interface[0],
        .interface = c && c->interface ? c->interface : "",
        .crowded = ranks_on_host(s) > (uint32_t)online,
        .shared_name = s->launch->same_kernel_names,
        .tmpdir = s->tmpdir,
        .hostname = node_name(s, s->me),
    };
    const Mu__StepSection *k = q->sections[section];
    return rankenv_new(q->env, q->n_env, k->env, k->n_env, &facts);
}

static void set_env(void *arg, const char *name, const char *value)
{
    rankenv_set(arg, name, value);
}

/* What launchers of both families tell a rank, and scripts read (to choose a GPU, to name a file). */
static void set_rank_numbers(struct rankenv *env, uint32_t rank, uint32_t local)
{
    static const char *const global_names[] = {"PMI_RANK", "OMPI_COMM_WORLD_RANK"};
    static const char *const local_names[] = {"MPI_LOCALRANKID", "OMPI_COMM_WORLD_LOCAL_RANK"};
    char global_text[16], local_text[16];
    snprintf(global_text, sizeof global_text, "%u", rank);
    snprintf(local_text, sizeof local_text, "%u", local);
    for (size_t i = 0; i < 2; i++) {
        rankenv_set(env, global_names[i], global_text);
        rankenv_set(env, local_names[i], local_text);
    }
}

static void set_sizes(struct rankenv *env, uint32_t ranks, uint32_t local)
{
    char text[16];
    snprintf(text, sizeof text, "%u", ranks);
    rankenv_set(env, "PMI_SIZE", text);
    rankenv_set(env, "OMPI_COMM_WORLD_SIZE", text);
    snprintf(text, sizeof text, "%u", local);
    rankenv_set(env, "MPI_LOCALNRANKS", text);
    rankenv_set(env, "OMPI_COMM_WORLD_LOCAL_SIZE", text);
}

static int start_rank(struct step *s, struct rank *r, struct rankenv *env, const char *path,
                      const struct affinity *affinity, struct error *err)
{
    const Mu__StepSection *k = s->launch->request->sections[s->rank_section[r->number]];
    set_rank_numbers(env, r->number, (uint32_t)(r - s->ranks));
    if (s->pmix)
        pmixhost_env(s->pmix, r->number, false, set_env, env);
    struct rank_start start = {
        .base = s->config.base,
        .wants_input = r->number == 0,
        .fail_fd = s->fail_fd,
        .spawn = {.path = path, .argv = k->argv, .envp = rankenv_vector(env), .wdir = k->wdir},
        .pmi = {.rank = r->number,
                .size = s->size,
                .universe = s->size,
                .appnum = s->rank_section[r->number],
                .kvsname = s->launch->nspace,
                .mapping = s->mapping,
                .kvs = s->kvs},
    };
    if (affinity)
        affinity_get(affinity, (uint32_t)(r - s->ranks), &start.spawn.cpus, &start.spawn.cpus_size);
    return rank_start(r, &start, err);
}

/* argv of protobuf lists is not NULL-terminated. */
static void terminate_argv(Mu__StepSection *k)
{
    k->argv = xrealloc(k->argv, (k->n_argv + 1) * sizeof *k->argv);
    k->argv[k->n_argv] = NULL;
}

static int start_ranks(struct step *s, const struct affinity *affinity)
{
    struct rankenv *env = NULL;
    char *path = NULL;
    uint32_t section = UINT32_MAX;
    struct error err;
    int rc = 0;
    for (uint32_t i = 0; i < s->ranks_n && rc == 0; i++) {
        struct rank *r = &s->ranks[i];
        if (s->rank_section[r->number] != section) {
            section = s->rank_section[r->number];
            Mu__StepSection *k = s->launch->request->sections[section];
            rankenv_free(env);
            free(path);
            env = section_env(s, section);
            set_sizes(env, s->size, s->ranks_n);
            rankenv_set(env, "PMI_FD", "3");
            if (s->pmix)
                pmixhost_env(s->pmix, 0, true, set_env, env);
            path = spawn_lookup(k->argv[0], rankenv_get(env, "PATH"), k->wdir, &err);
        }
        if (!path || start_rank(s, r, env, path, affinity, &err)) {
            fault(s, r->number, CODE_STARTED_NOT, 0, "cannot be started: %s", err.text);
            rc = -1;
        }
    }
    rankenv_free(env);
    free(path);
    return rc;
}

/* Up to 4 descriptors per rank here, 2 more per PMIx connection. */
static void raise_descriptor_limit(uint32_t ranks)
{
    struct rlimit l;
    if (getrlimit(RLIMIT_NOFILE, &l) || l.rlim_cur >= 64 + (rlim_t)ranks * 8)
        return;
    l.rlim_cur = 64 + (rlim_t)ranks * 8 < l.rlim_max ? 64 + (rlim_t)ranks * 8 : l.rlim_max;
    setrlimit(RLIMIT_NOFILE, &l);
}

static void from_below(void *arg, uint32_t node, Mu__StepFrame *f);

static void branch_lost(void *arg, uint32_t node, const struct error *err)
{
    struct step *s = arg;
    bool early = false; /* it closes its connection at its end too */
    for (uint32_t i = 0; i < s->launch->n_nodes; i++) {
        if ((i == node || tree_branch(node, i)) && !s->done[i]) {
            s->done[i] = 1;
            s->done_below++;
            early = true;
        }
    }
    if (early && !s->ending)
        fault(s, -1, CODE_LOST, 0, "step server on node %s was lost: %s", node_name(s, node), err->text);
    check_over(s);
}

static const struct links_ops links_ops = {.frame = from_below, .lost = branch_lost};

static int connect_branches(struct step *s, struct error *err)
{
    s->done = xcalloc(s->launch->n_nodes, sizeof *s->done);
    for (uint32_t i = 0; i < s->launch->n_nodes; i++)
        if (tree_branch(s->me, i))
            s->below++;
    if (!s->below)
        return 0;
    const Mu__StepContext *c = s->config.context;
    s->links = links_new(s->config.base, s->launch, s->me, c->psk.data, c->psk.len, &links_ops, s, err);
    if (s->links)
        return 0;
    s->done_below = s->below;
    return -1;
}

static int prepare_start(struct step *s, struct error *err)
{
    int fds[2];
    name_tmpdir(s);
    if (s->launch->same_kernel_names && make_tmpdir(s, err))
        return -1;
    if (pipe2(fds, O_CLOEXEC | O_NONBLOCK))
        return error_sys(err, "cannot make a pipe");
    s->fail_event = event_new(s->config.base, fds[0], EV_READ | EV_PERSIST, on_start_failure, s);
    event_add(s->fail_event, NULL);
    s->fail_fd = fds[1];
    return 0;
}

/* NULL: nothing is bound, and --verbose says why. */
static struct affinity *bind_ranks(struct step *s)
{
    struct error err;
    if (s->launch->nodes[s->me]->peer->virtual_cores) {
        note(s, "affinity is noted and not applied: the node's cores are virtual");
        return NULL;
    }
    struct affinity *a = affinity_new(s->ranks_n, &err);
    if (!a)
        note(s, "affinity is not applied: %s", err.text);
    return a;
}

/* Everything on this node, and below it. The launch is known and checked. */
static void launch(struct step *s)
{
    struct error err;
    const Mu__StepLaunch *l = s->launch;
    s->size = 0;
    for (size_t i = 0; i < l->n_blocks; i++)
        s->size += l->blocks[i]->ranks;
    map_ranks(s);
    s->kvs = kvs_new();
    s->gather = gather_new(&gather_ops, s);
    s->credit = l->window;
    bool connected = connect_branches(s, &err) == 0;
    if (!connected)
        fault(s, -1, CODE_STARTED_NOT, 0, "node %s: %s", node_name(s, s->me), err.text);
    s->ranks_n = l->nodes[s->me]->ranks;
    s->ranks = xcalloc(s->ranks_n, sizeof *s->ranks);
    uint32_t at = 0;
    for (uint32_t r = 0; r < s->size; r++) {
        if (s->rank_node[r] != s->me)
            continue;
        assert(at < s->ranks_n);
        struct rank *k = &s->ranks[at++];
        k->ops = &rank_ops;
        k->arg = s;
        k->number = r;
        k->exit.fd = k->out[0].fd = k->out[1].fd = k->in.fd = k->comm.fd = -1;
    }
    for (size_t i = 0; i < l->request->n_sections; i++)
        terminate_argv(l->request->sections[i]);
    if (s->root) {
        Mu__StepStarted started = MU__STEP_STARTED__INIT;
        started.ranks = s->size;
        started.nodes = (uint32_t)l->n_nodes;
        started.window = l->window;
        up(s, FRAME(STARTED, started, &started));
    }
    raise_descriptor_limit(s->ranks_n);
    sweep_begin();
    struct affinity *affinity = NULL;
    if (!connected) {
        /* nothing is started */
    } else if (s->ranks_n && prepare_start(s, &err)) {
        fault(s, -1, CODE_STARTED_NOT, 0, "node %s: %s", node_name(s, s->me), err.text);
    } else if (s->ranks_n) {
        open_pmix(s);
        if (l->request->affinity)
            affinity = bind_ranks(s);
        start_ranks(s, affinity);
        affinity_free(affinity);
    }
    for (uint32_t i = 0; i < s->ranks_n; i++) {
        if (!s->ranks[i].pid) { /* never started */
            s->ranks[i].exited = true;
            s->exited_n++;
            if (s->root)
                take_exit(s, 1);
        }
    }
    check_over(s);
}

/* ---- root: the plan ---- */

static void refuse(struct step *s, int code, const char *text)
{
    Mu__StepResult r = MU__STEP_RESULT__INIT;
    r.code = code;
    r.text = (char *)text;
    s->finished = true;
    up(s, FRAME(RESULT, result, &r));
    s->config.over(s->config.arg);
}

static void on_timeout(evutil_socket_t fd, short what, void *arg)
{
    struct step *s = arg;
    fault(s, -1, CODE_TIMEOUT, 0, "the run took longer than %u s (-timeout)", s->launch->request->timeout_s);
}

static void take_request(struct step *s, const Mu__StepRequest *q)
{
    const Mu__StepContext *c = s->config.context;
    s->root = true;
    /* Inside an allocation a PMIx server of root's would hand root's ear to a user's bytes. Outside,
     * root's own mpiexec serves root's own ranks: nothing is crossed that was not open before. */
    if (c && geteuid() == 0) {
        refuse(s, CODE_STARTED_NOT,
               "the step server does not run as root inside an allocation; run the job as a user");
        return;
    }
    struct error err;
    s->launch = launch_plan(q, c, &err);
    if (!s->launch) {
        refuse(s, err.code == ERR_USAGE ? 2 : CODE_STARTED_NOT, err.text);
        return;
    }
    if (q->timeout_s)
        s->timeout_event = after(s, q->timeout_s * 1000, on_timeout);
    launch(s);
}

/* ---- branch: the order ---- */

static void take_launch(struct step *s, const Mu__StepLaunch *order)
{
    s->launch = launch_take(order);
    if (!s->launch) {
        Mu__StepFault f = MU__STEP_FAULT__INIT;
        f.rank = -1;
        f.text = (char *)"a branch of the step got an order that makes no sense";
        f.code = CODE_STARTED_NOT;
        up(s, FRAME(FAULT, fault, &f));
        s->finished = true;
        s->config.over(s->config.arg);
        return;
    }
    s->me = s->launch->index;
    if (geteuid() == 0)
        fault(s, -1, CODE_STARTED_NOT, 0,
              "node %s: the step server does not run as root inside an allocation", node_name(s, s->me));
    else
        launch(s);
}

/* ---- frames ---- */

static void take_credit(struct step *s, Mu__StepFrame *f)
{
    const Mu__StepCredit *c = f->credit;
    if (c->node != s->me) {
        route(s, c->node, f);
        return;
    }
    s->credit += c->bytes;
    if (s->credit > (int64_t)s->launch->window)
        s->credit = s->launch->window;
    if (s->credit > 0)
        pause_reading(s, false);
}

static void take_input(struct step *s, Mu__StepFrame *f)
{
    uint32_t node = s->size ? s->rank_node[0] : s->me;
    struct rank *r = node == s->me ? find_rank(s, 0) : NULL;
    if (node != s->me)
        route(s, node, f);
    else if (r)
        rank_input(r, f->input->data.data, f->input->data.len);
}

static void take_end(struct step *s, const Mu__StepEnd *e)
{
    if (!s->root) {
        end_here(s, e->grace_ms);
        return;
    }
    if (!s->faulted) {
        fault(s, -1, e->code, 0, "%s", e->cause);
        s->fault_quiet = !e->cause[0];
    } else {
        end_here(s, e->grace_ms);
    }
}

void step_frame(struct step *s, Mu__StepFrame *f)
{
    if (f->kind_case == MU__STEP_FRAME__KIND_REQUEST && !s->launch) {
        take_request(s, f->request);
        return;
    }
    if (f->kind_case == MU__STEP_FRAME__KIND_LAUNCH && !s->launch) {
        take_launch(s, f->launch);
        return;
    }
    if (!s->launch || s->finished)
        return;
    switch (f->kind_case) {
    case MU__STEP_FRAME__KIND_CREDIT:
        take_credit(s, f);
        break;
    case MU__STEP_FRAME__KIND_INPUT:
        take_input(s, f);
        break;
    case MU__STEP_FRAME__KIND_END:
        take_end(s, f->end);
        break;
    case MU__STEP_FRAME__KIND_RELEASE:
        if (!s->root)
            release(s, f->release);
        break;
    case MU__STEP_FRAME__KIND_MODEX:
    case MU__STEP_FRAME__KIND_MODEX_REPLY:
        from_below(s, 0, f);
        break;
    default:
        break; /* a newer peer's: nothing that this step would have to do */
    }
}

static void take_done(struct step *s, Mu__StepFrame *f)
{
    uint32_t node = f->done->node;
    if (!tree_branch(s->me, node) || node >= s->launch->n_nodes || s->done[node])
        return;
    s->done[node] = 1;
    s->done_below++;
    if (!s->root)
        up(s, f);
    check_over(s);
}

/* What goes up, and what goes across. */
static void from_below(void *arg, uint32_t node, Mu__StepFrame *f)
{
    struct step *s = arg;
    switch (f->kind_case) {
    case MU__STEP_FRAME__KIND_OUTPUT:
    case MU__STEP_FRAME__KIND_INPUT_CREDIT:
    case MU__STEP_FRAME__KIND_NOTE:
        up(s, f);
        break;
    case MU__STEP_FRAME__KIND_FAMILY:
        if (s->root)
            take_family(s, f->family->rank, f->family->rank < s->size ? s->rank_node[f->family->rank] : 0,
                        f->family->family);
        else
            up(s, f);
        break;
    case MU__STEP_FRAME__KIND_EXIT:
        if (s->root)
            take_exit(s, 1);
        else
            up(s, f);
        break;
    case MU__STEP_FRAME__KIND_FAULT:
        if (s->root)
            take_fault(s, f->fault);
        else
            up(s, f);
        break;
    case MU__STEP_FRAME__KIND_DONE:
        take_done(s, f);
        break;
    case MU__STEP_FRAME__KIND_GATHER:
        contribute(s, f->gather->key, f->gather->ranks, f->gather->n_ranks, f->gather->data.data,
                   f->gather->data.len);
        break;
    case MU__STEP_FRAME__KIND_MODEX:
        if (f->modex->to == s->me)
            take_modex(s, f->modex);
        else
            route(s, f->modex->to, f);
        break;
    case MU__STEP_FRAME__KIND_MODEX_REPLY:
        if (f->modex_reply->to == s->me)
            take_modex_reply(s, f->modex_reply);
        else
            route(s, f->modex_reply->to, f);
        break;
    default:
        break;
    }
}

void step_abandoned(struct step *s)
{
    if (!s->launch) {
        s->finished = true;
        s->config.over(s->config.arg);
        return;
    }
    pause_reading(s, false);
    end_here(s, 0);
}

struct step *step_new(const struct step_config *config)
{
    struct step *s = xcalloc(1, sizeof *s);
    s->config = *config;
    return s;
}

static void free_event(struct event *e)
{
    if (e)
        event_free(e);
}

void step_free(struct step *s)
{
    if (!s)
        return;
    for (uint32_t i = 0; i < s->ranks_n; i++)
        rank_release(&s->ranks[i]);
    free(s->ranks);
    pmixhost_free(s->pmix);
    links_free(s->links);
    gather_free(s->gather);
    kvs_free(s->kvs);
    free_event(s->kill_event);
    free_event(s->grace_event);
    free_event(s->timeout_event);
    free_event(s->branch_event);
    free_event(s->drain_event);
    if (s->fail_event) {
        close(event_get_fd(s->fail_event));
        close(s->fail_fd);
        event_free(s->fail_event);
    }
    if (s->tmpdir_made)
        file_remove_tree(AT_FDCWD, s->tmpdir, NULL);
    for (struct fence *f = s->fences, *next; f; f = next) {
        next = f->next;
        free(f->key);
        free(f); /* its event belongs to libpmix's last breath: the process ends now */
    }
    for (struct modex_waiting *w = s->modexes, *next; w; w = next) {
        next = w->next;
        free(w);
    }
    for (struct modex_asked *a = s->asked, *next; a; a = next) {
        next = a->next;
        free(a);
    }
    free(s->mapping);
    free(s->rank_node);
    free(s->rank_section);
    free(s->pmix_rank_node);
    free(s->pmix_names);
    free(s->done);
    if (s->fault) {
        free(s->fault->text);
        free(s->fault);
    }
    if (s->launch)
        mu__step_launch__free_unpacked(s->launch, NULL);
    free(s);
}
