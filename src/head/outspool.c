/* outspool.c - one entry for each attempt that has printed or is about to end. Files are opened at
 * the first byte, so a task that prints nothing costs nothing; the longest unused are closed.
 *
 * When a file cannot be written, all are stuck: what comes is dropped, no credit is given, and agents
 * keep what their tasks print. A probe is tried after a second, then less and less often; when it
 * succeeds, the links of the agents whose bytes were dropped are closed once, and they start again
 * from what is here. */
#include "head/outspool.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/spool.h"
#include "head/nodelink.h"
#include "head/waits.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <uthash.h>

#define SPOOL_FOLDER "spool"
#define WINDOW (512u * 1024)
#define OPEN_MAX_FILES 256
#define FILE_BYTES_MAX (SPOOL_HEAD_DEFAULT + SPOOL_TAIL_DEFAULT)
#define TOTAL_MAX (UINT64_C(20) << 30)
#define DROP_JOBS_MAX 64    /* at once */
#define DROP_LOOK_MAX 10000 /* jobs looked at for that */
#define DROP_AGAIN_MS 1000  /* after one in vain */
#define PROBE_FILE "probe"
#define PROBE_BYTES 65536
#define PROBE_MS 1000
#define PROBE_MS_MAX 60000
#define KEEP_LOOK_MS 1000
#define KEEP_MS_MAX 30000 /* an end is not kept back longer than this without any output coming */

struct outspool {
    uint64_t attempt, job;
    uint32_t task;
    char node[NODE_NAME_MAX + 1];
    struct spool spool;
    bool open;
    bool lost;         /* bytes were dropped, or credit held back, while all were stuck */
    uint64_t total;    /* bytes noted */
    uint64_t counted;  /* of them, in its job's space */
    uint64_t credited; /* the agent may send up to here */
    Mu__AttemptReport *kept;
    int64_t moved_ms;
    TAILQ_ENTRY(outspool) used; /* while open: least recently used first */
    UT_hash_handle hh;
};

/* What the files of one job take. In the order in which jobs began to print. */
struct space {
    uint64_t job, bytes;
    UT_hash_handle hh;
};

struct outspools {
    struct head *head;
    int dirfd;
    struct space *spaces; /* by job */
    uint64_t used, limit; /* bytes of all of them */
    int64_t in_vain_ms;   /* when nothing could be dropped */
    struct outspool *by_attempt;
    TAILQ_HEAD(, outspool) opened;
    size_t open_count;
    struct error why; /* code not 0: stuck */
    int64_t probe_ms; /* from a failure to the next probe; doubles as long as they fail */
    int64_t well_ms;  /* when the last probe succeeded */
    struct event *look, *probe;
};

static void path_of(char out[64], uint64_t job, uint32_t task, uint64_t attempt)
{
    snprintf(out, 64, "%llu/%u.%llu", (unsigned long long)job, task, (unsigned long long)attempt);
}

/* ---- how much there is ---- */

static void space_add(struct outspools *all, uint64_t job, uint64_t bytes)
{
    struct space *space;
    HASH_FIND(hh, all->spaces, &job, sizeof job, space);
    if (!space) {
        space = xcalloc(1, sizeof *space);
        space->job = job;
        HASH_ADD(hh, all->spaces, job, sizeof space->job, space);
    }
    space->bytes += bytes;
    all->used += bytes;
}

static void space_remove(struct outspools *all, struct space *space)
{
    all->used -= space->bytes;
    HASH_DEL(all->spaces, space);
    free(space);
}

static bool job_over(const struct outspools *all, uint64_t id)
{
    const Mu__Job *job = core_job(all->head->core, id);
    return !job || job->state == MU__JOB_STATE__JOB_STATE_FINISHED ||
           job->state == MU__JOB_STATE__JOB_STATE_FAILED || job->state == MU__JOB_STATE__JOB_STATE_CANCELED;
}

/* Makes room: the outputs of the oldest jobs that have ended go. Those that run are bounded each. */
static void drop_oldest(struct outspools *all)
{
    struct space *space, *tmp;
    uint64_t goal = all->limit - all->limit / 16;
    int looked = 0, dropped = 0;
    if (all->used <= all->limit || clock_boot_ms() - all->in_vain_ms < DROP_AGAIN_MS)
        return;
    HASH_ITER (hh, all->spaces, space, tmp) {
        if (all->used <= goal || looked++ == DROP_LOOK_MAX || dropped == DROP_JOBS_MAX)
            break;
        if (!job_over(all, space->job))
            continue;
        outspools_job_gone(all, space->job); /* and its space */
        dropped++;
    }
    if (dropped)
        log_info("the outputs of %d old jobs were dropped: more than %llu MB are kept", dropped,
                 (unsigned long long)(all->limit >> 20));
    else
        all->in_vain_ms = clock_boot_ms();
}

/* ---- entries ---- */

static void close_file(struct outspools *all, struct outspool *o)
{
    if (!o->open)
        return;
    o->open = false;
    spool_close(&o->spool);
    TAILQ_REMOVE(&all->opened, o, used);
    all->open_count--;
}

static void kept_free(struct outspool *o)
{
    if (o->kept)
        mu__attempt_report__free_unpacked(o->kept, NULL);
    o->kept = NULL;
}

static void entry_free(struct outspools *all, struct outspool *o)
{
    close_file(all, o);
    kept_free(o);
    HASH_DEL(all->by_attempt, o); /* NOLINT(clang-analyzer-core.NullDereference): o is in the table */
    free(o);
}

/* The entry of an attempt whose first node is `node` and whose output comes here; NULL: there is none. */
static struct outspool *entry_of(struct outspools *all, uint64_t attempt, const char *node)
{
    struct outspool *o;
    HASH_FIND(hh, all->by_attempt, &attempt, sizeof attempt, o);
    if (o)
        return strcasecmp(o->node, node) ? NULL : o;
    const Mu__Attempt *a = core_attempt(all->head->core, attempt);
    if (!a || !a->n_nodes || strcasecmp(a->nodes[0]->node, node))
        return NULL;
    const Mu__Task *task = core_task(all->head->core, a->job_id, a->task_id);
    if (!task || (task->spec && *task->spec->stdout_path))
        return NULL;
    o = xcalloc(1, sizeof *o);
    o->attempt = attempt;
    o->job = a->job_id;
    o->task = a->task_id;
    snprintf(o->node, sizeof o->node, "%s", node);
    struct spool before; /* of an earlier head */
    char path[64];
    path_of(path, o->job, o->task, o->attempt);
    if (spool_open_read(&before, all->dirfd, path, NULL) == 0) {
        o->total = before.total;
        o->counted = o->total < FILE_BYTES_MAX ? o->total : FILE_BYTES_MAX;
        spool_close(&before);
    }
    HASH_ADD(hh, all->by_attempt, attempt, sizeof o->attempt, o);
    return o;
}

static int open_file(struct outspools *all, struct outspool *o, struct error *err)
{
    char path[64], folder[32];
    if (o->open) {
        TAILQ_REMOVE(&all->opened, o, used);
        TAILQ_INSERT_TAIL(&all->opened, o, used);
        return 0;
    }
    snprintf(folder, sizeof folder, "%llu", (unsigned long long)o->job);
    if (mkdirat(all->dirfd, folder, 0700) && errno != EEXIST)
        return error_sys(err, "cannot make folder " SPOOL_FOLDER "/%s", folder);
    path_of(path, o->job, o->task, o->attempt);
    if (spool_open(&o->spool, all->dirfd, path, SPOOL_HEAD_DEFAULT, SPOOL_TAIL_DEFAULT, err))
        return -1;
    o->open = true;
    TAILQ_INSERT_TAIL(&all->opened, o, used);
    if (++all->open_count > OPEN_MAX_FILES)
        close_file(all, TAILQ_FIRST(&all->opened));
    return 0;
}

/* ---- the stream ---- */

static void give_credit(struct outspools *all, struct nodelink *link, struct outspool *o)
{
    if (all->why.code) {
        o->lost = true;
        return;
    }
    o->credited = o->total + WINDOW;
    nodelink_credit(link, o->attempt, o->total, WINDOW);
}

void outspools_credit(struct outspools *outspools, struct nodelink *link, uint64_t attempt)
{
    struct outspool *o = entry_of(outspools, attempt, nodelink_name(link));
    if (o)
        give_credit(outspools, link, o);
}

static void release_kept(struct outspools *all, struct outspool *o)
{
    Mu__AttemptReport *report = o->kept;
    char node[NODE_NAME_MAX + 1];
    snprintf(node, sizeof node, "%s", o->node);
    o->kept = NULL;
    nodelink_report(all->head, node, report);
    mu__attempt_report__free_unpacked(report, NULL);
}

static void probe_soon(struct outspools *all)
{
    struct timeval tv = {.tv_sec = all->probe_ms / 1000, .tv_usec = (all->probe_ms % 1000) * 1000};
    event_add(all->probe, &tv);
}

static void stuck(struct outspools *all, struct outspool *o, const struct error *why)
{
    o->lost = true;
    close_file(all, o);
    if (all->why.code)
        return;
    error_set(&all->why, ERR_UNAVAILABLE, "outputs cannot be kept: %s", why->text);
    all->probe_ms =
        clock_boot_ms() - all->well_ms < PROBE_MS_MAX && all->probe_ms ? 2 * all->probe_ms : PROBE_MS;
    all->probe_ms = all->probe_ms < PROBE_MS_MAX ? all->probe_ms : PROBE_MS_MAX;
    log_error("output of task %llu.%u: %s; no output is taken until that is better",
              (unsigned long long)o->job, o->task, why->text);
    probe_soon(all);
}

/* Whether there is room, and the files that could not be written can be opened. */
static int probe(struct outspools *all, struct error *err)
{
    static const char bytes[PROBE_BYTES];
    struct outspool *o, *tmp;
    int rc = file_write(all->dirfd, PROBE_FILE, bytes, sizeof bytes, 0600, false, err);
    unlinkat(all->dirfd, PROBE_FILE, 0);
    int tried = 0;
    HASH_ITER (hh, all->by_attempt, o, tmp)
        if (rc == 0 && o->lost && tried++ < OPEN_MAX_FILES)
            rc = open_file(all, o, err);
    return rc;
}

static void on_probe(evutil_socket_t fd, short what, void *arg)
{
    struct outspools *all = arg;
    struct outspool *o, *tmp;
    struct error err;
    if (probe(all, &err)) {
        error_set(&all->why, ERR_UNAVAILABLE, "outputs cannot be kept: %s", err.text);
        all->probe_ms = 2 * all->probe_ms < PROBE_MS_MAX ? 2 * all->probe_ms : PROBE_MS_MAX;
        probe_soon(all);
        return;
    }
    log_info("output is taken again");
    all->why = (struct error){0};
    all->well_ms = clock_boot_ms();
    HASH_ITER (hh, all->by_attempt, o, tmp) {
        struct nodelink *link = o->lost ? nodelink_find(all->head->nodelinks, o->node) : NULL;
        o->lost = false;
        if (link)
            nodelink_resync(link);
    }
}

const char *outspools_error(const struct outspools *outspools)
{
    return outspools->why.code ? outspools->why.text : "";
}

void outspools_chunk(struct outspools *outspools, struct nodelink *link, const Mu__OutputChunk *chunk)
{
    struct error err;
    struct outspool *o = entry_of(outspools, chunk->attempt, nodelink_name(link));
    if (!o || chunk->data.len == 0)
        return; /* of an attempt that is over */
    if (chunk->offset > UINT64_MAX / 2)
        return;
    if (outspools->why.code) {
        o->lost = true;
        return;
    }
    if (open_file(outspools, o, &err) ||
        spool_write_at(&o->spool, chunk->offset, chunk->data.data, chunk->data.len, &err)) {
        stuck(outspools, o, &err);
        return;
    }
    o->total = o->spool.total;
    uint64_t there = o->total < FILE_BYTES_MAX ? o->total : FILE_BYTES_MAX;
    space_add(outspools, o->job, there - o->counted);
    o->counted = there;
    drop_oldest(outspools);
    o->moved_ms = clock_boot_ms();
    if (o->credited < o->total + WINDOW / 2)
        give_credit(outspools, link, o);
    waits_job(outspools->head->waits, o->job);
    if (o->kept && o->total >= o->kept->output_total)
        release_kept(outspools, o);
}

static Mu__AttemptReport *report_copy(const Mu__AttemptReport *report)
{
    size_t len = mu__attempt_report__get_packed_size(report);
    uint8_t *bytes = xmalloc(len + 1);
    mu__attempt_report__pack(report, bytes);
    Mu__AttemptReport *copy = mu__attempt_report__unpack(NULL, len, bytes);
    free(bytes);
    return copy;
}

bool outspools_keep_back(struct outspools *outspools, struct nodelink *link, const Mu__AttemptReport *report)
{
    if (report->phase < MU__ATTEMPT_PHASE__PHASE_ENDED || report->output_total == 0)
        return false;
    struct outspool *o = entry_of(outspools, report->attempt, nodelink_name(link));
    if (!o || o->total >= report->output_total)
        return false;
    if (!o->kept)
        o->moved_ms = clock_boot_ms();
    kept_free(o);
    o->kept = report_copy(report);
    struct timeval tv = {.tv_sec = KEEP_LOOK_MS / 1000};
    if (!event_pending(outspools->look, EV_TIMEOUT, NULL))
        event_add(outspools->look, &tv);
    return true;
}

static void on_look(evutil_socket_t fd, short what, void *arg)
{
    struct outspools *all = arg;
    struct outspool *o, *tmp;
    int64_t now = clock_boot_ms();
    bool more = false;
    HASH_ITER (hh, all->by_attempt, o, tmp) {
        if (!o->kept)
            continue;
        if (now - o->moved_ms > KEEP_MS_MAX) {
            log_warn("task %llu.%u ended on %s, and the rest of its output does not come",
                     (unsigned long long)o->job, o->task, o->node);
            release_kept(all, o);
        } else {
            more = true;
        }
    }
    if (more)
        event_add(all->look, &(struct timeval){.tv_sec = KEEP_LOOK_MS / 1000});
}

void outspools_link_gone(struct outspools *outspools, const char *node)
{
    struct outspool *o, *tmp;
    HASH_ITER (hh, outspools->by_attempt, o, tmp)
        if (o->kept && !strcasecmp(o->node, node))
            kept_free(o);
}

/* ---- reading ---- */

int outspool_read(struct outspools *outspools, const Mu__Task *task, uint32_t max, uint64_t *offset,
                  struct buf *data, uint64_t *total, struct error *err)
{
    struct spool s;
    struct error why;
    char path[64];
    uint64_t at = *offset, skipped;
    *total = 0;
    if (!task->attempt)
        return 0;
    path_of(path, task->job_id, task->id, task->attempt);
    if (spool_open_read(&s, outspools->dirfd, path, &why))
        return why.code == ERR_NOT_FOUND ? 0 : error_set(err, why.code, "%s", why.text);
    *total = s.total;
    ssize_t n = 0;
    for (bool first = true; data->len < max; first = false) {
        uint64_t before = at;
        n = spool_read(&s, &at, buf_reserve(data, max - data->len), max - data->len, &skipped, err);
        if (n <= 0 || (!first && skipped))
            break;
        if (first)
            *offset = before + skipped;
        buf_added(data, (size_t)n);
    }
    spool_close(&s);
    return n < 0 ? -1 : 0;
}

/* ---- life ---- */

void outspools_attempt_gone(struct outspools *outspools, uint64_t attempt)
{
    struct outspool *o;
    HASH_FIND(hh, outspools->by_attempt, &attempt, sizeof attempt, o);
    if (o)
        entry_free(outspools, o);
}

void outspools_job_gone(struct outspools *outspools, uint64_t job)
{
    struct error err;
    char folder[32];
    struct space *space;
    HASH_FIND(hh, outspools->spaces, &job, sizeof job, space);
    if (space)
        space_remove(outspools, space);
    snprintf(folder, sizeof folder, "%llu", (unsigned long long)job);
    if (file_remove_tree(outspools->dirfd, folder, &err))
        log_warn("output of job %s: %s", folder, err.text);
}

void outspools_reset(struct outspools *outspools)
{
    struct outspool *o, *tmp;
    HASH_ITER (hh, outspools->by_attempt, o, tmp)
        entry_free(outspools, o);
}

static uint64_t default_limit(int dirfd)
{
    struct statvfs disk;
    uint64_t fifth = fstatvfs(dirfd, &disk) ? TOTAL_MAX : (uint64_t)disk.f_blocks * disk.f_frsize / 5;
    return fifth < TOTAL_MAX ? fifth : TOTAL_MAX;
}

struct outspools *outspools_create(struct head *head, struct error *err)
{
    struct outspools *all = xcalloc(1, sizeof *all);
    all->head = head;
    TAILQ_INIT(&all->opened);
    all->look = event_new(head->base, -1, 0, on_look, all);
    all->probe = event_new(head->base, -1, 0, on_probe, all);
    if (mkdirat(head->dirfd, SPOOL_FOLDER, 0700) && errno != EEXIST) {
        all->dirfd = -1;
        error_sys(err, "cannot make folder %s/" SPOOL_FOLDER, head->dir);
    } else {
        all->dirfd = openat(head->dirfd, SPOOL_FOLDER, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (all->dirfd < 0)
            error_sys(err, "cannot open folder %s/" SPOOL_FOLDER, head->dir);
    }
    uint32_t mb = head->config.spool_mb;
    all->limit = mb ? (uint64_t)mb << 20 : default_limit(all->dirfd);
    all->in_vain_ms = -DROP_AGAIN_MS;
    if (all->dirfd >= 0 && all->look && all->probe)
        return all;
    outspools_destroy(all);
    return NULL;
}

/* What an earlier head has kept of this job. */
static void count_folder(struct outspools *all, uint64_t job, const char *name)
{
    int fd = openat(all->dirfd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    struct stat st;
    uint64_t bytes = 0;
    for (struct dirent *e; dir && (e = readdir(dir));)
        if (*e->d_name != '.' && fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0)
            bytes += (uint64_t)st.st_blocks * 512;
    if (bytes)
        space_add(all, job, bytes);
    if (dir)
        closedir(dir);
    else if (fd >= 0)
        close(fd);
}

static int by_job(const struct space *a, const struct space *b)
{
    return a->job < b->job ? -1 : a->job > b->job;
}

void outspools_sweep(struct outspools *outspools)
{
    int fd = openat(outspools->dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (!dir) {
        if (fd >= 0)
            close(fd);
        return;
    }
    for (struct dirent *e; (e = readdir(dir));) {
        char *end;
        uint64_t job = strtoull(e->d_name, &end, 10);
        if (!job || *end)
            continue;
        if (core_job(outspools->head->core, job))
            count_folder(outspools, job, e->d_name);
        else
            outspools_job_gone(outspools, job);
    }
    closedir(dir);
    HASH_SORT(outspools->spaces, by_job);
    drop_oldest(outspools);
}

void outspools_destroy(struct outspools *outspools)
{
    if (!outspools)
        return;
    struct space *space, *tmp;
    outspools_reset(outspools);
    HASH_ITER (hh, outspools->spaces, space, tmp)
        space_remove(outspools, space);
    if (outspools->dirfd >= 0)
        close(outspools->dirfd);
    if (outspools->look)
        event_free(outspools->look);
    if (outspools->probe)
        event_free(outspools->probe);
    free(outspools);
}
