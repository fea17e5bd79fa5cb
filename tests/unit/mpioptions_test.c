/* mpioptions_test.c - mpiexec's command line, who runs where, and a rank's environment. */
#include "base/mem.h"
#include "step/gather.h"
#include "step/options.h"
#include "step/plan.h"
#include "step/rankenv.h"
#include "step/template.h"
#include "step/tree.h"
#include "tests/unit/tap.h"

static char *environment[] = {"HOME=/home/x", "PATH=/bin", NULL};

/* Splits at blanks; the command line after "mpiexec". */
static int parse(struct options *o, const char *line, struct error *err)
{
    static char copy[2048];
    char *argv[128] = {"mpiexec"};
    int argc = 1;
    snprintf(copy, sizeof copy, "%s", line);
    for (char *w = strtok(copy, " "); w; w = strtok(NULL, " "))
        argv[argc++] = w;
    return options_parse(o, argc, argv, environment, "/here", err);
}

static void good_lines(void)
{
    struct options o;
    struct error err;
    is_int(parse(&o, "-N 4 /C 1 --affinity -l app -n 7", &err), 0, "case and prefix do not count");
    is_int(o.request.sections[0]->ranks, 4, "-n");
    is_int(o.request.cores, 1, "-c");
    ok(o.request.affinity && o.lines, "-affinity, -l");
    is_int(o.request.sections[0]->n_argv, 3, "options after the program are its own");
    is_str(o.request.sections[0]->wdir, "/here", "runs where mpiexec runs");
    options_free(&o);
    is_int(parse(&o, "-n * -wdir sub -env A 1 -genv B 2 -env A 3 /bin/true : -np 2 -wdir /abs b", &err), 0,
           "sections");
    is_int(o.request.n_sections, 2, "two");
    is_int(o.request.sections[0]->ranks, 0, "* is one per core");
    is_str(o.request.sections[0]->argv[0], "/bin/true", "a path is no option");
    is_str(o.request.sections[0]->wdir, "/here/sub", "a relative folder");
    is_str(o.request.sections[1]->wdir, "/abs", "an absolute one");
    is_int(o.request.sections[0]->n_env, 1, "-env twice is once");
    is_str(o.request.sections[0]->env[0], "A=3", "the last counts");
    is_str(o.request.env[o.request.n_env - 1], "B=2", "-genv goes to all");
    options_free(&o);
    is_int(parse(&o, "-hosts 3 a 2 b c 4 app", &err), 0, "-hosts");
    is_int(o.request.sections[0]->n_hosts, 3, "three");
    is_int(o.request.sections[0]->hosts[0]->ranks, 2, "a count");
    is_int(o.request.sections[0]->hosts[1]->ranks, 1, "none is 1");
    is_str(o.request.sections[0]->hosts[2]->name, "c", "names");
    options_free(&o);
    is_int(parse(&o, "--help", &err), 0, "--help");
    ok(o.help, "is seen");
    options_free(&o);
}

static void bad_lines(void)
{
    static const struct {
        const char *line, *text;
    } table[] = {
        {"", "no program to run (mpiexec -help shows the syntax)"},
        {"-n 4", "no program to run (mpiexec -help shows the syntax)"},
        {"-n 0 app", "option -n: \"0\" is not * or a number of processes from 1 to 1000000"},
        {"-n 4x app", "option -n: \"4x\" is not * or a number of processes from 1 to 1000000"},
        {"-n -4 app", "option -n: \"-4\" is not * or a number of processes from 1 to 1000000"},
        {"/np 99999999999999999999 app",
         "option /np: \"99999999999999999999\" is not * or a number of processes from 1 to 1000000"},
        {"-c 0 app", "option -c: \"0\" is not a number of processes per host from 1 to 65536"},
        {"-n", "option -n needs 1 value: -n, -np N"},
        {"-env A", "option -env needs 2 values: -env NAME VALUE"},
        {"-genv A=1 b app", "option -genv: \"A=1\" is not a variable's name (the value is the next word)"},
        {"-timeout soon app", "option -timeout: \"soon\" is not a number of seconds from 1 to 31536000"},
        {"-hosts 3 a b", "option -hosts: 3 hosts were announced, 2 are named"},
        {"-hosts 2 a 1 2 b app", "option -hosts: \"2\" stands where host 2 of 2 was expected"},
        {"-hosts 1 a 1,ff app", "option -hosts: affinity masks (\"1,ff\") are not supported in this version"},
        {"-host a -host b app", "option -host: hosts were named before; name them once"},
        {"-tracefile x app", "option -tracefile is not supported in this version"},
        {"-machinefile f app", "option -machinefile is not supported in this version"},
        {"/CONFIGFILE f", "option /CONFIGFILE is not supported in this version"},
        {"-nonsense app", "unknown option -nonsense (mpiexec -help lists them)"},
        {"app : -n 2", "no program to run (mpiexec -help shows the syntax)"},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct options o;
        struct error err;
        int rc = parse(&o, table[i].line, &err);
        is_str(rc ? err.text : "accepted", table[i].text, "\"%s\"", table[i].line);
        ok(rc && err.code == ERR_USAGE, "  is a usage error");
    }
}

static const char *placed(const char *line, const struct plan_node *nodes, size_t n)
{
    static struct buf out;
    struct options o;
    struct plan plan;
    struct error err;
    buf_reset(&out);
    if (parse(&o, line, &err))
        return "usage";
    if (plan_make(&plan, &o.request, nodes, n, &err)) {
        buf_adds(&out, err.text);
        options_free(&o);
        return buf_str(&out);
    }
    buf_addf(&out, "%u:", plan.ranks);
    for (size_t i = 0; i < plan.blocks_n; i++)
        buf_addf(&out, " %s*%u", nodes[plan.blocks[i].node].name, plan.blocks[i].ranks);
    plan_free(&plan);
    options_free(&o);
    return buf_str(&out);
}

static void plans(void)
{
    static const struct plan_node four[] = {{"a", 2}, {"b", 2}, {"c", 2}, {"d", 1}}, one[] = {{"here", 2}};
    is_str(placed("app", four, 4), "7: a*2 b*2 c*2 d*1", "absent: the sum of the cores");
    is_str(placed("-n * app", four, 4), "7: a*2 b*2 c*2 d*1", "* too");
    is_str(placed("-n 3 app", four, 4), "3: a*2 b*1", "block-wise");
    is_str(placed("-c 1 app", four, 4), "4: a*1 b*1 c*1 d*1", "-c replaces the cores");
    is_str(placed("-c 3 -n 5 app", four, 4), "5: a*3 b*2", "and with -n sets the block");
    is_str(placed("-n 10 app", four, 4), "10: a*2 b*2 c*2 d*1 a*2 b*1",
           "more than the sum: from the first again");
    is_str(placed("-n 5 app", one, 1), "5: here*5", "one machine takes them all");
    is_str(placed("-n 1 x : -n 3 y", four, 4), "4: a*2 b*2", "sections go on where the last stopped");
    is_str(placed("-hosts 2 d 3 a 1 app", four, 4), "4: d*3 a*1", "-hosts: in its order");
    is_str(placed("-host c -n 2 app", four, 4), "2: c*2", "-host");
    is_str(placed("-host localhost app", one, 1), "1: here*1", "localhost is this machine");
    is_str(placed("-host e app", four, 4), "host \"e\" is not one of the 4 nodes of this allocation (a .. d)",
           "a stranger");
    is_str(placed("-host e app", one, 1), "host \"e\" is not part of this run; the only one is here",
           "alone");
    is_str(placed("-n 999999 x : -n 2 y", one, 1), "more than 1000000 processes", "too many");
}

static const char *value(struct rankenv *e, const char *name)
{
    const char *v = rankenv_get(e, name);
    return v ? v : "(unset)";
}

static void environments(void)
{
    struct rankenv_facts alone = {.pmix = true, .interface = "", .tmpdir = "", .hostname = "h"};
    struct rankenv_facts local = {.pmix = true,
                                  .own_network = true,
                                  .crowded = true,
                                  .shared_name = true,
                                  .interface = "eth0",
                                  .tmpdir = "/t",
                                  .hostname = "h"};
    char *base[] = {"A=1", "PMI_RANK=9", "PMIX_SERVER_URI2=x", "PMIX_MCA_mine=1", "OMPI_MCA_btl=self,sm",
                    "bad"};
    char *section[] = {"A=2", "C=3"};
    struct rankenv *e = rankenv_new(base, 6, section, 2, &alone);
    is_str(value(e, "A"), "2", "the section's value wins");
    is_str(value(e, "PMI_RANK"), "(unset)", "another launcher's rank does not pass");
    is_str(value(e, "PMIX_SERVER_URI2"), "(unset)", "nor its server");
    is_str(value(e, "PMIX_MCA_mine"), "1", "the user's settings of PMIx do");
    is_str(value(e, "OMPI_MCA_orte_local_daemon_uri"), "0.0;tcp://127.0.0.1:1",
           "Open MPI is told that it has a daemon");
    is_str(value(e, "OMPI_MCA_btl_tcp_if_include"), "(unset)", "no interface is chosen where none is given");
    rankenv_set(e, "PMI_RANK", "3");
    rankenv_set(e, "PMI_RANK", "4");
    is_str(value(e, "PMI_RANK"), "4", "values can be replaced");
    size_t n = 0, ranks = 0;
    for (char *const *v = rankenv_vector(e); *v; v++, n++)
        ranks += !strncmp(*v, "PMI_RANK=", 9);
    is_int(ranks, 1, "and stand once in the vector");
    rankenv_free(e);
    e = rankenv_new(base, 6, section, 2, &local);
    is_str(value(e, "OMPI_MCA_btl"), "self,sm", "what the user chose stays");
    is_str(value(e, "OMPI_MCA_btl_tcp_if_include"), "eth0", "the rest is set: interface");
    is_str(value(e, "OMPI_MCA_pml"), "ob1", "the layer that uses it");
    is_str(value(e, "OMPI_MCA_mpi_yield_when_idle"), "1", "yield when crowded");
    is_str(value(e, "OMPI_MCA_btl_vader_backing_directory"), "/t", "shared files apart");
    rankenv_free(e);
    char *user[] = {"OMPI_MCA_btl_tcp_if_exclude=lo", "OMPI_MCA_mpi_yield_when_idle=0", "JSM_JSRUN_PORT=1"};
    e = rankenv_new(user, 3, NULL, 0, &local);
    is_str(value(e, "OMPI_MCA_btl_tcp_if_include"), "(unset)", "an exclusion of the user's is a choice");
    is_str(value(e, "OMPI_MCA_mpi_yield_when_idle"), "0", "so is a 0");
    is_str(value(e, "OMPI_MCA_orte_local_daemon_uri"), "(unset)", "so is another way to the same end");
    rankenv_free(e);
}

static void templates(void)
{
    struct template_values v = {
        .nspace = "job", .server = "srv", .host = "h", .tmpdir = "/t", .rank = 3, .port = 99};
    static const char line[] =
        "X=@SERVER@.0;tcp4://127.0.0.1:@PORT@ @NSPACE@ @RANK@ @HOST@ @TMPDIR@ @ @@ @NO@";
    struct buf out = BUF_INIT;
    template_fill(line, sizeof line - 1, &v, &out);
    is_str(buf_str(&out), "X=srv.0;tcp4://127.0.0.1:99 job 3 h /t @ @@ @NO@",
           "words of the template are replaced");
    buf_free(&out);
}

struct seen {
    struct buf text;
    uint32_t expected;
};
static void on_complete(void *arg, const char *key, const uint32_t *ranks, size_t n, const struct buf *data)
{
    struct seen *s = arg;
    buf_addf(&s->text, "%s(%zu)=%s;", key, n, buf_str(data));
}
static uint32_t on_expected(void *arg, const uint32_t *ranks, size_t n)
{
    return ((struct seen *)arg)->expected;
}

static void gathers(void)
{
    static const struct gather_ops gather_ops = {on_complete, on_expected};
    struct seen s = {.expected = 3};
    struct error err;
    struct gather *g = gather_new(&gather_ops, &s);
    gather_add(g, "f", NULL, 0, "a", 1, &err);
    gather_add(g, "f", NULL, 0, "b", 1, &err);
    gather_add(g, "g", (uint32_t[]){1, 2}, 2, "x", 1, &err);
    is_str(buf_str(&s.text), "", "nothing before all are there");
    gather_add(g, "f", NULL, 0, "c", 1, &err);
    is_str(buf_str(&s.text), "f(0)=abc;", "then the joined bytes");
    s.expected = 1;
    gather_add(g, "f", NULL, 0, "again", 5, &err);
    is_str(buf_str(&s.text), "f(0)=abc;f(0)=again;", "and the key is free for the next time");
    s.expected = 0;
    is_int(gather_add(g, "h", NULL, 0, "", 0, &err), -1, "a fence without anybody is refused");
    gather_free(g);
    buf_free(&s.text);
}

static void trees(void)
{
    is_int(tree_parent(32), 0, "node 32 hangs below the root");
    is_int(tree_parent(33), 1, "node 33 below node 1");
    is_int(tree_branch(0, 33), 1, "from the root it is reached through node 1");
    is_int(tree_branch(1, 33), 33, "and from there at once");
    is_int(tree_branch(2, 33), 0, "not through node 2");
    uint32_t reached = 0;
    for (uint32_t i = 1; i < 10000; i++) {
        uint32_t at = 0, steps = 0;
        while (at != i && steps++ < 4)
            at = tree_branch(at, i);
        reached += at == i;
    }
    is_int(reached, 9999, "every node of 10,000 is reached in at most 4 steps");
}

int main(void)
{
    good_lines();
    bad_lines();
    plans();
    environments();
    templates();
    gathers();
    trees();
    return tap_done();
}
