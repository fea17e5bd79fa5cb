/* head.h - muster-head: the only owner of cluster state.
 *
 * One event loop takes every decision, one thread (inside store/) makes rows durable. The
 * concerns are files of their own that hang below `struct head`:
 *
 *   loop.c      one turn: commands -> core -> one batch; clock; store failure and recovery
 *   held.c      replies and effects that wait until the batch they saw is durable
 *   session.c   clients on the unix socket          owner.c     who a uid is
 *   request.c   one table: kind -> who may, handler  reply.c     core's rows -> replies
 *   waits.c     requests that are answered later     outspool.c  what tasks printed
 *   door.c      TLS connections before their Hello   join.c      tokens, certificates
 *   nodelink.c  agents                               order.c     NodeOrder of one agent
 *
 * Everything runs on the loop's thread. Every pointer in struct head is owned by it and NULL
 * before its x_create() and after its x_destroy().
 */
#ifndef MUSTER_HEAD_HEAD_H
#define MUSTER_HEAD_HEAD_H

#include "base/error.h"
#include "core/core.h"
#include "head/config.h"
#include "store/store.h"
#include "wire/tls.h"

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

/* Priorities of the loop: what must not wait, all traffic, and the end of a turn, which comes
 * only when no traffic is left (bounded, see loop.c). */
enum { PRIORITY_FIRST, PRIORITY_TRAFFIC, PRIORITY_TURN_END, PRIORITY_COUNT };

struct head {
    /* what it was started with */
    const char *dir;         /* the private folder */
    int dirfd;               /* the same, open */
    const char *socket_path; /* clients */
    char listen_text[80];    /* address:port agents dial */
    char cluster[65];
    char host[65]; /* this machine's name: CCP_SCHEDULER */
    struct config config;
    uid_t socket_folder_uid; /* its owner is an admin */

    struct event_base *base;
    struct store *store;
    struct core *core;
    struct tls_context *tls;
    uint8_t secret[32];
    uint64_t generation;

    struct loop *loop;
    struct held *held;
    struct owners *owners;
    struct sessions *sessions;
    struct waits *waits;
    struct outspools *outspools;
    struct door *door;
    struct joins *joins;
    struct nodelinks *nodelinks;
};

#endif
