/* step_end.c - faults, ending, and when a step is over.
 *
 * The first fault decides what is reported. It comes with a grace: after a plain non-zero exit
 * the other ranks may finish by themselves for that long (their own last words are worth having);
 * after a signal, an abort or a lost node they are ended at once. Ending is SIGTERM, then SIGKILL until
 * nobody is left. A branch tells its faults to the root, which gives the order.
 *
 * What may never come is not waited for: a branch that does not confirm, the end of output that somebody
 * outside of the step holds open. A killed rank is: the kernel ends it.
 */
#include "step/step_private.h"
#include "base/mem.h"
#include "step/sweep.h"
#include "step/tree.h"

#include <signal.h>
#include <stdlib.h>

#define GRACE_TERM_MS 250   /* between SIGTERM and SIGKILL */
#define GRACE_BRANCH_MS 800 /* after that a branch that has not confirmed the end is given up */
#define REAP_MS 500         /* from a child's end to the look for orphans' zombies */
#define DRAIN_MS 1000       /* silence of what ended ranks left open, before it is closed here */

static void on_kill_time(evutil_socket_t fd, short what, void *arg)
{
    struct step *s = arg;
    for (uint32_t i = 0; i < s->ranks_n; i++)
        if (!s->ranks[i].exited)
            rank_signal(&s->ranks[i], SIGKILL);
    step_again_after(s->kill_event, GRACE_TERM_MS); /* until they are gone */
}

/* Bytes that nobody is left to write are not waited for: a process outside of the step can hold a
 * rank's output (it was handed over, or opened through /proc), and one of another user's we cannot end. */
static void on_drain_time(evutil_socket_t fd, short what, void *arg)
{
    struct step *s = arg;
    if (s->reading_paused || s->output_seen) { /* there is more, or the reader is slow */
        s->output_seen = false;
        step_again_after(s->drain_event, DRAIN_MS);
        return;
    }
    step_note(s, "output is still held open by a process outside of the step; it is not waited for");
    for (uint32_t i = 0; i < s->ranks_n; i++)
        rank_close_output(&s->ranks[i]);
    step_check_over(s);
}

static void on_branch_time(evutil_socket_t fd, short what, void *arg)
{
    struct step *s = arg;
    for (uint32_t n = 0; n < s->launch->n_nodes; n++) {
        if (tree_branch(s->me, n) && !s->done[n]) {
            step_note(s, "node %s did not confirm the end", step_node_name(s, n));
            s->done[n] = 1;
            s->done_below++;
        }
    }
    step_check_over(s);
}

void step_end(struct step *s, uint32_t grace_ms)
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
    s->kill_event = step_after(s, grace_ms ? grace_ms : GRACE_TERM_MS, on_kill_time);
    if (s->below && !s->branch_event)
        s->branch_event = step_after(s, grace_ms + GRACE_BRANCH_MS, on_branch_time);
    step_check_over(s);
}

static void on_grace_time(evutil_socket_t fd, short what, void *arg)
{
    struct step *s = arg;
    s->others_ended = s->ranks_ended < s->size;
    step_end(s, GRACE_TERM_MS);
}

/* Root: the first fault is kept; whatever needs it more urgently shortens the grace. */
void step_take_fault(struct step *s, const Mu__StepFault *f)
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
            s->grace_event = step_after(s, f->grace_ms, on_grace_time);
        return;
    }
    s->others_ended = s->ranks_ended + 1 < s->size || !s->launch;
    step_end(s, GRACE_TERM_MS);
}

/* rank -1: the node itself. */
void step_fault(struct step *s, int64_t rank, int code, uint32_t grace_ms, const char *fmt, ...)
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
        step_take_fault(s, &f);
    else
        step_up(s, FRAME(FAULT, fault, &f));
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
                buf_addf(&text, "rank %u on %s ", (unsigned)s->fault->rank,
                         step_node_name(s, s->fault->node));
            buf_adds(&text, s->fault->text);
            if (s->others_ended)
                buf_adds(&text, "; the step was ended");
        }
        r.text = (char *)buf_str(&text);
    }
    step_up(s, FRAME(RESULT, result, &r));
    buf_free(&text);
}

/* All processes are gone from this node; is the subtree, is the step? */
void step_check_over(struct step *s)
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
                s->drain_event = step_after(s, DRAIN_MS, on_drain_time);
            return;
        }
    if (!s->local_done) {
        s->local_done = true;
        if (!s->root && s->launch) {
            Mu__StepDone d = MU__STEP_DONE__INIT;
            d.node = s->me;
            step_up(s, FRAME(DONE, done, &d));
        }
    }
    if (s->done_below < s->below)
        return;
    s->finished = true;
    if (s->root)
        result(s);
    s->config.over(s->config.arg);
}

/* ---- orphans ---- */

static bool is_rank(void *arg, pid_t pid)
{
    const struct step *s = arg;
    for (uint32_t i = 0; i < s->ranks_n; i++)
        if (s->ranks[i].pid == pid)
            return true;
    return false;
}

static void on_reap_time(evutil_socket_t fd, short what, void *arg)
{
    sweep_reap(is_rank, arg);
}

/* Not at once: most that end are ranks, and short steps are over before there is anything to clear up. */
static void on_child(evutil_socket_t sig, short what, void *arg)
{
    struct step *s = arg;
    if (!event_pending(s->reap_event, EV_TIMEOUT, NULL))
        step_again_after(s->reap_event, REAP_MS);
}

void step_reap_begin(struct step *s)
{
    s->reap_event = evtimer_new(s->config.base, on_reap_time, s);
    s->child_event = evsignal_new(s->config.base, SIGCHLD, on_child, s);
    evsignal_add(s->child_event, NULL);
}

static void free_event(struct event *e)
{
    if (e)
        event_free(e);
}

void step_end_free(struct step *s)
{
    free_event(s->kill_event);
    free_event(s->grace_event);
    free_event(s->branch_event);
    free_event(s->drain_event);
    free_event(s->child_event);
    free_event(s->reap_event);
    if (!s->fault)
        return;
    free(s->fault->text);
    free(s->fault);
}
