/* options.c - mpiexec's command line into a StepRequest.
 *
 * options_parse() walks the words: options of a section, then its program and arguments up to ":",
 * then the next section. Each row of the table names how many values follow and the function that
 * takes them; a row without a function is an option of MS-MPI that this version does not have.
 */
#include "step/options.h"
#include "base/mem.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct parser {
    struct options *o;
    char **argv;
    int argc;
    int at; /* the next word */
    Mu__StepSection *section;
    const char *shown; /* the option as it was typed, for messages */
};

/* ---- small arrays inside protobuf structs ---- */

static void add_string(char ***list, size_t *n, char *s)
{
    /* Grown by powers of two: n is the only count protobuf-c keeps. */
    if ((*n & (*n - 1)) == 0)
        *list = xrealloc(*list, (*n ? *n * 2 : 1) * sizeof **list);
    (*list)[(*n)++] = s;
}

static void set_env(char ***list, size_t *n, const char *name, const char *value)
{
    size_t len = strlen(name);
    char *pair = xasprintf("%s=%s", name, value);
    for (size_t i = 0; i < *n; i++) {
        if (!strncmp((*list)[i], name, len) && (*list)[i][len] == '=') {
            free((*list)[i]);
            (*list)[i] = pair;
            return;
        }
    }
    add_string(list, n, pair);
}

static void add_host(Mu__StepSection *s, const char *name, uint32_t ranks)
{
    if ((s->n_hosts & (s->n_hosts - 1)) == 0)
        s->hosts = xrealloc(s->hosts, (s->n_hosts ? s->n_hosts * 2 : 1) * sizeof(void *));
    Mu__StepHost *h = xmalloc(sizeof *h);
    mu__step_host__init(h);
    h->name = xstrdup(name);
    h->ranks = ranks;
    s->hosts[s->n_hosts++] = h;
}

/* ---- values ---- */

static int take_number(struct parser *p, const char *text, const char *what, uint32_t min, uint32_t max,
                       uint32_t *out, struct error *err)
{
    char *end = NULL;
    errno = 0;
    unsigned long v = isdigit((unsigned char)text[0]) ? strtoul(text, &end, 10) : 0;
    if (!end || *end || errno || v < min || v > max)
        return error_set(err, ERR_USAGE, "option %s: \"%s\" is not %s from %u to %u", p->shown, text, what,
                         min, max);
    *out = (uint32_t)v;
    return 0;
}

static int take_env(struct parser *p, char **v, char ***list, size_t *n, struct error *err)
{
    if (!v[0][0] || strchr(v[0], '='))
        return error_set(err, ERR_USAGE,
                         "option %s: \"%s\" is not a variable's name (the value is the next word)", p->shown,
                         v[0]);
    set_env(list, n, v[0], v[1]);
    return 0;
}

/* ---- one function per option; v are its values ---- */

static int opt_n(struct parser *p, char **v, struct error *err)
{
    if (!strcmp(v[0], "*")) {
        p->section->ranks = 0;
        return 0;
    }
    return take_number(p, v[0], "* or a number of processes", 1, OPTIONS_RANKS_MAX, &p->section->ranks, err);
}

static int opt_cores(struct parser *p, char **v, struct error *err)
{
    return take_number(p, v[0], "a number of processes per host", 1, 65536, &p->o->request.cores, err);
}

static int opt_affinity(struct parser *p, char **v, struct error *err)
{
    p->o->request.affinity = true;
    return 0;
}

static int opt_env(struct parser *p, char **v, struct error *err)
{
    return take_env(p, v, &p->section->env, &p->section->n_env, err);
}

static int opt_genv(struct parser *p, char **v, struct error *err)
{
    return take_env(p, v, &p->o->request.env, &p->o->request.n_env, err);
}

static int opt_wdir(struct parser *p, char **v, struct error *err)
{
    if (!v[0][0])
        return error_set(err, ERR_USAGE, "option %s: the folder's name is empty", p->shown);
    free(p->section->wdir);
    p->section->wdir = xstrdup(v[0]);
    return 0;
}

static int opt_lines(struct parser *p, char **v, struct error *err)
{
    p->o->lines = true;
    return 0;
}

static int no_hosts_yet(struct parser *p, struct error *err)
{
    if (p->section->n_hosts)
        return error_set(err, ERR_USAGE, "option %s: hosts were named before; name them once", p->shown);
    return 0;
}

static int opt_host(struct parser *p, char **v, struct error *err)
{
    if (no_hosts_yet(p, err))
        return -1;
    add_host(p->section, v[0], 1);
    return 0;
}

static bool all_digits(const char *s)
{
    return *s && strspn(s, "0123456789") == strlen(s);
}

/* -hosts n h1 [m1] h2 [m2] ...: how many words it takes is only known while reading them. */
static int opt_hosts(struct parser *p, char **v, struct error *err)
{
    uint32_t n = 0;
    if (no_hosts_yet(p, err) || take_number(p, v[0], "a number of hosts", 1, OPTIONS_HOSTS_MAX, &n, err))
        return -1;
    for (uint32_t i = 0; i < n; i++) {
        if (p->at >= p->argc)
            return error_set(err, ERR_USAGE, "option %s: %u hosts were announced, %u are named", p->shown, n,
                             i);
        const char *name = p->argv[p->at++];
        uint32_t ranks = 1;
        if (all_digits(name))
            return error_set(err, ERR_USAGE, "option %s: \"%s\" stands where host %u of %u was expected",
                             p->shown, name, i + 1, n);
        const char *next = p->at < p->argc ? p->argv[p->at] : "";
        if (isdigit((unsigned char)next[0]) && strchr(next, ','))
            return error_set(err, ERR_USAGE,
                             "option %s: affinity masks (\"%s\") are not supported in this version", p->shown,
                             next);
        if (all_digits(next)) {
            p->at++;
            if (take_number(p, next, "a number of processes", 1, OPTIONS_RANKS_MAX, &ranks, err))
                return -1;
        }
        add_host(p->section, name, ranks);
    }
    return 0;
}

static int opt_timeout(struct parser *p, char **v, struct error *err)
{
    return take_number(p, v[0], "a number of seconds", 1, 31536000, &p->o->request.timeout_s, err);
}

static int opt_verbose(struct parser *p, char **v, struct error *err)
{
    p->o->request.verbose = true;
    return 0;
}

static int opt_help(struct parser *p, char **v, struct error *err)
{
    p->o->help = true;
    return 0;
}

static int opt_version(struct parser *p, char **v, struct error *err)
{
    p->o->version = true;
    return 0;
}

/* names: alternatives, parted by blanks. values: how many words follow. run NULL: known to MS-MPI,
 * absent here. help NULL: not shown. */
static const struct option_row {
    const char *names;
    int values;
    int (*run)(struct parser *p, char **v, struct error *err);
    const char *shown;
    const char *help;
} rows[] = {
    {"n np", 1, opt_n, "-n, -np N", "processes of this section; * or absent: one per core of its hosts"},
    {"c cores", 1, opt_cores, "-c, -cores N", "N processes on every host instead of one per core"},
    {"host", 1, opt_host, "-host NAME", "one host, one process"},
    {"hosts", 1, opt_hosts, "-hosts N H1 [M1] H2 [M2]..", "N hosts, M processes on each (1 if absent)"},
    {"env", 2, opt_env, "-env NAME VALUE", "a variable for this section's processes"},
    {"genv", 2, opt_genv, "-genv NAME VALUE", "a variable for all processes"},
    {"wdir dir", 1, opt_wdir, "-wdir FOLDER", "where they run; absent: where mpiexec runs"},
    {"a affinity", 0, opt_affinity, "-a, -affinity",
     "bind the processes to cores, spread as far apart as possible"},
    {"l lines", 0, opt_lines, "-l, -lines", "put [rank] before each line of output"},
    {"timeout", 1, opt_timeout, "-timeout SECONDS", "end the run after that long"},
    {"verbose", 0, opt_verbose, "-verbose", "say on stderr what is done"},
    {"? help", 0, opt_help, "-?, -help", "this text"},
    {"version", 0, opt_version, "-version", "the version"},
    {"machinefile", 1, NULL, NULL, NULL},
    {"ghost", 1, NULL, NULL, NULL},
    {"gmachinefile", 1, NULL, NULL, NULL},
    {"al affinity_layout", 1, NULL, NULL, NULL},
    {"aa affinity_auto", 0, NULL, NULL, NULL},
    {"genvlist", 1, NULL, NULL, NULL},
    {"gwdir gdir", 1, NULL, NULL, NULL},
    {"path", 1, NULL, NULL, NULL},
    {"gpath", 1, NULL, NULL, NULL},
    {"exitcodes", 0, NULL, NULL, NULL},
    {"priority", 1, NULL, NULL, NULL},
    {"configfile", 1, NULL, NULL, NULL},
    {"optionfile", 1, NULL, NULL, NULL},
    {"p port", 1, NULL, NULL, NULL},
    {"job", 1, NULL, NULL, NULL},
    {"d debug", 0, NULL, NULL, NULL},
    {"logfile", 1, NULL, NULL, NULL},
    {"pwd", 1, NULL, NULL, NULL},
    {"savecreds", 0, NULL, NULL, NULL},
    {"unicode", 0, NULL, NULL, NULL},
    {"trace tracefile", 1, NULL, NULL, NULL},
    {"?? help2", 0, NULL, NULL, NULL},
    {"??? help3", 0, NULL, NULL, NULL},
};

static const struct option_row *find_row(const char *name)
{
    size_t len = strlen(name);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        for (const char *w = rows[i].names; *w;) {
            size_t n = strcspn(w, " ");
            if (n == len && !strncasecmp(w, name, n))
                return &rows[i];
            w += n;
            w += *w == ' ';
        }
    }
    return NULL;
}

/* "/bin/true" is a program, "/n" an option: with a slash only known names are options. */
static bool is_option(const char *word)
{
    if (word[0] == '-')
        return word[1] != 0;
    return word[0] == '/' && find_row(word + 1);
}

static int parse_option(struct parser *p, struct error *err)
{
    p->shown = p->argv[p->at++];
    const char *name = p->shown + (p->shown[0] == '-' && p->shown[1] == '-' ? 2 : 1);
    const struct option_row *row = find_row(name);
    if (!row)
        return error_set(err, ERR_USAGE, "unknown option %s (mpiexec -help lists them)", p->shown);
    if (!row->run)
        return error_set(err, ERR_USAGE, "option %s is not supported in this version", p->shown);
    if (p->argc - p->at < row->values)
        return error_set(err, ERR_USAGE, "option %s needs %d value%s: %s", p->shown, row->values,
                         row->values == 1 ? "" : "s", row->shown);
    char **values = p->argv + p->at;
    p->at += row->values;
    return row->run(p, values, err);
}

static Mu__StepSection *add_section(Mu__StepRequest *r)
{
    Mu__StepSection *s = xmalloc(sizeof *s);
    mu__step_section__init(s);
    s->wdir = NULL;
    if ((r->n_sections & (r->n_sections - 1)) == 0)
        r->sections = xrealloc(r->sections, (r->n_sections ? r->n_sections * 2 : 1) * sizeof(void *));
    r->sections[r->n_sections++] = s;
    return s;
}

static int parse_section(struct parser *p, const char *cwd, struct error *err)
{
    Mu__StepRequest *r = &p->o->request;
    if (r->n_sections == OPTIONS_SECTIONS_MAX)
        return error_set(err, ERR_USAGE, "more than %d sections", OPTIONS_SECTIONS_MAX);
    p->section = add_section(r);
    while (p->at < p->argc && is_option(p->argv[p->at])) {
        if (parse_option(p, err))
            return -1;
        if (p->o->help || p->o->version)
            return 0;
    }
    while (p->at < p->argc && strcmp(p->argv[p->at], ":"))
        add_string(&p->section->argv, &p->section->n_argv, xstrdup(p->argv[p->at++]));
    if (!p->section->n_argv || !p->section->argv[0][0])
        return error_set(err, ERR_USAGE, "no program to run (mpiexec -help shows the syntax)");
    /* Relative folders are meant from where mpiexec stands, on every node. */
    if (!p->section->wdir)
        p->section->wdir = xstrdup(cwd);
    else if (p->section->wdir[0] != '/') {
        char *full = xasprintf("%s/%s", cwd, p->section->wdir);
        free(p->section->wdir);
        p->section->wdir = full;
    }
    return 0;
}

int options_parse(struct options *o, int argc, char **argv, char **environ_, const char *cwd,
                  struct error *err)
{
    *o = (struct options){0};
    mu__step_request__init(&o->request);
    for (char **e = environ_; *e; e++)
        add_string(&o->request.env, &o->request.n_env, xstrdup(*e));
    struct parser p = {.o = o, .argv = argv, .argc = argc, .at = 1};
    for (;;) {
        if (parse_section(&p, cwd, err)) {
            options_free(o);
            return -1;
        }
        if (o->help || o->version || p.at >= argc)
            return 0;
        p.at++; /* the ":" */
    }
}

static void free_strings(char ***list, size_t *n)
{
    for (size_t i = 0; i < *n; i++)
        free((*list)[i]);
    free(*list);
    *list = NULL;
    *n = 0;
}

void options_free(struct options *o)
{
    Mu__StepRequest *r = &o->request;
    for (size_t i = 0; i < r->n_sections; i++) {
        Mu__StepSection *s = r->sections[i];
        free_strings(&s->argv, &s->n_argv);
        free_strings(&s->env, &s->n_env);
        for (size_t h = 0; h < s->n_hosts; h++) {
            free(s->hosts[h]->name);
            free(s->hosts[h]);
        }
        free(s->hosts);
        free(s->wdir);
        free(s);
    }
    free(r->sections);
    free_strings(&r->env, &r->n_env);
    mu__step_request__init(r);
}

void options_help(struct buf *out)
{
    buf_adds(
        out,
        "mpiexec - run an MPI program (MPICH, Open MPI and others that speak PMI-1 or PMIx)\n\n"
        "usage: mpiexec [options] program [arguments] [ : [options] program [arguments] ... ]\n\n"
        "In an allocation (a task of a Muster job) the processes run on its nodes, elsewhere on this\n"
        "machine. Options start with -, -- or /, case does not count; those before the program belong to\n"
        "its section, -c, -genv, -affinity, -l and -timeout to all sections.\n\n");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (rows[i].help)
            buf_addf(out, "  %-27s %s\n", rows[i].shown, rows[i].help);
    buf_adds(out,
             "\nexit status: 0 when every process returned 0, else the code of the first that did not;\n"
             "128+S when one was killed by signal S, the code given to MPI_Abort, 2 for a wrong command\n"
             "line, 255 when it could not be started or was interrupted, 254 after -timeout, 253 when a\n"
             "process left before MPI_Finalize or a step server was lost.\n");
}
