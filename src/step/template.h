/* template.h - what libpmix would put into a rank's environment, recorded once per boot.
 *
 * Recording takes 20 ms of libpmix's start; reading the file does not load libpmix at all. The file
 * belongs to this boot and this libpmix. It lies where the agent wrote it (inside an allocation), or
 * in the user's cache folder, or, when that cannot be written, is made anew for this launch.
 */
#ifndef MUSTER_STEP_TEMPLATE_H
#define MUSTER_STEP_TEMPLATE_H

#include "base/buf.h"
#include "base/error.h"

struct template
{
    struct buf env;     /* lines "NAME=VALUE" with @...@ words */
    char *topology_xml; /* path of hwloc's file, "" for none */
};

/* `folder`: where `muster-step --probe` has written; NULL: the user's cache. `scratch`: an existing folder
 * in which one is made for a moment when neither holds anything. */
int template_load(struct template *t, const char *folder, const char *scratch, struct error *err);
void template_free(struct template *t);
/* Records into `folder` (existing): topology.xml, pmix.env. In this process, which should end then. */
int template_record(const char *folder, struct error *err);

/* One line of env with its words replaced; appended to out. */
struct template_values {
    const char *nspace, *server, *host, *tmpdir;
    unsigned rank, port;
};
void template_fill(const char *line, size_t len, const struct template_values *v, struct buf *out);

#endif
