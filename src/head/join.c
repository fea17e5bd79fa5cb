/* join.c - tokens and certificates.
 *
 * The token's use is stored before the certificate leaves: a crash between costs a token, never
 * lets one be used twice. Expiry is by wall time, as it is shown to people; a clock that was set
 * back is no worse than a token made later. */
#include "head/join.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "head/nodelink.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <uthash.h>

#define TOKENS_FILE "tokens"
#define TOKENS_MAX 1000
#define TOKENS_BYTES_MAX (1024 * 1024)
#define TTL_S_DEFAULT 600
#define TTL_S_MAX 86400
#define USES_MAX 100000
#define FAILURES_MAX 20 /* in FAILURE_WINDOW_MS */
#define FAILURE_WINDOW_MS 10000
#define JOINED_MAX 20000
#define INSTALL_ID_MAX 128

struct live_token {
    struct token token;
    int64_t expires_wall_ms;
    uint32_t uses;
    char name[NODE_NAME_MAX + 1]; /* "": any */
};
/* A name that has a certificate, but whose agent has not said hello so far. */
struct joined {
    char name[NODE_NAME_MAX + 1]; /* lower case */
    char install_id[INSTALL_ID_MAX + 1];
    UT_hash_handle hh;
};
struct joins {
    struct head *head;
    char fingerprint[65];
    struct live_token *tokens;
    size_t count, cap;
    struct joined *joined;
    int64_t window_ms;
    uint32_t failures;
};

/* ---- the file ---- */

static json_t *token_json(const struct live_token *t)
{
    char hash[65];
    hex_encode(t->token.secret_hash, sizeof t->token.secret_hash, hash);
    return json_pack("{s:s, s:s, s:I, s:i, s:s}", "id", t->token.id, "hash", hash, "expires_wall_ms",
                     (json_int_t)t->expires_wall_ms, "uses", (int)t->uses, "name", t->name);
}

static int tokens_store(struct joins *joins, struct error *err)
{
    json_t *list = json_array();
    for (size_t i = 0; i < joins->count; i++)
        json_array_append_new(list, token_json(&joins->tokens[i]));
    char *text = json_dumps(list, JSON_INDENT(1));
    json_decref(list);
    if (!text)
        return error_set(err, ERR_INTERNAL, "cannot write tokens");
    int rc = file_write(joins->head->dirfd, TOKENS_FILE, text, strlen(text), 0600, true, err);
    free(text);
    return rc;
}

static int unhex(const char *text, uint8_t *out, size_t len)
{
    if (strlen(text) != 2 * len)
        return -1;
    for (size_t i = 0; i < len; i++) {
        unsigned byte;
        if (sscanf(text + 2 * i, "%2x", &byte) != 1)
            return -1;
        out[i] = (uint8_t)byte;
    }
    return 0;
}

static int token_from_json(struct joins *joins, json_t *item)
{
    struct live_token t = {0};
    const char *id, *hash, *name;
    json_int_t expires;
    int uses;
    if (json_unpack(item, "{s:s, s:s, s:I, s:i, s:s}", "id", &id, "hash", &hash, "expires_wall_ms", &expires,
                    "uses", &uses, "name", &name) ||
        strlen(id) >= sizeof t.token.id || strlen(name) >= sizeof t.name || uses < 1 ||
        unhex(hash, t.token.secret_hash, sizeof t.token.secret_hash))
        return -1;
    strcpy(t.token.id, id);
    strcpy(t.name, name);
    strcpy(t.token.fingerprint, joins->fingerprint);
    t.expires_wall_ms = expires;
    t.uses = (uint32_t)uses;
    joins->tokens = xgrow(joins->tokens, &joins->cap, joins->count + 1, sizeof *joins->tokens);
    joins->tokens[joins->count++] = t;
    return 0;
}

/* A broken file loses tokens, which are made again; it does not stop the head. */
static void tokens_load(struct joins *joins)
{
    struct buf text = BUF_INIT;
    struct error err;
    json_error_t where;
    size_t i;
    json_t *item, *list = NULL;
    if (file_read(joins->head->dirfd, TOKENS_FILE, TOKENS_BYTES_MAX, &text, &err) == 0) {
        list = json_loadb(buf_str(&text), text.len, 0, &where);
        if (!json_is_array(list))
            log_warn(TOKENS_FILE ": not readable; join tokens must be made again");
        json_array_foreach (list, i, item) {
            if (joins->count >= TOKENS_MAX || token_from_json(joins, item))
                log_warn(TOKENS_FILE ": entry %zu is left out", i);
        }
    } else if (err.code != ERR_NOT_FOUND) {
        log_warn("%s", err.text);
    }
    json_decref(list);
    buf_free(&text);
}

/* ---- tokens ---- */

static void token_remove(struct joins *joins, size_t i)
{
    joins->tokens[i] = joins->tokens[--joins->count];
}

static void drop_expired(struct joins *joins)
{
    int64_t now = clock_wall_ms();
    for (size_t i = joins->count; i-- > 0;)
        if (joins->tokens[i].expires_wall_ms <= now)
            token_remove(joins, i);
}

int token_create(struct joins *joins, const Mu__TokenCreate *request, struct buf *text,
                 int64_t *expires_wall_ms, struct error *err)
{
    struct live_token t = {.uses = request->uses ? request->uses : 1};
    uint32_t ttl = request->ttl_s ? request->ttl_s : TTL_S_DEFAULT;
    drop_expired(joins);
    if (ttl > TTL_S_MAX)
        return error_set(err, ERR_USAGE, "ttl_s %u: 1 to %d is expected", ttl, TTL_S_MAX);
    if (t.uses > USES_MAX)
        return error_set(err, ERR_USAGE, "uses %u: 1 to %d is expected", t.uses, USES_MAX);
    if (*request->name && node_name_check("name", request->name, err))
        return -1;
    if (joins->count >= TOKENS_MAX)
        return error_set(err, ERR_LIMIT, "there are %d join tokens that have not expired", TOKENS_MAX);
    if (token_make(joins->fingerprint, &t.token, text, err))
        return -1;
    snprintf(t.name, sizeof t.name, "%s", request->name);
    t.expires_wall_ms = clock_wall_ms() + (int64_t)ttl * 1000;
    joins->tokens = xgrow(joins->tokens, &joins->cap, joins->count + 1, sizeof *joins->tokens);
    joins->tokens[joins->count++] = t;
    *expires_wall_ms = t.expires_wall_ms;
    if (tokens_store(joins, err) == 0)
        return 0;
    joins->count--;
    return -1;
}

static struct live_token *token_find(struct joins *joins, const char *text, struct error *err)
{
    struct token given;
    if (token_parse(text, &given, err))
        return NULL;
    drop_expired(joins);
    for (size_t i = 0; i < joins->count; i++)
        if (token_equal(&joins->tokens[i].token, &given))
            return &joins->tokens[i];
    error_set(err, ERR_DENIED, "the token is unknown, used up, or has expired; make a new one");
    return NULL;
}

/* ---- joining ---- */

static bool too_many_failures(struct joins *joins)
{
    int64_t now = clock_boot_ms();
    if (now - joins->window_ms > FAILURE_WINDOW_MS) {
        joins->window_ms = now;
        joins->failures = 0;
    }
    return joins->failures >= FAILURES_MAX;
}

/* A name belongs to one machine, which shows its certificate when it joins again. An install id proves
 * nothing. Any other machine gets the name only by a token made for that very name. */
static int name_is_free(struct joins *joins, const struct live_token *t, const char *name,
                        const char *install_id, const char *shown, struct error *err)
{
    bool proven = shown && !strncmp(shown, "node:", 5) && !strcasecmp(shown + 5, name);
    const Mu__Node *node = core_node(joins->head->core, name);
    const char *connected = nodelink_install_id(joins->head->nodelinks, name);
    struct joined *j;
    char key[NODE_NAME_MAX + 1];
    node_key(name, key);
    HASH_FIND_STR(joins->joined, key, j);
    if (connected && strcmp(connected, install_id))
        return error_set(err, ERR_EXISTS, "another machine is connected as node %s", name);
    if (!*t->name && ((node && (!proven || strcmp(node->install_id, install_id))) ||
                      (j && strcmp(j->install_id, install_id))))
        return error_set(err, ERR_EXISTS, "node %s exists; a token made for that name can replace it", name);
    return 0;
}

static void note_joined(struct joins *joins, const char *name, const char *install_id)
{
    struct joined *j, *tmp;
    char key[NODE_NAME_MAX + 1];
    node_key(name, key);
    HASH_FIND_STR(joins->joined, key, j);
    if (!j) {
        if (HASH_COUNT(joins->joined) >= JOINED_MAX) {
            HASH_ITER (hh, joins->joined, j, tmp) {
                HASH_DEL(joins->joined, j);
                free(j);
            }
        }
        j = xcalloc(1, sizeof *j);
        snprintf(j->name, sizeof j->name, "%s", key);
        HASH_ADD_STR(joins->joined, name, j);
    }
    snprintf(j->install_id, sizeof j->install_id, "%s", install_id);
}

static int use_token(struct joins *joins, struct live_token *t, struct error *err)
{
    if (--t->uses == 0)
        token_remove(joins, (size_t)(t - joins->tokens));
    return tokens_store(joins, err);
}

static int join(struct joins *joins, const Mu__JoinRequest *r, const char *shown, struct buf *cert,
                struct buf *ca, struct error *err)
{
    struct head *h = joins->head;
    if (node_name_check("node name", r->name, err))
        return -1;
    if (!*r->install_id || strlen(r->install_id) > INSTALL_ID_MAX)
        return error_set(err, ERR_USAGE, "an install id of 1 to %d characters is expected", INSTALL_ID_MAX);
    struct live_token *t = token_find(joins, r->token, err);
    if (!t)
        return -1;
    if (*t->name && strcasecmp(t->name, r->name))
        return error_set(err, ERR_DENIED, "the token is for node %s, not for %s", t->name, r->name);
    if (name_is_free(joins, t, r->name, r->install_id, shown, err) ||
        ca_sign(h->dir, r->name, r->csr_pem.data, r->csr_pem.len, cert, err) ||
        file_read(h->dirfd, "ca.crt", 65536, ca, err))
        return -1;
    note_joined(joins, r->name, r->install_id);
    return use_token(joins, t, err);
}

Mu__JoinReply *join_handle(struct joins *joins, const Mu__JoinRequest *request, const char *shown,
                           const char *peer)
{
    struct buf cert = BUF_INIT, ca = BUF_INIT;
    struct error err;
    Mu__JoinReply *reply = xmalloc(sizeof *reply);
    mu__join_reply__init(reply);
    int rc = too_many_failures(joins)
                 ? error_set(&err, ERR_UNAVAILABLE, "too many failed joins; try again in %d s",
                             FAILURE_WINDOW_MS / 1000)
                 : join(joins, request, shown, &cert, &ca, &err);
    if (rc == 0) {
        log_info("node %s has joined from %s", request->name, peer);
        reply->cert_pem.len = cert.len;
        reply->cert_pem.data = (uint8_t *)buf_detach(&cert);
        reply->ca_pem.len = ca.len;
        reply->ca_pem.data = (uint8_t *)buf_detach(&ca);
        reply->cluster = xstrdup(joins->head->cluster);
    } else {
        joins->failures++;
        log_warn("join of \"%.64s\" from %s is refused: %s", request->name, peer, err.text);
        reply->error = xmalloc(sizeof *reply->error);
        mu__error_reply__init(reply->error);
        reply->error->code = err.code;
        reply->error->text = xstrdup(err.text);
    }
    buf_free(&cert);
    buf_free(&ca);
    return reply;
}

/* ---- life ---- */

struct joins *joins_create(struct head *head, struct error *err)
{
    struct joins *joins = xcalloc(1, sizeof *joins);
    joins->head = head;
    if (ca_fingerprint(head->dir, joins->fingerprint, err)) {
        free(joins);
        return NULL;
    }
    tokens_load(joins);
    return joins;
}

void joins_destroy(struct joins *joins)
{
    struct joined *j, *tmp;
    if (!joins)
        return;
    HASH_ITER (hh, joins->joined, j, tmp) {
        HASH_DEL(joins->joined, j);
        free(j);
    }
    free(joins->tokens);
    free(joins);
}
