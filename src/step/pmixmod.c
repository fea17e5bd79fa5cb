/* pmixmod.c - the module muster-pmix.so: a PMIx server by libpmix.
 *
 * Upcalls arrive on libpmix's progress thread. Each becomes an event on a locked queue and an
 * eventfd is raised; the step takes it, acts, and completes it through answer(), which calls the
 * callback that libpmix gave us (allowed from any thread). Sources: PMIx standard 4, chapters
 * "Server-specific interfaces" and "Process management".
 */
#include "step/pmixmod.h"
#include "base/file.h"
#include "base/mem.h"

#include <fcntl.h>
#include <hwloc.h>
#include <limits.h>
#include <pmix.h>
#include <pmix_server.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct {
    pthread_mutex_t lock;
    struct pmixmod_event *head, **tail;
    int wake_fd;
    char nspace[PMIX_MAX_NSLEN + 1];
    uint16_t port;
} server = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake_fd = -1};

static struct pmixmod_event *event_new(enum pmixmod_kind kind, const pmix_proc_t *proc, void *cbfunc,
                                       void *cbdata)
{
    struct pmixmod_event *e = xcalloc(1, sizeof *e);
    e->kind = kind;
    e->rank = proc ? proc->rank : 0;
    e->cbfunc = cbfunc;
    e->cbdata = cbdata;
    return e;
}

static void post(struct pmixmod_event *e)
{
    pthread_mutex_lock(&server.lock);
    if (!server.tail)
        server.tail = &server.head;
    *server.tail = e;
    server.tail = &e->next;
    pthread_mutex_unlock(&server.lock);
    uint64_t one = 1;
    ssize_t n = write(server.wake_fd, &one, sizeof one);
    (void)n; /* an eventfd fails only when its counter is full, and then it is raised */
}

static struct pmixmod_event *next_event(void)
{
    pthread_mutex_lock(&server.lock);
    struct pmixmod_event *e = server.head;
    if (e) {
        server.head = e->next;
        if (!server.head)
            server.tail = &server.head;
    }
    pthread_mutex_unlock(&server.lock);
    return e;
}

/* ---- upcalls: libpmix's thread ---- */

static bool ours(const pmix_proc_t *proc)
{
    return !strncmp(proc->nspace, server.nspace, PMIX_MAX_NSLEN);
}

static pmix_status_t client_connected2(const pmix_proc_t *proc, void *object, pmix_info_t info[],
                                       size_t ninfo, pmix_op_cbfunc_t cbfunc, void *cbdata)
{
    if (!ours(proc))
        return PMIX_ERR_NO_PERMISSIONS;
    post(event_new(PMIXMOD_CONNECTED, proc, (void *)cbfunc, cbdata));
    return PMIX_SUCCESS;
}

/* This and abort_fn are answered at once, on libpmix's thread: libpmix 4's callback for these writes
 * to the client's send queue on whatever thread calls it, and a reply that is queued while its own
 * thread switches the sending off is never sent. The step asks for what is queued before it judges an exit.
 */
static pmix_status_t client_finalized(const pmix_proc_t *proc, void *object, pmix_op_cbfunc_t cbfunc,
                                      void *cbdata)
{
    post(event_new(PMIXMOD_FINALIZED, proc, NULL, NULL));
    return PMIX_OPERATION_SUCCEEDED;
}

static pmix_status_t abort_fn(const pmix_proc_t *proc, void *object, int status, const char msg[],
                              pmix_proc_t procs[], size_t nprocs, pmix_op_cbfunc_t cbfunc, void *cbdata)
{
    struct pmixmod_event *e = event_new(PMIXMOD_ABORT, proc, NULL, NULL);
    e->status = status;
    e->text = xstrdup(msg ? msg : "");
    post(e);
    return PMIX_OPERATION_SUCCEEDED;
}

static int by_number(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static pmix_status_t fence_nb(const pmix_proc_t procs[], size_t nprocs, const pmix_info_t info[],
                              size_t ninfo, char *data, size_t ndata, pmix_modex_cbfunc_t cbfunc,
                              void *cbdata)
{
    bool all = nprocs == 0;
    for (size_t i = 0; i < nprocs; i++) {
        if (!ours(&procs[i])) {
            free(data);
            return PMIX_ERR_NOT_SUPPORTED;
        }
        all = all || procs[i].rank == PMIX_RANK_WILDCARD;
    }
    struct pmixmod_event *e = event_new(PMIXMOD_FENCE, NULL, (void *)cbfunc, cbdata);
    if (!all) {
        e->ranks = xcalloc(nprocs, sizeof *e->ranks);
        e->ranks_n = nprocs;
        for (size_t i = 0; i < nprocs; i++)
            e->ranks[i] = procs[i].rank;
        qsort(e->ranks, nprocs, sizeof *e->ranks, by_number);
    }
    if (ndata)
        buf_add(&e->data, data, ndata);
    free(data);
    post(e);
    return PMIX_SUCCESS;
}

static pmix_status_t direct_modex(const pmix_proc_t *proc, const pmix_info_t info[], size_t ninfo,
                                  pmix_modex_cbfunc_t cbfunc, void *cbdata)
{
    if (!ours(proc))
        return PMIX_ERR_NOT_FOUND;
    post(event_new(PMIXMOD_MODEX, proc, (void *)cbfunc, cbdata));
    return PMIX_SUCCESS;
}

static void modex_ready(pmix_status_t status, char *data, size_t ndata, void *cbdata)
{
    uint64_t *id = cbdata;
    struct pmixmod_event *e = event_new(PMIXMOD_MODEX_LOCAL, NULL, NULL, NULL);
    e->id = *id;
    e->status = status;
    if (data && ndata)
        buf_add(&e->data, data, ndata);
    free(id);
    post(e);
}

static pmix_server_module_t callbacks = {
    .client_connected2 = client_connected2,
    .client_finalized = client_finalized,
    .abort = abort_fn,
    .fence_nb = fence_nb,
    .direct_modex = direct_modex,
};

/* ---- answers: the loop's thread ---- */

static void free_data(void *data)
{
    free(data);
}

static void answer(struct pmixmod_event *e, int status, const void *data, size_t len)
{
    if (e->cbfunc && (e->kind == PMIXMOD_FENCE || e->kind == PMIXMOD_MODEX)) {
        char *copy = len ? xmemdup(data, len) : NULL;
        ((pmix_modex_cbfunc_t)e->cbfunc)(status, copy, len, e->cbdata, free_data, copy);
    } else if (e->cbfunc) {
        ((pmix_op_cbfunc_t)e->cbfunc)(status, e->cbdata);
    }
    free(e->text);
    free(e->ranks);
    buf_free(&e->data);
    free(e);
}

static void modex(uint32_t rank, uint64_t id)
{
    pmix_proc_t proc;
    PMIX_LOAD_PROCID(&proc, server.nspace, rank);
    uint64_t *key = xmemdup(&id, sizeof id);
    pmix_status_t rc = PMIx_server_dmodex_request(&proc, modex_ready, key);
    if (rc != PMIX_SUCCESS)
        modex_ready(rc, NULL, 0, key);
}

/* ---- start and stop ---- */

struct waiter {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool done;
    pmix_status_t status;
};
#define WAITER_INIT                                                                                          \
    {                                                                                                        \
        PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false, PMIX_SUCCESS                             \
    }

static void wake_waiter(pmix_status_t status, void *cbdata)
{
    struct waiter *w = cbdata;
    pthread_mutex_lock(&w->lock);
    w->done = true;
    w->status = status;
    pthread_cond_signal(&w->cond);
    pthread_mutex_unlock(&w->lock);
}

/* rc of a call that was given wake_waiter: its final status. */
static pmix_status_t wait_for_it(pmix_status_t rc, struct waiter *w)
{
    if (rc == PMIX_OPERATION_SUCCEEDED)
        return PMIX_SUCCESS;
    if (rc != PMIX_SUCCESS)
        return rc;
    pthread_mutex_lock(&w->lock);
    while (!w->done)
        pthread_cond_wait(&w->cond, &w->lock);
    pthread_mutex_unlock(&w->lock);
    return w->status;
}

static int fail(struct error *err, const char *what, pmix_status_t rc)
{
    return error_set(err, ERR_IO, "PMIx server: %s: %s", what, PMIx_Error_string(rc));
}

/* "a=b" pairs that libpmix reads from the environment of its server. */
static void library_settings(const char *topology_xml)
{
    setenv("PMIX_MCA_gds", "hash", 1);
    setenv("PMIX_MCA_psec", "native,none", 0);
    /* Without it libpmix asks for the account's home, and takes for granted that there is an account. */
    setenv("HOME", "/", 0);
    if (topology_xml[0]) {
        /* Reading it takes 1 ms, discovering it 12. */
        setenv("HWLOC_XMLFILE", topology_xml, 1);
        setenv("HWLOC_THISSYSTEM", "1", 1);
    }
}

static int init(const char *server_nspace, const char *hostname, const char *tmpdir, struct error *err)
{
    pmix_info_t *info;
    size_t n = 0;
    uint32_t rank = 0;
    PMIX_INFO_CREATE(info, 5);
    PMIX_INFO_LOAD(&info[n], PMIX_SERVER_NSPACE, server_nspace, PMIX_STRING), n++;
    PMIX_INFO_LOAD(&info[n], PMIX_SERVER_RANK, &rank, PMIX_PROC_RANK), n++;
    if (hostname)
        PMIX_INFO_LOAD(&info[n], PMIX_HOSTNAME, hostname, PMIX_STRING), n++;
    if (tmpdir) {
        PMIX_INFO_LOAD(&info[n], PMIX_SERVER_TMPDIR, tmpdir, PMIX_STRING), n++;
        PMIX_INFO_LOAD(&info[n], PMIX_SYSTEM_TMPDIR, tmpdir, PMIX_STRING), n++;
    }
    pmix_status_t rc = PMIx_server_init(&callbacks, info, n);
    PMIX_INFO_FREE(info, 5);
    return rc == PMIX_SUCCESS ? 0 : fail(err, "it does not start", rc);
}

/* The port in PMIX_SERVER_URI* of what setup_fork gives. */
static int find_port(const char *nspace, uint16_t *port, char ***env_out, struct error *err)
{
    pmix_proc_t proc;
    char **env = NULL;
    PMIX_LOAD_PROCID(&proc, nspace, 0);
    pmix_status_t rc = PMIx_server_setup_fork(&proc, &env);
    *port = 0;
    for (char **e = env; rc == PMIX_SUCCESS && e && *e; e++) {
        const char *at = strncmp(*e, "PMIX_SERVER_URI", 15) ? NULL : strstr(*e, "tcp4://127.0.0.1:");
        if (at)
            *port = (uint16_t)atoi(at + strlen("tcp4://127.0.0.1:"));
    }
    if (env_out)
        *env_out = env;
    else
        for (char **e = env; e && *e; e++)
            free(*e);
    if (!env_out)
        free(env);
    if (rc != PMIX_SUCCESS)
        return fail(err, "no environment for a rank", rc);
    return *port ? 0 : error_set(err, ERR_VERSION, "PMIx server: it does not listen on 127.0.0.1");
}

struct layout {
    struct buf node_list, proc_list, local_peers;
    uint32_t *node_ranks; /* per node: how many so far */
    uint32_t local, local_leader;
    const struct pmixmod_setup *s;
};

static void layout_make(struct layout *l, const struct pmixmod_setup *s)
{
    *l = (struct layout){
        .s = s, .node_ranks = xcalloc(s->nodes, sizeof *l->node_ranks), .local_leader = UINT32_MAX};
    struct buf *per_node = xcalloc(s->nodes, sizeof *per_node);
    for (uint32_t r = 0; r < s->size; r++) {
        struct buf *b = &per_node[s->rank_node[r]];
        buf_addf(b, "%s%u", b->len ? "," : "", r);
        if (s->rank_node[r] == s->my_node) {
            l->local++;
            if (l->local_leader == UINT32_MAX)
                l->local_leader = r;
        }
    }
    for (uint32_t i = 0; i < s->nodes; i++) {
        buf_addf(&l->node_list, "%s%s", i ? "," : "", s->node_names[i]);
        buf_addf(&l->proc_list, "%s%s", i ? ";" : "", buf_str(&per_node[i]));
        if (i == s->my_node)
            buf_adds(&l->local_peers, buf_str(&per_node[i]));
        buf_free(&per_node[i]);
    }
    free(per_node);
}

static void layout_free(struct layout *l)
{
    free(l->node_ranks);
    buf_free(&l->node_list);
    buf_free(&l->proc_list);
    buf_free(&l->local_peers);
}

static void rank_info(pmix_info_t *info, struct layout *l, uint32_t r)
{
    const struct pmixmod_setup *s = l->s;
    uint32_t node = s->rank_node[r], zero = 0;
    uint16_t local = (uint16_t)l->node_ranks[node]++;
    pmix_data_array_t *array;
    PMIX_DATA_ARRAY_CREATE(array, 9, PMIX_INFO);
    pmix_info_t *p = array->array;
    PMIX_INFO_LOAD(&p[0], PMIX_RANK, &r, PMIX_PROC_RANK);
    PMIX_INFO_LOAD(&p[1], PMIX_GLOBAL_RANK, &r, PMIX_PROC_RANK);
    PMIX_INFO_LOAD(&p[2], PMIX_APPNUM, &zero, PMIX_UINT32);
    PMIX_INFO_LOAD(&p[3], PMIX_APP_RANK, &r, PMIX_PROC_RANK);
    PMIX_INFO_LOAD(&p[4], PMIX_LOCAL_RANK, &local, PMIX_UINT16);
    PMIX_INFO_LOAD(&p[5], PMIX_NODE_RANK, &local, PMIX_UINT16);
    PMIX_INFO_LOAD(&p[6], PMIX_NODEID, &node, PMIX_UINT32);
    PMIX_INFO_LOAD(&p[7], PMIX_HOSTNAME, s->node_names[node], PMIX_STRING);
    PMIX_INFO_LOAD(&p[8], PMIX_APPLDR, &zero, PMIX_PROC_RANK);
    PMIX_LOAD_KEY(info->key, PMIX_PROC_DATA);
    info->value.type = PMIX_DATA_ARRAY;
    info->value.data.darray = array;
}

static int register_job(const struct pmixmod_setup *s, struct error *err)
{
    struct layout l;
    layout_make(&l, s);
    char *node_map = NULL, *proc_map = NULL;
    pmix_status_t rc = PMIx_generate_regex(buf_str(&l.node_list), &node_map);
    if (rc == PMIX_SUCCESS)
        rc = PMIx_generate_ppn(buf_str(&l.proc_list), &proc_map);
    if (rc != PMIX_SUCCESS) {
        layout_free(&l);
        return fail(err, "no node map", rc);
    }
    enum { FIXED = 14 };
    size_t n = 0;
    uint32_t one = 1, zero = 0;
    pmix_info_t *i;
    PMIX_INFO_CREATE(i, FIXED + s->size);
    PMIX_INFO_LOAD(&i[n], PMIX_JOBID, s->nspace, PMIX_STRING), n++;
    PMIX_INFO_LOAD(&i[n], PMIX_UNIV_SIZE, &s->size, PMIX_UINT32), n++;
    PMIX_INFO_LOAD(&i[n], PMIX_JOB_SIZE, &s->size, PMIX_UINT32), n++;
    PMIX_INFO_LOAD(&i[n], PMIX_MAX_PROCS, &s->size, PMIX_UINT32), n++;
    PMIX_INFO_LOAD(&i[n], PMIX_JOB_NUM_APPS, &one, PMIX_UINT32), n++;
    PMIX_INFO_LOAD(&i[n], PMIX_NUM_NODES, &s->nodes, PMIX_UINT32), n++;
    PMIX_INFO_LOAD(&i[n], PMIX_NODE_MAP, node_map, PMIX_REGEX), n++;
    PMIX_INFO_LOAD(&i[n], PMIX_PROC_MAP, proc_map, PMIX_REGEX), n++;
    PMIX_INFO_LOAD(&i[n], PMIX_LOCAL_SIZE, &l.local, PMIX_UINT32), n++;
    PMIX_INFO_LOAD(&i[n], PMIX_NODE_SIZE, &l.local, PMIX_UINT32), n++;
    PMIX_INFO_LOAD(&i[n], PMIX_LOCAL_PEERS, buf_str(&l.local_peers), PMIX_STRING), n++;
    PMIX_INFO_LOAD(&i[n], PMIX_LOCALLDR, &l.local_leader, PMIX_PROC_RANK), n++;
    PMIX_INFO_LOAD(&i[n], PMIX_APP_SIZE, &s->size, PMIX_UINT32), n++;
    PMIX_INFO_LOAD(&i[n], PMIX_APPLDR, &zero, PMIX_PROC_RANK), n++;
    for (uint32_t r = 0; r < s->size; r++)
        rank_info(&i[n++], &l, r);
    pmix_nspace_t nspace;
    PMIX_LOAD_NSPACE(nspace, s->nspace);
    struct waiter w = WAITER_INIT;
    rc = wait_for_it(PMIx_server_register_nspace(nspace, (int)l.local, i, n, wake_waiter, &w), &w);
    PMIX_INFO_FREE(i, FIXED + s->size);
    free(node_map);
    free(proc_map);
    layout_free(&l);
    return rc == PMIX_SUCCESS ? 0 : fail(err, "the job is not accepted", rc);
}

static int register_clients(const struct pmixmod_setup *s, struct error *err)
{
    for (uint32_t r = 0; r < s->size; r++) {
        if (s->rank_node[r] != s->my_node)
            continue;
        pmix_proc_t proc;
        PMIX_LOAD_PROCID(&proc, s->nspace, r);
        struct waiter w = WAITER_INIT;
        pmix_status_t rc =
            wait_for_it(PMIx_server_register_client(&proc, s->uid, s->gid, NULL, wake_waiter, &w), &w);
        if (rc != PMIX_SUCCESS)
            return fail(err, "a rank is not accepted", rc);
    }
    return 0;
}

static int start(const struct pmixmod_setup *s, struct error *err)
{
    if (strlen(s->nspace) > PMIX_MAX_NSLEN || strlen(s->server_nspace) > PMIX_MAX_NSLEN)
        return error_set(err, ERR_LIMIT, "PMIx server: name of the job is too long");
    library_settings(s->topology_xml);
    snprintf(server.nspace, sizeof server.nspace, "%s", s->nspace);
    server.wake_fd = s->wake_fd;
    if (init(s->server_nspace, s->node_names[s->my_node], s->tmpdir, err))
        return -1;
    if (register_job(s, err) || register_clients(s, err))
        return -1;
    return find_port(s->nspace, &server.port, NULL, err);
}

static uint16_t port(void)
{
    return server.port;
}

/* ---- the template ---- */

static void replace(struct buf *line, const char *what, const char *with)
{
    char *at = line->len ? strstr(line->data, what) : NULL;
    if (!at || !*what)
        return;
    struct buf out = BUF_INIT;
    buf_add(&out, line->data, (size_t)(at - line->data));
    buf_adds(&out, with);
    buf_adds(&out, at + strlen(what));
    buf_free(line);
    *line = out;
}

static int topology_xml(struct buf *xml, struct error *err)
{
    hwloc_topology_t t;
    char *text = NULL;
    int len = 0;
    if (hwloc_topology_init(&t))
        return error_set(err, ERR_IO, "hwloc does not start");
    hwloc_topology_set_io_types_filter(t, HWLOC_TYPE_FILTER_KEEP_IMPORTANT);
    if (hwloc_topology_load(t) || hwloc_topology_export_xmlbuffer(t, &text, &len, 0)) {
        hwloc_topology_destroy(t);
        return error_set(err, ERR_IO, "hwloc does not find this machine's topology");
    }
    buf_adds(xml, text);
    hwloc_free_xmlbuffer(t, text);
    hwloc_topology_destroy(t);
    return 0;
}

static int probe(const char *folder, struct buf *env, struct buf *xml, struct error *err)
{
    static const char nspace[] = "muster-probe-nspace", server_nspace[] = "muster-probe-server";
    char host[] = "muster-probe-host", port_text[16], **list = NULL;
    uint16_t listen_port = 0;
    if (topology_xml(xml, err))
        return -1;
    library_settings("");
    char tmp[PATH_MAX];
    if (snprintf(tmp, sizeof tmp, "%s/probe-XXXXXX", folder) >= (int)sizeof tmp || !mkdtemp(tmp))
        return error_sys(err, "cannot make a folder in %s", folder);
    int rc = init(server_nspace, host, tmp, err);
    if (rc == 0) {
        pmix_nspace_t ns;
        pmix_proc_t proc;
        PMIX_LOAD_NSPACE(ns, nspace);
        PMIX_LOAD_PROCID(&proc, nspace, 0);
        struct waiter w = WAITER_INIT, w2 = WAITER_INIT;
        wait_for_it(PMIx_server_register_nspace(ns, 1, NULL, 0, wake_waiter, &w), &w);
        wait_for_it(PMIx_server_register_client(&proc, getuid(), getgid(), NULL, wake_waiter, &w2), &w2);
        rc = find_port(nspace, &listen_port, &list, err);
    }
    snprintf(port_text, sizeof port_text, ":%u", listen_port);
    for (char **e = list; rc == 0 && e && *e; e++) {
        struct buf line = BUF_INIT;
        buf_adds(&line, *e);
        replace(&line, server_nspace, "@SERVER@");
        replace(&line, nspace, "@NSPACE@");
        replace(&line, host, "@HOST@");
        replace(&line, tmp, "@TMPDIR@");
        if (!strncmp(*e, "PMIX_SERVER_URI", 15))
            replace(&line, port_text, ":@PORT@");
        if (!strcmp(*e, "PMIX_RANK=0"))
            replace(&line, "=0", "=@RANK@");
        if (!strchr(*e, '\n'))
            buf_addf(env, "%s\n", line.data);
        buf_free(&line);
    }
    PMIx_server_finalize();
    file_remove_tree(AT_FDCWD, tmp, NULL);
    return rc;
}

const struct pmixmod muster_pmix __attribute__((visibility("default"))) = {
    .abi = PMIXMOD_ABI,
    .start = start,
    .port = port,
    .next = next_event,
    .answer = answer,
    .modex = modex,
    .probe = probe,
};
