/* link.c - one connection that carries frames.
 *
 * Life: (resolving ->) connecting -> handshake (TLS) -> ready -> closed. While connecting there is only
 * a descriptor and an event; then a bufferevent takes it over. Bytes to send go to `early` until then,
 * later to the bufferevent's output, which writes once per turn.
 *
 * Callbacks of the bufferevent are deferred, so nothing here runs inside a call of the owner; what the
 * owner's calls leave to do (a failed send, resumed reading) is done by the `turn` event. The owner may
 * close the link inside a callback: `depth` says that we are in one, and `dead` frees it afterwards.
 *
 * Host names are looked up by a thread of their own (getaddrinfo() blocks), which answers through a
 * socket pair and shares no memory with the link. */
#include "wire/link.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/mem.h"
#include "wire/frame.h"
#include "wire/tls_internal.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <event2/buffer.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define FIRST_FRAME_MS 10000 /* an accepted peer says hello within this */
#define CONNECT_MS 30000     /* lookup, connect, handshake and the peer's hello */
#define FRAME_MS 60000       /* a frame that has begun is whole within this */
#define FLUSH_MS 5000
#define READ_TURN_MAX (256 * 1024) /* bytes taken from one link in one turn */
#define READ_STEP (32 * 1024)
#define DELIVER_US 5000         /* frames of one link are handed over for so long in one turn */
#define KEEP_BUFFER (64 * 1024) /* an idle link keeps no more than this */

struct link {
    struct event_base *base;
    struct bufferevent *bev; /* NULL until connected */
    struct event *pending;   /* resolving or connecting */
    struct event *turn;      /* there is something to do in the next turn */
    struct event *late;      /* the peer takes too long, or flushing does */
    int fd;                  /* owned until the bufferevent takes it; the lookup's answer before */
    struct evbuffer *early;
    const struct link_ops *ops;
    void *arg;
    struct buf in; /* bytes of frames not handed over yet */
    size_t limit;
    SSL *ssl; /* the bufferevent owns it once there is one */
    char *expect, *peer_name;
    char peer_text[128];
    struct ucred cred;
    bool has_cred, tcp, connecting_side;
    bool ready, told_ready, got_frame, late_frame, paused;
    bool backlog, eof;   /* frames wait for the next turn: nothing is read, the end is seen after them */
    bool flushing, shut; /* closing: what was sent still leaves; our half is closed */
    bool failed, dead;
    int first_ms, frame_ms; /* patience */
    int depth;
    struct error error; /* why it failed */
};

static void settle(struct link *l);
static void tell_ready(struct link *l);

/* ---- life ---- */

static void link_free(struct link *l)
{
    assert(l->depth == 0);
    struct event *events[] = {l->pending, l->turn, l->late};
    for (size_t i = 0; i < sizeof events / sizeof events[0]; i++)
        if (events[i])
            event_free(events[i]);
    if (l->bev)
        bufferevent_free(l->bev); /* with descriptor and SSL */
    else {
        if (l->fd >= 0)
            close(l->fd);
        SSL_free(l->ssl);
    }
    if (l->early)
        evbuffer_free(l->early);
    buf_free(&l->in);
    free(l->expect);
    free(l->peer_name);
    free(l);
}

/* Ends the link with l->error in the next turn: this is called from inside the owner's calls. */
static void fail_later(struct link *l)
{
    l->failed = true;
    event_active(l->turn, EV_TIMEOUT, 0);
}

static int fail(struct link *l, enum error_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static int fail(struct link *l, enum error_code code, const char *fmt, ...)
{
    if (!l->failed) {
        va_list ap;
        va_start(ap, fmt);
        error_setv(&l->error, code, fmt, ap);
        va_end(ap);
        l->failed = true;
    }
    return -1;
}

/* After every entry from the loop: frees or reports what came to its end meanwhile. */
static void settle(struct link *l)
{
    if (l->depth)
        return;
    if (l->failed && !l->dead && !l->flushing) {
        l->dead = true;
        l->depth++;
        if (l->ops->on_closed)
            l->ops->on_closed(l, &l->error, l->arg);
        l->depth--;
    }
    if (l->dead || l->failed)
        link_free(l);
}

static void set_late(struct link *l, int ms)
{
    event_add(l->late, &(struct timeval){.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000});
}

/* ---- reading ---- */

static bool may_deliver(const struct link *l)
{
    return !l->dead && !l->failed && !l->paused && !l->flushing && l->told_ready;
}

/* Short frames may be dear to answer: others are heard before a link's next ones. The timer, unlike an
 * event made active, lets the loop look for traffic first. */
static void set_backlog(struct link *l, bool backlog)
{
    if (backlog)
        event_add(l->turn, &(struct timeval){0});
    if (l->backlog == backlog || l->dead || l->failed || l->flushing)
        return;
    l->backlog = backlog;
    if (backlog)
        bufferevent_disable(l->bev, EV_READ);
    else if (l->eof)
        fail(l, ERR_IO, "closed by the other end");
    else if (!l->paused)
        bufferevent_enable(l->bev, EV_READ);
}

static void deliver(struct link *l)
{
    size_t at = 0, used = 0;
    bool first = !l->got_frame, more = false;
    int64_t until = clock_boot_us() + DELIVER_US;
    l->depth++;
    while (l->in.len > at && may_deliver(l)) {
        if ((more = at > 0 && l->in.len > at && clock_boot_us() > until))
            break;
        Mu__Frame *frame = NULL;
        struct error err;
        int rc = frame_decode(l->in.data + at, l->in.len - at, l->limit, &frame, &used, &err);
        if (rc < 0)
            fail(l, err.code, "%s", err.text);
        if (rc <= 0)
            break;
        at += used;
        l->got_frame = true;
        l->ops->on_frame(l, frame, l->arg);
        frame_free(frame);
    }
    l->depth--;
    buf_consume(&l->in, at);
    if (more || l->backlog)
        set_backlog(l, more);
    if (l->in.len == 0 && l->in.cap > KEEP_BUFFER)
        buf_free(&l->in);
    if (!l->got_frame || l->flushing || l->dead)
        return;
    bool partial = l->in.len > 0 && !l->paused && !l->backlog;
    if (first || at > 0 || partial != l->late_frame) {
        if (partial)
            set_late(l, l->frame_ms);
        else
            event_del(l->late);
        l->late_frame = partial;
    }
}

/* libevent reads 4 KB at a time; one turn should take what a client has pipelined. */
static void read_more(struct link *l)
{
    int fd = bufferevent_getfd(l->bev);
    for (size_t total = 0; total < READ_TURN_MAX;) {
        char *at = buf_reserve(&l->in, READ_STEP);
        ssize_t n = recv(fd, at, READ_STEP, MSG_DONTWAIT);
        if (n > 0)
            buf_added(&l->in, (size_t)n), total += (size_t)n;
        if (n < READ_STEP)
            return; /* empty for now; the end and errors are seen again by the bufferevent */
    }
}

static void on_bev_read(struct bufferevent *bev, void *arg)
{
    struct link *l = arg;
    struct evbuffer *input = bufferevent_get_input(bev);
    size_t len = evbuffer_get_length(input);
    if (l->flushing) {
        evbuffer_drain(input, len);
        return;
    }
    char *at = buf_reserve(&l->in, len);
    int n = evbuffer_remove(input, at, len);
    buf_added(&l->in, n > 0 ? (size_t)n : 0);
    if (!l->ssl && !l->paused)
        read_more(l);
    tell_ready(l);
    deliver(l);
    settle(l);
}

/* ---- closing ---- */

/* All that was sent has left. A TCP socket closed with unread input would reset the connection and
 * take our last bytes with it: so only our half is closed, and the other end's close awaited. */
static void flushed(struct link *l)
{
    if (!l->tcp) {
        l->dead = true;
        return;
    }
    if (l->shut)
        return;
    l->shut = true;
    if (l->ssl && l->ready)
        SSL_shutdown(l->ssl);
    ERR_clear_error();
    shutdown(bufferevent_getfd(l->bev), SHUT_WR);
}

static void on_bev_write(struct bufferevent *bev, void *arg)
{
    struct link *l = arg;
    if (l->flushing && l->ready && link_unsent(l) == 0)
        flushed(l);
    settle(l);
}

/* ---- connection made or lost ---- */

static void tell_ready(struct link *l)
{
    if (!l->ready || l->told_ready)
        return;
    l->told_ready = true;
    if (l->flushing) {
        if (link_unsent(l) == 0)
            flushed(l);
        return;
    }
    l->depth++;
    if (l->ops->on_ready && !l->dead && !l->failed)
        l->ops->on_ready(l, l->arg);
    l->depth--;
    deliver(l);
}

static int check_peer_name(struct link *l)
{
    X509 *cert = SSL_get1_peer_certificate(l->ssl);
    if (cert) {
        char name[TLS_NAME_MAX];
        if (tls_common_name(cert, name) == 0)
            l->peer_name = xstrdup(name);
        X509_free(cert);
        if (!l->peer_name)
            return fail(l, ERR_DENIED, "certificate of %s carries no name", l->peer_text);
    }
    if (l->expect && (!l->peer_name || strcmp(l->expect, l->peer_name)))
        return fail(l, ERR_DENIED, "certificate of %s is for '%s': expected '%s'", l->peer_text,
                    l->peer_name ? l->peer_name : "nobody", l->expect);
    return 0;
}

static void fail_broken(struct link *l)
{
    int saved = errno;
    unsigned long code = l->bev && l->ssl ? bufferevent_get_openssl_error(l->bev) : 0;
    long verify = l->ssl ? SSL_get_verify_result(l->ssl) : X509_V_OK;
    ERR_clear_error();
    if (verify != X509_V_OK && !l->ready)
        fail(l, ERR_DENIED, "certificate of %s is refused: %s", l->peer_text,
             X509_verify_cert_error_string(verify));
    else if (code && ERR_reason_error_string(code))
        fail(l, l->ready ? ERR_IO : ERR_DENIED, "TLS with %s failed: %s", l->peer_text,
             ERR_reason_error_string(code));
    else if (!l->ready)
        fail(l, ERR_UNAVAILABLE, "%s closed the connection during the TLS handshake", l->peer_text);
    else if (saved && saved != EAGAIN)
        fail(l, ERR_IO, "connection lost: %s", strerror(saved));
    else
        fail(l, ERR_IO, "connection lost");
}

static void on_bev_event(struct bufferevent *bev, short what, void *arg)
{
    struct link *l = arg;
    if (what & BEV_EVENT_CONNECTED) {
        l->ready = true;
        if (check_peer_name(l) == 0)
            tell_ready(l);
    } else if (what & BEV_EVENT_EOF && l->ready) {
        tell_ready(l); /* what it sent before it closed counts */
        if (l->backlog)
            l->eof = true;
        else if (l->in.len && !l->paused)
            fail(l, ERR_IO, "closed by the other end within a frame");
        else
            fail(l, ERR_IO, "closed by the other end");
    } else if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR)) {
        fail_broken(l);
    }
    settle(l);
}

static void on_late(evutil_socket_t fd, short what, void *arg)
{
    struct link *l = arg;
    if (l->flushing)
        l->dead = true;
    else if (l->late_frame)
        fail(l, ERR_TIMEOUT, "a frame was not complete after %d ms", l->frame_ms);
    else if (!l->ready)
        fail(l, ERR_TIMEOUT, "no connection to %s after %d ms", l->peer_text, l->first_ms);
    else
        fail(l, ERR_TIMEOUT, "%s said nothing for %d ms", l->peer_text, l->first_ms);
    settle(l);
}

static void on_turn(evutil_socket_t fd, short what, void *arg)
{
    struct link *l = arg;
    tell_ready(l);
    if (l->flushing && l->ready && link_unsent(l) == 0)
        flushed(l);
    else if (may_deliver(l) && l->in.len)
        deliver(l);
    settle(l);
}

/* ---- making one ---- */

static struct link *link_new(struct event_base *base, const struct link_ops *ops, void *arg)
{
    /* A peer that goes away while we write must be an error code, not a signal. */
    static bool checked;
    struct sigaction old;
    if (!checked && sigaction(SIGPIPE, NULL, &old) == 0 && old.sa_handler == SIG_DFL)
        signal(SIGPIPE, SIG_IGN);
    checked = true;
    struct link *l = xcalloc(1, sizeof *l);
    l->base = base;
    l->fd = -1;
    l->ops = ops;
    l->arg = arg;
    l->limit = FRAME_MAX_HELLO;
    l->first_ms = FIRST_FRAME_MS;
    l->frame_ms = FRAME_MS;
    l->turn = event_new(base, -1, 0, on_turn, l);
    l->late = evtimer_new(base, on_late, l);
    l->early = evbuffer_new();
    if (!l->turn || !l->late || !l->early)
        abort(); /* as xmalloc() does */
    return l;
}

static void address_text(const struct sockaddr *sa, socklen_t len, char *out, size_t size)
{
    char host[64], port[8];
    if (getnameinfo(sa, len, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV))
        snprintf(out, size, "unknown address");
    else
        snprintf(out, size, sa->sa_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

static void describe_peer(struct link *l)
{
    struct sockaddr_storage ss = {0};
    socklen_t len = sizeof ss, cred_len = sizeof l->cred;
    if (getpeername(l->fd, (struct sockaddr *)&ss, &len))
        ss.ss_family = AF_UNSPEC;
    l->tcp = ss.ss_family == AF_INET || ss.ss_family == AF_INET6;
    if (l->tcp) {
        if (!l->connecting_side)
            address_text((struct sockaddr *)&ss, len, l->peer_text, sizeof l->peer_text);
    } else if (getsockopt(l->fd, SOL_SOCKET, SO_PEERCRED, &l->cred, &cred_len) == 0) {
        l->has_cred = true;
        snprintf(l->peer_text, sizeof l->peer_text, "unix uid %u", (unsigned)l->cred.uid);
    } else {
        snprintf(l->peer_text, sizeof l->peer_text, "unix");
    }
}

static void set_tcp_options(int fd)
{
    static const struct {
        int level, name, value;
    } options[] = {
        {IPPROTO_TCP, TCP_NODELAY, 1},   {SOL_SOCKET, SO_KEEPALIVE, 1},
        {IPPROTO_TCP, TCP_KEEPIDLE, 15}, {IPPROTO_TCP, TCP_KEEPINTVL, 5},
        {IPPROTO_TCP, TCP_KEEPCNT, 3},   {IPPROTO_TCP, TCP_USER_TIMEOUT, 30000},
    };
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
        setsockopt(fd, options[i].level, options[i].name, &options[i].value, sizeof options[i].value);
}

/* l->fd is connected: a bufferevent takes it over. */
static int start(struct link *l)
{
    evutil_make_socket_nonblocking(l->fd);
    evutil_make_socket_closeonexec(l->fd);
    describe_peer(l);
    if (l->tcp)
        set_tcp_options(l->fd);
    int options = BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS;
    enum bufferevent_ssl_state state =
        l->connecting_side ? BUFFEREVENT_SSL_CONNECTING : BUFFEREVENT_SSL_ACCEPTING;
    l->bev = l->ssl ? bufferevent_openssl_socket_new(l->base, l->fd, l->ssl, state, options)
                    : bufferevent_socket_new(l->base, l->fd, options);
    if (!l->bev)
        return fail(l, ERR_IO, "cannot watch the connection of %s", l->peer_text);
    l->fd = -1;
    bufferevent_setcb(l->bev, on_bev_read, on_bev_write, on_bev_event, l);
    bufferevent_set_max_single_write(l->bev, READ_TURN_MAX);
    bufferevent_set_max_single_read(l->bev, READ_TURN_MAX);
    evbuffer_add_buffer(bufferevent_get_output(l->bev), l->early);
    bufferevent_enable(l->bev, l->paused ? EV_WRITE : EV_READ | EV_WRITE);
    if (!l->ssl) {
        l->ready = true;
        event_active(l->turn, EV_TIMEOUT, 0);
    }
    return 0;
}

static struct link *refuse(struct link *l, struct error *err)
{
    if (err)
        *err = l->error;
    link_free(l);
    return NULL;
}

struct link *link_accept(struct event_base *base, int fd, struct tls_context *tls, const struct link_ops *ops,
                         void *arg, struct error *err)
{
    struct link *l = link_new(base, ops, arg);
    l->fd = fd;
    if (tls && !(l->ssl = tls_session(tls, &l->error)))
        return refuse(l, err);
    if (start(l))
        return refuse(l, err);
    set_late(l, l->first_ms);
    return l;
}

struct link *link_connect_unix(struct event_base *base, const char *path, const struct link_ops *ops,
                               void *arg, struct error *err)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof sa.sun_path) {
        error_set(err, ERR_LIMIT, "path of a socket is too long: %s: at most %zu bytes", path,
                  sizeof sa.sun_path - 1);
        return NULL;
    }
    memcpy(sa.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&sa, sizeof sa)) {
        error_sys(err, "cannot connect to %s", path);
        if (err && fd >= 0)
            err->code = ERR_UNAVAILABLE;
        if (fd >= 0)
            close(fd);
        return NULL;
    }
    struct link *l = link_new(base, ops, arg);
    l->fd = fd;
    l->connecting_side = true;
    l->first_ms = CONNECT_MS;
    if (start(l))
        return refuse(l, err);
    set_late(l, l->first_ms);
    return l;
}

/* ---- connecting over TCP ---- */

static void on_connected(evutil_socket_t fd, short what, void *arg)
{
    struct link *l = arg;
    int code = 0;
    socklen_t len = sizeof code;
    event_free(l->pending);
    l->pending = NULL;
    if (getsockopt(l->fd, SOL_SOCKET, SO_ERROR, &code, &len))
        code = errno;
    if (code)
        fail(l, ERR_UNAVAILABLE, "cannot connect to %s: %s", l->peer_text, strerror(code));
    else
        start(l);
    settle(l);
}

static int watch(struct link *l, short what, event_callback_fn fn)
{
    l->pending = event_new(l->base, l->fd, what, fn, l);
    if (!l->pending || event_add(l->pending, NULL))
        return fail(l, ERR_IO, "cannot watch a connection to %s", l->peer_text);
    return 0;
}

static int begin_connect(struct link *l, const struct sockaddr *sa, socklen_t len)
{
    l->fd = socket(sa->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (l->fd < 0 || (connect(l->fd, sa, len) && errno != EINPROGRESS))
        return fail(l, ERR_UNAVAILABLE, "cannot connect to %s: %s", l->peer_text, strerror(errno));
    return watch(l, EV_WRITE, on_connected);
}

/* What the looking-up thread is given, and what it answers. */
struct lookup {
    int fd;
    uint16_t port;
    char host[256];
};
struct lookup_answer {
    int code; /* of getaddrinfo() */
    socklen_t len;
    struct sockaddr_storage address;
};

static void *lookup_thread(void *arg)
{
    struct lookup *lookup = arg;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG}, *found = NULL;
    struct lookup_answer answer = {0};
    char port[8];
    snprintf(port, sizeof port, "%u", lookup->port);
    answer.code = getaddrinfo(lookup->host, port, &hints, &found);
    if (!answer.code && found->ai_addrlen <= sizeof answer.address) {
        answer.len = found->ai_addrlen;
        memcpy(&answer.address, found->ai_addr, found->ai_addrlen);
    }
    if (found)
        freeaddrinfo(found);
    /* The link may be gone: then this fails, and nobody minds. */
    (void)!send(lookup->fd, &answer, sizeof answer, MSG_NOSIGNAL);
    close(lookup->fd);
    free(lookup);
    return NULL;
}

static void on_looked_up(evutil_socket_t fd, short what, void *arg)
{
    struct link *l = arg;
    struct lookup_answer answer = {0};
    ssize_t n = recv(l->fd, &answer, sizeof answer, MSG_DONTWAIT);
    event_free(l->pending);
    l->pending = NULL;
    close(l->fd);
    l->fd = -1;
    if (n != (ssize_t)sizeof answer || (!answer.code && !answer.len))
        fail(l, ERR_UNAVAILABLE, "cannot look up %s", l->peer_text);
    else if (answer.code)
        fail(l, ERR_UNAVAILABLE, "cannot look up %s: %s", l->peer_text, gai_strerror(answer.code));
    else
        begin_connect(l, (struct sockaddr *)&answer.address, answer.len);
    settle(l);
}

static int begin_lookup(struct link *l, const char *host, uint16_t port)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, pair))
        return fail(l, ERR_IO, "cannot look up %s: %s", l->peer_text, strerror(errno));
    l->fd = pair[0];
    struct lookup *lookup = xcalloc(1, sizeof *lookup);
    lookup->fd = pair[1];
    lookup->port = port;
    snprintf(lookup->host, sizeof lookup->host, "%s", host);
    pthread_t thread;
    pthread_attr_t attr;
    /* Signals are the main thread's. */
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    int code = pthread_create(&thread, &attr, lookup_thread, lookup);
    pthread_attr_destroy(&attr);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (code) {
        close(pair[1]);
        free(lookup);
        return fail(l, ERR_IO, "cannot look up %s: %s", l->peer_text, strerror(code));
    }
    return watch(l, EV_READ, on_looked_up);
}

static socklen_t numeric_address(const char *address, uint16_t port, struct sockaddr_storage *out)
{
    struct sockaddr_in *in4 = (struct sockaddr_in *)out;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)out;
    memset(out, 0, sizeof *out);
    if (inet_pton(AF_INET, address, &in4->sin_addr) == 1) {
        in4->sin_family = AF_INET;
        in4->sin_port = htons(port);
        return sizeof *in4;
    }
    if (inet_pton(AF_INET6, address, &in6->sin6_addr) == 1) {
        in6->sin6_family = AF_INET6;
        in6->sin6_port = htons(port);
        return sizeof *in6;
    }
    return 0;
}

struct link *link_connect_tcp(struct event_base *base, const char *address, uint16_t port,
                              struct tls_context *tls, const char *expect, const struct link_ops *ops,
                              void *arg, struct error *err)
{
    struct sockaddr_storage ss = {0};
    socklen_t len = numeric_address(address, port, &ss);
    if (!len && strlen(address) > 253) {
        error_set(err, ERR_LIMIT, "host name is too long: %.60s...", address);
        return NULL;
    }
    struct link *l = link_new(base, ops, arg);
    l->connecting_side = true;
    l->first_ms = CONNECT_MS;
    l->expect = expect ? xstrdup(expect) : NULL;
    snprintf(l->peer_text, sizeof l->peer_text, strchr(address, ':') ? "[%.100s]:%u" : "%.100s:%u", address,
             port);
    if (!(l->ssl = tls_session(tls, &l->error)))
        return refuse(l, err);
    set_late(l, l->first_ms);
    if (len ? begin_connect(l, (struct sockaddr *)&ss, len) : begin_lookup(l, address, port))
        fail_later(l);
    return l;
}

/* ---- what the owner does ---- */

void link_close(struct link *l)
{
    if (!l)
        return;
    l->dead = true;
    if (l->depth == 0)
        link_free(l);
}

void link_close_flushed(struct link *l)
{
    if (l->dead || l->flushing)
        return;
    l->flushing = true;
    if (l->bev)
        bufferevent_enable(l->bev, EV_READ);
    set_late(l, FLUSH_MS);
    event_active(l->turn, EV_TIMEOUT, 0);
}

/* A reply that is too long becomes an error for its request: the connection goes on. */
static int encode(struct link *l, const Mu__Frame *frame, struct buf *out)
{
    struct error err;
    if (frame_encode(frame, out, &err) == 0)
        return 0;
    if (frame->kind_case == MU__FRAME__KIND_REPLY) {
        Mu__ErrorReply error = MU__ERROR_REPLY__INIT;
        Mu__Reply reply = MU__REPLY__INIT;
        Mu__Frame instead = MU__FRAME__INIT;
        error.code = err.code;
        error.text = err.text;
        reply.id = frame->reply->id;
        reply.error = &error;
        instead.kind_case = MU__FRAME__KIND_REPLY;
        instead.reply = &reply;
        return frame_encode(&instead, out, &err);
    }
    return fail(l, err.code, "%s", err.text);
}

void link_send_packed(struct link *l, const void *frames, size_t len)
{
    if (l->dead || l->failed || l->flushing)
        return;
    size_t unsent = link_unsent(l);
    if (unsent + len > LINK_UNSENT_MAX) {
        fail(l, ERR_LIMIT, "%s does not read: %zu bytes wait for it", l->peer_text, unsent);
        fail_later(l);
        return;
    }
    evbuffer_add(l->bev ? bufferevent_get_output(l->bev) : l->early, frames, len);
}

void link_send(struct link *l, const Mu__Frame *frame)
{
    if (l->dead || l->failed || l->flushing)
        return;
    struct buf out = BUF_INIT;
    if (encode(l, frame, &out))
        fail_later(l);
    else
        link_send_packed(l, out.data, out.len);
    buf_free(&out);
}

size_t link_unsent(const struct link *l)
{
    return evbuffer_get_length(l->bev ? bufferevent_get_output(l->bev) : l->early);
}

void link_pause(struct link *l, bool pause)
{
    if (l->dead || l->paused == pause)
        return;
    l->paused = pause;
    if (pause && l->late_frame) { /* it is we who do not read */
        event_del(l->late);
        l->late_frame = false;
    }
    if (l->bev && pause)
        bufferevent_disable(l->bev, EV_READ);
    else if (l->bev && !l->backlog)
        bufferevent_enable(l->bev, EV_READ);
    if (!pause)
        event_active(l->turn, EV_TIMEOUT, 0);
}

void link_limit(struct link *l, size_t frame_max)
{
    l->limit = frame_max;
}

void link_patience(struct link *l, int first_ms, int frame_ms)
{
    l->first_ms = first_ms;
    l->frame_ms = frame_ms;
    if (!l->got_frame && !l->dead && !l->flushing)
        set_late(l, first_ms);
}

void link_set(struct link *l, const struct link_ops *ops, void *arg)
{
    l->ops = ops;
    l->arg = arg;
}

int link_peer_cred(const struct link *l, uid_t *uid, gid_t *gid, pid_t *pid)
{
    if (!l->has_cred)
        return -1;
    if (uid)
        *uid = l->cred.uid;
    if (gid)
        *gid = l->cred.gid;
    if (pid)
        *pid = l->cred.pid;
    return 0;
}

const char *link_peer_name(const struct link *l)
{
    return l->peer_name;
}

const char *link_peer_text(const struct link *l)
{
    return l->peer_text;
}
