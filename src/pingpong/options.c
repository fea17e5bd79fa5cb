/* options.c - one table of options, read by the parser and by its refusals.
 *
 * The classic program's modes and packet sets that this version does not have are in the table
 * too, so that a script which uses them is told what is missing and what to use instead.
 */
#include "pingpong/options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum option_id {
    OPT_HELP,
    OPT_VERSION,
    OPT_SEVERAL,
    OPT_SERIAL,
    OPT_TOURNAMENT,
    OPT_PACKET,
    OPT_ALL,
    OPT_BRIEF,
    OPT_PRETTY,
    OPT_QUIET,
    OPT_REFUSED
};

/* Options of one group exclude each other. */
enum option_group { GROUP_NONE, GROUP_MODE, GROUP_PACKET, GROUP_ROWS, GROUP_SCREEN, GROUP_COUNT };

static const struct option {
    const char *name;
    enum option_id id;
    enum option_group group;
    const char *instead; /* OPT_REFUSED: what to do */
} option_table[] = {
    {"h", OPT_HELP, GROUP_NONE, NULL},
    {"help", OPT_HELP, GROUP_NONE, NULL},
    {"?", OPT_HELP, GROUP_NONE, NULL},
    {"version", OPT_VERSION, GROUP_NONE, NULL},
    {"m", OPT_SEVERAL, GROUP_NONE, NULL},
    {"multiple-cores", OPT_SEVERAL, GROUP_NONE, NULL},
    {"s", OPT_SERIAL, GROUP_MODE, NULL},
    {"t", OPT_TOURNAMENT, GROUP_MODE, NULL},
    {"p", OPT_PACKET, GROUP_PACKET, NULL},
    {"oa", OPT_ALL, GROUP_ROWS, NULL},
    {"ob", OPT_BRIEF, GROUP_ROWS, NULL},
    {"op", OPT_PRETTY, GROUP_SCREEN, NULL},
    {"oq", OPT_QUIET, GROUP_SCREEN, NULL},
    {"r", OPT_REFUSED, GROUP_MODE, "the serial ring is not in this version; use -s or -t"},
    {"rs", OPT_REFUSED, GROUP_MODE, "the serial ring is not in this version; use -s or -t"},
    {"pb", OPT_REFUSED, GROUP_PACKET, "packet sets are not in this version; use -p <bytes>[:<iterations>]"},
    {"pc", OPT_REFUSED, GROUP_PACKET, "packet sets are not in this version; use -p <bytes>[:<iterations>]"},
    {"pl", OPT_REFUSED, GROUP_PACKET, "packet sets are not in this version; use -p 1:100000"},
    {"pt", OPT_REFUSED, GROUP_PACKET, "packet sets are not in this version; use -p 4000000:1000"},
};

static const char help_text[] =
    "mpipingpong: latency and throughput between every pair of nodes of an MPI job\n"
    "\n"
    "  mpiexec -c 1 mpipingpong [options] [outfile]\n"
    "\n"
    "  outfile              write the report as XML to this file; nul or /dev/null\n"
    "                       discards it. Without a file the text goes to the screen.\n"
    "Which pairs, when\n"
    "  -s                   serial: one pair at a time, all others asleep (the default\n"
    "                       where several hosts share processors)\n"
    "  -t                   tournament: rounds of disjoint pairs at the same time\n"
    "                       (the default elsewhere)\n"
    "  -m, --multiple-cores let several ranks of one node take part\n"
    "What is sent\n"
    "  -p <bytes>[:<n>]     packets of <bytes> (0..1073741824), <n> round trips a pair\n"
    "                       (1..100000000). Default 1 byte; without <n> as many as\n"
    "                       take some tenths of a second, 10 to 10000\n"
    "What is shown\n"
    "  -op                  readable text on the screen (also beside a file)\n"
    "  -oq                  only errors on the screen\n"
    "  -oa                  every pair (the default up to 1000 pairs)\n"
    "  -ob                  the summary alone\n"
    "  -h, --help           this text;  --version\n"
    "\n"
    "Options may begin with - or /, in any case. Latency is half a round trip, in\n"
    "microseconds; throughput is bytes over latency, in MB/s (10^6 bytes a second).\n"
    "Exit code: 0 measured, 1 failed or data arrived damaged, 2 wrong usage.\n";

const char *options_help(void)
{
    return help_text;
}

/* Round trips that take some tenths of a second at a few microseconds and some GB/s. */
static uint32_t iterations_default(uint32_t size)
{
    uint32_t n = 400000000u / (size + 40000u);
    return n < 10 ? 10 : n;
}

/* Connections are made by the first messages, and libraries switch paths in the next few. */
static uint32_t warmup_default(uint32_t iterations)
{
    uint32_t n = iterations / 20;
    return n < 5 ? 5 : n > 2000 ? 2000 : n;
}

/* Digits only, lo..hi; *end is what follows. */
static int number_parse(const char *s, unsigned long lo, unsigned long hi, uint32_t *out, const char **end)
{
    char *after;
    if (*s < '0' || *s > '9')
        return -1;
    errno = 0;
    unsigned long v = strtoul(s, &after, 10);
    if (errno || v < lo || v > hi)
        return -1;
    *out = (uint32_t)v;
    *end = after;
    return 0;
}

static int packet_parse(struct pingpong_options *o, const char *value, struct error *err)
{
    const char *end;
    if (number_parse(value, 0, PINGPONG_SIZE_MAX, &o->size, &end) < 0 || (*end && *end != ':'))
        return error_set(err, ERR_USAGE,
                         "option -p: \"%.60s\": expected <bytes>[:<iterations>] with 0..%u bytes, such as "
                         "-p 1:100000",
                         value, PINGPONG_SIZE_MAX);
    o->iterations = iterations_default(o->size);
    if (*end == ':' && (number_parse(end + 1, 1, PINGPONG_ITERATIONS_MAX, &o->iterations, &end) < 0 || *end))
        return error_set(
            err, ERR_USAGE,
            "option -p: \"%.60s\": expected 1..%u iterations after the colon, such as -p 1:100000", value,
            PINGPONG_ITERATIONS_MAX);
    return 0;
}

/* Whether the word is an option rather than a file. */
static bool is_option(const char *word)
{
    if (word[0] == '-')
        return true;
    return word[0] == '/' && !strchr(word + 1, '/');
}

/* The row of `word` and, in *value, what follows its colon (NULL: nothing). "--help", "/HELP", "-P:1". */
static const struct option *option_find(const char *word, const char **value)
{
    const char *name = word + 1;
    if (word[0] == '-' && *name == '-')
        name++;
    size_t len = strcspn(name, ":=");
    *value = name[len] ? name + len + 1 : NULL;
    for (size_t i = 0; i < sizeof option_table / sizeof *option_table; i++)
        if (strlen(option_table[i].name) == len && !strncasecmp(option_table[i].name, name, len))
            return &option_table[i];
    return NULL;
}

static void option_apply(struct pingpong_options *o, enum option_id id)
{
    switch (id) {
    case OPT_HELP:
        o->help = true;
        break;
    case OPT_VERSION:
        o->version = true;
        break;
    case OPT_SEVERAL:
        o->several_per_node = true;
        break;
    case OPT_SERIAL:
        o->mode = MODE_SERIAL;
        break;
    case OPT_TOURNAMENT:
        o->mode = MODE_TOURNAMENT;
        break;
    case OPT_ALL:
        o->rows = ROWS_ALL;
        break;
    case OPT_BRIEF:
        o->rows = ROWS_NONE;
        break;
    case OPT_PRETTY:
        o->text = true;
        break;
    case OPT_QUIET:
        o->quiet = true;
        break;
    case OPT_PACKET:
    case OPT_REFUSED:
        break;
    }
}

static int file_take(struct pingpong_options *o, const char *word, bool *seen, struct error *err)
{
    if (!*word)
        return error_set(err, ERR_USAGE, "outfile: \"\": expected a file name, or nul to discard it");
    if (*seen)
        return error_set(err, ERR_USAGE, "outfile: \"%.200s\": expected one file name, this is the second",
                         word);
    *seen = true;
    o->xml = strcasecmp(word, "nul") && strcmp(word, "/dev/null") ? word : NULL;
    return 0;
}

int options_parse(struct pingpong_options *o, int argc, char **argv, struct error *err)
{
    const struct option *chosen[GROUP_COUNT] = {NULL};
    bool file_seen = false;
    *o = (struct pingpong_options){.size = 1, .iterations = iterations_default(1)};
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i], *value;
        if (!is_option(word)) {
            if (file_take(o, word, &file_seen, err) < 0)
                return -1;
            continue;
        }
        const struct option *opt = option_find(word, &value);
        if (!opt)
            return error_set(err, ERR_USAGE, "option \"%.60s\": not known; mpipingpong -h lists the options",
                             word);
        if (opt->id == OPT_REFUSED)
            return error_set(err, ERR_USAGE, "option -%s: %s", opt->name, opt->instead);
        if (opt->group && chosen[opt->group])
            return error_set(err, ERR_USAGE, "option -%s: -%s was given already; expected one of them",
                             opt->name, chosen[opt->group]->name);
        chosen[opt->group] = opt->group ? opt : NULL;
        if (opt->id == OPT_PACKET) {
            if (!value && i + 1 == argc)
                return error_set(err, ERR_USAGE,
                                 "option -p: no value: expected <bytes>[:<iterations>], such as -p 1:100000");
            if (packet_parse(o, value ? value : argv[++i], err) < 0)
                return -1;
        } else if (value) {
            return error_set(err, ERR_USAGE, "option -%s: \"%.60s\": expected no value", opt->name, value);
        }
        option_apply(o, opt->id);
    }
    if (!file_seen && !o->quiet)
        o->text = true;
    o->warmup = warmup_default(o->iterations);
    return 0;
}
