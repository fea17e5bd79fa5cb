/* account.h - as whom a task runs on this node: the rules of design "Starting and ending an attempt". */
#ifndef MUSTER_NODE_ACCOUNT_H
#define MUSTER_NODE_ACCOUNT_H

#include "base/error.h"
#include "node/config.h"
#include "proto/model.pb-c.h"

#include <sys/types.h>

#define ACCOUNT_GROUPS_MAX 256

struct account {
    char name[65];
    uid_t uid;
    gid_t gid;
    gid_t groups[ACCOUNT_GROUPS_MAX];
    size_t group_count;
    char home[256], shell[256];
};

/* Who `owner` is here. -1 with ERR_DENIED and a text that names the node and says what to do. Looks
 * the account up in the system's user database; answers are kept for a minute. */
int account_resolve(const struct node_config *config, const Mu__Owner *owner, struct account *account,
                    struct error *err);

#endif
