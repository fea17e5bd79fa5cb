/* base_test.c - buffers, errors, files: the corners that callers lean on. */
#include "tests/unit/tap.h"
#include "base/buf.h"
#include "base/error.h"
#include "base/file.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static void test_buf(void)
{
    struct buf b = BUF_INIT;
    is_str(buf_str(&b), "", "an empty buf is an empty string");
    memset(buf_reserve(&b, 100), 'z', 100);
    buf_free(&b);
    buf_reserve(&b, 100);
    is_str(buf_str(&b), "", "so is one with room and nothing in it");
    buf_addf(&b, "%d-%s", 7, "x");
    buf_add(&b, "\0y", 2);
    is_int(b.len, 5, "bytes count, zeros too");
    buf_consume(&b, 2);
    is_str(buf_str(&b), "x", "the front is dropped");
    buf_consume(&b, b.len);
    for (int i = 0; i < 1000; i++)
        buf_adds(&b, "0123456789");
    ok(b.len == 10000 && b.data[10000] == 0 && b.data[9999] == '9', "it grows and stays terminated");
    char *s = buf_detach(&b);
    ok(strlen(s) == 10000 && b.len == 0 && !b.data, "detached, it is the caller's");
    free(s);
    buf_free(&b);
}

static void test_error(void)
{
    struct error e = {ERR_NONE, ""};
    ok(error_set(&e, ERR_LIMIT, "%d is too many", 9) == -1 && e.code == ERR_LIMIT, "an error is set");
    error_prefix(&e, "job %d", 3);
    is_str(e.text, "job 3: 9 is too many", "a prefix says where");
    errno = ENOENT;
    error_sys(&e, "cannot open %s", "/x");
    is_str(e.text, "cannot open /x: No such file or directory", "the system's reason is added");
    ok(errno == ENOENT, "errno is kept");
    ok(error_set(NULL, ERR_IO, "x") == -1, "nobody has to listen");
    is_str(error_word(ERR_NOT_FOUND), "not-found", "codes have words");
    is_str(error_word(999), "unknown", "a code from outside is harmless");
    char big[300];
    memset(big, 'a', sizeof big - 1);
    big[sizeof big - 1] = 0;
    error_set(&e, ERR_IO, "%s", big);
    error_prefix(&e, "%s", big);
    ok(strlen(e.text) == sizeof e.text - 1, "a long text is cut, not overrun");
}

static void test_file(void)
{
    char folder[] = "/tmp/muster-base-XXXXXX";
    struct error e;
    struct buf b = BUF_INIT;
    struct stat st;
    if (!mkdtemp(folder))
        exit(1);
    int dir = open(folder, O_RDONLY | O_DIRECTORY);
    ok(file_write(dir, "a", "hello", 5, 0600, true, &e) == 0, "a file is written");
    ok(fstatat(dir, "a.tmp", &st, 0) < 0, "no temporary file stays");
    ok(file_read(dir, "a", 5, &b, &e) == 0 && !strcmp(buf_str(&b), "hello"), "and read");
    buf_reset(&b);
    ok(file_read(dir, "a", 4, &b, &e) < 0 && e.code == ERR_LIMIT, "one that is too long is refused");
    ok(file_read(dir, "none", 4, &b, &e) < 0 && e.code == ERR_NOT_FOUND, "an absent one is said so");
    ok(file_locked(dir, "lock", &e) < 0 && e.code == ERR_NOT_FOUND, "no lock file, no lock");
    int lock = file_lock(dir, "lock", &e);
    ok(lock >= 0 && file_locked(dir, "lock", &e) == 1, "a lock is seen");
    ok(file_lock(dir, "lock", &e) < 0 && e.code == ERR_EXISTS, "and keeps others out");
    close(lock);
    ok(file_locked(dir, "lock", &e) == 0, "until it is closed");
    char *deep = xasprintf("%s/x/y/z", folder), *outside = xasprintf("%s/keep", folder);
    ok(file_mkdirs(deep, 0700, &e) == 0 && file_mkdirs(deep, 0700, &e) == 0, "folders, twice");
    ok(file_mkdirs(outside, 0700, &e) == 0 && symlinkat(outside, dir, "x/y/link") == 0, "a link out");
    ok(file_remove_tree(dir, "x", &e) == 0 && fstatat(dir, "x", &st, 0) < 0, "a tree is removed");
    ok(fstatat(dir, "keep", &st, 0) == 0, "what a link pointed to is not");
    ok(file_remove_tree(dir, "x", &e) == 0, "removing nothing is fine");
    /* Many times deeper than the descriptors that are used for it. */
    int at = dup(dir), levels = 0;
    for (; levels < 300 && mkdirat(at, "d", 0700) == 0; levels++) {
        int next = openat(at, "d", O_RDONLY | O_DIRECTORY);
        mkdirat(at, "deep.1", 0700);
        close(openat(at, "f", O_WRONLY | O_CREAT, 0600));
        close(at);
        at = next;
    }
    fchmod(at, 0);
    close(at);
    ok(levels == 300, "a folder 300 deep");
    ok(file_remove_tree(dir, "d", &e) == 0 && fstatat(dir, "d", &st, 0) < 0, "is removed");
    ok(file_mkdirs(deep, 0700, &e) == 0 && fchmodat(dir, "x/y", 0500, 0) == 0 &&
           fchmodat(dir, "x", 0, 0) == 0 && file_remove_tree(dir, "x", &e) == 0,
       "so is one that its owner has locked");
    close(dir);
    file_remove_tree(AT_FDCWD, folder, &e);
    free(deep);
    free(outside);
    buf_free(&b);
}

int main(void)
{
    test_buf();
    test_error();
    test_file();
    return tap_done();
}
