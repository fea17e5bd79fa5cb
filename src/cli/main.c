/* main.c - muster: the table of nouns, and main(). */
#include "cli/command.h"

#include <locale.h>

const struct noun *const nouns[] = {
    &cluster_noun, &job_noun, &task_noun, &node_noun, &group_noun, &run_noun, NULL,
};

int main(int argc, char **argv)
{
    setlocale(LC_CTYPE, ""); /* widths of characters in tables */
    return command_main(argc, argv);
}
