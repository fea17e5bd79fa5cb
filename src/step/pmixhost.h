/* pmixhost.h - the PMIx server of a node as its ranks see it: a port on 127.0.0.1 from the start,
 * libpmix behind it from the first connection on.
 *
 * The port is ours. A rank that connects is let in when the kernel says that its socket belongs to
 * this process's user; then libpmix is started, and bytes are carried between the two. Another
 * local user is refused here, and would not know the job's name (128 random bits) either.
 */
#ifndef MUSTER_STEP_PMIXHOST_H
#define MUSTER_STEP_PMIXHOST_H

#include "step/pmixmod.h"
#include "step/template.h"

#include <event2/event.h>

struct pmixhost;
struct pmixhost_ops {
    int (*starting)(void *arg, struct error *err); /* libpmix is about to start: tmpdir is needed */
    /* An event of libpmix; the owner hands it back through pmixhost_answer(). */
    void (*event)(void *arg, struct pmixmod_event *event);
    void (*failed)(void *arg, const struct error *err); /* libpmix did not start */
    void (*refused)(void *arg, uid_t uid);              /* a stranger was turned away */
};

/* Starts listening. `setup`'s strings and arrays must live as long; its server_nspace, wake_fd and
 * topology_xml are filled in here. */
struct pmixhost *pmixhost_new(struct event_base *base, const struct pmixmod_setup *setup,
                              const char *probe_folder, const struct pmixhost_ops *ops, void *arg,
                              struct error *err);
/* The process must end by _exit() soon after: libpmix's threads still run. */
void pmixhost_free(struct pmixhost *h);
void pmixhost_answer(struct pmixhost *h, struct pmixmod_event *event, int status, const void *data,
                     size_t len);
/* Hands on now what libpmix has told already. */
void pmixhost_catch_up(struct pmixhost *h);
/* A MODEX_LOCAL event with this id will follow; -1: none will (libpmix does not start, which was told). */
int pmixhost_modex(struct pmixhost *h, uint32_t rank, uint64_t id);

/* What a rank needs in its environment: calls set() for each variable. `shared_only`: only those
 * that are the same for all ranks; else only those that are not. */
void pmixhost_env(struct pmixhost *h, unsigned rank, bool shared_only,
                  void (*set)(void *arg, const char *name, const char *value), void *arg);

#endif
