/* step_port.c - the port on which the steps of other nodes call. See step_port.h.
 *
 * A caller has 5 s from its accept for the whole preamble, however many bytes have come. At most
 * CALLERS_MAX are without one; then each new one takes the place of the oldest of the address that
 * holds most places. So silent callers from one address displace each other and nobody else, and a
 * step, which sends its preamble with the connection, is served before it can be the oldest. */
#include "node/step_port.h"
#include "base/buf.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "node/agent.h"
#include "node/attempts.h"
#include "wire/listener.h"

#include <bsd/sys/queue.h>
#include <errno.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAGIC "MUSTEP1\n"
#define MAGIC_LEN 8
#define PREAMBLE_LEN (MAGIC_LEN + ROUTE_LEN)
#define PREAMBLE_S 5
#define CALLERS_MAX 256

struct caller {
    struct step_port *port;
    int fd;
    struct in6_addr from; /* IPv4 as a mapped one */
    struct event *readable, *late;
    uint8_t got[PREAMBLE_LEN];
    size_t have;
    TAILQ_ENTRY(caller) next;
};
TAILQ_HEAD(callers, caller);

struct step_port {
    struct agent *agent;
    struct listener *listener;
    struct callers callers; /* oldest first */
    unsigned count;
};

static void caller_free(struct caller *c)
{
    TAILQ_REMOVE(&c->port->callers, c, next);
    c->port->count--;
    if (c->readable)
        event_free(c->readable);
    if (c->late)
        event_free(c->late);
    close(c->fd);
    free(c);
}

static void on_bytes(evutil_socket_t fd, short what, void *arg)
{
    struct caller *c = arg;
    ssize_t n = read(fd, c->got + c->have, PREAMBLE_LEN - c->have);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    c->have += n > 0 ? (size_t)n : 0;
    if (n > 0 && c->have < PREAMBLE_LEN)
        return;
    if (c->have == PREAMBLE_LEN && !memcmp(c->got, MAGIC, MAGIC_LEN) &&
        !attempts_step(c->port->agent->attempts, c->got + MAGIC_LEN, fd))
        log_warn("a step called for an attempt that is not here");
    caller_free(c); /* the keeper has a descriptor of its own now */
}

static void on_late(evutil_socket_t fd, short what, void *arg)
{
    caller_free(arg);
}

static struct in6_addr address_of(int fd)
{
    struct in6_addr out = IN6ADDR_ANY_INIT;
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } peer = {0};
    socklen_t len = sizeof peer;
    if (getpeername(fd, &peer.any, &len))
        return out;
    if (peer.any.sa_family == AF_INET6)
        return peer.v6.sin6_addr;
    out.s6_addr[10] = out.s6_addr[11] = 0xff;
    memcpy(out.s6_addr + 12, &peer.v4.sin_addr, 4);
    return out;
}

/* The oldest of the address with the most callers; of addresses with equally many, the oldest of all. */
static struct caller *greediest(struct step_port *port)
{
    struct caller *c, *other, *found = NULL;
    unsigned most = 0;
    TAILQ_FOREACH (c, &port->callers, next) {
        unsigned count = 0;
        TAILQ_FOREACH (other, &port->callers, next)
            count += IN6_ARE_ADDR_EQUAL(&c->from, &other->from);
        if (count > most) {
            most = count;
            found = c;
        }
    }
    return found;
}

static void on_accept(struct listener *listener, int fd, void *arg)
{
    struct step_port *port = arg;
    struct event_base *base = port->agent->base;
    struct timeval tv = {.tv_sec = PREAMBLE_S};
    if (port->count == CALLERS_MAX)
        caller_free(greediest(port));
    struct caller *c = xcalloc(1, sizeof *c);
    c->port = port;
    c->fd = fd;
    c->from = address_of(fd);
    TAILQ_INSERT_TAIL(&port->callers, c, next);
    port->count++;
    c->readable = event_new(base, fd, EV_READ | EV_PERSIST, on_bytes, c);
    c->late = evtimer_new(base, on_late, c);
    if (!c->readable || !c->late || event_add(c->readable, NULL) || evtimer_add(c->late, &tv))
        caller_free(c);
}

static uint16_t remembered(struct agent *agent)
{
    struct buf text = BUF_INIT;
    unsigned long port = 0;
    if (file_read(agent->dir, "step_port", 64, &text, NULL) == 0)
        port = strtoul(buf_str(&text), NULL, 10);
    buf_free(&text);
    return port < 65536 ? (uint16_t)port : 0;
}

static struct listener *listen_on(struct step_port *port, const char *address, uint16_t number,
                                  struct error *err)
{
    char text[300];
    snprintf(text, sizeof text, strchr(address, ':') ? "[%s]:%u" : "%s:%u", address, number);
    return listener_tcp(port->agent->base, text, on_accept, port, err);
}

struct step_port *step_port_create(struct agent *agent, struct error *err)
{
    struct step_port *port = xcalloc(1, sizeof *port);
    const char *address = agent->config.address[0] ? agent->config.address : "0.0.0.0";
    uint16_t wanted = (uint16_t)agent->config.port, last = wanted ? 0 : remembered(agent);
    port->agent = agent;
    TAILQ_INIT(&port->callers);
    if (last)
        port->listener = listen_on(port, address, last, err);
    if (!port->listener)
        port->listener = listen_on(port, address, wanted, err);
    if (!port->listener) {
        error_prefix(err, "step port");
        free(port);
        return NULL;
    }
    if (!wanted && listener_port(port->listener) != last) {
        char text[16];
        int len = snprintf(text, sizeof text, "%u\n", listener_port(port->listener));
        if (file_write(agent->dir, "step_port", text, (size_t)len, 0600, false, err))
            log_warn("step_port: %s", err->text);
    }
    return port;
}

void step_port_destroy(struct step_port *port)
{
    if (!port)
        return;
    while (!TAILQ_EMPTY(&port->callers))
        caller_free(TAILQ_FIRST(&port->callers));
    listener_free(port->listener);
    free(port);
}

uint16_t step_port_number(const struct step_port *port)
{
    return listener_port(port->listener);
}
