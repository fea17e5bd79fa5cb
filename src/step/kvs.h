/* kvs.h - the key-value space of PMI-1 on one node.
 *
 * Every node holds a full copy: gets are answered from it without asking anyone (with each rank its
 * own node MPICH makes n*(n+1) gets). Puts are collected until the next barrier carries them to the
 * other nodes. Keys and values are bounded; so is the space.
 */
#ifndef MUSTER_STEP_KVS_H
#define MUSTER_STEP_KVS_H

#include "base/buf.h"
#include "base/error.h"

#include <stddef.h>

#define KVS_KEY_MAX 64
#define KVS_VALUE_MAX 1024
#define KVS_BYTES_MAX (256u * 1024 * 1024)
#define KVS_PUTS_MAX (64u * 1024 * 1024) /* of a node, from one barrier to the next */

struct kvs;
struct kvs *kvs_new(void);
void kvs_free(struct kvs *k);
/* A later put of the same key replaces the value. ERR_LIMIT: too long, or the space is full. */
int kvs_put(struct kvs *k, const char *key, const char *value, struct error *err);
const char *kvs_get(const struct kvs *k, const char *key); /* NULL: absent; valid until the next put */
/* The i-th key in the order of first puts. 0, or -1 past the last. */
int kvs_at(const struct kvs *k, size_t i, const char **key, const char **value);
/* What was put here since the last call: "key\0value\0" ... */
void kvs_take_puts(struct kvs *k, struct buf *out);
/* Adds such a list from other nodes (a node's own puts may be among them). Broken bytes: ERR_PROTOCOL. */
int kvs_merge(struct kvs *k, const void *data, size_t len, struct error *err);

#endif
