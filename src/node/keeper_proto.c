/* keeper_proto.c - order and report as text. See keeper_proto.h. */
#include "node/keeper_proto.h"
#include "base/mem.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void order_set(char **field, const char *value)
{
    char *copy = xstrdup(value ? value : "");
    free(*field);
    *field = copy;
}

void order_push(struct order_list *list, const char *value)
{
    list->items = xgrow(list->items, &list->cap, list->count + 1, sizeof *list->items);
    list->items[list->count++] = xstrdup(value);
}

static void list_release(struct order_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        free(list->items[i]);
    free(list->items);
}

void order_release(struct order *order)
{
#define X(name) free(order->name);
    ORDER_STRINGS(X)
#undef X
#define X(name) list_release(&order->name);
    ORDER_LISTS(X)
#undef X
    *order = (struct order){0};
}

/* Digits only: strtoull alone would take "-1" and " 7". */
static int parse_number(const char *key, const char *text, uint64_t *out, struct error *err)
{
    char *end;
    errno = 0;
    *out = strtoull(text, &end, 10);
    if (errno || *end || *text < '0' || *text > '9')
        return error_set(err, ERR_PROTOCOL, "%s=%.40s: not a number", key, text);
    return 0;
}

static int order_take(struct order *order, const char *key, const char *value, struct error *err)
{
#define X(name)                                                                                              \
    if (!strcmp(key, #name)) {                                                                               \
        order_set(&order->name, value);                                                                      \
        return 0;                                                                                            \
    }
    ORDER_STRINGS(X)
#undef X
#define X(name)                                                                                              \
    if (!strcmp(key, #name))                                                                                 \
        return parse_number(key, value, &order->name, err);
    ORDER_NUMBERS(X)
#undef X
#define X(name)                                                                                              \
    if (!strcmp(key, #name)) {                                                                               \
        order_push(&order->name, value);                                                                     \
        return 0;                                                                                            \
    }
    ORDER_LISTS(X)
#undef X
    return 0; /* a key of a newer agent */
}

int order_decode(struct order *order, const char *data, size_t len, struct error *err)
{
    bool whole = false;
    for (const char *p = data, *next; p < data + len; p = next) {
        const char *zero = memchr(p, 0, (size_t)(data + len - p));
        if (!zero)
            break;
        next = zero + 1;
        const char *equal = strchr(p, '=');
        char key[32];
        if (!equal || (size_t)(equal - p) >= sizeof key)
            return error_set(err, ERR_PROTOCOL, "order has a line without key: %.40s", p);
        memcpy(key, p, (size_t)(equal - p));
        key[equal - p] = 0;
        if (!strcmp(key, "end")) { /* what follows is left from an older, longer order */
            whole = true;
            break;
        }
        if (order_take(order, key, equal + 1, err))
            return -1;
    }
    if (!whole)
        return error_set(err, ERR_PROTOCOL, "order is cut short");
#define X(name)                                                                                              \
    if (!order->name)                                                                                        \
        order_set(&order->name, "");
    ORDER_STRINGS(X)
#undef X
    return 0;
}

static void put(struct buf *out, const char *key, const char *value)
{
    buf_adds(out, key);
    buf_addc(out, '=');
    buf_adds(out, value);
    buf_addc(out, 0);
}

void order_encode(const struct order *order, struct buf *out)
{
#define X(name) put(out, #name, order->name ? order->name : "");
    ORDER_STRINGS(X)
#undef X
    char number[24];
#define X(name)                                                                                              \
    snprintf(number, sizeof number, "%llu", (unsigned long long)order->name);                                \
    put(out, #name, number);
    ORDER_NUMBERS(X)
#undef X
#define X(name)                                                                                              \
    for (size_t i = 0; i < order->name.count; i++)                                                           \
        put(out, #name, order->name.items[i]);
    ORDER_LISTS(X)
#undef X
    put(out, "end", "1");
}

size_t report_format(const struct report *r, char *out, size_t size)
{
    char message[sizeof r->message];
    snprintf(message, sizeof message, "%s", r->message);
    for (char *p = message; *p; p++)
        if (*p == '\n')
            *p = ' ';
    int n = snprintf(
        out, size,
        "attempt=%llu\nphase=%d\nhas_result=%d\nexit_code=%d\nexit_signal=%u\nfailure=%d\noutput_total=%llu\n"
        "cpu_ms=%lld\nkilled=%d\nmessage=%s\n",
        (unsigned long long)r->attempt, r->phase, r->has_result, r->exit_code, r->exit_signal, r->failure,
        (unsigned long long)r->output_total, (long long)r->cpu_ms, r->killed, message);
    return n < 0 ? 0 : (size_t)n < size ? (size_t)n : size - 1;
}

int report_parse(struct report *r, const char *text, size_t len, struct error *err)
{
    char copy[KEEPER_PACKET_MAX], *state = NULL;
    if (len >= sizeof copy || memchr(text, 0, len))
        return error_set(err, ERR_PROTOCOL, "report is too long or holds a zero byte");
    memcpy(copy, text, len);
    copy[len] = 0;
    *r = (struct report){0};
    for (char *line = strtok_r(copy, "\n", &state); line; line = strtok_r(NULL, "\n", &state)) {
        char *value = strchr(line, '=');
        if (!value)
            return error_set(err, ERR_PROTOCOL, "report has a line without key: %.40s", line);
        *value++ = 0;
        if (!strcmp(line, "attempt"))
            r->attempt = strtoull(value, NULL, 10);
        else if (!strcmp(line, "phase"))
            r->phase = atoi(value);
        else if (!strcmp(line, "has_result"))
            r->has_result = atoi(value) != 0;
        else if (!strcmp(line, "exit_code"))
            r->exit_code = atoi(value);
        else if (!strcmp(line, "exit_signal"))
            r->exit_signal = (unsigned)atoi(value);
        else if (!strcmp(line, "failure"))
            r->failure = atoi(value);
        else if (!strcmp(line, "output_total"))
            r->output_total = strtoull(value, NULL, 10);
        else if (!strcmp(line, "cpu_ms"))
            r->cpu_ms = strtoll(value, NULL, 10);
        else if (!strcmp(line, "killed"))
            r->killed = atoi(value) != 0;
        else if (!strcmp(line, "message"))
            snprintf(r->message, sizeof r->message, "%s", value);
    }
    if (r->phase < KEEPER_REFUSED || r->phase > KEEPER_RELEASED)
        return error_set(err, ERR_PROTOCOL, "report has phase %d, expected %d to %d", r->phase,
                         KEEPER_REFUSED, KEEPER_RELEASED);
    return 0;
}
