/* door.c - TLS handshakes at a bounded rate, then Hello, then whoever is concerned takes the link.
 *
 * Nobody here is known: peers are few at once (the rest wait in the kernel), their frames short,
 * and the link itself ends one that says nothing. */
#include "head/door.h"
#include "base/log.h"
#include "base/mem.h"
#include "head/hello.h"
#include "head/join.h"
#include "head/nodelink.h"
#include "wire/link.h"
#include "wire/listener.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#define PEERS_MAX 256
#define HANDSHAKES_BURST 64
#define HANDSHAKES_PER_SECOND 500
#define JOIN_S_MAX 30 /* from connection to JoinRequest */

struct peer {
    TAILQ_ENTRY(peer) next;
    struct door *door;
    struct link *link;
    struct event *late;
    bool joining;
};

struct door {
    struct head *head;
    struct listener *listener;
    TAILQ_HEAD(, peer) peers;
    size_t count;
    bool shut;
};

static void peer_free(struct peer *p)
{
    struct door *door = p->door;
    TAILQ_REMOVE(&door->peers, p, next);
    if (door->count-- == PEERS_MAX)
        listener_pause(door->listener, door->shut);
    event_free(p->late);
    free(p);
}

static void refuse(struct peer *p, const struct error *err)
{
    struct link *link = p->link;
    log_warn("%s is refused: %s", link_peer_text(link), err->text);
    hello_send(p->door->head, link, err);
    peer_free(p);
    link_close_flushed(link);
}

static void on_hello(struct peer *p, const Mu__Hello *hello)
{
    struct head *h = p->door->head;
    struct error err;
    if (hello_check(hello, &err)) {
        refuse(p, &err);
    } else if (hello->role == MU__ROLE__ROLE_JOIN) {
        p->joining = true;
        hello_send(h, p->link, NULL);
    } else if (hello->role != MU__ROLE__ROLE_NODE) {
        error_set(&err, ERR_DENIED, "only agents may come here; clients use %s", h->socket_path);
        refuse(p, &err);
    } else if (nodelinks_hello(h->nodelinks, p->link, hello, &err)) {
        refuse(p, &err);
    } else {
        peer_free(p); /* the link has a new owner */
    }
}

static void on_join(struct peer *p, const Mu__JoinRequest *request)
{
    struct head *h = p->door->head;
    struct link *link = p->link;
    Mu__Frame frame = MU__FRAME__INIT;
    frame.kind_case = MU__FRAME__KIND_JOIN_REPLY;
    frame.join_reply = join_handle(h->joins, request, link_peer_name(link), link_peer_text(link));
    link_send(link, &frame);
    mu__join_reply__free_unpacked(frame.join_reply, NULL);
    peer_free(p);
    link_close_flushed(link);
}

static void on_frame(struct link *link, Mu__Frame *frame, void *arg)
{
    struct peer *p = arg;
    struct error err;
    if (!p->joining && frame->kind_case == MU__FRAME__KIND_HELLO) {
        on_hello(p, frame->hello);
    } else if (p->joining && frame->kind_case == MU__FRAME__KIND_JOIN) {
        on_join(p, frame->join);
    } else {
        error_set(&err, ERR_PROTOCOL, "it sent something else than %s", p->joining ? "JoinRequest" : "Hello");
        refuse(p, &err);
    }
}

static void on_closed(struct link *link, const struct error *err, void *arg)
{
    log_info("%s: %s", link_peer_text(link), err->text);
    peer_free(arg);
}

static const struct link_ops peer_ops = {.on_frame = on_frame, .on_closed = on_closed};

static void on_late(evutil_socket_t fd, short what, void *arg)
{
    struct peer *p = arg;
    struct link *link = p->link;
    log_info("%s said nothing for %d s", link_peer_text(link), JOIN_S_MAX);
    peer_free(p);
    link_close(link);
}

static void on_accept(struct listener *listener, int fd, void *arg)
{
    struct door *door = arg;
    struct error err;
    struct peer *p = xcalloc(1, sizeof *p);
    struct timeval tv = {.tv_sec = JOIN_S_MAX};
    p->door = door;
    p->late = event_new(door->head->base, -1, 0, on_late, p);
    p->link = link_accept(door->head->base, fd, door->head->tls, &peer_ops, p, &err);
    if (!p->link || !p->late) {
        log_warn("cannot take a connection: %s", p->link ? "no timer" : err.text);
        link_close(p->link);
        if (p->late)
            event_free(p->late);
        free(p);
        return;
    }
    event_add(p->late, &tv);
    TAILQ_INSERT_TAIL(&door->peers, p, next);
    if (++door->count == PEERS_MAX)
        listener_pause(listener, true);
}

struct door *door_create(struct head *head, const char *listen, struct error *err)
{
    struct door *door = xcalloc(1, sizeof *door);
    door->head = head;
    door->shut = true;
    TAILQ_INIT(&door->peers);
    door->listener = listener_tcp(head->base, listen, on_accept, door, err);
    if (!door->listener) {
        free(door);
        return NULL;
    }
    listener_pause(door->listener, true);
    listener_rate(door->listener, HANDSHAKES_BURST, HANDSHAKES_PER_SECOND);
    snprintf(head->listen_text, sizeof head->listen_text, "%s", listener_text(door->listener));
    return door;
}

void door_open(struct door *door)
{
    door->shut = false;
    listener_pause(door->listener, false);
}

void door_shut(struct door *door)
{
    door->shut = true;
    listener_pause(door->listener, true);
}

void door_destroy(struct door *door)
{
    struct peer *p;
    if (!door)
        return;
    while ((p = TAILQ_FIRST(&door->peers))) {
        struct link *link = p->link;
        peer_free(p);
        link_close(link);
    }
    listener_free(door->listener);
    free(door);
}
