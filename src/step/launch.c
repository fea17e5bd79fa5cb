/* launch.c - the order by which every node of a step knows who runs where. */
#include "step/launch.h"
#include "base/mem.h"
#include "step/options.h"
#include "step/plan.h"

#include <assert.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define WINDOW_TOTAL (8u * 1024 * 1024) /* output under way, over all nodes */
#define WINDOW_MIN (32u * 1024)
#define NAME_MAX_LEN 100

/* A deep copy through the packed form. NULL is impossible for what we packed ourselves. */
static Mu__StepRequest *copy_request(const Mu__StepRequest *q)
{
    size_t len = mu__step_request__get_packed_size(q);
    uint8_t *bytes = xmalloc(len);
    mu__step_request__pack(q, bytes);
    Mu__StepRequest *copy = mu__step_request__unpack(NULL, len, bytes);
    free(bytes);
    assert(copy);
    return copy;
}

static Mu__PeerNode *this_machine(void)
{
    char host[256] = "localhost";
    gethostname(host, sizeof host - 1);
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) ? (int)sysconf(_SC_NPROCESSORS_ONLN) : CPU_COUNT(&set);
    Mu__PeerNode *p = xmalloc(sizeof *p);
    mu__peer_node__init(p);
    p->name = xstrdup(host);
    p->n_cores = (size_t)(n > 0 ? n : 1);
    p->cores = xcalloc(p->n_cores, sizeof *p->cores);
    return p;
}

static Mu__PeerNode *copy_peer(const Mu__PeerNode *q)
{
    size_t len = mu__peer_node__get_packed_size(q);
    uint8_t *bytes = xmalloc(len + 1);
    mu__peer_node__pack(q, bytes);
    Mu__PeerNode *copy = mu__peer_node__unpack(NULL, len, bytes);
    free(bytes);
    assert(copy);
    return copy;
}

/* Nodes of one machine whose system calls it by another name than the cluster: shared files of an
 * MPI library that are named after the host would collide. */
static bool names_collide(const Mu__StepContext *c)
{
    char host[256] = "";
    gethostname(host, sizeof host - 1);
    const Mu__PeerNode *me = c->nodes[c->my_index];
    if (!strcmp(host, me->name))
        return false;
    for (size_t i = 0; i < c->n_nodes; i++)
        if (i != c->my_index && !strcmp(c->nodes[i]->physical_host, me->physical_host))
            return true;
    return false;
}

static void add_node(Mu__StepLaunch *l, Mu__PeerNode *peer)
{
    Mu__StepNode *n = xmalloc(sizeof *n);
    mu__step_node__init(n);
    n->peer = peer;
    l->nodes[l->n_nodes++] = n;
}

static void build_nodes(Mu__StepLaunch *l, const struct plan *plan, Mu__PeerNode *const *peers,
                        size_t peers_n, uint32_t my_index)
{
    uint32_t *index = xcalloc(peers_n, sizeof *index); /* in l->nodes, plus 1 */
    l->nodes = xcalloc(peers_n, sizeof(void *));
    add_node(l, copy_peer(peers[my_index]));
    index[my_index] = 1;
    l->blocks = xcalloc(plan->blocks_n, sizeof(void *));
    for (size_t b = 0; b < plan->blocks_n; b++) {
        uint32_t node = plan->blocks[b].node;
        if (!index[node]) {
            add_node(l, copy_peer(peers[node]));
            index[node] = (uint32_t)l->n_nodes;
        }
        Mu__StepBlock *block = xmalloc(sizeof *block);
        mu__step_block__init(block);
        block->node = index[node] - 1;
        block->ranks = plan->blocks[b].ranks;
        l->nodes[block->node]->ranks += block->ranks;
        l->blocks[l->n_blocks++] = block;
    }
    free(index);
}

static char *random_name(void)
{
    uint64_t bits[2];
    if (getrandom(bits, sizeof bits, 0) != sizeof bits)
        abort();
    return xasprintf("muster-%016llx%016llx", (unsigned long long)bits[0], (unsigned long long)bits[1]);
}

Mu__StepLaunch *launch_plan(const Mu__StepRequest *request, const Mu__StepContext *context, struct error *err)
{
    /* mpiexec has looked, but anybody can call a keeper. */
    for (size_t i = 0; i < request->n_sections; i++)
        if (!request->sections[i]->n_argv) {
            error_set(err, ERR_USAGE, "section %zu of the request has no program", i + 1);
            return NULL;
        }
    Mu__PeerNode *alone = context ? NULL : this_machine();
    Mu__PeerNode **peers = context ? context->nodes : &alone;
    size_t peers_n = context ? context->n_nodes : 1;
    struct plan_node *there = xcalloc(peers_n, sizeof *there);
    for (size_t i = 0; i < peers_n; i++)
        there[i] = (struct plan_node){peers[i]->name, (uint32_t)peers[i]->n_cores};
    struct plan plan;
    Mu__StepLaunch *l = NULL;
    if (plan_make(&plan, request, there, peers_n, err) == 0) {
        l = xmalloc(sizeof *l);
        mu__step_launch__init(l);
        l->nspace = random_name();
        l->request = copy_request(request);
        for (size_t i = 0; i < l->request->n_sections; i++)
            l->request->sections[i]->ranks = plan.section_ranks[i];
        build_nodes(l, &plan, peers, peers_n, context ? context->my_index : 0);
        l->window = WINDOW_TOTAL / (uint32_t)l->n_nodes;
        if (l->window < WINDOW_MIN)
            l->window = WINDOW_MIN;
        l->same_kernel_names = context && names_collide(context);
        plan_free(&plan);
    }
    free(there);
    if (alone)
        mu__peer_node__free_unpacked(alone, NULL);
    return l;
}

static bool launch_makes_sense(const Mu__StepLaunch *l)
{
    uint64_t ranks = 0, in_sections = 0, on_nodes = 0;
    if (!l->request || !l->n_nodes || l->index >= l->n_nodes || !l->nspace ||
        strlen(l->nspace) > NAME_MAX_LEN)
        return false;
    for (size_t i = 0; i < l->n_nodes; i++) {
        if (!l->nodes[i]->peer)
            return false;
        on_nodes += l->nodes[i]->ranks;
    }
    uint64_t *count = xcalloc(l->n_nodes, sizeof *count);
    bool good = true;
    for (size_t i = 0; i < l->n_blocks && good; i++) {
        good = l->blocks[i]->node < l->n_nodes;
        if (good)
            count[l->blocks[i]->node] += l->blocks[i]->ranks;
        ranks += l->blocks[i]->ranks;
    }
    for (size_t i = 0; i < l->n_nodes && good; i++)
        good = count[i] == l->nodes[i]->ranks;
    free(count);
    for (size_t i = 0; i < l->request->n_sections; i++) {
        good = good && l->request->sections[i]->n_argv > 0;
        in_sections += l->request->sections[i]->ranks;
    }
    return good && ranks == on_nodes && ranks == in_sections && ranks <= OPTIONS_RANKS_MAX &&
           l->nodes[l->index]->ranks;
}

Mu__StepLaunch *launch_take(const Mu__StepLaunch *order)
{
    size_t len = mu__step_launch__get_packed_size(order);
    uint8_t *bytes = xmalloc(len + 1);
    mu__step_launch__pack(order, bytes);
    Mu__StepLaunch *l = mu__step_launch__unpack(NULL, len, bytes);
    free(bytes);
    if (l && launch_makes_sense(l))
        return l;
    if (l)
        mu__step_launch__free_unpacked(l, NULL);
    return NULL;
}
