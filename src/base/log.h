/* log.h - the daemons' log: one line per event on a file descriptor.
 *
 * Only main programs and daemon folders (head, node, local, step) log; base, model, sched,
 * core and store never do: they return errors. A line is
 * "2026-11-24T10:00:00.123Z LEVEL program: text". Control characters in the text (user
 * bytes) are printed as \xNN so a user cannot forge lines. Secrets are never logged.
 */
#ifndef MUSTER_BASE_LOG_H
#define MUSTER_BASE_LOG_H

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* Names the program in each line; fd is where lines go (default 2). Not owned. */
void log_open(const char *program, int fd);
void log_set_level(enum log_level level); /* default INFO */
/* "error", "warn", "info", "debug" to a level; -1 for other words. */
int log_level_parse(const char *word);
void log_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_info(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_debug(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
