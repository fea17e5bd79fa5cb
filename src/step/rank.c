/* rank.c - one process of the step on this node.
 *
 * The zombie of an ended rank is kept until rank_reap(): while it is there its number cannot be
 * given to another process, so signals to its group can only hit its own children.
 */
#include "step/rank.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define COMM_WAITING_MAX (4u * 1024 * 1024) /* answers a rank does not read */
#define COMM_READS 64 /* in one turn of the loop: more than a socket holds, less than keeps others out */

static void close_end(int *fd, struct event **event)
{
    if (*event)
        event_free(*event);
    *event = NULL;
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* ---- output ---- */

static void on_output(struct rank *r, int i)
{
    static char bytes[RANK_READ_MAX]; /* one loop, one thread */
    ssize_t n = read(r->out[i].fd, bytes, sizeof bytes);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        close_end(&r->out[i].fd, &r->out[i].event);
        r->ops->output(r->arg, r, i + 1, NULL, 0);
        return;
    }
    r->ops->output(r->arg, r, i + 1, bytes, (size_t)n);
}

static void on_stdout(evutil_socket_t fd, short what, void *arg)
{
    on_output(arg, 0);
}

static void on_stderr(evutil_socket_t fd, short what, void *arg)
{
    on_output(arg, 1);
}

void rank_pause(struct rank *r, bool pause)
{
    if (r->paused == pause)
        return;
    r->paused = pause;
    for (int i = 0; i < 2; i++) {
        if (r->out[i].event && pause)
            event_del(r->out[i].event);
        else if (r->out[i].event)
            event_add(r->out[i].event, NULL);
    }
}

/* ---- input ---- */

static void on_input_room(evutil_socket_t fd, short what, void *arg)
{
    struct rank *r = arg;
    while (r->in_data.len) {
        ssize_t n = write(fd, r->in_data.data, r->in_data.len);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            break;
        /* It has closed its stdin: what else comes is taken and thrown away. */
        size_t taken = n < 0 ? r->in_data.len : (size_t)n;
        if (n < 0)
            r->in_ended = true;
        buf_consume(&r->in_data, taken);
        r->ops->input_taken(r->arg, r, taken);
    }
    if (!r->in_data.len && r->in_ended)
        close_end(&r->in.fd, &r->in.event);
    else if (r->in_data.len)
        event_add(r->in.event, NULL);
}

void rank_input(struct rank *r, const void *data, size_t len)
{
    if (r->in.fd < 0) {
        if (len)
            r->ops->input_taken(r->arg, r, len);
        return;
    }
    if (len)
        buf_add(&r->in_data, data, len);
    else
        r->in_ended = true;
    on_input_room(r->in.fd, EV_WRITE, r);
}

/* ---- PMI-1 ---- */

static void comm_flush(struct rank *r)
{
    while (r->comm.fd >= 0 && r->comm_data.len) {
        ssize_t n = send(r->comm.fd, r->comm_data.data, r->comm_data.len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno != EAGAIN)
            buf_reset(&r->comm_data); /* it is gone: its end will be seen */
        if (n < 0)
            break;
        buf_consume(&r->comm_data, (size_t)n);
    }
}

static void pmi_send(void *arg, const char *data, size_t len)
{
    struct rank *r = arg;
    if (r->comm_data.len < COMM_WAITING_MAX)
        buf_add(&r->comm_data, data, len);
    comm_flush(r);
}

static void pmi_init(void *arg)
{
    struct rank *r = arg;
    rank_set_family(r, FAMILY_PMI1);
}

static void pmi_barrier(void *arg)
{
    struct rank *r = arg;
    r->ops->barrier(r->arg, r);
}

static void pmi_finalize(void *arg)
{
    struct rank *r = arg;
    r->finalized = true;
}

static void pmi_abort(void *arg, int code, const char *text)
{
    struct rank *r = arg;
    r->ops->abort(r->arg, r, code, text);
}

static const struct pmi1_ops pmi_ops = {
    .send = pmi_send,
    .init = pmi_init,
    .barrier = pmi_barrier,
    .finalize = pmi_finalize,
    .abort = pmi_abort,
};

static void on_comm(evutil_socket_t fd, short what, void *arg)
{
    struct rank *r = arg;
    char bytes[16 * 1024];
    for (int i = 0; i < COMM_READS; i++) {
        ssize_t n = recv(r->comm.fd, bytes, sizeof bytes, MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (n <= 0) {
            close_end(&r->comm.fd, &r->comm.event);
            if (pmi1_begun(r->pmi) && !r->finalized)
                r->ops->hung_up(r->arg, r);
            return;
        }
        struct error err;
        if (pmi1_input(r->pmi, bytes, (size_t)n, &err)) {
            close_end(&r->comm.fd, &r->comm.event);
            r->ops->broken(r->arg, r, &err);
            return;
        }
        if ((size_t)n < sizeof bytes)
            break;
    }
    comm_flush(r);
}

void rank_set_family(struct rank *r, enum family family)
{
    if (r->family == family)
        return;
    r->family = family;
    r->ops->family(r->arg, r, family);
}

/* ---- start and end ---- */

static void on_exit_event(evutil_socket_t fd, short what, void *arg)
{
    struct rank *r = arg;
    siginfo_t info = {0};
    if (waitid(P_PIDFD, (id_t)fd, &info, WEXITED | WNOHANG | WNOWAIT) || info.si_pid == 0)
        return;
    if (r->comm.fd >= 0)
        on_comm(r->comm.fd, EV_READ, r); /* its last words: finalize, abort */
    close_end(&r->exit.fd, &r->exit.event);
    r->exited = true;
    r->status = info.si_code == CLD_EXITED
                    ? (info.si_status & 0xff) << 8
                    : (info.si_status & 0x7f) | (info.si_code == CLD_DUMPED ? 0x80 : 0);
    r->ops->exited(r->arg, r);
}

void rank_signal(struct rank *r, int sig)
{
    /* A child that has not run yet is not the leader of its group: its number is all there is. */
    if (r->pid > 0 && kill(-r->pid, sig))
        kill(r->pid, sig);
}

void rank_reap(struct rank *r)
{
    if (r->pid > 0)
        waitpid(r->pid, NULL, 0);
    r->pid = 0;
}

bool rank_drained(const struct rank *r)
{
    return r->exited && r->out[0].fd < 0 && r->out[1].fd < 0;
}

void rank_close_output(struct rank *r)
{
    for (int i = 0; i < 2; i++) {
        if (r->out[i].fd < 0)
            continue;
        close_end(&r->out[i].fd, &r->out[i].event);
        r->ops->output(r->arg, r, i + 1, NULL, 0);
    }
}

void rank_release(struct rank *r)
{
    close_end(&r->exit.fd, &r->exit.event);
    close_end(&r->out[0].fd, &r->out[0].event);
    close_end(&r->out[1].fd, &r->out[1].event);
    close_end(&r->in.fd, &r->in.event);
    close_end(&r->comm.fd, &r->comm.event);
    pmi1_free(r->pmi);
    r->pmi = NULL;
    buf_free(&r->in_data);
    buf_free(&r->comm_data);
}

static void nonblocking(int fd)
{
    fcntl(fd, F_SETFL, O_NONBLOCK);
}

static void close_all(int *fds, int n)
{
    for (int i = 0; i < n; i++)
        if (fds[i] >= 0)
            close(fds[i]);
}

static struct event *watch(struct rank *r, struct event_base *base, int fd, short what, event_callback_fn fn)
{
    struct event *e = event_new(base, fd, what, fn, r);
    if (what & EV_READ)
        event_add(e, NULL);
    return e;
}

int rank_start(struct rank *r, const struct rank_start *s, struct error *err)
{
    enum { IN_R, IN_W, OUT_R, OUT_W, ERR_R, ERR_W, COMM_OURS, COMM_ITS, FDS };
    int fd[FDS] = {-1, -1, -1, -1, -1, -1, -1, -1};
    int in = s->wants_input ? pipe2(fd + IN_R, O_CLOEXEC) : 0;
    if (!s->wants_input)
        fd[IN_R] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (in || fd[IN_R] < 0 || pipe2(fd + OUT_R, O_CLOEXEC) || pipe2(fd + ERR_R, O_CLOEXEC) ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd + COMM_OURS)) {
        error_sys(err, "cannot make its pipes");
        close_all(fd, FDS);
        return -1;
    }
    const struct spawn_fd fds[] = {
        {fd[IN_R], 0}, {fd[OUT_W], 1}, {fd[ERR_W], 2}, {fd[COMM_ITS], RANK_PMI_FD}};
    struct spawn spawn = s->spawn;
    spawn.fds = fds;
    spawn.fds_n = sizeof fds / sizeof fds[0];
    r->pid = spawn_process(&spawn, r->number, s->fail_fd, &r->exit.fd, err);
    if (r->pid < 0) {
        r->pid = 0;
        close_all(fd, FDS);
        return -1;
    }
    close(fd[IN_R]);
    close(fd[OUT_W]);
    close(fd[ERR_W]);
    close(fd[COMM_ITS]);
    r->in.fd = fd[IN_W];
    r->out[0].fd = fd[OUT_R];
    r->out[1].fd = fd[ERR_R];
    r->comm.fd = fd[COMM_OURS];
    nonblocking(r->out[0].fd);
    nonblocking(r->out[1].fd);
    if (r->in.fd >= 0) {
        nonblocking(r->in.fd);
        r->in.event = watch(r, s->base, r->in.fd, EV_WRITE, on_input_room);
    }
    r->pmi = pmi1_new(&s->pmi, &pmi_ops, r);
    r->exit.event = watch(r, s->base, r->exit.fd, EV_READ | EV_PERSIST, on_exit_event);
    r->out[0].event = watch(r, s->base, r->out[0].fd, EV_READ | EV_PERSIST, on_stdout);
    r->out[1].event = watch(r, s->base, r->out[1].fd, EV_READ | EV_PERSIST, on_stderr);
    r->comm.event = watch(r, s->base, r->comm.fd, EV_READ | EV_PERSIST, on_comm);
    if (r->paused) {
        r->paused = false;
        rank_pause(r, true);
    }
    return 0;
}
