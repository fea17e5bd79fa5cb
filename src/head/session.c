/* session.c - accepts clients, greets them, and keeps each within bounds.
 *
 * Back-pressure: a client that has too many unanswered requests, or does not read its replies, is
 * not read from until it has caught up. Replies leave the link without a word to us, so a timer
 * looks at paused sessions while there are any. */
#include "head/session.h"
#include "base/log.h"
#include "base/mem.h"
#include "head/hello.h"
#include "head/loop.h"
#include "head/request.h"
#include "head/waits.h"
#include "wire/frame.h"
#include "wire/listener.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uthash.h>

#define SESSIONS_MAX 8192
#define USER_SESSIONS_MAX 512 /* of one user who is no administrator: there is room for others */
#define UNANSWERED_MAX 16384
#define UNSENT_MAX (16u * 1024 * 1024)
#define USER_UNSENT_MAX (64u * 1024 * 1024) /* of all connections of one user together */
#define PAUSED_LOOK_MS 50
#define SOCKET_MODE 0666 /* who a client is comes from the kernel, not from the file's mode */

struct user {
    uid_t uid;
    unsigned sessions;
    size_t bytes; /* held and unsent of all its sessions, as last seen: what has left since counts still */
    bool over;    /* more than USER_UNSENT_MAX */
    UT_hash_handle hh;
};

struct sessions {
    struct head *head;
    struct user *users; /* who has sessions */
    struct listener *listener;
    struct event *look;
    LIST_HEAD(session_list, session) list;
    size_t count;
    bool choked;
    bool looking;
    bool shut;
};

struct session *session_ref(struct session *session)
{
    session->refs++;
    return session;
}

void session_unref(struct session *session)
{
    if (--session->refs)
        return;
    if (session->owner)
        mu__owner__free_unpacked(session->owner, NULL);
    free(session);
}

static struct user *user_of(struct sessions *all, uid_t uid)
{
    struct user *user;
    HASH_FIND(hh, all->users, &uid, sizeof uid, user);
    if (user)
        return user;
    user = xcalloc(1, sizeof *user);
    user->uid = uid;
    HASH_ADD(hh, all->users, uid, sizeof user->uid, user);
    return user;
}

static void user_release(struct sessions *all, struct user *user)
{
    if (!user || --user->sessions)
        return;
    HASH_DEL(all->users, user);
    free(user);
}

/* The link is over or about to be: nothing may reach it any more. */
static void session_gone(struct session *s)
{
    struct sessions *all = s->head->sessions;
    s->link = NULL;
    owner_cancel(&s->who);
    waits_session_gone(s->head->waits, s);
    if (s->user)
        s->user->bytes -= s->seen_bytes;
    user_release(all, s->user);
    s->user = NULL;
    LIST_REMOVE(s, next);
    if (all->count-- == SESSIONS_MAX)
        listener_pause(all->listener, all->shut);
    session_unref(s);
}

static void look_soon(struct sessions *all)
{
    struct timeval tv = {.tv_usec = PAUSED_LOOK_MS * 1000};
    if (!all->looking)
        event_add(all->look, &tv);
    all->looking = true;
}

static void look_at_bytes(struct session *s)
{
    size_t bytes = s->held_bytes + (s->link ? link_unsent(s->link) : 0);
    if (s->user)
        s->user->bytes += bytes - s->seen_bytes;
    s->seen_bytes = bytes;
}

bool session_behind(struct session *s)
{
    look_at_bytes(s);
    return s->unanswered >= UNANSWERED_MAX || s->seen_bytes > UNSENT_MAX ||
           (s->user && !s->admin && s->user->bytes > USER_UNSENT_MAX);
}

static void update_pause(struct session *s);

/* The user's other sessions are paused in the moment in which it has too much: each would otherwise make
 * one more answer of some megabytes before it is looked at. */
void session_held(struct session *session, size_t more, size_t less)
{
    struct session *s;
    struct user *user = session->user;
    session->held_bytes += more - less;
    look_at_bytes(session);
    if (!user || user->over == (user->bytes > USER_UNSENT_MAX))
        return;
    user->over = !user->over;
    LIST_FOREACH (s, &session->head->sessions->list, next)
        if (user->over && s->user == user)
            update_pause(s);
}

void session_skipped(struct session *session)
{
    session->skipped = true;
    look_soon(session->head->sessions);
}

static void update_pause(struct session *s)
{
    struct sessions *all = s->head->sessions;
    if (!s->link)
        return;
    bool behind = session_behind(s);
    bool pause = behind || all->choked || !s->owner;
    if (behind)
        look_soon(all);
    if (pause != s->paused)
        link_pause(s->link, s->paused = pause);
}

static void on_look(evutil_socket_t fd, short what, void *arg)
{
    struct sessions *all = arg;
    struct session *s;
    all->looking = false;
    LIST_FOREACH (s, &all->list, next)
        session_held(s, 0, 0); /* what has left meanwhile makes room for the user's others */
    LIST_FOREACH (s, &all->list, next) {
        if (s->paused)
            update_pause(s);
        if (s->skipped && !session_behind(s)) {
            s->skipped = false;
            loop_turn(all->head->loop);
            waits_session(all->head->waits, s);
        } else if (s->skipped) {
            look_soon(all);
        }
    }
}

void session_send(struct session *session, const struct buf *frame)
{
    session->unanswered--;
    session->held_bytes -= frame->len;
    if (!session->link)
        return;
    link_send_packed(session->link, frame->data, frame->len);
    session_held(session, 0, 0);
    update_pause(session);
}

bool session_owns(const struct session *session, const Mu__Owner *owner)
{
    return session->admin || (owner && owner->uid == session->owner->uid);
}

/* ---- greeting ---- */

static void refuse(struct session *s, const struct error *err)
{
    struct link *link = s->link;
    log_info("client %s is refused: %s", link_peer_text(link), err->text);
    hello_send(s->head, link, err);
    session_gone(s);
    link_close_flushed(link);
}

static void on_hello(struct session *s, const Mu__Hello *hello)
{
    struct error err;
    if (hello_check(hello, &err)) {
        refuse(s, &err);
        return;
    }
    s->greeted = true;
    link_limit(s->link, FRAME_MAX);
    hello_send(s->head, s->link, NULL);
}

static void on_frame(struct link *link, Mu__Frame *frame, void *arg)
{
    struct session *s = arg;
    if (!s->greeted && frame->kind_case == MU__FRAME__KIND_HELLO) {
        on_hello(s, frame->hello);
    } else if (s->greeted && frame->kind_case == MU__FRAME__KIND_REQUEST) {
        s->unanswered++;
        session_ref(s); /* a request to shut down ends every session */
        request_handle(s, frame->request);
        update_pause(s);
        session_unref(s);
    } else {
        struct error err;
        error_set(&err, ERR_PROTOCOL, "%s",
                  s->greeted ? "only requests may follow Hello" : "Hello must come first");
        refuse(s, &err);
    }
}

static void on_closed(struct link *link, const struct error *err, void *arg)
{
    struct session *s = arg;
    log_debug("client %s: %s", link_peer_text(link), err->text);
    session_gone(s);
}

static const struct link_ops session_ops = {.on_frame = on_frame, .on_closed = on_closed};

static void on_owner(struct owner_wait *wait, Mu__Owner *owner, bool admin, const struct error *why)
{
    struct session *s = (struct session *)((char *)wait - offsetof(struct session, who));
    struct error err;
    if (!owner) {
        refuse(s, why);
        return;
    }
    s->owner = owner;
    s->admin = admin;
    if (s->user->sessions > USER_SESSIONS_MAX && !admin) {
        error_set(&err, ERR_LIMIT, "user %s has %d connections: at most that many", owner->name,
                  USER_SESSIONS_MAX);
        refuse(s, &err);
        return;
    }
    update_pause(s);
}

/* Nothing is read from the client until it is known who it is. */
static void identify(struct session *s)
{
    struct error err;
    gid_t gid;
    pid_t pid;
    if (link_peer_cred(s->link, &s->uid, &gid, &pid)) {
        error_sys(&err, "cannot tell who the client is");
        refuse(s, &err);
        return;
    }
    s->user = user_of(s->head->sessions, s->uid);
    s->user->sessions++;
    update_pause(s);
    session_ref(s);
    owner_ask(s->head->owners, s->uid, gid, &s->who);
    if (s->link && !s->owner && s->user->sessions > USER_SESSIONS_MAX) {
        error_set(&err, ERR_LIMIT, "user %u has %d connections that wait: at most that many",
                  (unsigned)s->uid, USER_SESSIONS_MAX);
        refuse(s, &err);
    }
    session_unref(s);
}

static void on_accept(struct listener *listener, int fd, void *arg)
{
    struct sessions *all = arg;
    struct error err;
    struct session *s = xcalloc(1, sizeof *s);
    s->head = all->head;
    s->refs = 1;
    LIST_INIT(&s->waits);
    s->who.done = on_owner;
    s->link = link_accept(all->head->base, fd, NULL, &session_ops, s, &err);
    if (!s->link) {
        log_warn("cannot take a client: %s", err.text);
        session_unref(s);
        return;
    }
    LIST_INSERT_HEAD(&all->list, s, next);
    if (++all->count == SESSIONS_MAX)
        listener_pause(all->listener, true);
    identify(s);
}

/* ---- life ---- */

struct sessions *sessions_create(struct head *head, struct error *err)
{
    struct sessions *all = xcalloc(1, sizeof *all);
    all->head = head;
    LIST_INIT(&all->list);
    all->look = event_new(head->base, -1, 0, on_look, all);
    all->listener = listener_unix(head->base, head->socket_path, SOCKET_MODE, on_accept, all, err);
    if (all->listener && all->look)
        return all;
    sessions_destroy(all);
    return NULL;
}

void sessions_destroy(struct sessions *sessions)
{
    struct session *s, *next;
    if (!sessions)
        return;
    for (s = LIST_FIRST(&sessions->list); s; s = next) {
        next = LIST_NEXT(s, next);
        link_close(s->link);
        owner_cancel(&s->who);
        waits_session_gone(s->head->waits, s);
        user_release(sessions, s->user);
        LIST_REMOVE(s, next);
        s->link = NULL;
        session_unref(s);
    }
    listener_free(sessions->listener);
    if (sessions->look)
        event_free(sessions->look);
    free(sessions);
}

void sessions_shut(struct sessions *sessions)
{
    sessions->shut = true;
    listener_pause(sessions->listener, true);
}

void sessions_close(struct sessions *sessions)
{
    struct session *s;
    while ((s = LIST_FIRST(&sessions->list))) {
        struct link *link = s->link;
        session_gone(s);
        link_close_flushed(link);
    }
}

void sessions_choke(struct sessions *sessions, bool choke)
{
    struct session *s;
    sessions->choked = choke;
    LIST_FOREACH (s, &sessions->list, next)
        update_pause(s);
}
