/* loop.c - one turn, the clock, and what happens when the store fails.
 *
 * A turn opens with the first request or report that arrives. libevent runs callbacks of the
 * highest priority that has any and then looks for new traffic, so the end of the turn, at a
 * lower priority, comes when all that had arrived is done. Endless traffic is cut by TURN_MS_MAX
 * and TURN_COMMANDS_MAX: loop_turn() ends a turn that is longer before it lets the next command
 * in. The store's thread commits several batches in one transaction when they pile up, so short
 * turns cost no fsync each.
 *
 * Cluster uptime is the stored high-water mark plus the boot clock since start: what was stored
 * never lies in the future of any later head.
 */
#include "head/loop.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "head/held.h"
#include "head/nodelink.h"
#include "head/outspool.h"
#include "head/reply.h"
#include "head/door.h"
#include "head/session.h"
#include "head/waits.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TURN_MS_MAX 20
#define TURN_COMMANDS_MAX 4096
#define PROBE_MS 1000
#define STOP_MS_MAX 5000

enum loop_state { LOOP_OK, LOOP_READ_ONLY };

struct later {
    enum answer_kind kind;
    struct session *session; /* a reference */
    uint64_t request, job;
    uint32_t task, first, count;
};

struct loop {
    struct head *head;
    enum loop_state state;
    bool stopping;    /* after SIGTERM: requests are refused, what is held gets durable */
    struct error why; /* LOOP_READ_ONLY */
    bool readable;
    uint64_t event_cap; /* LOOP_READ_ONLY: newest durable event; the core's own newer ones are not */
    uint64_t set_aside;

    bool open;
    bool choked; /* the store's queue is full: no traffic is read */
    int64_t opened_us;
    uint32_t commands;
    uint64_t last_batch; /* number of the last one put */
    uint64_t durable;
    struct later *later;
    size_t later_count, later_cap;
    char (*came_up)[65];
    size_t came_up_count, came_up_cap;

    int64_t up_base_ms, boot_base_ms;
    struct event *turn_end, *store_ready, *deadline, *probe, *stop_timer, *sigterm, *sigint;
};

/* ---- clock ---- */

int64_t loop_up_ms(const struct loop *loop)
{
    return loop->up_base_ms + (clock_boot_ms() - loop->boot_base_ms);
}

uint64_t loop_event(const struct loop *loop)
{
    if (loop->state == LOOP_READ_ONLY)
        return loop->event_cap;
    return core_counters(loop->head->core)->next_event - 1;
}

static void timer_ms(struct event *timer, int64_t ms)
{
    struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = (ms % 1000) * 1000};
    event_add(timer, &tv);
}

static void arm_deadline(struct loop *loop)
{
    int64_t due = core_deadline(loop->head->core), upkeep = core_upkeep_due(loop->head->core);
    if (upkeep < due)
        due = upkeep;
    if (due == INT64_MAX || loop->state != LOOP_OK) {
        event_del(loop->deadline);
        return;
    }
    int64_t wait = due - loop_up_ms(loop);
    timer_ms(loop->deadline, wait < 1 ? 1 : wait > 3600000 ? 3600000 : wait + 1);
}

/* ---- loading ---- */

static int load_row(const struct row *row, void *arg, struct error *err)
{
    struct loop *loop = arg;
    if (core_load(loop->head->core, row, err) == 0)
        return 0;
    log_error("a stored row is set aside: %s", err->text);
    return -1;
}

static int core_rebuild(struct loop *loop, struct error *err)
{
    struct head *h = loop->head;
    struct core_config config;
    uint64_t set_aside = 0;
    core_config_default(&config);
    config.lease_ms = h->config.lease_ms;
    config.grace_ms = h->config.grace_ms;
    config.user_jobs_max = h->config.user_jobs;
    config.user_bytes_max = (uint64_t)h->config.user_job_mb << 20;
    core_destroy(h->core);
    h->core = core_create(&config);
    if (store_load(h->store, load_row, loop, &set_aside, err))
        return -1;
    loop->set_aside += set_aside;
    const Mu__Counters *counters = core_counters(h->core);
    loop->event_cap = counters->next_event ? counters->next_event - 1 : 0;
    if (!loop->boot_base_ms) {
        loop->up_base_ms = counters->up_ms;
        loop->boot_base_ms = clock_boot_ms();
    }
    return 0;
}

/* ---- the turn ---- */

static void look_at_rows(struct loop *loop, const struct batch *batch)
{
    struct head *h = loop->head;
    for (size_t i = 0; i < batch->count; i++) {
        const struct row *row = &batch->rows[i];
        switch (row->kind) {
        case ROW_JOB:
            if (row->deleted)
                held_job_gone(h->held, row->id);
            waits_job(h->waits, row->id);
            break;
        case ROW_TASK:
            waits_job(h->waits, row->id);
            break;
        case ROW_ATTEMPT:
            if (row->deleted)
                outspools_attempt_gone(h->outspools, row->id);
            break;
        default:
            break;
        }
    }
    waits_events(h->waits);
}

static void answer_later(struct loop *loop)
{
    for (size_t i = 0; i < loop->later_count; i++) {
        struct later *l = &loop->later[i];
        if (l->kind == ANSWER_JOB)
            reply_job(l->session, l->request, l->job, l->first, l->count);
        else
            reply_task(l->session, l->request, l->job, l->task);
        session_unref(l->session);
    }
    loop->later_count = 0;
}

static void turn_end(struct loop *loop)
{
    struct head *h = loop->head;
    struct batch batch = {0};
    struct effects effects = {0};
    if (!loop->open)
        return;
    if (loop->state != LOOP_READ_ONLY) {
        core_end(h->core, &batch, &effects);
        for (size_t i = 0; i < loop->came_up_count; i++)
            core_open_effects(h->core, loop->came_up[i], &effects);
        look_at_rows(loop, &batch);
    }
    loop->came_up_count = 0;
    answer_later(loop);
    loop->open = false;
    held_effects(h->held, &effects);
    if (batch.count)
        loop->last_batch = store_put(h->store, &batch);
    held_seal(h->held, loop->state == LOOP_READ_ONLY ? loop->durable : loop->last_batch);
    held_release(h->held, loop->durable);
    arm_deadline(loop);
    if (!loop->choked && store_full(h->store)) {
        loop->choked = true;
        sessions_choke(h->sessions, true);
        nodelinks_choke(h->nodelinks, true);
    }
}

static void on_turn_end(evutil_socket_t fd, short what, void *arg)
{
    turn_end(arg);
}

void loop_turn(struct loop *loop)
{
    if (loop->open &&
        (loop->commands >= TURN_COMMANDS_MAX || clock_boot_us() - loop->opened_us > TURN_MS_MAX * 1000))
        turn_end(loop);
    if (loop->open)
        return;
    loop->open = true;
    loop->opened_us = clock_boot_us();
    loop->commands = 0;
    if (loop->state != LOOP_READ_ONLY)
        core_begin(loop->head->core, loop_up_ms(loop), clock_wall_ms());
    event_active(loop->turn_end, EV_TIMEOUT, 0);
}

void loop_command(struct loop *loop, const struct command *cmd, struct result *result)
{
    *result = (struct result){0};
    loop_turn(loop);
    if (loop->state == LOOP_READ_ONLY) {
        loop_writable(loop, &result->error);
        return;
    }
    core_command(loop->head->core, cmd, result);
    loop->commands++;
}

void loop_node_up(struct loop *loop, const char *node)
{
    loop->came_up = xgrow(loop->came_up, &loop->came_up_cap, loop->came_up_count + 1, sizeof *loop->came_up);
    snprintf(loop->came_up[loop->came_up_count++], sizeof *loop->came_up, "%s", node);
}

void loop_answer_later(struct loop *loop, enum answer_kind kind, struct session *session, uint64_t request,
                       uint64_t job, uint32_t task, uint32_t first, uint32_t count)
{
    loop->later = xgrow(loop->later, &loop->later_cap, loop->later_count + 1, sizeof *loop->later);
    loop->later[loop->later_count++] =
        (struct later){kind, session_ref(session), request, job, task, first, count};
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
    struct loop *loop = arg;
    struct result result;
    if (loop->state == LOOP_OK)
        loop_command(loop, &(struct command){.kind = CMD_TICK}, &result);
}

/* ---- store: progress, failure, recovery ---- */

bool loop_writable(const struct loop *loop, struct error *err)
{
    if (loop->stopping)
        error_set(err, ERR_UNAVAILABLE, "the head is shutting down");
    else if (loop->state == LOOP_READ_ONLY)
        error_set(err, ERR_UNAVAILABLE, "%s", loop->why.text);
    return !loop->stopping && loop->state == LOOP_OK;
}

bool loop_readable(const struct loop *loop, struct error *err)
{
    if (!loop->readable)
        error_set(err, ERR_UNAVAILABLE, "%s", loop->why.text);
    return loop->readable;
}

bool loop_stopping(const struct loop *loop)
{
    return loop->stopping;
}

uint64_t loop_set_aside(const struct loop *loop)
{
    return loop->set_aside;
}

/* A core to read from while nothing can be written: what is durable, and no more. What resuming
 * would change is thrown away; it is done again, for good, after the recovery. */
static void read_only_core(struct loop *loop)
{
    struct head *h = loop->head;
    struct batch batch = {0};
    struct effects effects = {0};
    struct error err;
    loop->readable = core_rebuild(loop, &err) == 0;
    if (!loop->readable) {
        log_error("the store cannot be read either: %s", err.text);
        return;
    }
    core_begin(h->core, loop_up_ms(loop), clock_wall_ms());
    core_resume(h->core, h->generation);
    core_end(h->core, &batch, &effects);
    batch_free(&batch);
    effects_free(&effects);
}

static void store_is_stuck(struct loop *loop, const struct error *why)
{
    struct head *h = loop->head;
    log_error("%s; changes are refused until the store can be written again", why->text);
    turn_end(loop); /* its batch is dropped by the store, its replies become errors below */
    loop->why = *why;
    loop->why.code = ERR_UNAVAILABLE;
    loop->state = LOOP_READ_ONLY;
    read_only_core(loop);
    held_fail(h->held, &loop->why);
    arm_deadline(loop);
    timer_ms(loop->probe, PROBE_MS);
}

/* The core starts anew from rows, as after a restart: every node says hello again. */
static int resume(struct loop *loop, struct error *err)
{
    struct head *h = loop->head;
    if (core_rebuild(loop, err))
        return -1;
    loop->state = LOOP_OK;
    loop->readable = true;
    outspools_reset(h->outspools);
    loop->last_batch = loop->durable; /* the numbers between were dropped */
    loop_turn(loop);
    core_resume(h->core, h->generation);
    waits_all(h->waits);
    return 0;
}

static void on_probe(evutil_socket_t fd, short what, void *arg)
{
    struct loop *loop = arg;
    struct error err;
    if (loop->state != LOOP_READ_ONLY)
        return;
    turn_end(loop);
    if (store_recover(loop->head->store, &err) || resume(loop, &err)) {
        timer_ms(loop->probe, PROBE_MS);
        return;
    }
    log_info("the store can be written again");
    nodelinks_close_all(loop->head->nodelinks);
}

static void stop_if_done(struct loop *loop);

static void on_store(evutil_socket_t fd, short what, void *arg)
{
    struct loop *loop = arg;
    struct head *h = loop->head;
    struct error err;
    loop->durable = store_durable(h->store);
    held_release(h->held, loop->durable);
    if (loop->state == LOOP_OK && store_failed(h->store, &err))
        store_is_stuck(loop, &err);
    if (loop->choked && !store_full(h->store)) {
        loop->choked = false;
        sessions_choke(h->sessions, false);
        nodelinks_choke(h->nodelinks, false);
    }
    stop_if_done(loop);
}

/* ---- start and stop ---- */

static void on_stop_timer(evutil_socket_t fd, short what, void *arg)
{
    struct loop *loop = arg;
    event_base_loopbreak(loop->head->base);
}

/* Replies have been handed to their links when nothing is held; they get a moment to leave. */
static void stop_if_done(struct loop *loop)
{
    struct head *h = loop->head;
    if (!loop->stopping || !held_empty(h->held))
        return;
    sessions_close(h->sessions);
    nodelinks_close_all(h->nodelinks);
    timer_ms(loop->stop_timer, 50);
}

void loop_stop(struct loop *loop)
{
    struct head *h = loop->head;
    if (loop->stopping)
        return;
    log_info("stopping");
    door_shut(h->door);
    sessions_shut(h->sessions);
    turn_end(loop);
    loop->stopping = true;
    timer_ms(loop->stop_timer, STOP_MS_MAX);
    stop_if_done(loop);
}

static void on_signal(evutil_socket_t fd, short what, void *arg)
{
    loop_stop(arg);
}

static struct event *make(struct loop *loop, int fd, short what, event_callback_fn fn, int priority)
{
    struct event *ev = event_new(loop->head->base, fd, what, fn, loop);
    if (ev)
        event_priority_set(ev, priority);
    return ev;
}

struct loop *loop_create(struct head *head, struct error *err)
{
    struct loop *loop = xcalloc(1, sizeof *loop);
    loop->head = head;
    head->loop = loop;
    loop->turn_end = make(loop, -1, 0, on_turn_end, PRIORITY_TURN_END);
    loop->deadline = make(loop, -1, 0, on_deadline, PRIORITY_TRAFFIC);
    loop->probe = make(loop, -1, 0, on_probe, PRIORITY_FIRST);
    loop->stop_timer = make(loop, -1, 0, on_stop_timer, PRIORITY_FIRST);
    loop->sigterm = make(loop, SIGTERM, EV_SIGNAL | EV_PERSIST, on_signal, PRIORITY_FIRST);
    loop->sigint = make(loop, SIGINT, EV_SIGNAL | EV_PERSIST, on_signal, PRIORITY_FIRST);
    loop->store_ready = make(loop, store_fd(head->store), EV_READ | EV_PERSIST, on_store, PRIORITY_FIRST);
    if (!loop->turn_end || !loop->deadline || !loop->probe || !loop->stop_timer || !loop->sigterm ||
        !loop->sigint || !loop->store_ready || event_add(loop->store_ready, NULL) ||
        event_add(loop->sigterm, NULL) || event_add(loop->sigint, NULL)) {
        error_set(err, ERR_IO, "cannot set up the event loop");
        return NULL;
    }
    if (resume(loop, err))
        return NULL;
    return loop;
}

void loop_destroy(struct loop *loop)
{
    if (!loop)
        return;
    struct event *all[] = {loop->turn_end,   loop->store_ready, loop->deadline, loop->probe,
                           loop->stop_timer, loop->sigterm,     loop->sigint};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i])
            event_free(all[i]);
    for (size_t i = 0; i < loop->later_count; i++)
        session_unref(loop->later[i].session);
    free(loop->later);
    free(loop->came_up);
    free(loop);
}

int loop_run(struct loop *loop)
{
    return event_base_dispatch(loop->head->base) < 0 ? -1 : 0;
}
