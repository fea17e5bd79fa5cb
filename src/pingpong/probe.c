/* probe.c - host name, boot id, processors, clock and link counters. See probe.h. */
#include "pingpong/probe.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

uint64_t probe_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t probe_ran_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint32_t probe_clock_cost_ns(void)
{
    enum { ROUNDS = 20, READINGS = 1000 };
    uint64_t best = UINT64_MAX;
    for (int r = 0; r < ROUNDS; r++) {
        uint64_t start = probe_now_ns(), end = start;
        for (int i = 0; i < READINGS; i++)
            end = probe_now_ns();
        if (end - start < best)
            best = end - start;
    }
    return (uint32_t)((best + READINGS / 2) / READINGS);
}

/* The file's text, cut at size-1 bytes; "" where it is absent. */
static void slurp(const char *path, char *out, size_t size)
{
    FILE *f = fopen(path, "re");
    size_t n = f ? fread(out, 1, size - 1, f) : 0;
    if (f)
        fclose(f);
    out[n] = 0;
}

static void cpus_probe(struct rank_place *p)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) < 0) {
        /* More processors than a cpu_set_t holds: take as many as are online. */
        long online = sysconf(_SC_NPROCESSORS_ONLN);
        for (long i = 0; i < online && i < CPU_SETSIZE; i++)
            CPU_SET((size_t)i, &set);
    }
    for (unsigned i = 0; i < sizeof p->cpus * 8 && i < CPU_SETSIZE; i++) {
        if (CPU_ISSET(i, &set)) {
            p->cpus[i / 8] |= (uint8_t)(1u << (i % 8));
            p->cpu_count++;
        }
    }
}

void place_probe(struct rank_place *p)
{
    const char *node = getenv("MUSTER_NODE_NAME");
    memset(p, 0, sizeof *p);
    if (node && *node)
        snprintf(p->node, sizeof p->node, "%s", node);
    else if (gethostname(p->node, sizeof p->node - 1) < 0)
        snprintf(p->node, sizeof p->node, "unknown");
    slurp("/proc/sys/kernel/random/boot_id", p->boot_id, sizeof p->boot_id);
    p->boot_id[strcspn(p->boot_id, "\n")] = 0;
    memset(p->boot_id + strlen(p->boot_id), 0, sizeof p->boot_id - strlen(p->boot_id));
    cpus_probe(p);
    p->clock_ns = probe_clock_cost_ns();
}

static void link_add(struct path_counters *c, const char *name, size_t len, bool rdma, uint64_t packets,
                     uint64_t bytes)
{
    if (c->count == PATH_LINKS_MAX)
        return;
    struct link_count *l = &c->links[c->count++];
    snprintf(l->name, sizeof l->name, "%.*s", (int)len, name);
    l->rdma = rdma;
    l->packets = packets;
    l->bytes = bytes;
}

/* Lines are "  eth0: RXBYTES RXPACKETS errs drop fifo frame compressed multicast TXBYTES TXPACKETS ...". */
void path_parse_dev(struct path_counters *c, const char *text)
{
    for (const char *line = text; line && *line; line = strchr(line, '\n'), line = line ? line + 1 : NULL) {
        uint64_t bytes, packets;
        size_t blank = strspn(line, " "), len = strcspn(line + blank, ":|\n");
        const char *name = line + blank;
        if (name[len] == ':' && sscanf(name + len + 1, "%*u %*u %*u %*u %*u %*u %*u %*u %" SCNu64 " %" SCNu64,
                                       &bytes, &packets) == 2)
            link_add(c, name, len, false, packets, bytes);
    }
}

/* Two lines a protocol: "Tcp: RtoAlgorithm ... OutSegs ..." and "Tcp: 1 ... 4711 ...". */
static uint64_t snmp_value(const char *text, const char *protocol, const char *field)
{
    const char *names = strstr(text, protocol), *values = names ? strstr(names + 1, protocol) : NULL;
    if (values)
        names++, values++; /* past the newline that `protocol` begins with */
    while (names && values && *names && *names != '\n') {
        size_t n = strcspn(names, " \n"), v = strcspn(values, " \n");
        if (n == strlen(field) && !strncmp(names, field, n))
            return strtoull(values, NULL, 10);
        names += n + (names[n] == ' ');
        values += v + (values[v] == ' ');
    }
    return 0;
}

void path_parse_snmp(struct path_counters *c, const char *text)
{
    c->tcp = snmp_value(text, "\nTcp: ", "OutSegs");
    c->udp = snmp_value(text, "\nUdp: ", "OutDatagrams");
}

static void rdma_read(struct path_counters *c)
{
    DIR *d = opendir("/sys/class/infiniband");
    if (!d)
        return;
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '.')
            continue;
        for (int port = 1; port <= 4; port++) {
            char path[400], text[32];
            static const char base[] = "/sys/class/infiniband";
            snprintf(path, sizeof path, "%s/%s/ports/%d/counters/port_xmit_packets", base, e->d_name, port);
            slurp(path, text, sizeof text);
            uint64_t packets = strtoull(text, NULL, 10);
            snprintf(path, sizeof path, "%s/%s/ports/%d/counters/port_xmit_data", base, e->d_name, port);
            slurp(path, text, sizeof text);
            if (*text) /* counted in words of four bytes */
                link_add(c, e->d_name, strlen(e->d_name), true, packets, 4 * strtoull(text, NULL, 10));
        }
    }
    closedir(d);
}

void path_read(struct path_counters *c)
{
    static char text[64 * 1024];
    memset(c, 0, sizeof *c);
    slurp("/proc/self/net/dev", text, sizeof text);
    path_parse_dev(c, text);
    slurp("/proc/self/net/snmp", text, sizeof text);
    path_parse_snmp(c, text);
    rdma_read(c);
}

static const struct link_count *link_before(const struct path_counters *c, const struct link_count *now)
{
    for (unsigned i = 0; i < c->count; i++)
        if (c->links[i].rdma == now->rdma && !strcmp(c->links[i].name, now->name))
            return &c->links[i];
    return NULL;
}

void path_name(const struct path_counters *before, const struct path_counters *after, uint64_t messages,
               uint32_t size, bool one_host, char out[PATH_TEXT])
{
    char links[PATH_TEXT] = "";
    bool rdma = false;
    /* A library may stripe one message over several links: each with a tenth of it counts. Small messages
     * may be answered in the packet that acknowledges, but each is a packet. */
    uint64_t need_bytes = messages * size / 10, need_packets = size > 4096 ? 1 : messages / 2;
    for (unsigned i = 0; i < after->count; i++) {
        const struct link_count *now = &after->links[i], *was = link_before(before, now);
        if (!was || now->packets - was->packets < need_packets || now->bytes - was->bytes < need_bytes ||
            now->packets == was->packets)
            continue;
        if (strlen(links) + strlen(now->name) + 20 > sizeof links)
            break;
        if (*links)
            strcat(links, "+");
        strcat(links, now->name);
        rdma |= now->rdma;
    }
    uint64_t segments = size > 4096 ? 1 : messages / 2;
    const char *how = rdma                                    ? "RDMA"
                      : after->tcp - before->tcp >= segments && after->tcp != before->tcp ? "TCP"
                      : after->udp - before->udp >= segments && after->udp != before->udp ? "UDP"
                                                              : "packets";
    if (*links)
        snprintf(out, PATH_TEXT, "%s over %.50s", how, links);
    else
        snprintf(out, PATH_TEXT, "%s", one_host ? "shared memory" : "not seen (no interface of this host counted it)");
}
