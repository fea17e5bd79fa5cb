/* spool.h - a bounded file of output: its beginning and its end are kept.
 *
 * A task may print for ever; the disk may not fill. The first `head` bytes are kept, after
 * them a ring keeps the last `tail` bytes; what lies between is counted and dropped. The same
 * format holds the output on the node (written by muster-keeper) and at the head (written from
 * the stream), so a byte at offset N is at the same place in both.
 *
 * File: 64 bytes of header (magic "MUSPOOL1", u64 head, tail, total, ring_from; native
 * byte order, the file never leaves its machine), then head + tail bytes at most (sparse).
 * `total` counts all bytes ever written, and is stored after the bytes it counts, so a reader
 * in another process, or after a kill -9, never sees bytes that are not there. Uses libc only.
 */
#ifndef MUSTER_BASE_SPOOL_H
#define MUSTER_BASE_SPOOL_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define SPOOL_HEAD_DEFAULT (1024 * 1024)
#define SPOOL_TAIL_DEFAULT (3 * 1024 * 1024)

struct spool {
    int fd;
    uint64_t head;      /* bytes */
    uint64_t tail;      /* bytes */
    uint64_t total;     /* offset of the next byte */
    uint64_t ring_from; /* the ring holds nothing before this offset */
    bool writer;
};

/* Opens for writing, making it if absent (mode 0600); head and tail count only for a new file. */
int spool_open(struct spool *s, int dirfd, const char *path, uint64_t head, uint64_t tail, struct error *err);
/* Opens for reading. ERR_NOT_FOUND where it is absent. */
int spool_open_read(struct spool *s, int dirfd, const char *path, struct error *err);
void spool_close(struct spool *s); /* closing twice, or one that failed to open, is fine */

/* Appends at s->total. */
int spool_write(struct spool *s, const void *data, size_t len, struct error *err);
/* Appends at `offset`: bytes before s->total are skipped (a repeat); bytes between s->total and
 * offset (a gap, only possible past `head`) count as dropped. */
int spool_write_at(struct spool *s, uint64_t offset, const void *data, size_t len, struct error *err);

/* Reads s->total anew from the file (another process writes). */
int spool_refresh(struct spool *s, struct error *err);
/* Reads at most `len` bytes at *offset and moves it forward by what was read. Bytes that were
 * dropped are skipped: *skipped (may be NULL) says how many were left out before the bytes that
 * were read. Returns the number of bytes read, 0 at the end, -1 on error. */
ssize_t spool_read(struct spool *s, uint64_t *offset, void *data, size_t len, uint64_t *skipped,
                   struct error *err);

#endif
