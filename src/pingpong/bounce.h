/* bounce.h - one pair's measurement, and how a rank that does not measure waits.
 *
 * The only files that know MPI are bounce.c and main.c; they are compiled once per MPI family.
 */
#ifndef MUSTER_PINGPONG_BOUNCE_H
#define MUSTER_PINGPONG_BOUNCE_H

#include "pingpong/probe.h"
#include "pingpong/sample.h"

#include <stdbool.h>
#include <stdint.h>

enum bounce_tag {
    TAG_ORDER = 1, /* rank 0 to a measuring rank: struct order */
    TAG_READY,     /* between the ends of a pair: awake */
    TAG_DATA,      /* the ping-pong itself */
    TAG_RESULT     /* a measuring rank to rank 0: struct end_result */
};

/* Sent as bytes: all ranks run the same program on the same kind of machine. */
struct end_result {
    uint32_t rank, peer;
    int32_t damaged;
    int32_t from_end; /* this end sent first and saw the path */
    uint64_t count;
    double processor;               /* share of the time that this end's process really ran, 0..1 */
    double min, p50, p95, p99, max; /* round trip, ns, this end's clock readings taken off */
    char path[PATH_TEXT];
};

struct bounce {
    unsigned char *send, *receive; /* `room` bytes each */
    uint32_t size;
    uint32_t iterations, warmup;
    uint32_t clock_ns; /* what a sample's own reading and storing take, already taken off */
    struct sample_set samples;
};

/* Makes all memory that measuring needs, and touches it. -1: there is not enough. */
int bounce_init(struct bounce *b, uint32_t size, uint32_t iterations, uint32_t warmup, uint32_t clock_ns);
void bounce_release(struct bounce *b);

bool bounce_library_switch(void); /* whether the library's own yielding is turned off while a pair measures */

/* Measures with `peer`, which calls the same at about the same time; the lower rank sends first. With
 * `yield` both ends give up the processor while they wait. `one_host`: both are under one kernel. */
void bounce_run(struct bounce *b, int rank, int peer, bool yield, bool one_host, struct end_result *out);

/* Waits, mostly asleep, until a message from `source` (may be MPI_ANY_SOURCE) with `tag` is there, and
 * receives up to `size` bytes of it. Sleeps grow with the time waited so far (a quarter of it, 50 us to
 * 10 ms): a wait costs some tens of short wake-ups however long it is, and its end is seen soon. */
void sleep_receive(void *data, int size, int source, int tag);

#endif
