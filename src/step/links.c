/* links.c - the branches below a node of the step tree. */
#include "step/links.h"
#include "base/mem.h"
#include "step/conn.h"
#include "step/tree.h"

#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ROUTE_SIZE 24
static const char magic[8] = {'M', 'U', 'S', 'T', 'E', 'P', '1', '\n'};

struct link_below {
    struct links *links;
    uint32_t node;
    struct conn *conn; /* NULL: lost */
};

struct links {
    const struct links_ops *ops;
    void *arg;
    uint32_t first, count;
    struct link_below below[TREE_WIDTH];
};

static void on_frame(void *arg, Mu__StepFrame *frame)
{
    struct link_below *b = arg;
    b->links->ops->frame(b->links->arg, b->node, frame);
}

static void on_closed(void *arg, const struct error *err)
{
    struct link_below *b = arg;
    b->conn = NULL;
    b->links->ops->lost(b->links->arg, b->node, err);
}

static const struct conn_ops conn_ops = {.frame = on_frame, .closed = on_closed};

/* Begins to connect; the result is seen by the first write. */
static int begin_connect(const Mu__PeerNode *peer, struct error *err)
{
    char port[8];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV}, *found = NULL;
    snprintf(port, sizeof port, "%u", peer->port & 0xffff);
    int rc = getaddrinfo(peer->address, port, &hints, &found);
    if (rc)
        return error_set(err, ERR_NOT_FOUND, "address \"%s\": %s", peer->address, gai_strerror(rc));
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || (connect(fd, found->ai_addr, found->ai_addrlen) && errno != EINPROGRESS)) {
        error_sys(err, "cannot connect to %s port %s", peer->address, port);
        if (fd >= 0)
            close(fd);
        fd = -1;
    }
    freeaddrinfo(found);
    return fd;
}

static int reach(struct links *l, struct link_below *b, struct event_base *base, Mu__StepLaunch *launch,
                 const uint8_t *psk, size_t psk_len, struct error *err)
{
    const Mu__PeerNode *peer = launch->nodes[b->node]->peer;
    uint8_t preamble[sizeof magic + ROUTE_SIZE] = {0};
    if (peer->route.len != ROUTE_SIZE)
        return error_set(err, ERR_INTERNAL, "node %s has no route for this attempt", peer->name);
    memcpy(preamble, magic, sizeof magic);
    memcpy(preamble + sizeof magic, peer->route.data, ROUTE_SIZE);
    int fd = begin_connect(peer, err);
    if (fd < 0)
        return -1;
    b->conn = conn_new(base, fd, CONN_TLS_CLIENT, psk, psk_len, preamble, sizeof preamble, &conn_ops, b, err);
    if (!b->conn)
        return -1;
    uint32_t mine = launch->index;
    launch->index = b->node;
    Mu__StepFrame f = MU__STEP_FRAME__INIT;
    f.kind_case = MU__STEP_FRAME__KIND_LAUNCH;
    f.launch = launch;
    conn_send(b->conn, &f);
    launch->index = mine;
    return 0;
}

struct links *links_new(struct event_base *base, Mu__StepLaunch *launch, uint32_t me, const uint8_t *psk,
                        size_t psk_len, const struct links_ops *ops, void *arg, struct error *err)
{
    struct links *l = xcalloc(1, sizeof *l);
    l->ops = ops;
    l->arg = arg;
    l->first = tree_first_child(me);
    for (uint32_t i = 0; i < TREE_WIDTH && l->first + i < launch->n_nodes; i++) {
        struct link_below *b = &l->below[l->count++];
        b->links = l;
        b->node = l->first + i;
        if (reach(l, b, base, launch, psk, psk_len, err)) {
            error_prefix(err, "cannot reach node %s", launch->nodes[b->node]->peer->name);
            links_free(l);
            return NULL;
        }
    }
    return l;
}

void links_free(struct links *l)
{
    if (!l)
        return;
    for (uint32_t i = 0; i < l->count; i++)
        conn_close(l->below[i].conn);
    free(l);
}

void links_send(struct links *l, uint32_t child, Mu__StepFrame *frame)
{
    assert(child >= l->first && child < l->first + l->count);
    struct conn *c = l->below[child - l->first].conn;
    if (c)
        conn_send(c, frame);
}

void links_send_all(struct links *l, Mu__StepFrame *frame)
{
    for (uint32_t i = 0; i < l->count; i++)
        links_send(l, l->first + i, frame);
}

uint32_t links_first(const struct links *l)
{
    return l->first;
}

uint32_t links_count(const struct links *l)
{
    return l->count;
}
