/* inventory.c - what this machine is. See inventory.h. All from /proc, /sys and the C library. */
#include "node/inventory.h"
#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SMALL_FILE (256 * 1024)
#define CPUS_MAX 65536

static void read_cpus(struct inventory *v)
{
    cpu_set_t *set = CPU_ALLOC(CPUS_MAX);
    size_t size = CPU_ALLOC_SIZE(CPUS_MAX), cap = 0;
    if (!set || sched_getaffinity(0, size, set)) {
        v->cpus = xgrow(NULL, &cap, 1, sizeof *v->cpus);
        v->cpus[0] = 0;
        v->cpu_count = 1;
    } else {
        for (int cpu = 0; cpu < CPUS_MAX; cpu++)
            if (CPU_ISSET_S(cpu, size, set)) {
                v->cpus = xgrow(v->cpus, &cap, v->cpu_count + 1, sizeof *v->cpus);
                v->cpus[v->cpu_count++] = cpu;
            }
    }
    CPU_FREE(set);
}

static void read_sockets(struct inventory *v)
{
    uint64_t seen = 0; /* package numbers above 63 count as one */
    for (size_t i = 0; i < v->cpu_count; i++) {
        char path[96];
        struct buf text = BUF_INIT;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/physical_package_id", v->cpus[i]);
        if (file_read(AT_FDCWD, path, 64, &text, NULL) == 0) {
            int id = atoi(buf_str(&text));
            seen |= 1ull << (id < 0 ? 0 : id > 63 ? 63 : id);
        }
        buf_free(&text);
    }
    v->sockets = seen ? (uint32_t)__builtin_popcountll(seen) : 1;
}

/* The value of NAME=VALUE or "NAME: VALUE" in a file of such lines. */
static void read_value(const char *path, const char *name, char *out, size_t size)
{
    struct buf text = BUF_INIT;
    out[0] = 0;
    if (file_read(AT_FDCWD, path, SMALL_FILE, &text, NULL) == 0)
        for (char *state = NULL, *line = strtok_r((char *)buf_str(&text), "\n", &state); line;
             line = strtok_r(NULL, "\n", &state)) {
            size_t len = strlen(name);
            if (strncmp(line, name, len))
                continue;
            char *value = line + len + strspn(line + len, " \"");
            value[strcspn(value, "\"")] = 0;
            snprintf(out, size, "%s", value);
            break;
        }
    buf_free(&text);
}

static uint64_t meminfo_mb(const char *name)
{
    char value[64];
    read_value("/proc/meminfo", name, value, sizeof value);
    return strtoull(value, NULL, 10) / 1024;
}

void inventory_read(struct inventory *v)
{
    *v = (struct inventory){0};
    struct buf text = BUF_INIT;
    read_cpus(v);
    read_sockets(v);
    v->memory_mb = meminfo_mb("MemTotal:");
    if (file_read(AT_FDCWD, "/proc/sys/kernel/random/boot_id", 256, &text, NULL) == 0)
        snprintf(v->boot_id, sizeof v->boot_id, "%.*s", (int)strcspn(buf_str(&text), "\n"), buf_str(&text));
    buf_free(&text);
    read_value("/etc/os-release", "PRETTY_NAME=", v->os, sizeof v->os);
    if (!v->os[0])
        snprintf(v->os, sizeof v->os, "Linux");
}

void inventory_release(struct inventory *v)
{
    free(v->cpus);
    *v = (struct inventory){0};
}

uint32_t inventory_load_milli(void)
{
    double load = 0;
    return getloadavg(&load, 1) == 1 && load >= 0 && load < 1000000 ? (uint32_t)(load * 1000) : 0;
}

uint64_t inventory_memory_free_mb(void)
{
    return meminfo_mb("MemAvailable:");
}
