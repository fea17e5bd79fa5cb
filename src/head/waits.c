/* waits.c - waits by job, so that a turn costs what has changed in it and not who waits. */
#include "head/waits.h"
#include "base/mem.h"
#include "head/loop.h"
#include "head/reply.h"

#include <stdlib.h>
#include <string.h>
#include <uthash.h>

struct wait {
    LIST_ENTRY(wait) of_session;
    LIST_ENTRY(wait) of_subject;
    struct session *session; /* its own waits list ends before it does */
    struct subject *subject; /* NULL: for any event */
    Mu__Request *request;
    uint64_t after; /* EventList.after as it was asked */
};
LIST_HEAD(wait_list, wait);

struct subject { /* one job somebody waits for */
    uint64_t job;
    struct wait_list list;
    UT_hash_handle hh;
};

struct waits {
    struct head *head;
    struct subject *jobs;
    struct wait_list events;
    uint64_t events_seen; /* EventList waits have seen all up to here */
};

struct waits *waits_create(struct head *head)
{
    struct waits *w = xcalloc(1, sizeof *w);
    w->head = head;
    LIST_INIT(&w->events);
    return w;
}

void waits_destroy(struct waits *waits)
{
    free(waits);
}

static void wait_free(struct waits *waits, struct wait *w)
{
    struct subject *subject = w->subject;
    LIST_REMOVE(w, of_session);
    LIST_REMOVE(w, of_subject);
    w->session->wait_count--;
    if (subject && LIST_EMPTY(&subject->list)) {
        HASH_DEL(waits->jobs, subject); /* NOLINT(clang-analyzer-core.NullDereference): it is in the table */
        free(subject);
    }
    mu__request__free_unpacked(w->request, NULL);
    free(w);
}

/* Answers when there is something to say. */
static bool try_answer(struct head *h, struct session *s, const Mu__Request *r)
{
    uint64_t newest;
    const Mu__Job *job;
    if (session_behind(s)) {
        session_skipped(s);
        return false;
    }
    switch (r->kind_case) {
    case MU__REQUEST__KIND_JOB_WAIT:
        job = core_job(h->core, r->job_wait->job_id);
        newest = job ? core_job_event(h->core, job->id) : 0;
        if (job && newest && newest <= r->job_wait->seen_event)
            return false;
        if (job && !newest && r->job_wait->seen_event && !job->ended_wall_ms)
            return false; /* its events are past their keeping and it still runs */
        reply_job(s, r->id, r->job_wait->job_id, 0, 0);
        return true;
    case MU__REQUEST__KIND_TASK_OUTPUT:
        return reply_output(s, r->id, r->task_output, false);
    case MU__REQUEST__KIND_EVENT_LIST:
        return reply_events(s, r->id, r->event_list, false);
    default:
        return true;
    }
}

static uint64_t job_of(const Mu__Request *r)
{
    if (r->kind_case == MU__REQUEST__KIND_JOB_WAIT)
        return r->job_wait->job_id;
    return r->kind_case == MU__REQUEST__KIND_TASK_OUTPUT ? r->task_output->job_id : 0;
}

/* Events that were looked at in vain are not looked at again: others may wait for what never comes. */
static void seen(struct head *h, struct wait *w)
{
    Mu__EventList *list =
        w->request->kind_case == MU__REQUEST__KIND_EVENT_LIST ? w->request->event_list : NULL;
    uint64_t newest = loop_event(h->loop);
    if (list && list->after < newest && !session_behind(w->session))
        list->after = newest;
}

static struct subject *subject_of(struct waits *waits, uint64_t job)
{
    struct subject *subject;
    HASH_FIND(hh, waits->jobs, &job, sizeof job, subject);
    if (subject)
        return subject;
    subject = xcalloc(1, sizeof *subject);
    subject->job = job;
    LIST_INIT(&subject->list);
    HASH_ADD(hh, waits->jobs, job, sizeof subject->job, subject);
    return subject;
}

static Mu__Request *request_copy(const Mu__Request *request)
{
    size_t len = mu__request__get_packed_size(request);
    uint8_t *bytes = xmalloc(len + 1);
    mu__request__pack(request, bytes);
    Mu__Request *copy = mu__request__unpack(NULL, len, bytes);
    free(bytes);
    return copy;
}

int waits_add(struct waits *waits, struct session *session, const Mu__Request *request, struct error *err)
{
    if (try_answer(waits->head, session, request))
        return 0;
    if (session->wait_count >= WAITS_PER_SESSION_MAX)
        return error_set(err, ERR_LIMIT, "one client can wait for %d things at once", WAITS_PER_SESSION_MAX);
    struct wait *w = xcalloc(1, sizeof *w);
    w->session = session;
    w->request = request_copy(request);
    if (request->kind_case != MU__REQUEST__KIND_EVENT_LIST)
        w->subject = subject_of(waits, job_of(request));
    LIST_INSERT_HEAD(w->subject ? &w->subject->list : &waits->events, w, of_subject);
    LIST_INSERT_HEAD(&session->waits, w, of_session);
    session->wait_count++;
    if (request->kind_case == MU__REQUEST__KIND_EVENT_LIST)
        w->after = request->event_list->after;
    seen(waits->head, w);
    return 0;
}

static void look(struct waits *waits, struct wait_list *list)
{
    struct wait *w, *next;
    for (w = LIST_FIRST(list); w; w = next) {
        next = LIST_NEXT(w, of_subject); /* the last one takes the list along */
        if (try_answer(waits->head, w->session, w->request))
            wait_free(waits, w);
        else
            seen(waits->head, w);
    }
}

void waits_job(struct waits *waits, uint64_t job)
{
    struct subject *subject;
    HASH_FIND(hh, waits->jobs, &job, sizeof job, subject);
    if (subject)
        look(waits, &subject->list);
}

void waits_events(struct waits *waits)
{
    uint64_t newest = loop_event(waits->head->loop);
    if (newest == waits->events_seen)
        return;
    waits->events_seen = newest;
    look(waits, &waits->events);
}

void waits_all(struct waits *waits)
{
    struct subject *subject, *tmp;
    struct wait *w;
    HASH_ITER (hh, waits->jobs, subject, tmp)
        look(waits, &subject->list);
    LIST_FOREACH (w, &waits->events, of_subject)
        w->request->event_list->after = w->after; /* what was seen may never have been stored */
    look(waits, &waits->events);
}

void waits_session(struct waits *waits, struct session *session)
{
    struct wait *w, *next;
    for (w = LIST_FIRST(&session->waits); w; w = next) {
        next = LIST_NEXT(w, of_session);
        if (try_answer(waits->head, w->session, w->request))
            wait_free(waits, w);
    }
}

void waits_session_gone(struct waits *waits, struct session *session)
{
    while (!LIST_EMPTY(&session->waits))
        wait_free(waits, LIST_FIRST(&session->waits));
}
