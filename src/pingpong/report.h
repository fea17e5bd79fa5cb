/* report.h - what a run found, as text of 80 columns and as XML, written as it comes.
 *
 * A report keeps O(1) per pair at most 8 bytes (the medians, up to the exact bound of
 * sample.h), so its memory does not grow with what it has printed. The XML is described in
 * docs/mpipingpong-xml.md. No MPI in here.
 */
#ifndef MUSTER_PINGPONG_REPORT_H
#define MUSTER_PINGPONG_REPORT_H

#include "base/error.h"
#include "pingpong/options.h"
#include "pingpong/probe.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* What is known before the first pair. Strings and arrays belong to the caller. */
struct run_info {
    const struct pingpong_options *options;
    const char *library;  /* "Open MPI 4.1.4" */
    const char *settings; /* variables that choose a path, "NAME=VALUE NAME=VALUE"; "" none */
    bool tournament;
    bool mode_chosen;    /* by the user */
    bool library_yields; /* the MPI library gives up its processor while it waits */
    uint32_t ranks;
    uint32_t nodes;
    uint32_t hosts;      /* physical */
    uint32_t processors; /* of all hosts, that ranks may use */
    uint32_t clock_ns;   /* largest cost of one reading among the ranks */
    uint64_t pairs;
    char *const *labels; /* of each rank: its node, or "node:rank" where a node has several */
    const uint32_t *host_of;
};

/* One end's view of a pair: half round trips in microseconds, clock taken off. */
struct latency {
    double min, p50, p95, p99, max;
};
struct pair_report {
    uint32_t from, to; /* ranks */
    struct latency from_end, to_end;
    double mbps;      /* 10^6 bytes a second at from_end's median */
    double processor; /* share of the time that the ends' processes ran, the lower of both: less than 1 where
                         other programs had their processors */
    uint64_t iterations;
    bool shared;  /* the ends shared a processor and yielded */
    bool damaged; /* a payload arrived changed */
    char path[PATH_TEXT];
};

struct report;
/* `text` may be NULL (no text). Opens options->xml where one is named; -1/NULL with ERR_IO where it cannot.
 */
struct report *report_open(const struct run_info *info, FILE *text, struct error *err);
/* Prints and writes the pair at once. */
void report_pair(struct report *r, const struct pair_report *pair);
/* Summary; closes the XML. -1: the text or the file could not be written in full, or data were damaged. */
int report_close(struct report *r, double seconds, struct error *err);

#endif
