/* main.c - muster-local: keeps a local cluster running. `muster cluster` starts and stops it. */
#include "base/log.h"
#include "local/cluster.h"
#include "local/supervisor.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char usage[] =
    "usage: muster-local run --dir DIR [--ready-fd N]\n"
    "       muster-local down --dir DIR\n"
    "\n"
    "Supervisor of a cluster on one machine; 'muster cluster start' runs it.\n"
    "  run    bring the cluster in DIR up and keep it up until SIGTERM (SIGHUP: restart at once what has "
    "ended)\n"
    "  down   end what is left of a cluster whose muster-local has died\n"
    "\n"
    "  --dir DIR      the cluster's folder, made by 'muster cluster init'\n"
    "  --ready-fd N   write \"progress TEXT\", and \"ready TEXT\" or \"error TEXT\", to this descriptor\n"
    "  --help, --version\n";

/* Holds namespaces by being in them. Ends by signal only. */
static _Noreturn void anchor(void)
{
    for (;;)
        pause();
}

static int fail_usage(const char *text, const char *what)
{
    fprintf(stderr, "muster-local: %s%s (see muster-local --help)\n", text, what);
    return 2;
}

/* A descriptor number that is open; -1 otherwise. */
static int parse_fd(const char *text)
{
    char *end;
    long n = strtol(text, &end, 10);
    return *text && !*end && n > 2 && n < 1024 ? (int)n : -1;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"dir", required_argument, NULL, 'd'},
                                            {"ready-fd", required_argument, NULL, 'r'},
                                            {"help", no_argument, NULL, 'h'},
                                            {"version", no_argument, NULL, 'v'},
                                            {0}};
    if (argc > 1 && !strcmp(argv[1], "anchor"))
        anchor();
    const char *dir = NULL;
    int ready = -1, opt;
    while ((opt = getopt_long(argc, argv, "", options, NULL)) >= 0) {
        switch (opt) {
        case 'd':
            dir = optarg;
            break;
        case 'r':
            if ((ready = parse_fd(optarg)) < 0)
                return fail_usage("--ready-fd: expected the number of an open descriptor, not ", optarg);
            break;
        case 'h':
            fputs(usage, stdout);
            return 0;
        case 'v':
            puts("muster-local " MUSTER_VERSION);
            return 0;
        default:
            return 2;
        }
    }
    const char *verb = optind < argc ? argv[optind] : "";
    if (optind + 1 != argc || (strcmp(verb, "run") && strcmp(verb, "down")))
        return fail_usage("expected 'run' or 'down', not ", verb[0] ? verb : "nothing");
    if (!dir)
        return fail_usage("--dir is missing", "");

    struct cluster c;
    struct error err = {0};
    log_open("muster-local", 2);
    int rc = cluster_open(&c, dir, &err);
    if (rc == 0)
        rc = cluster_check_owner(&c, &err);
    if (rc == 0)
        rc = !strcmp(verb, "run") ? supervisor_run(&c, ready, &err) : supervisor_down(&c, &err);
    if (rc < 0) {
        log_error("%s", err.text);
        if (ready >= 0)
            dprintf(ready, "error %s\n", err.text);
        return 1;
    }
    return 0;
}
