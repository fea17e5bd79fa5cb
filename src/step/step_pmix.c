/* step_pmix.c - what libpmix asks of the step.
 *
 * An event comes from pmixhost.c and is answered now, or when other nodes have answered: a fence when
 * its gathering over all nodes is released (the bytes of all ranks come back), a question for the data
 * of another node's rank when that node replies. What waits is in three lists of struct step: `fences`
 * and `modexes` are ours and hold libpmix's events; `asked` are other nodes' questions to our libpmix.
 */
#include "step/step_private.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- fences ---- */

static void pmix_fence(struct step *s, struct pmixmod_event *e)
{
    struct buf key = BUF_INIT;
    buf_adds(&key, "pmix");
    for (size_t i = 0; i < e->ranks_n; i++)
        buf_addf(&key, ",%u", e->ranks[i]);
    struct fence *f = xcalloc(1, sizeof *f);
    f->event = e;
    f->key = buf_detach(&key);
    f->next = s->fences;
    s->fences = f;
    /* The bytes are copied before the answer may free the event. */
    struct buf data = e->data;
    e->data = (struct buf)BUF_INIT;
    uint32_t *ranks = xmemdup(e->ranks, e->ranks_n * sizeof *ranks);
    char *name = xstrdup(f->key);
    step_contribute(s, name, ranks, e->ranks_n, data.data, data.len);
    free(name);
    free(ranks);
    buf_free(&data);
}

void step_pmix_release(struct step *s, const Mu__StepRelease *r)
{
    for (struct fence **at = &s->fences; *at; at = &(*at)->next) {
        struct fence *f = *at;
        if (strcmp(f->key, r->key))
            continue;
        *at = f->next;
        pmixhost_answer(s->pmix, f->event, 0, r->data.data, r->data.len);
        free(f->key);
        free(f);
        return;
    }
}

/* ---- data of one rank ---- */

static void pmix_modex(struct step *s, struct pmixmod_event *e)
{
    if (e->rank >= s->size) {
        pmixhost_answer(s->pmix, e, -1, NULL, 0);
        return;
    }
    struct modex_waiting *w = xcalloc(1, sizeof *w);
    w->id = ++s->modex_last;
    w->event = e;
    w->next = s->modexes;
    s->modexes = w;
    Mu__StepModex m = MU__STEP_MODEX__INIT;
    m.from = s->me;
    m.to = s->rank_node[e->rank];
    m.id = w->id;
    m.rank = e->rank;
    step_route(s, m.to, FRAME(MODEX, modex, &m));
}

void step_pmix_modex(struct step *s, const Mu__StepModex *m)
{
    struct modex_asked *a = xcalloc(1, sizeof *a);
    a->local_id = ++s->modex_last;
    a->id = m->id;
    a->from = m->from;
    a->next = s->asked;
    s->asked = a;
    if (s->pmix && pmixhost_modex(s->pmix, m->rank, a->local_id) == 0)
        return;
    /* libpmix waits for an answer: a node that cannot give one says so. */
    s->asked = a->next;
    free(a);
    Mu__StepModexReply r = MU__STEP_MODEX_REPLY__INIT;
    r.to = m->from;
    r.id = m->id;
    r.status = -1;
    step_route(s, r.to, FRAME(MODEX_REPLY, modex_reply, &r));
}

static void pmix_modex_local(struct step *s, struct pmixmod_event *e)
{
    for (struct modex_asked **at = &s->asked; *at; at = &(*at)->next) {
        struct modex_asked *a = *at;
        if (a->local_id != e->id)
            continue;
        *at = a->next;
        Mu__StepModexReply r = MU__STEP_MODEX_REPLY__INIT;
        r.to = a->from;
        r.id = a->id;
        r.status = e->status;
        r.data = (ProtobufCBinaryData){e->data.len, (uint8_t *)e->data.data};
        step_route(s, r.to, FRAME(MODEX_REPLY, modex_reply, &r));
        free(a);
        break;
    }
    pmixhost_answer(s->pmix, e, 0, NULL, 0);
}

void step_pmix_modex_reply(struct step *s, const Mu__StepModexReply *r)
{
    for (struct modex_waiting **at = &s->modexes; *at; at = &(*at)->next) {
        struct modex_waiting *w = *at;
        if (w->id != r->id)
            continue;
        *at = w->next;
        pmixhost_answer(s->pmix, w->event, r->status, r->data.data, r->data.len);
        free(w);
        return;
    }
}

/* ---- events ---- */

static void pmix_event(void *arg, struct pmixmod_event *e)
{
    struct step *s = arg;
    struct rank *r = step_find_rank(s, e->rank);
    switch (e->kind) {
    case PMIXMOD_CONNECTED:
        if (r)
            rank_set_family(r, FAMILY_PMIX);
        pmixhost_answer(s->pmix, e, r ? 0 : -1, NULL, 0);
        break;
    case PMIXMOD_FINALIZED:
        if (r)
            r->finalized = true;
        pmixhost_answer(s->pmix, e, 0, NULL, 0);
        break;
    case PMIXMOD_ABORT:
        if (r)
            step_rank_abort(s, r, e->status, "");
        pmixhost_answer(s->pmix, e, 0, NULL, 0);
        break;
    case PMIXMOD_FENCE:
        pmix_fence(s, e);
        break;
    case PMIXMOD_MODEX:
        pmix_modex(s, e);
        break;
    case PMIXMOD_MODEX_LOCAL:
        pmix_modex_local(s, e);
        break;
    }
}

static void pmix_failed(void *arg, const struct error *err)
{
    struct step *s = arg;
    step_fault(s, -1, CODE_STARTED_NOT, 0, "node %s: %s", step_node_name(s, s->me), err->text);
}

static void pmix_refused(void *arg, uid_t uid)
{
    step_note(arg, "PMIx: a connection of user %d was refused", (int)uid);
}

static int pmix_starting(void *arg, struct error *err)
{
    return step_make_tmpdir(arg, err);
}

static const struct pmixhost_ops pmixhost_ops = {
    .starting = pmix_starting, .event = pmix_event, .failed = pmix_failed, .refused = pmix_refused};

/* Nodes without ranks (a root that only directs) are not in PMIx's map. */
void step_pmix_open(struct step *s)
{
    uint32_t nodes = (uint32_t)s->launch->n_nodes, dense = 0;
    uint32_t *to_dense = xcalloc(nodes, sizeof *to_dense);
    s->pmix_names = xcalloc(nodes, sizeof *s->pmix_names);
    s->pmix_rank_node = xcalloc(s->size, sizeof *s->pmix_rank_node);
    for (uint32_t i = 0; i < nodes; i++) {
        if (!s->launch->nodes[i]->ranks)
            continue;
        s->pmix_names[dense] = step_node_name(s, i);
        to_dense[i] = dense++;
    }
    for (uint32_t r = 0; r < s->size; r++)
        s->pmix_rank_node[r] = to_dense[s->rank_node[r]];
    struct pmixmod_setup setup = {.nspace = s->launch->nspace,
                                  .size = s->size,
                                  .rank_node = s->pmix_rank_node,
                                  .node_names = s->pmix_names,
                                  .nodes = dense,
                                  .my_node = to_dense[s->me],
                                  .uid = geteuid(),
                                  .gid = getegid(),
                                  .tmpdir = s->tmpdir};
    free(to_dense);
    char *folder = NULL;
    const Mu__StepContext *c = s->config.context;
    if (c && c->hwloc_xml && c->hwloc_xml[0] == '/') {
        folder = xstrdup(c->hwloc_xml);
        *strrchr(folder, '/') = 0;
    }
    struct error err;
    s->pmix = pmixhost_new(s->config.base, &setup, folder, &pmixhost_ops, s, &err);
    free(folder);
    if (!s->pmix)
        step_note(s, "PMIx is not offered, PMI-1 is: %s", err.text);
}

void step_pmix_free(struct step *s)
{
    pmixhost_free(s->pmix);
    for (struct fence *f = s->fences, *next; f; f = next) {
        next = f->next;
        free(f->key);
        free(f); /* its event belongs to libpmix's last breath: the process ends now */
    }
    for (struct modex_waiting *w = s->modexes, *next; w; w = next) {
        next = w->next;
        free(w);
    }
    for (struct modex_asked *a = s->asked, *next; a; a = next) {
        next = a->next;
        free(a);
    }
    free(s->pmix_rank_node);
    free(s->pmix_names);
}
