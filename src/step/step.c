/* step.c - one node's part of an MPI step.
 *
 * Life: REQUEST (root: plan) or LAUNCH (branch) -> ranks are forked, children connected -> ranks run
 * -> all have ended, or a fault ended them (step_end.c) -> processes that they left are killed, output
 * is drained -> DONE goes up when all branches below are done -> root: RESULT.
 *
 * What arrives is a frame from above (step_frame), a frame from a branch (from_below), or something that
 * a rank of this node does (rank_ops; of libpmix: step_pmix.c). All run on one loop, in one thread.
 */
#include "step/step_private.h"
#include "base/file.h"
#include "base/mem.h"
#include "step/affinity.h"
#include "step/launch.h"
#include "step/rankenv.h"
#include "step/sweep.h"
#include "step/tree.h"

#include <assert.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define GRACE_EXIT_MS 500   /* after a non-zero exit, before the others are told to end */
#define GRACE_SILENT_MS 500 /* between the loss of a rank's PMI connection and calling it broken */
#define MAPPING_MAX 1000    /* a longer PMI_process_mapping does not fit into a PMI-1 value */

/* ---- sending ---- */

void step_up(struct step *s, Mu__StepFrame *f)
{
    s->config.up(s->config.arg, f);
}

const char *step_node_name(const struct step *s, uint32_t node)
{
    return node < s->launch->n_nodes ? s->launch->nodes[node]->peer->name : "?";
}

void step_note(struct step *s, const char *fmt, ...)
{
    if (!s->launch || !s->launch->request->verbose)
        return;
    struct buf b = BUF_INIT;
    va_list ap;
    va_start(ap, fmt);
    buf_addf(&b, "%s: ", step_node_name(s, s->me));
    buf_addv(&b, fmt, ap);
    va_end(ap);
    Mu__StepNote n = MU__STEP_NOTE__INIT;
    n.text = b.data;
    step_up(s, FRAME(NOTE, note, &n));
    buf_free(&b);
}

void step_again_after(struct event *e, uint32_t ms)
{
    struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = (suseconds_t)(ms % 1000) * 1000};
    evtimer_add(e, &tv);
}

struct event *step_after(struct step *s, uint32_t ms, event_callback_fn fn)
{
    struct event *e = evtimer_new(s->config.base, fn, s);
    step_again_after(e, ms);
    return e;
}

/* ---- what a rank tells ---- */

struct rank *step_find_rank(struct step *s, uint32_t number)
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
    step_up(s, FRAME(OUTPUT, output, &o));
    if (!len)
        step_check_over(s);
}

static void rank_input_taken(void *arg, struct rank *r, size_t len)
{
    Mu__StepInputCredit c = MU__STEP_INPUT_CREDIT__INIT;
    c.bytes = (uint32_t)len;
    step_up(arg, FRAME(INPUT_CREDIT, input_credit, &c));
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
        step_fault(s, -1, CODE_STARTED_NOT, 0,
                   "mixed MPI families in one step: rank %u on %s speaks %s, rank %u on %s speaks %s",
                   s->family_rank[1], step_node_name(s, s->family_node[1]), names[1], s->family_rank[2],
                   step_node_name(s, s->family_node[2]), names[2]);
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
    step_up(s, FRAME(FAMILY, family, &f));
}

void step_contribute(struct step *s, const char *key, const uint32_t *ranks, size_t n, const void *data,
                     size_t len)
{
    struct error err;
    if (gather_add(s->gather, key, ranks, n, data, len, &err))
        step_fault(s, -1, CODE_LOST, 0, "node %s: %s", step_node_name(s, s->me), err.text);
}

static void rank_barrier(void *arg, struct rank *r)
{
    struct step *s = arg;
    if (++s->barrier_n < s->ranks_n)
        return;
    s->barrier_n = 0;
    struct buf puts = BUF_INIT;
    kvs_take_puts(s->kvs, &puts);
    step_contribute(s, "pmi1", NULL, 0, puts.data, puts.len);
    buf_free(&puts);
}

void step_rank_abort(void *arg, struct rank *r, int code, const char *text)
{
    step_fault(arg, r->number, code & 0xff ? code & 0xff : 1, 0, "called MPI_Abort with code %d%s%s", code,
               text[0] ? ": " : "", text);
}

static void on_silent_time(evutil_socket_t fd, short what, void *arg)
{
    struct rank *r = arg;
    struct step *s = r->arg;
    if (!r->exited && !s->ending)
        step_fault(s, r->number, CODE_LOST, 0, "closed its PMI connection before MPI_Finalize");
}

static void rank_hung_up(void *arg, struct rank *r)
{
    struct step *s = arg;
    const struct timeval wait = {.tv_usec = GRACE_SILENT_MS * 1000};
    event_base_once(s->config.base, -1, EV_TIMEOUT, on_silent_time, r, &wait);
}

static void rank_broken(void *arg, struct rank *r, const struct error *err)
{
    step_fault(arg, r->number, CODE_LOST, 0, "broke the PMI conversation: %s", err->text);
}

/* What children said that did not get as far as their program. */
static void on_start_failure(evutil_socket_t fd, short what, void *arg)
{
    struct step *s = arg;
    struct spawn_failure f;
    while (read(fd, &f, sizeof f) == sizeof f) {
        struct rank *r = step_find_rank(s, f.tag);
        if (!r)
            continue;
        const Mu__StepSection *k = s->launch->request->sections[s->rank_section[r->number]];
        struct error err;
        spawn_failure_text(&f, k->argv[0], k->wdir, &err);
        r->unstarted = true;
        step_fault(s, r->number, CODE_STARTED_NOT, 0, "cannot be started: %s", err.text);
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
        step_fault(s, r->number, 128 + sig, 0, "was killed by signal %d (%s)", sig, strsignal(sig));
    } else if (early && WEXITSTATUS(status) == 0) {
        step_fault(s, r->number, CODE_LOST, 0, "exited with code 0 before MPI_Finalize");
    } else if (WEXITSTATUS(status)) {
        step_fault(s, r->number, WEXITSTATUS(status), early ? 0 : GRACE_EXIT_MS, "exited with code %d%s",
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
        step_up(s, FRAME(EXIT, exit, &e));
    }
    step_check_over(s);
}

static const struct rank_ops rank_ops = {
    .output = rank_output,
    .input_taken = rank_input_taken,
    .family = rank_family,
    .barrier = rank_barrier,
    .abort = step_rank_abort,
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
        step_fault(s, -1, CODE_LOST, 0, "node %s: %s", step_node_name(s, s->me), err.text);
        return;
    }
    for (uint32_t i = 0; i < s->ranks_n; i++)
        if (s->ranks[i].pmi && s->ranks[i].comm.fd >= 0)
            pmi1_barrier_out(s->ranks[i].pmi);
}

static void release(struct step *s, Mu__StepRelease *r)
{
    if (s->links)
        links_send_all(s->links, FRAME(RELEASE, release, r));
    if (!strcmp(r->key, "pmi1"))
        release_pmi1(s, r);
    else if (s->pmix)
        step_pmix_release(s, r);
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
    step_up(s, FRAME(GATHER, gather, &g));
}

static const struct gather_ops gather_ops = {.complete = gather_complete, .expected = gather_expected};

/* ---- the private folder, and the way to another node ---- */

/* Its name is in every rank's environment; itself it is made when libpmix starts, or now. It has nothing of
 * the namespace's name, which is what a PMIx server takes for proof: /tmp can be listed by everybody. */
static void name_tmpdir(struct step *s)
{
    const Mu__StepContext *c = s->config.context;
    const char *parent = c && c->run_dir && c->run_dir[0] ? c->run_dir : "/tmp";
    uint64_t bits;
    if (getrandom(&bits, sizeof bits, 0) != sizeof bits)
        abort();
    snprintf(s->tmpdir, sizeof s->tmpdir, "%s/mpi-%016llx-%u", parent, (unsigned long long)bits, s->me);
}

int step_make_tmpdir(struct step *s, struct error *err)
{
    /* The name is random, and an existing one is refused: nobody can have put it there for us. */
    if (!s->tmpdir_made && mkdir(s->tmpdir, 0700))
        return error_sys(err, "cannot make folder %s", s->tmpdir);
    s->tmpdir_made = true;
    return 0;
}

void step_route(struct step *s, uint32_t to, Mu__StepFrame *f)
{
    if (to >= s->launch->n_nodes)
        return;
    uint32_t branch = tree_branch(s->me, to);
    if (branch && s->links)
        links_send(s->links, branch, f);
    else if (!s->root)
        step_up(s, f);
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
        .hostname = step_node_name(s, s->me),
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
            /* Where nodes share a host name (processes on 127.0.0.x) this is what tells them apart. */
            if (s->config.context)
                rankenv_set(env, "MUSTER_NODE_NAME", step_node_name(s, s->me));
            rankenv_set(env, "PMI_FD", "3");
            if (s->pmix)
                pmixhost_env(s->pmix, 0, true, set_env, env);
            path = spawn_lookup(k->argv[0], rankenv_get(env, "PATH"), k->wdir, &err);
        }
        if (!path || start_rank(s, r, env, path, affinity, &err)) {
            step_fault(s, r->number, CODE_STARTED_NOT, 0, "cannot be started: %s", err.text);
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
        step_fault(s, -1, CODE_LOST, 0, "step server on node %s was lost: %s", step_node_name(s, node),
                   err->text);
    step_check_over(s);
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
    if (s->launch->same_kernel_names && step_make_tmpdir(s, err))
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
        step_note(s, "affinity is noted and not applied: the node's cores are virtual");
        return NULL;
    }
    struct affinity *a = affinity_new(s->ranks_n, &err);
    if (!a)
        step_note(s, "affinity is not applied: %s", err.text);
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
        step_fault(s, -1, CODE_STARTED_NOT, 0, "node %s: %s", step_node_name(s, s->me), err.text);
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
        step_up(s, FRAME(STARTED, started, &started));
    }
    raise_descriptor_limit(s->ranks_n);
    sweep_begin();
    step_reap_begin(s);
    struct affinity *affinity = NULL;
    if (!connected) {
        /* nothing is started */
    } else if (s->ranks_n && prepare_start(s, &err)) {
        step_fault(s, -1, CODE_STARTED_NOT, 0, "node %s: %s", step_node_name(s, s->me), err.text);
    } else if (s->ranks_n) {
        step_pmix_open(s);
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
    step_check_over(s);
}

/* ---- root: the plan ---- */

static void refuse(struct step *s, int code, const char *text)
{
    Mu__StepResult r = MU__STEP_RESULT__INIT;
    r.code = code;
    r.text = (char *)text;
    s->finished = true;
    step_up(s, FRAME(RESULT, result, &r));
    s->config.over(s->config.arg);
}

static void on_timeout(evutil_socket_t fd, short what, void *arg)
{
    struct step *s = arg;
    step_fault(s, -1, CODE_TIMEOUT, 0, "the run took longer than %u s (-timeout)",
               s->launch->request->timeout_s);
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
        s->timeout_event = step_after(s, q->timeout_s * 1000, on_timeout);
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
        step_up(s, FRAME(FAULT, fault, &f));
        s->finished = true;
        s->config.over(s->config.arg);
        return;
    }
    s->me = s->launch->index;
    if (geteuid() == 0)
        step_fault(s, -1, CODE_STARTED_NOT, 0,
                   "node %s: the step server does not run as root inside an allocation",
                   step_node_name(s, s->me));
    else
        launch(s);
}

/* ---- frames ---- */

static void take_credit(struct step *s, Mu__StepFrame *f)
{
    const Mu__StepCredit *c = f->credit;
    if (c->node != s->me) {
        step_route(s, c->node, f);
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
    struct rank *r = node == s->me ? step_find_rank(s, 0) : NULL;
    if (node != s->me)
        step_route(s, node, f);
    else if (r)
        rank_input(r, f->input->data.data, f->input->data.len);
}

static void take_end(struct step *s, const Mu__StepEnd *e)
{
    if (!s->root) {
        step_end(s, e->grace_ms);
        return;
    }
    if (!s->faulted) {
        step_fault(s, -1, e->code, 0, "%s", e->cause);
        s->fault_quiet = !e->cause[0];
    } else {
        step_end(s, e->grace_ms);
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
        step_up(s, f);
    step_check_over(s);
}

/* What goes up, and what goes across. */
static void from_below(void *arg, uint32_t node, Mu__StepFrame *f)
{
    struct step *s = arg;
    switch (f->kind_case) {
    case MU__STEP_FRAME__KIND_OUTPUT:
    case MU__STEP_FRAME__KIND_INPUT_CREDIT:
    case MU__STEP_FRAME__KIND_NOTE:
        step_up(s, f);
        break;
    case MU__STEP_FRAME__KIND_FAMILY:
        if (s->root)
            take_family(s, f->family->rank, f->family->rank < s->size ? s->rank_node[f->family->rank] : 0,
                        f->family->family);
        else
            step_up(s, f);
        break;
    case MU__STEP_FRAME__KIND_EXIT:
        if (s->root)
            take_exit(s, 1);
        else
            step_up(s, f);
        break;
    case MU__STEP_FRAME__KIND_FAULT:
        if (s->root)
            step_take_fault(s, f->fault);
        else
            step_up(s, f);
        break;
    case MU__STEP_FRAME__KIND_DONE:
        take_done(s, f);
        break;
    case MU__STEP_FRAME__KIND_GATHER:
        step_contribute(s, f->gather->key, f->gather->ranks, f->gather->n_ranks, f->gather->data.data,
                        f->gather->data.len);
        break;
    case MU__STEP_FRAME__KIND_MODEX:
        if (f->modex->to == s->me)
            step_pmix_modex(s, f->modex);
        else
            step_route(s, f->modex->to, f);
        break;
    case MU__STEP_FRAME__KIND_MODEX_REPLY:
        if (f->modex_reply->to == s->me)
            step_pmix_modex_reply(s, f->modex_reply);
        else
            step_route(s, f->modex_reply->to, f);
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
    step_end(s, 0);
}

void step_terminated(struct step *s, int sig)
{
    if (s->launch && !s->ending)
        step_fault(s, -1, 128 + sig, 0, "step server on node %s was told to end by signal %d (%s)",
                   step_node_name(s, s->me), sig, strsignal(sig));
    step_abandoned(s);
}

struct step *step_new(const struct step_config *config)
{
    struct step *s = xcalloc(1, sizeof *s);
    s->config = *config;
    return s;
}

void step_free(struct step *s)
{
    if (!s)
        return;
    for (uint32_t i = 0; i < s->ranks_n; i++)
        rank_release(&s->ranks[i]);
    free(s->ranks);
    step_pmix_free(s);
    links_free(s->links);
    gather_free(s->gather);
    kvs_free(s->kvs);
    step_end_free(s);
    if (s->timeout_event)
        event_free(s->timeout_event);
    if (s->fail_event) {
        close(event_get_fd(s->fail_event));
        close(s->fail_fd);
        event_free(s->fail_event);
    }
    if (s->tmpdir_made)
        file_remove_tree(AT_FDCWD, s->tmpdir, NULL);
    free(s->mapping);
    free(s->rank_node);
    free(s->rank_section);
    free(s->done);
    if (s->launch)
        mu__step_launch__free_unpacked(s->launch, NULL);
    free(s);
}
