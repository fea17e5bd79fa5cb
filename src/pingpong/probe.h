/* probe.h - what this process can find out about its host, and over which path messages left it.
 *
 * The path is not asked of the MPI library, which may not know or not tell, but seen: what this
 * process's own TCP connections have sent (the kernel tells of each, TCP_INFO) and what RDMA ports and
 * network interfaces have counted is read before and after; what grew by the messages sent is what
 * carried them. Linux's /proc and /sys. No MPI in here.
 */
#ifndef MUSTER_PINGPONG_PROBE_H
#define MUSTER_PINGPONG_PROBE_H

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>

#define PROBE_NAME 64
#define PATH_TEXT 64
#define PATH_LINKS_MAX 32
#define PATH_SOCKETS_MAX 4096 /* more connections than these are not looked at */
#define PATH_LINK_NAME 24

/* One rank's answer to "where are you"; plain bytes, sent between equal programs. */
struct rank_place {
    char node[PROBE_NAME];    /* MUSTER_NODE_NAME where a launcher sets it, else the host name */
    char boot_id[PROBE_NAME]; /* of the running kernel: equal on all "nodes" of one machine; "" unknown */
    uint8_t cpus[128];        /* processors this rank may use: bit n of byte n/8 */
    uint32_t cpu_count;
    uint32_t clock_ns;    /* one reading of the clock */
    int32_t lacks_memory; /* the buffers could not be made */
};
void place_probe(struct rank_place *place);

static inline bool place_has_cpu(const uint8_t *cpus, unsigned cpu)
{
    return cpus[cpu / 8] >> (cpu % 8) & 1;
}

uint64_t probe_now_ns(void);        /* CLOCK_MONOTONIC */
uint64_t probe_ran_ns(void);        /* processor time of this thread */
uint32_t probe_clock_cost_ns(void); /* what one probe_now_ns() takes, rounded */

/* Sent so far. Interfaces count everybody's packets, so they are asked last. */
struct link_count {
    char name[PATH_LINK_NAME];
    bool rdma;
    uint64_t packets, bytes;
};
struct socket_count {
    int fd;
    char link[PATH_LINK_NAME]; /* interface that its packets leave by */
    uint64_t packets, bytes;
};
struct path_counters {
    struct link_count links[PATH_LINKS_MAX];
    unsigned count;
    struct socket_count sockets[PATH_SOCKETS_MAX]; /* this process's TCP connections */
    unsigned socket_count;
    uint64_t udp; /* datagrams sent by this network namespace */
};
/* `since`: an earlier reading, or NULL; connections that have grown since get their interface named. */
void path_read(struct path_counters *c, const struct path_counters *since);
/* Parses the text of /proc/net/dev, and of /proc/net/snmp, into `c`: for path_read() and tests. */
void path_parse_dev(struct path_counters *c, const char *text);
void path_parse_snmp(struct path_counters *c, const char *text);

/* Says what carried `messages` of `size` bytes between the two readings: "TCP over eth0", "RDMA over
 * mlx5_0", "shared memory" (nothing grew, both ends under one kernel) or "not seen (no interface of
 * this host counted it)". */
void path_name(const struct path_counters *before, const struct path_counters *after, uint64_t messages,
               uint32_t size, bool one_host, char out[PATH_TEXT]);

#endif
