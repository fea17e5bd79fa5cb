/* options.c - reads command lines by the tables of options.h.
 *
 * One pass over the words. Each is an option (by its spelling alone, so that a wrong one is
 * reported instead of becoming a command), a word, or the first word of a command line, where
 * reading stops. Values go through the option's `set`, whose complaint gets the option and the
 * value put in front: "option /numnodes: "abc": expected a number from 1 to 1000000".
 */
#include "cli/options.h"
#include "base/buf.h"
#include "base/mem.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define SHOWN_MAX 100 /* bytes of a strange value that a message repeats */
#define SHOWN_LONG_MAX 2000
#define NAMES_MAX 10000 /* names in one list */

static struct {
    void **list; /* reachable until the end, so nothing is lost; freeing at exit would only cost time */
    size_t count, cap;
} kept;

void *cli_keep(void *p)
{
    kept.list = xgrow(kept.list, &kept.cap, kept.count + 1, sizeof *kept.list);
    kept.list[kept.count++] = p;
    return p;
}

void cli_release(void)
{
    for (size_t i = 0; i < kept.count; i++)
        free(kept.list[i]);
    free(kept.list);
    memset(&kept, 0, sizeof kept);
}

/* At most about `max` bytes of text, control characters as \xNN, whole UTF-8 characters. */
static const char *shown_up_to(const char *text, size_t max)
{
    static struct buf ring[4];
    static unsigned next;
    struct buf *b = &ring[next++ % 4];
    buf_reset(b);
    buf_adds(b, "");
    const unsigned char *p = (const unsigned char *)text;
    for (; *p && b->len < max; p++) {
        if (*p < 0x20 || *p == 0x7f)
            buf_addf(b, "\\x%02x", *p);
        else
            buf_addc(b, (char)*p);
    }
    if (*p) {
        while (b->len && ((unsigned char)b->data[b->len - 1] & 0xc0) == 0x80)
            b->len--;
        if (b->len && (unsigned char)b->data[b->len - 1] >= 0xc0)
            b->len--;
        b->data[b->len] = 0;
        buf_adds(b, "...");
    }
    return buf_str(b);
}

const char *shown(const char *text)
{
    return shown_up_to(text, SHOWN_MAX);
}

const char *shown_long(const char *text)
{
    return shown_up_to(text, SHOWN_LONG_MAX);
}

void words_add(struct words *w, char *word)
{
    /* The old array stays with cli_keep(): growth is by halves, and lists are short. */
    if (w->count == w->cap) {
        size_t cap = w->cap ? w->cap * 2 : 8;
        char **list = cli_keep(xcalloc(cap, sizeof *list));
        if (w->count)
            memcpy(list, w->list, w->count * sizeof *list);
        w->list = list;
        w->cap = cap;
    }
    w->list[w->count++] = word;
}

int option_flag(const struct option *opt, void *field, const char *value, struct error *err)
{
    static const struct {
        const char *word;
        bool on;
    } table[] = {{"true", true}, {"yes", true}, {"1", true}, {"false", false}, {"no", false}, {"0", false}};
    if (!value) {
        *(bool *)field = true;
        return 0;
    }
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (!strcasecmp(value, table[i].word)) {
            *(bool *)field = table[i].on;
            return 0;
        }
    }
    return error_set(err, ERR_USAGE, "expected true or false");
}

int option_help(const struct option *opt, void *field, const char *value, struct error *err)
{
    return 0; /* never called: known by its address */
}

int option_text(const struct option *opt, void *field, const char *value, struct error *err)
{
    size_t max = opt->max ? opt->max : 4096;
    if (strlen(value) > max)
        return error_set(err, ERR_USAGE, "expected at most %zu characters", max);
    *(const char **)field = value;
    return 0;
}

int option_number(const struct option *opt, void *field, const char *value, struct error *err)
{
    uint32_t max = opt->max ? opt->max : INT32_MAX;
    char *end;
    errno = 0;
    unsigned long n = strtoul(value, &end, 10);
    if (!isdigit((unsigned char)*value) || *end || errno || n < opt->min || n > max)
        return error_set(err, ERR_USAGE, "expected a number from %u to %u", opt->min, max);
    *(uint32_t *)field = (uint32_t)n;
    return 0;
}

int option_names(const struct option *opt, void *field, const char *value, struct error *err)
{
    struct words *w = field;
    size_t max = opt->max ? opt->max : NAMES_MAX;
    int depth = 0; /* commas inside node[1,3] do not separate */
    const char *start = value;
    for (const char *p = value;; p++) {
        if (*p == '[')
            depth++;
        if (*p == ']' && depth)
            depth--;
        if (*p && (*p != ',' || depth))
            continue;
        if (p == start || w->count >= max)
            return error_set(err, ERR_USAGE, "expected names separated by commas, no blanks, at most %zu",
                             max);
        /* A group's name may have blanks inside; one beside a comma is a slip of the hand. */
        if (isspace((unsigned char)*start) || isspace((unsigned char)p[-1]))
            return error_set(err, ERR_USAGE, "expected names separated by commas, without blanks");
        words_add(w, cli_keep(xstrndup(start, (size_t)(p - start))));
        if (!*p)
            return 0;
        start = p + 1;
    }
}

/* ---- names ---- */

/* Case and hyphens do not count. `len` bytes of a, whole b. */
static bool name_equal(const char *a, size_t len, const char *b)
{
    const char *end = a + len;
    for (;;) {
        while (a < end && (*a == '-' || *a == '_'))
            a++;
        while (*b == '-' || *b == '_')
            b++;
        if (a == end || !*b)
            return a == end && !*b;
        if (tolower((unsigned char)*a++) != tolower((unsigned char)*b++))
            return false;
    }
}

static bool name_in_list(const char *name, size_t len, const char *list)
{
    char word[64];
    while (list && *list) {
        size_t n = strcspn(list, " ");
        snprintf(word, sizeof word, "%.*s", (int)n, list);
        if (name_equal(name, len, word))
            return true;
        list += n + strspn(list + n, " ");
    }
    return false;
}

/* Edits between two short words, a swap of neighbours counting as one. */
static unsigned edit_distance(const char *a, const char *b)
{
    enum { MAX = 40 };
    size_t la = strlen(a), lb = strlen(b);
    unsigned d[MAX + 1][MAX + 1];
    if (la > MAX || lb > MAX)
        return UINT_MAX;
    for (size_t i = 0; i <= la; i++)
        d[i][0] = (unsigned)i;
    for (size_t j = 0; j <= lb; j++)
        d[0][j] = (unsigned)j;
    for (size_t i = 1; i <= la; i++) {
        for (size_t j = 1; j <= lb; j++) {
            int ca = tolower((unsigned char)a[i - 1]), cb = tolower((unsigned char)b[j - 1]);
            unsigned best = d[i - 1][j - 1] + (ca != cb);
            if (d[i - 1][j] + 1 < best)
                best = d[i - 1][j] + 1;
            if (d[i][j - 1] + 1 < best)
                best = d[i][j - 1] + 1;
            if (i > 1 && j > 1 && ca == tolower((unsigned char)b[j - 2]) &&
                cb == tolower((unsigned char)a[i - 2]) && d[i - 2][j - 2] + 1 < best)
                best = d[i - 2][j - 2] + 1;
            d[i][j] = best;
        }
    }
    return d[la][lb];
}

const char *nearest_name(const char *word, const char *const *names, size_t count)
{
    const char *best = NULL;
    unsigned least = UINT_MAX;
    size_t len = strlen(word);
    for (size_t i = 0; i < count; i++) {
        unsigned d = edit_distance(word, names[i]);
        if (len >= 3 && !strncasecmp(word, names[i], len))
            d = d < 1 ? d : 1; /* a beginning is a good guess */
        else if (len >= 4 && strcasestr(names[i], word))
            d = d < 2 ? d : 2; /* a part of it ("name" for jobname) is a fair one */
        if (d < least) {
            least = d;
            best = names[i];
        }
    }
    return least <= (len <= 3 ? 1u : len <= 6 ? 2u : 3u) ? best : NULL;
}

/* ---- reading ---- */

/* One option as typed: how it was introduced, its name, its value if it is in the same word. */
struct typed {
    const char *word;
    char intro; /* '-' or '/' */
    const char *name;
    size_t name_len;
    const char *value; /* NULL: none in this word */
};

/* Whether the word is an option by its spelling. */
static bool typed_read(const char *word, struct typed *t)
{
    *t = (struct typed){.word = word};
    if (word[0] == '-' && word[1]) {
        t->intro = '-';
        t->name = word + (word[1] == '-' ? 2 : 1);
        t->name_len = strcspn(t->name, "=");
        t->value = t->name[t->name_len] ? t->name + t->name_len + 1 : NULL;
        return true;
    }
    if (word[0] == '/' && word[1]) {
        t->intro = '/';
        t->name = word + 1;
        t->name_len = strcspn(t->name, ":/");
        if (t->name[t->name_len] == '/' || !t->name_len)
            return false; /* a path */
        t->value = t->name[t->name_len] ? t->name + t->name_len + 1 : NULL;
        return true;
    }
    return false;
}

static const char *typed_text(const struct typed *t)
{
    static char text[128];
    char word[96];
    snprintf(word, sizeof word, "%.*s", (int)(t->name_len > 60 ? 60 : t->name_len), t->name);
    snprintf(text, sizeof text, "%s%s", t->intro == '/' ? "/" : t->word[1] == '-' ? "--" : "-", shown(word));
    return text;
}

static const struct option *find_option(const struct option_table *tables, const struct typed *t, void **base)
{
    /* A single hyphen introduces only one-letter names; they are aliases in the tables. */
    bool letter = t->intro == '-' && t->word[1] != '-';
    if (letter && t->name_len != 1)
        return NULL;
    for (; tables->options; tables++) {
        for (const struct option *o = tables->options; o->name; o++) {
            if ((!letter && name_equal(t->name, t->name_len, o->name)) ||
                name_in_list(t->name, t->name_len, o->aliases)) {
                *base = tables->base;
                return o;
            }
        }
    }
    return NULL;
}

static int unknown_option(const struct option_table *tables, const struct typed *t, struct error *err)
{
    const char *names[256];
    size_t count = 0;
    for (; tables->options; tables++)
        for (const struct option *o = tables->options; o->name && count < 256; o++)
            if (o->text)
                names[count++] = o->name;
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)(t->name_len > 60 ? 60 : t->name_len), t->name);
    const char *near = nearest_name(name, names, count);
    if (near)
        return error_set(err, ERR_USAGE, "unknown option %s; did you mean %s%s?", typed_text(t),
                         t->intro == '/' ? "/" : "--", near);
    return error_set(err, ERR_USAGE, "unknown option %s; --help lists the options", typed_text(t));
}

/* Reads the option in argv[*i], which may take the next word as its value. */
static int read_option(const struct option_table *tables, const struct typed *t, int *i, int argc,
                       char **argv, struct error *err)
{
    void *base = NULL;
    const struct option *o = find_option(tables, t, &base);
    if (!o)
        return unknown_option(tables, t, err);
    if (!o->set)
        return error_set(err, ERR_USAGE, "option %s is not supported in this version", typed_text(t));
    const char *value = t->value;
    if (o->value && !value) {
        if (t->intro == '/' || *i + 1 >= argc)
            return error_set(err, ERR_USAGE, "option %s needs a value: %s%s%s", typed_text(t), typed_text(t),
                             t->intro == '/' ? ":" : " ", o->value);
        value = argv[++*i];
    }
    if (o->set == option_help)
        return 1;
    if (o->set(o, (char *)base + o->offset, value, err)) {
        char name[128];
        snprintf(name, sizeof name, "%s", typed_text(t));
        return error_prefix(err, "option %s: \"%s\"", name, shown(value ? value : ""));
    }
    return 0;
}

int options_parse(const struct option_table *tables, int tail_after, int argc, char **argv,
                  struct words *words, struct error *err)
{
    bool ended = false; /* `--` was seen */
    for (int i = 0; i < argc; i++) {
        struct typed t;
        if (!ended && !strcmp(argv[i], "--")) {
            ended = true;
            continue;
        }
        if (!ended && typed_read(argv[i], &t)) {
            int rc = read_option(tables, &t, &i, argc, argv, err);
            if (rc)
                return rc;
            continue;
        }
        words_add(words, argv[i]);
        if (tail_after >= 0 && words->count > (size_t)tail_after)
            ended = true;
    }
    return 0;
}
