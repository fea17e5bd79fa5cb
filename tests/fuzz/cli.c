/* cli.c - the words of a command line: one per line of the input, the first says which tables read them.
 *
 * Whatever they are, reading ends with values or with one line of text; and a set of nodes that was
 * expanded and folded expands to the same names. */
#include "cli/command.h"
#include "cli/nodeset.h"
#include "cli/spec.h"
#include "model/names.h"
#include "base/mem.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

#define WORDS_MAX 64

const struct noun *const nouns[] = {&job_noun, NULL};

struct args {
    struct job_options job;
    struct task_options task;
};

static void check_error(const struct error *err)
{
    CHECK(err->code != ERR_NONE && err->text[0] && !strchr(err->text, '\n') && !strchr(err->text, '\033'));
}

static void read_options(int tail_after, int argc, char **argv)
{
    struct args args = {0};
    const struct option_table tables[] = {
        {job_option_table, &args.job}, {task_option_table, &args.task}, {0}};
    struct words words = {0};
    struct error err = {0};
    Mu__JobSpec job;
    Mu__TaskSpec task;
    int rc = options_parse(tables, tail_after, argc, argv, &words, &err);
    if (rc < 0)
        check_error(&err);
    if (rc)
        return;
    if (spec_job(&args.job, &job, &err) || (words.count && spec_task(&args.task, &words, 0, &task, &err)))
        check_error(&err);
}

static void read_nodes(char *pattern)
{
    struct words names = {0}, again = {0};
    struct error err = {0};
    struct buf folded = BUF_INIT;
    if (nodeset_expand(pattern, &names, &err)) {
        check_error(&err);
        return;
    }
    if (names.count > 1000 || strpbrk(pattern, "*?,"))
        return; /* folding compares all with all: short lists are enough here */
    for (size_t i = 0; i < names.count; i++)
        if (node_name_check("node", names.list[i], &err))
            return;
    nodeset_fold(names.list, names.count, &folded);
    CHECK(nodeset_expand_words(&(struct words){.list = &folded.data, .count = 1}, &again, &err) == 0);
    CHECK(again.count == names.count);
    buf_free(&folded);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *argv[WORDS_MAX], *copy = xstrndup((const char *)data, size);
    int argc = 0;
    char *rest = copy;
    for (char *word; argc < WORDS_MAX && (word = strsep(&rest, "\n"));)
        argv[argc++] = word;
    for (int tail = -1; tail <= 1; tail++)
        read_options(tail, argc, argv);
    for (int i = 0; i < argc; i++) {
        uint64_t job;
        uint32_t task;
        struct error err = {0};
        read_nodes(argv[i]);
        if (read_task_id(argv[i], &job, &task, &err))
            check_error(&err);
    }
    cli_release();
    free(copy);
    return 0;
}
