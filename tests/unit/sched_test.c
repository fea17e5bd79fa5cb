/* sched_test.c - decisions of the scheduler on small clusters, and on many random ones.
 *
 * Jobs and tasks are arrays here; the ops write down what was decided.
 */
#include "base/mem.h"
#include "sched/sched.h"
#include "tap.h"

#define MAX 64

static struct sched *s;
static struct sched_node nodes[MAX];
static char names[MAX][16];
static struct sched_job jobs[MAX];
static struct sched_task tasks[MAX][8];
static size_t n_nodes, n_jobs;
static uint64_t next_attempt;
static struct live {
    struct sched_task *task;
    uint64_t attempt;
    size_t n;
    struct sched_node *node[MAX];
    uint32_t cores[MAX][8], count[MAX];
} lives[256];
static size_t n_lives;
static struct buf log_text = BUF_INIT;

static void on_started(void *arg, struct sched_job *job)
{
    buf_addf(&log_text, "job%d ", (int)job->id);
}

static void on_quiet(void *arg, struct sched_job *job)
{
}

static void on_stuck(void *arg, struct sched_job *job)
{
    buf_addf(&log_text, "stuck%d ", (int)job->id);
    sched_job_queue(s, job);
}

static uint64_t on_task(void *arg, struct sched_task *task, const struct sched_place *places, size_t n)
{
    struct live *l = &lives[n_lives++];
    *l = (struct live){.task = task, .attempt = ++next_attempt, .n = n};
    buf_addf(&log_text, "%d.%u@", (int)task->job->id, task->id);
    for (size_t i = 0; i < n; i++) {
        l->node[i] = places[i].node;
        l->count[i] = places[i].n;
        memcpy(l->cores[i], places[i].cores, places[i].n * sizeof *places[i].cores);
        buf_addf(&log_text, "%s%s:%u", i ? "," : "", places[i].node->name, places[i].n);
    }
    buf_addc(&log_text, ' ');
    return l->attempt;
}

static void begin(size_t count, uint32_t cores)
{
    static const struct sched_ops ops = {on_started, on_quiet, on_quiet, on_stuck, on_task};
    memset(nodes, 0, sizeof nodes);
    memset(jobs, 0, sizeof jobs);
    memset(tasks, 0, sizeof tasks);
    n_nodes = count, n_jobs = n_lives = 0, next_attempt = 0;
    s = sched_create(&ops, NULL);
    for (size_t i = 0; i < count; i++) {
        snprintf(names[i], sizeof names[i], "n%zu", i + 1);
        sched_node_add(s, &nodes[i], names[i], cores);
        sched_node_avail(s, &nodes[i], AVAIL_OPEN);
    }
    buf_reset(&log_text);
}

static const char *run(void)
{
    static char text[2048];
    struct error err;
    sched_run(s);
    snprintf(text, sizeof text, "%s", buf_str(&log_text));
    buf_reset(&log_text);
    for (size_t i = 0; i < n_nodes; i++)
        if (sched_check_node(s, &nodes[i], &err))
            ok(false, "%s", err.text);
    for (size_t i = 0; i < n_jobs; i++)
        if (jobs[i].class && sched_check_job(s, &jobs[i], &err))
            ok(false, "%s", err.text);
    return text;
}

static struct sched_job *job(bool by_node, uint32_t min, uint32_t max, uint32_t priority, char *group)
{
    struct sched_job *j = &jobs[n_jobs];
    j->id = j->order = ++n_jobs;
    j->node_units = by_node;
    j->min = min;
    j->max = max;
    j->priority = priority;
    sched_job_add(s, j, &group, group ? 1 : 0, NULL, 0);
    return j;
}

static void task(struct sched_job *j, uint32_t min, uint32_t max)
{
    struct sched_task *t = tasks[j->id - 1];
    while (t->job)
        t++;
    *t = (struct sched_task){.job = j, .id = (uint32_t)(t - tasks[j->id - 1]) + 1, .min = min, .max = max};
    t->order = t->id;
    sched_task_wait(s, t);
}

static struct sched_job *queue(bool by_node, uint32_t min, uint32_t max, uint32_t priority, char *group)
{
    struct sched_job *j = job(by_node, min, max, priority, group);
    task(j, min ? min : 1, max ? max : min ? min : 1);
    sched_job_queue(s, j);
    return j;
}

/* The live attempt of task `id` of the job is over. */
static void over(struct sched_job *j, uint32_t id)
{
    for (size_t i = 0; i < n_lives; i++) {
        struct live *l = &lives[i];
        if (l->task->job != j || l->task->id != id)
            continue;
        for (size_t k = 0; k < l->n; k++)
            sched_vacate(s, &l->task->job[0], l->node[k], l->cores[k], l->count[k], l->attempt);
        lives[i] = lives[--n_lives];
        sched_attempt_over(s, j);
        return;
    }
    ok(false, "job %d has no attempt of task %u", (int)j->id, id);
}

static void finish(struct sched_job *j)
{
    over(j, 1);
    sched_job_remove(s, j);
}

static void end(void)
{
    while (n_lives) {
        struct live *l = &lives[n_lives - 1];
        over(l->task->job, l->task->id);
    }
    for (size_t i = 0; i < n_jobs; i++) {
        for (size_t k = 0; k < 8; k++)
            if (tasks[i][k].job)
                sched_task_unwait(s, &tasks[i][k]);
        if (jobs[i].class)
            sched_job_remove(s, &jobs[i]);
    }
    sched_destroy(s);
    for (size_t i = 0; i < n_nodes; i++)
        sched_node_clear(&nodes[i]);
}

static const char *why(struct sched_job *j)
{
    static char text[512];
    struct buf b = BUF_INIT;
    sched_explain(s, j, &b);
    snprintf(text, sizeof text, "%s", buf_str(&b));
    buf_free(&b);
    return text;
}

static void test_order(void)
{
    begin(2, 2);
    struct sched_job *first = queue(true, 2, 2, 2000, NULL);
    struct sched_job *low = queue(false, 1, 1, 1000, NULL);
    struct sched_job *big = queue(true, 2, 2, 2000, NULL);
    struct sched_job *high = queue(false, 1, 1, 3000, NULL);
    is_str(run(), "job4 4.1@n1:1 ", "the highest priority first; nothing passes who waits for nodes");
    is_str(why(first), "needs 2 nodes; 2 online; 1 free", "who waits first is told what is missing");
    is_str(why(big), "waits behind job 1 (submitted earlier)", "who is behind is told behind whom");
    is_str(why(low), "waits behind job 1 (higher priority)", "and why");
    is_str(why(high), "", "who runs does not wait");
    finish(high);
    is_str(run(), "job1 1.1@n1:2,n2:2 ", "then the first of those with equal priority");
    finish(first);
    is_str(run(), "job3 3.1@n1:2,n2:2 ", "then the next");
    finish(big);
    is_str(run(), "job2 2.1@n1:1 ", "the lowest last");
    end();
}

static void test_fit(void)
{
    begin(3, 4);
    queue(false, 3, 3, 2000, NULL);
    is_str(run(), "job1 1.1@n1:3 ", "cores are taken on one node where one suffices");
    queue(false, 1, 1, 2000, NULL);
    is_str(run(), "job2 2.1@n1:1 ", "on the one where they fit best");
    queue(false, 6, 6, 2000, NULL);
    is_str(run(), "job3 3.1@n2:4,n3:2 ", "else on few");
    queue(false, 2, 9, 2000, NULL);
    is_str(run(), "job4 4.1@n3:2 ", "a range takes what there is");
    struct sched_job *j = queue(false, 1, 1, 2000, NULL);
    is_str(run(), "", "a full cluster starts nothing");
    is_str(why(j), "needs 1 core; 3 online; 0 of 12 cores free", "and says so");
    end();
}

static void test_groups(void)
{
    begin(4, 1);
    struct sched_node *red[] = {&nodes[0], &nodes[1]}, *blue[] = {&nodes[1], &nodes[2]};
    sched_group_set(s, "Red", red, 2);
    sched_group_set(s, "Blue", blue, 2);
    struct sched_job *a = queue(true, 2, 2, 2000, "red");
    is_str(run(), "job1 1.1@n1:1,n2:1 ", "a group's nodes are used");
    struct sched_job *b = queue(true, 2, 2, 2000, "BLUE");
    queue(true, 1, 1, 2000, "red");
    struct sched_node *rest[] = {&nodes[3]};
    sched_group_set(s, "rest", rest, 1);
    queue(true, 1, 1, 2000, "rest");
    is_str(run(), "job4 4.1@n4:1 ", "who cannot compete for the same nodes passes");
    is_str(why(b), "needs 2 nodes in Blue; 2 online; 1 free", "the reason names the group as it was written");
    sched_node_avail(s, &nodes[2], AVAIL_OFFLINE);
    is_str(why(b), "needs 2 nodes in Blue; 1 online, 1 offline; 0 free", "and what is not online");
    sched_node_avail(s, &nodes[2], AVAIL_OPEN);
    finish(a);
    is_str(run(), "job2 2.1@n2:1,n3:1 job3 3.1@n1:1 ", "first who waited first, then who still fits");
    struct sched_candidates c;
    char *both[] = {"red", "blue"};
    sched_candidates(s, both, 2, NULL, 0, &c);
    is_int(c.nodes, 1, "several groups: what is in all of them");
    sched_candidates_end(s, &c);
    end();
}

static void test_grow_and_shrink(void)
{
    begin(2, 2);
    struct sched_job *blocker = queue(false, 3, 3, 2000, NULL);
    run();
    struct sched_job *many = job(false, 1, 3, 2000, NULL);
    for (int i = 0; i < 5; i++)
        task(many, 1, 1);
    sched_job_queue(s, many);
    is_str(run(), "job2 2.1@n2:1 ", "a job starts with its minimum");
    struct sched_job *later = queue(false, 1, 1, 2000, NULL);
    is_str(run(), "", "nothing is free for the next");
    finish(blocker);
    is_str(run(), "2.2@n1:1 2.3@n1:1 job3 3.1@n2:1 ", "who runs grows to its maximum before others start");
    over(many, 1);
    is_str(run(), "2.4@n2:1 ", "its tasks follow in the cores it holds");
    over(many, 2);
    run();
    over(many, 3);
    run();
    is_int(many->held_cores, 2, "cores that no task of it can use are given back");
    (void)later;
    end();
}

static void test_stuck(void)
{
    begin(2, 1);
    struct sched_job *j = job(true, 1, 2, 2000, NULL);
    task(j, 2, 2);
    task(j, 2, 2);
    sched_job_queue(s, j);
    is_str(run(), "job1 1.1@n1:1,n2:1 ", "a job starts with enough for the largest of its tasks");
    sched_node_avail(s, &nodes[1], AVAIL_UNREACHABLE);
    over(j, 1);
    is_str(run(), "stuck1 ", "what can never start in what is left goes back to the queue");
    is_int(j->held_cores, 0, "and holds nothing");
    is_str(why(j), "needs 2 nodes; 1 online, 1 unreachable; 1 free", "with the reason");
    sched_node_avail(s, &nodes[1], AVAIL_OPEN);
    is_str(run(), "job1 1.2@n1:1,n2:1 ", "until its nodes are back");
    end();
}

static void test_required(void)
{
    begin(3, 2);
    struct sched_node *third[] = {&nodes[2]};
    struct sched_job *j = job(false, 2, 2, 2000, NULL);
    tasks[0][0] =
        (struct sched_task){.job = j, .id = 1, .min = 2, .max = 2, .required = third, .n_required = 1};
    sched_task_wait(s, &tasks[0][0]);
    sched_job_queue(s, j);
    is_str(run(), "job1 1.1@n3:2 ", "required nodes are among those of the task");
    end();
}

static void test_exclusive(void)
{
    begin(2, 2);
    queue(false, 1, 1, 2000, NULL);
    run();
    struct sched_job *j = job(false, 1, 1, 2000, NULL);
    j->exclusive = true;
    task(j, 1, 1);
    sched_job_queue(s, j);
    is_str(run(), "job2 2.1@n2:1 ", "an exclusive job takes a node of its own");
    struct sched_job *k = queue(false, 2, 2, 2000, NULL);
    is_str(run(), "", "where no other gets in");
    (void)k;
    end();
}

/* Random clusters: after each run, whoever is first in its queue must really not fit. */
static void test_random(void)
{
    unsigned seed = 7;
    int wrong = 0;
    for (int round = 0; round < 60; round++) {
        begin(5, 3);
        for (int step = 0; step < 60 && n_jobs < MAX; step++) {
            int what = (int)((seed = seed * 1103515245 + 12345) >> 16) % 6;
            unsigned r = (seed = seed * 1103515245 + 12345) >> 16;
            if (what < 3)
                queue(r & 1, 1 + r / 2 % 4, 1 + r / 2 % 4 + r / 8 % 3, 2000 + r / 32 % 2, NULL);
            else if (what == 3)
                sched_node_avail(s, &nodes[r % 5], r / 8 % 2 ? AVAIL_OPEN : AVAIL_UNREACHABLE);
            else if (n_lives)
                finish(lives[r % n_lives].task->job);
            run();
            struct sched_job *head = NULL;
            for (size_t i = 0; i < n_jobs; i++)
                if (jobs[i].queued && (!head || jobs[i].priority > head->priority))
                    head = &jobs[i];
            uint32_t whole = 0, cores = 0;
            for (size_t i = 0; i < 5; i++)
                if (nodes[i].avail == AVAIL_OPEN)
                    whole += nodes[i].free == 3, cores += nodes[i].free;
            wrong += head && head->min <= (head->node_units ? whole : cores);
        }
        end();
    }
    is_int(wrong, 0, "the first in the queue never waits for what is there");
}

int main(void)
{
    test_order();
    test_fit();
    test_groups();
    test_grow_and_shrink();
    test_stuck();
    test_required();
    test_exclusive();
    test_random();
    buf_free(&log_text);
    return tap_done();
}
