/* held.c - one queue in the order of batches; the open turn's items wait beside it. */
#include "head/held.h"
#include "base/mem.h"
#include "head/loop.h"
#include "head/nodelink.h"
#include "head/outspool.h"
#include "head/reply.h"
#include "head/session.h"

#include <stdlib.h>
#include <sys/queue.h>

enum item_kind { ITEM_REPLY, ITEM_EFFECTS, ITEM_JOB_GONE };

struct item {
    STAILQ_ENTRY(item) next;
    enum item_kind kind;
    uint64_t batch;
    struct session *session; /* a reference */
    uint64_t request;
    struct buf frame;
    struct effects effects;
    uint64_t job;
};
STAILQ_HEAD(item_list, item);

struct held {
    struct head *head;
    struct item_list turn;  /* of the open turn: no batch so far */
    struct item_list queue; /* sealed, batch numbers never decrease */
};

struct held *held_create(struct head *head)
{
    struct held *h = xcalloc(1, sizeof *h);
    h->head = head;
    STAILQ_INIT(&h->turn);
    STAILQ_INIT(&h->queue);
    return h;
}

static void item_free(struct item *item)
{
    if (item->session)
        session_unref(item->session);
    buf_free(&item->frame);
    effects_free(&item->effects);
    free(item);
}

void held_destroy(struct held *held)
{
    if (!held)
        return;
    STAILQ_CONCAT(&held->queue, &held->turn);
    while (!STAILQ_EMPTY(&held->queue)) {
        struct item *item = STAILQ_FIRST(&held->queue);
        STAILQ_REMOVE_HEAD(&held->queue, next);
        item_free(item);
    }
    free(held);
}

static struct item *add(struct held *held, enum item_kind kind)
{
    struct item *item = xcalloc(1, sizeof *item);
    item->kind = kind;
    STAILQ_INSERT_TAIL(&held->turn, item, next);
    return item;
}

void held_reply(struct held *held, struct session *session, uint64_t request, struct buf *frame)
{
    struct item *item = add(held, ITEM_REPLY);
    item->session = session_ref(session);
    item->request = request;
    item->frame = *frame;
    session_held(session, frame->len, 0);
    *frame = (struct buf)BUF_INIT;
}

void held_effects(struct held *held, struct effects *effects)
{
    if (!effects->count)
        return;
    add(held, ITEM_EFFECTS)->effects = *effects;
    *effects = (struct effects){0};
}

void held_job_gone(struct held *held, uint64_t job)
{
    add(held, ITEM_JOB_GONE)->job = job;
}

void held_seal(struct held *held, uint64_t batch)
{
    struct item *item;
    STAILQ_FOREACH (item, &held->turn, next)
        item->batch = batch;
    STAILQ_CONCAT(&held->queue, &held->turn);
}

static void let_go(struct held *held, struct item *item)
{
    switch (item->kind) {
    case ITEM_REPLY:
        session_send(item->session, &item->frame);
        break;
    case ITEM_EFFECTS:
        nodelinks_effects(held->head->nodelinks, &item->effects);
        break;
    case ITEM_JOB_GONE:
        outspools_job_gone(held->head->outspools, item->job);
        break;
    }
}

void held_release(struct held *held, uint64_t durable)
{
    struct item *item;
    while ((item = STAILQ_FIRST(&held->queue)) && item->batch <= durable) {
        STAILQ_REMOVE_HEAD(&held->queue, next);
        let_go(held, item);
        item_free(item);
    }
    nodelinks_flush(held->head->nodelinks);
}

void held_fail(struct held *held, const struct error *err)
{
    struct item *item;
    STAILQ_CONCAT(&held->queue, &held->turn);
    while ((item = STAILQ_FIRST(&held->queue))) {
        STAILQ_REMOVE_HEAD(&held->queue, next);
        if (item->kind == ITEM_REPLY) {
            struct buf frame = BUF_INIT;
            reply_error_frame(item->request, loop_event(held->head->loop), err, &frame);
            session_held(item->session, frame.len, item->frame.len);
            session_send(item->session, &frame);
            buf_free(&frame);
        }
        item_free(item);
    }
}

bool held_empty(const struct held *held)
{
    return STAILQ_EMPTY(&held->queue) && STAILQ_EMPTY(&held->turn);
}
