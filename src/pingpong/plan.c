/* plan.c - the schedule of pairs, under the limit of processors. See plan.h. */
#include "pingpong/plan.h"
#include "base/mem.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct plan {
    bool tournament;
    const struct places *places;
    struct pair at;       /* serial: the next pair */
    uint32_t round;       /* tournament: the next round */
    struct pair *waiting; /* pairs of the current round that had no processors so far */
    size_t waiting_count;
    uint32_t *host_busy; /* measuring ranks in the step being built */
    uint32_t *set_busy;
};

struct record_order {
    const char *records;
    size_t size;
};

static int compare_records(const void *a, const void *b, void *arg)
{
    const struct record_order *o = arg;
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    int c = memcmp(o->records + x * o->size, o->records + y * o->size, o->size);
    return c ? c : (x > y) - (x < y);
}

uint32_t group_records(const void *records, size_t size, size_t count, uint32_t *group_of)
{
    uint32_t *order = xcalloc(count ? count : 1, sizeof *order), groups = 0;
    struct record_order how = {records, size};
    for (size_t i = 0; i < count; i++)
        order[i] = (uint32_t)i;
    qsort_r(order, count, sizeof *order, compare_records, &how);
    /* group_of holds the first record of each group first, then its number. */
    for (size_t i = 0; i < count; i++) {
        bool same = i && !memcmp(how.records + order[i] * size, how.records + order[i - 1] * size, size);
        group_of[order[i]] = same ? group_of[order[i - 1]] : order[i];
    }
    for (size_t i = 0; i < count; i++)
        group_of[i] = group_of[i] == i ? groups++ : group_of[group_of[i]];
    free(order);
    return groups;
}

uint32_t tournament_rounds(uint32_t ranks)
{
    return ranks < 2 ? 0 : ranks - 1 + ranks % 2;
}

bool tournament_pair(uint32_t ranks, uint32_t round, uint32_t k, struct pair *pair)
{
    /* The last of an even number of players sits still, the others move on by one a round. */
    uint32_t players = ranks + ranks % 2, circle = players - 1;
    assert(round < tournament_rounds(ranks) && k < players / 2);
    uint32_t a = (round + k) % circle;
    uint32_t b = k ? (round + circle - k) % circle : players - 1;
    pair->from = a < b ? a : b;
    pair->to = a < b ? b : a;
    return pair->to < ranks;
}

struct plan *plan_create(bool tournament, const struct places *places)
{
    struct plan *p = xcalloc(1, sizeof *p);
    p->tournament = tournament;
    p->places = places;
    p->at = (struct pair){0, 1};
    p->waiting = xcalloc(places->ranks / 2 + 1, sizeof *p->waiting);
    p->host_busy = xcalloc(places->hosts + 1, sizeof *p->host_busy);
    p->set_busy = xcalloc(places->sets + 1, sizeof *p->set_busy);
    return p;
}

void plan_destroy(struct plan *p)
{
    if (!p)
        return;
    free(p->waiting);
    free(p->host_busy);
    free(p->set_busy);
    free(p);
}

uint64_t plan_pairs(const struct plan *p)
{
    return (uint64_t)p->places->ranks * (p->places->ranks - 1) / 2;
}

static bool rank_fits(const struct plan *p, uint32_t rank)
{
    const struct places *at = p->places;
    uint32_t host = at->host_of[rank], set = at->set_of[rank];
    return p->host_busy[host] <= at->host_cpus[host] && p->set_busy[set] <= at->set_cpus[set];
}

static void rank_count(struct plan *p, uint32_t rank, int by)
{
    p->host_busy[p->places->host_of[rank]] += (uint32_t)by;
    p->set_busy[p->places->set_of[rank]] += (uint32_t)by;
}

/* Adds the pair to the step being built; false: it lacks processors and is not added. */
static bool pair_take(struct plan *p, const struct pair *pair)
{
    rank_count(p, pair->from, 1);
    rank_count(p, pair->to, 1);
    if (rank_fits(p, pair->from) && rank_fits(p, pair->to))
        return true;
    rank_count(p, pair->from, -1);
    rank_count(p, pair->to, -1);
    return false;
}

static void pairs_release(struct plan *p, const struct pair *pairs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        rank_count(p, pairs[i].from, -1);
        rank_count(p, pairs[i].to, -1);
    }
}

static size_t serial_next(struct plan *p, struct pair *pair, bool *shared)
{
    uint32_t n = p->places->ranks;
    if (n < 2 || p->at.from >= n - 1)
        return 0;
    *pair = p->at;
    if (++p->at.to == n) {
        p->at.from++;
        p->at.to = p->at.from + 1;
    }
    *shared = !pair_take(p, pair);
    if (!*shared)
        pairs_release(p, pair, 1);
    return 1;
}

static void round_fill(struct plan *p)
{
    uint32_t slots = (p->places->ranks + 1) / 2;
    for (uint32_t k = 0; k < slots; k++)
        if (tournament_pair(p->places->ranks, p->round, k, &p->waiting[p->waiting_count]))
            p->waiting_count++;
    p->round++;
}

static size_t tournament_next(struct plan *p, struct pair *pairs, bool *shared)
{
    size_t taken = 0, left = 0;
    if (!p->waiting_count) {
        if (p->round >= tournament_rounds(p->places->ranks))
            return 0;
        round_fill(p);
    }
    for (size_t i = 0; i < p->waiting_count; i++) {
        if (pair_take(p, &p->waiting[i]))
            pairs[taken++] = p->waiting[i];
        else
            p->waiting[left++] = p->waiting[i];
    }
    pairs_release(p, pairs, taken);
    *shared = taken == 0;
    if (*shared) /* what waits never fits: one at a time */
        pairs[taken++] = p->waiting[--left];
    p->waiting_count = left;
    return taken;
}

size_t plan_next(struct plan *p, struct pair *pairs, bool *shared)
{
    return p->tournament ? tournament_next(p, pairs, shared) : serial_next(p, pairs, shared);
}
