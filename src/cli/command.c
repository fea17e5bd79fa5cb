/* command.c - from argv to the function that does it: finds noun and verb in the tables, reads
 * the options, checks the number of words, runs. Called by a classic name (`job`, `clusrun`),
 * the program starts at that noun. */
#include "cli/command.h"
#include "base/mem.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const struct option common[] = {
    {"dir", NULL, "DIR", "The cluster's folder; else MUSTER_DIR, else the default folder", option_text,
     offsetof(struct context, dir_option), 0, 0},
    {"scheduler", NULL, "NAME", "The cluster's name, as a check: another cluster is refused", option_text,
     offsetof(struct context, scheduler), 0, 0},
    {"json", NULL, NULL, "Print JSON, described in json.md of the documentation", option_flag,
     offsetof(struct context, json), 0, 0},
    {"no-color", "nocolour", NULL, "No colours, also on a terminal (as NO_COLOR does)", option_flag,
     offsetof(struct context, no_color), 0, 0},
    {"help", "h ?", NULL, "Show this help", option_help, offsetof(struct context, help), 0, 0},
    {0},
};

const struct option *common_options(const struct command *command)
{
    static struct option list[sizeof common / sizeof *common];
    size_t n = 0;
    for (const struct option *o = common; o->name; o++) {
        if ((!strcmp(o->name, "json") && !command->json) || (!strcmp(o->name, "scheduler") && command->local))
            continue;
        list[n++] = *o;
    }
    list[n] = (struct option){0};
    return list;
}

/* ---- finding ---- */

static bool listed(const char *word, const char *list)
{
    size_t len = strlen(word);
    for (; list && *list; list += strspn(list, " ")) {
        size_t n = strcspn(list, " ");
        if (n == len && !strncasecmp(word, list, n))
            return true;
        list += n;
    }
    return false;
}

static const struct noun *find_noun(const char *word)
{
    for (size_t i = 0; nouns[i]; i++)
        if (!strcasecmp(word, nouns[i]->name) || listed(word, nouns[i]->classic))
            return nouns[i];
    return NULL;
}

static const struct command *find_command(const struct noun *noun, const char *word)
{
    for (const struct command *c = noun->commands; c->name; c++)
        if (!strcasecmp(word, c->name))
            return c;
    return NULL;
}

static bool is_help(const char *word)
{
    return !strcmp(word, "--help") || !strcmp(word, "-h") || !strcmp(word, "/?") ||
           !strcasecmp(word, "/help") || !strcmp(word, "-?");
}

static int unknown(const char *program, const char *what, const char *word, const char *const *names,
                   size_t count)
{
    const char *near = nearest_name(word, names, count);
    if (near)
        fprintf(stderr, "%s: unknown %s \"%s\"; did you mean %s?\n", program, what, shown(word), near);
    else
        fprintf(stderr, "%s: unknown %s \"%s\"; '%s --help' lists them\n", program, what, shown(word),
                program);
    return EXIT_USAGE;
}

static int unknown_noun(const char *word)
{
    const char *names[32];
    size_t count = 0;
    for (size_t i = 0; nouns[i] && count < 32; i++)
        names[count++] = nouns[i]->name;
    return unknown("muster", "command", word, names, count);
}

static int unknown_verb(const char *program, const struct noun *noun, const char *word)
{
    const char *names[32];
    size_t count = 0;
    if (listed(word, noun->refused)) {
        fprintf(stderr, "%s: %s is not supported in this version\n", program, shown(word));
        return EXIT_USAGE;
    }
    for (const struct command *c = noun->commands; c->name && count < 32; c++)
        names[count++] = c->name;
    return unknown(program, "command", word, names, count);
}

/* ---- running ---- */

static int check_words(const struct context *ctx, const struct command *c, const struct words *words)
{
    if (words->count < (size_t)c->words_min)
        return context_usage(ctx, "%s is missing; usage: %s %.*s", c->words_name ? c->words_name : "a word",
                             ctx->program, (int)strcspn(c->usage, "\n"), c->usage);
    if (c->words_max >= 0 && words->count > (size_t)c->words_max)
        return context_usage(ctx, "unexpected \"%s\"; usage: %s %.*s", shown(words->list[c->words_max]),
                             ctx->program, (int)strcspn(c->usage, "\n"), c->usage);
    return 0;
}

static int run_command(struct context *ctx, const struct noun *noun, const struct command *c, int argc,
                       char **argv)
{
    enum { GROUPS_MAX = 8 };
    struct option_table tables[GROUPS_MAX + 2] = {{common_options(c), ctx}};
    struct error err = {0};
    struct words words = {0};
    void *args = xcalloc(1, c->args_size ? c->args_size : 1);
    size_t n = 1;
    for (const struct option_group *g = c->groups; g && g->options && n <= GROUPS_MAX; g++)
        tables[n++] = (struct option_table){g->options, (char *)args + g->offset};
    tables[n] = (struct option_table){0};
    int rc = options_parse(tables, c->tail_after, argc, argv, &words, &err);
    if (rc > 0) {
        help_print(stdout, noun, c);
        rc = EXIT_OK;
    } else if (rc < 0 || context_init(ctx, &err)) {
        rc = context_fail(ctx, &err);
    } else {
        rc = check_words(ctx, c, &words);
        if (!rc)
            rc = c->run(ctx, args, &words);
    }
    context_end(ctx);
    free(args);
    return rc;
}

static int dispatch_noun(const char *program, const struct noun *noun, int argc, char **argv)
{
    struct context ctx = {0};
    if (noun->single) {
        snprintf(ctx.program, sizeof ctx.program, "%s", program);
        return run_command(&ctx, noun, noun->commands, argc, argv);
    }
    if (argc == 0) {
        help_print(stderr, noun, NULL);
        return EXIT_USAGE;
    }
    if (is_help(argv[0]) || !strcmp(argv[0], "help")) {
        const struct command *c = argc > 1 ? find_command(noun, argv[1]) : NULL;
        if (argc > 1 && !c)
            return unknown_verb(program, noun, argv[1]);
        help_print(stdout, noun, c);
        return EXIT_OK;
    }
    const struct command *c = find_command(noun, argv[0]);
    if (!c)
        return unknown_verb(program, noun, argv[0]);
    snprintf(ctx.program, sizeof ctx.program, "%s %s", program, c->name);
    return run_command(&ctx, noun, c, argc - 1, argv + 1);
}

/* muster help [--man] [NOUN [VERB]] */
static int run_help(int argc, char **argv)
{
    bool man = argc && !strcmp(argv[0], "--man"); /* how the build makes the manual pages */
    if (man) {
        argc--;
        argv++;
    }
    if (!argc || (man && !strcmp(argv[0], "muster"))) {
        if (man)
            help_man(stdout, NULL);
        else
            help_print(stdout, NULL, NULL);
        return EXIT_OK;
    }
    if (is_help(argv[0])) {
        printf("Usage: muster help [COMMAND [VERB]]\n\nShows the help of muster, or of one command.\n");
        return EXIT_OK;
    }
    const struct noun *noun = find_noun(argv[0]);
    if (!noun)
        return unknown_noun(argv[0]);
    if (man) {
        help_man(stdout, noun);
        return EXIT_OK;
    }
    const struct command *c = noun->single ? noun->commands : NULL;
    if (argc > 1 && !noun->single && !(c = find_command(noun, argv[1]))) {
        char program[64];
        snprintf(program, sizeof program, "muster %s", noun->name);
        return unknown_verb(program, noun, argv[1]);
    }
    help_print(stdout, noun, c);
    return EXIT_OK;
}

/* What was printed must have arrived: a full disk behind `> file` is a failure. (A reader that went away, as
 * in `muster job list | head`, ends the program by SIGPIPE, without a word.) */
static int finish(int rc)
{
    bool bad = ferror(stdout);
    if (fflush(stdout) == 0 && !bad)
        return rc;
    fprintf(stderr, "muster: cannot write the output: %s\n", strerror(errno));
    return rc == EXIT_OK ? EXIT_FAILED : rc;
}

int command_main(int argc, char **argv)
{
    char name[64] = "muster", program[128];
    if (argc > 0) {
        const char *slash = strrchr(argv[0], '/');
        snprintf(name, sizeof name, "%s", slash ? slash + 1 : argv[0]);
    }
    const struct noun *noun = strcmp(name, "muster") ? find_noun(name) : NULL;
    if (noun)
        return finish(dispatch_noun(noun->single ? name : noun->name, noun, argc - 1, argv + 1));
    if (argc < 2) {
        help_print(stderr, NULL, NULL);
        return EXIT_USAGE;
    }
    const char *word = argv[1];
    if (!strcmp(word, "--version") || !strcasecmp(word, "version")) {
        printf("muster %s\n", MUSTER_VERSION);
        return finish(EXIT_OK);
    }
    if (is_help(word)) {
        help_print(stdout, NULL, NULL);
        return finish(EXIT_OK);
    }
    if (!strcasecmp(word, "help"))
        return finish(run_help(argc - 2, argv + 2));
    if (word[0] == '-' || word[0] == '/') {
        fprintf(stderr,
                "muster: unknown option \"%s\"; options follow the command: 'muster --help' lists commands\n",
                shown(word));
        return EXIT_USAGE;
    }
    noun = find_noun(word);
    if (!noun)
        return unknown_noun(word);
    snprintf(program, sizeof program, "muster %s", noun->name);
    return finish(dispatch_noun(program, noun, argc - 2, argv + 2));
}
