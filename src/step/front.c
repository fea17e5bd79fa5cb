/* front.c - mpiexec's face: output, input, signals, exit code.
 *
 * A sink is one of mpiexec's own output descriptors. The descriptor may be shared with other
 * processes, so its flags are left alone: a pipe or terminal is opened anew for non-blocking use
 * where that works, otherwise written in pieces that a ready pipe takes without blocking.
 */
#include "step/front.h"
#include "base/buf.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SINK_LOW (1024 * 1024)    /* below this much waiting, credit goes back at once */
#define PARTIAL_MAX 8192          /* an unfinished line longer than this is written as it is */
#define PARTIAL_MS 100            /* and so is one that stays unfinished this long */
#define INPUT_WINDOW (256 * 1024) /* input under way to rank 0 */
#define INPUT_CHUNK (64 * 1024)
#define GIVE_UP_MS 1000 /* after a signal: output nobody reads is dropped then */
#define CODE_INTERRUPTED 255
#define CODE_PIPE (128 + SIGPIPE)
#define CODE_LOST 253

struct sink {
    int fd;
    bool always_ready; /* a file: writing does not wait */
    bool own;          /* fd was opened here */
    size_t piece;      /* what one write may have at most */
    struct buf queue;
    struct event *event;
    bool broken;
};

struct partial {
    struct buf text;
    bool open; /* the beginning of this line has been written */
};

struct front {
    struct front_config config;
    struct sink sinks[2];
    uint32_t ranks, nodes, window;
    struct partial *partials; /* [ranks * 2] */
    struct event *partial_timer;
    bool partial_waiting;
    uint32_t *owed; /* [nodes]: credit not yet given back */

    int64_t input_credit;
    bool input_ready, input_ended, input_direct;
    struct event *input_event;

    struct event *signals[3], *give_up;
    int interrupted;
    bool have_result;
    int code;
};

#define FRAME(kind_, field, value)                                                                           \
    (&(Mu__StepFrame){.base = PROTOBUF_C_MESSAGE_INIT(&mu__step_frame__descriptor),                          \
                      .kind_case = MU__STEP_FRAME__KIND_##kind_,                                             \
                      .field = (value)})

static void maybe_over(struct front *f);

static void down(struct front *f, Mu__StepFrame *frame)
{
    f->config.down(f->config.arg, frame);
}

static void end_step(struct front *f, const char *cause, int code, uint32_t grace_ms)
{
    Mu__StepEnd e = MU__STEP_END__INIT;
    e.cause = (char *)cause;
    e.code = code;
    e.grace_ms = grace_ms;
    down(f, FRAME(END, end, &e));
}

/* ---- sinks ---- */

static void sink_broken(struct front *f, struct sink *k)
{
    bool closed_pipe = errno == EPIPE;
    k->broken = true;
    buf_reset(&k->queue);
    if (k == &f->sinks[0] && !f->have_result)
        end_step(f, closed_pipe ? "" : "standard output cannot be written", closed_pipe ? CODE_PIPE : 1, 0);
}

static void sink_flush(struct front *f, struct sink *k)
{
    size_t at = 0;
    while (!k->broken && at < k->queue.len) {
        size_t len = k->queue.len - at;
        if (k->piece && len > k->piece)
            len = k->piece;
        if (k->piece && !k->own) {
            struct pollfd p = {.fd = k->fd, .events = POLLOUT};
            if (poll(&p, 1, 0) == 0)
                break;
        }
        ssize_t n = write(k->fd, k->queue.data + at, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0)
            sink_broken(f, k);
        else
            at += (size_t)n;
    }
    if (k->broken)
        return;
    buf_consume(&k->queue, at);
    if (k->queue.len && k->event)
        event_add(k->event, NULL);
}

static void give_back(struct front *f, bool all)
{
    for (uint32_t i = 0; i < f->nodes; i++) {
        if (!f->owed[i] || (!all && f->owed[i] < f->window / 4))
            continue;
        Mu__StepCredit c = MU__STEP_CREDIT__INIT;
        c.node = i;
        c.bytes = f->owed[i];
        f->owed[i] = 0;
        down(f, FRAME(CREDIT, credit, &c));
    }
}

static bool sinks_low(const struct front *f)
{
    return f->sinks[0].queue.len < SINK_LOW && f->sinks[1].queue.len < SINK_LOW;
}

static void on_sink_room(evutil_socket_t fd, short what, void *arg)
{
    struct front *f = arg;
    for (int i = 0; i < 2; i++)
        if (f->sinks[i].queue.len)
            sink_flush(f, &f->sinks[i]);
    if (sinks_low(f))
        give_back(f, true);
    maybe_over(f);
}

static void sink_open(struct front *f, struct sink *k, int fd)
{
    struct stat st;
    char path[32];
    k->fd = fd;
    if (fstat(fd, &st)) {
        k->broken = true;
        return;
    }
    if (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode) || (S_ISCHR(st.st_mode) && !isatty(fd))) {
        k->always_ready = true;
        return;
    }
    k->piece = 4096; /* PIPE_BUF: a pipe that polls ready takes it whole */
    if (!S_ISSOCK(st.st_mode)) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        int own = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
        if (own >= 0) {
            k->fd = own;
            k->own = true;
            k->piece = 256 * 1024;
        }
    }
    k->event = event_new(f->config.base, k->fd, EV_WRITE, on_sink_room, f);
}

/* ---- output ---- */

static void write_line(struct front *f, struct sink *k, struct partial *p, uint32_t rank, const char *data,
                       size_t len)
{
    if (k->broken || !len)
        return;
    if (f->config.lines && !p->open)
        buf_addf(&k->queue, "[%u] ", rank);
    buf_add(&k->queue, data, len);
    p->open = data[len - 1] != '\n';
}

/* Whole lines of data[0..len) in turn; returns what is left over. */
static size_t write_lines(struct front *f, struct sink *k, struct partial *p, uint32_t rank, const char *data,
                          size_t len)
{
    const char *last = memrchr(data, '\n', len);
    size_t whole = last ? (size_t)(last - data) + 1 : 0;
    if (!f->config.lines) {
        write_line(f, k, p, rank, data, whole);
        return len - whole;
    }
    for (size_t at = 0; at < whole;) {
        size_t n = (size_t)((const char *)memchr(data + at, '\n', whole - at) - (data + at)) + 1;
        write_line(f, k, p, rank, data + at, n);
        at += n;
    }
    return len - whole;
}

static void flush_partial(struct front *f, uint32_t i)
{
    struct partial *p = &f->partials[i];
    write_line(f, &f->sinks[i % 2], p, i / 2, p->text.data, p->text.len);
    buf_reset(&p->text);
}

static void on_partial_time(evutil_socket_t fd, short what, void *arg)
{
    struct front *f = arg;
    f->partial_waiting = false;
    for (uint32_t i = 0; i < f->ranks * 2; i++)
        if (f->partials[i].text.len)
            flush_partial(f, i);
    for (int i = 0; i < 2; i++)
        sink_flush(f, &f->sinks[i]);
}

static void take_output(struct front *f, const Mu__StepOutput *o)
{
    if (o->rank >= f->ranks || o->stream < 1 || o->stream > 2 || o->node >= f->nodes)
        return;
    uint32_t i = o->rank * 2 + o->stream - 1;
    struct sink *k = &f->sinks[o->stream - 1];
    struct partial *p = &f->partials[i];
    const char *data = (const char *)o->data.data;
    size_t len = o->data.len;
    if (!len) {
        flush_partial(f, i);
    } else if (f->ranks == 1 && !f->config.lines) {
        write_line(f, k, p, 0, data, len);
    } else {
        const char *newline = p->text.len ? memchr(data, '\n', len) : NULL;
        if (newline) { /* the line that had begun */
            size_t n = (size_t)(newline - data) + 1;
            buf_add(&p->text, data, n);
            flush_partial(f, i);
            data += n;
            len -= n;
        }
        size_t rest = p->text.len ? len : write_lines(f, k, p, o->rank, data, len);
        buf_add(&p->text, data + len - rest, rest);
        if (p->text.len > PARTIAL_MAX)
            flush_partial(f, i);
        if (p->text.len && !f->partial_waiting) {
            f->partial_waiting = true;
            evtimer_add(f->partial_timer, &(struct timeval){.tv_usec = PARTIAL_MS * 1000});
        }
    }
    sink_flush(f, k);
    f->owed[o->node] += (uint32_t)o->data.len;
    if (sinks_low(f))
        give_back(f, false);
}

/* ---- input ---- */

/* By a timer of no time: an event made active here would run before the loop looks at anything else,
 * and a rank that closed its stdin takes /dev/zero as fast as it is read. */
static void continue_direct(struct front *f)
{
    event_add(f->input_event, &(const struct timeval){.tv_sec = 0});
}

static void on_input(evutil_socket_t fd, short what, void *arg)
{
    struct front *f = arg;
    static uint8_t bytes[INPUT_CHUNK];
    if (f->input_ended || f->input_credit <= 0)
        return;
    ssize_t n = read(STDIN_FILENO, bytes, sizeof bytes);
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    /* A background job may not read its terminal (EIO): no input then. */
    Mu__StepInput in = MU__STEP_INPUT__INIT;
    if (n > 0)
        in.data = (ProtobufCBinaryData){(size_t)n, bytes};
    else
        f->input_ended = true;
    f->input_credit -= n > 0 ? n : 0;
    if (f->input_ended || f->input_credit <= 0)
        event_del(f->input_event);
    down(f, FRAME(INPUT, input, &in));
    if (f->input_direct && !f->input_ended && f->input_credit > 0)
        continue_direct(f);
}

static void start_input(struct front *f)
{
    struct stat st;
    f->input_credit = INPUT_WINDOW;
    if (fstat(STDIN_FILENO, &st)) {
        Mu__StepInput in = MU__STEP_INPUT__INIT;
        f->input_ended = true;
        down(f, FRAME(INPUT, input, &in));
        return;
    }
    f->input_ready = true;
    f->input_direct = !S_ISFIFO(st.st_mode) && !S_ISSOCK(st.st_mode) && !isatty(STDIN_FILENO);
    if (f->input_direct)
        f->input_event = evtimer_new(f->config.base, on_input, f);
    else
        f->input_event = event_new(f->config.base, STDIN_FILENO, EV_READ | EV_PERSIST, on_input, f);
    if (f->input_direct)
        continue_direct(f);
    else
        event_add(f->input_event, NULL);
}

static void take_input_credit(struct front *f, uint32_t bytes)
{
    bool stopped = f->input_credit <= 0;
    f->input_credit += bytes;
    if (!f->input_ready || f->input_ended || !stopped || f->input_credit <= 0)
        return;
    if (f->input_direct)
        continue_direct(f);
    else
        event_add(f->input_event, NULL);
}

/* ---- the end ---- */

static void say(struct front *f, const char *text)
{
    struct sink *k = &f->sinks[1];
    if (k->broken)
        return;
    buf_addf(&k->queue, "mpiexec: %s\n", text);
    sink_flush(f, k);
}

static void maybe_over(struct front *f)
{
    if (f->have_result && !f->sinks[0].queue.len && !f->sinks[1].queue.len)
        f->config.over(f->config.arg, f->code);
}

static void on_give_up(evutil_socket_t fd, short what, void *arg)
{
    struct front *f = arg;
    f->config.over(f->config.arg, f->have_result ? f->code : CODE_INTERRUPTED);
}

static void on_signal(evutil_socket_t sig, short what, void *arg)
{
    struct front *f = arg;
    char cause[64];
    snprintf(cause, sizeof cause, "interrupted by signal %d (%s)", (int)sig, strsignal((int)sig));
    if (!f->interrupted) {
        f->give_up = evtimer_new(f->config.base, on_give_up, f);
        const struct timeval limit = {.tv_sec = GIVE_UP_MS / 1000, .tv_usec = GIVE_UP_MS % 1000 * 1000};
        evtimer_add(f->give_up, &limit);
    }
    /* The second time there is no grace. */
    end_step(f, cause, CODE_INTERRUPTED, f->interrupted ? 0 : 250);
    f->interrupted = (int)sig;
}

static void take_result(struct front *f, const Mu__StepResult *r)
{
    for (uint32_t i = 0; i < f->ranks * 2; i++)
        flush_partial(f, i);
    for (int i = 0; i < 2; i++)
        sink_flush(f, &f->sinks[i]);
    f->have_result = true;
    f->code = r->code;
    if (r->text[0])
        say(f, r->text);
    maybe_over(f);
}

void front_frame(struct front *f, Mu__StepFrame *frame)
{
    switch (frame->kind_case) {
    case MU__STEP_FRAME__KIND_STARTED:
        if (f->partials || frame->started->ranks > 1000000 || frame->started->nodes > 1000000)
            return;
        f->ranks = frame->started->ranks;
        f->nodes = frame->started->nodes;
        f->window = frame->started->window;
        f->partials = xcalloc(f->ranks * 2, sizeof *f->partials);
        f->owed = xcalloc(f->nodes, sizeof *f->owed);
        start_input(f);
        break;
    case MU__STEP_FRAME__KIND_OUTPUT:
        take_output(f, frame->output);
        break;
    case MU__STEP_FRAME__KIND_INPUT_CREDIT:
        take_input_credit(f, frame->input_credit->bytes);
        break;
    case MU__STEP_FRAME__KIND_NOTE:
        if (f->config.verbose)
            say(f, frame->note->text);
        break;
    case MU__STEP_FRAME__KIND_RESULT:
        if (!f->have_result)
            take_result(f, frame->result);
        break;
    default:
        break;
    }
}

void front_lost(struct front *f, const char *why)
{
    Mu__StepResult r = MU__STEP_RESULT__INIT;
    if (f->have_result)
        return;
    r.code = CODE_LOST;
    r.text = (char *)why;
    take_result(f, &r);
}

struct front *front_new(const struct front_config *config)
{
    static const int caught[] = {SIGINT, SIGTERM, SIGHUP};
    struct front *f = xcalloc(1, sizeof *f);
    f->config = *config;
    signal(SIGPIPE, SIG_IGN);
    signal(SIGTTIN, SIG_IGN);
    signal(SIGTTOU, SIG_IGN);
    sink_open(f, &f->sinks[0], STDOUT_FILENO);
    sink_open(f, &f->sinks[1], STDERR_FILENO);
    f->partial_timer = evtimer_new(config->base, on_partial_time, f);
    for (int i = 0; i < 3; i++) {
        struct sigaction was;
        if (!sigaction(caught[i], NULL, &was) && was.sa_handler == SIG_IGN)
            continue; /* nohup, a shell's background job: who started us wants it ignored */
        f->signals[i] = evsignal_new(config->base, caught[i], on_signal, f);
        evsignal_add(f->signals[i], NULL);
    }
    return f;
}

void front_free(struct front *f)
{
    if (!f)
        return;
    for (int i = 0; i < 3; i++)
        if (f->signals[i])
            event_free(f->signals[i]);
    for (int i = 0; i < 2; i++) {
        if (f->sinks[i].event)
            event_free(f->sinks[i].event);
        if (f->sinks[i].own)
            close(f->sinks[i].fd);
        buf_free(&f->sinks[i].queue);
    }
    for (uint32_t i = 0; i < f->ranks * 2; i++)
        buf_free(&f->partials[i].text);
    free(f->partials);
    free(f->owed);
    event_free(f->partial_timer);
    if (f->input_event)
        event_free(f->input_event);
    if (f->give_up)
        event_free(f->give_up);
    free(f);
}
