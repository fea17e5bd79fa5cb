/* names.c - checks of names and texts, and the natural order (names.h). */
#include "model/names.h"

#include <ctype.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* A value as it may stand in an error: short, no control characters. */
static const char *shown(const char *value, char *out, size_t size)
{
    size_t n = 0;
    for (; value[n] && n + 4 < size; n++)
        out[n] = (unsigned char)value[n] < 32 || value[n] == 127 ? '?' : value[n];
    if (value[n])
        for (int i = 0; i < 3; i++)
            out[n++] = '.';
    out[n] = 0;
    return out;
}

static bool is_name_char(char c, bool blanks)
{
    return isalnum((unsigned char)c) || c == '.' || c == '_' || c == '-' || (blanks && c == ' ');
}

static int name_check(const char *what, const char *name, size_t max, bool blanks, struct error *err)
{
    char text[80];
    size_t len = strlen(name);
    if (len == 0)
        return error_set(err, ERR_USAGE, "%s: expected a name, got nothing", what);
    if (len > max)
        return error_set(err, ERR_USAGE, "%s %s: longer than %zu characters", what,
                         shown(name, text, sizeof text), max);
    for (size_t i = 0; i < len; i++)
        if (!is_name_char(name[i], blanks && i > 0 && i + 1 < len))
            return error_set(err, ERR_USAGE, "%s %s: expected letters, digits, '.', '_'%s and '-'", what,
                             shown(name, text, sizeof text), blanks ? ", blanks inside" : "");
    if (name[0] == '.' || name[0] == '-')
        return error_set(err, ERR_USAGE, "%s %s: may not start with '%c'", what,
                         shown(name, text, sizeof text), name[0]);
    return 0;
}

int node_name_check(const char *what, const char *name, struct error *err)
{
    return name_check(what, name, NODE_NAME_MAX, false, err);
}

int group_name_check(const char *what, const char *name, struct error *err)
{
    return name_check(what, name, GROUP_NAME_MAX, true, err);
}

bool utf8_valid(const char *text, size_t len)
{
    const unsigned char *s = (const unsigned char *)text;
    for (size_t i = 0; i < len;) {
        unsigned char c = s[i];
        size_t n = c < 0x80                ? 1
                   : c >= 0xc2 && c < 0xe0 ? 2
                   : c >= 0xe0 && c < 0xf0 ? 3
                   : c >= 0xf0 && c < 0xf5 ? 4
                                           : 0;
        if (n == 0 || i + n > len)
            return false;
        for (size_t k = 1; k < n; k++)
            if ((s[i + k] & 0xc0) != 0x80)
                return false;
        if ((c == 0xe0 && s[i + 1] < 0xa0) || (c == 0xed && s[i + 1] > 0x9f) ||
            (c == 0xf0 && s[i + 1] < 0x90) || (c == 0xf4 && s[i + 1] > 0x8f))
            return false;
        i += n;
    }
    return true;
}

int free_text_check(const char *what, const char *text, size_t max, bool lines, struct error *err)
{
    char part[80];
    size_t len = strlen(text);
    if (len > max)
        return error_set(err, ERR_USAGE, "%s %s: longer than %zu characters", what,
                         shown(text, part, sizeof part), max);
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if ((c < 32 && c != '\t' && !(lines && c == '\n')) || c == 127)
            return error_set(err, ERR_USAGE, "%s %s: control character 0x%02x is not allowed", what,
                             shown(text, part, sizeof part), c);
    }
    if (!utf8_valid(text, len))
        return error_set(err, ERR_USAGE, "%s %s: not valid UTF-8", what, shown(text, part, sizeof part));
    return 0;
}

int text_check(const char *what, const char *text, size_t max, struct error *err)
{
    if (strchr(text, '\t'))
        return error_set(err, ERR_USAGE, "%s: a tab is not allowed", what);
    return free_text_check(what, text, max, false, err);
}

bool env_name_reserved(const char *name)
{
    return !strncasecmp(name, "CCP_", 4) || !strncasecmp(name, "MUSTER_", 7);
}

/* CCP_MPI_* and the few switches below are the user's to set (reference: environment of a task). */
static bool env_name_user(const char *name)
{
    static const char *const open[] = {"CCP_MPI_NETMASK", "CCP_MPI_HOSTFILE_FORMAT", "CCP_MPI_SOURCE",
                                       "CCP_AFFINITY"};
    for (size_t i = 0; i < sizeof open / sizeof open[0]; i++)
        if (!strcasecmp(name, open[i]))
            return true;
    return false;
}

int env_name_check(const char *what, const char *name, struct error *err)
{
    char text[80];
    size_t len = strlen(name);
    if (len == 0)
        return error_set(err, ERR_USAGE, "%s: expected NAME=value, got no name", what);
    if (len > ENV_NAME_MAX)
        return error_set(err, ERR_USAGE, "%s %s: name longer than %d characters", what,
                         shown(name, text, sizeof text), ENV_NAME_MAX);
    for (size_t i = 0; i < len; i++)
        if (!isalnum((unsigned char)name[i]) && name[i] != '_' && (i == 0 || !strchr(".()-%", name[i])))
            return error_set(err, ERR_USAGE, "%s %s: expected letters, digits and '_' in the name", what,
                             shown(name, text, sizeof text));
    if (isdigit((unsigned char)name[0]))
        return error_set(err, ERR_USAGE, "%s %s: a name may not start with a digit", what,
                         shown(name, text, sizeof text));
    if (env_name_reserved(name) && !env_name_user(name))
        return error_set(err, ERR_USAGE, "%s %s: cannot change a reserved environment variable", what,
                         shown(name, text, sizeof text));
    return 0;
}

/* Compares two runs of digits by value; moves both past them. */
static int number_compare(const char **a, const char **b)
{
    const char *x = *a, *y = *b;
    while (*x == '0')
        x++;
    while (*y == '0')
        y++;
    size_t nx = strspn(x, "0123456789"), ny = strspn(y, "0123456789");
    int order = nx != ny ? (nx < ny ? -1 : 1) : strncmp(x, y, nx);
    *a = x + nx;
    *b = y + ny;
    return order;
}

int natural_compare(const char *a, const char *b)
{
    const char *x = a, *y = b;
    while (*x && *y) {
        if (isdigit((unsigned char)*x) && isdigit((unsigned char)*y)) {
            int order = number_compare(&x, &y);
            if (order)
                return order < 0 ? -1 : 1;
            continue;
        }
        int p = tolower((unsigned char)*x), q = tolower((unsigned char)*y);
        if (p != q)
            return p < q ? -1 : 1;
        x++, y++;
    }
    if (*x || *y)
        return *x ? 1 : -1;
    /* Equal but for leading zeros: fewer zeros first, then the plain order. */
    size_t la = strlen(a), lb = strlen(b);
    if (la != lb)
        return la < lb ? -1 : 1;
    int order = strcasecmp(a, b);
    return (order > 0) - (order < 0);
}
