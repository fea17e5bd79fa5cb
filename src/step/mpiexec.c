/* mpiexec.c - main program: MS-MPI's command line, and the step behind it.
 *
 * Inside an allocation MUSTER_STEP names the socket where muster-keeper starts a muster-step for
 * each connection. Outside the step lives in this process, and no daemon is needed.
 */
#include "base/mem.h"
#include "step/conn.h"
#include "step/front.h"
#include "step/options.h"
#include "step/step.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

extern char **environ;

struct run {
    struct event_base *base;
    struct front *front;
    struct step *step; /* outside an allocation */
    struct conn *conn; /* inside */
    int code;
    bool over;
};

static void step_up(void *arg, Mu__StepFrame *frame)
{
    struct run *run = arg;
    front_frame(run->front, frame);
}

static void step_over(void *arg)
{
}

static void front_down(void *arg, Mu__StepFrame *frame)
{
    struct run *run = arg;
    if (run->step)
        step_frame(run->step, frame);
    else if (run->conn)
        conn_send(run->conn, frame);
}

static void front_over(void *arg, int code)
{
    struct run *run = arg;
    run->code = code;
    run->over = true;
    event_base_loopbreak(run->base);
}

static void conn_frame(void *arg, Mu__StepFrame *frame)
{
    struct run *run = arg;
    front_frame(run->front, frame);
}

static void conn_closed(void *arg, const struct error *err)
{
    struct run *run = arg;
    run->conn = NULL;
    front_lost(run->front, "step server killed: its connection was closed before the step had ended");
}

static const struct conn_ops conn_ops = {.frame = conn_frame, .closed = conn_closed};

static int connect_step(const char *path, struct error *err)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof a.sun_path)
        return error_set(err, ERR_LIMIT, "MUSTER_STEP: path longer than %zu bytes", sizeof a.sun_path - 1);
    strcpy(a.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a)) {
        error_sys(err, "cannot reach the task's keeper at %s (MUSTER_STEP)", path);
        if (fd >= 0)
            close(fd);
        return -1;
    }
    return fd;
}

static int begin(struct run *run, const Mu__StepRequest *request, struct error *err)
{
    const char *path = getenv("MUSTER_STEP");
    if (path && *path) {
        int fd = connect_step(path, err);
        if (fd < 0)
            return -1;
        run->conn = conn_new(run->base, fd, CONN_PLAIN, NULL, 0, NULL, 0, &conn_ops, run, err);
        if (!run->conn)
            return -1;
    } else {
        struct step_config config = {.base = run->base, .up = step_up, .over = step_over, .arg = run};
        run->step = step_new(&config);
    }
    Mu__StepFrame frame = MU__STEP_FRAME__INIT;
    frame.kind_case = MU__STEP_FRAME__KIND_REQUEST;
    frame.request = (Mu__StepRequest *)request;
    front_down(run, &frame);
    return 0;
}

/* A launcher started with closed standard descriptors must not hand sockets out as them. */
static void open_standard_descriptors(void)
{
    int fd;
    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= 2);
    if (fd > 2)
        close(fd);
}

static int fail(const struct error *err, int code)
{
    fprintf(stderr, "mpiexec: %s\n", err->text);
    return code;
}

int main(int argc, char **argv)
{
    struct error err;
    struct options options;
    char cwd[PATH_MAX];
    open_standard_descriptors();
    if (!getcwd(cwd, sizeof cwd)) {
        error_sys(&err, "the current folder is gone");
        return fail(&err, 255);
    }
    if (options_parse(&options, argc, argv, environ, cwd, &err))
        return fail(&err, 2);
    if (options.help || options.version) {
        struct buf text = BUF_INIT;
        if (options.help)
            options_help(&text);
        else
            buf_addf(&text, "mpiexec (Muster) %s\n", MUSTER_VERSION);
        fputs(buf_str(&text), stdout);
        buf_free(&text);
        options_free(&options);
        return fflush(stdout) ? 1 : 0;
    }
    struct run run = {.base = event_base_new()};
    struct front_config config = {.base = run.base,
                                  .lines = options.lines,
                                  .verbose = options.request.verbose,
                                  .down = front_down,
                                  .over = front_over,
                                  .arg = &run};
    run.front = front_new(&config);
    if (begin(&run, &options.request, &err)) {
        front_free(run.front);
        return fail(&err, 255);
    }
    if (!run.over)
        event_base_dispatch(run.base);
    step_free(run.step);
    conn_close(run.conn);
    front_free(run.front);
    options_free(&options);
    event_base_free(run.base);
    _exit(run.code & 0xff); /* past libpmix's threads */
}
