/* links.h - the branches below a node of the step tree: connecting to them, frames to and from them.
 *
 * A branch is reached through the step port of its node's agent, which passes the connection on by
 * the route in the first 32 bytes; from then on it is TLS with the attempt's key.
 */
#ifndef MUSTER_STEP_LINKS_H
#define MUSTER_STEP_LINKS_H

#include "base/error.h"
#include "proto/step.pb-c.h"

#include <event2/event.h>

struct links;
struct links_ops {
    void (*frame)(void *arg, uint32_t node, Mu__StepFrame *frame);
    void (*lost)(void *arg, uint32_t node, const struct error *err); /* also: never reached */
};
/* Connects to the children of `me`. `launch` must live as long; its index is set for each child. */
struct links *links_new(struct event_base *base, Mu__StepLaunch *launch, uint32_t me, const uint8_t *psk,
                        size_t psk_len, const struct links_ops *ops, void *arg, struct error *err);
void links_free(struct links *l);
void links_send(struct links *l, uint32_t child, Mu__StepFrame *frame);
void links_send_all(struct links *l, Mu__StepFrame *frame);
uint32_t links_first(const struct links *l); /* children are first .. first+count-1 */
uint32_t links_count(const struct links *l);

#endif
