/* config.h - DIR/head.json, all of it optional: what a site changes about its head. */
#ifndef MUSTER_HEAD_CONFIG_H
#define MUSTER_HEAD_CONFIG_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

struct config_map {
    char *from, *to; /* jobs of user `from` run as user `to` */
};
struct config {
    uint32_t lease_ms;     /* an attempt outlives its head by this; default 600000 */
    uint32_t grace_ms;     /* SIGTERM to SIGKILL; default 15000 */
    uint32_t heartbeat_ms; /* how often agents report; 3 missed: late. Default 5000 */
    uint32_t user_jobs;    /* "jobs_per_user": not ended; default 100000 */
    uint32_t user_job_mb;  /* "job_mb_per_user": what they ask for, stored; default 256 */
    uint32_t spool_mb;     /* "spool_total_mb": outputs kept; default 0: a fifth of the disk, at most 20 GB */
    char **admins;         /* user names */
    size_t admin_count;
    struct config_map *map;
    size_t map_count;
    int log_level; /* enum log_level */
    char *store;   /* "postgresql://...": instead of store.db in the head's folder; NULL: that */
};

/* Fills the defaults, then what the file says. An absent file is fine; an unknown key, a wrong
 * type or a value out of range is an error that names it. Free with config_free() in any case. */
int config_load(struct config *config, int dirfd, struct error *err);
void config_free(struct config *config);

#endif
