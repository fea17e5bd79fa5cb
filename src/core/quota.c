/* quota.c - what one user's jobs that have not ended take of the head's memory and disk.
 *
 * Counted by uid: the jobs, and the bytes of what was asked for, with a share for each task's other
 * fields. A job counts from its creation to its end, and again when it is requeued.
 */
#include "core/internal.h"

#include "base/mem.h"

#include <inttypes.h>
#include <stdlib.h>

#define TASK_BYTES 128 /* of a task beside its specification */

struct quota {
    uint32_t uid;
    uint64_t jobs, bytes;
    UT_hash_handle hh;
};

static struct quota *quota_of(struct core *core, uint32_t uid)
{
    struct quota *q;
    HASH_FIND(hh, core->quotas, &uid, sizeof uid, q);
    return q;
}

static uint32_t uid_of(const struct job *job)
{
    return job->row->owner ? job->row->owner->uid : 0;
}

uint64_t quota_bytes(const Mu__JobSpec *job, Mu__TaskSpec *const *tasks, size_t n)
{
    uint64_t bytes = job ? mu__job_spec__get_packed_size(job) : 0;
    for (size_t i = 0; i < n; i++)
        bytes += TASK_BYTES + mu__task_spec__get_packed_size(tasks[i]);
    return bytes;
}

int quota_check(struct core *core, const struct actor *actor, const Mu__Owner *owner, uint64_t jobs,
                uint64_t bytes, struct error *err)
{
    const struct core_config *c = &core->config;
    const struct quota *q = owner ? quota_of(core, owner->uid) : NULL;
    if (actor->admin || !owner)
        return 0;
    uint64_t have = q ? q->jobs : 0, have_bytes = q ? q->bytes : 0;
    if (jobs && c->user_jobs_max && have + jobs > c->user_jobs_max)
        return error_set(err, ERR_LIMIT, "%" PRIu64 " jobs of user %s have not ended: at most %u of one user",
                         have, owner->name, c->user_jobs_max);
    if (c->user_bytes_max && have_bytes + bytes > c->user_bytes_max)
        return error_set(err, ERR_LIMIT,
                         "the jobs of user %s that have not ended would take %" PRIu64
                         " bytes: at most %" PRIu64 " of one user",
                         owner->name, have_bytes + bytes, c->user_bytes_max);
    return 0;
}

void quota_count(struct core *core, struct job *job)
{
    bool open = !job_state_ended((int)job->row->state);
    struct quota *q = quota_of(core, uid_of(job));
    if (open == job->counted)
        return;
    job->counted = open;
    if (!q) {
        q = xcalloc(1, sizeof *q);
        q->uid = uid_of(job);
        HASH_ADD(hh, core->quotas, uid, sizeof q->uid, q);
    }
    q->jobs += open ? 1 : (uint64_t)-1;
    q->bytes += open ? job->bytes : -job->bytes;
    if (q->jobs)
        return;
    HASH_DEL(core->quotas, q);
    free(q);
}

void quota_add(struct core *core, struct job *job, uint64_t bytes)
{
    job->bytes += bytes;
    if (job->counted)
        quota_of(core, uid_of(job))->bytes += bytes;
}

uint64_t quota_jobs(const struct core *core)
{
    uint64_t jobs = 0;
    for (const struct quota *q = core->quotas; q; q = q->hh.next)
        jobs += q->jobs;
    return jobs;
}

void quota_free(struct core *core)
{
    struct quota *q, *tmp;
    HASH_ITER (hh, core->quotas, q, tmp) {
        HASH_DEL(core->quotas, q);
        free(q);
    }
}
