/* order.h - what one agent is to be told, gathered until it is sent as one NodeOrder. */
#ifndef MUSTER_HEAD_ORDER_H
#define MUSTER_HEAD_ORDER_H

#include "head/head.h"
#include "proto/wire.pb-c.h"
#include "wire/link.h"

struct order {
    Mu__NodeOrder msg; /* arrays and what is in them are owned */
    size_t prepare_cap, go_cap, end_cap, forget_cap, credit_cap;
    size_t bytes; /* about how long it will be */
};
void order_init(struct order *order);
void order_clear(struct order *order); /* empty again, memory freed */
bool order_empty(const struct order *order);

/* Adds one effect. A prepare is completed with keys, names and credit here. Long orders are sent at
 * once to `link`, as frames are bounded. */
void order_add(struct order *order, struct head *head, const struct effect *effect, struct link *link);
void order_credit(struct order *order, uint64_t attempt, uint64_t offset, uint32_t window);
void order_send(struct order *order, struct head *head, struct link *link); /* and clears */

#endif
