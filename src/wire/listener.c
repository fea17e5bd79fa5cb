/* listener.c - accepting connections through libevent's evconnlistener.
 *
 * The token bucket is counted in thousandths of a connection. When it is empty, or when the process
 * has no descriptor left, the listener is switched off for a moment by a timer, not polled. */
#include "wire/listener.h"

#include "base/clock.h"
#include "base/mem.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/listener.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 1024
#define TOKEN 1000 /* one connection */

struct listener {
    struct evconnlistener *lev;
    struct event *again; /* switches it on again */
    listener_accept_fn *fn;
    void *arg;
    char *unix_path; /* NULL: TCP */
    dev_t dev;       /* of our socket file: a later head's file is not ours to remove */
    ino_t ino;
    char text[128];
    uint16_t port;
    uint64_t burst, rate, tokens; /* rate per second, in connections; 0: unlimited */
    int64_t filled_us;
    bool paused;
};

static void rest(struct listener *l, int64_t us)
{
    evconnlistener_disable(l->lev);
    event_add(l->again, &(struct timeval){.tv_sec = us / 1000000, .tv_usec = us % 1000000});
}

static void on_again(evutil_socket_t fd, short what, void *arg)
{
    struct listener *l = arg;
    if (!l->paused)
        evconnlistener_enable(l->lev);
}

static void refill(struct listener *l)
{
    int64_t now = clock_boot_us(), passed = now - l->filled_us;
    uint64_t more = passed > 60000000 ? l->burst * TOKEN : (uint64_t)passed * l->rate * TOKEN / 1000000;
    if (!more)
        return;
    l->filled_us = now;
    l->tokens = l->tokens + more > l->burst * TOKEN ? l->burst * TOKEN : l->tokens + more;
}

static void on_accept(struct evconnlistener *lev, evutil_socket_t fd, struct sockaddr *sa, int len, void *arg)
{
    struct listener *l = arg;
    if (l->rate) {
        refill(l);
        l->tokens = l->tokens > TOKEN ? l->tokens - TOKEN : 0;
        if (l->tokens < TOKEN)
            rest(l, 1 + (int64_t)((TOKEN - l->tokens) * 1000000 / TOKEN / l->rate));
    }
    l->fn(l, fd, l->arg);
}

static void on_accept_error(struct evconnlistener *lev, void *arg)
{
    /* Out of descriptors or memory: the connection stays in the queue, so trying at once would spin. */
    rest(arg, 100000);
}

/* Owns fd, bound; closes it on failure. */
static struct listener *listener_new(struct event_base *base, int fd, listener_accept_fn *fn, void *arg,
                                     struct error *err)
{
    struct listener *l = xcalloc(1, sizeof *l);
    l->fn = fn;
    l->arg = arg;
    l->again = evtimer_new(base, on_again, l);
    l->lev =
        evconnlistener_new(base, on_accept, l, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, BACKLOG, fd);
    if (!l->lev || !l->again) {
        error_sys(err, "cannot listen");
        if (err && errno == EADDRINUSE)
            err->code = ERR_EXISTS;
        if (l->lev)
            evconnlistener_free(l->lev);
        else
            close(fd);
        if (l->again)
            event_free(l->again);
        free(l);
        return NULL;
    }
    evconnlistener_set_error_cb(l->lev, on_accept_error);
    return l;
}

/* ---- unix ---- */

static int make_address(struct sockaddr_un *sa, const char *path, struct error *err)
{
    *sa = (struct sockaddr_un){.sun_family = AF_UNIX};
    size_t len = strlen(path);
    if (len == 0 || len >= sizeof sa->sun_path)
        return error_set(err, ERR_LIMIT, "path of a socket is %zu bytes long: %s: at most %zu are possible",
                         len, path, sizeof sa->sun_path - 1);
    memcpy(sa->sun_path, path, len + 1);
    return 0;
}

/* Removes a socket file on which nobody answers. */
static int remove_stale(const struct sockaddr_un *sa, struct error *err)
{
    struct stat st;
    if (lstat(sa->sun_path, &st))
        return errno == ENOENT ? 0 : error_sys(err, "cannot listen on %s", sa->sun_path);
    if (!S_ISSOCK(st.st_mode))
        return error_set(err, ERR_EXISTS, "cannot listen on %s: a file that is no socket is there",
                         sa->sun_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return error_sys(err, "cannot make a socket");
    int answered = connect(fd, (const struct sockaddr *)sa, sizeof *sa) == 0 || errno != ECONNREFUSED;
    close(fd);
    if (answered)
        return error_set(err, ERR_EXISTS, "address in use: %s", sa->sun_path);
    if (unlink(sa->sun_path) && errno != ENOENT)
        return error_sys(err, "cannot remove the old socket %s", sa->sun_path);
    return 0;
}

static int bind_unix(int fd, const struct sockaddr_un *sa, mode_t mode, struct stat *st, struct error *err)
{
    if (bind(fd, (const struct sockaddr *)sa, sizeof *sa)) {
        error_sys(err, "cannot listen on %s", sa->sun_path);
        if (err && errno == EADDRINUSE)
            err->code = ERR_EXISTS;
        return -1;
    }
    if (chmod(sa->sun_path, mode) || lstat(sa->sun_path, st)) {
        error_sys(err, "cannot listen on %s", sa->sun_path);
        unlink(sa->sun_path);
        return -1;
    }
    return 0;
}

struct listener *listener_unix(struct event_base *base, const char *path, mode_t mode, listener_accept_fn *fn,
                               void *arg, struct error *err)
{
    struct sockaddr_un sa;
    struct stat st;
    if (make_address(&sa, path, err) || remove_stale(&sa, err))
        return NULL;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        error_sys(err, "cannot make a socket");
        return NULL;
    }
    if (bind_unix(fd, &sa, mode, &st, err)) {
        close(fd);
        return NULL;
    }
    struct listener *l = listener_new(base, fd, fn, arg, err);
    if (!l) {
        unlink(path);
        return NULL;
    }
    l->unix_path = xstrdup(path);
    l->dev = st.st_dev;
    l->ino = st.st_ino;
    snprintf(l->text, sizeof l->text, "%s", path);
    return l;
}

/* ---- TCP ---- */

int address_split(const char *text, char host[256], uint16_t *port, struct error *err)
{
    const char *colon = strrchr(text, ':');
    const char *from = text, *to = colon;
    if (colon && text[0] == '[' && colon > text + 1 && colon[-1] == ']')
        from = text + 1, to = colon - 1;
    else if (colon && memchr(text, ':', (size_t)(colon - text)))
        colon = NULL; /* an IPv6 address needs its brackets */
    size_t len = colon ? (size_t)(to - from) : 0, digits = colon ? strspn(colon + 1, "0123456789") : 0;
    unsigned long number = digits && digits < 6 && !colon[1 + digits] ? strtoul(colon + 1, NULL, 10) : 65536;
    if (!len || len > 255 || number > 65535)
        return error_set(err, ERR_USAGE,
                         "address '%.200s': expected ADDRESS:PORT, such as 127.0.0.1:5800 or [::1]:5800",
                         text);
    memcpy(host, from, len);
    host[len] = 0;
    *port = (uint16_t)number;
    return 0;
}

static int parse_numeric(const char *address, struct sockaddr_storage *ss, socklen_t *len, struct error *err)
{
    struct sockaddr_in *in4 = (struct sockaddr_in *)ss;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ss;
    char host[256] = "";
    uint16_t port = 0;
    if (address_split(address, host, &port, err))
        return -1;
    memset(ss, 0, sizeof *ss);
    if (inet_pton(AF_INET, host, &in4->sin_addr) == 1) {
        in4->sin_family = AF_INET;
        in4->sin_port = htons(port);
        *len = sizeof *in4;
        return 0;
    }
    if (inet_pton(AF_INET6, host, &in6->sin6_addr) == 1) {
        in6->sin6_family = AF_INET6;
        in6->sin6_port = htons(port);
        *len = sizeof *in6;
        return 0;
    }
    return error_set(err, ERR_USAGE, "address '%s': expected a numeric address, such as 127.0.0.1 or ::1",
                     host);
}

static void describe(struct listener *l)
{
    union {
        struct sockaddr any;
        struct sockaddr_in in4;
        struct sockaddr_in6 in6;
    } at = {0};
    socklen_t len = sizeof at;
    char host[INET6_ADDRSTRLEN] = "?";
    if (getsockname(evconnlistener_get_fd(l->lev), &at.any, &len))
        return;
    if (at.any.sa_family == AF_INET6) {
        l->port = ntohs(at.in6.sin6_port);
        inet_ntop(AF_INET6, &at.in6.sin6_addr, host, sizeof host);
        snprintf(l->text, sizeof l->text, "[%s]:%u", host, l->port);
    } else {
        l->port = ntohs(at.in4.sin_port);
        inet_ntop(AF_INET, &at.in4.sin_addr, host, sizeof host);
        snprintf(l->text, sizeof l->text, "%s:%u", host, l->port);
    }
}

struct listener *listener_tcp(struct event_base *base, const char *address, listener_accept_fn *fn, void *arg,
                              struct error *err)
{
    struct sockaddr_storage ss = {0};
    socklen_t len = 0;
    int on = 1;
    if (parse_numeric(address, &ss, &len, err))
        return NULL;
    int fd = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    /* Listening belongs to it: only then does the kernel say that another listener is there. */
    if (fd < 0 || bind(fd, (struct sockaddr *)&ss, len) || listen(fd, BACKLOG)) {
        if (errno == EADDRINUSE)
            error_set(err, ERR_EXISTS, "address in use: %s", address);
        else
            error_sys(err, "cannot listen on %s", address);
        if (fd >= 0)
            close(fd);
        return NULL;
    }
    struct listener *l = listener_new(base, fd, fn, arg, err);
    if (l)
        describe(l);
    return l;
}

/* ---- */

void listener_free(struct listener *l)
{
    if (!l)
        return;
    struct stat st;
    if (l->unix_path && lstat(l->unix_path, &st) == 0 && st.st_dev == l->dev && st.st_ino == l->ino)
        unlink(l->unix_path);
    evconnlistener_free(l->lev);
    event_free(l->again);
    free(l->unix_path);
    free(l);
}

void listener_rate(struct listener *l, uint32_t burst, uint32_t per_second)
{
    l->burst = burst ? burst : 1;
    l->rate = per_second;
    l->tokens = l->burst * TOKEN;
    l->filled_us = clock_boot_us();
}

void listener_pause(struct listener *l, bool pause)
{
    l->paused = pause;
    if (pause)
        evconnlistener_disable(l->lev);
    else if (!event_pending(l->again, EV_TIMEOUT, NULL))
        evconnlistener_enable(l->lev);
}

const char *listener_text(const struct listener *l)
{
    return l->text;
}

uint16_t listener_port(const struct listener *l)
{
    return l->port;
}
