/* priority.c - words of priorities to numbers and back (priority.h). */
#include "model/priority.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char *const bands[] = {"Lowest", "BelowNormal", "Normal", "AboveNormal", "Highest"};

static int bad(const char *text, struct error *err)
{
    return error_set(err, ERR_USAGE,
                     "priority %.60s: expected 0 to 4000, or Lowest, BelowNormal, Normal, AboveNormal, "
                     "Highest, with +n or -n",
                     text);
}

/* Digits only, at most four of them: -1 for anything else. */
static int digits(const char *s)
{
    size_t n = strspn(s, "0123456789");
    return n == 0 || n > 4 || s[n] ? -1 : atoi(s);
}

int priority_parse(const char *text, uint32_t *priority, struct error *err)
{
    int value = digits(text);
    size_t word = strcspn(text, "+-");
    for (int i = 0; value < 0 && i < 5; i++) {
        if (strlen(bands[i]) != word || strncasecmp(bands[i], text, word))
            continue;
        int offset = text[word] ? digits(text + word + 1) : 0;
        if (offset < 0)
            break;
        value = i * 1000 + (text[word] == '-' ? -offset : offset);
        if (value < 0)
            break;
    }
    if (value < 0 || value > PRIORITY_MAX)
        return bad(text, err);
    *priority = (uint32_t)value;
    return 0;
}

const char *priority_format(uint32_t priority, char *out, size_t size)
{
    if (priority > PRIORITY_MAX)
        priority = PRIORITY_MAX;
    uint32_t band = priority / 1000, offset = priority % 1000;
    if (offset == 0)
        snprintf(out, size, "%s", bands[band]);
    else if (offset <= 500)
        snprintf(out, size, "%s+%u", bands[band], offset);
    else
        snprintf(out, size, "%s-%u", bands[band + 1], 1000 - offset);
    return out;
}
