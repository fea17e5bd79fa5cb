/* sample.h - a distribution of measured values in bounded memory.
 *
 * Up to `SAMPLE_EXACT_MAX` values are kept as they are, 8 bytes each, in memory that is made and
 * touched before the first is added. Where more are announced they are counted in a log
 * histogram (SAMPLE_SUB buckets per power of two: quantiles within 0.4 %); minimum, maximum and
 * count are exact always. Values are unsigned, their unit is the caller's.
 */
#ifndef MUSTER_PINGPONG_SAMPLE_H
#define MUSTER_PINGPONG_SAMPLE_H

#include <stdbool.h>
#include <stdint.h>

#define SAMPLE_EXACT_MAX (1u << 20)
#define SAMPLE_SUB_BITS 7
#define SAMPLE_SUB (1u << SAMPLE_SUB_BITS)

struct sample_set {
    uint64_t *values; /* exact, or the histogram's counts */
    uint64_t count;
    uint64_t room;     /* exact values there is room for; 0: histogram */
    uint64_t min, max; /* histogram only */
};

/* Makes room for `expect` values. -1: no memory. */
int sample_init(struct sample_set *s, uint64_t expect);
void sample_release(struct sample_set *s);
void sample_clear(struct sample_set *s); /* no values, memory kept */
bool sample_exact(const struct sample_set *s);

void sample_count(struct sample_set *s, uint64_t value); /* the histogram's way in */

/* Hot path: nothing but a store while values are kept exactly. More values than announced are
 * dropped there, not written past the end. */
static inline void sample_add(struct sample_set *s, uint64_t value)
{
    if (!s->room)
        sample_count(s, value);
    else if (s->count < s->room)
        s->values[s->count++] = value;
}

/* Orders the values; call once after the last was added, before the questions below. */
void sample_finish(struct sample_set *s);

/* The smallest value that at least q (0..1) of all are not above; q 0.5 of an even number is the mean of
 * the middle two when exact. Empty: 0. */
double sample_quantile(const struct sample_set *s, double q);
double sample_min(const struct sample_set *s);
double sample_max(const struct sample_set *s);

#endif
