/* options.h - mpipingpong's command line.
 *
 * Options begin with '-' or '/', in any case, HPC Pack's spelling (-p 1:100000) or with a colon
 * (/p:1:100000). One word that is no option is the XML file; `nul` and /dev/null discard it. A
 * word that begins with '/' and holds a second '/' is a file. No MPI in here.
 */
#ifndef MUSTER_PINGPONG_OPTIONS_H
#define MUSTER_PINGPONG_OPTIONS_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

#define PINGPONG_SIZE_MAX (1024u * 1024 * 1024) /* bytes of one message */
#define PINGPONG_ITERATIONS_MAX 100000000u      /* round trips a pair */

enum pingpong_mode {
    MODE_AUTO,      /* serial where hosts share processors, else tournament */
    MODE_SERIAL,    /* one pair at a time, all N(N-1)/2 */
    MODE_TOURNAMENT /* rounds of disjoint pairs at once */
};
enum pingpong_rows {
    ROWS_AUTO, /* every pair while there are at most ROWS_AUTO_MAX of them */
    ROWS_ALL,
    ROWS_NONE /* the summary alone */
};
#define ROWS_AUTO_MAX 1000

struct pingpong_options {
    bool help;
    bool version;
    bool several_per_node; /* -m */
    enum pingpong_mode mode;
    enum pingpong_rows rows;
    bool text;           /* readable text on stdout */
    bool quiet;          /* only errors */
    uint32_t size;       /* bytes */
    uint32_t iterations; /* timed round trips of a pair */
    uint32_t warmup;     /* round trips before them, not counted */
    const char *xml;     /* file to write (points into argv); NULL: none */
};

/* Fills `o` from the arguments, defaults included. -1 with ERR_USAGE and one line that names the
 * option, its value and what was expected. */
int options_parse(struct pingpong_options *o, int argc, char **argv, struct error *err);

/* The text of --help, lines of at most 80 columns. */
const char *options_help(void);

#endif
