/* tls.c - TLS 1.3 contexts for the head, for agents, and for a machine that joins.
 *
 * Trust is the cluster's CA and nothing else. The head shows its CA behind its own certificate, so
 * that a joining machine, which knows only a fingerprint, can pick the CA out of the chain and then
 * verify as usual. Which name a peer must have is link.c's check. */
#include "wire/tls_internal.h"

#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct tls_context {
    SSL_CTX *ctx;
    char fingerprint[65]; /* joining: of the CA */
};

int tls_fail(struct error *err, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    error_setv(err, ERR_IO, fmt, ap);
    va_end(ap);
    unsigned long code = ERR_peek_error();
    const char *reason = code ? ERR_reason_error_string(code) : NULL;
    if (err && reason) {
        size_t len = strlen(err->text);
        snprintf(err->text + len, sizeof err->text - len, ": %s", reason);
    }
    ERR_clear_error();
    return -1;
}

int tls_path(char out[TLS_PATH_MAX], const char *dir, const char *name, struct error *err)
{
    int n = snprintf(out, TLS_PATH_MAX, "%s/%s", dir, name);
    if (n < 0 || n >= TLS_PATH_MAX)
        return error_set(err, ERR_LIMIT, "path is too long: %.200s.../%s", dir, name);
    return 0;
}

int tls_common_name(X509 *cert, char out[TLS_NAME_MAX])
{
    X509_NAME *subject = X509_get_subject_name(cert);
    int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    if (at < 0)
        return -1;
    ASN1_STRING *text = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at));
    int len = ASN1_STRING_length(text);
    const unsigned char *data = ASN1_STRING_get0_data(text);
    /* A zero within would make "head\0x" look like "head". */
    if (len <= 0 || len >= TLS_NAME_MAX || memchr(data, 0, (size_t)len))
        return -1;
    memcpy(out, data, (size_t)len);
    out[len] = 0;
    return 0;
}

static struct tls_context *context_new(const SSL_METHOD *method, struct error *err)
{
    SSL_CTX *ctx = SSL_CTX_new(method);
    if (!ctx) {
        tls_fail(err, "cannot make a TLS context");
        return NULL;
    }
    SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION);
    SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION);
    SSL_CTX_set_num_tickets(ctx, 0);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    /* Frames have lengths: a connection that is cut is noticed without close_notify. */
    SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_IGNORE_UNEXPECTED_EOF | SSL_OP_NO_COMPRESSION |
                                 SSL_OP_NO_RENEGOTIATION);
    /* Not ENABLE_PARTIAL_WRITE: libevent's bufferevent takes a write that succeeded for a whole one, goes on
     * with the next chain of its buffer and drains as many bytes from the front: what was left of the first
     * chain is lost and as much of the second is sent twice. */
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    struct tls_context *tls = xcalloc(1, sizeof *tls);
    tls->ctx = ctx;
    return tls;
}

static int use_files(SSL_CTX *ctx, const char *dir, const char *cert, const char *key, struct error *err)
{
    char path[TLS_PATH_MAX];
    if (tls_path(path, dir, "ca.crt", err))
        return -1;
    if (SSL_CTX_load_verify_file(ctx, path) != 1)
        return tls_fail(err, "cannot read the certificate of the cluster, %s", path);
    if (tls_path(path, dir, cert, err))
        return -1;
    if (SSL_CTX_use_certificate_chain_file(ctx, path) != 1)
        return tls_fail(err, "cannot read the certificate %s", path);
    if (tls_path(path, dir, key, err))
        return -1;
    if (SSL_CTX_use_PrivateKey_file(ctx, path, SSL_FILETYPE_PEM) != 1)
        return tls_fail(err, "cannot read the key %s", path);
    return 0;
}

struct tls_context *tls_server(const char *dir, struct error *err)
{
    struct tls_context *tls = context_new(TLS_server_method(), err);
    if (!tls)
        return NULL;
    if (use_files(tls->ctx, dir, "head.crt", "head.key", err)) {
        tls_free(tls);
        return NULL;
    }
    SSL_CTX_set_verify(tls->ctx, SSL_VERIFY_PEER | SSL_VERIFY_CLIENT_ONCE, NULL);
    SSL_CTX_set_verify_depth(tls->ctx, 2);
    return tls;
}

struct tls_context *tls_node(const char *dir, struct error *err)
{
    struct tls_context *tls = context_new(TLS_client_method(), err);
    if (!tls)
        return NULL;
    if (use_files(tls->ctx, dir, "node.crt", "node.key", err)) {
        tls_free(tls);
        return NULL;
    }
    SSL_CTX_set_verify(tls->ctx, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_verify_depth(tls->ctx, 2);
    return tls;
}

/* The chain is trusted when a CA with our fingerprint is in it and the head's certificate follows
 * from that. */
static int verify_join(X509_STORE_CTX *ctx, void *arg)
{
    struct tls_context *tls = arg;
    STACK_OF(X509) *chain = X509_STORE_CTX_get0_untrusted(ctx), *trusted = sk_X509_new_null();
    for (int i = 0; trusted && i < sk_X509_num(chain); i++) {
        X509 *cert = sk_X509_value(chain, i);
        uint8_t digest[EVP_MAX_MD_SIZE];
        unsigned len = 0;
        char hex[2 * EVP_MAX_MD_SIZE + 1];
        if (X509_digest(cert, EVP_sha256(), digest, &len) != 1)
            continue;
        hex_encode(digest, len, hex);
        if (!strcmp(hex, tls->fingerprint) && X509_check_ca(cert) == 1)
            sk_X509_push(trusted, cert);
    }
    int good = 0;
    if (trusted && sk_X509_num(trusted) > 0) {
        X509_STORE_CTX_set0_trusted_stack(ctx, trusted);
        good = X509_verify_cert(ctx) == 1;
    } else {
        X509_STORE_CTX_set_error(ctx, X509_V_ERR_CERT_UNTRUSTED);
    }
    sk_X509_free(trusted);
    return good;
}

struct tls_context *tls_join(const char *ca_fingerprint, struct error *err)
{
    if (strlen(ca_fingerprint) != 64) {
        error_set(err, ERR_USAGE, "fingerprint of the CA: expected 64 hexadecimal digits");
        return NULL;
    }
    struct tls_context *tls = context_new(TLS_client_method(), err);
    if (!tls)
        return NULL;
    memcpy(tls->fingerprint, ca_fingerprint, sizeof tls->fingerprint);
    SSL_CTX_set_verify(tls->ctx, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_cert_verify_callback(tls->ctx, verify_join, tls);
    return tls;
}

void tls_free(struct tls_context *tls)
{
    if (!tls)
        return;
    SSL_CTX_free(tls->ctx);
    free(tls);
}

SSL *tls_session(struct tls_context *tls, struct error *err)
{
    SSL *ssl = SSL_new(tls->ctx);
    if (!ssl)
        tls_fail(err, "cannot make a TLS session");
    return ssl;
}
