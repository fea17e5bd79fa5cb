/* order.c - effects become a NodeOrder. */
#include "head/order.h"
#include "base/log.h"
#include "base/mem.h"
#include "head/nodelink.h"
#include "head/outspool.h"
#include "wire/frame.h"

#include <stdlib.h>
#include <string.h>

#define ORDER_BYTES_MAX (1024u * 1024)
#define PREPARE_BYTES_MAX (FRAME_MAX - 2 * ORDER_BYTES_MAX) /* what has gathered goes in the same frame */
#define PSK_BYTES 32
#define ROUTE_BYTES 24

void order_init(struct order *order)
{
    *order = (struct order){0};
    mu__node_order__init(&order->msg);
}

void order_clear(struct order *order)
{
    Mu__NodeOrder *m = &order->msg;
    for (size_t i = 0; i < m->n_prepare; i++)
        mu__prepare_order__free_unpacked(m->prepare[i], NULL);
    for (size_t i = 0; i < m->n_end; i++)
        mu__end_order__free_unpacked(m->end[i], NULL);
    for (size_t i = 0; i < m->n_credit; i++)
        mu__output_credit__free_unpacked(m->credit[i], NULL);
    free(m->prepare);
    free(m->go);
    free(m->end);
    free(m->forget);
    free(m->credit);
    order_init(order);
}

bool order_empty(const struct order *order)
{
    return order->bytes == 0;
}

void order_send(struct order *order, struct head *head, struct link *link)
{
    Mu__Frame frame = MU__FRAME__INIT;
    if (order_empty(order))
        return;
    order->msg.generation = head->generation;
    frame.kind_case = MU__FRAME__KIND_ORDER;
    frame.order = &order->msg;
    link_send(link, &frame);
    order_clear(order);
}

static void bytes_set(ProtobufCBinaryData *to, const void *data, size_t len)
{
    free(to->data);
    to->data = xmemdup(data, len);
    to->len = len;
}

static void env_add(Mu__PrepareOrder *p, const char *name, const char *value)
{
    Mu__Env *env = xmalloc(sizeof *env);
    mu__env__init(env);
    env->name = xstrdup(name);
    env->value = xstrdup(value);
    p->env = xrealloc(p->env, (p->n_env + 1) * sizeof *p->env);
    p->env[p->n_env++] = env;
}

/* What only the head knows. Its variables come last: a user cannot replace them. */
static int complete(Mu__PrepareOrder *p, struct head *head, struct error *err)
{
    uint8_t psk[PSK_BYTES], route[ROUTE_BYTES];
    if (secret_derive(head->secret, "psk", p->attempt, psk, sizeof psk, err) ||
        secret_derive(head->secret, "route", p->attempt, route, sizeof route, err))
        return -1;
    bytes_set(&p->psk, psk, sizeof psk);
    for (size_t i = 0; i < p->n_nodes; i++)
        bytes_set(&p->nodes[i]->route, route, sizeof route);
    explicit_bzero(psk, sizeof psk);
    env_add(p, "CCP_CLUSTER_NAME", head->cluster);
    env_add(p, "CCP_SCHEDULER", head->host);
    return 0;
}

/* An order that no frame can carry will never get there: the task fails, as if the node had said so. */
static void refuse_long(struct head *head, const struct effect *effect, size_t bytes)
{
    char text[200];
    Mu__AttemptReport report = MU__ATTEMPT_REPORT__INIT;
    snprintf(text, sizeof text,
             "the order for this task would be %zu bytes long, and at most %u can be sent: "
             "ask for fewer nodes or cores",
             bytes, PREPARE_BYTES_MAX);
    report.attempt = effect->attempt;
    report.phase = MU__ATTEMPT_PHASE__PHASE_REFUSED;
    report.failure = MU__TASK_FAILURE__FAIL_SETUP;
    report.message = text;
    nodelink_report(head, effect->node, &report);
}

static void add_prepare(struct order *order, struct head *head, const struct effect *effect)
{
    struct error err;
    const Mu__Attempt *attempt = core_attempt(head->core, effect->attempt);
    if (!attempt || attempt->state == MU__ATTEMPT_STATE__ATTEMPT_ENDING) /* since: an END follows */
        return;
    Mu__PrepareOrder *p = core_prepare_order(head->core, effect->attempt, effect->node);
    if (!p)
        return;
    if (complete(p, head, &err)) {
        log_error("attempt %llu cannot be prepared: %s", (unsigned long long)effect->attempt, err.text);
        mu__prepare_order__free_unpacked(p, NULL);
        return;
    }
    size_t bytes = mu__prepare_order__get_packed_size(p);
    if (bytes > PREPARE_BYTES_MAX) {
        mu__prepare_order__free_unpacked(p, NULL);
        refuse_long(head, effect, bytes);
        return;
    }
    order->msg.prepare =
        xgrow(order->msg.prepare, &order->prepare_cap, order->msg.n_prepare + 1, sizeof *order->msg.prepare);
    order->msg.prepare[order->msg.n_prepare++] = p;
    order->bytes += bytes + 8;
}

static void add_end(struct order *order, struct head *head, const struct effect *effect)
{
    const Mu__Attempt *attempt = core_attempt(head->core, effect->attempt);
    Mu__EndOrder *end = xmalloc(sizeof *end);
    mu__end_order__init(end);
    end->attempt = effect->attempt;
    end->grace_ms = effect->grace_ms;
    end->cause = xstrdup(attempt ? attempt->message : "");
    order->msg.end = xgrow(order->msg.end, &order->end_cap, order->msg.n_end + 1, sizeof *order->msg.end);
    order->msg.end[order->msg.n_end++] = end;
    order->bytes += 32 + strlen(end->cause);
}

static void add_number(uint64_t **list, size_t *count, size_t *cap, uint64_t number)
{
    *list = xgrow(*list, cap, *count + 1, sizeof **list);
    (*list)[(*count)++] = number;
}

void order_add(struct order *order, struct head *head, const struct effect *effect, struct link *link)
{
    Mu__NodeOrder *m = &order->msg;
    switch (effect->kind) {
    case EFFECT_PREPARE:
        add_prepare(order, head, effect);
        break;
    case EFFECT_GO:
        add_number(&m->go, &m->n_go, &order->go_cap, effect->attempt);
        order->bytes += 12;
        break;
    case EFFECT_END:
        add_end(order, head, effect);
        break;
    case EFFECT_FORGET:
        add_number(&m->forget, &m->n_forget, &order->forget_cap, effect->attempt);
        order->bytes += 12;
        break;
    }
    if (order->bytes > ORDER_BYTES_MAX)
        order_send(order, head, link);
}

void order_credit(struct order *order, uint64_t attempt, uint64_t offset, uint32_t window)
{
    Mu__NodeOrder *m = &order->msg;
    Mu__OutputCredit *credit = xmalloc(sizeof *credit);
    mu__output_credit__init(credit);
    credit->attempt = attempt;
    credit->offset = offset;
    credit->window = window;
    m->credit = xgrow(m->credit, &order->credit_cap, m->n_credit + 1, sizeof *m->credit);
    m->credit[m->n_credit++] = credit;
    order->bytes += 32;
}
