/* nodeset.c - expands and folds node names. */
#include "cli/nodeset.h"
#include "base/mem.h"

#include <ctype.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define EXPAND_MAX 100000
#define BRACKETS_MAX 4 /* per pattern: bounds the recursion */

struct expansion {
    const char *pattern; /* the whole, for messages */
    struct words *out;
    size_t start; /* out->count at the beginning */
    struct error *err;
};

static int bad(const struct expansion *e, const char *why)
{
    return error_set(e->err, ERR_USAGE, "node name \"%s\": %s", shown(e->pattern), why);
}

static int expand_from(struct expansion *e, const char *done, const char *rest, int depth);

/* One item of a bracket, "3" or "01-12", put between `head` and `tail`. */
static int expand_item(struct expansion *e, const char *head, const char *item, size_t len, const char *tail,
                       int depth)
{
    const char *dash = memchr(item, '-', len);
    size_t first_len = dash ? (size_t)(dash - item) : len;
    size_t last_len = dash ? len - first_len - 1 : first_len;
    const char *last = dash ? dash + 1 : item;
    if (!first_len || !last_len || first_len > 9 || last_len > 9)
        return bad(e, "expected numbers in brackets, such as node[01-04]");
    for (size_t i = 0; i < len; i++)
        if (!isdigit((unsigned char)item[i]) && item + i != dash)
            return bad(e, "expected numbers in brackets, such as node[01-04]");
    long a = strtol(item, NULL, 10), b = strtol(last, NULL, 10);
    if (a > b || b - a >= EXPAND_MAX)
        return bad(e, "expected a range that counts up, at most 100000 names");
    for (long n = a; n <= b; n++) {
        char *text = xasprintf("%s%0*ld", head, (int)first_len, n);
        int rc = expand_from(e, text, tail, depth + 1);
        free(text);
        if (rc)
            return -1;
    }
    return 0;
}

static int expand_from(struct expansion *e, const char *done, const char *rest, int depth)
{
    const char *open = strchr(rest, '[');
    if (!open) {
        if (strchr(rest, ']'))
            return bad(e, "] without [");
        if (e->out->count - e->start >= EXPAND_MAX)
            return bad(e, "expected at most 100000 names");
        words_add(e->out, cli_keep(xasprintf("%s%s", done, rest)));
        return 0;
    }
    const char *close = strchr(open, ']');
    if (!close)
        return bad(e, "[ without ]");
    if (depth >= BRACKETS_MAX)
        return bad(e, "expected at most 4 pairs of brackets");
    char *head = xasprintf("%s%.*s", done, (int)(open - rest), rest);
    int rc = 0;
    for (const char *p = open + 1; !rc;) {
        size_t n = strcspn(p, ",]");
        rc = expand_item(e, head, p, n, close + 1, depth);
        p += n;
        if (*p == ']')
            break;
        p++;
    }
    free(head);
    return rc;
}

int nodeset_expand(const char *pattern, struct words *out, struct error *err)
{
    struct expansion e = {pattern, out, out->count, err};
    if (!*pattern)
        return bad(&e, "expected a name");
    return expand_from(&e, "", pattern, 0);
}

int nodeset_expand_words(const struct words *patterns, struct words *out, struct error *err)
{
    struct words parts = {0};
    for (size_t i = 0; i < patterns->count; i++) {
        if (option_names(&(struct option){0}, &parts, patterns->list[i], err))
            return error_prefix(err, "\"%s\"", shown(patterns->list[i]));
    }
    for (size_t i = 0; i < parts.count; i++)
        if (nodeset_expand(parts.list[i], out, err))
            return -1;
    return 0;
}

bool nodeset_is_pattern(const char *name)
{
    return strpbrk(name, "*?") != NULL;
}

bool nodeset_match(const char *pattern, const char *name)
{
    return nodeset_is_pattern(pattern) ? !fnmatch(pattern, name, FNM_CASEFOLD) : !strcasecmp(pattern, name);
}

/* ---- folding ---- */

/* "node007" is stem "node", 3 digits, number 7. */
struct part {
    size_t stem;
    size_t digits;
    long number;
};

static struct part part_of(const char *name)
{
    struct part p;
    size_t len = strlen(name), at = len;
    while (at && isdigit((unsigned char)name[at - 1]) && len - at < 9)
        at--;
    p.stem = at;
    p.digits = len - at;
    p.number = p.digits ? strtol(name + at, NULL, 10) : -1;
    return p;
}

static bool same_stem(const char *a, struct part pa, const char *b, struct part pb)
{
    /* 9 and 10 belong together, 09 and 9 do not: leading zeros fix the width. */
    bool zero = (pa.digits > 1 && a[pa.stem] == '0') || (pb.digits > 1 && b[pb.stem] == '0');
    return pa.digits && pb.digits && pa.stem == pb.stem && !strncmp(a, b, pa.stem) &&
           (!zero || pa.digits == pb.digits);
}

void nodeset_fold(char *const *names, size_t count, struct buf *out)
{
    bool *used = xcalloc(count ? count : 1, sizeof *used);
    bool first = true;
    for (size_t i = 0; i < count; i++) {
        if (used[i])
            continue;
        struct part p = part_of(names[i]);
        struct buf ranges = BUF_INIT;
        size_t members = 0;
        struct part from = p, to = p;
        for (size_t j = i; j < count; j++) {
            struct part q = part_of(names[j]);
            if (used[j] || (j != i && !same_stem(names[i], p, names[j], q)))
                continue;
            used[j] = true;
            members++;
            if (j != i && q.number == to.number + 1) {
                to = q;
                continue;
            }
            if (j != i) {
                buf_addf(&ranges, "%0*ld", (int)from.digits, from.number);
                if (to.number != from.number)
                    buf_addf(&ranges, "-%0*ld", (int)to.digits, to.number);
                buf_addc(&ranges, ',');
            }
            from = to = q;
        }
        if (!first)
            buf_addc(out, ',');
        first = false;
        if (members == 1) {
            buf_adds(out, names[i]);
        } else {
            buf_addf(&ranges, "%0*ld", (int)from.digits, from.number);
            if (to.number != from.number)
                buf_addf(&ranges, "-%0*ld", (int)to.digits, to.number);
            buf_addf(out, "%.*s[%s]", (int)p.stem, names[i], buf_str(&ranges));
        }
        buf_free(&ranges);
    }
    free(used);
}
