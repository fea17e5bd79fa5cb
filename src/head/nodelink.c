/* nodelink.c - agents: hello, heartbeats, reports, orders.
 *
 * A struct nodelink is made at an agent's first hello and stays while the head runs (there is one
 * for each node), with or without a link. One timer looks at all of them four times a heartbeat. */
#include "head/nodelink.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "head/hello.h"
#include "head/loop.h"
#include "head/order.h"
#include "head/outspool.h"
#include "wire/frame.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/queue.h>
#include <uthash.h>

#define MISSED_MAX 3
#define UNSENT_MAX (64u * 1024 * 1024) /* an agent that does not read its orders */
#define CORES_MAX 65536
#define CLOSED_GRACE_HEARTBEATS 2

struct nodelink {
    char name[NODE_NAME_MAX + 1]; /* lower case */
    char install_id[129];
    struct nodelinks *all;
    struct link *link; /* NULL: none now */
    bool up;           /* what the core was told last */
    int64_t heard_ms;  /* boot clock */
    int64_t closed_ms;
    Mu__NodeLoad load;
    struct order order;
    bool dirty;
    bool resync;
    TAILQ_ENTRY(nodelink) next_dirty;
    UT_hash_handle hh;
};

struct nodelinks {
    struct head *head;
    struct nodelink *by_name; /* lower case, as certificates have it */
    TAILQ_HEAD(, nodelink) dirty;
    struct event *look;
    int64_t looked_ms;
};

const char *nodelink_name(const struct nodelink *nl)
{
    return nl->name;
}

void node_key(const char *name, char out[NODE_NAME_MAX + 1])
{
    size_t i = 0;
    for (; i < NODE_NAME_MAX && name[i]; i++)
        out[i] = name[i] >= 'A' && name[i] <= 'Z' ? (char)(name[i] - 'A' + 'a') : name[i];
    out[i] = 0;
}

static struct nodelink *find(struct nodelinks *all, const char *node)
{
    struct nodelink *nl;
    char key[NODE_NAME_MAX + 1] = "";
    node_key(node, key);
    HASH_FIND_STR(all->by_name, key, nl);
    return nl;
}

struct nodelink *nodelink_find(struct nodelinks *nodelinks, const char *node)
{
    struct nodelink *nl = find(nodelinks, node);
    return nl && nl->link ? nl : NULL;
}

const char *nodelink_install_id(struct nodelinks *nodelinks, const char *node)
{
    struct nodelink *nl = nodelink_find(nodelinks, node);
    return nl ? nl->install_id : NULL;
}

bool nodelink_load(struct nodelinks *nodelinks, const char *node, Mu__NodeLoad *load, int64_t *seen_ms_ago)
{
    struct nodelink *nl = find(nodelinks, node);
    if (!nl)
        return false;
    *seen_ms_ago = clock_boot_ms() - nl->heard_ms;
    if (!nl->link)
        return false;
    *load = nl->load;
    return true;
}

/* ---- orders ---- */

static void mark_dirty(struct nodelink *nl)
{
    if (nl->dirty)
        return;
    nl->dirty = true;
    TAILQ_INSERT_TAIL(&nl->all->dirty, nl, next_dirty);
}

static void drop_orders(struct nodelink *nl)
{
    order_clear(&nl->order);
    if (nl->dirty)
        TAILQ_REMOVE(&nl->all->dirty, nl, next_dirty);
    nl->dirty = false;
}

/* Effects for a node without a link are dropped: its next hello brings all that are open then. */
void nodelinks_effects(struct nodelinks *nodelinks, const struct effects *effects)
{
    for (size_t i = 0; i < effects->count; i++) {
        const struct effect *e = &effects->list[i];
        struct nodelink *nl = nodelink_find(nodelinks, e->node);
        if (!nl)
            continue;
        order_add(&nl->order, nodelinks->head, e, nl->link);
        if (e->kind == EFFECT_PREPARE)
            outspools_credit(nodelinks->head->outspools, nl, e->attempt);
        mark_dirty(nl);
    }
}

void nodelink_credit(struct nodelink *nl, uint64_t attempt, uint64_t offset, uint32_t window)
{
    order_credit(&nl->order, attempt, offset, window);
    mark_dirty(nl);
}

static void link_lost(struct nodelink *nl, const char *why);

void nodelinks_flush(struct nodelinks *nodelinks)
{
    struct nodelink *nl;
    while ((nl = TAILQ_FIRST(&nodelinks->dirty))) {
        TAILQ_REMOVE(&nodelinks->dirty, nl, next_dirty);
        nl->dirty = false;
        if (!nl->link)
            continue;
        order_send(&nl->order, nodelinks->head, nl->link);
        if (link_unsent(nl->link) > UNSENT_MAX) {
            link_close(nl->link);
            link_lost(nl, "it does not read its orders");
        }
    }
}

/* ---- link up and down ---- */

static void tell_down(struct nodelink *nl)
{
    struct result result;
    struct error err;
    if (!nl->up || !loop_writable(nl->all->head->loop, &err))
        return;
    nl->up = false;
    log_warn("node %s is unreachable", nl->name);
    loop_command(nl->all->head->loop, &(struct command){.kind = CMD_NODE_DOWN, .node = nl->name}, &result);
    if (result.error.code)
        log_error("node %s: %s", nl->name, result.error.text);
}

static void link_lost(struct nodelink *nl, const char *why)
{
    log_info("node %s: %s", nl->name, why);
    nl->link = NULL;
    nl->closed_ms = clock_boot_ms();
    drop_orders(nl);
    outspools_link_gone(nl->all->head->outspools, nl->name);
}

static void close_link(struct nodelink *nl, const char *why)
{
    struct link *link = nl->link;
    if (!link)
        return;
    link_lost(nl, why);
    link_close(link);
}

static void on_look(evutil_socket_t fd, short what, void *arg)
{
    struct nodelinks *all = arg;
    struct nodelink *nl, *tmp;
    int64_t now = clock_boot_ms(), beat = all->head->config.heartbeat_ms;
    /* Were we stopped ourselves, what agents sent meanwhile is not read yet: silence was ours. */
    int64_t stood_still = now - all->looked_ms > beat ? now - all->looked_ms : 0;
    all->looked_ms = now;
    HASH_ITER (hh, all->by_name, nl, tmp) {
        nl->heard_ms += nl->link ? stood_still : 0;
        nl->closed_ms += nl->link ? 0 : stood_still;
        if (nl->link && nl->resync)
            close_link(nl, "its output could not be written; it starts again");
        nl->resync = false;
        if (nl->link && now - nl->heard_ms > MISSED_MAX * beat) {
            close_link(nl, "no heartbeat");
            tell_down(nl);
        } else if (!nl->link && nl->up && now - nl->closed_ms > CLOSED_GRACE_HEARTBEATS * beat) {
            tell_down(nl);
        }
    }
}

void nodelink_resync(struct nodelink *nl)
{
    nl->resync = true;
}

/* ---- reports ---- */

void nodelink_report(struct head *head, const char *node, const Mu__AttemptReport *report)
{
    struct result result;
    loop_command(head->loop, &(struct command){.kind = CMD_REPORT, .node = node, .report = report}, &result);
    if (result.error.code && result.error.code != ERR_UNAVAILABLE)
        log_warn("node %s, attempt %llu: %s", node, (unsigned long long)report->attempt, result.error.text);
}

static void heartbeat(struct nodelink *nl, const Mu__NodeReport *report)
{
    struct head *h = nl->all->head;
    Mu__NodeOrder order = MU__NODE_ORDER__INIT;
    Mu__Frame frame = MU__FRAME__INIT;
    nl->load = *report->load;
    order.generation = h->generation;
    order.heartbeat_seq = report->seq;
    order.heartbeat_ms = h->config.heartbeat_ms;
    order.lease_ms = h->config.lease_ms;
    frame.kind_case = MU__FRAME__KIND_ORDER;
    frame.order = &order;
    link_send(nl->link, &frame);
}

static void on_frame(struct link *link, Mu__Frame *frame, void *arg)
{
    struct nodelink *nl = arg;
    struct head *h = nl->all->head;
    struct error err;
    nl->heard_ms = clock_boot_ms();
    if (frame->kind_case != MU__FRAME__KIND_REPORT) {
        close_link(nl, "it sent what only a client or a head may send");
        return;
    }
    const Mu__NodeReport *report = frame->report;
    if (report->load)
        heartbeat(nl, report);
    if (!report->n_output && !report->n_attempts)
        return;
    /* What cannot be noted now comes again: links are closed after a recovery. */
    if (!loop_writable(h->loop, &err) && !loop_stopping(h->loop))
        return;
    loop_turn(h->loop);
    for (size_t i = 0; i < report->n_output; i++)
        outspools_chunk(h->outspools, nl, report->output[i]);
    for (size_t i = 0; i < report->n_attempts; i++)
        if (!outspools_keep_back(h->outspools, nl, report->attempts[i]))
            nodelink_report(h, nl->name, report->attempts[i]);
}

static void on_closed(struct link *link, const struct error *err, void *arg)
{
    link_lost(arg, err->text);
}

static const struct link_ops node_ops = {.on_frame = on_frame, .on_closed = on_closed};

/* ---- hello ---- */

static int check_hello(struct nodelinks *all, struct link *link, const Mu__Hello *hello, struct error *err)
{
    const Mu__NodeHello *n = hello->node;
    const char *shown = link_peer_name(link);
    if (!n || !*n->name || strlen(n->name) > 64 || !*n->install_id || strlen(n->install_id) > 128)
        return error_set(err, ERR_PROTOCOL, "an agent's Hello must say its name and install id");
    if (!shown || strncmp(shown, "node:", 5) || strcasecmp(shown + 5, n->name))
        return error_set(err, ERR_DENIED, "the certificate is for %s, not for node %s",
                         shown ? shown : "nobody", n->name);
    if (n->cores == 0 || n->cores > CORES_MAX)
        return error_set(err, ERR_USAGE, "node %s: %u cores; 1 to %d are expected", n->name, n->cores,
                         CORES_MAX);
    if (n->port > 65535)
        return error_set(err, ERR_USAGE, "node %s: step port %u", n->name, n->port);
    struct nodelink *nl = nodelink_find(all, n->name);
    if (nl && strcmp(nl->install_id, n->install_id))
        return error_set(err, ERR_EXISTS, "another machine is connected as node %s", n->name);
    return 0;
}

static struct nodelink *nodelink_of(struct nodelinks *all, const char *name)
{
    struct nodelink *nl = find(all, name);
    if (nl)
        return nl;
    nl = xcalloc(1, sizeof *nl);
    node_key(name, nl->name);
    nl->all = all;
    order_init(&nl->order);
    mu__node_load__init(&nl->load);
    HASH_ADD_STR(all->by_name, name, nl);
    return nl;
}

/* An attempt whose output is not all here is shown to the core as still running; its real report is
 * kept back and follows. */
static void inventory(struct nodelink *nl, Mu__NodeHello *hello)
{
    struct head *h = nl->all->head;
    for (size_t i = 0; i < hello->n_attempts; i++) {
        Mu__AttemptReport *r = hello->attempts[i];
        outspools_credit(h->outspools, nl, r->attempt);
        if (outspools_keep_back(h->outspools, nl, r)) {
            r->phase = MU__ATTEMPT_PHASE__PHASE_RUNNING;
            r->has_result = false;
        }
    }
}

int nodelinks_hello(struct nodelinks *nodelinks, struct link *link, const Mu__Hello *hello, struct error *err)
{
    struct head *h = nodelinks->head;
    struct result result;
    struct error closed;
    if (check_hello(nodelinks, link, hello, err))
        return -1;
    struct nodelink *nl = nodelink_of(nodelinks, hello->node->name);
    close_link(nl, "it has connected anew");
    if (loop_writable(h->loop, &closed)) {
        /* The link is set before the inventory: what is kept back refers to it. */
        nl->link = link;
        inventory(nl, hello->node);
        loop_command(h->loop, &(struct command){.kind = CMD_NODE_UP, .node_hello = hello->node}, &result);
        if (result.error.code) {
            *err = result.error;
            link_lost(nl, err->text);
            return -1;
        }
        if (!nl->up)
            log_info("node %s is connected from %s", nl->name, link_peer_text(link));
        nl->up = true;
        loop_node_up(h->loop, nl->name);
    }
    snprintf(nl->install_id, sizeof nl->install_id, "%s", hello->node->install_id);
    nl->link = link;
    nl->heard_ms = clock_boot_ms();
    link_set(link, &node_ops, nl);
    link_limit(link, FRAME_MAX);
    hello_send(h, link, NULL);
    return 0;
}

/* ---- life ---- */

struct nodelinks *nodelinks_create(struct head *head, struct error *err)
{
    struct nodelinks *all = xcalloc(1, sizeof *all);
    int64_t every = head->config.heartbeat_ms / 4 + 1;
    struct timeval tv = {.tv_sec = every / 1000, .tv_usec = (every % 1000) * 1000};
    all->head = head;
    TAILQ_INIT(&all->dirty);
    all->looked_ms = clock_boot_ms();
    all->look = event_new(head->base, -1, EV_PERSIST, on_look, all);
    if (!all->look || event_add(all->look, &tv)) {
        error_set(err, ERR_IO, "cannot set up a timer");
        nodelinks_destroy(all);
        return NULL;
    }
    return all;
}

void nodelinks_destroy(struct nodelinks *nodelinks)
{
    struct nodelink *nl, *tmp;
    if (!nodelinks)
        return;
    HASH_ITER (hh, nodelinks->by_name, nl, tmp) {
        HASH_DEL(nodelinks->by_name, nl);
        link_close(nl->link);
        order_clear(&nl->order);
        free(nl);
    }
    if (nodelinks->look)
        event_free(nodelinks->look);
    free(nodelinks);
}

void nodelinks_choke(struct nodelinks *nodelinks, bool choke)
{
    struct nodelink *nl, *tmp;
    HASH_ITER (hh, nodelinks->by_name, nl, tmp)
        if (nl->link)
            link_pause(nl->link, choke);
}

void nodelinks_close_all(struct nodelinks *nodelinks)
{
    struct nodelink *nl, *tmp;
    HASH_ITER (hh, nodelinks->by_name, nl, tmp) {
        struct link *link = nl->link;
        if (!link)
            continue;
        link_lost(nl, "closed by this head");
        link_close_flushed(link);
    }
}
