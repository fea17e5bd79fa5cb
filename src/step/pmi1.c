/* pmi1.c - the server's end of PMI-1 for one rank.
 *
 * pmi1_input() cuts the stream into lines; a line is split into words in place; a table maps
 * "cmd=" to its handler. A "put" carries its value to the end of the line, as clients expect.
 * Spawning and name publishing are answered with "not supported", so a program gets an MPI error
 * and not a hang; the lines of an "mcmd=spawn" are swallowed up to "endcmd".
 */
#include "step/pmi1.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct pmi1 {
    struct pmi1_job job;
    const struct pmi1_ops *ops;
    void *arg;
    struct buf in;
    bool begun, finalized, waiting, in_mcmd;
};

static void reply(struct pmi1 *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void reply(struct pmi1 *p, const char *fmt, ...)
{
    struct buf line = BUF_INIT;
    va_list ap;
    va_start(ap, fmt);
    buf_addv(&line, fmt, ap);
    va_end(ap);
    buf_addc(&line, '\n');
    p->ops->send(p->arg, line.data, line.len);
    buf_free(&line);
}

/* The value of word `key` in a line "cmd=x a=1 b=2"; NULL if absent. It ends at a blank, or with
 * `rest` at the end of the line. Static buffer per call site: the caller gives the room. */
static const char *word(const char *line, const char *key, bool rest, char *out, size_t size)
{
    size_t key_len = strlen(key);
    for (const char *w = line; *w;) {
        w += strspn(w, " ");
        if (!strncmp(w, key, key_len) && w[key_len] == '=') {
            const char *value = w + key_len + 1;
            size_t len = rest ? strlen(value) : strcspn(value, " ");
            if (len >= size)
                return NULL;
            memcpy(out, value, len);
            out[len] = 0;
            return out;
        }
        w += strcspn(w, " ");
    }
    return NULL;
}

static int cmd_init(struct pmi1 *p, const char *line, struct error *err)
{
    char text[32];
    const char *version = word(line, "pmi_version", false, text, sizeof text);
    bool fits = version && !strcmp(version, "1");
    reply(p, "cmd=response_to_init pmi_version=1 pmi_subversion=1 rc=%d", fits ? 0 : -1);
    if (fits && !p->begun) {
        p->begun = true;
        p->ops->init(p->arg);
    }
    return 0;
}

static int cmd_get_maxes(struct pmi1 *p, const char *line, struct error *err)
{
    reply(p, "cmd=maxes rc=0 kvsname_max=256 keylen_max=%d vallen_max=%d", KVS_KEY_MAX, KVS_VALUE_MAX);
    return 0;
}

static int cmd_get_appnum(struct pmi1 *p, const char *line, struct error *err)
{
    reply(p, "cmd=appnum rc=0 appnum=%u", p->job.appnum);
    return 0;
}

static int cmd_get_universe_size(struct pmi1 *p, const char *line, struct error *err)
{
    reply(p, "cmd=universe_size rc=0 size=%u", p->job.universe);
    return 0;
}

static int cmd_get_my_kvsname(struct pmi1 *p, const char *line, struct error *err)
{
    reply(p, "cmd=my_kvsname rc=0 kvsname=%s", p->job.kvsname);
    return 0;
}

static int cmd_put(struct pmi1 *p, const char *line, struct error *err)
{
    char name[257], key[KVS_KEY_MAX + 2], value[KVS_VALUE_MAX + 2];
    struct error why;
    if (!word(line, "kvsname", false, name, sizeof name) || strcmp(name, p->job.kvsname))
        reply(p, "cmd=put_result rc=-1 msg=unknown_kvsname");
    else if (!word(line, "key", false, key, sizeof key) || !word(line, "value", true, value, sizeof value))
        reply(p, "cmd=put_result rc=-1 msg=no_key_or_value_or_too_long");
    else if (kvs_put(p->job.kvs, key, value, &why))
        reply(p, "cmd=put_result rc=-1 msg=too_long_or_full");
    else
        reply(p, "cmd=put_result rc=0 msg=success");
    return 0;
}

static int cmd_get(struct pmi1 *p, const char *line, struct error *err)
{
    char name[257], key[KVS_KEY_MAX + 2];
    const char *value = NULL;
    if (word(line, "kvsname", false, name, sizeof name) && !strcmp(name, p->job.kvsname) &&
        word(line, "key", false, key, sizeof key))
        value = strcmp(key, "PMI_process_mapping") ? kvs_get(p->job.kvs, key) : p->job.mapping;
    if (value)
        reply(p, "cmd=get_result rc=0 msg=success value=%s", value);
    else
        reply(p, "cmd=get_result rc=-1 msg=key_not_found value=unknown");
    return 0;
}

static int cmd_getbyidx(struct pmi1 *p, const char *line, struct error *err)
{
    char text[16];
    const char *key, *value;
    const char *at = word(line, "idx", false, text, sizeof text);
    long i = at ? strtol(at, NULL, 10) : -1;
    if (i < 0 || kvs_at(p->job.kvs, (size_t)i, &key, &value))
        reply(p, "cmd=getbyidx_results rc=-1 reason=no_more_keyvals");
    else
        reply(p, "cmd=getbyidx_results rc=0 nextidx=%ld key=%s val=%s", i + 1, key, value);
    return 0;
}

static int cmd_barrier_in(struct pmi1 *p, const char *line, struct error *err)
{
    if (p->waiting)
        return error_set(err, ERR_PROTOCOL, "a second barrier_in before the answer to the first");
    p->waiting = true;
    p->ops->barrier(p->arg);
    return 0;
}

static int cmd_finalize(struct pmi1 *p, const char *line, struct error *err)
{
    reply(p, "cmd=finalize_ack rc=0");
    p->finalized = true;
    p->ops->finalize(p->arg);
    return 0;
}

static int cmd_abort(struct pmi1 *p, const char *line, struct error *err)
{
    char code[32], text[512];
    if (!word(line, "exitcode", false, code, sizeof code) &&
        !word(line, "exit_code", false, code, sizeof code))
        strcpy(code, "1");
    if (!word(line, "error_msg", true, text, sizeof text))
        text[0] = 0;
    p->ops->abort(p->arg, (int)strtol(code, NULL, 10), text);
    return 0;
}

static int cmd_publish(struct pmi1 *p, const char *line, struct error *err)
{
    reply(p, "cmd=publish_result rc=-1 info=not_supported msg=not_supported");
    return 0;
}

static int cmd_unpublish(struct pmi1 *p, const char *line, struct error *err)
{
    reply(p, "cmd=unpublish_result rc=-1 info=not_supported msg=not_supported");
    return 0;
}

static int cmd_lookup(struct pmi1 *p, const char *line, struct error *err)
{
    reply(p, "cmd=lookup_result rc=-1 info=not_supported msg=not_supported");
    return 0;
}

static const struct {
    const char *name;
    int (*run)(struct pmi1 *p, const char *line, struct error *err);
} commands[] = {
    {"get", cmd_get},
    {"put", cmd_put},
    {"barrier_in", cmd_barrier_in},
    {"init", cmd_init},
    {"get_maxes", cmd_get_maxes},
    {"get_appnum", cmd_get_appnum},
    {"get_my_kvsname", cmd_get_my_kvsname},
    {"get_universe_size", cmd_get_universe_size},
    {"getbyidx", cmd_getbyidx},
    {"finalize", cmd_finalize},
    {"abort", cmd_abort},
    {"publish_name", cmd_publish},
    {"unpublish_name", cmd_unpublish},
    {"lookup_name", cmd_lookup},
};

static int run_line(struct pmi1 *p, const char *line, struct error *err)
{
    char name[64];
    if (p->in_mcmd) {
        if (strcmp(line, "endcmd"))
            return 0;
        p->in_mcmd = false;
        reply(p, "cmd=spawn_result rc=-1 msg=not_supported");
        return 0;
    }
    if (word(line, "mcmd", false, name, sizeof name)) {
        p->in_mcmd = true;
        return 0;
    }
    if (!word(line, "cmd", false, name, sizeof name))
        return error_set(err, ERR_PROTOCOL, "a PMI line without a command");
    if (p->finalized)
        return error_set(err, ERR_PROTOCOL, "PMI command after finalize");
    bool early = !strcmp(name, "init") || !strcmp(name, "abort");
    if (!p->begun && !early)
        return error_set(err, ERR_PROTOCOL, "PMI command \"%s\" before init", name);
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        if (!strcmp(commands[i].name, name))
            return commands[i].run(p, line, err);
    return error_set(err, ERR_PROTOCOL, "unknown PMI command \"%s\"", name);
}

struct pmi1 *pmi1_new(const struct pmi1_job *job, const struct pmi1_ops *ops, void *arg)
{
    struct pmi1 *p = xcalloc(1, sizeof *p);
    p->job = *job;
    p->ops = ops;
    p->arg = arg;
    return p;
}

void pmi1_free(struct pmi1 *p)
{
    if (!p)
        return;
    buf_free(&p->in);
    free(p);
}

int pmi1_input(struct pmi1 *p, const void *data, size_t len, struct error *err)
{
    if (len)
        buf_add(&p->in, data, len);
    size_t at = 0;
    int rc = 0;
    while (rc == 0) {
        char *line = p->in.data + at;
        char *end = p->in.len > at ? memchr(line, '\n', p->in.len - at) : NULL;
        size_t have = end ? (size_t)(end - line) : p->in.len - at;
        if (have > PMI1_LINE_MAX)
            return error_set(err, ERR_PROTOCOL, "a PMI line of more than %d bytes", PMI1_LINE_MAX);
        if (!end)
            break;
        *end = 0;
        if (memchr(line, 0, have))
            return error_set(err, ERR_PROTOCOL, "a PMI line with a zero byte");
        rc = run_line(p, line, err);
        at += have + 1;
    }
    buf_consume(&p->in, at);
    return rc;
}

void pmi1_barrier_out(struct pmi1 *p)
{
    if (!p->waiting) /* the release came from another node, which may say what it likes */
        return;
    p->waiting = false;
    reply(p, "cmd=barrier_out rc=0");
}

bool pmi1_begun(const struct pmi1 *p)
{
    return p->begun;
}

bool pmi1_finalized(const struct pmi1 *p)
{
    return p->finalized;
}

void pmi1_mapping(const uint32_t *nodes, const uint32_t *counts, size_t n, struct buf *out)
{
    buf_adds(out, "(vector");
    for (size_t i = 0; i < n;) {
        size_t j = i + 1;
        while (j < n && counts[j] == counts[i] && nodes[j] == nodes[j - 1] + 1)
            j++;
        buf_addf(out, ",(%u,%zu,%u)", nodes[i], j - i, counts[i]);
        i = j;
    }
    buf_addc(out, ')');
}
