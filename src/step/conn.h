/* conn.h - a connection that carries StepFrames: unix socket or TLS over TCP, on a libevent loop.
 *
 * Output and input of ranks have a queue of their own: everything else overtakes them, so the end
 * of a step does not wait behind gigabytes. What waits in the data queue is bounded by credits.
 */
#ifndef MUSTER_STEP_CONN_H
#define MUSTER_STEP_CONN_H

#include "base/error.h"
#include "proto/step.pb-c.h"

#include <event2/event.h>
#include <stdbool.h>

#define CONN_FRAME_MAX (80u * 1024 * 1024) /* a joined fence and its keys */

enum conn_security { CONN_PLAIN, CONN_TLS_CLIENT, CONN_TLS_SERVER };

struct conn;
struct conn_ops {
    void (*frame)(void *arg, Mu__StepFrame *frame);     /* freed after the call; may close the conn */
    void (*closed)(void *arg, const struct error *err); /* called once, not after conn_close() */
};
/* Takes over a connected (or connecting) socket. `psk` of 32 bytes for TLS. `preamble` (may be NULL)
 * goes out first, before TLS. */
struct conn *conn_new(struct event_base *base, int fd, enum conn_security security, const uint8_t *psk,
                      size_t psk_len, const void *preamble, size_t preamble_len, const struct conn_ops *ops,
                      void *arg, struct error *err);
void conn_send(struct conn *c, const Mu__StepFrame *frame);
void conn_close(struct conn *c); /* at once; NULL is fine */
/* Waits (blocking, at most `ms`) until what was sent has left; then closes. */
void conn_close_flushed(struct conn *c, int ms);

#endif
