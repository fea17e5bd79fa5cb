/* command.h - a command of muster as data: its name, options, help, examples, and what runs it.
 *
 * main.c has the table of nouns; each noun is one file (job.c, node.c, ...) that defines its
 * `struct noun`. `muster NOUN VERB [options] [words]` finds the command, reads the options into
 * a zeroed struct of args_size bytes, and calls run(). --help, `muster help NOUN VERB` and the
 * manual pages print the same tables.
 */
#ifndef MUSTER_CLI_COMMAND_H
#define MUSTER_CLI_COMMAND_H

#include "cli/context.h"
#include "cli/options.h"

#include <stdbool.h>
#include <stdio.h>

struct example {
    const char *command; /* NULL ends the list */
    const char *text;
};

struct command {
    const char *name;    /* the verb; NULL ends a table */
    const char *usage;   /* what follows the verb; several forms are lines */
    const char *summary; /* one line, small first letter, no final stop */
    const char *text;    /* more, in paragraphs of one line each, separated by blank lines; or NULL */
    const struct option_group *groups; /* ended by options == NULL; or NULL */
    const struct example *examples;    /* or NULL */
    size_t args_size;                  /* of the struct that the options fill */
    int words_min, words_max;          /* words that are not options; words_max -1: any number */
    const char *words_name;            /* what one is, for messages: "a job id" */
    int tail_after;                    /* see options_parse(); -1 when options may stand anywhere */
    bool json;                         /* prints data: takes --json */
    bool local;                        /* does not speak to a head: no /scheduler */
    int (*run)(struct context *ctx, void *args, const struct words *words); /* returns the exit code */
};

struct noun {
    const char *name;
    const char *classic; /* other names of the noun ("clusrun"), blank-separated, or NULL */
    const char *summary;
    const char *text;
    const struct command *commands;
    bool single;          /* the noun is itself its only command (`muster run`) */
    const char *refused;  /* HPC Pack's verbs that this version does not have, blank-separated, or NULL */
    const char *see_also; /* for the manual: "muster(1), mpiexec(1)" */
};

/* One per file; cluster.c, job.c, task.c, node.c, group.c, run.c */
extern const struct noun cluster_noun, job_noun, task_noun, node_noun, group_noun, run_noun;

/* All of them, NULL at the end. */
extern const struct noun *const nouns[];

/* Runs argv as a command line: argv[0] is the program's name (a classic name selects the noun). */
int command_main(int argc, char **argv);

/* The options that every command has, less those that `command` does not take. Static storage. */
const struct option *common_options(const struct command *command);

/* What `muster NOUN VERB --help` prints; verb NULL: the noun's page; noun NULL: muster's own. */
void help_print(FILE *out, const struct noun *noun, const struct command *command);
/* The manual page of a noun (NULL: of muster), as roff source, from the same tables. */
void help_man(FILE *out, const struct noun *noun);

#endif
