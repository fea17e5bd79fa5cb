/* pmi1.h - the server's end of PMI-1 for one rank, as an engine: bytes in, callbacks out.
 *
 * Lines of "key=value" words, ended by a newline, at most PMI1_LINE_MAX bytes (MPICH, MVAPICH2 and
 * Intel MPI speak it over the descriptor that PMI_FD names). What a rank sends is outside input: a
 * broken line ends the conversation with an error, never the process. Source: MPICH's simple PMI as
 * servers answer it (flux-core's simple_server, Hydra); reference to the commands in docs.
 */
#ifndef MUSTER_STEP_PMI1_H
#define MUSTER_STEP_PMI1_H

#include "base/buf.h"
#include "base/error.h"
#include "step/kvs.h"

#include <stdbool.h>
#include <stdint.h>

#define PMI1_LINE_MAX 2048

struct pmi1;
struct pmi1_ops {
    void (*send)(void *arg, const char *data, size_t len); /* to the rank */
    void (*init)(void *arg);                               /* it has said hello */
    void (*barrier)(void *arg); /* it waits: call pmi1_barrier_out() when all are there */
    void (*finalize)(void *arg);
    void (*abort)(void *arg, int code, const char *text); /* text "" when none was given */
};

struct pmi1_job {
    uint32_t rank;
    uint32_t size;     /* ranks of this step */
    uint32_t universe; /* what get_universe_size answers */
    uint32_t appnum;
    const char *kvsname;
    const char *mapping; /* value of PMI_process_mapping */
    struct kvs *kvs;     /* shared by the ranks of a node; not owned */
};

/* `job` is copied, its strings and kvs stay the caller's and must live as long. */
struct pmi1 *pmi1_new(const struct pmi1_job *job, const struct pmi1_ops *ops, void *arg);
void pmi1_free(struct pmi1 *p);
/* Bytes from the rank. -1: the conversation is broken, close it. */
int pmi1_input(struct pmi1 *p, const void *data, size_t len, struct error *err);
void pmi1_barrier_out(struct pmi1 *p);
bool pmi1_begun(const struct pmi1 *p);
bool pmi1_finalized(const struct pmi1 *p);

/* "(vector,(0,2,4))" for ranks laid out in blocks: `nodes[i]` has the next `counts[i]` ranks. */
void pmi1_mapping(const uint32_t *nodes, const uint32_t *counts, size_t n, struct buf *out);

#endif
