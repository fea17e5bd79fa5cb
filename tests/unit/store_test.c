/* store_test.c - what was said to be durable is there after anything. */
#include "tests/unit/tap.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "base/mem.h"
#include "store/store.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[] = "/tmp/muster-store-XXXXXX";
static char *path; /* of the store in it */

/* ---- helpers ---- */

static struct row *add_row(struct batch *b, enum row_kind kind, uint64_t id, uint32_t sub, const char *name)
{
    b->rows = xgrow(b->rows, &b->cap, b->count + 1, sizeof *b->rows);
    struct row *row = &b->rows[b->count++];
    *row = (struct row){.kind = kind, .id = id, .sub = sub, .name = name ? xstrdup(name) : NULL};
    return row;
}

static void put_row(struct batch *b, enum row_kind kind, uint64_t id, uint32_t sub, const char *name,
                    const char *data)
{
    struct row *row = add_row(b, kind, id, sub, name);
    row->len = strlen(data);
    row->data = xmemdup(data, row->len);
}

static void wait_change(struct store *s)
{
    struct pollfd p = {.fd = store_fd(s), .events = POLLIN};
    if (poll(&p, 1, 20000) != 1)
        ok(false, "the store's descriptor becomes readable within 20 s");
}

/* Waits until `number` is durable (true) or the store is stuck (false). */
static bool wait_durable(struct store *s, uint64_t number)
{
    for (;;) {
        if (store_durable(s) >= number)
            return true;
        if (store_failed(s, NULL))
            return false;
        wait_change(s);
    }
}

/* Everything loaded, as sorted-by-table text "job 1: data\n". */
struct seen {
    struct buf text;
    uint64_t rows;
    const char *refuse; /* data of rows to refuse */
};

static int on_row(const struct row *row, void *arg, struct error *err)
{
    struct seen *seen = arg;
    static const char *const words[] = {
#define X(name, word) word,
        ROW_KINDS(X)
#undef X
    };
    seen->rows++;
    if (seen->refuse && row->len == strlen(seen->refuse) && !memcmp(row->data, seen->refuse, row->len))
        return error_set(err, ERR_PROTOCOL, "%s %llu is bad", words[row->kind], (unsigned long long)row->id);
    buf_addf(&seen->text, "%s %llu.%u %s: %.*s\n", words[row->kind], (unsigned long long)row->id, row->sub,
             row->name ? row->name : "-", (int)row->len, row->len ? (const char *)row->data : "");
    return 0;
}

static struct store *must_open(const char *file, uint64_t *generation)
{
    struct store *s = NULL;
    struct error err;
    if (store_open(&s, file, generation, &err)) {
        printf("Bail out! cannot open %s: %s\n", file, err.text);
        exit(1);
    }
    return s;
}

static void sql(const char *file, const char *text)
{
    sqlite3 *db;
    char *message = NULL;
    sqlite3_open(file, &db);
    ok(sqlite3_exec(db, text, NULL, NULL, &message) == SQLITE_OK, "by hand: %s (%s)", text,
       message ? message : "fine");
    sqlite3_free(message);
    sqlite3_close(db);
}

static int64_t sql_int(const char *file, const char *text)
{
    sqlite3 *db;
    sqlite3_stmt *stmt = NULL;
    int64_t value = -1;
    sqlite3_open(file, &db);
    if (sqlite3_prepare_v2(db, text, -1, &stmt, NULL) == SQLITE_OK && sqlite3_step(stmt) == SQLITE_ROW)
        value = sqlite3_column_int64(stmt, 0);
    sqlite3_finalize(stmt);
    sqlite3_close(db);
    return value;
}

static void whole_file(const char *file, struct buf *out)
{
    struct error err;
    if (file_read(AT_FDCWD, file, 64 << 20, out, &err))
        ok(false, "%s is read: %s", file, err.text);
}

/* ---- tests ---- */

static void test_rows(void)
{
    struct error err;
    struct batch b = {0};
    struct seen seen = {0};
    uint64_t generation = 0, aside = 9;
    struct store *s = must_open(path, &generation);
    struct stat st;
    is_int(generation, 1, "a new store is of generation 1");
    ok(stat(path, &st) == 0 && (st.st_mode & 0777) == 0600, "only its owner may read the file");
    ok(store_load(s, on_row, &seen, &aside, &err) == 0 && seen.rows == 0 && aside == 0, "and empty");
    ok(!store_failed(s, &err) && !store_full(s), "it works");

    put_row(&b, ROW_COUNTERS, 0, 0, NULL, "c");
    put_row(&b, ROW_JOB, 7, 0, NULL, "job seven");
    put_row(&b, ROW_JOB, UINT64_MAX, 0, NULL, "last");
    put_row(&b, ROW_TASK, 7, 1, NULL, "seven one");
    put_row(&b, ROW_TASK, 7, 4000000000u, NULL, "seven far");
    put_row(&b, ROW_NODE, 0, 0, "node01", "n");
    put_row(&b, ROW_GROUP, 0, 0, "azurenodes", "");
    put_row(&b, ROW_ATTEMPT, 3, 0, NULL, "a");
    for (uint64_t i = 1; i <= 5; i++)
        put_row(&b, ROW_EVENT, i, 0, NULL, "e");
    is_int(store_put(s, &b), 1, "the first batch has number 1");
    ok(b.count == 0 && b.rows == NULL, "put takes the batch over");
    is_int(store_put(s, &b), 2, "an empty batch has a number too");
    ok(wait_durable(s, 2), "both become durable");
    struct store_stats stats;
    store_stats(s, &stats);
    ok(stats.rows == 13 && stats.batches == 2, "rows and batches are counted");

    put_row(&b, ROW_JOB, 7, 0, NULL, "job seven again");
    add_row(&b, ROW_JOB, UINT64_MAX, 0, NULL)->deleted = true;
    add_row(&b, ROW_TASK, 7, 1, NULL)->deleted = true;
    add_row(&b, ROW_NODE, 0, 0, "node01")->deleted = true;
    struct row *range = add_row(&b, ROW_EVENT, 3, 0, NULL);
    range->deleted = range->up_to = true;
    store_put(s, &b);
    store_close(s);

    s = must_open(path, &generation);
    is_int(generation, 2, "opened again it is of generation 2");
    ok(store_load(s, on_row, &seen, &aside, &err) == 0 && aside == 0, "it loads");
    is_str(buf_str(&seen.text),
           "counters 0.0 -: c\njob 7.0 -: job seven again\ntask 7.4000000000 -: seven far\n"
           "node_group 0.0 azurenodes: \nattempt 3.0 -: a\nevent 4.0 -: e\nevent 5.0 -: e\n",
           "closing committed all; changes, deletions and the range held");
    buf_free(&seen.text);
    struct store *second = NULL;
    ok(store_open(&second, path, &generation, &err) < 0 && err.code == ERR_EXISTS,
       "a second head is refused: %s", err.text);
    store_close(s);
    store_close(NULL);
}

static void test_set_aside(void)
{
    struct error err;
    struct batch b = {0};
    uint64_t generation, aside = 0;
    struct store *s = must_open(path, &generation);
    put_row(&b, ROW_JOB, 8, 0, NULL, "bad");
    put_row(&b, ROW_TASK, 8, 2, NULL, "bad");
    put_row(&b, ROW_NODE, 0, 0, "node09", "bad");
    store_put(s, &b);
    store_close(s);
    s = must_open(path, &generation);
    struct seen seen = {.refuse = "bad"};
    ok(store_load(s, on_row, &seen, &aside, &err) == 0, "loading goes on past bad rows");
    is_int(aside, 3, "three are set aside");
    ok(strstr(buf_str(&seen.text), "job seven again") != NULL, "good rows were loaded");
    struct seen again = {.refuse = "bad"};
    ok(store_load(s, on_row, &again, &aside, &err) == 0 && aside == 0, "and are not met again");
    store_close(s);
    is_int(sql_int(path, "SELECT count(*) FROM quarantine WHERE row = x'626164'"), 3,
           "they are kept as they were");
    is_int(sql_int(path,
                   "SELECT sub FROM quarantine WHERE kind = 'task' AND id = 8 AND error = 'task 8 is bad'"),
           2, "with key and reason");
    buf_free(&seen.text);
    buf_free(&again.text);
}

static void expect_refused(const char *file, enum error_code code, const char *what)
{
    struct error err = {0};
    struct store *s = NULL;
    uint64_t generation;
    struct buf before = BUF_INIT, after = BUF_INIT;
    whole_file(file, &before);
    ok(store_open(&s, file, &generation, &err) < 0 && err.code == code, "%s is refused: %s", what, err.text);
    whole_file(file, &after);
    ok(before.len == after.len && !memcmp(buf_str(&before), buf_str(&after), before.len),
       "%s is left untouched", what);
    buf_free(&before);
    buf_free(&after);
}

static void test_refused(void)
{
    char *newer = xasprintf("%s/newer.db", folder), *foreign = xasprintf("%s/foreign.db", folder);
    char *text = xasprintf("%s/text", folder), *log = xasprintf("%s/newer.db-wal", folder);
    uint64_t generation;
    store_close(must_open(newer, &generation));
    sql(newer, "PRAGMA user_version = 99");
    expect_refused(newer, ERR_VERSION, "a store from a newer version");
    /* The version may stand in the log alone: the head that wrote it was killed. */
    sql(newer, "PRAGMA user_version = 1; PRAGMA wal_checkpoint(TRUNCATE)");
    pid_t pid = fork();
    if (pid == 0) {
        sqlite3 *db;
        sqlite3_open(newer, &db);
        sqlite3_exec(db, "PRAGMA wal_autocheckpoint = 0; PRAGMA user_version = 99", NULL, NULL, NULL);
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    struct buf before = BUF_INIT, after = BUF_INIT;
    whole_file(log, &before);
    expect_refused(newer, ERR_VERSION, "a store whose log is from a newer version");
    whole_file(log, &after);
    ok(before.len > 0 && before.len == after.len, "and its log is left alone");
    buf_free(&before);
    buf_free(&after);

    sql(foreign, "PRAGMA application_id = 5; CREATE TABLE t (x)");
    expect_refused(foreign, ERR_PROTOCOL, "another program's database");
    struct error err;
    file_write(AT_FDCWD, text, "hello", 5, 0600, false, &err);
    expect_refused(text, ERR_PROTOCOL, "a text file");
    struct store *s = NULL;
    ok(store_open(&s, "/nonexistent/store.db", &generation, &err) < 0 && err.code != ERR_NONE,
       "a folder that is not there: %s", err.text);
    free(newer), free(foreign), free(text), free(log);
}

/* A child commits and tells what is durable, until it is killed in the middle. */
static void test_kill(void)
{
    char *file = xasprintf("%s/kill.db", folder);
    int pipe_fd[2];
    uint64_t generation, told = 0;
    if (pipe(pipe_fd))
        exit(1);
    pid_t pid = fork();
    if (pid == 0) {
        struct store *s = must_open(file, &generation);
        uint64_t last = 0, said = 0;
        for (uint64_t i = 1;; i++) {
            struct batch b = {0};
            char data[32];
            snprintf(data, sizeof data, "job %llu", (unsigned long long)i);
            put_row(&b, ROW_JOB, i, 0, NULL, data);
            last = store_put(s, &b);
            uint64_t durable = last % 64 ? store_durable(s) : (wait_durable(s, last), store_durable(s));
            if (durable > said && write(pipe_fd[1], &durable, sizeof durable) == sizeof durable)
                said = durable;
        }
    }
    close(pipe_fd[1]);
    while (told < 500 && read(pipe_fd[0], &told, sizeof told) == sizeof told)
        ;
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    for (uint64_t more; read(pipe_fd[0], &more, sizeof more) == sizeof more;)
        told = more;
    close(pipe_fd[0]);
    struct error err;
    struct seen seen = {0};
    struct store *s = must_open(file, &generation);
    is_int(generation, 2, "after kill -9 it opens, one generation further");
    ok(store_load(s, on_row, &seen, NULL, &err) == 0, "and loads");
    ok(seen.rows >= told, "all %llu that were durable are there (%llu)", (unsigned long long)told,
       (unsigned long long)seen.rows);
    char last[64];
    snprintf(last, sizeof last, "job %llu.0 -: job %llu\n", (unsigned long long)seen.rows,
             (unsigned long long)seen.rows);
    ok(strstr(buf_str(&seen.text), last) != NULL, "without a gap");
    store_close(s);
    buf_free(&seen.text);
    free(file);
}

/* Puts rows until the store is stuck; returns the highest durable number. */
static uint64_t fill(struct store *s)
{
    char *data = xcalloc(1, 100001);
    memset(data, 'x', 100000);
    uint64_t number = 0;
    for (int i = 0; i < 2000; i++) {
        struct batch b = {0};
        put_row(&b, ROW_ATTEMPT, (uint64_t)i + 1, 0, NULL, data);
        number = store_put(s, &b);
        if (!wait_durable(s, number))
            break;
    }
    free(data);
    ok(store_failed(s, NULL), "a disk without room leaves the store stuck");
    return store_durable(s);
}

static void check_stuck(struct store *s, uint64_t durable)
{
    struct error err = {0};
    struct batch b = {0};
    store_failed(s, &err);
    ok(err.code == ERR_UNAVAILABLE && !strncmp(err.text, "store full", 10), "it says why: %s", err.text);
    put_row(&b, ROW_JOB, 1, 0, NULL, "x");
    ok(store_put(s, &b) > durable && b.count == 0, "what is put then is taken and dropped");
    ok(store_recover(s, &err) < 0 && err.code == ERR_UNAVAILABLE,
       "it does not recover as long as nothing changes: %s", err.text);
    ok(store_failed(s, NULL) && store_durable(s) == durable, "and stays stuck");
}

static void check_recovered(struct store *s, uint64_t rows)
{
    struct error err = {0};
    struct batch b = {0};
    struct seen seen = {0};
    ok(store_recover(s, &err) == 0 && !store_failed(s, NULL), "with room it recovers (%s)", err.text);
    ok(store_load(s, on_row, &seen, NULL, &err) == 0, "and loads");
    is_int(seen.rows, rows, "just what was durable");
    put_row(&b, ROW_JOB, 5, 0, NULL, "after");
    uint64_t number = store_put(s, &b);
    ok(wait_durable(s, number), "and takes rows again");
    ok(store_recover(s, &err) == 0, "recovering a store that works is nothing");
    buf_free(&seen.text);
}

static void test_full_disk(void)
{
    char *dir = xasprintf("%s/small", folder), *file = xasprintf("%s/small/store.db", folder);
    char *ballast = xasprintf("%s/small/ballast", folder);
    uint64_t generation;
    mkdir(dir, 0700);
    /* In a mount namespace of our own it is gone with us, however we end. */
    if (geteuid() != 0 || unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
        mount("tmpfs", dir, "tmpfs", 0, "size=6m")) {
        printf("# no small file system to fill: limits only\n");
    } else {
        int fd = open(ballast, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
        ok(posix_fallocate(fd, 0, 2 << 20) == 0, "a file system with little room");
        close(fd);
        struct store *s = must_open(file, &generation);
        uint64_t durable = fill(s);
        check_stuck(s, durable);
        unlink(ballast);
        check_recovered(s, durable);
        store_close(s);
        umount(dir);
    }
    free(dir), free(file), free(ballast);
}

/* The same for everybody: a limit on the size of files. */
static void test_file_limit(void)
{
    char *file = xasprintf("%s/limit.db", folder);
    uint64_t generation;
    struct rlimit old, small = {.rlim_cur = 1 << 20};
    getrlimit(RLIMIT_FSIZE, &old);
    small.rlim_max = old.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    struct store *s = must_open(file, &generation);
    setrlimit(RLIMIT_FSIZE, &small);
    uint64_t durable = fill(s);
    check_stuck(s, durable);
    setrlimit(RLIMIT_FSIZE, &old);
    check_recovered(s, durable);
    store_close(s);
    free(file);
}

static void test_speed(void)
{
    char *file = xasprintf("%s/speed.db", folder);
    uint64_t generation, number = 0;
    struct store *s = must_open(file, &generation);
    char data[300];
    memset(data, 'd', sizeof data - 1);
    data[sizeof data - 1] = 0;
    int64_t began = clock_boot_us(), worst = 0;
    for (uint64_t i = 0; i < 1000; i++) {
        struct batch b = {0};
        for (uint32_t j = 0; j < 10; j++)
            put_row(&b, j % 2 ? ROW_TASK : ROW_EVENT, 1 + i * 10 + j, j, NULL, data);
        int64_t at = clock_boot_us();
        number = store_put(s, &b);
        at = clock_boot_us() - at;
        worst = at > worst ? at : worst;
    }
    ok(wait_durable(s, number), "10,000 rows in 1,000 batches are durable");
    struct store_stats stats;
    store_stats(s, &stats);
    printf("# %lld ms, %llu commits, longest put %lld us\n", (long long)(clock_boot_us() - began) / 1000,
           (unsigned long long)stats.commits, (long long)worst);
    ok(stats.rows == 10000 && stats.commits < 1000, "piled-up batches share a commit");
    store_close(s);
    free(file);
}

static void test_queue_bound(void)
{
    char *file = xasprintf("%s/queue.db", folder);
    uint64_t generation, number = 0;
    struct store *s = must_open(file, &generation);
    bool full = false;
    for (int i = 0; i < 400 && !full; i++) {
        struct batch b = {0};
        struct row *row = add_row(&b, ROW_ATTEMPT, 1, 0, NULL);
        row->len = 8 << 20;
        row->data = xcalloc(1, row->len);
        number = store_put(s, &b);
        full = store_full(s);
    }
    ok(full, "more than the queue's bound makes it full");
    ok(wait_durable(s, number) && !store_full(s), "until it has been written");
    store_close(s);
    free(file);
}

int main(void)
{
    struct error err;
    if (!mkdtemp(folder))
        return 1;
    path = xasprintf("%s/store.db", folder);
    test_rows();
    test_set_aside();
    test_refused();
    test_kill();
    test_full_disk();
    test_file_limit();
    test_speed();
    test_queue_bound();
    free(path);
    ok(file_remove_tree(AT_FDCWD, folder, &err) == 0, "cleaned up");
    return tap_done();
}
