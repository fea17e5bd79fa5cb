/* step_port.c - the port on which the steps of other nodes call. See step_port.h.
 *
 * Bounded: as many connections as CALLERS_MAX may be without a whole preamble, each for 5 s; new
 * ones then wait in the kernel's queue. */
#include "node/step_port.h"
#include "base/buf.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "node/agent.h"
#include "node/attempts.h"
#include "wire/listener.h"

#include <errno.h>
#include <event2/event.h>
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
    struct event *event;
    uint8_t got[PREAMBLE_LEN];
    size_t have;
};
struct step_port {
    struct agent *agent;
    struct listener *listener;
    unsigned callers;
};

static void caller_free(struct caller *c)
{
    if (c->port->callers-- == CALLERS_MAX)
        listener_pause(c->port->listener, false);
    if (c->event)
        event_free(c->event);
    close(c->fd);
    free(c);
}

static void on_bytes(evutil_socket_t fd, short what, void *arg)
{
    struct caller *c = arg;
    if (what & EV_TIMEOUT) {
        caller_free(c);
        return;
    }
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

static void on_accept(struct listener *listener, int fd, void *arg)
{
    struct step_port *port = arg;
    struct timeval tv = {.tv_sec = PREAMBLE_S};
    struct caller *c = xcalloc(1, sizeof *c);
    c->port = port;
    c->fd = fd;
    if (++port->callers == CALLERS_MAX)
        listener_pause(listener, true);
    c->event = event_new(port->agent->base, fd, EV_READ | EV_PERSIST, on_bytes, c);
    if (!c->event || event_add(c->event, &tv))
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
    listener_free(port->listener);
    free(port);
}

uint16_t step_port_number(const struct step_port *port)
{
    return listener_port(port->listener);
}
