/* options.h - mpiexec's command line (MS-MPI's syntax) into a StepRequest.
 *
 * One table in options.c holds every option of MS-MPI: those of this version with what they do,
 * the others so that they are refused by name. An option starts with "-", "--" or "/"; case does not count.
 */
#ifndef MUSTER_STEP_OPTIONS_H
#define MUSTER_STEP_OPTIONS_H

#include "base/buf.h"
#include "base/error.h"
#include "proto/step.pb-c.h"

#include <stdbool.h>

#define OPTIONS_RANKS_MAX 1000000u
#define OPTIONS_SECTIONS_MAX 1024
#define OPTIONS_HOSTS_MAX 16384

struct options {
    Mu__StepRequest request; /* everything in it is owned by this struct */
    bool lines;              /* -l */
    bool help, version;      /* nothing else is set then */
};

/* Parses argv[1..]. `environ_` is mpiexec's own environment, which the ranks get; `cwd` is where
 * ranks run without -wdir. Errors (ERR_USAGE) name the option, the value and what was expected. */

int options_parse(struct options *o, int argc, char **argv, char **environ_, const char *cwd,
                  struct error *err);
void options_free(struct options *o);
/* The text of --help. */
void options_help(struct buf *out);

#endif
