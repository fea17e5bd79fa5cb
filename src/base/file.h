/* file.h - files written whole or not at all, and small files read whole.
 *
 * Every function takes a directory descriptor (AT_FDCWD works) and a path below it. Every
 * descriptor made here is close-on-exec.
 */
#ifndef MUSTER_BASE_FILE_H
#define MUSTER_BASE_FILE_H

#include "base/buf.h"
#include "base/error.h"

#include <stdbool.h>
#include <sys/types.h>

/* Appends the whole file to `out`. More than `max` bytes is ERR_LIMIT; absent is ERR_NOT_FOUND. */
int file_read(int dirfd, const char *path, size_t max, struct buf *out, struct error *err);

/* Writes path + ".tmp", renames it over path. With `sync`, both file and folder are fsynced
 * before it returns: the file is there after a power loss. */
int file_write(int dirfd, const char *path, const void *data, size_t len, mode_t mode, bool sync,
               struct error *err);

/* mkdir -p; existing folders are fine, whatever their mode. */
int file_mkdirs(const char *path, mode_t mode, struct error *err);

/* Opens (making it) and locks `path` exclusively (flock). Returns the descriptor, which holds
 * the lock while it is open; -1 with ERR_EXISTS when someone else holds it, for longer than the
 * moment that file_locked() takes: it waits for up to 100 ms. */
int file_lock(int dirfd, const char *path, struct error *err);

/* Whether someone holds the lock of `path` now: 1 yes, 0 no, -1 error (ERR_NOT_FOUND: no file). */
int file_locked(int dirfd, const char *path, struct error *err);

/* Removes a folder and all below it without following links, however deep, and whatever the modes of what
 * belongs to the caller. Recursion and descriptors are bounded. An absent folder is success. */
int file_remove_tree(int dirfd, const char *path, struct error *err);

/* Writes all of data to fd, through short writes and EINTR. 0 or -1 with errno. */
int file_write_all(int fd, const void *data, size_t len);

#endif
