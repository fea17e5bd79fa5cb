/* postgres_test.c - the store in PostgreSQL, on a server of the test's own (skipped where none is installed).
 */
#include "tests/unit/tap.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "store/store.h"

#include <fcntl.h>
#include <glob.h>
#include <grp.h>
#include <libpq-fe.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[] = "/tmp/muster-pg-XXXXXX";
static char *target;
static pid_t server;

/* ---- the server ---- */

static void become(const struct passwd *pw)
{
    if (pw && (setgroups(0, NULL) || setgid(pw->pw_gid) || setuid(pw->pw_uid)))
        _exit(127);
}

static pid_t start(const struct passwd *pw, char *const argv[])
{
    pid_t pid = fork();
    if (pid == 0) {
        char *log = xasprintf("%s/log", folder);
        prctl(PR_SET_PDEATHSIG, SIGINT);
        become(pw);
        int fd = open(log, O_CREAT | O_WRONLY | O_APPEND, 0600);
        dup2(fd, 1), dup2(fd, 2);
        if (chdir("/") == 0)
            execv(argv[0], argv);
        _exit(127);
    }
    return pid;
}

static bool start_server(const char *bin)
{
    /* The server refuses to run as root. */
    struct passwd *pw = geteuid() == 0 ? getpwnam("postgres") : NULL;
    if (geteuid() == 0 && (!pw || chown(folder, pw->pw_uid, pw->pw_gid)))
        return false;
    char *initdb = xasprintf("%s/initdb", bin), *postgres = xasprintf("%s/postgres", bin);
    char *data = xasprintf("%s/data", folder), *sockets = xasprintf("unix_socket_directories=%s", folder);
    char *make[] = {initdb,           (char *)"-D",        data, (char *)"-A", (char *)"trust", (char *)"-U",
                    (char *)"muster", (char *)"--no-sync", NULL};
    char *run[] = {
        postgres, (char *)"-D", data, (char *)"-c", sockets, (char *)"-c", (char *)"listen_addresses=", NULL};
    int status = -1;
    bool up = false;
    waitpid(start(pw, make), &status, 0);
    if (status == 0) {
        server = start(pw, run);
        int64_t until = clock_boot_ms() + 20000;
        while (!up && clock_boot_ms() < until) {
            up = PQping(target) == PQPING_OK;
            poll(NULL, 0, up ? 0 : 20);
        }
    }
    free(initdb), free(postgres), free(data), free(sockets);
    return up;
}

static void sql(const char *text)
{
    PGconn *conn = PQconnectdb(target);
    PGresult *result = PQexec(conn, text);
    ExecStatusType status = PQresultStatus(result);
    ok(status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK, "by hand: %s %s", text,
       PQresultErrorMessage(result));
    PQclear(result);
    PQfinish(conn);
}

static int sql_int(const char *text)
{
    PGconn *conn = PQconnectdb(target);
    PGresult *result = PQexec(conn, text);
    int value = PQntuples(result) == 1 ? atoi(PQgetvalue(result, 0, 0)) : -1;
    PQclear(result);
    PQfinish(conn);
    return value;
}

/* ---- rows ---- */

static struct row *add_row(struct batch *b, enum row_kind kind, uint64_t id, uint32_t sub, const char *name,
                           const char *data)
{
    b->rows = xgrow(b->rows, &b->cap, b->count + 1, sizeof *b->rows);
    struct row *row = &b->rows[b->count++];
    *row = (struct row){
        .kind = kind, .id = id, .sub = sub, .name = name ? xstrdup(name) : NULL, .deleted = !data};
    if (data) {
        row->len = strlen(data);
        row->data = xmemdup(data, row->len);
    }
    return row;
}

static bool wait_durable(struct store *s, uint64_t number)
{
    struct pollfd p = {.fd = store_fd(s), .events = POLLIN};
    while (store_durable(s) < number && !store_failed(s, NULL))
        if (poll(&p, 1, 20000) != 1)
            return false;
    return !store_failed(s, NULL);
}

struct seen {
    struct buf text;
    uint64_t rows;
    bool refuse_bad;
};

static int on_row(const struct row *row, void *arg, struct error *err)
{
    struct seen *seen = arg;
    seen->rows++;
    if (seen->refuse_bad && row->len == 3 && !memcmp(row->data, "bad", 3))
        return error_set(err, ERR_PROTOCOL, "bad it is");
    buf_addf(&seen->text, "%d %llu.%u %s: %.*s\n", (int)row->kind, (unsigned long long)row->id, row->sub,
             row->name ? row->name : "-", (int)row->len, row->data);
    return 0;
}

static struct store *must_open(uint64_t *generation)
{
    struct store *s = NULL;
    struct error err;
    if (store_open(&s, target, generation, &err)) {
        printf("Bail out! %s\n", err.text);
        kill(server, SIGINT);
        exit(1);
    }
    return s;
}

static void test_rows(void)
{
    struct error err = {0};
    struct batch b = {0};
    struct seen seen = {0};
    uint64_t generation, aside;
    struct store *s = must_open(&generation), *second = NULL;
    is_int(generation, 1, "a new store is of generation 1");
    add_row(&b, ROW_COUNTERS, 0, 0, NULL, "c");
    add_row(&b, ROW_JOB, UINT64_MAX, 0, NULL, "last");
    add_row(&b, ROW_TASK, 7, 1, NULL, "one");
    add_row(&b, ROW_TASK, 7, 4000000000u, NULL, "far");
    add_row(&b, ROW_NODE, 0, 0, "node01", "n");
    add_row(&b, ROW_GROUP, 0, 0, "g", "");
    for (uint64_t i = 1; i <= 2000; i++)
        add_row(&b, ROW_EVENT, i, 0, NULL, "event");
    store_put(s, &b);
    add_row(&b, ROW_TASK, 7, 1, NULL, NULL);
    add_row(&b, ROW_NODE, 0, 0, "node01", NULL);
    add_row(&b, ROW_EVENT, 1998, 0, NULL, NULL)->up_to = true;
    ok(wait_durable(s, store_put(s, &b)), "rows become durable");
    ok(store_open(&second, target, &generation, &err) < 0 && err.code == ERR_EXISTS,
       "a second head is refused: %s", err.text);
    store_close(s);
    s = must_open(&generation);
    is_int(generation, 2, "opened again it is of generation 2");
    ok(store_load(s, on_row, &seen, &aside, &err) == 0 && aside == 0, "it loads");
    is_str(buf_str(&seen.text),
           "0 0.0 -: c\n1 18446744073709551615.0 -: last\n2 7.4000000000 -: far\n4 0.0 g: \n"
           "6 1999.0 -: event\n6 2000.0 -: event\n",
           "just what was written and not deleted");
    store_close(s);
    buf_free(&seen.text);
}

static void test_set_aside(void)
{
    struct error err = {0};
    struct batch b = {0};
    struct seen seen = {.refuse_bad = true};
    uint64_t generation, aside;
    struct store *s = must_open(&generation);
    add_row(&b, ROW_JOB, 8, 0, NULL, "bad");
    add_row(&b, ROW_TASK, 8, 2, NULL, "bad");
    add_row(&b, ROW_NODE, 0, 0, "node09", "bad");
    wait_durable(s, store_put(s, &b));
    ok(store_load(s, on_row, &seen, &aside, &err) == 0 && aside == 3, "three bad rows are set aside (%s)",
       err.text);
    ok(store_load(s, on_row, &seen, &aside, &err) == 0 && aside == 0, "and not met again");
    store_close(s);
    is_int(sql_int("SELECT count(*) FROM quarantine WHERE row = 'bad' AND error = 'bad it is'"), 3,
           "they are kept");
    is_int(sql_int("SELECT sub FROM quarantine WHERE kind = 'task' AND id = 8"), 2, "with their keys");
    buf_free(&seen.text);
}

static void test_lost(void)
{
    struct error err = {0};
    struct batch b = {0};
    struct seen seen = {0};
    uint64_t generation;
    struct store *s = must_open(&generation);
    sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND usename = "
        "'muster'");
    add_row(&b, ROW_ATTEMPT, 1, 0, NULL, "lost");
    ok(!wait_durable(s, store_put(s, &b)) && store_failed(s, &err) && err.code == ERR_UNAVAILABLE,
       "a lost connection leaves it stuck: %s", err.text);
    ok(store_recover(s, &err) == 0, "it recovers with another (%s)", err.text);
    ok(store_load(s, on_row, &seen, NULL, &err) == 0 && !strstr(buf_str(&seen.text), "lost"),
       "what failed is not there");
    add_row(&b, ROW_ATTEMPT, 2, 0, NULL, "again");
    ok(wait_durable(s, store_put(s, &b)), "and rows are taken again");

    /* Another head leads meanwhile: this one must never write again. */
    sql("UPDATE meta SET value = value + 1 WHERE key = 'generation'");
    add_row(&b, ROW_ATTEMPT, 3, 0, NULL, "deposed");
    ok(!wait_durable(s, store_put(s, &b)) && store_failed(s, &err) && err.code == ERR_EXISTS,
       "a deposed head is fenced: %s", err.text);
    ok(store_recover(s, &err) < 0 && err.code == ERR_EXISTS, "for good: %s", err.text);
    store_close(s);
    is_int(sql_int("SELECT count(*) FROM attempt"), 1, "it wrote nothing");
    buf_free(&seen.text);
}

static void test_versions(void)
{
    struct error err = {0};
    struct store *s = NULL;
    uint64_t generation;
    int before = sql_int("SELECT value FROM meta");
    sql("UPDATE muster_version SET number = 99");
    ok(store_open(&s, target, &generation, &err) < 0 && err.code == ERR_VERSION,
       "a newer store is refused: %s", err.text);
    is_int(sql_int("SELECT value FROM meta"), before, "and left untouched");
    ok(store_open(&s, "postgresql:///x?host=/nonexistent", &generation, &err) < 0 &&
           err.code == ERR_UNAVAILABLE,
       "no server: %s", err.text);
}

static void test_speed(void)
{
    struct batch b = {0};
    uint64_t generation, number = 0;
    struct store *s = must_open(&generation);
    int64_t began = clock_boot_us();
    for (uint64_t i = 0; i < 1000; i++) {
        for (uint32_t j = 0; j < 10; j++)
            add_row(&b, ROW_TASK, i, j, NULL, "a row of the usual length, which is a few hundred bytes");
        number = store_put(s, &b);
    }
    ok(wait_durable(s, number), "10,000 rows");
    printf("# %lld ms\n", (long long)(clock_boot_us() - began) / 1000);
    store_close(s);
}

int main(void)
{
    struct error err;
    glob_t found;
    if (glob("/usr/lib/postgresql/*/bin", 0, NULL, &found) || !mkdtemp(folder)) {
        printf("1..0 # SKIP no PostgreSQL server is installed\n");
        return 0;
    }
    target = xasprintf("postgresql:///postgres?host=%s&user=muster", folder);
    if (start_server(found.gl_pathv[found.gl_pathc - 1])) {
        test_rows();
        test_set_aside();
        test_speed();
        test_lost();
        test_versions();
    } else {
        ok(false, "a server starts");
    }
    if (server) {
        kill(server, SIGINT);
        waitpid(server, NULL, 0);
    }
    globfree(&found);
    free(target);
    ok(file_remove_tree(AT_FDCWD, folder, &err) == 0, "cleaned up");
    return tap_done();
}
