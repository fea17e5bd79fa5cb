/* pingpong_test.c - what of mpipingpong needs no MPI: options, order of pairs, distributions, paths, report.
 */
#include "tests/unit/tap.h"
#include "base/mem.h"
#include "pingpong/options.h"
#include "pingpong/plan.h"
#include "pingpong/probe.h"
#include "pingpong/report.h"
#include "pingpong/sample.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- options ---- */
static int parse(struct pingpong_options *o, struct error *err, const char *line)
{
    static char copy[512];
    char *argv[20] = {"mpipingpong"};
    int argc = 1;
    snprintf(copy, sizeof copy, "%s", line);
    for (char *save, *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save))
        argv[argc++] = w;
    return options_parse(o, argc, argv, err);
}

static void test_options(void)
{
    struct pingpong_options o;
    struct error err;
    is_int(parse(&o, &err, "-p 1:100000 -op -s nul"), 0, "the tutorial's line is taken");
    ok(o.size == 1 && o.iterations == 100000 && o.mode == MODE_SERIAL && o.text && !o.xml && o.warmup == 2000,
       "and means what it says");
    is_int(parse(&o, &err, "/P:4000000:1000 /T /OA --Multiple-Cores out.xml"), 0, "slashes, case, colon");
    ok(o.size == 4000000 && o.iterations == 1000 && o.mode == MODE_TOURNAMENT && o.rows == ROWS_ALL &&
           o.several_per_node,
       "mean the same");
    is_str(o.xml, "out.xml", "the word that is left is the file");
    ok(!o.text, "a file alone means no text");
    ok(parse(&o, &err, "") == 0 && o.text && !o.xml && o.mode == MODE_AUTO && o.size == 1 &&
           o.iterations == 9999,
       "nothing at all: text, 1 byte");
    ok(parse(&o, &err, "-p 4000000") == 0 && o.iterations == 99, "iterations follow from the size");
    ok(parse(&o, &err, "-p 1073741824") == 0 && o.iterations == 10, "at least ten of the largest");
    ok(parse(&o, &err, "/dev/null -op") == 0 && !o.xml && o.text, "/dev/null discards");
    ok(parse(&o, &err, "/tmp/r.xml") == 0 && o.xml, "a path is no option");
    is_str(o.xml, "/tmp/r.xml", "but a file");
    ok(parse(&o, &err, "NUL -oq") == 0 && !o.xml && !o.text, "-oq NUL says nothing");
    ok(parse(&o, &err, "-h") == 0 && o.help && parse(&o, &err, "/?") == 0 && o.help, "help");
}

static void test_options_refused(void)
{
    static const struct {
        const char *line, *says;
    } bad[] = {
        {"-p", "option -p: no value: expected <bytes>[:<iterations>], such as -p 1:100000"},
        {"-p abc",
         "option -p: \"abc\": expected <bytes>[:<iterations>] with 0..1073741824 bytes, such as -p 1:100000"},
        {"-p -1",
         "option -p: \"-1\": expected <bytes>[:<iterations>] with 0..1073741824 bytes, such as -p 1:100000"},
        {"-p 1073741825",
         "option -p: \"1073741825\": expected <bytes>[:<iterations>] with 0..1073741824 bytes, such as "
         "-p 1:100000"},
        {"-p 99999999999999999999",
         "option -p: \"99999999999999999999\": expected <bytes>[:<iterations>] with "
         "0..1073741824 bytes, such as -p 1:100000"},
        {"-p 1:", "option -p: \"1:\": expected 1..100000000 iterations after the colon, such as -p 1:100000"},
        {"-p 1:0",
         "option -p: \"1:0\": expected 1..100000000 iterations after the colon, such as -p 1:100000"},
        {"-p 1:5x",
         "option -p: \"1:5x\": expected 1..100000000 iterations after the colon, such as -p 1:100000"},
        {"-r", "option -r: the serial ring is not in this version; use -s or -t"},
        {"-rs 2", "option -rs: the serial ring is not in this version; use -s or -t"},
        {"/PB", "option -pb: packet sets are not in this version; use -p <bytes>[:<iterations>]"},
        {"-pl", "option -pl: packet sets are not in this version; use -p 1:100000"},
        {"-pt", "option -pt: packet sets are not in this version; use -p 4000000:1000"},
        {"-pc", "option -pc: packet sets are not in this version; use -p <bytes>[:<iterations>]"},
        {"-s -t", "option -t: -s was given already; expected one of them"},
        {"-oa -ob", "option -ob: -oa was given already; expected one of them"},
        {"-op -oq", "option -oq: -op was given already; expected one of them"},
        {"-s:1", "option -s: \"1\": expected no value"},
        {"-zz", "option \"-zz\": not known; mpipingpong -h lists the options"},
        {"a b", "outfile: \"b\": expected one file name, this is the second"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct pingpong_options o;
        struct error err = {.code = ERR_NONE};
        ok(parse(&o, &err, bad[i].line) < 0 && err.code == ERR_USAGE, "refused: %s", bad[i].line);
        is_str(err.text, bad[i].says, "and why");
    }
}

/* ---- order ---- */
static void test_tournament(void)
{
    for (uint32_t n = 2; n <= 33; n++) {
        char met[33][33] = {{0}};
        bool once = true, disjoint = true;
        uint32_t pairs = 0;
        for (uint32_t r = 0; r < tournament_rounds(n); r++) {
            char busy[33] = {0};
            for (uint32_t k = 0; k < (n + 1) / 2; k++) {
                struct pair p;
                if (!tournament_pair(n, r, k, &p))
                    continue;
                pairs++;
                once &= p.from < p.to && p.to < n && !met[p.from][p.to]++;
                disjoint &= !busy[p.from]++ && !busy[p.to]++;
            }
        }
        if (!once || !disjoint || pairs != n * (n - 1) / 2 || n < 6)
            ok(once && disjoint && pairs == n * (n - 1) / 2, "%u ranks: every pair once, rounds disjoint", n);
    }
    ok(true, "2 to 33 ranks were looked at");
    is_int(tournament_rounds(4), 3, "4 ranks: 3 rounds");
    is_int(tournament_rounds(5), 5, "5 ranks: 5 rounds, one rests in each");
    is_int(tournament_rounds(1), 0, "1 rank: none");
}

/* `ranks` ranks, `per` on each physical host, every host with `cpus` processors that all its ranks may use.
 */
struct world {
    struct places at;
    uint32_t host[64], cpus[64];
};
static void world_fill(struct world *w, uint32_t ranks, uint32_t per, uint32_t cpus)
{
    for (uint32_t i = 0; i < ranks; i++) {
        w->host[i] = i / per;
        w->cpus[i] = cpus;
    }
    uint32_t hosts = (ranks + per - 1) / per;
    w->at = (struct places){ranks, w->host, w->host, hosts, hosts, w->cpus, w->cpus};
}

/* Walks the plan; checks that pairs of a step are disjoint, within processors, and that all met. */
static void walk(const char *what, bool tournament, const struct places *at, size_t want_steps,
                 size_t want_widest, bool want_shared)
{
    static char met[64][64];
    struct pair pairs[64];
    struct plan *plan = plan_create(tournament, at);
    size_t steps = 0, widest = 0, total = 0;
    bool shared, good = true, any_shared = false;
    memset(met, 0, sizeof met);
    for (size_t n; (n = plan_next(plan, pairs, &shared)) > 0; steps++) {
        uint32_t busy[64] = {0};
        char in[64] = {0};
        any_shared |= shared;
        widest = n > widest ? n : widest;
        total += n;
        for (size_t i = 0; i < n; i++) {
            good &= !met[pairs[i].from][pairs[i].to]++ && !in[pairs[i].from]++ && !in[pairs[i].to]++;
            busy[at->host_of[pairs[i].from]]++;
            busy[at->host_of[pairs[i].to]]++;
        }
        for (uint32_t h = 0; h < at->hosts && !shared; h++)
            good &= busy[h] <= at->host_cpus[h];
        good &= !shared || n == 1;
    }
    ok(good, "%s: steps are disjoint and within processors", what);
    is_int(total, plan_pairs(plan), "%s: every pair met", what);
    is_int(steps, want_steps, "%s: steps", what);
    is_int(widest, want_widest, "%s: pairs at once", what);
    ok(any_shared == want_shared, "%s: processors %sshared", what, want_shared ? "" : "not ");
    plan_destroy(plan);
}

static void test_plan(void)
{
    struct world w;
    world_fill(&w, 4, 4, 2);
    walk("serial, 4 on one host of 2", false, &w.at, 6, 1, false);
    walk("tournament, 4 on one host of 2", true, &w.at, 6, 1, false);
    world_fill(&w, 4, 1, 8);
    walk("tournament, 4 hosts", true, &w.at, 3, 2, false);
    world_fill(&w, 4, 4, 4);
    walk("tournament, 4 on one host of 4", true, &w.at, 3, 2, false);
    world_fill(&w, 7, 1, 1);
    walk("tournament, 7 hosts of 1", true, &w.at, 7, 3, false);
    world_fill(&w, 4, 4, 1);
    walk("serial, 4 on one host of 1", false, &w.at, 6, 1, true);
    walk("tournament, 4 on one host of 1", true, &w.at, 6, 1, true);
    world_fill(&w, 8, 4, 2);
    walk("tournament, 8 on two hosts of 2", true, &w.at, 14, 2, false);
    /* Two ranks bound to the same processor of a host of 4: together they share, apart they do not. */
    uint32_t set[] = {0, 0, 1, 2}, set_cpus[] = {1, 1, 1};
    world_fill(&w, 4, 4, 4);
    w.at.set_of = set;
    w.at.sets = 3;
    w.at.set_cpus = set_cpus;
    walk("two ranks on one processor", false, &w.at, 6, 1, true);
    world_fill(&w, 1, 1, 1);
    walk("one rank", true, &w.at, 0, 0, false);
}

static void test_groups(void)
{
    static const char names[6][4] = {"b", "a", "b", "c", "a", "b"};
    uint32_t g[6];
    is_int(group_records(names, sizeof *names, 6, g), 3, "three different records");
    ok(g[0] == 0 && g[1] == 1 && g[2] == 0 && g[3] == 2 && g[4] == 1 && g[5] == 0, "numbered as they appear");
    is_int(group_records(names, sizeof *names, 0, g), 0, "none: no group");
}

/* ---- distributions ---- */
static void test_sample(void)
{
    struct sample_set s;
    ok(sample_init(&s, 100) == 0 && sample_exact(&s), "100 values are kept as they are");
    for (uint64_t i = 100; i >= 1; i--)
        sample_add(&s, i);
    sample_add(&s, 4711);
    is_int(s.count, 100, "one too many is dropped");
    sample_finish(&s);
    ok(sample_min(&s) == 1 && sample_max(&s) == 100, "minimum, maximum");
    ok(sample_quantile(&s, 0.5) == 50.5, "median of an even number");
    ok(sample_quantile(&s, 0.99) == 99 && sample_quantile(&s, 0.95) == 95 && sample_quantile(&s, 1) == 100,
       "quantiles");
    sample_clear(&s);
    ok(sample_quantile(&s, 0.5) == 0 && sample_min(&s) == 0, "empty: 0");
    sample_add(&s, 7);
    sample_finish(&s);
    ok(sample_quantile(&s, 0.5) == 7 && sample_quantile(&s, 0.99) == 7, "one value");
    sample_release(&s);
}

static void test_histogram(void)
{
    struct sample_set s;
    ok(sample_init(&s, SAMPLE_EXACT_MAX + 1) == 0 && !sample_exact(&s), "more than a million are counted");
    for (uint64_t i = 1; i <= 200000; i++)
        sample_add(&s, 5000 + i);
    sample_add(&s, UINT64_MAX);
    sample_finish(&s);
    is_int(s.count, 200001, "all of them");
    double median = sample_quantile(&s, 0.5), p99 = sample_quantile(&s, 0.99);
    ok(median > 105000 * 0.996 && median < 105000 * 1.004, "median within 0.4 %%: %.0f", median);
    ok(p99 > 203000 * 0.996 && p99 < 203000 * 1.004, "p99 within 0.4 %%: %.0f", p99);
    ok(sample_min(&s) == 5001 && sample_max(&s) == (double)UINT64_MAX, "minimum and maximum exact");
    sample_clear(&s);
    sample_add(&s, 3);
    ok(sample_quantile(&s, 0.5) == 3 && sample_quantile(&s, 1) == 3, "small values exact");
    sample_release(&s);
}

/* ---- path ---- */
static const char dev_text[] =
    "Inter-|   Receive                                                |  Transmit\n"
    " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo "
    "colls\n"
    "    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     "
    "0\n"
    "  eth0: 9000000    8000    0    0    0     0          0         0  5000000    7000    0    0    0     "
    "0\n";
static const char snmp_text[] = "Ip: Forwarding DefaultTTL\nIp: 1 64\n"
                                "Tcp: RtoAlgorithm InSegs OutSegs RetransSegs\nTcp: 1 300 4711 0\n"
                                "Udp: InDatagrams NoPorts InErrors OutDatagrams\nUdp: 5 0 0 42\n";

/* A connection of this process: descriptor, interface, packets and bytes sent. */
static void socket_set(struct path_counters *c, int fd, const char *link, uint64_t packets, uint64_t bytes)
{
    struct socket_count *s = &c->sockets[c->socket_count++];
    *s = (struct socket_count){.fd = fd, .packets = packets, .bytes = bytes};
    snprintf(s->link, sizeof s->link, "%s", link);
}

static void test_path(void)
{
    static struct path_counters a, b;
    char text[PATH_TEXT];
    path_parse_dev(&a, dev_text);
    path_parse_snmp(&a, snmp_text);
    ok(a.count == 2 && !strcmp(a.links[1].name, "eth0") && a.links[1].bytes == 5000000 &&
           a.links[1].packets == 7000,
       "/proc/net/dev is read");
    is_int(a.udp, 42, "/proc/net/snmp is read");
    socket_set(&a, 5, "", 100, 5000);
    b = a;
    path_name(&a, &b, 1000, 1, true, text);
    is_str(text, "shared memory", "nothing grew, one kernel");
    path_name(&a, &b, 1000, 1, false, text);
    is_str(text, "not seen (no interface of this host counted it)", "nothing grew, two kernels");
    b.links[0].packets += 5000, b.links[0].bytes += 700000;
    path_name(&a, &b, 1000, 1, true, text);
    is_str(text, "shared memory", "what others send over lo is not ours");
    b.socket_count = 0;
    socket_set(&b, 5, "eth0", 1100, 75000);
    path_name(&a, &b, 1000, 1, true, text);
    is_str(text, "TCP over eth0", "a connection that grew by the messages");
    path_name(&a, &b, 1000, 1000000, true, text);
    is_str(text, "shared memory", "but not by messages of a megabyte");
    socket_set(&b, 6, "eth1", 9000, 500000000);
    path_name(&a, &b, 1000, 1000000, true, text);
    is_str(text, "TCP over eth1", "a new one did");
    socket_set(&b, 7, "eth0", 9000, 500000000);
    socket_set(&b, 8, "eth0", 9000, 500000000);
    path_name(&a, &b, 1000, 1000000, true, text);
    is_str(text, "TCP over eth1+eth0", "striped over two links");
    b = a;
    b.links[1].packets += 1000, b.links[1].bytes += 70000, b.udp += 1000;
    path_name(&a, &b, 1000, 1, false, text);
    is_str(text, "UDP over eth0", "datagrams between two kernels");
    a.links[1].rdma = b.links[1].rdma = true;
    path_name(&a, &b, 1000, 1, false, text);
    is_str(text, "RDMA over eth0", "a port of an RDMA device");
    path_parse_dev(&a, "garbage");
    path_parse_snmp(&a, "Udp: ");
    ok(a.count == 2, "garbage adds nothing");
}

static void test_own_socket(void)
{
    static struct path_counters before, after;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    char text[PATH_TEXT], byte = 1;
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = socket(AF_INET, SOCK_STREAM, 0);
    bool made = bind(listener, (struct sockaddr *)&at, len) == 0 && listen(listener, 1) == 0 &&
                getsockname(listener, (struct sockaddr *)&at, &len) == 0 &&
                connect(one, (struct sockaddr *)&at, len) == 0;
    int other = accept(listener, NULL, NULL);
    ok(made && other >= 0, "a TCP connection of this process");
    path_read(&before, NULL);
    for (int i = 0; i < 200; i++)
        if (write(one, &byte, 1) != 1 || read(other, &byte, 1) != 1 || write(other, &byte, 1) != 1 ||
            read(one, &byte, 1) != 1)
            break;
    path_read(&after, &before);
    path_name(&before, &after, 200, 1, true, text);
    is_str(text, "TCP over lo", "is seen to carry 200 messages");
    close(one);
    close(other);
    close(listener);
}

/* ---- report ---- */
static void test_report(void)
{
    struct pingpong_options o = {.size = 1, .iterations = 1000, .warmup = 50};
    char *labels[] = {"node01", "node02", "a-node-with-a-very-long-name-17"};
    uint32_t hosts[] = {0, 0, 0};
    struct run_info info = {
        .options = &o,
        .library = "Test 1",
        .settings = "OMPI_MCA_pml=ob1 OMPI_MCA_btl=tcp,self,vader OMPI_MCA_btl_tcp_if_include=eth0",
        .ranks = 3,
        .nodes = 3,
        .hosts = 1,
        .processors = 2,
        .clock_ns = 25,
        .pairs = 3,
        .labels = labels,
        .host_of = hosts};
    struct error err;
    char *text = NULL, xml[] = "/tmp/muster-pingpong-XXXXXX", *whole = xcalloc(1, 65536);
    size_t len;
    close(mkstemp(xml));
    o.xml = xml;
    FILE *f = open_memstream(&text, &len);
    struct report *r = report_open(&info, f, &err);
    for (uint32_t i = 0; i < 3; i++) {
        double us = 3.5 + i;
        struct pair_report p = {.from = i / 2,
                                .to = i == 0 ? 1 : 2,
                                .from_end = {us - 1, us, us + 1, us + 2, 12345.6},
                                .to_end = {us, us, us, us, us},
                                .mbps = 1 / us,
                                .iterations = 1000,
                                .processor = 1 - i / 10.0};
        snprintf(p.path, sizeof p.path, "TCP over eth0");
        report_pair(r, &p);
    }
    is_int(report_close(r, 1.5, &err), 0, "the report is closed");
    fclose(f);
    ok(strstr(text, "  node01           node02              2.50    3.50    5.50 12345.6       0.286\n") !=
               NULL ||
           strstr(text,
                  "  node01           node02              2.50    3.50    5.50   12346       0.286\n") !=
               NULL,
       "a row of a pair");
    ok(strstr(text, "a-node..-name-17") != NULL, "long names lose their middle");
    ok(strstr(text, "minimum (best)  node01 -> node02 ") &&
           strstr(text, "maximum (worst) node02 -> a-node..-name-17 "),
       "best and worst by name");
    ok(strstr(text, "TCP over eth0\n") && strstr(text, "all on one physical host with 2 processors\n"),
       "path and host");
    ok(strstr(text, "up to 20 % of a measuring processor") != NULL,
       "who was not alone on a processor is told");
    size_t widest = 0;
    for (char *line = text; *line; line += strcspn(line, "\n") + 1)
        widest = strcspn(line, "\n") > widest ? strcspn(line, "\n") : widest;
    ok(widest <= 80, "no line is longer than 80 columns (%zu)", widest);
    if (widest > 80)
        printf("%s", text);
    f = fopen(xml, "r");
    whole[fread(whole, 1, 65535, f)] = 0;
    fclose(f);
    ok(strstr(whole, "<pair from=\"node01\" to=\"node02\" fromRank=\"0\" toRank=\"1\"") &&
           strstr(whole, "</mpipingpong>"),
       "the XML has the pair and its end");
    unlink(xml);
    free(text);
    free(whole);
    o.xml = "/nowhere/at/all.xml";
    ok(!report_open(&info, NULL, &err) && err.code == ERR_IO && strstr(err.text, "/nowhere/at/all.xml"),
       "a file that cannot be made is said so");
}

static void test_report_damaged(void)
{
    struct pingpong_options o = {.size = 8, .iterations = 1, .rows = ROWS_NONE};
    char *labels[] = {"n1", "n2"};
    uint32_t hosts[] = {0, 0};
    struct run_info info = {.options = &o,
                            .library = "Test 1",
                            .settings = "",
                            .ranks = 2,
                            .nodes = 2,
                            .hosts = 1,
                            .processors = 2,
                            .pairs = 1,
                            .labels = labels,
                            .host_of = hosts};
    struct error err;
    struct report *r = report_open(&info, NULL, &err);
    struct pair_report p = {.from = 0, .to = 1, .damaged = true, .path = "x"};
    report_pair(r, &p);
    ok(report_close(r, 0, &err) < 0, "damaged data fail the run");
    is_str(err.text, "data damaged on the way between n1 and n2", "and the pair is named");
    o.xml = "/dev/full";
    r = report_open(&info, NULL, &err);
    p.damaged = false;
    if (r)
        report_pair(r, &p);
    ok(r && report_close(r, 0, &err) < 0 && strstr(err.text, "not written in full"),
       "a full disk is said so");
}

int main(void)
{
    test_options();
    test_options_refused();
    test_tournament();
    test_plan();
    test_groups();
    test_sample();
    test_histogram();
    test_path();
    test_own_socket();
    test_report();
    test_report_damaged();
    return tap_done();
}
