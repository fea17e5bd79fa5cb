/* main.c - mpipingpong: who measures with whom, when, and what comes of it.
 *
 * Rank 0 conducts. It learns where all ranks are (one gather), walks the plan, and at each step
 * sends an order to the ranks that measure in it; they measure and send their result back. All
 * others sleep in sleep_receive() until an order names them or ends them. Rank 0 takes part like
 * any other and sleeps too while others measure. No rank but 0 holds more than its own buffers;
 * rank 0 holds O(ranks). Only rank 0 prints.
 */
#include "base/buf.h"
#include "base/error.h"
#include "base/mem.h"
#include "pingpong/bounce.h"
#include "pingpong/options.h"
#include "pingpong/plan.h"
#include "pingpong/report.h"

#include <mpi.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum exit_code { EXIT_MEASURED = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

struct order {
    int32_t peer; /* ORDER_END: no more */
    int32_t yield;
    int32_t one_host;
};
#define ORDER_END (-1)

/* Rank 0's view of the run. Arrays by rank, but for `pairs`, `ends` (of one step). */
struct conductor {
    const struct pingpong_options *options;
    struct rank_place *ranks;
    uint32_t count;
    uint32_t *node_of, *host_of, *set_of;
    uint32_t nodes;
    uint32_t *ranks_of_node;
    uint32_t *host_cpus, *set_cpus;
    char **labels;
    struct places places;
    struct run_info info;
    struct report *report;
    struct pair *pairs;
    struct end_result *ends; /* two a pair: from, to */
    size_t *slot_of;         /* the pair of this step that a rank is in */
};

static bool launched(void)
{
    static const char *const marks[] = {"PMIX_RANK", "PMI_RANK", "PMI_FD", "OMPI_COMM_WORLD_RANK",
                                        "SLURM_PROCID"};
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
        if (getenv(marks[i]))
            return true;
    return false;
}

/* "Open MPI v4.1.4, package: ..." -> "Open MPI 4.1.4"; "MPICH Version:\t4.0.2\n..." -> "MPICH 4.0.2
 * (ch4:ucx)". */
static void library_name(char *out, size_t size)
{
    char text[MPI_MAX_LIBRARY_VERSION_STRING];
    int len = 0;
    MPI_Get_library_version(text, &len);
    const char *version, *device;
    if (!strncmp(text, "Open MPI v", 10)) {
        snprintf(out, size, "Open MPI %.*s", (int)strcspn(text + 10, ",\n"), text + 10);
    } else if ((version = strstr(text, "MPICH Version:"))) {
        version += strlen("MPICH Version:");
        version += strspn(version, " \t");
        int n = snprintf(out, size, "MPICH %.*s", (int)strcspn(version, " \t\n"), version);
        if ((device = strstr(text, "MPICH Device:")) && n > 0 && (size_t)n < size) {
            device += strlen("MPICH Device:");
            device += strspn(device, " \t");
            snprintf(out + n, size - (size_t)n, " (%.*s)", (int)strcspn(device, " \t\n"), device);
        }
    } else {
        snprintf(out, size, "%.*s", (int)strcspn(text, "\n"), text);
    }
}

/* Open MPI says through the tool interface whether it yields; other libraries are not known to. */
static bool library_yields(void)
{
    int index, provided, count, value = 0;
    MPI_T_cvar_handle handle;
    if (MPI_T_init_thread(MPI_THREAD_SINGLE, &provided) != MPI_SUCCESS)
        return false;
    if (MPI_T_cvar_get_index("mpi_yield_when_idle", &index) == MPI_SUCCESS &&
        MPI_T_cvar_handle_alloc(index, NULL, &handle, &count) == MPI_SUCCESS) {
        char raw[64] = {0};
        if (count == 1)
            MPI_T_cvar_read(handle, raw);
        memcpy(&value, raw, sizeof value);
        MPI_T_cvar_handle_free(&handle);
    }
    MPI_T_finalize();
    return value != 0;
}

/* The variables by which a user or launcher chooses a path, as they are in rank 0's environment; a launcher
 * may set those of every family, so only what this library reads is shown. */
static void settings_text(struct buf *out, bool open_mpi)
{
    static const struct {
        const char *name;
        bool open_mpi, other; /* families that read it */
    } settings[] = {
        {"OMPI_MCA_pml", true, false},
        {"OMPI_MCA_btl", true, false},
        {"OMPI_MCA_mtl", true, false},
        {"OMPI_MCA_btl_tcp_if_include", true, false},
        {"UCX_TLS", true, true},
        {"UCX_NET_DEVICES", true, true},
        {"FI_PROVIDER", true, true},
        {"FI_TCP_IFACE", true, true},
        {"MPIR_CVAR_NOLOCAL", false, true},
        {"CCP_MPI_NETMASK", true, true},
    };
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        const char *value = getenv(settings[i].name);
        if (value && (open_mpi ? settings[i].open_mpi : settings[i].other))
            buf_addf(out, "%s%s=%.100s", out->len ? " " : "", settings[i].name, value);
    }
}

static void cpus_join(uint8_t *all, const uint8_t *cpus, size_t size)
{
    for (size_t i = 0; i < size; i++)
        all[i] |= cpus[i];
}

static uint32_t cpus_count(const uint8_t *cpus, size_t size)
{
    uint32_t n = 0;
    for (size_t i = 0; i < size; i++)
        n += (uint32_t)__builtin_popcount(cpus[i]);
    return n;
}

/* Groups ranks by node, physical host and processor set, and counts the processors of each. */
static void places_fill(struct conductor *c)
{
    enum { MASK = sizeof c->ranks->cpus };
    struct host_set {
        char boot_id[PROBE_NAME];
        uint8_t cpus[MASK];
    } *sets = xcalloc(c->count, sizeof *sets);
    struct node_key {
        char node[PROBE_NAME], boot_id[PROBE_NAME];
    } *nodes = xcalloc(c->count, sizeof *nodes);
    char(*boots)[PROBE_NAME] = xcalloc(c->count, sizeof *boots);
    for (uint32_t i = 0; i < c->count; i++) {
        const struct rank_place *p = &c->ranks[i];
        /* Without a boot id the node name has to stand for the machine. */
        memcpy(boots[i], *p->boot_id ? p->boot_id : p->node, PROBE_NAME);
        memcpy(sets[i].boot_id, boots[i], PROBE_NAME);
        memcpy(sets[i].cpus, p->cpus, MASK);
        memcpy(nodes[i].boot_id, boots[i], PROBE_NAME);
        memcpy(nodes[i].node, p->node, PROBE_NAME);
    }
    struct places *at = &c->places;
    at->ranks = c->count;
    at->host_of = c->host_of = xcalloc(c->count, sizeof *c->host_of);
    at->set_of = c->set_of = xcalloc(c->count, sizeof *c->set_of);
    c->node_of = xcalloc(c->count, sizeof *c->node_of);
    at->hosts = group_records(boots, sizeof *boots, c->count, c->host_of);
    at->sets = group_records(sets, sizeof *sets, c->count, c->set_of);
    c->nodes = group_records(nodes, sizeof *nodes, c->count, c->node_of);
    at->host_cpus = c->host_cpus = xcalloc(at->hosts, sizeof *c->host_cpus);
    at->set_cpus = c->set_cpus = xcalloc(at->sets, sizeof *c->set_cpus);
    c->ranks_of_node = xcalloc(c->nodes, sizeof *c->ranks_of_node);
    uint8_t(*all)[MASK] = xcalloc(at->hosts, sizeof *all);
    for (uint32_t i = 0; i < c->count; i++) {
        cpus_join(all[c->host_of[i]], c->ranks[i].cpus, MASK);
        c->set_cpus[c->set_of[i]] = c->ranks[i].cpu_count;
        c->ranks_of_node[c->node_of[i]]++;
    }
    for (uint32_t h = 0; h < at->hosts; h++)
        c->host_cpus[h] = cpus_count(all[h], MASK);
    free(all);
    free(boots);
    free(nodes);
    free(sets);
}

/* Several hosts (by name) on one machine, or more ranks than processors on one. */
static bool hosts_share(const struct conductor *c)
{
    uint32_t *ranks = xcalloc(c->places.hosts, sizeof *ranks);
    bool share = c->nodes > c->places.hosts;
    for (uint32_t i = 0; i < c->count; i++)
        share |= ++ranks[c->host_of[i]] > c->host_cpus[c->host_of[i]];
    free(ranks);
    return share;
}

static int places_check(const struct conductor *c, struct error *err)
{
    if (c->count < 2)
        return error_set(err, ERR_USAGE,
                         "1 rank: expected 2 or more, one on each node, such as mpiexec -c 1 mpipingpong");
    for (uint32_t i = 0; i < c->count; i++) {
        if (c->ranks[i].lacks_memory)
            return error_set(err, ERR_LIMIT, "node %s (rank %u): not enough memory for packets of %u bytes",
                             c->ranks[i].node, i, c->options->size);
        if (!c->options->several_per_node && c->ranks_of_node[c->node_of[i]] > 1)
            return error_set(err, ERR_USAGE,
                             "node %s has %u ranks: expected one on each node (mpiexec -c 1), or option -m",
                             c->ranks[i].node, c->ranks_of_node[c->node_of[i]]);
    }
    return 0;
}

static void labels_fill(struct conductor *c)
{
    c->labels = xcalloc(c->count, sizeof *c->labels);
    for (uint32_t i = 0; i < c->count; i++)
        c->labels[i] = c->ranks_of_node[c->node_of[i]] > 1 ? xasprintf("%s:%u", c->ranks[i].node, i)
                                                           : xstrdup(c->ranks[i].node);
}

static void info_fill(struct conductor *c)
{
    static char library[128];
    static struct buf settings;
    struct run_info *info = &c->info;
    library_name(library, sizeof library);
    settings_text(&settings, !strncmp(library, "Open MPI", 8));
    *info = (struct run_info){
        .options = c->options,
        .library = library,
        .settings = buf_str(&settings),
        .mode_chosen = c->options->mode != MODE_AUTO,
        .tournament =
            c->options->mode == MODE_TOURNAMENT || (c->options->mode == MODE_AUTO && !hosts_share(c)),
        .library_yields = library_yields() && !bounce_library_switch(),
        .ranks = c->count,
        .nodes = c->nodes,
        .hosts = c->places.hosts,
        .pairs = (uint64_t)c->count * (c->count - 1) / 2,
        .labels = c->labels,
        .host_of = c->host_of,
    };
    for (uint32_t h = 0; h < c->places.hosts; h++)
        info->processors += c->host_cpus[h];
    for (uint32_t i = 0; i < c->count; i++)
        info->clock_ns = c->ranks[i].clock_ns > info->clock_ns ? c->ranks[i].clock_ns : info->clock_ns;
}

static void order_send(uint32_t rank, const struct order *order)
{
    MPI_Send(order, sizeof *order, MPI_BYTE, (int)rank, TAG_ORDER, MPI_COMM_WORLD);
}

static void result_store(struct conductor *c, const struct end_result *end)
{
    c->ends[2 * c->slot_of[end->rank] + (end->from_end ? 0 : 1)] = *end;
}

/* Nanoseconds of a round trip to microseconds one way. */
static struct latency latency_of(const struct end_result *e)
{
    return (struct latency){e->min / 2000, e->p50 / 2000, e->p95 / 2000, e->p99 / 2000, e->max / 2000};
}

static void step_report(struct conductor *c, size_t count, bool shared)
{
    for (size_t i = 0; i < count; i++) {
        const struct end_result *from = &c->ends[2 * i], *to = from + 1;
        struct pair_report p = {
            .from = c->pairs[i].from,
            .to = c->pairs[i].to,
            .from_end = latency_of(from),
            .to_end = latency_of(to),
            .iterations = from->count,
            .processor = from->processor < to->processor ? from->processor : to->processor,
            .shared = shared,
            .damaged = from->damaged || to->damaged,
        };
        p.mbps = p.from_end.p50 > 0 ? c->options->size / p.from_end.p50 : 0;
        memcpy(p.path, from->path, sizeof p.path);
        report_pair(c->report, &p);
    }
}

/* All pairs of one step: orders out, own measurement, results in. */
static void step_run(struct conductor *c, struct bounce *own, size_t count, bool shared)
{
    size_t open = 2 * count;
    struct order mine = {.peer = ORDER_END};
    struct end_result end;
    for (size_t i = 0; i < count; i++) {
        const struct pair *p = &c->pairs[i];
        struct order o = {.yield = shared, .one_host = c->host_of[p->from] == c->host_of[p->to]};
        c->slot_of[p->from] = c->slot_of[p->to] = i;
        o.peer = (int32_t)p->from;
        order_send(p->to, &o); /* never rank 0: from < to */
        o.peer = (int32_t)p->to;
        if (p->from == 0)
            mine = o;
        else
            order_send(p->from, &o);
    }
    if (mine.peer != ORDER_END) {
        bounce_run(own, 0, mine.peer, mine.yield, mine.one_host, &end);
        result_store(c, &end);
        open--;
    }
    for (; open; open--) {
        sleep_receive(&end, sizeof end, MPI_ANY_SOURCE, TAG_RESULT);
        result_store(c, &end);
    }
    step_report(c, count, shared);
}

static void progress(const struct conductor *c, uint64_t done, uint64_t start_ns)
{
    double passed = (double)(probe_now_ns() - start_ns) / 1e9;
    double left = done ? passed * (double)(c->info.pairs - done) / (double)done : 0;
    fprintf(stderr, "\r\033[K");
    if (done && done < c->info.pairs)
        fprintf(stderr, "mpipingpong: %llu of %llu pairs, about %.0f s left", (unsigned long long)done,
                (unsigned long long)c->info.pairs, left);
    fflush(stderr);
}

static int steps_run(struct conductor *c, struct bounce *own, struct error *err)
{
    bool show = !c->options->quiet && isatty(STDERR_FILENO), shared;
    uint64_t start = probe_now_ns(), done = 0;
    struct plan *plan = plan_create(c->info.tournament, &c->places);
    for (size_t count; (count = plan_next(plan, c->pairs, &shared)) > 0;) {
        if (show)
            progress(c, 0, start); /* out of the way of the rows */
        step_run(c, own, count, shared);
        done += count;
        if (show)
            progress(c, done, start);
    }
    plan_destroy(plan);
    return report_close(c->report, (double)(probe_now_ns() - start) / 1e9, err);
}

static int conduct(struct conductor *c, struct bounce *own, struct error *err)
{
    places_fill(c);
    if (places_check(c, err) < 0)
        return -1;
    labels_fill(c);
    info_fill(c);
    c->pairs = xcalloc(c->count / 2 + 1, sizeof *c->pairs);
    c->ends = xcalloc(c->count + 2, sizeof *c->ends);
    c->slot_of = xcalloc(c->count, sizeof *c->slot_of);
    c->report = report_open(&c->info, c->options->text ? stdout : NULL, err);
    return c->report ? steps_run(c, own, err) : -1;
}

static void conductor_release(struct conductor *c)
{
    for (uint32_t i = 0; c->labels && i < c->count; i++)
        free(c->labels[i]);
    void *const all[] = {c->labels,    c->ranks,    c->node_of, c->host_of, c->set_of, c->ranks_of_node,
                         c->host_cpus, c->set_cpus, c->pairs,   c->ends,    c->slot_of};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

static int fail(const struct error *err)
{
    fprintf(stderr, "mpipingpong: %s\n", err->text);
    fflush(stderr);
    return err->code == ERR_USAGE ? EXIT_USAGE : EXIT_FAILED;
}

/* Ranks other than 0: asleep until an order comes. */
static void follow(struct bounce *own, int rank)
{
    for (;;) {
        struct order o;
        struct end_result end;
        sleep_receive(&o, sizeof o, 0, TAG_ORDER);
        if (o.peer == ORDER_END)
            return;
        bounce_run(own, rank, o.peer, o.yield, o.one_host, &end);
        MPI_Send(&end, sizeof end, MPI_BYTE, 0, TAG_RESULT, MPI_COMM_WORLD);
    }
}

static int run(const struct pingpong_options *o, int rank, int ranks)
{
    struct rank_place place;
    struct bounce own;
    int code = EXIT_MEASURED;
    place_probe(&place);
    place.lacks_memory = bounce_init(&own, o->size, o->iterations, o->warmup, place.clock_ns) < 0;
    if (!place.lacks_memory)
        place.clock_ns = own.clock_ns;
    struct conductor c = {.options = o, .count = (uint32_t)ranks};
    if (rank == 0)
        c.ranks = xcalloc((size_t)ranks, sizeof *c.ranks);
    MPI_Gather(&place, sizeof place, MPI_BYTE, c.ranks, sizeof place, MPI_BYTE, 0, MPI_COMM_WORLD);
    if (rank) {
        follow(&own, rank);
    } else {
        struct error err;
        const struct order end = {.peer = ORDER_END};
        if (conduct(&c, &own, &err) < 0)
            code = fail(&err);
        for (uint32_t i = 1; i < c.count; i++)
            order_send(i, &end);
        conductor_release(&c);
    }
    bounce_release(&own);
    return code;
}

/* Help, version and wrong usage need no MPI, but every rank of a step has to go through MPI_Init
 * and MPI_Finalize, or its launcher takes the others down before rank 0 has spoken. */
static int speak(const struct pingpong_options *o, const struct error *wrong)
{
    if (wrong)
        return fail(wrong);
    if (o->help)
        fputs(options_help(), stdout);
    else
        puts("mpipingpong " MUSTER_VERSION);
    return fflush(stdout) == 0 ? EXIT_MEASURED : EXIT_FAILED;
}

int main(int argc, char **argv)
{
    struct pingpong_options options;
    struct error err;
    int rank = 0, ranks = 1, code = EXIT_MEASURED;
    bool wrong = options_parse(&options, argc, argv, &err) < 0;
    bool only_text = wrong || options.help || options.version;
    if (only_text && !launched())
        return speak(&options, wrong ? &err : NULL);
    signal(SIGPIPE, SIG_IGN); /* a reader that left is an error at the end of the report */
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    if (!only_text)
        code = run(&options, rank, ranks);
    else if (rank == 0)
        code = speak(&options, wrong ? &err : NULL);
    MPI_Finalize();
    return code;
}
