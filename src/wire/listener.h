/* listener.h - waiting for connections on a unix path or a TCP address.
 *
 * New connections are let in at a bounded rate (a token bucket), so that many peers returning at
 * once do not fill the loop with handshakes; the others wait in the kernel's queue.
 */
#ifndef MUSTER_WIRE_LISTENER_H
#define MUSTER_WIRE_LISTENER_H

#include "base/error.h"

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct listener;
/* A connection; the callee owns fd (non-blocking, close-on-exec). Not to free the listener here. */
typedef void listener_accept_fn(struct listener *listener, int fd, void *arg);

/* Binds `path` with `mode`. A socket file on which nobody answers is replaced; one on which somebody
 * does is ERR_EXISTS ("address in use"); any other file there is ERR_EXISTS too and left alone. */
struct listener *listener_unix(struct event_base *base, const char *path, mode_t mode, listener_accept_fn *fn,
                               void *arg, struct error *err);
/* `address` is "ADDR:PORT" with a numeric address ("127.0.0.1:5800", "[::1]:0"); port 0 takes any
 * free one. ERR_USAGE for other texts, ERR_EXISTS when it is in use. */
struct listener *listener_tcp(struct event_base *base, const char *address, listener_accept_fn *fn, void *arg,
                              struct error *err);
/* Closes, and removes its socket file. NULL is fine. Connections that were handed over live on. */
void listener_free(struct listener *listener);

/* At most `burst` connections at once and `per_second` after that; 0: no limit (the beginning). */
void listener_rate(struct listener *listener, uint32_t burst, uint32_t per_second);
void listener_pause(struct listener *listener, bool pause);

/* What is really listened on: the path, or "ADDR:PORT" with the port that was given. */
const char *listener_text(const struct listener *listener);
uint16_t listener_port(const struct listener *listener); /* 0: a unix path */

/* Splits "ADDR:PORT" or "[ADDR]:PORT" (a host name is fine here): for options and files. */
int address_split(const char *text, char host[256], uint16_t *port, struct error *err);

#endif
