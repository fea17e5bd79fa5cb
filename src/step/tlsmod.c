/* tlsmod.c - the module muster-tls.so: TLS 1.3 with a pre-shared key, over memory BIOs (OpenSSL 3).
 *
 * The key is the attempt's: who has it belongs to the attempt, so there are no certificates. A fresh
 * key exchange is made all the same (psk_dhe_ke): a key that leaks later opens no recorded stream.
 */
#include "step/tlsmod.h"

#include "base/mem.h"
#include "wire/openssl.h"
#include <string.h>

static const char identity[] = "muster-step";
static const unsigned char aes_128_gcm_sha256[2] = {0x13, 0x01};

struct tls {
    SSL_CTX *ctx;
    SSL *ssl;
    uint8_t psk[64];
    size_t psk_len;
};

static int fail(struct error *err, const char *what)
{
    char text[256] = "";
    unsigned long code = ERR_peek_last_error();
    if (code)
        ERR_error_string_n(code, text, sizeof text);
    ERR_clear_error();
    return error_set(err, ERR_PROTOCOL, "%s%s%s", what, text[0] ? ": " : "", text);
}

static SSL_SESSION *session_of_key(SSL *ssl)
{
    struct tls *t = SSL_get_app_data(ssl);
    const SSL_CIPHER *cipher = SSL_CIPHER_find(ssl, aes_128_gcm_sha256);
    SSL_SESSION *s = SSL_SESSION_new();
    if (!s || !cipher || !SSL_SESSION_set1_master_key(s, t->psk, t->psk_len) ||
        !SSL_SESSION_set_cipher(s, cipher) || !SSL_SESSION_set_protocol_version(s, TLS1_3_VERSION)) {
        SSL_SESSION_free(s);
        return NULL;
    }
    return s;
}

static int use_session(SSL *ssl, const EVP_MD *md, const unsigned char **id, size_t *id_len,
                       SSL_SESSION **session)
{
    *session = session_of_key(ssl);
    *id = (const unsigned char *)identity;
    *id_len = sizeof identity - 1;
    return *session != NULL;
}

static int find_session(SSL *ssl, const unsigned char *id, size_t id_len, SSL_SESSION **session)
{
    *session = NULL;
    if (id_len == sizeof identity - 1 && !memcmp(id, identity, id_len))
        *session = session_of_key(ssl);
    return 1;
}

static void tls_end(void *arg)
{
    struct tls *t = arg;
    if (!t)
        return;
    SSL_free(t->ssl);
    SSL_CTX_free(t->ctx);
    OPENSSL_cleanse(t->psk, sizeof t->psk);
    free(t);
}

static void *tls_begin(bool server, const uint8_t *psk, size_t psk_len, struct error *err)
{
    if (psk_len < 16 || psk_len > sizeof(((struct tls *)0)->psk)) {
        error_set(err, ERR_INTERNAL, "the attempt's key has %zu bytes", psk_len);
        return NULL;
    }
    struct tls *t = xcalloc(1, sizeof *t);
    memcpy(t->psk, psk, psk_len);
    t->psk_len = psk_len;
    t->ctx = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
    bool good = t->ctx && SSL_CTX_set_min_proto_version(t->ctx, TLS1_3_VERSION) &&
                SSL_CTX_set_ciphersuites(t->ctx, "TLS_AES_128_GCM_SHA256") &&
                SSL_CTX_set_num_tickets(t->ctx, 0);
    if (good) {
        SSL_CTX_set_psk_use_session_callback(t->ctx, use_session);
        SSL_CTX_set_psk_find_session_callback(t->ctx, find_session);
        SSL_CTX_set_mode(t->ctx, SSL_MODE_RELEASE_BUFFERS);
        t->ssl = SSL_new(t->ctx);
    }
    if (!t->ssl) {
        fail(err, "TLS does not start");
        tls_end(t);
        return NULL;
    }
    SSL_set_app_data(t->ssl, t);
    SSL_set_bio(t->ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    if (server)
        SSL_set_accept_state(t->ssl);
    else
        SSL_set_connect_state(t->ssl);
    return t;
}

static void take_output(struct tls *t, struct buf *out)
{
    BIO *bio = SSL_get_wbio(t->ssl);
    size_t n;
    while ((n = BIO_ctrl_pending(bio)) > 0) {
        int got = BIO_read(bio, buf_reserve(out, n), (int)n);
        if (got <= 0)
            return;
        buf_added(out, (size_t)got);
    }
}

static bool only_waits(struct tls *t, int rc)
{
    int e = SSL_get_error(t->ssl, rc);
    return e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE;
}

static int tls_input(void *arg, const void *data, size_t len, struct buf *plain, struct buf *out,
                     struct error *err)
{
    struct tls *t = arg;
    if (len && BIO_write(SSL_get_rbio(t->ssl), data, (int)len) != (int)len)
        return fail(err, "TLS: no memory");
    if (!SSL_is_init_finished(t->ssl)) {
        int rc = SSL_do_handshake(t->ssl);
        if (rc != 1 && !only_waits(t, rc)) {
            take_output(t, out);
            return fail(err, "TLS handshake with another step of this attempt failed");
        }
        /* Without our key there is nothing to go on with: no certificate stands behind it. */
        if (rc == 1 && !SSL_session_reused(t->ssl))
            return error_set(err, ERR_DENIED, "TLS: the peer does not have this attempt's key");
    }
    while (SSL_is_init_finished(t->ssl)) {
        int n = SSL_read(t->ssl, buf_reserve(plain, 16384), 16384);
        if (n > 0)
            buf_added(plain, (size_t)n);
        else if (only_waits(t, n))
            break;
        else
            return SSL_get_error(t->ssl, n) == SSL_ERROR_ZERO_RETURN
                       ? error_set(err, ERR_IO, "connection closed by the other end")
                       : fail(err, "TLS: broken stream");
    }
    take_output(t, out);
    return 0;
}

static bool tls_ready(const void *arg)
{
    const struct tls *t = arg;
    return SSL_is_init_finished(t->ssl);
}

static int tls_output(void *arg, const void *data, size_t len, struct buf *out, struct error *err)
{
    struct tls *t = arg;
    const char *p = data;
    while (len) {
        int n = SSL_write(t->ssl, p, len > 1 << 20 ? 1 << 20 : (int)len);
        if (n <= 0)
            return fail(err, "TLS: cannot write");
        p += n;
        len -= (size_t)n;
    }
    take_output(t, out);
    return 0;
}

const struct tlsmod muster_tls __attribute__((visibility("default"))) = {
    .begin = tls_begin,
    .end = tls_end,
    .input = tls_input,
    .ready = tls_ready,
    .output = tls_output,
};
