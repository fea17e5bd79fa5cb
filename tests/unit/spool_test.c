/* spool_test.c - what is kept of output that is longer than its bounds. */
#include "tests/unit/tap.h"
#include "base/spool.h"

#include <fcntl.h>
#include <unistd.h>

static char folder[] = "/tmp/muster-spool-XXXXXX";

static void test_bounds(int dir)
{
    struct error err;
    struct spool w, r;
    char got[256];
    uint64_t at = 0, skipped;
    ok(spool_open(&w, dir, "s", 10, 5, &err) == 0, "a new spool opens");
    ok(spool_open_read(&r, dir, "s", &err) == 0, "a reader opens it");
    is_int(spool_read(&r, &at, got, sizeof got, NULL, &err), 0, "it is empty");
    ok(spool_write(&w, "0123456", 7, &err) == 0 && spool_write(&w, "789abcdefghij", 13, &err) == 0,
       "written");
    ok(spool_refresh(&r, &err) == 0 && r.total == 20, "the reader sees the total");
    is_int(spool_read(&r, &at, got, sizeof got, &skipped, &err), 10, "the head is whole");
    ok(!memcmp(got, "0123456789", 10) && skipped == 0, "and right");
    ssize_t n = spool_read(&r, &at, got, sizeof got, &skipped, &err);
    is_int(skipped, 5, "five bytes in the middle were dropped");
    for (ssize_t more; (more = spool_read(&r, &at, got + n, sizeof got - (size_t)n, NULL, &err)) > 0;)
        n += more;
    is_int(n, 5, "the tail has five");
    ok(!memcmp(got, "fghij", 5), "the last five");
    spool_close(&w);
    ok(spool_open(&w, dir, "s", 99, 99, &err) == 0 && w.total == 20 && w.head == 10, "reopened as it was");
    ok(spool_write_at(&w, 15, "fghijk", 6, &err) == 0 && w.total == 21, "a repeat adds only what is new");
    ok(spool_write_at(&w, 30, "xy", 2, &err) == 0 && w.total == 32, "a gap is taken");
    at = 10;
    spool_refresh(&r, &err);
    n = spool_read(&r, &at, got, sizeof got, &skipped, &err);
    ok(n > 0 && skipped == 20 && got[0] == 'x', "and is reported as dropped");
    spool_close(&w);
    spool_close(&r);
}

int main(void)
{
    struct error err;
    struct spool s;
    if (!mkdtemp(folder))
        return 1;
    int dir = open(folder, O_RDONLY | O_DIRECTORY);
    test_bounds(dir);
    ok(spool_open_read(&s, dir, "absent", &err) < 0 && err.code == ERR_NOT_FOUND, "an absent one is said so");
    int fd = openat(dir, "bad", O_CREAT | O_WRONLY, 0600);
    ok(write(fd, "nonsense nonsense nonsense nonsense nonsense nonsense nonsense nonsense", 71) == 71,
       "garbage");
    close(fd);
    ok(spool_open(&s, dir, "bad", 1, 1, &err) < 0 && err.code == ERR_PROTOCOL, "garbage is refused");
    unlinkat(dir, "s", 0);
    unlinkat(dir, "bad", 0);
    rmdir(folder);
    return tap_done();
}
