/* pmixmod.h - what the step asks of libpmix, and how it is loaded.
 *
 * The code that calls libpmix is a module (muster-pmix.so) of its own, loaded when the first rank
 * connects: most of a launch's time would otherwise go into libraries that MPICH or /bin/true never
 * use. libpmix has threads of its own; the module queues what they say and wakes the loop through an
 * eventfd, so every event is handled, and answered, on the loop's thread.
 */
#ifndef MUSTER_STEP_PMIXMOD_H
#define MUSTER_STEP_PMIXMOD_H

#include "base/buf.h"
#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define PMIXMOD_ABI 3

struct pmixmod_setup {
    const char *nspace;        /* of the job: 128 random bits are in it */
    const char *server_nspace; /* of this server */
    uint32_t size;             /* ranks of the job */
    const uint32_t *rank_node; /* [size]: index into node_names */
    const char *const *node_names;
    uint32_t nodes;
    uint32_t my_node;
    uid_t uid;
    gid_t gid;
    const char *tmpdir;       /* private folder */
    const char *topology_xml; /* hwloc's, a file; "" for none */
    int wake_fd;              /* eventfd; not owned */
};

enum pmixmod_kind {
    PMIXMOD_CONNECTED,   /* rank */
    PMIXMOD_FINALIZED,   /* rank */
    PMIXMOD_ABORT,       /* rank, status, text */
    PMIXMOD_FENCE,       /* ranks, data */
    PMIXMOD_MODEX,       /* rank of another node whose data is wanted here */
    PMIXMOD_MODEX_LOCAL, /* answer to modex(): id, status, data */
};

struct pmixmod_event {
    struct pmixmod_event *next;
    enum pmixmod_kind kind;
    uint32_t rank;
    int status;
    uint64_t id;
    char *text;
    uint32_t *ranks; /* empty: all */
    size_t ranks_n;
    struct buf data;
    void *cbfunc, *cbdata; /* the module's own */
};

struct pmixmod {
    int abi;
    int (*start)(const struct pmixmod_setup *setup, struct error *err);
    uint16_t (*port)(void);              /* where libpmix listens, on 127.0.0.1 */
    struct pmixmod_event *(*next)(void); /* NULL: none is queued */
    /* Completes an event (FENCE and MODEX with data) and frees it. */
    void (*answer)(struct pmixmod_event *event, int status, const void *data, size_t len);
    void (*modex)(uint32_t rank, uint64_t id); /* a MODEX_LOCAL event will follow */
    /* What setup_fork gives a rank, as "NAME=VALUE\n" lines with @NSPACE@, @RANK@, @SERVER@, @PORT@,
     * @HOST@ and @TMPDIR@ for what differs, and the machine's topology. For a process that ends after.
     * libpmix makes its files in a folder probe-XXXXXX in `folder` meanwhile. */
    int (*probe)(const char *folder, struct buf *env, struct buf *xml, struct error *err);
};

/* The module, loaded at the first call. NULL: err says what is missing. */
const struct pmixmod *pmixmod_load(struct error *err);

/* Loads NAME.so from beside this program or from the library folder and returns its symbol. */
void *module_load(const char *name, const char *symbol, struct error *err);

#endif
