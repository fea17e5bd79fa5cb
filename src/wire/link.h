/* link.h - one connection that carries frames: unix socket or TLS over TCP, on a libevent loop.
 *
 * A link owns its bufferevent. Frames that arrive in one turn are handed over one by one; frames
 * sent in one turn leave in as few writes as possible. Callbacks may call link_close(), and run
 * from the loop only, never inside a call below.
 *
 * Bounded: an accepted peer must have sent its first frame within 10 s (a connection that we make:
 * 30 s, lookup and handshake included), a frame that has begun must be whole within 60 s, and a
 * peer that leaves more than LINK_UNSENT_MAX bytes unread is dropped. A Reply longer than FRAME_MAX
 * leaves as an error reply (ERR_LIMIT) to the same id; any other frame that long ends the link.
 *
 * The first link makes the process ignore SIGPIPE, if that was not handled: reset it before exec.
 */
#ifndef MUSTER_WIRE_LINK_H
#define MUSTER_WIRE_LINK_H

#include "base/error.h"
#include "proto/wire.pb-c.h"
#include "wire/tls.h"

#include <event2/bufferevent.h>
#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct link;
struct link_ops {
    /* The connection (and, for TLS, the handshake) is made. May be NULL. */
    void (*on_ready)(struct link *link, void *arg);
    /* A frame; owned by the link, freed after the call. */
    void (*on_frame)(struct link *link, Mu__Frame *frame, void *arg);
    /* The connection is over: err says why ("closed by the other end"). The link frees itself after
     * this call; it is not called after link_close(). */
    void (*on_closed)(struct link *link, const struct error *err, void *arg);
};

#define LINK_UNSENT_MAX (64u * 1024 * 1024)

/* Takes over a connected descriptor (made non-blocking; closed on failure too). tls NULL: plain (unix sockets
 * only). */
struct link *link_accept(struct event_base *base, int fd, struct tls_context *tls, const struct link_ops *ops,
                         void *arg, struct error *err);
/* Connects without blocking; errors arrive in on_closed. `address` is a numeric IPv4/IPv6 address or
 * a host name; `expect` is the name the peer's certificate must carry. */
struct link *link_connect_tcp(struct event_base *base, const char *address, uint16_t port,
                              struct tls_context *tls, const char *expect, const struct link_ops *ops,
                              void *arg, struct error *err);
/* Fails at once with ERR_UNAVAILABLE when nobody listens. */
struct link *link_connect_unix(struct event_base *base, const char *path, const struct link_ops *ops,
                               void *arg, struct error *err);

void link_close(struct link *link); /* at once; NULL is fine */
void link_close_flushed(
    struct link *link); /* after what was sent has left (at most 5 s); no more callbacks */
void link_send(struct link *link, const Mu__Frame *frame); /* copies; never blocks */
/* The same for frames that frame_encode() has made already: whole ones, one after the other. */
void link_send_packed(struct link *link, const void *frames, size_t len);
size_t link_unsent(const struct link *link);    /* bytes waiting to leave: senders of bulk data watch it */
void link_pause(struct link *link, bool pause); /* stop reading from the peer: back-pressure */
void link_limit(struct link *link, size_t frame_max); /* FRAME_MAX_HELLO until raised */
/* Other times, in milliseconds, than the 10 s (30 s) and 60 s above. */
void link_patience(struct link *link, int first_frame_ms, int frame_ms);
void link_set(struct link *link, const struct link_ops *ops, void *arg); /* hand over to another owner */

/* Unix sockets: who the peer is, from the kernel. 0 or -1. */
int link_peer_cred(const struct link *link, uid_t *uid, gid_t *gid, pid_t *pid);
/* TLS: the name in the peer's verified certificate ("node:node01", "head"); NULL: none shown. */
const char *link_peer_name(const struct link *link);
/* "unix uid 1000" or "10.0.0.2:43210": for logs. */
const char *link_peer_text(const struct link *link);

/* Blocking use, for short-lived clients (the CLI, muster-local): */
struct client;
/* Connects to the head's unix socket, exchanges Hello. ERR_UNAVAILABLE with a text that says what to
 * do when nobody answers. timeout_ms bounds connect + hello and each client_call(). */
struct client *client_open(const char *socket_path, int timeout_ms, struct error *err);
void client_close(struct client *c); /* NULL is fine */
const Mu__Hello *client_hello(const struct client *c);
int client_fd(const struct client *c);
/* Sends the request (its id is filled in) and waits for its reply. A Reply with error set becomes -1
 * with that error. timeout_ms < 0: the client's own; 0: wait for ever. Free with client_reply_free(). */
int client_call(struct client *c, Mu__Request *request, int timeout_ms, Mu__Reply **reply, struct error *err);
/* Pipelining: send many, then take replies in the order of arrival (reply->id tells which). */
int client_send(struct client *c, Mu__Request *request, struct error *err);
int client_flush(struct client *c, struct error *err);
int client_receive(struct client *c, int timeout_ms, Mu__Reply **reply, struct error *err);
void client_reply_free(Mu__Reply *reply);

#endif
