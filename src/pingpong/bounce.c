/* bounce.c - MPI_Send and MPI_Recv to and fro, one clock reading per round trip on each end.
 *
 * A sample is the time from one reading to the next, that is one whole round trip; nothing
 * else happens in it but the store of the sample. The end that sends first reads its clock
 * between receiving and sending, so its readings lengthen the round trip by one reading each:
 * that is taken off. The other end reads after sending, while its message is under way: its
 * readings lengthen nothing on networks slower than a clock reading, but its samples see
 * the first end's.
 *
 * Both buffers hold a pattern that differs from pair to pair; what arrives in the first and
 * in the last round trip is compared with it, outside of what is timed.
 */
#include "pingpong/bounce.h"

#include <dlfcn.h>
#include <mpi.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define NAP_MIN_NS 50000ull
#define NAP_MAX_NS 10000000ull

/* What a loop below adds to a round trip: a reading of the clock and the store of a sample, ns. On shared
 * memory even the store is seen. The least disturbed of some blocks. */
static uint32_t reading_cost_ns(struct sample_set *s, uint32_t iterations)
{
    enum { BLOCKS = 20, READINGS = 1000 };
    uint32_t count = iterations < READINGS ? iterations : READINGS;
    uint64_t best = UINT64_MAX;
    for (int r = 0; count && r < BLOCKS; r++) {
        sample_clear(s);
        uint64_t start = probe_now_ns(), last = start;
        for (uint32_t i = 0; i < count; i++) {
            uint64_t now = probe_now_ns();
            sample_add(s, now - last);
            last = now;
        }
        if (last - start < best)
            best = last - start;
    }
    sample_clear(s);
    return count ? (uint32_t)((best + count / 2) / count) : 0;
}

int bounce_init(struct bounce *b, uint32_t size, uint32_t iterations, uint32_t warmup, uint32_t clock_ns)
{
    enum { PAGE = 4096 };
    size_t room = ((size_t)size / PAGE + 1) * PAGE;
    *b = (struct bounce){.size = size, .iterations = iterations, .warmup = warmup, .clock_ns = clock_ns};
    b->send = aligned_alloc(PAGE, room);
    b->receive = aligned_alloc(PAGE, room);
    if (!b->send || !b->receive || sample_init(&b->samples, iterations) < 0)
        return -1;
    memset(b->send, 0, room);
    memset(b->receive, 0, room);
    uint32_t cost = reading_cost_ns(&b->samples, iterations);
    if (cost > b->clock_ns)
        b->clock_ns = cost;
    return 0;
}

void bounce_release(struct bounce *b)
{
    free(b->send);
    free(b->receive);
    sample_release(&b->samples);
}

void sleep_receive(void *data, int size, int source, int tag)
{
    uint64_t start = probe_now_ns();
    MPI_Status status;
    for (int there = 0;;) {
        MPI_Iprobe(source, tag, MPI_COMM_WORLD, &there, &status);
        if (there)
            break;
        uint64_t nap = (probe_now_ns() - start) / 4;
        nap = nap < NAP_MIN_NS ? NAP_MIN_NS : nap > NAP_MAX_NS ? NAP_MAX_NS : nap;
        struct timespec t = {0, (long)nap};
        nanosleep(&t, NULL);
    }
    MPI_Recv(data, size, MPI_BYTE, status.MPI_SOURCE, tag, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
}

static void yield_until(MPI_Request *request)
{
    for (int done = 0; MPI_Test(request, &done, MPI_STATUS_IGNORE), !done;)
        sched_yield();
}

static void yield_send(struct bounce *b, int peer)
{
    MPI_Request r;
    MPI_Isend(b->send, (int)b->size, MPI_BYTE, peer, TAG_DATA, MPI_COMM_WORLD, &r);
    yield_until(&r);
} /* NOLINT(clang-analyzer-optin.mpi.MPI-Checker): waited for in yield_until() */

static void yield_receive(struct bounce *b, int peer)
{
    MPI_Request r;
    MPI_Irecv(b->receive, (int)b->size, MPI_BYTE, peer, TAG_DATA, MPI_COMM_WORLD, &r);
    yield_until(&r);
} /* NOLINT(clang-analyzer-optin.mpi.MPI-Checker): waited for in yield_until() */

/* The loops, four of them so that none has a branch more than it needs. */
static void first_busy(struct bounce *b, int peer, uint32_t count)
{
    unsigned char *send = b->send, *receive = b->receive;
    int size = (int)b->size;
    uint64_t last = probe_now_ns();
    for (uint32_t i = 0; i < count; i++) {
        MPI_Send(send, size, MPI_BYTE, peer, TAG_DATA, MPI_COMM_WORLD);
        MPI_Recv(receive, size, MPI_BYTE, peer, TAG_DATA, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        uint64_t now = probe_now_ns();
        sample_add(&b->samples, now - last);
        last = now;
    }
}

static void second_busy(struct bounce *b, int peer, uint32_t count)
{
    unsigned char *send = b->send, *receive = b->receive;
    int size = (int)b->size;
    uint64_t last = probe_now_ns();
    for (uint32_t i = 0; i < count; i++) {
        MPI_Recv(receive, size, MPI_BYTE, peer, TAG_DATA, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        MPI_Send(send, size, MPI_BYTE, peer, TAG_DATA, MPI_COMM_WORLD);
        uint64_t now = probe_now_ns();
        sample_add(&b->samples, now - last);
        last = now;
    }
}

static void first_yielding(struct bounce *b, int peer, uint32_t count)
{
    uint64_t last = probe_now_ns();
    for (uint32_t i = 0; i < count; i++) {
        yield_send(b, peer);
        yield_receive(b, peer);
        uint64_t now = probe_now_ns();
        sample_add(&b->samples, now - last);
        last = now;
    }
}

static void second_yielding(struct bounce *b, int peer, uint32_t count)
{
    uint64_t last = probe_now_ns();
    for (uint32_t i = 0; i < count; i++) {
        yield_receive(b, peer);
        yield_send(b, peer);
        uint64_t now = probe_now_ns();
        sample_add(&b->samples, now - last);
        last = now;
    }
}

static void rounds(struct bounce *b, int peer, bool first, bool yield, uint32_t count)
{
    if (first)
        (yield ? first_yielding : first_busy)(b, peer, count);
    else
        (yield ? second_yielding : second_busy)(b, peer, count);
}

/* The same on both ends of a pair, another for each pair. */
static void pattern_fill(struct bounce *b, int low, int high)
{
    uint64_t x = (uint64_t)low << 32 ^ (uint64_t)high ^ 0x9e3779b97f4a7c15u;
    for (uint32_t i = 0; i < b->size; i += 8) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        memcpy(b->send + i, &x, sizeof x); /* the room is whole pages */
    }
    memset(b->receive, 0xA5, b->size);
    if (b->size && b->send[0] == 0xA5)
        b->send[0] = 0x5A; /* so that a byte that never arrived shows */
}

static bool pattern_damaged(const struct bounce *b)
{
    return memcmp(b->send, b->receive, b->size) != 0;
}

static void result_fill(struct bounce *b, struct end_result *out)
{
    struct sample_set *s = &b->samples;
    double clock = b->clock_ns;
    sample_finish(s);
    double *to[] = {&out->min, &out->p50, &out->p95, &out->p99, &out->max};
    const double of[] = {sample_min(s), sample_quantile(s, 0.5), sample_quantile(s, 0.95),
                         sample_quantile(s, 0.99), sample_max(s)};
    for (int i = 0; i < 5; i++)
        *to[i] = of[i] > clock ? of[i] - clock : 0;
    out->count = s->count;
}

/* A launcher with more ranks than processors tells Open MPI to yield in every turn of its progress loop,
 * which costs a third and more of the latency and is of no use here: who does not measure sleeps. Its
 * libopen-pal has a switch for it; other libraries (and releases without it) go on as they are. */
typedef bool yield_switch(bool);
static yield_switch *library_switch(void)
{
    static yield_switch *found;
    static bool looked;
    if (!looked)
        *(void **)&found = dlsym(RTLD_DEFAULT, "opal_progress_set_yield_when_idle");
    looked = true;
    return found;
}

bool bounce_library_switch(void)
{
    return library_switch() != NULL;
}

void bounce_run(struct bounce *b, int rank, int peer, bool yield, bool one_host, struct end_result *out)
{
    static struct path_counters before, after;
    bool first = rank < peer;
    MPI_Request ready;
    *out = (struct end_result){.rank = (uint32_t)rank, .peer = (uint32_t)peer, .from_end = first};
    pattern_fill(b, first ? rank : peer, first ? peer : rank);
    /* One after the other: two ends that dial each other at once is what libraries are worst tested for. */
    if (!first)
        sleep_receive(NULL, 0, peer, TAG_READY);
    MPI_Isend(NULL, 0, MPI_BYTE, peer, TAG_READY, MPI_COMM_WORLD, &ready);
    if (first)
        sleep_receive(NULL, 0, peer, TAG_READY);
    MPI_Wait(&ready, MPI_STATUS_IGNORE);
    path_read(&before, NULL);
    bool yielded = !yield && library_switch() && library_switch()(false);

    uint64_t wall = probe_now_ns(), ran = probe_ran_ns();
    rounds(b, peer, first, yield, 1);
    out->damaged = pattern_damaged(b);
    rounds(b, peer, first, yield, b->warmup);
    sample_clear(&b->samples);
    rounds(b, peer, first, yield, b->iterations);
    ran = probe_ran_ns() - ran;
    wall = probe_now_ns() - wall;
    out->processor = wall ? (double)ran / (double)wall : 1;
    out->damaged |= pattern_damaged(b);

    if (yielded)
        library_switch()(true);
    path_read(&after, &before);
    path_name(&before, &after, b->iterations, b->size, one_host, out->path);
    result_fill(b, out);
}
