/* session.h - one client on the unix socket.
 *
 * Who it is comes from the kernel once, at accept. A session lives as long as its link, or as
 * something refers to it (a held reply): then its link is NULL and what is sent goes nowhere.
 */
#ifndef MUSTER_HEAD_SESSION_H
#define MUSTER_HEAD_SESSION_H

#include "base/buf.h"
#include "head/head.h"
#include "head/owner.h"
#include "proto/wire.pb-c.h"
#include "wire/link.h"

#include <sys/queue.h>

struct wait;
struct session {
    LIST_ENTRY(session) next;
    struct head *head;
    struct link *link; /* NULL: gone */
    unsigned refs;
    uid_t uid;
    struct user *user; /* session.c's */
    struct owner_wait who;
    Mu__Owner *owner; /* whom its jobs belong to; NULL: that is being looked up, nothing is read */
    bool admin;
    bool greeted; /* Hello came */
    bool paused;
    uint32_t unanswered;
    size_t held_bytes; /* of replies that wait to be durable */
    size_t seen_bytes; /* session.c's: held and unsent, when last looked at */
    bool skipped;      /* a wait could be answered, but the client is behind */
    uint32_t wait_count;
    LIST_HEAD(, wait) waits; /* waits.c's */
};

/* Binds head->socket_path. Clients that come before the loop runs wait in the kernel's queue. */
struct sessions *sessions_create(struct head *head, struct error *err);
void sessions_destroy(struct sessions *sessions); /* NULL is fine */
void sessions_shut(struct sessions *sessions);    /* no new ones */
void sessions_close(struct sessions *sessions);   /* all, after what was sent has left */
void sessions_choke(struct sessions *sessions, bool choke);

struct session *session_ref(struct session *session);
void session_unref(struct session *session);
/* Whether the client has more unanswered, or unread, than is good. Its waits are then not answered
 * but skipped, and looked at again when it has caught up. */
bool session_behind(struct session *session);
void session_skipped(struct session *session);
/* Replies that wait to be durable: so many bytes more, so many less. */
void session_held(struct session *session, size_t more, size_t less);
/* An encoded Reply frame, which answers one request; its length was added to held_bytes. */
void session_send(struct session *session, const struct buf *frame);
bool session_owns(const struct session *session, const Mu__Owner *owner); /* or is an admin */

#endif
