/* pmi1.c - what a rank may send to its PMI-1 server, cut at any place.
 *
 * Whatever comes, answers are whole lines, and the same bytes in pieces get the same answers. */
#include "step/pmi1.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

struct end {
    struct pmi1 *pmi;
    struct buf got;
};

static void on_send(void *arg, const char *data, size_t len)
{
    struct end *e = arg;
    CHECK(len > 0 && data[len - 1] == '\n' && !memchr(data, '\n', len - 1));
    buf_add(&e->got, data, len);
}
static void on_event(void *arg)
{
}
static void on_barrier(void *arg)
{
    struct end *e = arg;
    pmi1_barrier_out(e->pmi);
}
static void on_abort(void *arg, int code, const char *text)
{
    CHECK(strlen(text) < 512);
}

static int run(struct end *e, const uint8_t *data, size_t size, size_t piece)
{
    static const struct pmi1_ops ops = {on_send, on_event, on_barrier, on_event, on_abort};
    struct kvs *kvs = kvs_new();
    struct pmi1_job job = {.size = 1, .universe = 1, .kvsname = "job", .mapping = NULL, .kvs = kvs};
    struct error err;
    int rc = 0;
    *e = (struct end){.pmi = pmi1_new(&job, &ops, e)};
    for (size_t at = 0; at < size && rc == 0; at += piece)
        rc = pmi1_input(e->pmi, data + at, size - at < piece ? size - at : piece, &err);
    pmi1_free(e->pmi);
    kvs_free(kvs);
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct end whole, pieces;
    int rc = run(&whole, data, size, size ? size : 1), rc2 = run(&pieces, data, size, 7);
    CHECK(rc == rc2);
    CHECK(whole.got.len == pieces.got.len &&
          (!whole.got.len || !memcmp(whole.got.data, pieces.got.data, whole.got.len)));
    buf_free(&whole.got);
    buf_free(&pieces.got);
    struct kvs *kvs = kvs_new();
    kvs_merge(kvs, data, size, NULL);
    kvs_free(kvs);
    return 0;
}
