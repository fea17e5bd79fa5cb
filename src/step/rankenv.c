/* rankenv.c - the environment of a rank. */
#include "step/rankenv.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>

struct var {
    UT_hash_handle hh;
    size_t at; /* its place in vec */
    char name[];
};

struct rankenv {
    char **vec; /* "NAME=VALUE", owned; NULL-terminated */
    size_t n, cap;
    struct var *index;
};

/* What another launcher may have left in our environment and must not reach a rank: it would make
 * it talk to the wrong server. A trailing * is a prefix. PMIX_MCA_* are the user's own settings. */
static const char *const dropped[] = {
    "PMI_FD",
    "PMI_RANK",
    "PMI_SIZE",
    "PMI_PORT",
    "PMI_ID",
    "PMI_SPAWNED",
    "PMI_APPNUM",
    "PMI_UNIVERSE_SIZE",
    "PMI_KVS",
    "PMI_DOMAIN",
    "PMI_SMPD_FD",
    "PMI_JOBID",
    "PMI2_*",
    "PMIX_NAMESPACE",
    "PMIX_RANK",
    "PMIX_SERVER_*",
    "PMIX_SECURITY_MODE",
    "PMIX_GDS_MODULE",
    "PMIX_HOSTNAME",
    "PMIX_VERSION",
    "PMIX_DSTORE_*",
    "PMIX_BFROP_BUFFER_TYPE",
    "PMIX_SYSTEM_TMPDIR",
    "PMIX_ID",
    "PMIX_MCA_mca_base_component_show_load_errors",
    "HYDI_CONTROL_FD",
    "MUSTER_STEP",
    "MUSTER_STEP_ROLE",
};

enum when { ALWAYS, IF_PMIX, IF_OWN_NETWORK, IF_CROWDED, IF_SHARED_NAME };
enum what { TEXT, INTERFACE, TMPDIR };

/* The table. `unless`: names parted by blanks; when the user has set one, the row yields. */
static const struct {
    const char *name;
    const char *value;
    const char *unless;
    enum when when;
    enum what what;
} table[] = {
    /* Open MPI 4 takes itself for a singleton, whatever PMIx says, unless it believes that a daemon
     * has started it. The muster-step does what that daemon would; the address is never used. */
    {"OMPI_MCA_orte_local_daemon_uri", "0.0;tcp://127.0.0.1:1",
     "OMPI_MCA_orte_local_daemon_uri JSM_JSRUN_PORT", IF_PMIX, TEXT},
    /* Both ends keep job data in memory: no shared files that a killed server would leave behind. */
    {"PMIX_MCA_gds", "hash", "PMIX_MCA_gds", IF_PMIX, TEXT},
    /* A cluster network of its own: Open MPI leaves "lo" out by itself and would take any other. */
    {"OMPI_MCA_btl_tcp_if_include", NULL, "OMPI_MCA_btl_tcp_if_include OMPI_MCA_btl_tcp_if_exclude",
     IF_OWN_NETWORK, INTERFACE},
    {"OMPI_MCA_btl", "tcp,self,vader", "OMPI_MCA_btl OMPI_MCA_pml", IF_OWN_NETWORK, TEXT},
    {"OMPI_MCA_pml", "ob1", "OMPI_MCA_pml", IF_OWN_NETWORK, TEXT},
    /* Waiting ranks leave the processor to the others. */
    {"OMPI_MCA_mpi_yield_when_idle", "1", "OMPI_MCA_mpi_yield_when_idle", IF_CROWDED, TEXT},
    /* Open MPI names its shared memory after the host: nodes with one host name would collide. */
    {"OMPI_MCA_btl_vader_backing_directory", NULL, "OMPI_MCA_btl_vader_backing_directory", IF_SHARED_NAME,
     TMPDIR},
    /* Fortran programs write through a pipe here; by themselves they would hold their lines back. */
    {"GFORTRAN_UNBUFFERED_PRECONNECTED", "y", "GFORTRAN_UNBUFFERED_PRECONNECTED", ALWAYS, TEXT},
};

static bool is_dropped(const char *pair)
{
    for (size_t i = 0; i < sizeof dropped / sizeof dropped[0]; i++) {
        size_t len = strlen(dropped[i]);
        if (dropped[i][len - 1] == '*' ? !strncmp(pair, dropped[i], len - 1)
                                       : !strncmp(pair, dropped[i], len) && pair[len] == '=')
            return true;
    }
    return false;
}

/* Takes over `pair`. */
static void put(struct rankenv *e, const char *name, size_t len, char *pair)
{
    struct var *v;
    HASH_FIND(hh, e->index, name, len, v);
    if (v) {
        free(e->vec[v->at]);
        e->vec[v->at] = pair;
        return;
    }
    v = xcalloc(1, sizeof *v + len + 1);
    memcpy(v->name, name, len);
    v->at = e->n;
    HASH_ADD_KEYPTR(hh, e->index, v->name, len, v);
    e->vec = xgrow(e->vec, &e->cap, e->n + 2, sizeof *e->vec);
    e->vec[e->n++] = pair;
    e->vec[e->n] = NULL;
}

static void put_list(struct rankenv *e, char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const char *eq = strchr(list[i], '=');
        if (eq && eq != list[i])
            put(e, list[i], (size_t)(eq - list[i]), xstrdup(list[i]));
    }
}

static bool applies(enum when when, const struct rankenv_facts *f)
{
    switch (when) {
    case ALWAYS:
        return true;
    case IF_PMIX:
        return f->pmix;
    case IF_OWN_NETWORK:
        return f->own_network;
    case IF_CROWDED:
        return f->crowded;
    case IF_SHARED_NAME:
        return f->shared_name;
    }
    return false;
}

static bool user_chose(const struct rankenv *e, const char *names)
{
    char name[128];
    for (const char *w = names; *w;) {
        size_t n = strcspn(w, " ");
        snprintf(name, sizeof name, "%.*s", (int)n, w);
        if (rankenv_get(e, name))
            return true;
        w += n;
        w += *w == ' ';
    }
    return false;
}

struct rankenv *rankenv_new(char *const *base, size_t base_n, char *const *section, size_t section_n,
                            const struct rankenv_facts *facts)
{
    struct rankenv *e = xcalloc(1, sizeof *e);
    for (size_t i = 0; i < base_n; i++)
        if (!is_dropped(base[i]))
            put_list(e, &base[i], 1);
    put_list(e, section, section_n);
    /* Decided on what the user gave alone: rows must not see each other's values. */
    bool use[sizeof table / sizeof table[0]];
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        use[i] = applies(table[i].when, facts) && !user_chose(e, table[i].unless);
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        const char *value = table[i].what == INTERFACE ? facts->interface
                            : table[i].what == TMPDIR  ? facts->tmpdir
                                                       : table[i].value;
        if (use[i] && value[0])
            rankenv_set(e, table[i].name, value);
    }
    return e;
}

void rankenv_free(struct rankenv *e)
{
    if (!e)
        return;
    struct var *v = e->index;
    HASH_CLEAR(hh, e->index);
    while (v) {
        struct var *next = v->hh.next;
        free(v);
        v = next;
    }
    for (size_t i = 0; i < e->n; i++)
        free(e->vec[i]);
    free(e->vec);
    free(e);
}

void rankenv_set(struct rankenv *e, const char *name, const char *value)
{
    put(e, name, strlen(name), xasprintf("%s=%s", name, value));
}

const char *rankenv_get(const struct rankenv *e, const char *name)
{
    struct var *v;
    size_t len = strlen(name);
    HASH_FIND(hh, e->index, name, len, v);
    return v ? e->vec[v->at] + len + 1 : NULL;
}

char *const *rankenv_vector(struct rankenv *e)
{
    if (!e->vec)
        e->vec = xgrow(e->vec, &e->cap, 1, sizeof *e->vec), e->vec[0] = NULL;
    return e->vec;
}
