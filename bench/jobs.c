/* jobs.c - the parts of bench/jobs that must be fast: a pipelined client, a marker, the machine's ceiling.
 *
 *   jobs_bench rate SOCKET N        N jobs of /bin/true over one connection, all sent before the first reply
 *                                   is read; prints jobs/s from first submission to last completion, and the
 *                                   seconds until the last submission was acknowledged (durable)
 *   jobs_bench latency SOCKET N FILE   N jobs one after the other, each `jobs_bench mark FILE`; prints the
 *                                   median milliseconds from before the request is sent to the first line
 *                                   of the job's main()
 *   jobs_bench mark FILE            writes the time of its start to FILE
 *   jobs_bench ceiling N LOOPS      N times spawn and wait for `bash -c /bin/true`, in LOOPS processes;
 * prints how many a second
 */
#include "base/clock.h"
#include "base/mem.h"
#include "wire/link.h"

#include <fcntl.h>
#include <inttypes.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define REPLY_MS 60000
#define COUNT_MAX 10000

extern char **environ;

static int die(const char *what, const struct error *err)
{
    fprintf(stderr, "jobs_bench: %s: %s\n", what, err->text);
    exit(1);
}

static void nap_ms(int ms)
{
    struct timespec t = {ms / 1000, (ms % 1000) * 1000000L};
    nanosleep(&t, NULL);
}

/* Queues a job of one core and one task. */
static void submit(struct client *c, char *command_line)
{
    struct error err;
    Mu__Request request = MU__REQUEST__INIT;
    Mu__JobCreate create = MU__JOB_CREATE__INIT;
    Mu__JobSpec spec = MU__JOB_SPEC__INIT;
    Mu__TaskSpec task = MU__TASK_SPEC__INIT, *tasks[] = {&task};
    spec.priority = 2000;
    spec.min_units = spec.max_units = 1;
    task.command_line = command_line;
    task.work_dir = "/";
    create.spec = &spec;
    create.tasks = tasks;
    create.n_tasks = 1;
    create.submit = true;
    request.kind_case = MU__REQUEST__KIND_JOB_CREATE;
    request.job_create = &create;
    if (client_send(c, &request, &err) < 0)
        die("submission", &err);
}

static Mu__Reply *receive(struct client *c)
{
    struct error err;
    Mu__Reply *reply;
    if (client_receive(c, REPLY_MS, &reply, &err) < 0)
        die("reply", &err);
    if (reply->error) {
        fprintf(stderr, "jobs_bench: refused: %s\n", reply->error->text);
        exit(1);
    }
    return reply;
}

static uint64_t receive_job(struct client *c)
{
    Mu__Reply *reply = receive(c);
    uint64_t id = reply->job->info->job->id;
    client_reply_free(reply);
    return id;
}

/* How many jobs the head has in `state`. */
static uint64_t jobs_in(struct client *c, Mu__JobState state)
{
    struct error err;
    Mu__Request request = MU__REQUEST__INIT;
    Mu__JobList list = MU__JOB_LIST__INIT;
    Mu__Reply *reply;
    list.states = &state;
    list.n_states = 1;
    list.limit = 1;
    request.kind_case = MU__REQUEST__KIND_JOB_LIST;
    request.job_list = &list;
    if (client_call(c, &request, REPLY_MS, &reply, &err) < 0)
        die("list", &err);
    uint64_t total = reply->jobs->total;
    client_reply_free(reply);
    return total;
}

static bool all_done(struct client *c)
{
    struct error err;
    Mu__Request request = MU__REQUEST__INIT;
    Mu__StatusRequest status = MU__STATUS_REQUEST__INIT;
    Mu__Reply *reply;
    request.kind_case = MU__REQUEST__KIND_STATUS;
    request.status = &status;
    if (client_call(c, &request, REPLY_MS, &reply, &err) < 0)
        die("status", &err);
    bool done = !reply->status->jobs_queued && !reply->status->jobs_running;
    client_reply_free(reply);
    return done;
}

static int rate(const char *socket_path, int count)
{
    struct error err;
    struct client *c = client_open(socket_path, REPLY_MS, &err);
    if (!c)
        die("head", &err);
    uint64_t before = jobs_in(c, MU__JOB_STATE__JOB_STATE_FINISHED);
    int64_t start = clock_boot_us();
    for (int i = 0; i < count; i++)
        submit(c, "/bin/true");
    if (client_flush(c, &err) < 0)
        die("submission", &err);
    for (int i = 0; i < count; i++)
        receive_job(c);
    int64_t acknowledged = clock_boot_us();
    while (!all_done(c))
        nap_ms(5);
    int64_t end = clock_boot_us();
    uint64_t finished = jobs_in(c, MU__JOB_STATE__JOB_STATE_FINISHED) - before;
    client_close(c);
    if (finished != (uint64_t)count) {
        fprintf(stderr, "jobs_bench: %" PRIu64 " of %d jobs finished well\n", finished, count);
        return 1;
    }
    printf("%.1f %.3f\n", count * 1e6 / (double)(end - start), (double)(acknowledged - start) / 1e6);
    return 0;
}

/* ---- latency of one ---- */
static int mark(const char *file)
{
    char text[32], name[4096];
    int n = snprintf(text, sizeof text, "%" PRId64 "\n", clock_boot_us());
    snprintf(name, sizeof name, "%s.new", file);
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0 || write(fd, text, (size_t)n) != n || rename(name, file) < 0) {
        perror(file);
        return 1;
    }
    return 0;
}

static int64_t mark_wait(const char *file)
{
    char text[32] = "";
    for (int tries = 0; tries < 30000; tries++, nap_ms(1)) {
        int fd = open(file, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            continue;
        if (read(fd, text, sizeof text - 1) <= 0)
            text[0] = 0;
        close(fd);
        unlink(file);
        return strtoll(text, NULL, 10);
    }
    fprintf(stderr, "jobs_bench: %s does not appear\n", file);
    exit(1);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int latency(const char *socket_path, int count, const char *file)
{
    struct error err;
    char self[4096], *line;
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    struct client *c = client_open(socket_path, REPLY_MS, &err);
    if (!c || n < 0)
        die("head", &err);
    self[n] = 0;
    line = xasprintf("%s mark %s", self, file);
    double *ms = xcalloc((size_t)count, sizeof *ms);
    for (int i = 0; i < count; i++) {
        int64_t start = clock_boot_us();
        submit(c, line);
        if (client_flush(c, &err) < 0)
            die("submission", &err);
        receive_job(c);
        ms[i] = (double)(mark_wait(file) - start) / 1e3;
        while (!all_done(c))
            nap_ms(1);
    }
    qsort(ms, (size_t)count, sizeof *ms, compare);
    printf("%.3f\n", ms[count / 2]);
    free(ms);
    free(line);
    client_close(c);
    return 0;
}

/* ---- what the machine can do ---- */
static void spawn_loop(int count)
{
    char *argv[] = {"bash", "-c", "/bin/true", NULL};
    for (int i = 0; i < count; i++) {
        pid_t pid;
        int status;
        if (posix_spawn(&pid, "/bin/bash", NULL, NULL, argv, environ) || waitpid(pid, &status, 0) < 0 ||
            status)
            _exit(1);
    }
}

static int ceiling(int count, int loops)
{
    int64_t start = clock_boot_us();
    int bad = 0, status;
    for (int i = 0; i < loops; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            spawn_loop(count / loops);
            _exit(0);
        }
        bad |= pid < 0;
    }
    while (wait(&status) > 0)
        bad |= status;
    printf("%.1f\n", count / loops * loops * 1e6 / (double)(clock_boot_us() - start));
    return bad != 0;
}

int main(int argc, char **argv)
{
    int count = argc > 3 ? atoi(argv[3]) : 0;
    if (argc == 3 && !strcmp(argv[1], "mark"))
        return mark(argv[2]);
    if (argc == 4 && !strcmp(argv[1], "ceiling") && atoi(argv[2]) > 0 && count > 0)
        return ceiling(atoi(argv[2]), count);
    if (count > 0 && count <= COUNT_MAX && argc == 4 && !strcmp(argv[1], "rate"))
        return rate(argv[2], count);
    if (count > 0 && count <= COUNT_MAX && argc == 5 && !strcmp(argv[1], "latency"))
        return latency(argv[2], count, argv[4]);
    fprintf(stderr,
            "usage: jobs_bench rate SOCKET N | latency SOCKET N FILE | mark FILE | ceiling N LOOPS\n");
    return 2;
}
