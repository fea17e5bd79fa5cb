/* owner.c - looks users up in the system's databases and remembers the answer for a short time:
 * a lookup may go over the network, and a thousand short clients come from the same user.
 *
 * The databases may not answer for minutes, and the loop must not wait for them: each lookup is a thread
 * of its own (at most LOOKUPS_MAX at once, one for each uid; more wait for their turn), which answers
 * through a socket pair with a pointer. It touches nothing of the head: when the head is gone, its answer
 * cannot be sent and it frees that itself. */
#include "head/owner.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#include <errno.h>
#include <grp.h>
#include <pthread.h>
#include <pwd.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uthash.h>

#define OWNER_KEEP_MS 60000
#define OWNERS_MAX 1024
#define OWNER_GROUPS_MAX 1024
#define LOOKUPS_MAX 16
#define ACCOUNT_BYTES_MAX (1024 * 1024) /* of one entry of the databases */

struct known {
    uid_t uid;
    int64_t until_ms;
    Mu__Owner *owner;
    bool admin;
    UT_hash_handle hh;
};

/* What a thread is given, and gives back. */
struct lookup {
    int fd;
    uid_t uid;
    char *name; /* not NULL: by name, not by uid */
    Mu__Owner *found;
};

/* A uid that is being looked up, or waits for that. */
struct pending {
    TAILQ_ENTRY(pending) next;
    struct owners *owners;
    uid_t uid;
    gid_t gid;
    char name[65];        /* of the uid, once it is known */
    bool named;           /* second step: whom head.json maps it to */
    struct event *answer; /* NULL: it waits for its turn */
    LIST_HEAD(, owner_wait) waits;
    UT_hash_handle hh;
};

struct owners {
    struct head *head;
    struct known *by_uid;
    struct pending *pending;
    TAILQ_HEAD(, pending) queue;
    unsigned running;
};

struct owners *owners_create(struct head *head)
{
    struct owners *o = xcalloc(1, sizeof *o);
    o->head = head;
    TAILQ_INIT(&o->queue);
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

static Mu__Owner *owner_copy(const Mu__Owner *from)
{
    size_t len = mu__owner__get_packed_size(from);
    uint8_t *bytes = xmalloc(len + 1);
    mu__owner__pack(from, bytes);
    Mu__Owner *copy = mu__owner__unpack(NULL, len, bytes);
    free(bytes);
    return copy;
}

/* ---- the thread ---- */

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

static void lookup_free(struct lookup *l)
{
    if (l->found)
        mu__owner__free_unpacked(l->found, NULL);
    free(l->name);
    free(l);
}

static void *lookup_thread(void *arg)
{
    struct lookup *l = arg;
    struct passwd entry, *pw = NULL;
    int fd = l->fd, rc = ERANGE;
    char *text = NULL;
    for (size_t size = 4096; rc == ERANGE && size <= ACCOUNT_BYTES_MAX; size *= 4) {
        text = xrealloc(text, size);
        rc = l->name ? getpwnam_r(l->name, &entry, text, size, &pw)
                     : getpwuid_r(l->uid, &entry, text, size, &pw);
    }
    if (rc == 0 && pw)
        l->found = owner_of_account(pw);
    free(text);
    if (send(fd, &l, sizeof l, MSG_NOSIGNAL) != (ssize_t)sizeof l)
        lookup_free(l);
    close(fd);
    return NULL;
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

/* ---- the loop's side ---- */

static void begin_next(struct owners *owners);

static void pending_free(struct pending *p)
{
    struct owners *owners = p->owners;
    if (p->answer) {
        struct lookup *l;
        int fd = event_get_fd(p->answer);
        if (recv(fd, &l, sizeof l, MSG_DONTWAIT) == (ssize_t)sizeof l)
            lookup_free(l);
        event_free(p->answer);
        close(fd);
        owners->running--;
    } else {
        TAILQ_REMOVE(&owners->queue, p, next);
    }
    HASH_DEL(owners->pending, p);
    free(p);
}

static void tell(struct owner_wait *w, const struct known *k, const struct error *err)
{
    w->waiting = false;
    w->done(w, k ? owner_copy(k->owner) : NULL, k && k->admin, err);
}

/* Whoever waits is told; a wait that is cancelled meanwhile leaves the list. */
static void finish(struct pending *p, const struct known *k, const struct error *err)
{
    struct owners *owners = p->owners;
    struct owner_wait *w;
    while ((w = LIST_FIRST(&p->waits))) {
        LIST_REMOVE(w, next);
        tell(w, k, err);
    }
    pending_free(p);
    begin_next(owners);
}

static void fail(struct pending *p, const char *why)
{
    struct error err;
    error_set(&err, ERR_UNAVAILABLE, "user %u cannot be looked up: %s", (unsigned)p->uid, why);
    finish(p, NULL, &err);
}

static struct known *remember(struct pending *p, Mu__Owner *owner)
{
    struct owners *owners = p->owners;
    struct known *k, *old;
    if (HASH_COUNT(owners->by_uid) >= OWNERS_MAX)
        forget_all(owners);
    HASH_FIND(hh, owners->by_uid, &p->uid, sizeof p->uid, old);
    if (old)
        known_free(owners, old);
    k = xcalloc(1, sizeof *k);
    k->uid = p->uid;
    k->until_ms = clock_boot_ms() + OWNER_KEEP_MS;
    k->owner = owner;
    k->admin = is_admin(owners->head, p->uid, p->name);
    HASH_ADD(hh, owners->by_uid, uid, sizeof k->uid, k);
    return k;
}

static void on_answer(evutil_socket_t fd, short what, void *arg)
{
    struct pending *p = arg;
    struct owners *owners = p->owners;
    struct lookup *l = NULL;
    if (recv(fd, &l, sizeof l, MSG_DONTWAIT) != (ssize_t)sizeof l) {
        fail(p, "no answer");
        return;
    }
    Mu__Owner *found = l->found;
    l->found = NULL;
    lookup_free(l);
    if (p->named) {
        struct error err;
        if (found) {
            finish(p, remember(p, found), NULL);
            return;
        }
        error_set(&err, ERR_USAGE, "head.json maps user %s to %s, and there is no such account", p->name,
                  mapped(owners->head, p->name));
        finish(p, NULL, &err);
        return;
    }
    if (found)
        snprintf(p->name, sizeof p->name, "%s", found->name);
    else
        snprintf(p->name, sizeof p->name, "%u", (unsigned)p->uid);
    const char *to = mapped(owners->head, p->name);
    if (!to) {
        finish(p, remember(p, found ? found : owner_of_number(p->uid, p->gid)), NULL);
        return;
    }
    if (found)
        mu__owner__free_unpacked(found, NULL);
    event_free(p->answer);
    p->answer = NULL;
    close(fd);
    owners->running--;
    p->named = true;
    TAILQ_INSERT_HEAD(&owners->queue, p, next);
    begin_next(owners);
}

/* 0: p->answer is set. */
static int begin(struct pending *p, const char *name)
{
    int pair[2];
    pthread_t thread;
    pthread_attr_t attr;
    sigset_t all, old;
    if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, pair))
        return errno;
    struct lookup *l = xcalloc(1, sizeof *l);
    l->fd = pair[1];
    l->uid = p->uid;
    l->name = name ? xstrdup(name) : NULL;
    struct event *answer = event_new(p->owners->head->base, pair[0], EV_READ, on_answer, p);
    sigfillset(&all); /* signals are the main thread's */
    pthread_sigmask(SIG_SETMASK, &all, &old);
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    int code = !answer || event_add(answer, NULL) ? ENOMEM : pthread_create(&thread, &attr, lookup_thread, l);
    pthread_attr_destroy(&attr);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (code) {
        if (answer)
            event_free(answer);
        close(pair[0]);
        close(pair[1]);
        lookup_free(l);
        return code;
    }
    p->answer = answer;
    p->owners->running++;
    return 0;
}

static void begin_next(struct owners *owners)
{
    struct pending *p;
    while (owners->running < LOOKUPS_MAX && (p = TAILQ_FIRST(&owners->queue))) {
        int code = begin(p, p->named ? mapped(owners->head, p->name) : NULL);
        if (code) {
            fail(p, strerror(code)); /* comes back here for the rest */
            return;
        }
        TAILQ_REMOVE(&owners->queue, p, next);
    }
}

void owner_ask(struct owners *owners, uid_t uid, gid_t gid, struct owner_wait *wait)
{
    struct known *k = NULL;
    struct pending *p = NULL;
    HASH_FIND(hh, owners->by_uid, &uid, sizeof uid, k);
    if (k && k->until_ms >= clock_boot_ms()) {
        tell(wait, k, NULL);
        return;
    }
    HASH_FIND(hh, owners->pending, &uid, sizeof uid, p);
    bool first = !p;
    if (first) {
        p = xcalloc(1, sizeof *p);
        p->owners = owners;
        p->uid = uid;
        p->gid = gid;
        LIST_INIT(&p->waits);
        HASH_ADD(hh, owners->pending, uid, sizeof p->uid, p);
        TAILQ_INSERT_TAIL(&owners->queue, p, next);
    }
    wait->waiting = true;
    LIST_INSERT_HEAD(&p->waits, wait, next);
    if (first)
        begin_next(owners);
}

void owner_cancel(struct owner_wait *wait)
{
    if (wait->waiting)
        LIST_REMOVE(wait, next);
    wait->waiting = false;
}

void owners_destroy(struct owners *owners)
{
    struct pending *p, *tmp;
    if (!owners)
        return;
    HASH_ITER (hh, owners->pending, p, tmp)
        pending_free(p);
    forget_all(owners);
    free(owners);
}
