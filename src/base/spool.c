/* spool.c - a bounded file of output. See spool.h for the format.
 *
 * Offset N < head lies at 64 + N; a later one at 64 + head + (N - head) % tail. */
#include "base/spool.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#define HEADER_SIZE 64
#define SPOOL_PART_MAX (64ull * 1024 * 1024 * 1024)
static const char spool_magic[8] = {'M', 'U', 'S', 'P', 'O', 'O', 'L', '1'};

struct spool_header {
    char magic[8];
    uint64_t head, tail, total, ring_from, spare[3];
};
_Static_assert(sizeof(struct spool_header) == HEADER_SIZE, "header size is part of the format");

static int pread_all(int fd, void *data, size_t len, off_t at)
{
    char *p = data;
    while (len) {
        ssize_t n = pread(fd, p, len, at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            if (n == 0)
                errno = ENODATA;
            return -1;
        }
        p += n, at += n, len -= (size_t)n;
    }
    return 0;
}

static int pwrite_all(int fd, const void *data, size_t len, off_t at)
{
    const char *p = data;
    while (len) {
        ssize_t n = pwrite(fd, p, len, at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        p += n, at += n, len -= (size_t)n;
    }
    return 0;
}

static int load_header(struct spool *s, const char *path, struct error *err)
{
    struct spool_header h;
    if (pread_all(s->fd, &h, sizeof h, 0))
        return error_sys(err, "cannot read the header of %s", path);
    if (memcmp(h.magic, spool_magic, sizeof h.magic) || h.tail == 0 || h.head > SPOOL_PART_MAX ||
        h.tail > SPOOL_PART_MAX)
        return error_set(err, ERR_PROTOCOL, "%s is not an output spool", path);
    s->head = h.head;
    s->tail = h.tail;
    s->total = h.total;
    s->ring_from = h.ring_from;
    return 0;
}

/* total and ring_from are neighbours: one write, which the page cache makes whole for readers. */
static int store_total(struct spool *s, struct error *err)
{
    uint64_t pair[2] = {s->total, s->ring_from};
    if (pwrite_all(s->fd, pair, sizeof pair, offsetof(struct spool_header, total)))
        return error_sys(err, "cannot write output spool");
    return 0;
}

int spool_open(struct spool *s, int dirfd, const char *path, uint64_t head, uint64_t tail, struct error *err)
{
    *s = (struct spool){.fd = -1, .writer = true};
    s->fd = openat(dirfd, path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (s->fd < 0)
        return error_sys(err, "cannot open %s", path);
    off_t size = lseek(s->fd, 0, SEEK_END);
    if (size >= HEADER_SIZE) {
        if (load_header(s, path, err) == 0)
            return 0;
        spool_close(s);
        return -1;
    }
    if (tail == 0 || tail > SPOOL_PART_MAX || head > SPOOL_PART_MAX) {
        spool_close(s);
        return error_set(err, ERR_USAGE, "output spool size out of range");
    }
    struct spool_header h = {.head = head, .tail = tail};
    memcpy(h.magic, spool_magic, sizeof h.magic);
    if (pwrite_all(s->fd, &h, sizeof h, 0)) {
        error_sys(err, "cannot write %s", path);
        spool_close(s);
        return -1;
    }
    s->head = head;
    s->tail = tail;
    return 0;
}

int spool_open_read(struct spool *s, int dirfd, const char *path, struct error *err)
{
    *s = (struct spool){.fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)};
    if (s->fd < 0) {
        error_sys(err, "cannot open %s", path);
        if (err && errno == ENOENT)
            err->code = ERR_NOT_FOUND;
        return -1;
    }
    if (load_header(s, path, err)) {
        spool_close(s);
        return -1;
    }
    return 0;
}

void spool_close(struct spool *s)
{
    if (s->fd >= 0)
        close(s->fd);
    s->fd = -1;
}

int spool_refresh(struct spool *s, struct error *err)
{
    uint64_t pair[2];
    if (pread_all(s->fd, pair, sizeof pair, offsetof(struct spool_header, total)))
        return error_sys(err, "cannot read output spool");
    s->total = pair[0];
    s->ring_from = pair[1];
    return 0;
}

/* Where `offset` lies, and how many bytes from it on are contiguous in the file. */
static off_t place(const struct spool *s, uint64_t offset, uint64_t *run)
{
    if (offset < s->head) {
        *run = s->head - offset;
        return (off_t)(HEADER_SIZE + offset);
    }
    uint64_t in_ring = (offset - s->head) % s->tail;
    *run = s->tail - in_ring;
    return (off_t)(HEADER_SIZE + s->head + in_ring);
}

int spool_write(struct spool *s, const void *data, size_t len, struct error *err)
{
    return spool_write_at(s, s->total, data, len, err);
}

int spool_write_at(struct spool *s, uint64_t offset, const void *data, size_t len, struct error *err)
{
    const char *p = data;
    if (offset + len <= s->total)
        return 0;
    if (offset < s->total) {
        p += s->total - offset;
        len -= (size_t)(s->total - offset);
        offset = s->total;
    }
    if (offset > s->total)
        s->ring_from = offset; /* what lies between head and here is lost */
    while (len) {
        uint64_t run;
        off_t at = place(s, offset, &run);
        size_t n = len < run ? len : (size_t)run;
        if (pwrite_all(s->fd, p, n, at))
            return error_sys(err, "cannot write output spool");
        p += n, offset += n, len -= n;
    }
    s->total = offset;
    return store_total(s, err);
}

ssize_t spool_read(struct spool *s, uint64_t *offset, void *data, size_t len, uint64_t *skipped,
                   struct error *err)
{
    uint64_t ring_start = s->total > s->head + s->tail ? s->total - s->tail : s->head;
    if (ring_start < s->ring_from)
        ring_start = s->ring_from;
    if (skipped)
        *skipped = 0;
    if (*offset >= s->head && *offset < ring_start) {
        if (skipped)
            *skipped = ring_start - *offset;
        *offset = ring_start;
    }
    if (*offset >= s->total || len == 0)
        return 0;
    uint64_t run;
    off_t at = place(s, *offset, &run);
    if (run > s->total - *offset)
        run = s->total - *offset;
    if (len > run)
        len = (size_t)run;
    ssize_t n;
    do
        n = pread(s->fd, data, len, at);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return error_sys(err, "cannot read output spool");
    *offset += (uint64_t)n;
    return n;
}
