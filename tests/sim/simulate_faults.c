/* simulate_faults.c - the core among nodes that fail, from a printed seed.
 *
 *     simulate_faults [--seed N] [--seeds N] [--steps N] [--verbose]
 *
 * A world in one process: a head (core, batches on their way to the store, effects held until
 * their batch is durable), a few nodes with agents and attempt folders, and one connection per
 * node that is in order while it lasts and loses what is under way when it breaks. Everything
 * can die at any step: the head (it drops batches that are not durable, and effects not sent), an
 * agent (its folders and tasks live on), a machine (its tasks die, folders stay), a disk (folders
 * are gone, the install id is another). A random workload goes through it.
 *
 * After every turn of the head:
 *   - core_check() holds;
 *   - what all batches together say equals core_rows(), byte for byte;
 *   - a core loaded from those rows gives the same rows, and resumed exactly the open effects;
 * and after every step of the world:
 *   - no task runs twice, no core has two living attempts (as the nodes know, not as the head thinks);
 * and at the end, when faults stop: every job that was acknowledged is there and has ended, every
 * folder is forgotten. The first seed runs twice and must give the same bytes.
 */
#include "base/buf.h"
#include "base/mem.h"
#include "core/core.h"
#include "model/message.h"
#include "model/states.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>

#define NODES 6
#define CORES 3
#define LEASE_MS 60000
#define MARGIN_MS 10000
#define NOTICE_MS 2000 /* a broken connection is noticed after at most this */
#define MESSAGES_MAX 4096
#define FOLDERS_MAX 256

#define PHASE(s) MU__ATTEMPT_PHASE__PHASE_##s
#define FAIL(s) MU__TASK_FAILURE__FAIL_##s

/* ---- chance ---- */

static uint64_t rng;

static uint64_t chance_next(void)
{
    uint64_t z = (rng += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static uint32_t below(uint32_t n)
{
    return (uint32_t)(chance_next() % n);
}

static bool one_in(uint32_t n)
{
    return below(n) == 0;
}

/* ---- the world ---- */

enum message_kind { MSG_PREPARE, MSG_GO, MSG_END, MSG_FORGET, MSG_HEARTBEAT, MSG_HELLO, MSG_REPORT };

struct folder { /* an attempt on one node, as its disk and kernel know it */
    uint64_t attempt, job;
    uint32_t task;
    bool admin, first;
    uint32_t cores[CORES], n_cores;
    int phase;   /* PREPARED, RUNNING, ENDED, RELEASED */
    bool lives;  /* its keeper and whatever it started */
    bool result; /* exit fields hold */
    int32_t exit_code;
    uint32_t exit_signal;
    int failure;
    int64_t lease_at, end_at, kill_at; /* 0: none */
};

struct message {
    enum message_kind kind;
    int64_t at; /* not delivered before */
    uint64_t attempt;
    uint32_t grace_ms;
    char install[32];
    bool go;
    struct folder folder; /* MSG_PREPARE: what is to be made; MSG_REPORT: what it says */
    struct folder *hello; /* MSG_HELLO: the inventory */
    size_t n_hello;
};

struct queue {
    struct message list[MESSAGES_MAX];
    size_t n;
};

struct machine {
    char name[16], install[32], boot[32];
    bool powered, agent;             /* running */
    bool head_open, agent_open;      /* the ends of the connection */
    int64_t head_close, agent_close; /* when that end notices; 0: nothing to notice */
    struct queue to_head, to_agent;
    struct folder folders[FOLDERS_MAX];
    size_t n_folders;
    int number, installs, boots;
    int64_t power_at, agent_at, connect_at; /* when it comes back */
};

struct stored {
    char *key;
    struct row row;
    UT_hash_handle hh;
};

struct pending { /* a batch that is not durable, with what waits for it */
    struct batch batch;
    struct effects effects;
    uint64_t acks[64];
    size_t n_acks;
};

static struct core *core;
static struct core_config config;
static struct machine machines[NODES];
static struct stored *store, *current; /* durable rows; rows as all batches of this head say */
static struct pending pending[256];
static size_t n_pending;
#define JOBS_MAX 100000
static bool expired[JOBS_MAX]; /* ended, and deleted since */
static uint64_t acked[JOBS_MAX];
static size_t n_acked;
static uint64_t generation;
static bool came_up[NODES];             /* in this turn: all its open orders are to be sent */
static int64_t now, head_base, head_up; /* ms; the head's uptime counts only while it lives */
static uint64_t hash;
static bool verbose, calm;
static long steps_done, crashes, turns, starts;
static char failure[1024];
static Mu__Owner owner = MU__OWNER__INIT;

__attribute__((format(printf, 1, 2))) static void say(const char *fmt, ...)
{
    va_list ap;
    if (!verbose)
        return;
    printf("# %" PRId64 " ", now);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf("\n");
}

__attribute__((format(printf, 1, 2))) static void fail(const char *fmt, ...)
{
    va_list ap;
    if (*failure)
        return;
    va_start(ap, fmt);
    vsnprintf(failure, sizeof failure, fmt, ap);
    va_end(ap);
}

/* ---- rows ---- */

static char *row_key(const struct row *row)
{
    return xasprintf("%d/%" PRIu64 "/%u/%s", (int)row->kind, row->id, row->sub, row->name ? row->name : "");
}

static void stored_remove(struct stored **table, struct stored *s)
{
    HASH_DEL(*table, s);
    free(s->key);
    free(s->row.name);
    free(s->row.data);
    free(s);
}

static void stored_put(struct stored **table, const struct row *row)
{
    char *key = row_key(row);
    struct stored *s, *next;
    if (row->up_to) {
        HASH_ITER (hh, *table, s, next)
            if (s->row.kind == row->kind && s->row.id <= row->id)
                stored_remove(table, s);
        free(key);
        return;
    }
    HASH_FIND_STR(*table, key, s);
    if (s)
        stored_remove(table, s);
    if (row->deleted) {
        free(key);
        return;
    }
    s = xcalloc(1, sizeof *s);
    s->key = key;
    s->row = *row;
    s->row.name = row->name ? xstrdup(row->name) : NULL;
    s->row.data = xmemdup(row->data, row->len);
    HASH_ADD_KEYPTR(hh, *table, s->key, strlen(s->key), s);
}

static void stored_clear(struct stored **table)
{
    struct stored *s, *next;
    HASH_ITER (hh, *table, s, next)
        stored_remove(table, s);
}

static void stored_apply(struct stored **table, const struct batch *batch)
{
    for (size_t i = 0; i < batch->count; i++)
        stored_put(table, &batch->rows[i]);
}

static void hash_bytes(const void *data, size_t len)
{
    const unsigned char *p = data;
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ p[i]) * 0x100000001b3u;
}

/* ---- queues ---- */

static void queue_clear(struct queue *q)
{
    for (size_t i = 0; i < q->n; i++)
        free(q->list[i].hello);
    q->n = 0;
}

static void queue_put(struct queue *q, struct message *m)
{
    int64_t last = q->n ? q->list[q->n - 1].at : 0;
    m->at = now + below(one_in(20) ? 1500 : 60);
    if (m->at < last) /* a connection keeps its order */
        m->at = last;
    if (q->n == MESSAGES_MAX) {
        fail("a queue is full");
        free(m->hello);
        return;
    }
    q->list[q->n++] = *m;
}

static void queue_pop(struct queue *q)
{
    memmove(q->list, q->list + 1, (q->n - 1) * sizeof q->list[0]);
    q->n--;
}

/* ---- agents ---- */

static struct folder *folder_find(struct machine *m, uint64_t attempt)
{
    for (size_t i = 0; i < m->n_folders; i++)
        if (m->folders[i].attempt == attempt)
            return &m->folders[i];
    return NULL;
}

static void send_report(struct machine *m, const struct folder *f)
{
    struct message msg = {.kind = MSG_REPORT, .folder = *f};
    if (m->agent && m->agent_open)
        queue_put(&m->to_head, &msg);
}

static void folder_released(struct machine *m, struct folder *f)
{
    f->phase = PHASE(RELEASED);
    f->lives = false;
    f->end_at = f->kill_at = 0;
    send_report(m, f);
}

static void folder_start(struct machine *m, struct folder *f)
{
    f->phase = PHASE(RUNNING);
    f->end_at = now + below(one_in(8) ? 40000 : 3000);
    starts++;
    say("%s starts attempt %" PRIu64 " of %" PRIu64 ".%u", m->name, f->attempt, f->job, f->task);
    send_report(m, f);
}

static void agent_prepare(struct machine *m, const struct message *msg)
{
    struct folder *f = folder_find(m, msg->attempt), refused = msg->folder;
    if (f) {
        send_report(m, f);
        return;
    }
    if (strcmp(msg->install, m->install) != 0 || (!calm && one_in(25)) || m->n_folders == FOLDERS_MAX) {
        refused.phase = PHASE(REFUSED);
        send_report(m, &refused);
        return;
    }
    f = &m->folders[m->n_folders++];
    *f = msg->folder;
    f->phase = PHASE(PREPARED);
    f->lives = true;
    f->lease_at = now + LEASE_MS;
    if (msg->go)
        folder_start(m, f);
    else
        send_report(m, f);
}

static void agent_end(struct machine *m, const struct message *msg)
{
    struct folder *f = folder_find(m, msg->attempt);
    struct folder none = {.attempt = msg->attempt, .phase = PHASE(RELEASED)};
    if (!f)
        send_report(m, &none);
    else if (f->phase == PHASE(RELEASED))
        send_report(m, f);
    else if (f->phase == PHASE(RUNNING) || one_in(2))
        f->kill_at = now + 1 + below(msg->grace_ms / 4 + 300);
    else
        folder_released(m, f);
}

static void agent_forget(struct machine *m, uint64_t attempt)
{
    struct folder *f = folder_find(m, attempt);
    if (!f)
        return;
    if (f->lives)
        fail("%s is told to forget attempt %" PRIu64 ", which lives", m->name, attempt);
    *f = m->folders[--m->n_folders];
}

static void agent_message(struct machine *m, const struct message *msg)
{
    struct folder *f;
    for (size_t i = 0; i < m->n_folders; i++) /* whatever comes renews the leases that still hold */
        if (m->folders[i].lives && m->folders[i].lease_at > now)
            m->folders[i].lease_at = now + LEASE_MS;
    switch (msg->kind) {
    case MSG_PREPARE:
        agent_prepare(m, msg);
        break;
    case MSG_GO:
        f = folder_find(m, msg->attempt);
        if (f && f->phase == PHASE(PREPARED) && f->lives)
            folder_start(m, f);
        else if (f)
            send_report(m, f);
        break;
    case MSG_END:
        agent_end(m, msg);
        break;
    case MSG_FORGET:
        agent_forget(m, msg->attempt);
        break;
    default:
        break;
    }
}

static void folder_time(struct machine *m, struct folder *f)
{
    if (!f->lives)
        return;
    if (f->kill_at && now >= f->kill_at) {
        if (f->phase == PHASE(RUNNING) && f->first) {
            f->result = true;
            f->exit_signal = 15;
            f->failure = FAIL(EXIT);
        }
        folder_released(m, f);
    } else if (now >= f->lease_at) {
        f->result = f->first && f->phase == PHASE(RUNNING);
        f->failure = FAIL(SYSTEM);
        folder_released(m, f);
    } else if (f->end_at && now >= f->end_at && f->phase == PHASE(RUNNING)) {
        f->result = true;
        f->exit_code = one_in(6) ? 1 + (int32_t)below(3) : 0;
        f->failure = f->exit_code ? FAIL(EXIT) : FAIL(NONE);
        f->phase = PHASE(ENDED);
        f->end_at = now + below(200);
        if (one_in(2)) /* both in one report */
            folder_released(m, f);
        else
            send_report(m, f);
    } else if (f->end_at && now >= f->end_at && f->phase == PHASE(ENDED)) {
        folder_released(m, f);
    }
}

/* Everything that ran is gone; what had no result "ended unknown". */
static void machine_halt(struct machine *m)
{
    m->powered = m->agent = false;
    for (size_t i = 0; i < m->n_folders; i++) {
        struct folder *f = &m->folders[i];
        if (!f->lives)
            continue;
        if (!f->result && f->first && f->phase == PHASE(RUNNING)) {
            f->result = true;
            f->failure = FAIL(SYSTEM);
        }
        f->phase = PHASE(RELEASED);
        f->lives = false;
        f->end_at = f->kill_at = 0;
    }
}

/* ---- connections ---- */

static void agent_gone(struct machine *m)
{
    if (m->agent_open && m->head_open && !m->head_close)
        m->head_close = now + 1 + below(NOTICE_MS);
    m->agent_open = false;
    m->agent_close = 0;
    queue_clear(&m->to_agent);
}

static void connect_agent(struct machine *m)
{
    struct message msg = {.kind = MSG_HELLO};
    queue_clear(&m->to_head);
    queue_clear(&m->to_agent);
    m->agent_open = m->head_open = true;
    m->head_close = m->agent_close = 0;
    msg.n_hello = m->n_folders;
    msg.hello = xmemdup(m->folders, m->n_folders * sizeof m->folders[0]);
    snprintf(msg.install, sizeof msg.install, "%s", m->install);
    queue_put(&m->to_head, &msg);
}

static void send_effect(const struct effect *e)
{
    for (int i = 0; i < NODES; i++) {
        struct machine *m = &machines[i];
        struct message msg = {
            .kind = (enum message_kind)e->kind, .attempt = e->attempt, .grace_ms = e->grace_ms};
        if (strcmp(m->name, e->node) || !m->head_open)
            continue;
        if (e->kind == EFFECT_PREPARE) {
            Mu__PrepareOrder *o = core_prepare_order(core, e->attempt, e->node);
            if (!o)
                return;
            Mu__PeerNode *me = o->nodes[o->my_index];
            snprintf(msg.install, sizeof msg.install, "%s", o->install_id);
            msg.go = o->go;
            msg.folder = (struct folder){.attempt = o->attempt,
                                         .job = o->job_id,
                                         .task = o->task_id,
                                         .admin = o->admin,
                                         .first = o->my_index == 0,
                                         .n_cores = (uint32_t)me->n_cores};
            for (size_t k = 0; k < me->n_cores; k++)
                msg.folder.cores[k] = me->cores[k];
            mu__prepare_order__free_unpacked(o, NULL);
        }
        queue_put(&m->to_agent, &msg);
    }
}

/* ---- the head ---- */

static int by_effect(const void *a, const void *b)
{
    const struct effect *x = a, *y = b;
    int order = strcmp(x->node, y->node);
    if (order)
        return order;
    if (x->attempt != y->attempt)
        return x->attempt < y->attempt ? -1 : 1;
    return (int)x->kind - (int)y->kind;
}

static void check_effects(const struct effects *got)
{
    struct effects want = {0};
    for (int i = 0; i < NODES; i++)
        core_open_effects(core, machines[i].name, &want);
    if (want.count)
        qsort(want.list, want.count, sizeof *want.list, by_effect);
    if (got->count)
        qsort(got->list, got->count, sizeof *got->list, by_effect);
    bool same = want.count == got->count;
    for (size_t i = 0; same && i < want.count; i++)
        same = by_effect(&want.list[i], &got->list[i]) == 0 && want.list[i].grace_ms == got->list[i].grace_ms;
    if (!same)
        fail("resumed: %zu effects, open are %zu", got->count, want.count);
    effects_free(&want);
}

static void compare_rows(const struct batch *rows, const char *what)
{
    if (rows->count != HASH_COUNT(current))
        fail("%s: %zu rows, batches say %u", what, rows->count, HASH_COUNT(current));
    for (size_t i = 0; i < rows->count && !*failure; i++) {
        char *key = row_key(&rows->rows[i]);
        struct stored *s;
        HASH_FIND_STR(current, key, s);
        if (!s || s->row.len != rows->rows[i].len || memcmp(s->row.data, rows->rows[i].data, s->row.len))
            fail("%s: row %s differs from what batches say", what, key);
        free(key);
    }
}

/* Loads the rows in another order than they were made. */
static struct core *load(struct stored *table)
{
    struct core *c = core_create(&config);
    struct stored *s, *next;
    struct error err;
    size_t n = 0;
    struct row **rows = xcalloc(HASH_COUNT(table) + 1, sizeof(*rows));
    HASH_ITER (hh, table, s, next)
        rows[n++] = &s->row;
    for (size_t i = n; i > 1; i--) {
        size_t k = below((uint32_t)i);
        struct row *swap = rows[i - 1];
        rows[i - 1] = rows[k];
        rows[k] = swap;
    }
    for (size_t i = 0; i < n; i++)
        if (core_load(c, rows[i], &err))
            fail("load: %s", err.text);
    free(rows);
    return c;
}

static void check_reload(void)
{
    struct core *copy = load(current);
    struct batch rows = {0}, batch = {0};
    struct effects effects = {0};
    struct error err;
    core_rows(copy, &rows);
    compare_rows(&rows, "load(rows)");
    batch_free(&rows);
    core_begin(copy, head_up, now);
    core_resume(copy, generation + 1);
    core_end(copy, &batch, &effects);
    check_effects(&effects);
    if (core_check(copy, &err))
        fail("resumed: %s", err.text);
    batch_free(&batch);
    effects_free(&effects);
    core_destroy(copy);
}

/* Only a job that has ended may be deleted. */
static void note_expired(const struct batch *batch)
{
    for (size_t i = 0; i < batch->count; i++) {
        const struct row *row = &batch->rows[i];
        struct stored *s;
        if (row->kind != ROW_JOB || !row->deleted)
            continue;
        char *key = row_key(row);
        HASH_FIND_STR(current, key, s);
        Mu__Job *job = s ? mu__job__unpack(NULL, s->row.len, s->row.data) : NULL;
        if (!job || !job_state_ended((int)job->state) || row->id >= JOBS_MAX)
            fail("job %" PRIu64 " is deleted and had not ended", row->id);
        else
            expired[row->id] = true;
        message_free(job);
        free(key);
    }
}

static struct pending *end_turn(void)
{
    struct pending *p = &pending[n_pending++];
    struct batch rows = {0};
    struct error err;
    *p = (struct pending){0};
    core_end(core, &p->batch, &p->effects);
    for (int i = 0; i < NODES; i++) {
        if (came_up[i])
            core_open_effects(core, machines[i].name, &p->effects);
        came_up[i] = false;
    }
    turns++;
    for (size_t i = 0; i < p->batch.count; i++) {
        hash_bytes(&p->batch.rows[i].id, sizeof p->batch.rows[i].id);
        hash_bytes(p->batch.rows[i].data, p->batch.rows[i].len);
    }
    note_expired(&p->batch);
    stored_apply(&current, &p->batch);
    if (core_check(core, &err))
        fail("core_check: %s", err.text);
    core_rows(core, &rows);
    compare_rows(&rows, "core_rows");
    batch_free(&rows);
    check_reload();
    return p;
}

static void head_start(void)
{
    struct stored *s, *next;
    core = load(store);
    stored_clear(&current);
    HASH_ITER (hh, store, s, next)
        stored_put(&current, &s->row);
    head_base = now;
    head_up = core_counters(core)->up_ms;
    core_begin(core, head_up, now);
    core_resume(core, ++generation);
    end_turn();
    say("the head starts, generation %" PRIu64, generation);
    for (size_t i = 0; i < n_acked; i++)
        if (!core_job(core, acked[i]) && !expired[acked[i]])
            fail("job %" PRIu64 " was acknowledged and is lost", acked[i]);
}

static void head_crash(void)
{
    say("the head dies with %zu batches not stored", n_pending);
    crashes++;
    core_destroy(core);
    core = NULL;
    for (size_t i = 0; i < n_pending; i++) {
        batch_free(&pending[i].batch);
        effects_free(&pending[i].effects);
    }
    n_pending = 0;
    for (int i = 0; i < NODES; i++) {
        struct machine *m = &machines[i];
        if (m->head_open && m->agent_open && !m->agent_close)
            m->agent_close = now + 1 + below(NOTICE_MS);
        m->head_open = false;
        m->head_close = 0;
        queue_clear(&m->to_head);
    }
}

/* One batch has become durable: what waited for it goes out. */
static void store_commit(void)
{
    struct pending *p = &pending[0];
    stored_apply(&store, &p->batch);
    for (size_t i = 0; i < p->effects.count; i++)
        send_effect(&p->effects.list[i]);
    for (size_t i = 0; i < p->n_acks; i++)
        acked[n_acked++] = p->acks[i];
    batch_free(&p->batch);
    effects_free(&p->effects);
    memmove(pending, pending + 1, (n_pending - 1) * sizeof pending[0]);
    n_pending--;
}

static Mu__AttemptReport *report_of(const struct folder *f)
{
    Mu__AttemptReport *r = message_new(&mu__attempt_report__descriptor);
    r->attempt = f->attempt;
    r->phase = (Mu__AttemptPhase)f->phase;
    r->has_result = f->result;
    r->exit_code = f->exit_code;
    r->exit_signal = f->exit_signal;
    r->failure = (Mu__TaskFailure)f->failure;
    return r;
}

static void command(const struct command *cmd, struct result *r)
{
    core_command(core, cmd, r);
}

static void head_hello(struct machine *m, const struct message *msg)
{
    Mu__NodeHello hello = MU__NODE_HELLO__INIT;
    struct result r;
    came_up[m->number - 1] = true;
    hello.name = m->name;
    hello.install_id = (char *)msg->install;
    hello.boot_id = m->boot;
    hello.cores = CORES;
    hello.n_attempts = msg->n_hello;
    hello.attempts = xcalloc(msg->n_hello + 1, sizeof(*hello.attempts));
    for (size_t i = 0; i < msg->n_hello; i++)
        hello.attempts[i] = report_of(&msg->hello[i]);
    command(&(struct command){.kind = CMD_NODE_UP, .node_hello = &hello}, &r);
    if (r.error.code)
        fail("hello: %s", r.error.text);
    for (size_t i = 0; i < msg->n_hello; i++)
        message_free(hello.attempts[i]);
    free(hello.attempts);
}

static void head_take(struct machine *m)
{
    struct result r;
    while (m->head_open && m->to_head.n && m->to_head.list[0].at <= now) {
        struct message *msg = &m->to_head.list[0];
        if (msg->kind == MSG_HELLO) {
            head_hello(m, msg);
        } else {
            Mu__AttemptReport *report = report_of(&msg->folder);
            command(&(struct command){.kind = CMD_REPORT, .node = m->name, .report = report}, &r);
            message_free(report);
        }
        free(msg->hello);
        queue_pop(&m->to_head);
    }
    if (m->head_open && m->head_close && now >= m->head_close) {
        m->head_open = false;
        m->head_close = 0;
        queue_clear(&m->to_head);
        command(&(struct command){.kind = CMD_NODE_DOWN, .node = m->name}, &r);
    }
}

/* ---- the workload ---- */

static char *group_names[] = {"Red", "blue"};

static void random_task(Mu__TaskSpec *task, const Mu__JobSpec *spec, char **required)
{
    mu__task_spec__init(task);
    task->command_line = "work";
    if (spec->type == MU__JOB_TYPE__JOB_ADMIN) {
        task->required_nodes = required;
        task->n_required_nodes = 1;
        return;
    }
    if (one_in(3)) {
        task->min_units = 1 + below(3);
        task->max_units = task->min_units + below(3);
    }
    if (one_in(10)) {
        task->required_nodes = required;
        task->n_required_nodes = 1;
    }
    task->not_rerunnable = one_in(10);
    task->runtime_s = one_in(10) ? 1 + below(20) : 0;
    task->exclusive = spec->exclusive && one_in(2);
}

static uint64_t random_create(struct result *r)
{
    Mu__JobSpec spec = MU__JOB_SPEC__INIT;
    Mu__JobCreate create = MU__JOB_CREATE__INIT;
    Mu__TaskSpec tasks[6], *list[6];
    char *required[6];
    char *group = group_names[below(2)];
    spec.type = one_in(12) ? MU__JOB_TYPE__JOB_ADMIN : MU__JOB_TYPE__JOB_BATCH;
    spec.unit = one_in(2) ? MU__UNIT_TYPE__UNIT_NODE : MU__UNIT_TYPE__UNIT_CORE;
    spec.priority = one_in(4) ? below(4001) : 2000;
    if (one_in(2)) {
        spec.min_units = 1 + below(4);
        spec.max_units = one_in(2) ? spec.min_units + below(4) : 0;
    }
    if (one_in(3)) {
        spec.node_groups = &group;
        spec.n_node_groups = 1;
    }
    spec.exclusive = one_in(8);
    spec.fail_on_task_failure = one_in(5);
    spec.task_retry_limit = one_in(4) ? below(3) : 0;
    spec.runtime_s = one_in(10) ? 2 + below(40) : 0;
    create.spec = &spec;
    create.n_tasks = 1 + (one_in(2) ? 0 : below(6));
    for (size_t i = 0; i < create.n_tasks; i++) {
        required[i] = machines[below(NODES)].name;
        random_task(&tasks[i], &spec, &required[i]);
        list[i] = &tasks[i];
    }
    create.tasks = list;
    create.submit = !one_in(8);
    command(&(struct command){.kind = CMD_JOB_CREATE, .actor = {&owner, true}, .job_create = &create}, r);
    return r->job_id;
}

static uint64_t random_job(void)
{
    uint64_t n = core_counters(core)->next_job;
    return n > 1 ? (one_in(2) && n > 12 ? n - 1 - below(10) : 1 + chance_next() % (n - 1)) : 1;
}

static void random_group(void)
{
    char *nodes[2] = {machines[below(NODES)].name, machines[below(NODES)].name};
    Mu__GroupSet set = MU__GROUP_SET__INIT;
    struct result r;
    set.verb = (Mu__GroupSet__Verb)(1 + below(4));
    set.name = group_names[below(2)];
    set.nodes = nodes;
    set.n_nodes = 2;
    command(&(struct command){.kind = CMD_GROUP_SET, .actor = {&owner, true}, .group_set = &set}, &r);
}

static void set_online(char *name, bool online, bool force)
{
    Mu__NodeSet set = MU__NODE_SET__INIT;
    struct result r;
    set.names = &name;
    set.n_names = 1;
    set.all = name == NULL;
    set.online = online;
    set.force = force;
    command(&(struct command){.kind = CMD_NODE_SET, .actor = {&owner, true}, .node_set = &set}, &r);
}

static void random_verb(void)
{
    Mu__JobCancel cancel = MU__JOB_CANCEL__INIT;
    Mu__JobRequeue requeue = MU__JOB_REQUEUE__INIT;
    Mu__JobSubmit submit = MU__JOB_SUBMIT__INIT;
    Mu__TaskCancel task_cancel = MU__TASK_CANCEL__INIT;
    Mu__TaskRequeue task_requeue = MU__TASK_REQUEUE__INIT;
    Mu__JobAdd add = MU__JOB_ADD__INIT;
    Mu__JobSpec spec = MU__JOB_SPEC__INIT;
    Mu__TaskSpec task, *tasks = &task;
    char *required = machines[below(NODES)].name;
    struct command cmd = {.actor = {&owner, one_in(2)}};
    struct result r;
    uint64_t id = random_job();
    uint32_t task_id = 1 + below(4);
    cancel.job_id = requeue.job_id = submit.job_id = task_cancel.job_id = task_requeue.job_id = add.job_id =
        id;
    task_cancel.task_id = task_requeue.task_id = task_id;
    cancel.force = task_cancel.force = one_in(3);
    switch (below(7)) {
    case 0:
        cmd.kind = CMD_JOB_CANCEL, cmd.job_cancel = &cancel;
        break;
    case 1:
        cmd.kind = CMD_JOB_REQUEUE, cmd.job_requeue = &requeue;
        break;
    case 2:
    case 3:
        cmd.kind = CMD_JOB_SUBMIT, cmd.job_submit = &submit;
        break;
    case 4:
        cmd.kind = CMD_TASK_CANCEL, cmd.task_cancel = &task_cancel;
        break;
    case 5:
        cmd.kind = CMD_TASK_REQUEUE, cmd.task_requeue = &task_requeue;
        break;
    default:
        random_task(&task, &spec, &required);
        add.tasks = &tasks;
        add.n_tasks = 1;
        cmd.kind = CMD_JOB_ADD, cmd.job_add = &add;
    }
    command(&cmd, &r);
}

static void random_reads(void)
{
    uint64_t id = random_job();
    core_pending_reason(core, id, 0);
    core_pending_reason(core, id, 1);
    core_job_event(core, id);
}

static void workload(uint64_t *acks, size_t *n_acks)
{
    struct result r;
    struct core_totals totals;
    core_totals(core, &totals);
    if (one_in(3) && totals.jobs_queued < 30 && n_acked + 64 < sizeof acked / sizeof acked[0]) {
        uint64_t id = random_create(&r);
        if (r.error.code == ERR_NONE && *n_acks < 64)
            acks[(*n_acks)++] = id;
    }
    if (one_in(6))
        random_verb();
    if (one_in(40))
        random_group();
    if (one_in(40))
        set_online(machines[below(NODES)].name, !one_in(3), one_in(2));
    if (one_in(30))
        random_reads();
}

static void head_turn(void)
{
    struct result r;
    uint64_t acks[64];
    size_t n_acks = 0;
    head_up += now - head_base;
    head_base = now;
    core_begin(core, head_up, now);
    for (int i = 0; i < NODES; i++)
        head_take(&machines[i]);
    if (core_deadline(core) <= head_up || one_in(50))
        command(&(struct command){.kind = CMD_TICK}, &r);
    if (!calm)
        workload(acks, &n_acks);
    struct pending *p = end_turn();
    memcpy(p->acks, acks, n_acks * sizeof acks[0]);
    p->n_acks = n_acks;
}

/* ---- faults ---- */

/* Only what is durable may be sent. */
static bool attempt_is_stored(uint64_t attempt)
{
    struct row row = {.kind = ROW_ATTEMPT, .id = attempt};
    char *key = row_key(&row);
    struct stored *s, *now_s;
    HASH_FIND_STR(store, key, s);
    HASH_FIND_STR(current, key, now_s);
    free(key);
    return s && now_s && s->row.len == now_s->row.len && !memcmp(s->row.data, now_s->row.data, s->row.len);
}

static void random_fault(void)
{
    struct machine *m = &machines[below(NODES)];
    switch (below(7)) {
    case 0:
        if (core)
            head_crash();
        break;
    case 1: /* the network between them */
        if (m->head_open && !m->head_close)
            m->head_close = now + 1 + below(NOTICE_MS);
        if (m->agent_open && !m->agent_close)
            m->agent_close = now + 1 + below(NOTICE_MS);
        m->connect_at = now + below(one_in(4) ? 2 * LEASE_MS : 5000);
        say("%s: link cut", m->name);
        break;
    case 2:
    case 3:
        say("%s: agent killed", m->name);
        m->agent = false;
        agent_gone(m);
        m->agent_at = now + below(one_in(6) ? 2 * LEASE_MS : 4000);
        break;
    case 4:
        say("%s: power off", m->name);
        machine_halt(m);
        agent_gone(m);
        m->power_at = now + below(one_in(4) ? 2 * LEASE_MS : 8000);
        break;
    case 5:
        if (!one_in(3))
            break;
        say("%s: installed anew", m->name);
        machine_halt(m);
        agent_gone(m);
        m->n_folders = 0;
        snprintf(m->install, sizeof m->install, "install-%d-%d", m->number, ++m->installs);
        m->power_at = now + 500 + below(20000);
        break;
    default:
        break;
    }
}

/* Orders that are open are sent once more: they may come twice over one connection. */
static void random_repeat(void)
{
    struct machine *m = &machines[below(NODES)];
    struct effects effects = {0};
    if (!core || !m->head_open)
        return;
    core_open_effects(core, m->name, &effects);
    for (size_t i = 0; i < effects.count; i++)
        if (attempt_is_stored(effects.list[i].attempt))
            send_effect(&effects.list[i]);
    effects_free(&effects);
}

/* ---- the world's own time ---- */

static void machine_time(struct machine *m)
{
    if (!m->powered && now >= m->power_at) {
        m->powered = true;
        m->agent_at = now + below(500);
        snprintf(m->boot, sizeof m->boot, "boot-%d-%d", m->number, ++m->boots);
    }
    if (m->powered && !m->agent && now >= m->agent_at)
        m->agent = true;
    for (size_t i = 0; i < m->n_folders; i++)
        folder_time(m, &m->folders[i]);
    while (m->agent && m->agent_open && m->to_agent.n && m->to_agent.list[0].at <= now) {
        struct message msg = m->to_agent.list[0];
        queue_pop(&m->to_agent);
        agent_message(m, &msg);
    }
    if (m->agent_close && now >= m->agent_close)
        agent_gone(m);
    if (m->agent && !m->agent_open && core && now >= m->connect_at)
        connect_agent(m);
    if (m->agent_open && one_in(10))
        for (size_t i = 0; i < m->n_folders; i++)
            if (one_in(4))
                send_report(m, &m->folders[i]); /* said before, said again */
    if (core && m->head_open && m->to_agent.n == 0) {
        struct message beat = {.kind = MSG_HEARTBEAT};
        queue_put(&m->to_agent, &beat);
    }
}

static void check_world(void)
{
    for (int i = 0; i < NODES; i++) {
        const struct machine *m = &machines[i];
        uint64_t user[CORES] = {0};
        for (size_t k = 0; k < m->n_folders; k++) {
            const struct folder *f = &m->folders[k];
            for (uint32_t c = 0; f->lives && c < f->n_cores; c++) {
                if (user[f->cores[c]])
                    fail("%s core %u: attempts %" PRIu64 " and %" PRIu64 " both live", m->name, f->cores[c],
                         user[f->cores[c]], f->attempt);
                user[f->cores[c]] = f->attempt;
            }
            bool runs = f->lives && f->first && f->phase == PHASE(RUNNING);
            for (int o = 0; runs && o < NODES; o++)
                for (size_t n = 0; n < machines[o].n_folders; n++) {
                    const struct folder *g = &machines[o].folders[n];
                    if (g->lives && g->first && g->phase == PHASE(RUNNING) && g->job == f->job &&
                        g->task == f->task && g->attempt != f->attempt)
                        fail("task %" PRIu64 ".%u runs twice: attempts %" PRIu64 " and %" PRIu64, f->job,
                             f->task, f->attempt, g->attempt);
                }
        }
    }
}

static void step(void)
{
    steps_done++;
    now += one_in(40) ? below(15000) : below(150);
    for (int i = 0; i < NODES; i++)
        machine_time(&machines[i]);
    if (!core && (calm || one_in(10)))
        head_start();
    if (core && n_pending < 200 && !one_in(4))
        head_turn();
    while (core && n_pending && !one_in(calm ? 50 : 3))
        store_commit();
    if (!calm && one_in(30))
        random_fault();
    if (!calm && one_in(5))
        random_repeat();
    check_world();
}

static bool all_over(void)
{
    const Mu__Job *job;
    if (!core || n_pending)
        return false;
    for (uint64_t id = 0; (job = core_next_job(core, id)); id = job->id)
        if (!job_state_ended((int)job->state))
            return false;
    for (int i = 0; i < NODES; i++)
        if (machines[i].n_folders)
            return false;
    return true;
}

/* Faults stop, all nodes come back, groups are whole, what was never submitted is cancelled. */
static void heal(void)
{
    char *names[NODES];
    const Mu__Job *job;
    struct result r;
    calm = true;
    if (!core)
        head_start();
    for (int i = 0; i < NODES; i++)
        names[i] = machines[i].name;
    for (int i = 0; i < NODES; i++) {
        machines[i].connect_at = now;
        if (!machines[i].powered)
            machines[i].power_at = now;
        machines[i].agent_at = now;
    }
    for (int i = 0; i < 400 && !*failure; i++) /* everyone has said hello */
        step();
    core_begin(core, head_up, now);
    set_online(NULL, true, false);
    for (int i = 0; i < 2; i++)
        for (int verb = 1; verb <= 2; verb++) {
            Mu__GroupSet set = MU__GROUP_SET__INIT;
            set.verb = (Mu__GroupSet__Verb)verb;
            set.name = group_names[i];
            set.nodes = names;
            set.n_nodes = NODES;
            command(&(struct command){.kind = CMD_GROUP_SET, .actor = {&owner, true}, .group_set = &set}, &r);
        }
    for (uint64_t id = 0; (job = core_next_job(core, id)); id = job->id) {
        Mu__JobCancel cancel = MU__JOB_CANCEL__INIT;
        cancel.job_id = job->id;
        if (job->state == MU__JOB_STATE__JOB_STATE_CONFIGURING)
            command(&(struct command){.kind = CMD_JOB_CANCEL, .actor = {&owner, true}, .job_cancel = &cancel},
                    &r);
    }
    end_turn();
}

static void describe_left(void)
{
    const Mu__Job *job;
    struct buf text = BUF_INIT;
    for (uint64_t id = 0; core && (job = core_next_job(core, id)); id = job->id)
        if (!job_state_ended((int)job->state) && text.len < 600)
            buf_addf(&text, " job %" PRIu64 " %s (%s)", job->id, job_state_name((int)job->state),
                     core_pending_reason(core, job->id, 0));
    for (int i = 0; i < NODES; i++)
        if (machines[i].n_folders)
            buf_addf(&text, " %s keeps %zu folders", machines[i].name, machines[i].n_folders);
    fail("not over in the end:%s", buf_str(&text));
    buf_free(&text);
}

static void world_clear(void)
{
    if (core)
        head_crash();
    stored_clear(&store);
    stored_clear(&current);
    for (int i = 0; i < NODES; i++) {
        queue_clear(&machines[i].to_head);
        queue_clear(&machines[i].to_agent);
    }
    memset(machines, 0, sizeof machines);
    memset(came_up, 0, sizeof came_up);
    n_acked = 0;
    memset(expired, 0, sizeof expired);
    generation = 0;
    now = 1000000;
    hash = 0xcbf29ce484222325u;
    calm = false;
    steps_done = crashes = turns = starts = 0;
    *failure = 0;
}

/* 0, or -1 with `failure` filled. */
static int run(uint64_t seed, long steps)
{
    world_clear();
    rng = seed;
    for (int i = 0; i < NODES; i++) {
        struct machine *m = &machines[i];
        m->number = i + 1;
        snprintf(m->name, sizeof m->name, "node%d", i + 1);
        snprintf(m->install, sizeof m->install, "install-%d-0", m->number);
        snprintf(m->boot, sizeof m->boot, "boot-%d-0", m->number);
        m->powered = m->agent = true;
    }
    head_start();
    for (int i = 0; i < 60 && !*failure; i++) {
        calm = true;
        step();
    }
    calm = false;
    core_begin(core, head_up, now);
    set_online(NULL, true, false);
    end_turn();
    while (steps_done < steps && !*failure)
        step();
    if (!*failure)
        heal();
    for (long i = 0; i < 40000 && !*failure && !all_over(); i++)
        step();
    if (!*failure && !all_over())
        describe_left();
    return *failure ? -1 : 0;
}

int main(int argc, char **argv)
{
    uint64_t seed = 1, seeds = 8;
    long steps = 500;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--verbose"))
            verbose = true;
        else if (!strcmp(argv[i], "--seed") && i + 1 < argc)
            seed = strtoull(argv[++i], NULL, 10);
        else if (!strcmp(argv[i], "--seeds") && i + 1 < argc)
            seeds = strtoull(argv[++i], NULL, 10);
        else if (!strcmp(argv[i], "--steps") && i + 1 < argc)
            steps = strtol(argv[++i], NULL, 10);
        else {
            fprintf(stderr, "simulate_faults: %s: expected --seed N, --seeds N, --steps N or --verbose\n",
                    argv[i]);
            return 2;
        }
    }
    owner.name = "ann";
    owner.uid = 1000;
    core_config_default(&config);
    config.lease_ms = LEASE_MS;
    config.lease_margin_ms = MARGIN_MS;
    config.grace_ms = 2000;
    config.event_keep_count = 120;
    config.job_keep_ms = 100000;
    int failed = 0;
    uint64_t n = 0;
    printf("# first seed %" PRIu64 ", %" PRIu64 " seeds, %ld steps each\n", seed, seeds, steps);
    for (uint64_t i = 0; i < seeds; i++) {
        int bad = run(seed + i, steps);
        printf("%sok %" PRIu64 " - seed %" PRIu64
               ": %ld turns, %ld starts, %ld crashes of the head, %zu jobs\n",
               bad ? "not " : "", ++n, seed + i, turns, starts, crashes, n_acked);
        if (bad)
            printf("#   at step %ld: %s\n#   again: simulate_faults --seed %" PRIu64
                   " --seeds 1 --steps %ld --verbose\n",
                   steps_done, failure, seed + i, steps);
        failed += bad != 0;
        fflush(stdout);
    }
    run(seed, steps);
    uint64_t first = hash;
    run(seed, steps);
    printf("%sok %" PRIu64 " - seed %" PRIu64 " twice gives the same bytes\n", first == hash ? "" : "not ",
           ++n, seed);
    failed += first != hash;
    printf("1..%" PRIu64 "\n", n);
    world_clear();
    return failed ? 1 : 0;
}
