/* probe.c - host name, boot id, processors, clock and link counters. See probe.h. */
#include "pingpong/probe.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <ifaddrs.h>
#include <inttypes.h>
#include <linux/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
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

/* Two lines a protocol: "Udp: InDatagrams ... OutDatagrams ..." and "Udp: 5 ... 42 ...". */
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

/* Whether `address` belongs to an interface of this host, and which. */
static bool link_of(const struct sockaddr_storage *address, char out[PATH_LINK_NAME])
{
    struct ifaddrs *all, *i;
    bool found = false;
    if (getifaddrs(&all) < 0)
        return false;
    for (i = all; i && !found; i = i->ifa_next) {
        if (!i->ifa_addr || i->ifa_addr->sa_family != address->ss_family)
            continue;
        if (address->ss_family == AF_INET)
            found = !memcmp(&((const struct sockaddr_in *)i->ifa_addr)->sin_addr,
                            &((const struct sockaddr_in *)address)->sin_addr, sizeof(struct in_addr));
        else if (address->ss_family == AF_INET6)
            found = !memcmp(&((const struct sockaddr_in6 *)i->ifa_addr)->sin6_addr,
                            &((const struct sockaddr_in6 *)address)->sin6_addr, sizeof(struct in6_addr));
        if (found)
            snprintf(out, PATH_LINK_NAME, "%.15s", i->ifa_name);
    }
    freeifaddrs(all);
    return found;
}

/* Packets to an address of this host go over lo, whatever interface the address is on. */
static void socket_link(struct socket_count *s)
{
    struct sockaddr_storage here = {0}, there = {0};
    socklen_t here_len = sizeof here, there_len = sizeof there;
    char ignored[PATH_LINK_NAME];
    snprintf(s->link, sizeof s->link, "?");
    if (getsockname(s->fd, (struct sockaddr *)&here, &here_len) < 0 ||
        getpeername(s->fd, (struct sockaddr *)&there, &there_len) < 0)
        return;
    if (link_of(&there, ignored))
        snprintf(s->link, sizeof s->link, "lo");
    else
        link_of(&here, s->link);
}

static const struct socket_count *socket_before(const struct path_counters *c, int fd)
{
    for (unsigned i = 0; i < c->socket_count; i++)
        if (c->sockets[i].fd == fd)
            return &c->sockets[i];
    return NULL;
}

/* What each TCP connection of this process has sent; descriptors are only looked at. */
static void sockets_read(struct path_counters *c, const struct path_counters *since)
{
    DIR *d = opendir("/proc/self/fd");
    if (!d)
        return;
    for (struct dirent *e; (e = readdir(d)) && c->socket_count < PATH_SOCKETS_MAX;) {
        int fd = atoi(e->d_name), protocol = 0;
        socklen_t len = sizeof protocol;
        struct tcp_info info = {0};
        if (e->d_name[0] == '.' || getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &len) < 0 ||
            protocol != IPPROTO_TCP)
            continue;
        len = sizeof info;
        if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0)
            continue;
        struct socket_count *s = &c->sockets[c->socket_count++];
        *s = (struct socket_count){
            .fd = fd, .packets = info.tcpi_data_segs_out, .bytes = info.tcpi_bytes_sent};
        const struct socket_count *was = since ? socket_before(since, fd) : NULL;
        if (since && (!was || was->packets != s->packets))
            socket_link(s);
    }
    closedir(d);
}

void path_read(struct path_counters *c, const struct path_counters *since)
{
    static char text[64 * 1024];
    c->count = c->socket_count = 0;
    c->udp = 0;
    slurp("/proc/self/net/dev", text, sizeof text);
    path_parse_dev(c, text);
    slurp("/proc/self/net/snmp", text, sizeof text);
    path_parse_snmp(c, text);
    rdma_read(c);
    sockets_read(c, since);
}

static const struct link_count *link_before(const struct path_counters *c, const struct link_count *now)
{
    for (unsigned i = 0; i < c->count; i++)
        if (c->links[i].rdma == now->rdma && !strcmp(c->links[i].name, now->name))
            return &c->links[i];
    return NULL;
}

/* What the messages must have added at least. A library may stripe one message over several links:
 * each with a tenth of it counts. A small message is a packet of its own. */
struct need {
    uint64_t packets, bytes;
};

static bool grew(const struct need *need, uint64_t packets, uint64_t bytes)
{
    return packets > 0 && packets >= need->packets && bytes >= need->bytes;
}

/* "eth0", then "eth0+eth1"; a name that is there already is not repeated. */
static void name_add(char list[PATH_TEXT], const char *name)
{
    size_t len = strlen(list), n = strlen(name);
    for (const char *at = list; (at = strstr(at, name)); at += n)
        if ((at == list || at[-1] == '+') && (at[n] == 0 || at[n] == '+'))
            return;
    if (n == 0 || n + len + 20 > PATH_TEXT)
        return;
    snprintf(list + len, PATH_TEXT - len, "%s%s", len ? "+" : "", name);
}

static void tcp_names(const struct path_counters *before, const struct path_counters *after,
                      const struct need *need, char out[PATH_TEXT])
{
    for (unsigned i = 0; i < after->socket_count; i++) {
        const struct socket_count *now = &after->sockets[i], *was = socket_before(before, now->fd);
        if (grew(need, now->packets - (was ? was->packets : 0), now->bytes - (was ? was->bytes : 0)))
            name_add(out, now->link);
    }
}

static void link_names(const struct path_counters *before, const struct path_counters *after,
                       const struct need *need, bool rdma, char out[PATH_TEXT])
{
    for (unsigned i = 0; i < after->count; i++) {
        const struct link_count *now = &after->links[i], *was = link_before(before, now);
        if (now->rdma == rdma && was && grew(need, now->packets - was->packets, now->bytes - was->bytes))
            name_add(out, now->name);
    }
}

void path_name(const struct path_counters *before, const struct path_counters *after, uint64_t messages,
               uint32_t size, bool one_host, char out[PATH_TEXT])
{
    const struct need need = {size > 4096 ? 1 : messages / 2, messages * size / 10};
    char tcp[PATH_TEXT] = "", rdma[PATH_TEXT] = "", any[PATH_TEXT] = "";
    tcp_names(before, after, &need, tcp);
    link_names(before, after, &need, true, rdma);
    link_names(before, after, &need, false, any);
    if (*tcp)
        snprintf(out, PATH_TEXT, "TCP over %.50s", tcp);
    else if (*rdma)
        snprintf(out, PATH_TEXT, "RDMA over %.50s", rdma);
    else if (one_host)
        snprintf(out, PATH_TEXT, "shared memory");
    else if (*any)
        snprintf(out, PATH_TEXT, "%s over %.50s",
                 after->udp - before->udp >= need.packets ? "UDP" : "packets", any);
    else
        snprintf(out, PATH_TEXT, "not seen (no interface of this host counted it)");
}
