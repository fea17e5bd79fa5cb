/* client.c - a blocking client of the head's unix socket.
 *
 * One descriptor, non-blocking, and poll(). Whoever writes also reads meanwhile: the head stops reading
 * from a client that leaves its replies unread, and both would wait for ever. Replies that somebody
 * else waits for are queued in order of arrival. */
#include "wire/link.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/mem.h"
#include "wire/frame.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define OUT_HIGH (1024 * 1024) /* client_send() flushes by itself beyond this */

struct waiting {
    STAILQ_ENTRY(waiting) next;
    Mu__Frame *frame;
};
STAILQ_HEAD(waiting_list, waiting);

struct client {
    int fd;
    int timeout_ms;
    uint64_t last_id;
    struct buf out, in;
    Mu__Frame *hello;
    struct waiting_list replies;
};

static int64_t deadline_of(int timeout_ms)
{
    return timeout_ms > 0 ? clock_boot_ms() + timeout_ms : INT64_MAX;
}

/* Waits for `events`; at the deadline ERR_TIMEOUT. Gives what poll() gave. */
static int wait_for(struct client *c, short events, int64_t deadline, struct error *err)
{
    for (;;) {
        int64_t left = deadline == INT64_MAX ? -1 : deadline - clock_boot_ms();
        if (deadline != INT64_MAX && left <= 0)
            return error_set(err, ERR_TIMEOUT, "the head does not answer in time");
        struct pollfd p = {.fd = c->fd, .events = events};
        int n = poll(&p, 1, left > 60000 ? 60000 : (int)left);
        if (n > 0)
            return p.revents;
        if (n < 0 && errno != EINTR)
            return error_sys(err, "cannot wait for the head");
    }
}

/* ---- bytes ---- */

static int read_some(struct client *c, struct error *err)
{
    char *at = buf_reserve(&c->in, 64 * 1024);
    ssize_t n = recv(c->fd, at, 64 * 1024, MSG_DONTWAIT);
    if (n > 0) {
        buf_added(&c->in, (size_t)n);
        return 0;
    }
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n < 0 && errno != ECONNRESET) {
        error_sys(err, "connection to the head is lost");
        if (err)
            err->code = ERR_UNAVAILABLE;
        return -1;
    }
    return error_set(err, ERR_UNAVAILABLE, "the head closed the connection");
}

/* Takes whole frames out of c->in. */
static int take_frames(struct client *c, struct error *err)
{
    size_t at = 0, used = 0;
    int rc;
    Mu__Frame *frame;
    while ((rc = frame_decode(c->in.data + at, c->in.len - at, FRAME_MAX, &frame, &used, err)) > 0) {
        at += used;
        if (frame->kind_case == MU__FRAME__KIND_REPLY) {
            struct waiting *w = xcalloc(1, sizeof *w);
            w->frame = frame;
            STAILQ_INSERT_TAIL(&c->replies, w, next);
        } else if (frame->kind_case == MU__FRAME__KIND_HELLO && !c->hello) {
            c->hello = frame;
        } else {
            frame_free(frame); /* of a kind that only newer clients know */
        }
    }
    if (c->in.data)
        buf_consume(&c->in, at);
    return rc;
}

static int flush_until(struct client *c, int64_t deadline, struct error *err)
{
    size_t at = 0;
    int rc = 0;
    while (at < c->out.len) {
        ssize_t n = send(c->fd, c->out.data + at, c->out.len - at, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n > 0) {
            at += (size_t)n;
            continue;
        }
        if (n < 0 && errno != EAGAIN && errno != EINTR) {
            /* What the head said before it closed tells more than "broken pipe". */
            rc = error_set(err, ERR_UNAVAILABLE, "the head closed the connection");
            break;
        }
        int got = wait_for(c, POLLIN | POLLOUT, deadline, err);
        if (got < 0 || (got & POLLIN && (read_some(c, err) || take_frames(c, err) < 0))) {
            rc = -1;
            break;
        }
    }
    buf_consume(&c->out, at);
    return rc;
}

/* ---- opening ---- */

static int connect_until(struct client *c, const char *path, int64_t deadline, struct error *err)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof sa.sun_path)
        return error_set(err, ERR_LIMIT, "path of a socket is too long: %s: at most %zu bytes", path,
                         sizeof sa.sun_path - 1);
    memcpy(sa.sun_path, path, strlen(path) + 1);
    c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (c->fd < 0)
        return error_sys(err, "cannot make a socket");
    while (connect(c->fd, (struct sockaddr *)&sa, sizeof sa)) {
        if (errno == EAGAIN &&
            clock_boot_ms() < deadline) { /* its queue is full, and poll() cannot tell when not */
            poll(NULL, 0, 5);
            continue;
        }
        if (errno == EINTR)
            continue;
        if (errno == EACCES || errno == EPERM)
            return error_set(err, ERR_DENIED, "cannot connect to the head at %s: permission denied", path);
        const char *why = errno == ENOENT ? "there is no such socket" : strerror(errno);
        return error_set(
            err, ERR_UNAVAILABLE,
            "no head answers at %s (%s): start the cluster with 'muster cluster start', or name another "
            "one with MUSTER_DIR",
            path, why);
    }
    return 0;
}

static int greet(struct client *c, int64_t deadline, struct error *err)
{
    Mu__Hello hello = MU__HELLO__INIT;
    Mu__Frame frame = MU__FRAME__INIT;
    hello.protocol = 1;
    hello.protocol_min = 1;
    hello.software = (char *)"muster " MUSTER_VERSION;
    hello.role = MU__ROLE__ROLE_CLIENT;
    frame.kind_case = MU__FRAME__KIND_HELLO;
    frame.hello = &hello;
    if (frame_encode(&frame, &c->out, err) || flush_until(c, deadline, err))
        return -1;
    while (!c->hello)
        if (wait_for(c, POLLIN, deadline, err) < 0 || read_some(c, err) || take_frames(c, err) < 0)
            return -1;
    const Mu__Hello *head = c->hello->hello;
    if (head->error)
        return error_set(err, (enum error_code)head->error->code, "%s", head->error->text);
    if (head->protocol_min > 1)
        return error_set(err, ERR_VERSION,
                         "the head (%s) speaks protocol %u to %u, this program 1: update it", head->software,
                         head->protocol_min, head->protocol);
    return 0;
}

struct client *client_open(const char *socket_path, int timeout_ms, struct error *err)
{
    struct client *c = xcalloc(1, sizeof *c);
    c->fd = -1;
    c->timeout_ms = timeout_ms;
    STAILQ_INIT(&c->replies);
    int64_t deadline = deadline_of(timeout_ms);
    if (connect_until(c, socket_path, deadline, err) || greet(c, deadline, err)) {
        client_close(c);
        return NULL;
    }
    return c;
}

void client_close(struct client *c)
{
    if (!c)
        return;
    struct waiting *w;
    while ((w = STAILQ_FIRST(&c->replies))) {
        STAILQ_REMOVE_HEAD(&c->replies, next);
        frame_free(w->frame);
        free(w);
    }
    if (c->fd >= 0)
        close(c->fd);
    frame_free(c->hello);
    buf_free(&c->in);
    buf_free(&c->out);
    free(c);
}

const Mu__Hello *client_hello(const struct client *c)
{
    return c->hello->hello;
}

int client_fd(const struct client *c)
{
    return c->fd;
}

/* ---- requests and replies ---- */

int client_send(struct client *c, Mu__Request *request, struct error *err)
{
    Mu__Frame frame = MU__FRAME__INIT;
    request->id = ++c->last_id;
    frame.kind_case = MU__FRAME__KIND_REQUEST;
    frame.request = request;
    if (frame_encode(&frame, &c->out, err))
        return -1;
    return c->out.len > OUT_HIGH ? client_flush(c, err) : 0;
}

int client_flush(struct client *c, struct error *err)
{
    return flush_until(c, deadline_of(c->timeout_ms), err);
}

/* The frame of reply `id` (0: any) out of the queue; NULL: not there. */
static Mu__Frame *take_reply(struct client *c, uint64_t id)
{
    struct waiting *w;
    STAILQ_FOREACH (w, &c->replies, next)
        if (!id || w->frame->reply->id == id)
            break;
    if (!w)
        return NULL;
    Mu__Frame *frame = w->frame;
    STAILQ_REMOVE(&c->replies, w, waiting, next);
    free(w);
    return frame;
}

static int receive(struct client *c, uint64_t id, int timeout_ms, Mu__Reply **reply, struct error *err)
{
    int64_t deadline = deadline_of(timeout_ms < 0 ? c->timeout_ms : timeout_ms);
    Mu__Frame *frame;
    if (flush_until(c, deadline, err))
        return -1;
    while (!(frame = take_reply(c, id)))
        if (wait_for(c, POLLIN, deadline, err) < 0 || read_some(c, err) || take_frames(c, err) < 0)
            return -1;
    *reply = frame->reply;
    frame->reply = NULL;
    frame->kind_case = MU__FRAME__KIND__NOT_SET;
    frame_free(frame);
    return 0;
}

int client_receive(struct client *c, int timeout_ms, Mu__Reply **reply, struct error *err)
{
    return receive(c, 0, timeout_ms, reply, err);
}

int client_call(struct client *c, Mu__Request *request, int timeout_ms, Mu__Reply **reply, struct error *err)
{
    if (client_send(c, request, err) || receive(c, request->id, timeout_ms, reply, err))
        return -1;
    if ((*reply)->error) {
        error_set(err, (enum error_code)(*reply)->error->code, "%s", (*reply)->error->text);
        client_reply_free(*reply);
        *reply = NULL;
        return -1;
    }
    return 0;
}

void client_reply_free(Mu__Reply *reply)
{
    if (reply)
        wire_free(&reply->base);
}
