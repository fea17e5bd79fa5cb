/* confine.h - what the head may do once it serves: read files, write below its own folder, talk. */
#ifndef MUSTER_HEAD_CONFINE_H
#define MUSTER_HEAD_CONFINE_H

#include "base/error.h"

/* First part, always possible: no new privileges, no core dump, memory closed to others. */
int confine_process(struct error *err);

/* Second part, for all threads made after it: no program is ever started, no file is written but below
 * `dir` and in `socket_folder` (its socket), none of the system calls that administer a machine.
 * What the kernel does not offer is left out, with a line in the log. */
int confine_access(const char *dir, const char *socket_folder, struct error *err);

#endif
