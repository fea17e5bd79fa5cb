/* cli_test.c - the option reader, node sets, values of job options, command lines, help and manual pages. */
#include "base/mem.h"
#include "cli/command.h"
#include "cli/nodeset.h"
#include "cli/print.h"
#include "cli/spec.h"
#include "tests/unit/tap.h"

#include <stddef.h>

/* main.c has the real table; these are the same nouns. */
const struct noun *const nouns[] = {&cluster_noun, &job_noun, &task_noun, &node_noun,
                                    &group_noun,   &run_noun, NULL};

static char *strip(const char *text);

#define ARGS(...)                                                                                            \
    (int)(sizeof((char *[]){__VA_ARGS__}) / sizeof(char *)), (char *[])                                      \
    {                                                                                                        \
        __VA_ARGS__                                                                                          \
    }

/* ---- option reader ---- */

struct sample {
    const char *text;
    uint32_t number;
    bool flag, on;
    struct words names;
};
static const struct option sample_options[] = {
    {"text", NULL, "TEXT", "a text", option_text, offsetof(struct sample, text), 0, 10},
    {"numnodes", "numprocessors n", "N", "a number", option_number, offsetof(struct sample, number), 1, 9},
    {"flag", NULL, NULL, "a flag", option_flag, offsetof(struct sample, flag), 0, 0},
    {"on", NULL, NULL, "another", option_flag, offsetof(struct sample, on), 0, 0},
    {"names", NULL, "NAMES", "names", option_names, offsetof(struct sample, names), 0, 3},
    {"license", NULL, "X", NULL, NULL, 0, 0, 0},
    {"help", "h ?", NULL, "help", option_help, 0, 0, 0},
    {0},
};

static struct sample got;
static struct words words;
static struct error err;

static int parse(int tail_after, int argc, char **argv)
{
    const struct option_table tables[] = {{sample_options, &got}, {0}};
    got = (struct sample){.on = true};
    words = (struct words){0};
    err = (struct error){0};
    return options_parse(tables, tail_after, argc, argv, &words, &err);
}

static void test_spellings(void)
{
    is_int(parse(-1, ARGS("--text", "a", "--numnodes=3", "--flag", "--on=false", "w")), 0, "long options");
    ok(!strcmp(got.text, "a") && got.number == 3 && got.flag && !got.on && words.count == 1, "... all read");
    is_int(parse(-1, ARGS("/text:a:b", "/NUMNODES:4", "/Flag", "/on:FALSE")), 0,
           "HPC Pack's spelling, in any case");
    ok(!strcmp(got.text, "a:b") && got.number == 4 && got.flag && !got.on, "... all read");
    is_int(parse(-1, ARGS("/numprocessors:5", "w")), 0, "another name of an option");
    is_int(got.number, 5, "... is the same option");
    is_int(parse(-1, ARGS("-n", "6", "--num-nodes", "7")), 0, "one-letter names and hyphens");
    is_int(got.number, 7, "... and the last one holds");
    is_int(parse(-1, ARGS("--names", "a,b[1,2],c")), 0, "names");
    ok(got.names.count == 3 && !strcmp(got.names.list[1], "b[1,2]"),
       "... commas in brackets do not separate");
    is_int(parse(-1, ARGS("/?")), 1, "/? asks for help");
    is_int(parse(0, ARGS("cmd", "--help")), 0, "--help after the command is the command's");
}

static void test_tail(void)
{
    is_int(parse(0, ARGS("/flag", "/bin/true", "--text", "/x:y")), 0, "options end at the command");
    ok(words.count == 3 && !strcmp(words.list[0], "/bin/true") && !strcmp(words.list[2], "/x:y"),
       "... and a path is a command");
    is_int(parse(1, ARGS("12", "--flag", "cmd", "--flag")), 0, "or at the word after the id");
    ok(words.count == 3 && got.flag, "... with options between");
    is_int(parse(0, ARGS("--", "/numnodes:x")), 0, "-- ends options");
    ok(words.count == 1, "... and is not a word itself");
    is_int(parse(-1, ARGS("12", "-", "--flag")), 0, "a hyphen alone is a word");
    ok(words.count == 2 && got.flag, "... and options may stand anywhere");
}

static void test_errors(void)
{
    static const struct {
        char *a, *b;
        const char *want;
    } bad[] = {
        {"--numnods", "3", "unknown option --numnods; did you mean --numnodes?"},
        {"/numnods:3", "x", "unknown option /numnods; did you mean /numnodes?"},
        {"--zzzzzz", "3", "unknown option --zzzzzz; --help lists the options"},
        {"-z", "3", "unknown option -z; --help lists the options"},
        {"/numnodes:0", "x", "option /numnodes: \"0\": expected a number from 1 to 9"},
        {"--numnodes", "10", "option --numnodes: \"10\": expected a number from 1 to 9"},
        {"--numnodes", "4x", "option --numnodes: \"4x\": expected a number from 1 to 9"},
        {"--numnodes=", "x", "option --numnodes: \"\": expected a number from 1 to 9"},
        {"/numnodes", "3", "option /numnodes needs a value: /numnodes:N"},
        {"x", "--numnodes", "option --numnodes needs a value: --numnodes N"},
        {"/flag:maybe", "x", "option /flag: \"maybe\": expected true or false"},
        {"--text", "12345678901", "option --text: \"12345678901\": expected at most 10 characters"},
        {"--names", "a,,b",
         "option --names: \"a,,b\": expected names separated by commas, no blanks, at most 3"},
        {"--names", "a,b,c,d",
         "option --names: \"a,b,c,d\": expected names separated by commas, no blanks, at most 3"},
        {"--names", "a, b", "option --names: \"a, b\": expected names separated by commas, without blanks"},
        {"/license:x", "x", "option /license is not supported in this version"},
        {"--numnodes", "1\n2", "option --numnodes: \"1\\x0a2\": expected a number from 1 to 9"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        is_int(parse(-1, ARGS(bad[i].a, bad[i].b)), -1, "%s %s is refused", strip(bad[i].a), strip(bad[i].b));
        is_str(err.text, bad[i].want, "... and the line says why");
    }
}

/* For test names: TAP lines have no control characters. */
static char *strip(const char *text)
{
    return (char *)shown(text);
}

/* ---- values ---- */

static int job_option(const char *name, const char *value, struct job_options *o)
{
    for (const struct option *opt = job_option_table; opt->name; opt++)
        if (!strcmp(opt->name, name))
            return opt->set(opt, (char *)o + opt->offset, value, &err);
    return -2;
}

static void test_values(void)
{
    static const struct {
        const char *name, *value;
        int rc;
        uint32_t a, b;
    } table[] = {
        {"numnodes", "4", 0, 4, 4},
        {"numnodes", "2-4", 0, 2, 4},
        {"numnodes", "*", 0, 0, 0},
        {"numnodes", "*-4", 0, 0, 4},
        {"numnodes", "2-*", 0, 2, 0},
        {"numnodes", "4-2", -1, 0, 0},
        {"numnodes", "0", -1, 0, 0},
        {"numnodes", "0-3", -1, 0, 0},
        {"numnodes", "abc", -1, 0, 0},
        {"numnodes", "4-", -1, 0, 0},
        {"numnodes", "-4", -1, 0, 0},
        {"numnodes", "4-5-6", -1, 0, 0},
        {"numnodes", "+4", -1, 0, 0},
        {"numnodes", " 4", -1, 0, 0},
        {"numnodes", "99999999999999999999", -1, 0, 0},
        {"numnodes", "", -1, 0, 0},
        {"numnodes", "1000001", -1, 0, 0},
        {"numnodes", "**", -1, 0, 0},
        {"runtime", "5", 0, 300, 0},
        {"runtime", "1:30", 0, 5400, 0},
        {"runtime", "1:0:0", 0, 86400, 0},
        {"runtime", "INFINITE", 0, 0, 0},
        {"runtime", "0", -1, 0, 0},
        {"runtime", "1:2:3:4", -1, 0, 0},
        {"runtime", "", -1, 0, 0},
        {"runtime", ":5", -1, 0, 0},
        {"runtime", "5:", -1, 0, 0},
        {"runtime", "90:90", 0, 329400, 0},
        {"runtime", "2147483647:0:0", -1, 0, 0},
        {"runtime", "1.5", -1, 0, 0},
        {"priority", "Normal+1", 0, 2001, 0},
        {"priority", "0", 0, 0, 0},
        {"priority", "4001", -1, 0, 0},
        {"priority", "lowest-1", -1, 0, 0},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct job_options o = {0};
        is_int(job_option(table[i].name, table[i].value, &o), table[i].rc, "/%s:%s", table[i].name,
               table[i].value);
        if (table[i].rc)
            continue;
        if (!strcmp(table[i].name, "numnodes"))
            ok(o.nodes.given && o.nodes.min == table[i].a && o.nodes.max == table[i].b, "... is read right");
        else
            is_int(table[i].name[0] == 'r' ? o.runtime_s : o.priority, table[i].a, "... is read right");
    }
}

static void test_env(void)
{
    struct env_list env = {0};
    is_int(option_env(NULL, &env, "A=1;B=x=y;C=", &err), 0, "a list of variables");
    ok(env.count == 3 && !strcmp(env.list[1]->value, "x=y") && !*env.list[2]->value, "... is read right");
    is_int(option_env(NULL, &env, "D=4;", &err), 0, "a closing semicolon is fine");
    is_int(env.count, 4, "... and lists add up");
    static const char *const bad[] = {"A", "=1", "", "A=1;;B=2", "1A=2", "CCP_JOBID=3", "A B=1"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        is_int(option_env(NULL, &env, bad[i], &err), -1, "\"%s\" is refused", bad[i]);
}

static void test_ids(void)
{
    uint64_t job = 0;
    uint32_t task = 0;
    ok(!read_job_id("12", &job, &err) && job == 12, "a job id");
    ok(!read_task_id("12.3", &job, &task, &err) && job == 12 && task == 3, "a task id");
    static const char *const bad_jobs[] = {"", "0", "-1", "1x", "1.1", "99999999999999999999", " 1"};
    for (size_t i = 0; i < sizeof bad_jobs / sizeof *bad_jobs; i++)
        is_int(read_job_id(bad_jobs[i], &job, &err), -1, "job id \"%s\" is refused", bad_jobs[i]);
    static const char *const bad_tasks[] = {"", "12", "12.", "12.0", ".1", "12.1.1", "12.x", "12.1x", "0.1"};
    for (size_t i = 0; i < sizeof bad_tasks / sizeof *bad_tasks; i++)
        is_int(read_task_id(bad_tasks[i], &job, &task, &err), -1, "task id \"%s\" is refused", bad_tasks[i]);
}

static void test_command_line(void)
{
    is_str(command_line((char *[]){"echo $HOME | wc"}, 1), "echo $HOME | wc", "one word is a command line");
    is_str(command_line((char *[]){"mpiexec", "-n", "4", "./a.out"}, 4), "mpiexec -n 4 ./a.out",
           "plain words stay as they are");
    is_str(command_line((char *[]){"echo", "$HOME", "a b", "", "it's"}, 5),
           "echo '$HOME' 'a b' '' 'it'\\''s'", "others are quoted");
    is_str(command_line((char *[]){"a=b", "c=d"}, 2), "'a=b' c=d",
           "an assignment in front is a command's name");
}

/* ---- node sets ---- */

static void test_nodeset(void)
{
    struct words out = {0};
    is_int(nodeset_expand("node[01-03,7],x", &out, &err), 0, "brackets");
    is_str(join(out.list, out.count, " "), "node01,x node02,x node03,x node7,x",
           "... are written out in place");
    out = (struct words){0};
    is_int(nodeset_expand_words(&(struct words){.list = (char *[]){"a[1-2]b[8-9],c", "d"}, .count = 2}, &out,
                                &err),
           0, "lists of them");
    is_str(join(out.list, out.count, " "), "a1b8 a1b9 a2b8 a2b9 c d", "... too");
    static const char *const bad[] = {"",
                                      "n[",
                                      "n]",
                                      "n[]",
                                      "n[3-1]",
                                      "n[a-b]",
                                      "n[1-]",
                                      "n[-1]",
                                      "n[1,]",
                                      "n[1--2]",
                                      "n[0-999999999]",
                                      "n[1-400][1-400]",
                                      "a[1][1][1][1][1]"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        out = (struct words){0};
        is_int(nodeset_expand(bad[i], &out, &err), -1, "\"%s\" is refused", bad[i]);
    }
    ok(nodeset_match("node*", "NODE01") && !nodeset_match("node?", "node01") &&
           nodeset_match("Node01", "node01"),
       "wildcards match without case");
    static const struct {
        char *names[6];
        size_t count;
        const char *want;
    } fold[] = {
        {{"node01", "node02", "node03"}, 3, "node[01-03]"},
        {{"node01"}, 1, "node01"},
        {{"n1", "n3", "n4", "gpu"}, 4, "n[1,3-4],gpu"},
        {{"n9", "n10", "n11"}, 3, "n[9-11]"},
        {{"n09", "n9"}, 2, "n09,n9"},
        {{"a1", "b1", "a2"}, 3, "a[1-2],b1"},
        {{"x"}, 0, ""},
    };
    for (size_t i = 0; i < sizeof fold / sizeof *fold; i++) {
        struct buf b = BUF_INIT;
        nodeset_fold(fold[i].names, fold[i].count, &b);
        is_str(buf_str(&b), fold[i].want, "folds to %s", fold[i].want);
        buf_free(&b);
    }
}

/* ---- text from outside ---- */

static void test_shown(void)
{
    is_str(shown("a\033[2Jb\n"), "a\\x1b[2Jb\\x0a", "control characters are shown");
    char longer[300];
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    memcpy(longer + 99, "\xc3\xa4", 2);
    const char *s = shown(longer);
    ok(strlen(s) == 102 && !strcmp(s + 99, "..."), "a long text is cut at a whole character");
}

static void test_json(void)
{
    json_t *v = json_bytes("a\xff\xc3\xa4\xed\xa0\x80z\0b", 10);
    is_str(json_string_value(v), "a\xef\xbf\xbd\xc3\xa4\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdz",
           "broken UTF-8 becomes U+FFFD");
    is_int(json_string_length(v), 18, "... and a zero byte is kept");
    json_decref(v);
    v = json_time(1764000000123);
    is_str(json_string_value(v), "2025-11-24T16:00:00.123Z", "a time");
    json_decref(v);
    is_str(duration_text(93784005), "1:2:3:4:5", "a duration");
}

/* ---- help and manual ---- */

static char *page(const struct noun *noun, const struct command *command, bool man)
{
    char *text = NULL;
    size_t len;
    FILE *f = open_memstream(&text, &len);
    if (man)
        help_man(f, noun);
    else
        help_print(f, noun, command);
    fclose(f);
    /* Roff writes a hyphen as \-: */
    for (char *p = text, *q = text;; p++) {
        if (p[0] == '\\' && p[1] == '-')
            p++;
        *q++ = *p;
        if (!*p)
            break;
    }
    return text;
}

/* Every option of the table stands in both; a refused one only by name. */
static bool page_has_options(const char *text, const struct option *o)
{
    char name[80];
    for (; o->name; o++) {
        snprintf(name, sizeof name, "%s%s", o->set ? "--" : "/", o->name);
        if (!strstr(text, name)) {
            printf("# %s is not there\n", name);
            return false;
        }
    }
    return true;
}

static void test_help(void)
{
    for (size_t i = 0; nouns[i]; i++) {
        char *man = page(nouns[i], NULL, true);
        for (const struct command *c = nouns[i]->commands; c->name; c++) {
            char *help = page(nouns[i], c, false);
            bool in_help = page_has_options(help, common_options(c)),
                 in_man = page_has_options(man, common_options(c));
            for (const struct option_group *g = c->groups; g && g->options; g++) {
                in_help = in_help && page_has_options(help, g->options);
                in_man = in_man && page_has_options(man, g->options);
            }
            ok(in_help, "help of %s %s has every option", nouns[i]->name, c->name);
            ok(in_man, "manual of %s %s has every option", nouns[i]->name, c->name);
            ok(c->summary && c->usage && c->run, "%s %s has summary and usage", nouns[i]->name, c->name);
            ok(strstr(man, c->summary), "... and the manual has the summary");
            free(help);
        }
        free(man);
    }
}

/* No name stands twice among the options of one command: the second could never be reached. */
static void test_unique(void)
{
    for (size_t i = 0; nouns[i]; i++) {
        for (const struct command *c = nouns[i]->commands; c->name; c++) {
            const char *twice = NULL;
            for (const struct option_group *g = c->groups; g && g->options; g++)
                for (const struct option_group *h = g; h->options; h++)
                    for (const struct option *a = g->options; a->name; a++)
                        for (const struct option *b = h == g ? a + 1 : h->options; b->name; b++)
                            if (!strcmp(a->name, b->name) && (a->set || b->set))
                                twice = a->name;
            ok(!twice, "%s %s: no option twice%s%s", nouns[i]->name, c->name, twice ? ", but " : "",
               twice ? twice : "");
        }
    }
}

int main(void)
{
    test_spellings();
    test_tail();
    test_errors();
    test_values();
    test_env();
    test_ids();
    test_command_line();
    test_nodeset();
    test_shown();
    test_json();
    test_help();
    test_unique();
    return tap_done();
}
