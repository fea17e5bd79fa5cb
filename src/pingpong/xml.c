/* xml.c - the report as XML, through libxml2's writer; the schema is docs/mpipingpong-xml.md.
 *
 * The file is written pair by pair under its own name, so a run of hours can be followed and one
 * that is cut off leaves what it measured: a file without <summary> is not complete.
 */
#include "pingpong/xml.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <libxml/xmlwriter.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct xml {
    FILE *file;
    const char *path;
    xmlTextWriterPtr writer;
    bool failed;
};

static void element(struct xml *x, const char *name)
{
    x->failed |= xmlTextWriterStartElement(x->writer, BAD_CAST name) < 0;
}

static void element_end(struct xml *x)
{
    x->failed |= xmlTextWriterEndElement(x->writer) < 0;
}

/* Bytes that are not UTF-8, which libxml2 would refuse, become '?'. */
static void attribute(struct xml *x, const char *name, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void attribute(struct xml *x, const char *name, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    char *text = NULL;
    if (vasprintf(&text, fmt, ap) < 0)
        abort();
    va_end(ap);
    bool utf8 = xmlCheckUTF8(BAD_CAST text);
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f || (!utf8 && (unsigned char)*c >= 0x80))
            *c = '?';
    x->failed |= xmlTextWriterWriteAttribute(x->writer, BAD_CAST name, BAD_CAST text) < 0;
    free(text);
}

static void flush(struct xml *x)
{
    x->failed |= xmlTextWriterFlush(x->writer) < 0 || fflush(x->file) != 0;
}

static const char *yes(bool value)
{
    return value ? "true" : "false";
}

static void write_run(struct xml *x, const struct run_info *info)
{
    char start[32];
    time_t now = time(NULL);
    struct tm tm;
    strftime(start, sizeof start, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &tm));
    element(x, "run");
    attribute(x, "start", "%s", start);
    attribute(x, "mode", "%s", info->tournament ? "tournament" : "serial");
    attribute(x, "bytes", "%u", info->options->size);
    attribute(x, "iterations", "%u", info->options->iterations);
    attribute(x, "warmup", "%u", info->options->warmup);
    attribute(x, "library", "%s", info->library);
    attribute(x, "settings", "%s", info->settings);
    attribute(x, "ranks", "%u", info->ranks);
    attribute(x, "nodes", "%u", info->nodes);
    attribute(x, "physicalHosts", "%u", info->hosts);
    attribute(x, "processors", "%u", info->processors);
    attribute(x, "pairs", "%llu", (unsigned long long)info->pairs);
    attribute(x, "clockNanoseconds", "%u", info->clock_ns);
    attribute(x, "libraryYields", "%s", yes(info->library_yields));
    element_end(x);
    element(x, "nodes");
    for (uint32_t i = 0; i < info->ranks; i++) {
        element(x, "node");
        attribute(x, "rank", "%u", i);
        attribute(x, "name", "%s", info->labels[i]);
        attribute(x, "physicalHost", "%u", info->host_of[i]);
        element_end(x);
    }
    element_end(x);
}

/* libxml2 would print to stderr; what failed is in our own error. */
static void silence(void *arg, xmlErrorPtr error)
{
}

struct xml *xml_open(const struct run_info *info, struct error *err)
{
    const char *path = info->options->xml;
    FILE *file = fopen(path, "we");
    if (!file) {
        error_sys(err, "outfile: \"%.200s\": cannot be written", path);
        return NULL;
    }
    xmlSetStructuredErrorFunc(NULL, silence);
    struct xml *x = xcalloc(1, sizeof *x);
    x->file = file;
    x->path = path;
    xmlOutputBufferPtr out = xmlOutputBufferCreateFile(file, NULL);
    x->writer = out ? xmlNewTextWriter(out) : NULL;
    if (!x->writer)
        abort(); /* out of memory */
    xmlTextWriterSetIndent(x->writer, 1);
    xmlTextWriterSetIndentString(x->writer, BAD_CAST " ");
    x->failed |= xmlTextWriterStartDocument(x->writer, NULL, "UTF-8", NULL) < 0;
    element(x, "mpipingpong");
    attribute(x, "schema", "1");
    attribute(x, "version", "%s", MUSTER_VERSION);
    write_run(x, info);
    element(x, "pairs");
    flush(x);
    return x;
}

static void write_latency(struct xml *x, const char *end, const struct latency *l)
{
    element(x, "latency");
    attribute(x, "unit", "us");
    attribute(x, "measuredAt", "%s", end);
    attribute(x, "min", "%.4f", l->min);
    attribute(x, "median", "%.4f", l->p50);
    attribute(x, "p95", "%.4f", l->p95);
    attribute(x, "p99", "%.4f", l->p99);
    attribute(x, "max", "%.4f", l->max);
    element_end(x);
}

static void write_ends(struct xml *x, const struct run_info *info, const struct pair_report *pair)
{
    attribute(x, "from", "%s", info->labels[pair->from]);
    attribute(x, "to", "%s", info->labels[pair->to]);
}

void xml_pair(struct xml *x, const struct run_info *info, const struct pair_report *pair)
{
    element(x, "pair");
    write_ends(x, info, pair);
    attribute(x, "fromRank", "%u", pair->from);
    attribute(x, "toRank", "%u", pair->to);
    attribute(x, "iterations", "%llu", (unsigned long long)pair->iterations);
    attribute(x, "path", "%s", pair->path);
    attribute(x, "sharedProcessor", "%s", yes(pair->shared));
    attribute(x, "processorTime", "%.3f", pair->processor);
    attribute(x, "damaged", "%s", yes(pair->damaged));
    write_latency(x, "from", &pair->from_end);
    write_latency(x, "to", &pair->to_end);
    element(x, "throughput");
    attribute(x, "unit", "MB/s");
    attribute(x, "median", "%.6g", pair->mbps);
    element_end(x);
    element_end(x);
    flush(x);
}

static void write_extreme(struct xml *x, const char *name, const struct run_info *info,
                          const struct pair_report *pair)
{
    element(x, name);
    write_ends(x, info, pair);
    attribute(x, "latency", "%.4f", pair->from_end.p50);
    attribute(x, "throughput", "%.6g", pair->mbps);
    element_end(x);
}

int xml_close(struct xml *x, const struct run_info *info, const struct summary *sum, struct error *err)
{
    element_end(x);
    element(x, "summary");
    attribute(x, "pairs", "%llu", (unsigned long long)sum->pairs);
    attribute(x, "damaged", "%llu", (unsigned long long)sum->damaged);
    attribute(x, "sharedProcessor", "%llu", (unsigned long long)sum->shared);
    attribute(x, "processorTime", "%.3f", sum->processor);
    attribute(x, "seconds", "%.3f", sum->seconds);
    write_extreme(x, "best", info, &sum->best);
    element(x, "median");
    attribute(x, "latency", "%.4f", sum->median_us);
    attribute(x, "throughput", "%.6g", sum->median_mbps);
    element_end(x);
    write_extreme(x, "worst", info, &sum->worst);
    for (unsigned i = 0; i < sum->path_count; i++) {
        element(x, "path");
        attribute(x, "name", "%s", sum->paths[i].name);
        attribute(x, "pairs", "%llu", (unsigned long long)sum->paths[i].pairs);
        element_end(x);
    }
    element_end(x);
    x->failed |= xmlTextWriterEndDocument(x->writer) < 0;
    flush(x);
    bool failed = x->failed;
    int at = errno;
    xmlFreeTextWriter(x->writer);
    if (fclose(x->file) != 0) {
        failed = true;
        at = errno;
    }
    errno = at;
    if (failed)
        error_sys(err, "outfile: \"%.200s\": not written in full", x->path);
    free(x);
    return failed ? -1 : 0;
}
