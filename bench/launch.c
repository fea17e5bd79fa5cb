/* launch.c - how long commands take, side by side.
 *
 *   launch_bench ROUNDS COMMAND...      each COMMAND is one argument, split at blanks; every round runs all
 *                                       of them, in alternating order; prints "MEDIAN MIN MAX" (ms) for each
 *   launch_bench ROUNDS spawn N PROGRAM the bare cost of N processes: fork and exec of all, then wait
 *
 * A command that fails ends it. Output of the commands is dropped.
 */
#include "base/clock.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROUNDS_MAX 1000
#define WORDS_MAX 64
#define COMMANDS_MAX 8

static char **split(char *line)
{
    char **words = xcalloc(WORDS_MAX + 1, sizeof *words);
    size_t n = 0;
    for (char *w = strtok(line, " "); w && n < WORDS_MAX; w = strtok(NULL, " "))
        words[n++] = w;
    return words;
}

static pid_t start(char **words)
{
    pid_t pid = fork();
    if (pid)
        return pid;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    dup2(null, 0);
    dup2(null, 1);
    dup2(null, 2);
    alarm(120);
    execvp(words[0], words);
    _exit(127);
}

static void await(pid_t pid, const char *what)
{
    int status = 0;
    if (pid < 0 || waitpid(pid, &status, 0) < 0 || status) {
        fprintf(stderr, "launch_bench: %s: wait status %d\n", what, status);
        exit(1);
    }
}

static double run(char **words)
{
    int64_t from = clock_boot_us();
    await(start(words), words[0]);
    return (double)(clock_boot_us() - from) / 1000;
}

static double spawn_many(char **words, int n)
{
    pid_t *pids = xcalloc((size_t)n, sizeof *pids);
    int64_t from = clock_boot_us();
    for (int i = 0; i < n; i++)
        pids[i] = start(words);
    for (int i = 0; i < n; i++)
        await(pids[i], words[0]);
    free(pids);
    return (double)(clock_boot_us() - from) / 1000;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void print(double *times, int n)
{
    qsort(times, (size_t)n, sizeof *times, by_size);
    double median = n % 2 ? times[n / 2] : (times[n / 2 - 1] + times[n / 2]) / 2;
    printf("%.2f %.2f %.2f\n", median, times[0], times[n - 1]);
}

int main(int argc, char **argv)
{
    static double times[COMMANDS_MAX][ROUNDS_MAX];
    int rounds = argc > 2 ? atoi(argv[1]) : 0, n = argc - 2;
    if (rounds < 1 || rounds > ROUNDS_MAX || n < 1 || n > COMMANDS_MAX) {
        fputs("usage: launch_bench ROUNDS COMMAND... | ROUNDS spawn N PROGRAM\n", stderr);
        return 2;
    }
    if (n == 3 && !strcmp(argv[2], "spawn")) {
        char **words = split(argv[4]);
        for (int i = 0; i < rounds; i++)
            times[0][i] = spawn_many(words, atoi(argv[3]));
        print(times[0], rounds);
        return 0;
    }
    char **commands[COMMANDS_MAX];
    for (int c = 0; c < n; c++) {
        commands[c] = split(argv[2 + c]);
        run(commands[c]); /* once, so that the files are in memory */
    }
    for (int i = 0; i < rounds; i++)
        for (int k = 0; k < n; k++) {
            int c = i % 2 ? n - 1 - k : k;
            times[c][i] = run(commands[c]);
        }
    for (int c = 0; c < n; c++)
        print(times[c], rounds);
    return 0;
}
