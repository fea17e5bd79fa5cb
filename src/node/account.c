/* account.c - as whom a task runs on this node. See account.h.
 *
 * The owner travels as numbers that the head learnt from its kernel; the node's own database only
 * has to agree with them. System accounts are below 1000, as Debian's adduser has it. */
#include "node/account.h"
#include "base/clock.h"

#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define FIRST_USER 1000
#define KNOWN_MAX 16
#define KNOWN_MS 60000

static struct known {
    char owner[65];
    uint32_t uid;
    int64_t until;
    struct account account;
} known[KNOWN_MAX];
static unsigned next_known;

static int from_database(const struct passwd *pw, struct account *a)
{
    *a = (struct account){.uid = pw->pw_uid, .gid = pw->pw_gid};
    snprintf(a->name, sizeof a->name, "%s", pw->pw_name);
    snprintf(a->home, sizeof a->home, "%s", pw->pw_dir);
    snprintf(a->shell, sizeof a->shell, "%s", pw->pw_shell && *pw->pw_shell ? pw->pw_shell : "/bin/sh");
    return 0;
}

static int mapped(const struct node_config *c, const char *from, const char *to, struct account *a,
                  struct error *err)
{
    struct passwd *pw = getpwnam(to);
    int count = ACCOUNT_GROUPS_MAX;
    if (!pw)
        return error_set(err, ERR_DENIED,
                         "%s: account %s, which tasks of %s are mapped to, does not exist here", c->name, to,
                         from);
    if (pw->pw_uid == 0 && !c->allow_root)
        return error_set(err, ERR_DENIED, "%s: tasks of %s are mapped to root, and \"allow_root\" is not set",
                         c->name, from);
    from_database(pw, a);
    if (getgrouplist(to, pw->pw_gid, a->groups, &count) < 0)
        count = ACCOUNT_GROUPS_MAX; /* it filled what there is room for */
    a->group_count = (size_t)count;
    return 0;
}

static int same(const struct node_config *c, const Mu__Owner *owner, struct account *a, struct error *err)
{
    struct passwd *pw = getpwuid(owner->uid);
    uid_t self = geteuid();
    if (self != 0 && owner->uid != self)
        return error_set(
            err, ERR_DENIED,
            "%s: its agent runs as uid %u and cannot run tasks of %s (uid %u); run the agent as root",
            c->name, self, owner->name, owner->uid);
    if (self == 0 && owner->uid < FIRST_USER && !c->allow_root)
        return error_set(err, ERR_DENIED,
                         "%s: tasks of %s (uid %u) are refused; submit as an ordinary user, or set "
                         "\"map\": {\"%s\": ACCOUNT} in node.json",
                         c->name, owner->name, owner->uid, owner->name);
    if (pw && strcmp(pw->pw_name, owner->name))
        return error_set(err, ERR_DENIED, "%s: uid %u is %s here and %s where the job was submitted", c->name,
                         owner->uid, pw->pw_name, owner->name);
    if (!pw && self == 0)
        return error_set(err, ERR_DENIED, "%s: no account %s (uid %u)", c->name, owner->name, owner->uid);
    if (pw) {
        from_database(pw, a);
    } else {
        *a = (struct account){.uid = owner->uid, .shell = "/bin/sh"};
        snprintf(a->name, sizeof a->name, "%s", owner->name);
        snprintf(a->home, sizeof a->home, "%s", owner->home);
    }
    a->gid = owner->gid;
    for (size_t i = 0; i < owner->n_groups && i < ACCOUNT_GROUPS_MAX; i++)
        a->groups[a->group_count++] = owner->groups[i];
    return 0;
}

int account_resolve(const struct node_config *config, const Mu__Owner *owner, struct account *account,
                    struct error *err)
{
    const char *to = config_mapped(config, owner->name);
    int64_t now = clock_boot_ms();
    for (size_t i = 0; i < KNOWN_MAX; i++)
        if (known[i].until > now && known[i].uid == owner->uid && !strcmp(known[i].owner, owner->name)) {
            *account = known[i].account;
            return 0;
        }
    if (to ? mapped(config, owner->name, to, account, err) : same(config, owner, account, err))
        return -1;
    struct known *k = &known[next_known++ % KNOWN_MAX];
    *k = (struct known){.uid = owner->uid, .until = now + KNOWN_MS, .account = *account};
    snprintf(k->owner, sizeof k->owner, "%s", owner->name);
    if (strcmp(k->owner, owner->name))
        k->until = 0; /* longer than what is compared: not kept */
    return 0;
}
