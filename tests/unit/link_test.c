/* link_test.c - links over unix sockets and TLS, listeners, and the blocking client. */
#include "tests/unit/tap.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "wire/frame.h"
#include "wire/link.h"
#include "wire/listener.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static char folder[] = "/tmp/muster-link-XXXXXX";
static struct event_base *base;

/* ---- helpers ---- */

/* One end of a connection, and what happened to it. */
struct end {
    struct link *link; /* NULL once closed */
    bool ready, closed;
    int frames;
    uint64_t last_id, sum;
    bool in_order;
    struct error error;
    int close_at;   /* link_close() within the callback of this frame */
    int slow_us;    /* each frame takes so long */
    size_t largest; /* of the output of replies */
    int damaged;    /* replies whose output is not what send_output() made */
    char text[600];
};

/* What stands at place `i` of the output of reply `id`: differs over any distance, so that bytes in the wrong
 * place show. */
static uint8_t pattern(uint64_t id, size_t i)
{
    return (uint8_t)(((uint32_t)i * 2654435761u >> 24) ^ (i >> 8) ^ id);
}

static bool output_damaged(uint64_t id, const ProtobufCBinaryData *d)
{
    for (size_t i = 0; i < d->len; i++)
        if (d->data[i] != pattern(id, i))
            return true;
    return false;
}

static void on_ready(struct link *link, void *arg)
{
    struct end *e = arg;
    e->ready = true;
}

static void on_frame(struct link *link, Mu__Frame *frame, void *arg)
{
    struct end *e = arg;
    uint64_t id = frame->kind_case == MU__FRAME__KIND_REQUEST ? frame->request->id
                  : frame->kind_case == MU__FRAME__KIND_REPLY ? frame->reply->id
                                                              : 0;
    e->frames++;
    usleep((useconds_t)e->slow_us);
    e->in_order = (e->frames == 1 || id == e->last_id + 1) && (e->frames == 1 || e->in_order);
    e->last_id = id;
    if (frame->kind_case == MU__FRAME__KIND_REPLY && frame->reply->error)
        snprintf(e->text, sizeof e->text, "%s", frame->reply->error->text);
    if (frame->kind_case == MU__FRAME__KIND_REPLY && frame->reply->kind_case == MU__REPLY__KIND_OUTPUT) {
        e->largest = frame->reply->output->data.len;
        e->damaged += output_damaged(id, &frame->reply->output->data);
    }
    if (e->close_at == e->frames) {
        e->link = NULL;
        link_close(link);
    }
}

static void on_closed(struct link *link, const struct error *err, void *arg)
{
    struct end *e = arg;
    e->closed = true;
    e->error = *err;
    e->link = NULL;
}

static const struct link_ops ops = {on_ready, on_frame, on_closed};

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
    *(bool *)arg = true;
}

/* Runs the loop until the condition holds, for at most 10 s. */
#define run_until(cond)                                                                                      \
    do {                                                                                                     \
        bool late_ = false;                                                                                  \
        struct event *timer_ = evtimer_new(base, on_deadline, &late_);                                       \
        event_add(timer_, &(struct timeval){.tv_sec = 10});                                                  \
        while (!(cond) && !late_)                                                                            \
            event_base_loop(base, EVLOOP_ONCE);                                                              \
        event_free(timer_);                                                                                  \
        if (late_)                                                                                           \
            ok(false, "within 10 s: %s", #cond);                                                             \
    } while (0)

static void turns(int count)
{
    for (int i = 0; i < count; i++)
        event_base_loop(base, EVLOOP_NONBLOCK);
}

static void send_request(struct link *link, uint64_t id)
{
    Mu__Frame frame = MU__FRAME__INIT;
    Mu__Request request = MU__REQUEST__INIT;
    Mu__StatusRequest status = MU__STATUS_REQUEST__INIT;
    request.id = id;
    request.kind_case = MU__REQUEST__KIND_STATUS;
    request.status = &status;
    frame.kind_case = MU__FRAME__KIND_REQUEST;
    frame.request = &request;
    link_send(link, &frame);
}

static void send_output(struct link *link, uint64_t id, size_t len)
{
    Mu__Frame frame = MU__FRAME__INIT;
    Mu__Reply reply = MU__REPLY__INIT;
    Mu__OutputReply output = MU__OUTPUT_REPLY__INIT;
    output.data.len = len;
    output.data.data = xmalloc(len);
    for (size_t i = 0; i < len; i++)
        output.data.data[i] = pattern(id, i);
    reply.id = id;
    reply.kind_case = MU__REPLY__KIND_OUTPUT;
    reply.output = &output;
    frame.kind_case = MU__FRAME__KIND_REPLY;
    frame.reply = &reply;
    link_send(link, &frame);
    free(output.data.data);
}

static void make_pair(struct end *a, struct end *b)
{
    int fd[2];
    struct error err = {0};
    *a = *b = (struct end){0};
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd))
        exit(1);
    a->link = link_accept(base, fd[0], NULL, &ops, a, &err);
    b->link = link_accept(base, fd[1], NULL, &ops, b, &err);
    ok(a->link && b->link && !a->ready, "two links; nothing is called from inside the call");
    run_until(a->ready && b->ready);
}

static void close_pair(struct end *a, struct end *b);

static void on_other(evutil_socket_t fd, short what, void *arg)
{
    (*(int *)arg)++;
}

/* Many short requests that are dear to answer, in one read: others are heard between them. */
static void test_fair(void)
{
    struct end a, b;
    int other = 0, frames_then = 0;
    make_pair(&a, &b);
    b.slow_us = 1000;
    for (uint64_t id = 1; id <= 300; id++)
        send_request(a.link, id);
    run_until(b.frames > 0);
    struct event *timer = evtimer_new(base, on_other, &other);
    event_add(timer, &(struct timeval){.tv_usec = 1});
    run_until(other);
    frames_then = b.frames;
    ok(frames_then < 300, "another event is heard after %d of 300 frames", frames_then);
    event_free(timer);
    link_close(a.link);
    a.link = NULL;
    run_until(b.closed);
    is_int(b.frames, 300, "all frames come, before the end of the connection");
    ok(b.in_order, "in order");
}

static void close_pair(struct end *a, struct end *b)
{
    link_close(a->link);
    link_close(b->link);
    turns(2);
}

/* A link whose other end is a bare descriptor. */
static int make_half(struct end *e)
{
    int fd[2];
    *e = (struct end){0};
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd))
        exit(1);
    e->link = link_accept(base, fd[0], NULL, &ops, e, NULL);
    return fd[1];
}

/* ---- unix sockets ---- */

static void test_exchange(void)
{
    struct end a, b;
    uid_t uid = 99;
    gid_t gid;
    pid_t pid = 0;
    make_pair(&a, &b);
    ok(link_peer_cred(a.link, &uid, &gid, &pid) == 0 && uid == getuid() && gid == getgid() && pid == getpid(),
       "the kernel says who the peer is");
    char text[64];
    snprintf(text, sizeof text, "unix uid %u", (unsigned)getuid());
    is_str(link_peer_text(a.link), text, "in words");
    ok(!link_peer_name(a.link), "a unix peer has no certificate");
    for (uint64_t i = 1; i <= 20000; i++)
        send_request(a.link, i);
    ok(link_unsent(a.link) > 20000, "sending waits for the turn");
    run_until(b.frames == 20000 || b.closed);
    ok(b.frames == 20000 && b.in_order, "20,000 frames of one turn arrive in order");
    is_int(link_unsent(a.link), 0, "nothing is left to send");

    struct buf packed = BUF_INIT;
    Mu__Frame frame = MU__FRAME__INIT;
    Mu__Hello hello = MU__HELLO__INIT;
    frame.kind_case = MU__FRAME__KIND_HELLO;
    hello.protocol = 1;
    frame.hello = &hello;
    frame_encode(&frame, &packed, NULL);
    frame_encode(&frame, &packed, NULL);
    link_send_packed(a.link, packed.data, packed.len);
    run_until(b.frames == 20002);
    ok(b.frames == 20002, "frames made before are sent as they are");
    buf_free(&packed);

    send_output(b.link, 1, FRAME_MAX_HELLO + 1);
    run_until(a.closed);
    ok(a.error.code == ERR_PROTOCOL, "a long frame is refused until the limit is raised: %s", a.error.text);
    run_until(b.closed);
    ok(b.error.code == ERR_IO, "the other end sees it closed: %s", b.error.text);
    close_pair(&a, &b);
}

static void test_long_frames(void)
{
    struct end a, b;
    make_pair(&a, &b);
    link_limit(a.link, FRAME_MAX);
    send_output(b.link, 1, 7 << 20);
    run_until(a.frames == 1 || a.closed);
    is_int(a.largest, 7 << 20, "7 MiB arrive");
    send_output(b.link, 9, FRAME_MAX);
    run_until(a.frames == 2 || a.closed);
    ok(a.last_id == 9 && strstr(a.text, "too long"), "a reply that is too long becomes an error: %s", a.text);
    close_pair(&a, &b);
}

static void test_pause(void)
{
    struct end a, b;
    make_pair(&a, &b);
    link_pause(b.link, true);
    for (uint64_t i = 1; i <= 10; i++)
        send_request(a.link, i);
    turns(10);
    is_int(b.frames, 0, "a paused link hands nothing over");
    link_pause(b.link, false);
    run_until(b.frames == 10);
    ok(b.in_order, "resumed, all of it");
    for (uint64_t i = 11; i <= 20; i++)
        send_request(a.link, i);
    b.close_at = 13;
    run_until(a.closed);
    ok(b.frames == 13 && !b.closed, "closed in a callback: no frame follows, and no on_closed");
    close_pair(&a, &b);
}

static void on_other_frame(struct link *link, Mu__Frame *frame, void *arg)
{
    ++*(int *)arg;
}

static void test_hand_over(void)
{
    struct end a, b;
    int others = 0;
    const struct link_ops other = {NULL, on_other_frame, NULL};
    make_pair(&a, &b);
    link_set(b.link, &other, &others);
    send_request(a.link, 1);
    run_until(others == 1);
    ok(b.frames == 0, "a link can be handed over to another owner");
    close_pair(&a, &b);
}

static void test_unread(void)
{
    struct end a, b;
    make_pair(&a, &b);
    link_pause(b.link, true);
    int sent = 0;
    while (sent < 20 && link_unsent(a.link) <= LINK_UNSENT_MAX - (5u << 20))
        send_output(a.link, 1, 5 << 20), sent++;
    ok(sent < 20 && !a.closed, "a peer that does not read piles up (%zu bytes)", link_unsent(a.link));
    send_output(a.link, 1, 5 << 20);
    send_output(a.link, 1, 5 << 20);
    ok(!a.closed, "the end is not told inside of link_send()");
    run_until(a.closed);
    ok(a.error.code == ERR_LIMIT, "but it is dropped: %s", a.error.text);
    close_pair(&a, &b);
}

static void test_flushed(void)
{
    struct end a, b;
    make_pair(&a, &b);
    link_limit(b.link, FRAME_MAX);
    send_output(a.link, 5, 3 << 20);
    send_request(b.link, 1);
    link_close_flushed(a.link);
    run_until(b.closed);
    ok(b.frames == 1 && b.largest == 3 << 20, "all that was sent arrives before the end");
    ok(a.frames == 0 && !a.closed, "without a callback");
    a.link = NULL;
    make_pair(&a, &b);
    link_close_flushed(a.link);
    run_until(b.closed);
    ok(b.frames == 0, "with nothing to send it ends at once: %s", b.error.text);
}

static void test_broken_peers(void)
{
    struct end e;
    int fd = make_half(&e);
    ok(write(fd, "\0\0\1\0half", 8) == 8, "half a frame");
    turns(3);
    close(fd);
    run_until(e.closed);
    ok(e.error.code == ERR_IO && strstr(e.error.text, "within a frame"), "and the end: %s", e.error.text);

    fd = make_half(&e);
    ok(write(fd, "GET / HTTP/1.1\r\n\r\n", 18) == 18, "another protocol");
    run_until(e.closed);
    ok(e.error.code == ERR_PROTOCOL, "is refused: %s", e.error.text);
    close(fd);

    fd = make_half(&e);
    ok(write(fd, "\0\0\0\2\x0a\0\0\0\0\2\x0a\0", 12) == 12, "two frames");
    close(fd);
    run_until(e.closed);
    is_int(e.frames, 2, "and the end at once: both count");

    fd = make_half(&e);
    link_patience(e.link, 30, 60000);
    run_until(e.closed);
    ok(e.error.code == ERR_TIMEOUT, "silence is not borne for ever: %s", e.error.text);
    close(fd);

    fd = make_half(&e);
    link_patience(e.link, 10000, 30);
    ok(write(fd, "\0\0\0\2\x0a\0\0\0\1\0stall", 15) == 15, "a hello and half a frame");
    run_until(e.closed);
    ok(e.frames == 1 && e.error.code == ERR_TIMEOUT, "half a frame is not kept for ever: %s", e.error.text);
    close(fd);

    fd = make_half(&e);
    link_patience(e.link, 30, 30);
    ok(write(fd, "\0\0\0\2\x0a\0", 6) == 6, "a hello");
    run_until(e.frames == 1);
    usleep(60000);
    turns(3);
    ok(!e.closed, "after it, being silent is fine");
    close(fd);
    run_until(e.closed);

    struct error err = {0};
    ok(!link_connect_unix(base, "/nonexistent/sock", &ops, &e, &err) && err.code == ERR_UNAVAILABLE,
       "nobody there: %s", err.text);
}

/* ---- listeners ---- */

struct server {
    struct listener *listener;
    struct tls_context *tls;
    struct end end; /* of the last connection */
    int accepted;
};

static void on_accept(struct listener *listener, int fd, void *arg)
{
    struct server *s = arg;
    struct error err;
    s->accepted++;
    s->end = (struct end){0};
    s->end.link = link_accept(base, fd, s->tls, &ops, &s->end, &err);
    if (!s->end.link)
        ok(false, "accepted: %s", err.text);
}

static void test_unix_listener(void)
{
    struct error err = {0};
    struct server s = {0};
    struct end e = {0};
    struct stat st;
    char *path = xasprintf("%s/l.sock", folder), *file = xasprintf("%s/file", folder);
    s.listener = listener_unix(base, path, 0666, on_accept, &s, &err);
    ok(s.listener && stat(path, &st) == 0 && (st.st_mode & 0777) == 0666, "a socket with its mode (%s)",
       err.text);
    is_str(listener_text(s.listener), path, "it says where");
    ok(!listener_unix(base, path, 0666, on_accept, &s, &err) && err.code == ERR_EXISTS,
       "twice is refused: %s", err.text);
    turns(3); /* the second one looked whether somebody answers */
    s.accepted = 0;
    link_close(s.end.link);
    e.link = link_connect_unix(base, path, &ops, &e, &err);
    run_until(e.ready && s.end.ready);
    send_request(e.link, 1);
    run_until(s.end.frames == 1);
    ok(s.accepted == 1, "a connection arrives");
    link_close(e.link);
    run_until(s.end.closed);
    listener_free(s.listener);
    ok(stat(path, &st) != 0, "its file goes with it");

    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    strcpy(sa.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    ok(bind(fd, (struct sockaddr *)&sa, sizeof sa) == 0, "a socket file that a dead head left");
    close(fd);
    s.listener = listener_unix(base, path, 0600, on_accept, &s, &err);
    ok(s.listener != NULL, "is replaced");
    listener_free(s.listener);
    file_write(AT_FDCWD, file, "x", 1, 0600, false, &err);
    ok(!listener_unix(base, file, 0600, on_accept, &s, &err) && err.code == ERR_EXISTS &&
           stat(file, &st) == 0,
       "a file of another kind is left alone: %s", err.text);
    char longest[140];
    memset(longest, 'x', sizeof longest);
    longest[0] = '/', longest[sizeof longest - 1] = 0;
    ok(!listener_unix(base, longest, 0600, on_accept, &s, &err) && err.code == ERR_LIMIT,
       "too long a path: %.60s...", err.text);
    ok(!listener_unix(base, "/nonexistent/x", 0600, on_accept, &s, &err), "a folder that is not there: %s",
       err.text);
    free(path);
    free(file);
}

static void test_tcp_listener(void)
{
    struct error err = {0};
    struct server s = {0};
    s.listener = listener_tcp(base, "127.0.0.1:0", on_accept, &s, &err);
    ok(s.listener && listener_port(s.listener) > 0, "a free port: %s", listener_text(s.listener));
    ok(!listener_tcp(base, listener_text(s.listener), on_accept, &s, &err) && err.code == ERR_EXISTS &&
           strstr(err.text, "address in use"),
       "twice: %s", err.text);
    static const char *const bad[] = {
        "",      "127.0.0.1",   "127.0.0.1:",   ":5",           "127.0.0.1:x", "127.0.0.1:65536",
        "::1:5", "localhost:0", "127.0.0.1:-1", "127.0.0.1:5 ", "[]:5",        "256.0.0.1:1"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        ok(!listener_tcp(base, bad[i], on_accept, &s, &err) && err.code == ERR_USAGE, "refused: '%s'",
           bad[i]);
    char host[256];
    uint16_t port;
    ok(address_split("[fe80::1]:77", host, &port, &err) == 0 && port == 77 && !strcmp(host, "fe80::1"),
       "IPv6 in brackets");
    ok(address_split("head.example:5800", host, &port, &err) == 0 && !strcmp(host, "head.example"),
       "a host name");
    ok(!listener_tcp(base, "192.0.2.1:0", on_accept, &s, &err) && err.code == ERR_IO, "another machine's: %s",
       err.text);

    /* Six peers at once; two may come at once, then 50 a second. */
    listener_rate(s.listener, 2, 50);
    int fds[6];
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(listener_port(s.listener))};
    sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (int i = 0; i < 6; i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        ok(connect(fds[i], (struct sockaddr *)&sa, sizeof sa) == 0, "peer %d is in the queue", i);
    }
    event_base_loop(base, EVLOOP_NONBLOCK);
    int at_once = s.accepted;
    ok(at_once >= 1 && at_once <= 3, "the bucket lets %d in", at_once);
    run_until(s.accepted == 6);
    is_int(s.accepted, 6, "the others follow");
    listener_free(s.listener);
    for (int i = 0; i < 6; i++)
        close(fds[i]);
    turns(5);
}

/* ---- TLS ---- */

static char *dirs[3]; /* 0 head, 1 node, 2 another cluster's head; 2 has a node's files too */

static void make_node(const char *head, const char *dir, const char *name)
{
    struct buf csr = BUF_INIT, cert = BUF_INIT, ca = BUF_INIT;
    struct error err = {0};
    char *ca_path = xasprintf("%s/ca.crt", head);
    ok(node_csr(dir, name, &csr, &err) == 0 && ca_sign(head, name, csr.data, csr.len, &cert, &err) == 0 &&
           file_read(AT_FDCWD, ca_path, 65536, &ca, &err) == 0 &&
           node_store_cert(dir, cert.data, ca.data, &err) == 0,
       "%s has a certificate (%s)", name, err.text);
    free(ca_path);
    buf_free(&csr), buf_free(&cert), buf_free(&ca);
}

static void start_tls(struct server *s)
{
    struct error err = {0};
    static const char *const names[] = {"head", "node", "other"};
    for (int i = 0; i < 3; i++) {
        dirs[i] = xasprintf("%s/%s", folder, names[i]);
        mkdir(dirs[i], 0700);
        if (i != 1)
            ca_init(dirs[i], names[i], &err);
    }
    make_node(dirs[0], dirs[1], "node01");
    make_node(dirs[2], dirs[2], "node01");
    s->tls = tls_server(dirs[0], &err);
    s->listener = listener_tcp(base, "127.0.0.1:0", on_accept, s, &err);
    ok(s->tls && s->listener, "a TLS server (%s)", err.text);
}

static void dial(struct server *s, struct end *e, const char *host, struct tls_context *tls,
                 const char *expect)
{
    struct error err = {0};
    s->accepted = 0;
    s->end = (struct end){0};
    *e = (struct end){0};
    e->link = link_connect_tcp(base, host, listener_port(s->listener), tls, expect, &ops, e, &err);
    if (!e->link)
        ok(false, "dial: %s", err.text);
    run_until(e->closed || (e->ready && s->end.ready));
}

static void hang_up(struct server *s, struct end *e)
{
    link_close(e->link);
    e->link = NULL;
    run_until(s->end.closed || !s->accepted);
}

static void test_tls_node(struct server *s)
{
    struct error err = {0};
    struct end e;
    struct tls_context *node = tls_node(dirs[1], &err), *stranger = tls_node(dirs[2], &err);
    dial(s, &e, "127.0.0.1", node, "head");
    ok(e.ready && s->end.ready, "an agent and the head meet (%s)", e.error.text);
    is_str(link_peer_name(s->end.link), "node:node01", "the head knows the agent");
    is_str(link_peer_name(e.link), "head", "and the agent the head");
    ok(!strncmp(link_peer_text(s->end.link), "127.0.0.1:", 10), "the peer's address: %s",
       link_peer_text(s->end.link));
    ok(link_peer_cred(e.link, NULL, NULL, NULL) < 0, "TCP has no uid");
    for (uint64_t i = 1; i <= 5000; i++)
        send_request(e.link, i);
    link_limit(e.link, FRAME_MAX);
    send_output(s->end.link, 1, 7 << 20);
    run_until(s->end.frames == 5000 && e.frames == 1);
    ok(s->end.in_order && e.largest == 7 << 20, "frames pass both ways");
    /* Several pieces in one turn: each is a chain of its own in the buffer that TLS is fed from. */
    for (uint64_t i = 2; i <= 40; i++)
        send_output(s->end.link, i, 16000 + i * 1300);
    run_until(e.frames == 40 || e.closed);
    ok(e.frames == 40 && e.in_order && e.damaged == 0,
       "pieces of all sizes arrive as they were: %d of %d damaged", e.damaged, e.frames);
    send_output(s->end.link, 41, 2 << 20);
    send_request(e.link, 5001); /* unread by the closing end: must not destroy what it sent */
    link_close_flushed(s->end.link);
    run_until(e.closed);
    ok(e.frames == 41 && e.largest == 2 << 20 && e.damaged == 0, "what was sent before closing arrives: %s",
       e.error.text);
    turns(5);

    dial(s, &e, "localhost", node, "head");
    ok(e.ready, "by name (%s)", e.error.text);
    hang_up(s, &e);
    dial(s, &e, "127.0.0.1", node, "node:node02");
    ok(e.closed && e.error.code == ERR_DENIED, "a head of another name is refused: %s", e.error.text);
    run_until(s->end.closed);
    dial(s, &e, "127.0.0.1", stranger, "head");
    ok(e.closed && e.error.code == ERR_DENIED, "a head of another cluster: %s", e.error.text);
    run_until(s->end.closed);
    ok(!s->end.ready, "the head does not see it ready: %s", s->end.error.text);
    dial(s, &e, "no-such-host.invalid", node, "head");
    ok(e.closed && e.error.code == ERR_UNAVAILABLE, "no such host: %s", e.error.text);
    e.link = link_connect_tcp(base, "no-such-host.invalid", 1, node, "head", &ops, &e, &err);
    link_close(e.link); /* while its thread looks up */
    tls_free(node);
    tls_free(stranger);
}

static void test_tls_join(struct server *s)
{
    struct error err = {0};
    struct end e;
    char fingerprint[65], wrong[65];
    ca_fingerprint(dirs[0], fingerprint, &err);
    ca_fingerprint(dirs[2], wrong, &err);
    struct tls_context *join = tls_join(fingerprint, &err), *misled = tls_join(wrong, &err);
    dial(s, &e, "127.0.0.1", join, "head");
    ok(e.ready && s->end.ready, "a machine that joins knows the head by fingerprint (%s)", e.error.text);
    ok(!link_peer_name(s->end.link), "and shows no certificate");
    hang_up(s, &e);
    dial(s, &e, "127.0.0.1", misled, "head");
    ok(e.closed && e.error.code == ERR_DENIED, "another authority is refused: %s", e.error.text);
    run_until(s->end.closed);
    tls_free(join);
    tls_free(misled);
}

/* A node with a certificate of another CA, which itself trusts ours: the head must refuse. */
static void test_tls_foreign_node(struct server *s)
{
    struct error err = {0};
    struct end e;
    struct buf ca = BUF_INIT;
    char *ours = xasprintf("%s/ca.crt", dirs[0]), *theirs = xasprintf("%s/ca.crt", dirs[2]);
    file_read(AT_FDCWD, ours, 65536, &ca, &err);
    file_write(AT_FDCWD, theirs, ca.data, ca.len, 0644, false, &err);
    struct tls_context *node = tls_node(dirs[2], &err);
    s->accepted = 0;
    s->end = (struct end){0};
    e = (struct end){0};
    e.link = link_connect_tcp(base, "127.0.0.1", listener_port(s->listener), node, "head", &ops, &e, &err);
    run_until(s->end.closed && e.closed);
    ok(!s->end.ready && s->end.error.code == ERR_DENIED, "the head refuses a foreign certificate: %s",
       s->end.error.text);
    tls_free(node);
    buf_free(&ca);
    free(ours), free(theirs);
}

/* The head's certificate is no agent's, and an agent's no head's. */
static void test_tls_roles(struct server *s)
{
    struct error err = {0};
    struct server false_head = {0};
    struct end e;
    struct buf file = BUF_INIT;
    char *dir = xasprintf("%s/false", folder);
    static const char *const names[][2] = {
        {"node.key", "head.key"}, {"node.crt", "head.crt"}, {"ca.crt", "ca.crt"}};
    mkdir(dir, 0700);
    for (int i = 0; i < 3; i++) {
        char *from = xasprintf("%s/%s", dirs[1], names[i][0]), *to = xasprintf("%s/%s", dir, names[i][1]);
        buf_reset(&file);
        file_read(AT_FDCWD, from, 65536, &file, &err);
        file_write(AT_FDCWD, to, file.data, file.len, 0600, false, &err);
        free(from), free(to);
    }
    false_head.tls = tls_server(dir, &err);
    false_head.listener = listener_tcp(base, "127.0.0.1:0", on_accept, &false_head, &err);
    struct tls_context *node = tls_node(dirs[1], &err);
    dial(&false_head, &e, "127.0.0.1", node, NULL);
    ok(e.closed && e.error.code == ERR_DENIED, "an agent cannot pose as the head: %s", e.error.text);
    run_until(false_head.end.closed);
    uint16_t port = listener_port(false_head.listener);
    listener_free(false_head.listener);
    e = (struct end){0};
    e.link = link_connect_tcp(base, "127.0.0.1", port, node, "head", &ops, &e, &err);
    run_until(e.closed);
    ok(e.closed && e.error.code == ERR_UNAVAILABLE, "nobody listens: %s", e.error.text);
    tls_free(false_head.tls);
    tls_free(node);
    buf_free(&file);
    free(dir);
}

static void test_tls_garbage(struct server *s)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(listener_port(s->listener))};
    sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    s->end = (struct end){0};
    ok(connect(fd, (struct sockaddr *)&sa, sizeof sa) == 0 && write(fd, "GET / HTTP/1.1\r\n\r\n", 18) == 18,
       "a stranger speaks HTTP");
    run_until(s->end.closed);
    ok(!s->end.ready, "and is refused: %s", s->end.error.text);
    close(fd);
}

static void test_tls(void)
{
    struct server s = {0};
    start_tls(&s);
    test_tls_node(&s);
    test_tls_join(&s);
    test_tls_foreign_node(&s);
    test_tls_roles(&s);
    test_tls_garbage(&s);
    turns(5);
    listener_free(s.listener);
    tls_free(s.tls);
    for (int i = 0; i < 3; i++)
        free(dirs[i]);
}

/* ---- the blocking client, with a small head in a thread ---- */

struct small_head {
    struct event_base *base;
    struct listener *listener;
    struct event *stop;
    int pipe[2];
    bool refuse;
    struct buf big;
};

/* A paused client is let go on when it has read. NULL once the head has closed it: nobody is told then. */
static struct link *watched;

static void answer(struct link *link, Mu__Request *request, struct small_head *h)
{
    Mu__Frame frame = MU__FRAME__INIT;
    Mu__Reply reply = MU__REPLY__INIT;
    Mu__StatusReply status = MU__STATUS_REPLY__INIT;
    Mu__OutputReply output = MU__OUTPUT_REPLY__INIT;
    Mu__ErrorReply error = MU__ERROR_REPLY__INIT;
    reply.id = request->id;
    if (request->kind_case == MU__REQUEST__KIND_STATUS) {
        status.cluster = (char *)"small";
        reply.kind_case = MU__REPLY__KIND_STATUS;
        reply.status = &status;
    } else if (request->kind_case == MU__REQUEST__KIND_JOB_CANCEL) {
        output.data.data = (uint8_t *)h->big.data;
        output.data.len = h->big.len;
        reply.kind_case = MU__REPLY__KIND_OUTPUT;
        reply.output = &output;
    } else if (request->kind_case == MU__REQUEST__KIND_SHUTDOWN) {
        watched = NULL;
        link_close(link);
        return;
    } else if (request->kind_case == MU__REQUEST__KIND_JOB_WAIT) {
        return; /* waits for ever */
    } else {
        error.code = ERR_NOT_FOUND;
        error.text = (char *)"no such thing";
        reply.error = &error;
    }
    frame.kind_case = MU__FRAME__KIND_REPLY;
    frame.reply = &reply;
    link_send(link, &frame);
    link_pause(link, link_unsent(link) > 1 << 20);
}

static void on_head_frame(struct link *link, Mu__Frame *frame, void *arg)
{
    struct small_head *h = arg;
    if (frame->kind_case == MU__FRAME__KIND_HELLO) {
        Mu__Frame out = MU__FRAME__INIT;
        Mu__Hello hello = MU__HELLO__INIT;
        Mu__ErrorReply error = MU__ERROR_REPLY__INIT;
        hello.protocol = hello.protocol_min = 1;
        hello.cluster = (char *)"small";
        error.code = ERR_DENIED;
        error.text = (char *)"not you";
        hello.error = h->refuse ? &error : NULL;
        out.kind_case = MU__FRAME__KIND_HELLO;
        out.hello = &hello;
        link_send(link, &out);
        if (h->refuse) {
            watched = NULL;
            link_close_flushed(link);
        }
    } else if (frame->kind_case == MU__FRAME__KIND_REQUEST) {
        answer(link, frame->request, h);
    }
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    if (watched)
        link_pause(watched, link_unsent(watched) > 1 << 20);
}

static void on_head_closed(struct link *link, const struct error *err, void *arg)
{
    if (link == watched)
        watched = NULL;
}

static void on_head_accept(struct listener *listener, int fd, void *arg)
{
    static const struct link_ops head_ops = {NULL, on_head_frame, on_head_closed};
    struct small_head *h = arg;
    watched = link_accept(h->base, fd, NULL, &head_ops, h, NULL);
}

static void on_stop(evutil_socket_t fd, short what, void *arg)
{
    event_base_loopbreak(arg);
}

static void *head_thread(void *arg)
{
    struct small_head *h = arg;
    struct event *tick = event_new(h->base, -1, EV_PERSIST, on_tick, NULL);
    event_add(tick, &(struct timeval){.tv_usec = 5000});
    event_base_dispatch(h->base);
    event_free(tick);
    return NULL;
}

static Mu__Request status_request(void)
{
    static Mu__StatusRequest status = MU__STATUS_REQUEST__INIT;
    Mu__Request request = MU__REQUEST__INIT;
    request.kind_case = MU__REQUEST__KIND_STATUS;
    request.status = &status;
    return request;
}

static void test_calls(const char *path)
{
    struct error err = {0};
    Mu__Reply *reply = NULL;
    struct client *c = client_open(path, 5000, &err);
    ok(c != NULL, "a client connects (%s)", err.text);
    if (!c)
        return;
    is_str(client_hello(c)->cluster, "small", "the head says hello");
    Mu__Request request = status_request();
    ok(client_call(c, &request, -1, &reply, &err) == 0 && reply->id == request.id, "a call is answered (%s)",
       err.text);
    is_str(reply->status->cluster, "small", "rightly");
    client_reply_free(reply);

    Mu__JobGet get = MU__JOB_GET__INIT;
    Mu__Request wrong = MU__REQUEST__INIT;
    wrong.kind_case = MU__REQUEST__KIND_JOB_GET;
    wrong.job_get = &get;
    ok(client_call(c, &wrong, -1, &reply, &err) < 0 && err.code == ERR_NOT_FOUND, "an error is an error: %s",
       err.text);

    /* 6 MB of requests, 90 MB of replies: both ends fill their sockets, and the head stops reading. */
    char long_text[2001];
    memset(long_text, 'x', 2000), long_text[2000] = 0;
    Mu__JobCancel cancel = MU__JOB_CANCEL__INIT;
    Mu__Request output = MU__REQUEST__INIT;
    cancel.message = long_text;
    output.kind_case = MU__REQUEST__KIND_JOB_CANCEL;
    output.job_cancel = &cancel;
    int bad = 0;
    for (int i = 0; i < 3000 && !bad; i++)
        bad += client_send(c, &output, &err) != 0;
    ok(!bad && client_flush(c, &err) == 0, "3,000 requests are sent without waiting (%s)", err.text);
    ok(client_call(c, &request, 20000, &reply, &err) == 0 && reply->status,
       "a call finds its own reply among them");
    client_reply_free(reply);
    uint64_t first = 0, last = 0;
    for (int i = 0; i < 3000; i++) {
        if (client_receive(c, 20000, &reply, &err)) {
            bad++;
            break;
        }
        first = first ? first : reply->id;
        bad += last && reply->id != last + 1;
        last = reply->id;
        client_reply_free(reply);
    }
    ok(!bad && last - first == 2999, "and the others come in order (%s)", err.text);

    Mu__JobWait job_wait = MU__JOB_WAIT__INIT;
    Mu__Request forever = MU__REQUEST__INIT;
    forever.kind_case = MU__REQUEST__KIND_JOB_WAIT;
    forever.job_wait = &job_wait;
    ok(client_call(c, &forever, 50, &reply, &err) < 0 && err.code == ERR_TIMEOUT, "waiting has an end: %s",
       err.text);
    Mu__Shutdown shutdown_request = MU__SHUTDOWN__INIT;
    Mu__Request last_one = MU__REQUEST__INIT;
    last_one.kind_case = MU__REQUEST__KIND_SHUTDOWN;
    last_one.shutdown = &shutdown_request;
    ok(client_call(c, &last_one, -1, &reply, &err) < 0 && err.code == ERR_UNAVAILABLE, "a head that goes: %s",
       err.text);
    client_close(c);
    client_close(NULL);
}

static void test_client(void)
{
    struct error err = {0};
    struct small_head h = {.base = event_base_new()};
    char *path = xasprintf("%s/head.sock", folder);
    ok(!client_open(path, 1000, &err) && err.code == ERR_UNAVAILABLE &&
           strstr(err.text, "muster cluster start"),
       "no head: %s", err.text);
    char *zeros = buf_reserve(&h.big, 30000);
    memset(zeros, 0, 30000);
    buf_added(&h.big, 30000);
    pthread_t thread;
    h.listener = listener_unix(h.base, path, 0600, on_head_accept, &h, &err);
    if (pipe(h.pipe))
        exit(1);
    h.stop = event_new(h.base, h.pipe[0], EV_READ, on_stop, h.base);
    event_add(h.stop, NULL);
    pthread_create(&thread, NULL, head_thread, &h);
    test_calls(path);
    close(h.pipe[1]);
    pthread_join(thread, NULL);
    close(h.pipe[0]);

    h.refuse = true;
    if (pipe(h.pipe))
        exit(1);
    event_free(h.stop);
    h.stop = event_new(h.base, h.pipe[0], EV_READ, on_stop, h.base);
    event_add(h.stop, NULL);
    pthread_create(&thread, NULL, head_thread, &h);
    ok(!client_open(path, 5000, &err) && err.code == ERR_DENIED, "a head that refuses: %s", err.text);
    close(h.pipe[1]);
    pthread_join(thread, NULL);
    close(h.pipe[0]);
    event_free(h.stop);
    listener_free(h.listener);
    event_base_loop(h.base, EVLOOP_NONBLOCK);
    event_base_free(h.base);
    buf_free(&h.big);
    free(path);
}

int main(void)
{
    struct error err;
    base = event_base_new();
    if (!mkdtemp(folder))
        return 1;
    test_exchange();
    test_fair();
    test_long_frames();
    test_pause();
    test_hand_over();
    test_unread();
    test_flushed();
    test_broken_peers();
    test_unix_listener();
    test_tcp_listener();
    test_tls();
    test_client();
    turns(5);
    event_base_free(base);
    libevent_global_shutdown();
    ok(file_remove_tree(AT_FDCWD, folder, &err) == 0, "cleaned up");
    return tap_done();
}
