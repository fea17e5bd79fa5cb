/* conn.c - a connection that carries StepFrames.
 *
 * Packed frames wait in two queues, control and data. Bytes move from the queues to `wire` (after
 * TLS where there is any) only while little is in `wire`, whole frames at a time, control first.
 * Received bytes pass TLS into `plain`, from which frames are cut.
 */
#include "step/conn.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/mem.h"
#include "step/tlsmod.h"
#include "step/pmixmod.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define WIRE_LOW (128 * 1024) /* more than this is not handed to TLS ahead of time */
#define READ_CHUNK (64 * 1024)
#define ANSWER_S 20 /* from the beginning of a connection with TLS to the end of its handshake */

struct conn {
    int fd;
    struct event_base *base;
    struct event *readable, *writable;
    const struct tlsmod *mod;
    void *tls; /* NULL: plain */
    struct buf control, data, wire, plain;
    size_t control_at, data_at, wire_at; /* what has gone out of each already */
    const struct conn_ops *ops;
    void *arg;
    struct event *slow;    /* TLS: the other end has not answered */
    struct event *failing; /* tells `closed` from the loop, not from inside conn_send() */
    struct error why;
    bool dead;    /* said or about to say closed */
    bool in_call; /* a callback is running: freeing waits */
    bool freed;
};

static void conn_free(struct conn *c)
{
    if (c->in_call) {
        c->freed = true;
        return;
    }
    event_free(c->readable);
    event_free(c->writable);
    event_free(c->failing);
    event_free(c->slow);
    if (c->tls)
        c->mod->end(c->tls);
    close(c->fd);
    buf_free(&c->control);
    buf_free(&c->data);
    buf_free(&c->wire);
    buf_free(&c->plain);
    free(c);
}

static void on_failing(evutil_socket_t fd, short what, void *arg)
{
    struct conn *c = arg;
    const struct conn_ops *ops = c->ops;
    void *ops_arg = c->arg;
    struct error why = c->why;
    conn_free(c);
    ops->closed(ops_arg, &why);
}

static void fail(struct conn *c)
{
    if (c->dead)
        return;
    c->dead = true;
    event_del(c->readable);
    event_del(c->writable);
    event_active(c->failing, EV_TIMEOUT, 0);
}

/* Drops what has gone out, now and then, so that moving memory stays cheap. */
static void trim(struct buf *b, size_t *at)
{
    if (*at == b->len) {
        buf_reset(b);
        *at = 0;
    } else if (*at > 256 * 1024) {
        buf_consume(b, *at);
        *at = 0;
    }
}

/* One whole frame from a queue to the wire. */
static int move_frame(struct conn *c, struct buf *from, size_t *at)
{
    uint32_t len;
    memcpy(&len, from->data + *at, sizeof len);
    size_t total = sizeof len + ntohl(len);
    if (c->tls) {
        if (c->mod->output(c->tls, from->data + *at, total, &c->wire, &c->why))
            return -1;
    } else {
        buf_add(&c->wire, from->data + *at, total);
    }
    *at += total;
    trim(from, at);
    return 0;
}

static void flush(struct conn *c)
{
    for (;;) {
        bool open = !c->tls || c->mod->ready(c->tls);
        while (open && c->wire.len - c->wire_at < WIRE_LOW && (c->control.len || c->data.len)) {
            bool control = c->control.len > 0;
            if (move_frame(c, control ? &c->control : &c->data, control ? &c->control_at : &c->data_at)) {
                fail(c);
                return;
            }
        }
        if (c->wire_at == c->wire.len)
            return;
        ssize_t n =
            send(c->fd, c->wire.data + c->wire_at, c->wire.len - c->wire_at, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == ENOTCONN || errno == EINPROGRESS)) {
            event_add(c->writable, NULL);
            return;
        }
        if (n < 0) {
            error_sys(&c->why, "connection lost");
            fail(c);
            return;
        }
        c->wire_at += (size_t)n;
        trim(&c->wire, &c->wire_at);
    }
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct conn *c = arg;
    if (!c->dead)
        flush(c);
}

/* Frames that are whole. */
static void cut(struct conn *c)
{
    size_t at = 0;
    while (!c->freed && !c->dead && c->plain.len - at >= 4) {
        uint32_t len;
        memcpy(&len, c->plain.data + at, sizeof len);
        len = ntohl(len);
        if (len > CONN_FRAME_MAX) {
            error_set(&c->why, ERR_PROTOCOL, "a frame of %u bytes (at most %u)", len, CONN_FRAME_MAX);
            fail(c);
            return;
        }
        if (c->plain.len - at < 4 + (size_t)len)
            break;
        Mu__StepFrame *f = mu__step_frame__unpack(NULL, len, (uint8_t *)c->plain.data + at + 4);
        if (!f) {
            error_set(&c->why, ERR_PROTOCOL, "a broken frame of %u bytes", len);
            fail(c);
            return;
        }
        at += 4 + (size_t)len;
        c->ops->frame(c->arg, f);
        mu__step_frame__free_unpacked(f, NULL);
    }
    if (!c->freed)
        buf_consume(&c->plain, at);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct conn *c = arg;
    static char bytes[READ_CHUNK];
    ssize_t n = recv(c->fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        if (n < 0)
            error_sys(&c->why, "connection lost");
        else
            error_set(&c->why, ERR_IO, "connection closed by the other end");
        fail(c);
        return;
    }
    if (!c->tls) {
        buf_add(&c->plain, bytes, (size_t)n);
    } else if (c->mod->input(c->tls, bytes, (size_t)n, &c->plain, &c->wire, &c->why)) {
        fail(c);
        return;
    }
    c->in_call = true;
    cut(c);
    c->in_call = false;
    if (c->freed)
        conn_free(c);
    else if (!c->dead)
        flush(c);
}

/* A host that is gone without a word, or one whose agent is stopped, is not waited for. */
static void on_slow(evutil_socket_t fd, short what, void *arg)
{
    struct conn *c = arg;
    if (c->dead || c->mod->ready(c->tls))
        return;
    error_set(&c->why, ERR_TIMEOUT, "no answer in %d s", ANSWER_S);
    fail(c);
}

static const struct tlsmod *load_tls(struct error *err)
{
    static const struct tlsmod *mod;
    if (!mod)
        mod = module_load("muster-tls", "muster_tls", err);
    return mod;
}

struct conn *conn_new(struct event_base *base, int fd, enum conn_security security, const uint8_t *psk,
                      size_t psk_len, const void *preamble, size_t preamble_len, const struct conn_ops *ops,
                      void *arg, struct error *err)
{
    const struct tlsmod *mod = security == CONN_PLAIN ? NULL : load_tls(err);
    void *tls = mod ? mod->begin(security == CONN_TLS_SERVER, psk, psk_len, err) : NULL;
    if (security != CONN_PLAIN && !tls) {
        close(fd);
        return NULL;
    }
    struct conn *c = xcalloc(1, sizeof *c);
    c->fd = fd;
    c->base = base;
    c->mod = mod;
    c->tls = tls;
    c->ops = ops;
    c->arg = arg;
    evutil_make_socket_nonblocking(fd);
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* fails on unix sockets: no matter */
    c->readable = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, c);
    c->writable = event_new(base, fd, EV_WRITE, on_writable, c);
    c->failing = evtimer_new(base, on_failing, c);
    c->slow = evtimer_new(base, on_slow, c);
    event_add(c->readable, NULL);
    if (tls)
        event_add(c->slow, &(const struct timeval){.tv_sec = ANSWER_S});
    if (preamble_len)
        buf_add(&c->wire, preamble, preamble_len);
    /* The client's hello. */
    if (tls && mod->input(tls, NULL, 0, &c->plain, &c->wire, err)) {
        conn_free(c);
        return NULL;
    }
    event_add(c->writable, NULL);
    return c;
}

void conn_send(struct conn *c, const Mu__StepFrame *frame)
{
    if (c->dead)
        return;
    bool data =
        frame->kind_case == MU__STEP_FRAME__KIND_OUTPUT || frame->kind_case == MU__STEP_FRAME__KIND_INPUT ||
        frame->kind_case == MU__STEP_FRAME__KIND_DONE || frame->kind_case == MU__STEP_FRAME__KIND_RESULT;
    /* DONE and RESULT close what the data queue carries: they stay behind it. */
    struct buf *queue = data ? &c->data : &c->control;
    size_t len = mu__step_frame__get_packed_size(frame);
    uint32_t head = htonl((uint32_t)len);
    buf_add(queue, &head, sizeof head);
    mu__step_frame__pack(frame, (uint8_t *)buf_reserve(queue, len));
    buf_added(queue, len);
    if (!c->in_call)
        flush(c); /* else after the callback */
}

void conn_close(struct conn *c)
{
    if (!c)
        return;
    c->dead = true;
    event_del(c->readable);
    event_del(c->writable);
    event_del(c->failing);
    event_del(c->slow);
    conn_free(c);
}

void conn_close_flushed(struct conn *c, int ms)
{
    int64_t limit = clock_boot_ms() + ms;
    while (c && !c->dead && (c->wire_at < c->wire.len || c->control.len || c->data.len)) {
        int64_t left = limit - clock_boot_ms();
        struct pollfd p = {.fd = c->fd, .events = POLLOUT};
        int n = left > 0 ? poll(&p, 1, (int)left) : 0;
        if (n == 0 || (n < 0 && errno != EINTR))
            break;
        flush(c);
    }
    /* What the peer still sends is read away: closing with unread bytes would be a reset, which
     * may overtake our last frame. */
    if (c && !c->dead) {
        char bytes[4096];
        shutdown(c->fd, SHUT_WR);
        struct pollfd p = {.fd = c->fd, .events = POLLIN};
        int64_t left;
        while ((left = limit - clock_boot_ms()) > 0 && poll(&p, 1, (int)left) > 0)
            if (recv(c->fd, bytes, sizeof bytes, MSG_DONTWAIT) <= 0)
                break;
    }
    conn_close(c);
}
