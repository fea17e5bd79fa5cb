/* kvs.c - the key-value space of PMI-1 on one node: a hash table (uthash) and the list of recent puts. */
#include "step/kvs.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>
#include <uthash.h>

struct pair {
    UT_hash_handle hh;
    char *value;
    char key[];
};

struct kvs {
    struct pair *pairs; /* uthash keeps the order of insertion */
    struct buf puts;
    size_t bytes;
};

struct kvs *kvs_new(void)
{
    return xcalloc(1, sizeof(struct kvs));
}

void kvs_free(struct kvs *k)
{
    if (!k)
        return;
    struct pair *p = k->pairs;
    HASH_CLEAR(hh, k->pairs); /* the index; the pairs stay chained */
    while (p) {
        struct pair *next = p->hh.next;
        free(p->value);
        free(p);
        p = next;
    }
    buf_free(&k->puts);
    free(k);
}

static int store(struct kvs *k, const char *key, const char *value, struct error *err)
{
    size_t key_len = strlen(key), value_len = strlen(value);
    if (key_len == 0 || key_len > KVS_KEY_MAX)
        return error_set(err, ERR_LIMIT, "key has %zu characters, 1 to %d are allowed", key_len, KVS_KEY_MAX);
    if (value_len > KVS_VALUE_MAX)
        return error_set(err, ERR_LIMIT, "value has %zu characters, at most %d are allowed", value_len,
                         KVS_VALUE_MAX);
    if (k->bytes + key_len + value_len > KVS_BYTES_MAX)
        return error_set(err, ERR_LIMIT, "the key-value space is full (%u bytes)", KVS_BYTES_MAX);
    struct pair *p;
    HASH_FIND(hh, k->pairs, key, key_len, p);
    if (!p) {
        p = xcalloc(1, sizeof *p + key_len + 1);
        memcpy(p->key, key, key_len + 1);
        HASH_ADD_KEYPTR(hh, k->pairs, p->key, key_len, p);
        k->bytes += key_len;
    } else {
        k->bytes -= strlen(p->value);
        free(p->value);
    }
    p->value = xstrdup(value);
    k->bytes += value_len;
    return 0;
}

int kvs_put(struct kvs *k, const char *key, const char *value, struct error *err)
{
    /* Also for a key that is put over and over. */
    if (k->puts.len + strlen(key) + strlen(value) + 2 > KVS_PUTS_MAX)
        return error_set(err, ERR_LIMIT, "more than %u bytes of puts before a barrier", KVS_PUTS_MAX);
    if (store(k, key, value, err))
        return -1;
    buf_add(&k->puts, key, strlen(key) + 1);
    buf_add(&k->puts, value, strlen(value) + 1);
    return 0;
}

const char *kvs_get(const struct kvs *k, const char *key)
{
    struct pair *p;
    HASH_FIND(hh, k->pairs, key, strlen(key), p);
    return p ? p->value : NULL;
}

int kvs_at(const struct kvs *k, size_t i, const char **key, const char **value)
{
    const struct pair *p = k->pairs;
    while (p && i--)
        p = p->hh.next;
    if (!p)
        return -1;
    *key = p->key;
    *value = p->value;
    return 0;
}

void kvs_take_puts(struct kvs *k, struct buf *out)
{
    if (k->puts.len)
        buf_add(out, k->puts.data, k->puts.len);
    buf_reset(&k->puts);
}

int kvs_merge(struct kvs *k, const void *data, size_t len, struct error *err)
{
    const char *p = data, *end = p + len;
    while (p < end) {
        const char *key_end = memchr(p, 0, (size_t)(end - p));
        const char *value = key_end ? key_end + 1 : end;
        const char *value_end = value < end ? memchr(value, 0, (size_t)(end - value)) : NULL;
        if (!value_end)
            return error_set(err, ERR_PROTOCOL, "broken list of PMI puts");
        if (store(k, p, value, err))
            return -1;
        p = value_end + 1;
    }
    return 0;
}
