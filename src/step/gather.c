/* gather.c - collecting bytes from the nodes of an operation up the tree. */
#include "step/gather.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>
#include <uthash.h>

struct operation {
    UT_hash_handle hh;
    uint32_t *ranks;
    size_t ranks_n;
    uint32_t missing;
    struct buf data;
    char key[];
};

struct gather {
    const struct gather_ops *ops;
    void *arg;
    struct operation *open;
};

struct gather *gather_new(const struct gather_ops *ops, void *arg)
{
    struct gather *g = xcalloc(1, sizeof *g);
    g->ops = ops;
    g->arg = arg;
    return g;
}

static void operation_free(struct operation *o)
{
    free(o->ranks);
    buf_free(&o->data);
    free(o);
}

void gather_free(struct gather *g)
{
    if (!g)
        return;
    struct operation *o = g->open;
    HASH_CLEAR(hh, g->open);
    while (o) {
        struct operation *next = o->hh.next;
        operation_free(o);
        o = next;
    }
    free(g);
}

int gather_add(struct gather *g, const char *key, const uint32_t *ranks, size_t n, const void *data,
               size_t len, struct error *err)
{
    struct operation *o;
    size_t key_len = strlen(key);
    HASH_FIND(hh, g->open, key, key_len, o);
    if (!o) {
        if (HASH_COUNT(g->open) >= GATHER_OPEN_MAX)
            return error_set(err, ERR_LIMIT, "more than %d fences at once", GATHER_OPEN_MAX);
        uint32_t expected = g->ops->expected(g->arg, ranks, n);
        if (!expected)
            return error_set(err, ERR_PROTOCOL, "a fence in which no rank of this node takes part");
        o = xcalloc(1, sizeof *o + key_len + 1);
        memcpy(o->key, key, key_len);
        o->ranks = xmemdup(ranks, n * sizeof *ranks);
        o->ranks_n = n;
        o->missing = expected;
        HASH_ADD_KEYPTR(hh, g->open, o->key, key_len, o);
    }
    if (o->data.len + len > GATHER_BYTES_MAX)
        return error_set(err, ERR_LIMIT, "a fence of more than %u bytes", GATHER_BYTES_MAX);
    if (len)
        buf_add(&o->data, data, len);
    if (--o->missing)
        return 0;
    HASH_DEL(g->open, o);
    g->ops->complete(g->arg, o->key, o->ranks, o->ranks_n, &o->data);
    operation_free(o);
    return 0;
}
