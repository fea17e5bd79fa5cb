/* attempts.h - the attempts on this node: folders, keepers, reports, output.
 *
 * An attempt is known from its PrepareOrder (or from its folder, after a restart) until it is
 * forgotten. All orders may be repeated without harm; whatever an order names is reported again.
 */
#ifndef MUSTER_NODE_ATTEMPTS_H
#define MUSTER_NODE_ATTEMPTS_H

#include "base/error.h"
#include "proto/wire.pb-c.h"

#include <stdbool.h>
#include <stdint.h>

#define ROUTE_LEN 24

struct agent;
struct attempts;

/* Opens DIR/attempts, takes up with the keepers that live, ends what dead ones left. */
struct attempts *attempts_create(struct agent *agent, struct error *err);
void attempts_destroy(struct attempts *attempts); /* keepers go on; NULL is fine */

/* Orders. Starts are carried out by attempts_turn(). */
void attempts_prepare(struct attempts *attempts, const Mu__PrepareOrder *order);
void attempts_go(struct attempts *attempts, uint64_t id);
void attempts_end(struct attempts *attempts, const Mu__EndOrder *order);
void attempts_forget(struct attempts *attempts, uint64_t id);
void attempts_credit(struct attempts *attempts, const Mu__OutputCredit *credit);
/* The head is there: leases, of this length (0: as they were), count from agent->lease_from_ms. */
void attempts_renew(struct attempts *attempts, uint32_t lease_ms);

/* End of a loop turn: makes new folders durable (one fsync for all) and starts their keepers. */
void attempts_turn(struct attempts *attempts);

/* Adds what is to be said (output first, then reports) up to about `max` bytes to `report`. False:
 * nothing. Free the parts with attempts_report_free(). */
bool attempts_collect(struct attempts *attempts, Mu__NodeReport *report, size_t max);
/* All attempts, for Hello; *count reports. Also starts anew what is said: no credit, nothing sent. */
Mu__AttemptReport **attempts_inventory(struct attempts *attempts, size_t *count);
void attempts_reports_free(Mu__AttemptReport **reports, size_t count);
void attempts_report_free(Mu__NodeReport *report);

/* Whether it is known of every attempt how it stands. */
bool attempts_settled(const struct attempts *attempts);
uint32_t attempts_alive(const struct attempts *attempts);

/* Hands a tree connection to the attempt with this route; false: none. `fd` stays the caller's. */
bool attempts_step(struct attempts *attempts, const uint8_t route[ROUTE_LEN], int fd);

#endif
