/* report.c - the text of a run, and the one place that feeds text, XML and summary.
 *
 * Text goes out row by row (flushed), 80 columns:
 *   2 + name 16 + 1 + name 16 + 4 latencies of 8 + throughput of 12 = 79.
 */
#include "pingpong/report.h"
#include "pingpong/xml.h"
#include "pingpong/sample.h"
#include "base/mem.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NAME_COLUMNS 16
#define DISTURBED 0.97 /* below this share of its processor a busy process was not alone */
#define PICO 1e6       /* medians are kept as whole picoseconds: 1 us is 1e6 of them */

struct report {
    const struct run_info *info;
    FILE *text;
    struct xml *xml;
    bool rows;
    struct summary sum;
    struct sample_set medians;
};

/* A name of at most NAME_COLUMNS: the middle of a longer one is left out, its end is what differs. */
static const char *name_cut(const char *name, char out[NAME_COLUMNS + 1])
{
    size_t len = strlen(name);
    if (len <= NAME_COLUMNS)
        snprintf(out, NAME_COLUMNS + 1, "%s", name);
    else
        snprintf(out, NAME_COLUMNS + 1, "%.6s..%s", name, name + len - 8);
    return out;
}

/* As many digits as tell something, in at most 8 columns. */
static const char *figure(double v, char out[16])
{
    int digits = v < 10 ? 3 : v < 1000 ? 2 : v < 100000 ? 1 : 0;
    if (v != 0 && v < 0.001)
        snprintf(out, 16, "%.2g", v);
    else
        snprintf(out, 16, "%.*f", digits, v);
    return out;
}

/* Microseconds, in at most 7 columns; thousandths are below what a clock of nanoseconds tells. */
static const char *figure_us(double v, char out[16])
{
    snprintf(out, 16, "%.*f", v < 1 ? 3 : v < 1000 ? 2 : v < 10000 ? 1 : 0, v);
    return out;
}

/* Words at the third column's place, as many a line as 80 columns take. */
static void text_wrapped(FILE *t, const char *title, const char *words)
{
    int column = fprintf(t, "  %-12s", title);
    while (*words) {
        int len = (int)strcspn(words, " ");
        if (column + 1 + len > 80 && column > 14)
            column = fprintf(t, "\n%14s", "") - 1;
        column += fprintf(t, " %.*s", len, words);
        words += len + (words[len] == ' ');
    }
    fputc('\n', t);
}

static void text_head(FILE *t, const struct run_info *info)
{
    const struct pingpong_options *o = info->options;
    fprintf(t, "mpipingpong: %u byte%s, %u round trip%s for each pair (after %u to warm up)\n\n", o->size,
            o->size == 1 ? "" : "s", o->iterations, o->iterations == 1 ? "" : "s", o->warmup);
    fprintf(t, "  MPI library  %s\n", info->library);
    if (*info->settings)
        text_wrapped(t, "Settings", info->settings);
    fprintf(t, "  Nodes        %u", info->nodes);
    if (info->ranks != info->nodes)
        fprintf(t, " with %u ranks", info->ranks);
    if (info->hosts == 1)
        fprintf(t, "%s one physical host with %u processor%s\n", info->nodes == 1 ? ":" : ", all on",
                info->processors, info->processors == 1 ? "" : "s");
    else
        fprintf(t, ", on %u physical hosts with %u processors\n", info->hosts, info->processors);
    fprintf(t, "  Mode         %s\n",
            info->tournament ? "tournament: disjoint pairs at once, as many as processors allow"
                             : "serial: one pair at a time, the other ranks sleep");
    fprintf(t, "  Clock        %u ns a reading, already taken off\n\n", info->clock_ns);
}

static void text_columns(FILE *t)
{
    fprintf(t, "%35s%32s%12s\n", "", "one-way latency, microseconds", "throughput");
    fprintf(t, "  %-*s %-*s%8s%8s%8s%8s%12s\n", NAME_COLUMNS, "from", NAME_COLUMNS, "to", "min", "median",
            "p99", "max", "MB/s");
    fprintf(t, "  ---------------- ----------------  ------  ------  ------  ------  ----------\n");
}

static void text_pair(FILE *t, const struct run_info *info, const struct pair_report *p)
{
    char from[NAME_COLUMNS + 1], to[NAME_COLUMNS + 1], f[5][16];
    fprintf(t, "  %-*s %-*s%8s%8s%8s%8s%12s%s\n", NAME_COLUMNS, name_cut(info->labels[p->from], from),
            NAME_COLUMNS, name_cut(info->labels[p->to], to), figure_us(p->from_end.min, f[0]),
            figure_us(p->from_end.p50, f[1]), figure_us(p->from_end.p99, f[2]),
            figure_us(p->from_end.max, f[3]), figure(p->mbps, f[4]), p->damaged ? "  DAMAGED" : "");
    fflush(t);
}

struct report *report_open(const struct run_info *info, FILE *text, struct error *err)
{
    struct xml *xml = NULL;
    if (info->options->xml && !(xml = xml_open(info, err)))
        return NULL;
    struct report *r = xcalloc(1, sizeof *r);
    r->info = info;
    r->text = text;
    r->xml = xml;
    r->sum.processor = 1;
    r->rows =
        info->options->rows == ROWS_ALL || (info->options->rows == ROWS_AUTO && info->pairs <= ROWS_AUTO_MAX);
    if (sample_init(&r->medians, info->pairs) < 0)
        abort(); /* out of memory, as xcalloc() does */
    if (text) {
        text_head(text, info);
        if (r->rows)
            text_columns(text);
        fflush(text);
    }
    return r;
}

static void summary_path(struct summary *s, const char *name)
{
    unsigned i = 0;
    while (i < s->path_count && strcmp(s->paths[i].name, name))
        i++;
    if (i == s->path_count) {
        if (i < SUMMARY_PATHS) {
            s->path_count++;
            snprintf(s->paths[i].name, PATH_TEXT, "%s", i == SUMMARY_PATHS - 1 ? "other" : name);
        } else {
            i = SUMMARY_PATHS - 1;
        }
    }
    s->paths[i].pairs++;
}

void report_pair(struct report *r, const struct pair_report *p)
{
    struct summary *s = &r->sum;
    if (!s->pairs || p->from_end.p50 < s->best.from_end.p50)
        s->best = *p;
    if (!s->pairs || p->from_end.p50 > s->worst.from_end.p50)
        s->worst = *p;
    if (p->damaged && !s->damaged)
        s->bad = *p;
    if (!p->shared && p->processor < s->processor)
        s->processor = p->processor;
    s->pairs++;
    s->damaged += p->damaged;
    s->shared += p->shared;
    summary_path(s, p->path);
    sample_add(&r->medians, (uint64_t)(p->from_end.p50 * PICO + 0.5));
    if (r->text && (r->rows || p->damaged))
        text_pair(r->text, r->info, p);
    if (r->xml)
        xml_pair(r->xml, r->info, p);
}

static void text_extreme(FILE *t, const struct run_info *info, const char *word, const struct pair_report *p)
{
    char from[NAME_COLUMNS + 1], to[NAME_COLUMNS + 1], f[2][16];
    char ends[2 * NAME_COLUMNS + 8];
    snprintf(ends, sizeof ends, "%s -> %s", name_cut(info->labels[p->from], from),
             name_cut(info->labels[p->to], to));
    fprintf(t, "  %-15s %-35s %13s %11s\n", word, ends, figure_us(p->from_end.p50, f[0]),
            figure(p->mbps, f[1]));
}

static void text_paths(FILE *t, const struct summary *s)
{
    for (unsigned i = 0; i < s->path_count; i++) {
        fprintf(t, "  %-12s %s", i ? "" : "Path", s->paths[i].name);
        if (s->path_count > 1)
            fprintf(t, " (%llu pairs)", (unsigned long long)s->paths[i].pairs);
        fputc('\n', t);
    }
}

static void text_summary(FILE *t, const struct run_info *info, const struct summary *s)
{
    char f[2][16], head[64];
    snprintf(head, sizeof head, "of %llu pair%s", (unsigned long long)s->pairs, s->pairs == 1 ? "" : "s");
    fprintf(t, "\n  %-15s %-35s %13s %11s\n", "median latency", head, "microseconds", "MB/s");
    fprintf(t, "  --------------- -----------------------------------  ------------  ----------\n");
    text_extreme(t, info, "minimum (best)", &s->best);
    fprintf(t, "  %-15s %-35s %13s %11s\n", "median", "", figure_us(s->median_us, f[0]),
            figure(s->median_mbps, f[1]));
    text_extreme(t, info, "maximum (worst)", &s->worst);
    fputc('\n', t);
    text_paths(t, s);
    if (s->shared)
        fprintf(t,
                "  Processors   shared by both ends of %llu pair%s: they yield while they wait, so\n"
                "               figures hold the scheduler's time too\n",
                (unsigned long long)s->shared, s->shared == 1 ? "" : "s");
    else
        fprintf(t, "  Processors   one for each measuring rank%s\n",
                info->library_yields ? "; the MPI library yields as it waits" : ", no yielding");
    if (s->processor < DISTURBED)
        fprintf(t, "  Disturbed    other programs took up to %.0f %% of a measuring processor's time\n",
                100 * (1 - s->processor));
    if (s->damaged)
        fprintf(t, "  DAMAGED      %llu pair%s received other bytes than were sent\n",
                (unsigned long long)s->damaged, s->damaged == 1 ? "" : "s");
    fprintf(t, "  Time         %.1f s\n", s->seconds);
}

int report_close(struct report *r, double seconds, struct error *err)
{
    struct summary *s = &r->sum;
    int rc = 0;
    sample_finish(&r->medians);
    s->seconds = seconds;
    s->median_us = sample_quantile(&r->medians, 0.5) / PICO;
    s->median_mbps = s->median_us > 0 ? r->info->options->size / s->median_us : 0;
    if (r->text) {
        text_summary(r->text, r->info, s);
        if (fflush(r->text) != 0 || ferror(r->text))
            rc = error_sys(err, "standard output");
    }
    if (s->damaged)
        rc = error_set(err, ERR_IO, "data damaged on the way between %s and %s%s",
                       r->info->labels[s->bad.from], r->info->labels[s->bad.to],
                       s->damaged > 1 ? " and other pairs" : "");
    if (r->xml && xml_close(r->xml, r->info, s, err) < 0)
        rc = -1;
    sample_release(&r->medians);
    free(r);
    return rc;
}
