/* sample.c - order statistics of exact values, or of a log histogram. See sample.h.
 *
 * Bucket of a value v: below SAMPLE_SUB the value itself; above, the position of its highest bit
 * and the SAMPLE_SUB_BITS bits after it.
 */
#include "pingpong/sample.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BUCKETS ((64 - SAMPLE_SUB_BITS + 1) * SAMPLE_SUB)

int sample_init(struct sample_set *s, uint64_t expect)
{
    *s = (struct sample_set){.room = expect <= SAMPLE_EXACT_MAX ? expect : 0};
    if (expect == 0)
        s->room = 1;
    size_t words = s->room ? s->room : BUCKETS;
    s->values = malloc(words * sizeof *s->values);
    if (!s->values)
        return -1;
    memset(s->values, 0, words * sizeof *s->values); /* no page fault while measuring */
    sample_clear(s);
    return 0;
}

void sample_release(struct sample_set *s)
{
    free(s->values);
    *s = (struct sample_set){0};
}

void sample_clear(struct sample_set *s)
{
    s->count = 0;
    s->min = UINT64_MAX;
    s->max = 0;
    if (!s->room)
        memset(s->values, 0, BUCKETS * sizeof *s->values);
}

bool sample_exact(const struct sample_set *s)
{
    return s->room != 0;
}

static unsigned bucket_of(uint64_t v)
{
    if (v < SAMPLE_SUB)
        return (unsigned)v;
    unsigned top = 63 - (unsigned)__builtin_clzll(v), shift = top - SAMPLE_SUB_BITS;
    return (shift + 1) * SAMPLE_SUB + (unsigned)((v >> shift) & (SAMPLE_SUB - 1));
}

/* The middle of a bucket's values. */
static double bucket_value(unsigned bucket)
{
    if (bucket < SAMPLE_SUB)
        return bucket;
    unsigned shift = bucket / SAMPLE_SUB - 1;
    double low = ldexp(SAMPLE_SUB + bucket % SAMPLE_SUB, (int)shift);
    return low + (ldexp(1, (int)shift) - 1) / 2;
}

void sample_count(struct sample_set *s, uint64_t value)
{
    s->values[bucket_of(value)]++;
    s->count++;
    s->min = value < s->min ? value : s->min;
    s->max = value > s->max ? value : s->max;
}

static int compare_values(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

void sample_finish(struct sample_set *s)
{
    if (s->room)
        qsort(s->values, s->count, sizeof *s->values, compare_values);
}

double sample_min(const struct sample_set *s)
{
    return !s->count ? 0 : (double)(s->room ? s->values[0] : s->min);
}

double sample_max(const struct sample_set *s)
{
    return !s->count ? 0 : (double)(s->room ? s->values[s->count - 1] : s->max);
}

static double histogram_quantile(const struct sample_set *s, uint64_t rank)
{
    uint64_t seen = 0;
    unsigned b = 0;
    while (b < BUCKETS - 1 && (seen += s->values[b]) < rank)
        b++;
    double v = bucket_value(b);
    return v < (double)s->min ? (double)s->min : v > (double)s->max ? (double)s->max : v;
}

double sample_quantile(const struct sample_set *s, double q)
{
    if (!s->count)
        return 0;
    uint64_t rank = (uint64_t)ceil(q * (double)s->count);
    rank = rank < 1 ? 1 : rank > s->count ? s->count : rank;
    if (!s->room)
        return histogram_quantile(s, rank);
    if (q == 0.5 && s->count % 2 == 0)
        return ((double)s->values[rank - 1] + (double)s->values[rank]) / 2;
    return (double)s->values[rank - 1];
}
