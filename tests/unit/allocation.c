/* allocation.c - a test's allocation: what keepers and agents do for MPI steps, and nothing else.
 *
 *   allocation NODES CORES COMMAND...   runs COMMAND with MUSTER_STEP set; exits with its code
 *
 * All nodes are on this machine ("node01", ...), their step ports one listener on 127.0.0.1 that
 * tells them apart by route. muster-step is taken from MUSTER_BIN. As root it becomes nobody first:
 * steps refuse root. ALLOCATION_PSK_WRONG=1 gives the branches another key.
 */
#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"
#include "proto/step.pb-c.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define NODES_MAX 64

static Mu__StepContext context;
static char run_dir[96];
static const char *step_program;

static void die(const char *what)
{
    perror(what);
    exit(99);
}

static void make_context(unsigned nodes, unsigned cores, uint16_t port)
{
    static uint8_t psk[32];
    mu__step_context__init(&context);
    if (getrandom(psk, sizeof psk, 0) != sizeof psk)
        die("getrandom");
    context.attempt = 7;
    context.psk = (ProtobufCBinaryData){sizeof psk, psk};
    context.run_dir = run_dir;
    context.interface = (char *)"lo";
    const char *xml = getenv("ALLOCATION_XML");
    context.hwloc_xml = (char *)(xml ? xml : "");
    context.nodes = xcalloc(nodes, sizeof *context.nodes);
    for (unsigned i = 0; i < nodes; i++) {
        Mu__PeerNode *p = xmalloc(sizeof *p);
        mu__peer_node__init(p);
        p->name = xasprintf("node%02u", i + 1);
        p->address = (char *)"127.0.0.1";
        p->port = port;
        p->n_cores = cores;
        p->cores = xcalloc(cores, sizeof *p->cores);
        p->physical_host = (char *)"here";
        p->virtual_cores = true;
        p->route.len = 24;
        p->route.data = xcalloc(1, 24);
        p->route.data[0] = (uint8_t)(i + 1);
        context.nodes[context.n_nodes++] = p;
    }
}

static int context_fd(unsigned index)
{
    context.my_index = index;
    if (index && getenv("ALLOCATION_PSK_WRONG"))
        context.psk.data[0] ^= 1;
    size_t len = mu__step_context__get_packed_size(&context);
    uint8_t *bytes = xmalloc(len);
    mu__step_context__pack(&context, bytes);
    if (index && getenv("ALLOCATION_PSK_WRONG"))
        context.psk.data[0] ^= 1;
    int fd = memfd_create("context", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || file_write_all(fd, bytes, len))
        die("memfd");
    fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL);
    free(bytes);
    return fd;
}

static void start_step(int connection, unsigned index, const char *role)
{
    int memory = context_fd(index);
    pid_t pid = fork();
    if (pid < 0)
        die("fork");
    if (pid == 0) {
        /* Both out of the way first: either may be 3 or 4. */
        int c = fcntl(connection, F_DUPFD, 10), m = fcntl(memory, F_DUPFD, 10);
        dup2(c, 3);
        dup2(m, 4);
        close(c);
        close(m);
        setenv("MUSTER_STEP_ROLE", role, 1);
        execl(step_program, "muster-step", (char *)NULL);
        die(step_program);
    }
    close(connection);
    close(memory);
}

static void accept_branch(int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    uint8_t preamble[32];
    if (fd < 0)
        return;
    if (recv(fd, preamble, sizeof preamble, MSG_WAITALL) != sizeof preamble ||
        memcmp(preamble, "MUSTEP1\n", 8) || preamble[8] == 0 || preamble[8] > context.n_nodes) {
        close(fd);
        return;
    }
    start_step(fd, preamble[8] - 1u, "branch");
}

static int listen_tcp(uint16_t *port)
{
    struct sockaddr_in a = {.sin_family = AF_INET};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 128) ||
        getsockname(fd, (struct sockaddr *)&a, &len))
        die("listen");
    *port = ntohs(a.sin_port);
    return fd;
}

static int listen_unix(const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    strcpy(a.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 64))
        die(path);
    return fd;
}

static void reap(int sig)
{
}

int main(int argc, char **argv)
{
    unsigned nodes = argc > 3 ? (unsigned)atoi(argv[1]) : 0, cores = argc > 3 ? (unsigned)atoi(argv[2]) : 0;
    if (nodes < 1 || nodes > NODES_MAX || cores < 1 || cores > 64) {
        fputs("usage: allocation NODES CORES COMMAND...\n", stderr);
        return 2;
    }
    if (getuid() == 0) {
        if (setgroups(0, NULL) || setgid(65534) || setuid(65534))
            die("becoming nobody");
        setenv("HOME", "/nonexistent", 1);
    }
    const char *bin = getenv("MUSTER_BIN");
    step_program = xasprintf("%s/muster-step", bin ? bin : "build/bin");
    const char *tmp = getenv("TMPDIR");
    snprintf(run_dir, sizeof run_dir, "%s/alloc-XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(run_dir))
        die(run_dir);
    uint16_t port;
    int tcp = listen_tcp(&port);
    char *path = xasprintf("%s/s", run_dir);
    int local = listen_unix(path);
    make_context(nodes, cores, port);
    signal(SIGCHLD, reap);
    setenv("MUSTER_STEP", path, 1);
    pid_t task = fork();
    if (task == 0) {
        execvp(argv[3], argv + 3);
        die(argv[3]);
    }
    int status = -1;
    bool running = true;
    while (running) {
        struct pollfd p[] = {{.fd = tcp, .events = POLLIN}, {.fd = local, .events = POLLIN}};
        int n = poll(p, 2, 50);
        if (n > 0 && p[0].revents)
            accept_branch(tcp);
        if (n > 0 && p[1].revents) {
            int fd = accept4(local, NULL, NULL, SOCK_CLOEXEC);
            if (fd >= 0)
                start_step(fd, 0, "root");
        }
        for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
            if (pid == task) {
                running = false;
                break;
            }
    }
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    alarm(5); /* the steps end by themselves; a test looks for those that do not */
    signal(SIGALRM, SIG_DFL);
    while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
        ;
    file_remove_tree(AT_FDCWD, run_dir, NULL);
    return code;
}
