/* owner.c - looks users up in the system's databases and remembers the answer for a short time:
 * a lookup may go over the network, and a thousand short clients come from the same user. */
#include "head/owner.h"
#include "base/clock.h"
#include "base/mem.h"

#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uthash.h>

#define OWNER_KEEP_MS 60000
#define OWNERS_MAX 1024
#define OWNER_GROUPS_MAX 1024

struct known {
    uid_t uid;
    int64_t until_ms;
    Mu__Owner *owner;
    bool admin;
    UT_hash_handle hh;
};
struct owners {
    struct head *head;
    struct known *by_uid;
};

struct owners *owners_create(struct head *head)
{
    struct owners *o = xcalloc(1, sizeof *o);
    o->head = head;
    return o;
}

static void known_free(struct owners *owners, struct known *k)
{
    HASH_DEL(owners->by_uid, k);
    if (k->owner)
        mu__owner__free_unpacked(k->owner, NULL);
    free(k);
}

static void forget_all(struct owners *owners)
{
    struct known *k, *tmp;
    HASH_ITER (hh, owners->by_uid, k, tmp)
        known_free(owners, k);
}

void owners_destroy(struct owners *owners)
{
    if (!owners)
        return;
    forget_all(owners);
    free(owners);
}

static Mu__Owner *owner_copy(const Mu__Owner *from)
{
    size_t len = mu__owner__get_packed_size(from);
    uint8_t *bytes = xmalloc(len + 1);
    mu__owner__pack(from, bytes);
    Mu__Owner *copy = mu__owner__unpack(NULL, len, bytes);
    free(bytes);
    return copy;
}

static Mu__Owner *owner_of_account(const struct passwd *pw)
{
    gid_t groups[OWNER_GROUPS_MAX];
    int n = OWNER_GROUPS_MAX;
    if (getgrouplist(pw->pw_name, pw->pw_gid, groups, &n) < 0)
        n = n < OWNER_GROUPS_MAX ? n : OWNER_GROUPS_MAX; /* more than we carry: the first ones */
    Mu__Owner *o = xmalloc(sizeof *o);
    mu__owner__init(o);
    o->name = xstrdup(pw->pw_name);
    o->uid = pw->pw_uid;
    o->gid = pw->pw_gid;
    o->home = xstrdup(pw->pw_dir ? pw->pw_dir : "/");
    o->groups = xcalloc((size_t)n + 1, sizeof *o->groups);
    for (int i = 0; i < n; i++)
        o->groups[o->n_groups++] = groups[i];
    return o;
}

static bool is_admin(const struct head *h, uid_t uid, const char *name)
{
    if (uid == 0 || uid == getuid() || uid == h->socket_folder_uid)
        return true;
    for (size_t i = 0; i < h->config.admin_count; i++)
        if (!strcmp(h->config.admins[i], name))
            return true;
    return false;
}

static const char *mapped(const struct head *h, const char *name)
{
    for (size_t i = 0; i < h->config.map_count; i++)
        if (!strcmp(h->config.map[i].from, name))
            return h->config.map[i].to;
    return NULL;
}

/* A container may know a process by number alone: it is a user like any other, without groups. */
static Mu__Owner *owner_of_number(uid_t uid, gid_t gid)
{
    Mu__Owner *o = xmalloc(sizeof *o);
    mu__owner__init(o);
    o->name = xasprintf("%u", (unsigned)uid);
    o->uid = uid;
    o->gid = gid;
    o->home = xstrdup("/");
    o->groups = xcalloc(1, sizeof *o->groups);
    o->groups[o->n_groups++] = gid;
    return o;
}

static struct known *learn(struct owners *owners, uid_t uid, gid_t gid, struct error *err)
{
    struct passwd *pw = getpwuid(uid);
    struct known k = {.uid = uid, .until_ms = clock_boot_ms() + OWNER_KEEP_MS};
    char name[65];
    if (pw)
        snprintf(name, sizeof name, "%s", pw->pw_name);
    else
        snprintf(name, sizeof name, "%u", (unsigned)uid);
    k.admin = is_admin(owners->head, uid, name);
    const char *to = mapped(owners->head, name);
    if (to && !(pw = getpwnam(to))) {
        error_set(err, ERR_USAGE, "head.json maps user %s to %s, and there is no such account", name, to);
        return NULL;
    }
    k.owner = pw ? owner_of_account(pw) : owner_of_number(uid, gid);
    if (HASH_COUNT(owners->by_uid) >= OWNERS_MAX)
        forget_all(owners);
    struct known *kept = xmemdup(&k, sizeof k);
    HASH_ADD(hh, owners->by_uid, uid, sizeof kept->uid, kept);
    return kept;
}

Mu__Owner *owner_lookup(struct owners *owners, uid_t uid, gid_t gid, bool *admin, struct error *err)
{
    struct known *k = NULL;
    HASH_FIND(hh, owners->by_uid, &uid, sizeof uid, k);
    if (k && k->until_ms < clock_boot_ms()) {
        known_free(owners, k);
        k = NULL;
    }
    if (!k && !(k = learn(owners, uid, gid, err)))
        return NULL;
    *admin = k->admin;
    return owner_copy(k->owner);
}
