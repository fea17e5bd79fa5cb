/* join.c - muster-node join: a machine with a token becomes a node.
 *
 * The key is made here and never leaves; the token proves to the head that we may ask, and its
 * fingerprint proves to us that the head is the one that made it. */
#include "base/buf.h"
#include "base/file.h"
#include "model/names.h"
#include "node/agent.h"
#include "wire/link.h"
#include "wire/listener.h"
#include "wire/tls.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define JOIN_S 20

struct joining {
    struct event_base *base;
    Mu__JoinRequest request;
    const char *dir;
    bool done;
    struct error error;
    char cluster[129];
};

static void finish(struct joining *j, struct link *link)
{
    j->done = true;
    if (link)
        link_close(link);
    event_base_loopbreak(j->base);
}

static void on_ready(struct link *link, void *arg)
{
    struct joining *j = arg;
    Mu__Frame frame = MU__FRAME__INIT;
    Mu__Hello hello = MU__HELLO__INIT;
    hello.protocol = hello.protocol_min = 1;
    hello.software = (char *)"muster-node " MUSTER_VERSION;
    hello.role = MU__ROLE__ROLE_JOIN;
    frame.kind_case = MU__FRAME__KIND_HELLO;
    frame.hello = &hello;
    link_send(link, &frame);
    frame.kind_case = MU__FRAME__KIND_JOIN;
    frame.join = &j->request;
    link_send(link, &frame);
}

static void take_error(struct joining *j, const Mu__ErrorReply *e)
{
    error_set(&j->error, (enum error_code)e->code, "the head refuses: %s", e->text);
}

static void on_frame(struct link *link, Mu__Frame *frame, void *arg)
{
    struct joining *j = arg;
    if (frame->kind_case == MU__FRAME__KIND_HELLO) {
        if (!frame->hello->error)
            return;
        take_error(j, frame->hello->error);
    } else if (frame->kind_case != MU__FRAME__KIND_JOIN_REPLY) {
        error_set(&j->error, ERR_PROTOCOL, "the head sent what it must not send");
    } else if (frame->join_reply->error) {
        take_error(j, frame->join_reply->error);
    } else {
        Mu__JoinReply *r = frame->join_reply;
        char *cert = strndup((const char *)r->cert_pem.data, r->cert_pem.len);
        char *ca = strndup((const char *)r->ca_pem.data, r->ca_pem.len);
        if (cert && ca)
            node_store_cert(j->dir, cert, ca, &j->error);
        snprintf(j->cluster, sizeof j->cluster, "%s", r->cluster);
        free(cert);
        free(ca);
    }
    finish(j, link);
}

static void on_closed(struct link *link, const struct error *err, void *arg)
{
    struct joining *j = arg;
    j->error = *err;
    finish(j, NULL);
}

/* A machine that has joined this cluster before shows its certificate: its name is its own. */
static struct tls_context *context(const char *dir, const char *fingerprint, struct error *err)
{
    char known[65];
    struct tls_context *tls = NULL;
    if (ca_fingerprint(dir, known, NULL) == 0 && !strcmp(known, fingerprint))
        tls = tls_node(dir, NULL);
    return tls ? tls : tls_join(fingerprint, err);
}

static int talk(struct joining *j, const char *head, const char *fingerprint, struct error *err)
{
    static const struct link_ops ops = {on_ready, on_frame, on_closed};
    struct timeval limit = {.tv_sec = JOIN_S};
    char host[256];
    uint16_t port;
    if (address_split(head, host, &port, err))
        return error_prefix(err, "--head");
    struct tls_context *tls = context(j->dir, fingerprint, err);
    if (!tls)
        return -1;
    j->base = event_base_new();
    struct link *link = j->base ? link_connect_tcp(j->base, host, port, tls, "head", &ops, j, err) : NULL;
    if (link) {
        event_base_loopexit(j->base, &limit);
        event_base_dispatch(j->base);
        if (!j->done) {
            error_set(&j->error, ERR_TIMEOUT, "no answer within %d s", JOIN_S);
            link_close(link);
        }
    }
    if (j->base)
        event_base_free(j->base);
    tls_free(tls);
    if (!link)
        return -1;
    if (j->error.code == ERR_NONE)
        return 0;
    *err = j->error;
    return error_prefix(err, "head %s", head);
}

int join_run(const char *dir, const char *name, const char *head, const char *token, struct error *err)
{
    struct joining j = {.request = MU__JOIN_REQUEST__INIT, .dir = dir};
    struct token parsed;
    struct buf csr = BUF_INIT;
    char install_id[65], path[PATH_MAX];
    if (node_name_check("--name", name, err))
        return -1;
    if (token_parse(token, &parsed, err))
        return error_prefix(err, "token");
    if (file_mkdirs(dir, 0700, err))
        return -1;
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return error_sys(err, "cannot open folder %s", dir);
    snprintf(path, sizeof path, "%s/node.json", dir);
    int rc = install_id_read(fd, install_id, err);
    if (rc == 0)
        rc = node_csr(dir, name, &csr, err);
    if (rc == 0) {
        j.request.token = (char *)token;
        j.request.name = (char *)name;
        j.request.install_id = install_id;
        j.request.csr_pem = (ProtobufCBinaryData){csr.len, (uint8_t *)csr.data};
        rc = talk(&j, head, parsed.fingerprint, err);
    }
    if (rc == 0)
        rc = config_join(path, name, head, err);
    buf_free(&csr);
    close(fd);
    return rc;
}
