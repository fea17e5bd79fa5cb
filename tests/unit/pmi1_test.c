/* pmi1_test.c - the PMI-1 engine by transcripts: what a rank sends, what it must get. */
#include "step/pmi1.h"
#include "tests/unit/tap.h"

struct rank_end {
    struct pmi1 *pmi;
    struct buf got;
    int barriers, finalized, inits, aborted;
    char abort_text[64];
};

static void on_send(void *arg, const char *data, size_t len)
{
    struct rank_end *e = arg;
    buf_add(&e->got, data, len);
}
static void on_init(void *arg)
{
    ((struct rank_end *)arg)->inits++;
}
static void on_barrier(void *arg)
{
    ((struct rank_end *)arg)->barriers++;
}
static void on_finalize(void *arg)
{
    ((struct rank_end *)arg)->finalized++;
}
static void on_abort(void *arg, int code, const char *text)
{
    struct rank_end *e = arg;
    e->aborted = code;
    snprintf(e->abort_text, sizeof e->abort_text, "%s", text);
}
static const struct pmi1_ops ops = {on_send, on_init, on_barrier, on_finalize, on_abort};

static void begin(struct rank_end *e, uint32_t rank, struct kvs *kvs)
{
    struct pmi1_job job = {.rank = rank,
                           .size = 2,
                           .universe = 2,
                           .appnum = 0,
                           .kvsname = "job",
                           .mapping = "(vector,(0,1,2))",
                           .kvs = kvs};
    *e = (struct rank_end){0};
    e->pmi = pmi1_new(&job, &ops, e);
}

static void end(struct rank_end *e)
{
    pmi1_free(e->pmi);
    buf_free(&e->got);
}

/* Sends a line and says what came back, without the newline. */
static const char *ask(struct rank_end *e, const char *line)
{
    static struct error err;
    buf_reset(&e->got);
    if (pmi1_input(e->pmi, line, strlen(line), &err))
        return err.text;
    if (e->got.len)
        e->got.data[e->got.len - 1] = 0;
    return buf_str(&e->got);
}

static void mpich_with_two_ranks(void)
{
    struct kvs *kvs = kvs_new();
    struct rank_end a, b;
    begin(&a, 0, kvs);
    begin(&b, 1, kvs);
    is_str(ask(&a, "cmd=init pmi_version=1 pmi_subversion=1\n"),
           "cmd=response_to_init pmi_version=1 pmi_subversion=1 rc=0", "init is answered");
    is_int(a.inits, 1, "and told");
    is_str(ask(&a, "cmd=get_maxes\n"), "cmd=maxes rc=0 kvsname_max=256 keylen_max=64 vallen_max=1024",
           "maxes");
    is_str(ask(&a, "cmd=get_appnum\n"), "cmd=appnum rc=0 appnum=0", "appnum");
    is_str(ask(&a, "cmd=get_my_kvsname\n"), "cmd=my_kvsname rc=0 kvsname=job", "name of the space");
    is_str(ask(&a, "cmd=get_universe_size\n"), "cmd=universe_size rc=0 size=2", "universe size");
    is_str(ask(&a, "cmd=get kvsname=job key=PMI_process_mapping\n"),
           "cmd=get_result rc=0 msg=success value=(vector,(0,1,2))", "the mapping is there");
    is_str(ask(&a, "cmd=put kvsname=job key=card-0 value=00ff with blanks\n"),
           "cmd=put_result rc=0 msg=success", "put");
    ask(&b, "cmd=init pmi_version=1 pmi_subversion=1\n");
    ask(&b, "cmd=barrier_in\n");
    ask(&a, "cmd=barrier_in\n");
    is_int(a.barriers + b.barriers, 2, "both wait in the barrier");
    is_str(buf_str(&a.got), "", "and get no answer before it is over");
    pmi1_barrier_out(a.pmi);
    is_str(buf_str(&a.got), "cmd=barrier_out rc=0\n", "then they do");
    is_str(ask(&b, "cmd=get kvsname=job key=card-0\n"),
           "cmd=get_result rc=0 msg=success value=00ff with blanks",
           "the other rank gets what was put, blanks included");
    is_str(ask(&b, "cmd=get kvsname=job key=absent\n"),
           "cmd=get_result rc=-1 msg=key_not_found value=unknown", "an absent key");
    is_str(ask(&b, "cmd=get kvsname=other key=card-0\n"),
           "cmd=get_result rc=-1 msg=key_not_found value=unknown", "another job's space");
    is_str(ask(&b, "cmd=getbyidx kvsname=job idx=0\n"),
           "cmd=getbyidx_results rc=0 nextidx=1 key=card-0 val=00ff with blanks", "by index");
    is_str(ask(&b, "cmd=getbyidx kvsname=job idx=1\n"), "cmd=getbyidx_results rc=-1 reason=no_more_keyvals",
           "past it");
    is_str(ask(&a, "cmd=finalize\n"), "cmd=finalize_ack rc=0", "finalize");
    ok(a.finalized == 1 && pmi1_finalized(a.pmi), "is told");
    end(&a);
    end(&b);
    kvs_free(kvs);
}

static void what_is_refused(void)
{
    struct kvs *kvs = kvs_new();
    struct rank_end e;
    static char line[PMI1_LINE_MAX * 2];
    begin(&e, 0, kvs);
    is_str(ask(&e, "cmd=get_maxes\n"), "PMI command \"get_maxes\" before init", "nothing before init");
    is_str(ask(&e, "cmd=init pmi_version=2 pmi_subversion=0\n"),
           "cmd=response_to_init pmi_version=1 pmi_subversion=1 rc=-1",
           "another version is answered with ours");
    ok(!pmi1_begun(e.pmi), "and begins nothing");
    ask(&e, "cmd=init pmi_version=1 pmi_subversion=1\n");
    is_str(ask(&e, "cmd=dance\n"), "unknown PMI command \"dance\"", "an unknown command");
    is_str(ask(&e, "nonsense\n"), "a PMI line without a command", "a line without one");
    is_str(ask(&e, "cmd=publish_name service=s port=p\n"),
           "cmd=publish_result rc=-1 info=not_supported msg=not_supported",
           "publishing is answered, not hung");
    is_str(ask(&e, "mcmd=spawn\nnprocs=1\nexecname=x\nendcmd\n"), "cmd=spawn_result rc=-1 msg=not_supported",
           "spawning is");
    snprintf(line, sizeof line, "cmd=put kvsname=job key=%065d value=x\n", 0);
    is_str(ask(&e, line), "cmd=put_result rc=-1 msg=too_long_or_full", "a key of 65 characters");
    snprintf(line, sizeof line, "cmd=put kvsname=job key=k value=%01025d\n", 0);
    is_str(ask(&e, line), "cmd=put_result rc=-1 msg=too_long_or_full", "a value of 1025");
    snprintf(line, sizeof line, "cmd=put kvsname=job key=k value=%01024d\n", 0);
    is_str(ask(&e, line), "cmd=put_result rc=0 msg=success", "1024 fit");
    is_str(ask(&e, "cmd=put kvsname=other key=k value=v\n"), "cmd=put_result rc=-1 msg=unknown_kvsname",
           "a foreign space");
    ask(&e, "cmd=barrier_in\n");
    is_str(ask(&e, "cmd=barrier_in\n"), "a second barrier_in before the answer to the first",
           "a second barrier");
    memset(line, 'x', sizeof line);
    line[sizeof line - 1] = 0;
    is_str(ask(&e, line), "a PMI line of more than 2048 bytes", "a line without end");
    end(&e);
    begin(&e, 0, kvs);
    ask(&e, "cmd=abort exitcode=7 error_msg=the sea is dry\n");
    is_int(e.aborted, 7, "abort before init is heard");
    is_str(e.abort_text, "the sea is dry", "with its words");
    struct error err;
    is_int(pmi1_input(e.pmi, "cmd=\0init\n", 10, &err), -1, "a zero byte breaks the conversation");
    end(&e);
    kvs_free(kvs);
}

static void in_pieces(void)
{
    static const char text[] = "cmd=init pmi_version=1 pmi_subversion=1\ncmd=get_maxes\ncmd=finalize\n";
    struct kvs *kvs = kvs_new();
    struct rank_end whole, pieces;
    struct error err;
    begin(&whole, 0, kvs);
    begin(&pieces, 0, kvs);
    pmi1_input(whole.pmi, text, sizeof text - 1, &err);
    for (size_t i = 0; i < sizeof text - 1; i++)
        pmi1_input(pieces.pmi, text + i, 1, &err);
    is_str(buf_str(&pieces.got), buf_str(&whole.got), "bytes one by one give the same answers");
    end(&whole);
    end(&pieces);
    kvs_free(kvs);
}

static void puts_between_nodes(void)
{
    struct kvs *a = kvs_new(), *b = kvs_new();
    struct buf puts = BUF_INIT;
    struct error err;
    kvs_put(a, "one", "1", &err);
    kvs_put(a, "two", "2", &err);
    kvs_put(a, "one", "uno", &err);
    kvs_take_puts(a, &puts);
    is_int(kvs_merge(b, puts.data, puts.len, &err), 0, "another node takes the puts");
    is_str(kvs_get(b, "one"), "uno", "the last one counts");
    is_str(kvs_get(b, "two"), "2", "all are there");
    buf_reset(&puts);
    kvs_take_puts(a, &puts);
    is_int(puts.len, 0, "they are handed on once");
    is_int(kvs_merge(b, "key\0value", 9, &err), -1, "a list that is cut is refused");
    is_int(kvs_merge(b, "\0value\0", 7, &err), -1, "an empty key too");
    char big[1001] = "";
    memset(big, 'x', 1000);
    unsigned taken = 0;
    while (taken < 100000 && kvs_put(a, "same", big, &err) == 0)
        taken++;
    ok(taken > 1000 && taken < 100000, "a key that is put over and over does not fill the memory");
    buf_free(&puts);
    kvs_free(a);
    kvs_free(b);
}

static void mappings(void)
{
    struct buf out = BUF_INIT;
    pmi1_mapping((uint32_t[]){0}, (uint32_t[]){4}, 1, &out);
    is_str(buf_str(&out), "(vector,(0,1,4))", "one node");
    buf_reset(&out);
    pmi1_mapping((uint32_t[]){0, 1, 2, 3}, (uint32_t[]){2, 2, 2, 2}, 4, &out);
    is_str(buf_str(&out), "(vector,(0,4,2))", "four alike");
    buf_reset(&out);
    pmi1_mapping((uint32_t[]){0, 1, 0, 1}, (uint32_t[]){2, 2, 2, 1}, 4, &out);
    is_str(buf_str(&out), "(vector,(0,2,2),(0,1,2),(1,1,1))", "wrapped, with a rest");
    buf_free(&out);
}

int main(void)
{
    mpich_with_two_ranks();
    what_is_refused();
    in_pieces();
    puts_between_nodes();
    mappings();
    return tap_done();
}
