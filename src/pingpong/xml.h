/* xml.h - the XML file of a report, streamed. Private to report.c. */
#ifndef MUSTER_PINGPONG_XML_H
#define MUSTER_PINGPONG_XML_H

#include "pingpong/report.h"

struct xml;
struct summary;

struct xml *xml_open(const struct run_info *info, struct error *err);
void xml_pair(struct xml *x, const struct run_info *info, const struct pair_report *pair);
/* Frees x. -1: not all could be written. */
int xml_close(struct xml *x, const struct run_info *info, const struct summary *sum, struct error *err);

/* Over all pairs; medians are from_end's. */
#define SUMMARY_PATHS 8
struct summary {
    uint64_t pairs, damaged, shared;
    struct pair_report best, worst; /* by median latency */
    struct pair_report bad;         /* the first that was damaged */
    double processor;               /* the lowest of all pairs that did not share */
    double median_us, median_mbps;
    struct {
        char name[PATH_TEXT];
        uint64_t pairs;
    } paths[SUMMARY_PATHS]; /* the last one collects what does not fit ("other") */
    unsigned path_count;
    double seconds;
};

#endif
