/* main.c - muster: the table of nouns, and main(). */
#include "cli/command.h"

#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <unistd.h>

const struct noun *const nouns[] = {
    &cluster_noun, &job_noun, &task_noun, &node_noun, &group_noun, &run_noun, NULL,
};

/* Without this the connection to the head could be descriptor 1 of who started us with stdout closed, and
 * get what we print. Opened the wrong way round, so that using it stays the error that it was. */
static void keep_standard_descriptors(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF && open("/dev/null", fd ? O_RDONLY : O_WRONLY) < 0)
            _exit(1);
}

int main(int argc, char **argv)
{
    keep_standard_descriptors();
    setlocale(LC_CTYPE, ""); /* widths of characters in tables */
    return command_main(argc, argv);
}
