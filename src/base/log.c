/* log.c - the daemons' log. One write(2) per line, so lines of several processes that share a
 * file opened with O_APPEND do not mix. */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static char program_name[32] = "muster";
static int log_fd = 2;
static enum log_level log_limit = LOG_LEVEL_INFO;
static const char *const level_words[] = {"error", "warn", "info", "debug"};

void log_open(const char *program, int fd)
{
    snprintf(program_name, sizeof program_name, "%s", program);
    log_fd = fd;
}

void log_set_level(enum log_level level)
{
    log_limit = level;
}

int log_level_parse(const char *word)
{
    for (int i = 0; i < 4; i++)
        if (!strcmp(word, level_words[i]))
            return i;
    return -1;
}

static void write_line(enum log_level level, const char *fmt, va_list ap)
{
    if (level > log_limit)
        return;
    char text[1024], line[3072];
    vsnprintf(text, sizeof text, fmt, ap);
    struct timespec ts;
    struct tm tm;
    clock_gettime(CLOCK_REALTIME, &ts);
    gmtime_r(&ts.tv_sec, &tm);
    size_t n = strftime(line, 64, "%Y-%m-%dT%H:%M:%S", &tm);
    n += (size_t)snprintf(line + n, 96, ".%03ldZ %-5s %s: ", ts.tv_nsec / 1000000, level_words[level],
                          program_name);
    for (const char *p = text; *p && n < sizeof line - 8; p++) {
        unsigned char c = (unsigned char)*p;
        if (c < 0x20 || c == 0x7f)
            n += (size_t)snprintf(line + n, 5, "\\x%02x", c);
        else
            line[n++] = (char)c;
    }
    line[n++] = '\n';
    ssize_t done = write(log_fd, line, n);
    (void)done; /* a log that cannot be written must not stop a daemon */
}

#define LOG_FUNCTION(name, level)                                                                            \
    void name(const char *fmt, ...)                                                                          \
    {                                                                                                        \
        va_list ap;                                                                                          \
        va_start(ap, fmt);                                                                                   \
        write_line(level, fmt, ap);                                                                          \
        va_end(ap);                                                                                          \
    }
LOG_FUNCTION(log_error, LOG_LEVEL_ERROR)
LOG_FUNCTION(log_warn, LOG_LEVEL_WARN)
LOG_FUNCTION(log_info, LOG_LEVEL_INFO)
LOG_FUNCTION(log_debug, LOG_LEVEL_DEBUG)
