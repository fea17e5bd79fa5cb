/* plan.c - which rank runs where. */
#include "step/plan.h"
#include "base/mem.h"
#include "step/options.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct host {
    uint32_t node;
    uint32_t ranks;
};

static int find_node(const struct plan_node *nodes, size_t n, const char *name, uint32_t *out,
                     struct error *err)
{
    for (size_t i = 0; i < n; i++) {
        if (!strcmp(nodes[i].name, name)) {
            *out = (uint32_t)i;
            return 0;
        }
    }
    /* On one machine alone its usual other names are accepted too. */
    if (n == 1 && (!strcmp(name, "localhost") || !strcmp(name, "127.0.0.1"))) {
        *out = 0;
        return 0;
    }
    if (n == 1)
        return error_set(err, ERR_USAGE, "host \"%s\" is not part of this run; the only one is %s", name,
                         nodes[0].name);
    return error_set(err, ERR_USAGE, "host \"%s\" is not one of the %zu nodes of this allocation (%s .. %s)",
                     name, n, nodes[0].name, nodes[n - 1].name);
}

static void place(struct plan *plan, uint32_t node, uint32_t ranks)
{
    if (plan->blocks_n && plan->blocks[plan->blocks_n - 1].node == node) {
        plan->blocks[plan->blocks_n - 1].ranks += ranks;
        return;
    }
    plan->blocks = xgrow(plan->blocks, &plan->blocks_cap, plan->blocks_n + 1, sizeof *plan->blocks);
    plan->blocks[plan->blocks_n++] = (struct plan_block){node, ranks};
}

/* Fills hosts from *at, where *left of the host's count is still free; both move on. */
static void fill(struct plan *plan, const struct host *hosts, size_t n, uint32_t ranks, size_t *at,
                 uint32_t *left)
{
    assert(n > 0);
    while (ranks) {
        if (*left == 0) {
            *at = (*at + 1) % n;
            *left = hosts[*at].ranks;
        }
        uint32_t now = *left < ranks ? *left : ranks;
        place(plan, hosts[*at].node, now);
        *left -= now;
        ranks -= now;
    }
}

static uint64_t sum(const struct host *hosts, size_t n)
{
    uint64_t total = 0;
    for (size_t i = 0; i < n; i++)
        total += hosts[i].ranks;
    return total;
}

int plan_make(struct plan *plan, const Mu__StepRequest *request, const struct plan_node *nodes, size_t n,
              struct error *err)
{
    assert(n > 0);
    *plan = (struct plan){0};
    plan->section_ranks = xcalloc(request->n_sections, sizeof *plan->section_ranks);
    struct host *all = xcalloc(n, sizeof *all);
    for (size_t i = 0; i < n; i++) {
        uint32_t cores = nodes[i].cores ? nodes[i].cores : 1;
        all[i] = (struct host){(uint32_t)i, request->cores ? request->cores : cores};
    }
    size_t at = 0;
    uint32_t left = all[0].ranks;
    uint64_t total = 0;
    int rc = 0;
    for (size_t s = 0; s < request->n_sections && rc == 0; s++) {
        const Mu__StepSection *section = request->sections[s];
        struct host *own = xcalloc(section->n_hosts, sizeof *own);
        for (size_t h = 0; h < section->n_hosts && rc == 0; h++) {
            const Mu__StepHost *named = section->hosts[h];
            rc = find_node(nodes, n, named->name, &own[h].node, err);
            own[h].ranks = request->cores ? request->cores : named->ranks ? named->ranks : 1;
        }
        uint64_t ranks = section->ranks;
        if (!ranks)
            ranks = section->n_hosts ? sum(own, section->n_hosts) : sum(all, n);
        total += ranks;
        if (rc == 0 && total > OPTIONS_RANKS_MAX)
            rc = error_set(err, ERR_USAGE, "more than %u processes", OPTIONS_RANKS_MAX);
        if (rc == 0) {
            size_t own_at = 0;
            uint32_t own_left = section->n_hosts ? own[0].ranks : 0;
            plan->section_ranks[s] = (uint32_t)ranks;
            if (section->n_hosts)
                fill(plan, own, section->n_hosts, (uint32_t)ranks, &own_at, &own_left);
            else
                fill(plan, all, n, (uint32_t)ranks, &at, &left);
        }
        free(own);
    }
    free(all);
    plan->ranks = (uint32_t)total;
    if (rc)
        plan_free(plan);
    return rc;
}

void plan_free(struct plan *plan)
{
    free(plan->blocks);
    free(plan->section_ranks);
    *plan = (struct plan){0};
}
