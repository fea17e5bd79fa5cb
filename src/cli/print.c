/* print.c - tables, lists and JSON. A table is collected whole, then printed: widths are known
 * only then. */
#include "cli/print.h"
#include "base/mem.h"
#include "cli/nodeset.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>
#include <wchar.h>

#define SHOW_WIDTH 33   /* of the name in `Name : value` */
#define FLEXIBLE_MIN 8  /* a column is not made narrower than this */
#define SENTENCE_MIN 36 /* nor a sentence than this, while another column can be left out */

/* ---- text ---- */

/* The text with control characters (C0, DEL, and C1 in UTF-8) shown, freed by the caller. */
static char *clean(const char *text)
{
    struct buf b = BUF_INIT;
    buf_adds(&b, "");
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if (*p == '\n' || *p == '\t')
            buf_addc(&b, ' ');
        else if (*p < 0x20 || *p == 0x7f || (*p == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0))
            buf_addf(&b, "\\x%02x", *p);
        else
            buf_addc(&b, (char)*p);
    }
    return buf_detach(&b);
}

/* Columns on a terminal. `max`: how many bytes of it fit into that many columns goes to *bytes. */
static size_t text_width(const char *text, size_t max, size_t *bytes)
{
    mbstate_t state = {0};
    size_t width = 0;
    const char *p = text;
    while (*p) {
        wchar_t wc;
        size_t n = mbrtowc(&wc, p, strlen(p), &state);
        int w = 1;
        if (n == (size_t)-1 || n == (size_t)-2 || n == 0) {
            n = 1;
            memset(&state, 0, sizeof state);
        } else {
            w = wcwidth(wc);
            if (w < 0)
                w = 1;
        }
        if (width + (size_t)w > max)
            break;
        width += (size_t)w;
        p += n;
    }
    if (bytes)
        *bytes = (size_t)(p - text);
    return width;
}

static const char *state_color(const char *word)
{
    static const struct {
        const char *word, *color;
    } table[] = {
        {"Running", "\033[32m"},   {"Online", "\033[32m"},      {"OK", "\033[32m"},
        {"Failed", "\033[31m"},    {"Error", "\033[31m"},       {"Offline", "\033[33m"},
        {"Draining", "\033[33m"},  {"Unreachable", "\033[31m"}, {"Canceled", "\033[33m"},
        {"Canceling", "\033[33m"}, {"Queued", "\033[36m"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (!strcmp(word, table[i].word))
            return table[i].color;
    return "";
}

/* ---- tables ---- */

struct table {
    const struct column *columns;
    size_t width; /* number of columns */
    char **cells;
    size_t count, cap;
};

struct table *table_new(const struct column *columns)
{
    struct table *t = xcalloc(1, sizeof *t);
    t->columns = columns;
    while (columns[t->width].title)
        t->width++;
    assert(t->width > 0);
    return t;
}

void table_add(struct table *t, const char *text)
{
    t->cells = xgrow(t->cells, &t->cap, t->count + 1, sizeof *t->cells);
    t->cells[t->count++] = clean(text ? text : "");
}

void table_addf(struct table *t, const char *fmt, ...)
{
    struct buf b = BUF_INIT;
    va_list ap;
    va_start(ap, fmt);
    buf_addv(&b, fmt, ap);
    va_end(ap);
    table_add(t, buf_str(&b));
    buf_free(&b);
}

void table_free(struct table *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->count; i++)
        free(t->cells[i]);
    free(t->cells);
    free(t);
}

static void print_list(const struct table *t)
{
    for (size_t i = 0; i < t->count; i++) {
        if (i && i % t->width == 0)
            putchar('\n');
        show(t->columns[i % t->width].title, t->cells[i]);
    }
}

/* Makes the widest of the columns that may be shortened narrower, one by one; when that is not enough, leaves
 * out columns that may be, from the right: their width becomes 0. */
static size_t narrowest(enum column_fit fit, bool more_to_drop)
{
    return fit == FIT_SENTENCE && more_to_drop ? SENTENCE_MIN : FLEXIBLE_MIN;
}

static void fit_widths(const struct table *t, size_t *widths, size_t *full)
{
    struct winsize ws;
    if (!isatty(1) || ioctl(1, TIOCGWINSZ, &ws) || ws.ws_col < 20)
        return;
    for (;;) {
        size_t total = 0, widest = t->width, drop = t->width;
        for (size_t c = 0; c < t->width; c++) {
            if (widths[c])
                total += widths[c] + (c ? 2 : 0);
            if (t->columns[c].fit == FIT_DROP && widths[c])
                drop = c;
        }
        for (size_t c = 0; c < t->width; c++) {
            enum column_fit fit = t->columns[c].fit;
            if ((fit == FIT_SHORTEN || fit == FIT_SENTENCE) && widths[c] > narrowest(fit, drop < t->width) &&
                (widest == t->width || widths[c] > widths[widest]))
                widest = c;
        }
        if (total <= ws.ws_col || (widest == t->width && drop == t->width))
            return;
        if (widest < t->width) {
            widths[widest]--;
            continue;
        }
        full[drop] = 0; /* and what was shortened gets its room */
        memcpy(widths, full, t->width * sizeof *full);
    }
}

static void print_cell(const char *text, size_t width, bool right, bool last, const char *color)
{
    size_t bytes, w = text_width(text, width, &bytes);
    bool cut = text[bytes] != 0;
    if (cut) /* the last column of the cell says that something is missing */
        w = text_width(text, width - 1, &bytes) + 1;
    if (right)
        printf("%*s", (int)(width - w), "");
    printf("%s%.*s%s%s", color, (int)bytes, text, cut ? "+" : "", *color ? "\033[0m" : "");
    if (!right && !last)
        printf("%*s", (int)(width - w), "");
}

static void print_row(const struct context *ctx, const struct table *t, char *const *cells,
                      const size_t *widths, int paint)
{
    for (size_t c = 0; c < t->width; c++) {
        const char *color = ctx->color && paint == (int)c ? state_color(cells[c]) : "";
        if (!widths[c])
            continue;
        if (c)
            fputs("  ", stdout);
        print_cell(cells[c], widths[c], t->columns[c].right, c + 1 == t->width, color);
    }
    putchar('\n');
}

static void print_columns(const struct context *ctx, const struct table *t, int paint)
{
    size_t *widths = xcalloc(t->width, sizeof *widths);
    char **titles = xcalloc(t->width, sizeof *titles);
    for (size_t c = 0; c < t->width; c++) {
        titles[c] = (char *)t->columns[c].title;
        widths[c] = text_width(titles[c], SIZE_MAX, NULL);
    }
    for (size_t i = 0; i + t->width <= t->count; i += t->width) {
        for (size_t c = 0; c < t->width; c++) {
            size_t w = text_width(t->cells[i + c], SIZE_MAX, NULL);
            if (w > widths[c])
                widths[c] = w;
        }
    }
    size_t *full = xmemdup(widths, t->width * sizeof *widths);
    fit_widths(t, widths, full);
    free(full);
    print_row(ctx, t, titles, widths, -1);
    for (size_t c = 0; c < t->width; c++) {
        if (c && widths[c])
            fputs("  ", stdout);
        for (size_t i = 0; i < widths[c]; i++)
            putchar('-');
    }
    putchar('\n');
    for (size_t i = 0; i + t->width <= t->count; i += t->width)
        print_row(ctx, t, t->cells + i, widths, paint);
    free(widths);
    free(titles);
}

void table_print(struct context *ctx, struct table *t, bool as_list, int paint)
{
    if (as_list)
        print_list(t);
    else
        print_columns(ctx, t, paint);
    table_free(t);
}

void show(const char *name, const char *value)
{
    char *text = clean(value ? value : "");
    printf("%-*s:%s%s\n", SHOW_WIDTH, name, *text ? " " : "", text);
    free(text);
}

void showf(const char *name, const char *fmt, ...)
{
    struct buf b = BUF_INIT;
    va_list ap;
    va_start(ap, fmt);
    buf_addv(&b, fmt, ap);
    va_end(ap);
    show(name, buf_str(&b));
    buf_free(&b);
}

int option_format(const struct option *opt, void *field, const char *value, struct error *err)
{
    if (!strcasecmp(value, "list"))
        *(enum list_format *)field = FORMAT_LIST;
    else if (!strcasecmp(value, "table"))
        *(enum list_format *)field = FORMAT_TABLE;
    else
        return error_set(err, ERR_USAGE, "expected list or table");
    return 0;
}

/* ---- values ---- */

const char *time_text(int64_t wall_ms)
{
    char text[64];
    struct tm tm;
    time_t t = (time_t)(wall_ms / 1000);
    if (!wall_ms || !localtime_r(&t, &tm) || !strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &tm))
        return "";
    return cli_keep(xstrdup(text));
}

const char *duration_text(int64_t ms)
{
    if (ms < 0)
        ms = 0;
    long long s = ms / 1000;
    return cli_keep(xasprintf("%lld:%lld:%lld:%lld:%lld", s / 86400, s / 3600 % 24, s / 60 % 60, s % 60,
                              (long long)ms % 1000));
}

const char *elapsed_text(int64_t ms)
{
    static char text[48];
    long long s = (ms < 0 ? 0 : ms) / 1000;
    if (s >= 3600)
        snprintf(text, sizeof text, "%lld:%02lld:%02lld", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(text, sizeof text, "%lld:%02lld", s / 60, s % 60);
    return text;
}

const char *units_text(const Mu__JobSpec *spec)
{
    const char *unit = spec->unit == MU__UNIT_TYPE__UNIT_NODE ? "node" : "core";
    if (spec->type == MU__JOB_TYPE__JOB_ADMIN)
        return "";
    if (!spec->min_units && !spec->max_units)
        return cli_keep(xasprintf("auto %ss", unit));
    if (spec->min_units == spec->max_units)
        return cli_keep(xasprintf("%u %s%s", spec->min_units, unit, spec->min_units == 1 ? "" : "s"));
    char *min = spec->min_units ? xasprintf("%u", spec->min_units) : xstrdup("*");
    char *max = spec->max_units ? xasprintf("%u", spec->max_units) : xstrdup("*");
    char *text = xasprintf("%s-%s %ss", min, max, unit);
    free(min);
    free(max);
    return cli_keep(text);
}

const char *allocation_nodes(Mu__NodeCores *const *list, size_t n)
{
    struct buf b = BUF_INIT;
    char **names = xcalloc(n ? n : 1, sizeof *names);
    for (size_t i = 0; i < n; i++)
        names[i] = list[i]->node;
    buf_adds(&b, "");
    nodeset_fold(names, n, &b);
    free(names);
    return cli_keep(buf_detach(&b));
}

const char *join(char *const *list, size_t n, const char *between)
{
    struct buf b = BUF_INIT;
    buf_adds(&b, "");
    for (size_t i = 0; i < n; i++)
        buf_addf(&b, "%s%s", i ? between : "", list[i]);
    return cli_keep(buf_detach(&b));
}

/* ---- JSON ---- */

json_t *json_time(int64_t wall_ms)
{
    char text[64];
    struct tm tm;
    time_t t = (time_t)(wall_ms / 1000);
    if (!wall_ms || !gmtime_r(&t, &tm))
        return json_null();
    size_t n = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(text + n, sizeof text - n, ".%03dZ", (int)(wall_ms % 1000));
    return json_string(text);
}

/* Length of the valid UTF-8 character at p, 0 for none. Overlong forms, surrogates and what lies beyond
 * U+10FFFF are not valid: JSON readers refuse them. */
static size_t utf8_len(const unsigned char *p, size_t left)
{
    size_t n = p[0] < 0x80                   ? 1
               : p[0] >= 0xc2 && p[0] < 0xe0 ? 2
               : (p[0] & 0xf0) == 0xe0       ? 3
               : p[0] >= 0xf0 && p[0] < 0xf5 ? 4
                                             : 0;
    if (!n || n > left)
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] >= 0xa0) || (p[0] == 0xf0 && p[1] < 0x90) ||
        (p[0] == 0xf4 && p[1] >= 0x90))
        return 0;
    return n;
}

json_t *json_bytes(const void *data, size_t len)
{
    struct buf b = BUF_INIT;
    const unsigned char *p = data, *end = p + len;
    buf_adds(&b, "");
    while (p < end) {
        size_t n = utf8_len(p, (size_t)(end - p));
        if (n)
            buf_add(&b, p, n);
        else
            buf_adds(&b, "\xef\xbf\xbd");
        p += n ? n : 1;
    }
    json_t *value = json_stringn(buf_str(&b), b.len);
    buf_free(&b);
    return value;
}

json_t *json_text(const char *s)
{
    return json_bytes(s, strlen(s));
}

json_t *json_texts(char *const *list, size_t n)
{
    json_t *array = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(array, json_text(list[i]));
    return array;
}

json_t *json_env(Mu__Env *const *list, size_t n)
{
    json_t *object = json_object();
    for (size_t i = 0; i < n; i++)
        json_object_set_new(object, list[i]->name, json_text(list[i]->value));
    return object;
}

json_t *json_allocation(Mu__NodeCores *const *list, size_t n)
{
    json_t *array = json_array();
    for (size_t i = 0; i < n; i++) {
        json_t *cores = json_array();
        for (size_t k = 0; k < list[i]->n_cores; k++)
            json_array_append_new(cores, json_integer(list[i]->cores[k]));
        json_array_append_new(array,
                              json_pack("{s:o, s:o}", "node", json_text(list[i]->node), "cores", cores));
    }
    return array;
}

int json_print(json_t *value)
{
    json_dumpf(value, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
    putchar('\n');
    json_decref(value);
    return EXIT_OK;
}
