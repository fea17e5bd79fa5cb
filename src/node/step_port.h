/* step_port.h - the port on which the steps of other nodes call: the agent's only inbound one.
 *
 * A connection sends a fixed preamble, 8 bytes "MUSTEP1\n" and the 24 bytes of an attempt's route,
 * and is then handed to that attempt's keeper, or closed without a word. What follows on it the agent
 * never reads. */
#ifndef MUSTER_NODE_STEP_PORT_H
#define MUSTER_NODE_STEP_PORT_H

#include "base/error.h"

#include <stdint.h>

struct agent;
struct step_port;

/* Listens at the configured address and port. A port that was free to choose is kept in
 * DIR/step_port, so that a restarted agent is reached where running steps know it. */
struct step_port *step_port_create(struct agent *agent, struct error *err);
void step_port_destroy(struct step_port *port); /* NULL is fine */
uint16_t step_port_number(const struct step_port *port);

#endif
