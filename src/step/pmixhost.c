/* pmixhost.c - the PMIx server of a node as its ranks see it.
 *
 * One listener, one pair of bufferevents per rank: bytes that arrive on one side leave on the
 * other, with a bound on what waits in between. Who a connection belongs to is asked of the kernel
 * by sock_diag with the connection's exact addresses.
 */
#include "step/pmixhost.h"
#include "base/mem.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/queue.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#define PROXY_WAITING_MAX (1024 * 1024) /* bytes read from one side and not yet taken by the other */
#define PROXIES_MAX 4096                /* connections at once */

struct proxy {
    LIST_ENTRY(proxy) link;
    struct pmixhost *host;
    struct bufferevent *side[2]; /* 0: the rank, 1: libpmix */
};

LIST_HEAD(proxy_list, proxy);

struct pmixhost {
    struct event_base *base;
    struct pmixmod_setup setup;
    struct template template;
    const struct pmixhost_ops *ops;
    void *arg;
    char server_nspace[64];
    int listen_fd, wake_fd;
    uint16_t port;
    struct event *listen_event, *wake_event;
    const struct pmixmod *mod; /* NULL until the first rank connects */
    bool failed;
    struct proxy_list proxies;
    unsigned proxies_n;
};

/* ---- who is it ---- */

/* The user of the socket whose own end is `own` and whose other end is `other`. */
static int socket_uid(const struct sockaddr_in *own, const struct sockaddr_in *other, uid_t *uid)
{
    struct {
        struct nlmsghdr head;
        struct inet_diag_req_v2 req;
    } ask = {
        .head = {.nlmsg_len = sizeof ask, .nlmsg_type = SOCK_DIAG_BY_FAMILY, .nlmsg_flags = NLM_F_REQUEST},
        .req = {.sdiag_family = AF_INET, .sdiag_protocol = IPPROTO_TCP, .idiag_states = ~0u},
    };
    ask.req.id.idiag_sport = own->sin_port;
    ask.req.id.idiag_dport = other->sin_port;
    ask.req.id.idiag_src[0] = own->sin_addr.s_addr;
    ask.req.id.idiag_dst[0] = other->sin_addr.s_addr;
    ask.req.id.idiag_cookie[0] = ask.req.id.idiag_cookie[1] = INET_DIAG_NOCOOKIE;
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    if (fd < 0)
        return -1;
    union {
        char bytes[8192];
        struct nlmsghdr head;
    } got = {.bytes = {0}};
    int rc = -1;
    struct timeval limit = {.tv_sec = 1};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    ssize_t n = send(fd, &ask, sizeof ask, 0) == sizeof ask ? recv(fd, &got, sizeof got, 0) : -1;
    if (n >= (ssize_t)(sizeof got.head + sizeof(struct inet_diag_msg)) &&
        got.head.nlmsg_type == SOCK_DIAG_BY_FAMILY) {
        const struct inet_diag_msg *m = NLMSG_DATA(&got.head);
        if (m->id.idiag_sport == own->sin_port && m->id.idiag_dport == other->sin_port) {
            *uid = m->idiag_uid;
            rc = 0;
        }
    }
    close(fd);
    return rc;
}

/* ---- bytes between a rank and libpmix ---- */

static void proxy_free(struct proxy *p)
{
    LIST_REMOVE(p, link);
    p->host->proxies_n--;
    for (int i = 0; i < 2; i++)
        if (p->side[i])
            bufferevent_free(p->side[i]);
    free(p);
}

static struct bufferevent *other_side(struct proxy *p, struct bufferevent *side)
{
    return p->side[side == p->side[0]];
}

static void on_bytes(struct bufferevent *side, void *arg)
{
    struct proxy *p = arg;
    struct bufferevent *other = other_side(p, side);
    bufferevent_write_buffer(other, bufferevent_get_input(side));
    if (evbuffer_get_length(bufferevent_get_output(other)) > PROXY_WAITING_MAX)
        bufferevent_disable(side, EV_READ); /* on_written() of the other one turns it on again */
}

static void on_written(struct bufferevent *side, void *arg)
{
    bufferevent_enable(other_side(arg, side), EV_READ);
}

static void on_rest_written(struct bufferevent *side, void *arg)
{
    proxy_free(arg);
}

static void on_ended(struct bufferevent *side, short what, void *arg)
{
    struct proxy *p = arg;
    struct bufferevent *other = other_side(p, side);
    if (what & BEV_EVENT_CONNECTED)
        return;
    if (evbuffer_get_length(bufferevent_get_output(other)) == 0 || (what & BEV_EVENT_WRITING)) {
        proxy_free(p);
        return;
    }
    /* Its last words still go out. */
    bufferevent_disable(side, EV_READ | EV_WRITE);
    bufferevent_disable(other, EV_READ);
    bufferevent_setcb(other, NULL, on_rest_written, on_ended, p);
}

static struct bufferevent *proxy_side(struct proxy *p, int fd)
{
    struct bufferevent *side = bufferevent_socket_new(p->host->base, fd, BEV_OPT_CLOSE_ON_FREE);
    bufferevent_setcb(side, on_bytes, on_written, on_ended, p);
    bufferevent_enable(side, EV_READ | EV_WRITE);
    return side;
}

static void proxy_new(struct pmixhost *h, int fd)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(h->mod->port())};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    int back = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (back < 0 || connect(back, (struct sockaddr *)&to, sizeof to)) {
        if (back >= 0)
            close(back);
        close(fd);
        return;
    }
    setsockopt(back, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    evutil_make_socket_nonblocking(back);
    struct proxy *p = xcalloc(1, sizeof *p);
    p->host = h;
    LIST_INSERT_HEAD(&h->proxies, p, link);
    h->proxies_n++;
    p->side[0] = proxy_side(p, fd);
    p->side[1] = proxy_side(p, back);
}

/* ---- libpmix ---- */

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
    struct pmixhost *h = arg;
    uint64_t count;
    ssize_t n = read(fd, &count, sizeof count);
    (void)n; /* a false alarm finds an empty queue */
    for (struct pmixmod_event *e; (e = h->mod->next());)
        h->ops->event(h->arg, e);
}

void pmixhost_catch_up(struct pmixhost *h)
{
    if (h->mod)
        on_wake(h->wake_fd, EV_READ, h);
}

static int start_libpmix(struct pmixhost *h)
{
    struct error err;
    if (h->mod)
        return 0;
    if (h->failed)
        return -1;
    const struct pmixmod *mod = h->ops->starting(h->arg, &err) ? NULL : pmixmod_load(&err);
    h->mod = mod;
    if (mod && mod->start(&h->setup, &err) == 0)
        return 0;
    h->mod = NULL;
    h->failed = true;
    h->ops->failed(h->arg, &err);
    return -1;
}

static void on_connection(evutil_socket_t listener, short what, void *arg)
{
    struct pmixhost *h = arg;
    for (;;) {
        struct sockaddr_in peer = {0}, here = {0};
        socklen_t len = sizeof peer, here_len = sizeof here;
        int fd = accept4(listener, (struct sockaddr *)&peer, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0)
            return;
        uid_t uid = (uid_t)-1;
        if (h->proxies_n >= PROXIES_MAX || getsockname(fd, (struct sockaddr *)&here, &here_len) ||
            socket_uid(&peer, &here, &uid) || uid != h->setup.uid) {
            close(fd);
            h->ops->refused(h->arg, uid);
            continue;
        }
        if (start_libpmix(h)) {
            close(fd);
            continue;
        }
        proxy_new(h, fd);
    }
}

static int listen_local(uint16_t *port, struct error *err)
{
    struct sockaddr_in a = {.sin_family = AF_INET};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, SOMAXCONN) ||
        getsockname(fd, (struct sockaddr *)&a, &len)) {
        error_sys(err, "cannot listen on 127.0.0.1");
        if (fd >= 0)
            close(fd);
        return -1;
    }
    *port = ntohs(a.sin_port);
    return fd;
}

struct pmixhost *pmixhost_new(struct event_base *base, const struct pmixmod_setup *setup,
                              const char *probe_folder, const struct pmixhost_ops *ops, void *arg,
                              struct error *err)
{
    struct pmixhost *h = xcalloc(1, sizeof *h);
    h->base = base;
    h->setup = *setup;
    h->ops = ops;
    h->arg = arg;
    h->wake_fd = -1;
    LIST_INIT(&h->proxies);
    /* The folder in which ours will be: unlike /tmp it goes with the attempt. */
    char scratch[PATH_MAX];
    snprintf(scratch, sizeof scratch, "%s", setup->tmpdir);
    char *slash = strrchr(scratch, '/');
    if (slash)
        *slash = 0;
    if (template_load(&h->template, probe_folder, scratch, err) ||
        (h->listen_fd = listen_local(&h->port, err)) < 0) {
        template_free(&h->template);
        free(h);
        return NULL;
    }
    uint64_t bits[2];
    if (getrandom(bits, sizeof bits, 0) != sizeof bits)
        abort();
    snprintf(h->server_nspace, sizeof h->server_nspace, "muster-server-%016llx%016llx",
             (unsigned long long)bits[0], (unsigned long long)bits[1]);
    h->setup.server_nspace = h->server_nspace;
    h->setup.topology_xml = h->template.topology_xml;
    h->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    h->setup.wake_fd = h->wake_fd;
    h->listen_event = event_new(base, h->listen_fd, EV_READ | EV_PERSIST, on_connection, h);
    h->wake_event = event_new(base, h->wake_fd, EV_READ | EV_PERSIST, on_wake, h);
    event_add(h->listen_event, NULL);
    event_add(h->wake_event, NULL);
    return h;
}

void pmixhost_free(struct pmixhost *h)
{
    if (!h)
        return;
    event_free(h->listen_event);
    event_free(h->wake_event);
    close(h->listen_fd);
    for (struct proxy *p = LIST_FIRST(&h->proxies), *next; p; p = next) {
        next = LIST_NEXT(p, link);
        proxy_free(p);
    }
    /* libpmix is not finalized: that waits for its threads, which may wait for clients that were
     * killed. Its threads go on until the process ends, so what they use stays. */
    if (!h->mod)
        close(h->wake_fd);
    template_free(&h->template);
    free(h);
}

void pmixhost_answer(struct pmixhost *h, struct pmixmod_event *event, int status, const void *data,
                     size_t len)
{
    h->mod->answer(event, status, data, len);
}

int pmixhost_modex(struct pmixhost *h, uint32_t rank, uint64_t id)
{
    /* Another node's rank may be there before any of ours has connected. */
    if (start_libpmix(h))
        return -1;
    h->mod->modex(rank, id);
    return 0;
}

void pmixhost_env(struct pmixhost *h, unsigned rank, bool shared_only,
                  void (*set)(void *arg, const char *name, const char *value), void *arg)
{
    struct template_values v = {.nspace = h->setup.nspace,
                                .server = h->server_nspace,
                                .host = h->setup.node_names[h->setup.my_node],
                                .tmpdir = h->setup.tmpdir,
                                .rank = rank,
                                .port = h->port};
    const char *end = h->template.env.data + h->template.env.len;
    for (const char *line = h->template.env.data; line < end;) {
        size_t len = strcspn(line, "\n");
        bool per_rank = memmem(line, len, "@RANK@", 6) != NULL;
        if (per_rank != shared_only) {
            struct buf text = BUF_INIT;
            template_fill(line, len, &v, &text);
            char *eq = text.len ? strchr(text.data, '=') : NULL;
            if (eq) {
                *eq = 0;
                set(arg, text.data, eq + 1);
            }
            buf_free(&text);
        }
        line += len + 1;
    }
}
