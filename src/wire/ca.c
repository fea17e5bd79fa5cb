/* ca.c - the head as a small certificate authority; a node's key and request.
 *
 * Keys are P-256. Each key is written before the certificate over it, and what is there is kept, so
 * an init that was interrupted is completed by the next. Extended key usage separates the roles: a
 * node's certificate can never serve as the head's. */
#include "wire/tls_internal.h"

#include "base/file.h"
#include "model/names.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define PEM_FILE_MAX (64 * 1024)
#define DAYS (24L * 3600)
#define CA_DAYS 3650L
#define NODE_DAYS 730L

/* ---- files ---- */

static BIO *read_pem(const char *dir, const char *name, struct buf *file, struct error *err)
{
    char path[TLS_PATH_MAX];
    if (tls_path(path, dir, name, err) || file_read(AT_FDCWD, path, PEM_FILE_MAX, file, err))
        return NULL;
    BIO *bio = BIO_new_mem_buf(file->data ? file->data : "", (int)file->len);
    if (!bio)
        tls_fail(err, "cannot read %s", path);
    return bio;
}

static EVP_PKEY *read_key(const char *dir, const char *name, struct error *err)
{
    struct buf file = BUF_INIT;
    BIO *bio = read_pem(dir, name, &file, err);
    EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL) : NULL;
    if (bio && !key)
        tls_fail(err, "%s/%s is not a key", dir, name);
    BIO_free(bio);
    if (file.data)
        OPENSSL_cleanse(file.data, file.len);
    buf_free(&file);
    return key;
}

static X509 *read_cert(const char *dir, const char *name, struct error *err)
{
    struct buf file = BUF_INIT;
    BIO *bio = read_pem(dir, name, &file, err);
    X509 *cert = bio ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;
    if (bio && !cert)
        tls_fail(err, "%s/%s is not a certificate", dir, name);
    BIO_free(bio);
    buf_free(&file);
    return cert;
}

static int exists(const char *dir, const char *name, struct error *err)
{
    char path[TLS_PATH_MAX];
    if (tls_path(path, dir, name, err))
        return -1;
    return access(path, F_OK) == 0;
}

static int write_file(const char *dir, const char *name, const void *data, size_t len, mode_t mode,
                      struct error *err)
{
    char path[TLS_PATH_MAX];
    if (tls_path(path, dir, name, err))
        return -1;
    return file_write(AT_FDCWD, path, data, len, mode, true, err);
}

static int write_bio(const char *dir, const char *name, BIO *bio, mode_t mode, struct error *err)
{
    char *data = NULL;
    long len = BIO_get_mem_data(bio, &data);
    return write_file(dir, name, data, len > 0 ? (size_t)len : 0, mode, err);
}

/* ---- keys and certificates ---- */

/* The key in the file, made if the file is absent. */
static EVP_PKEY *have_key(const char *dir, const char *name, struct error *err)
{
    int there = exists(dir, name, err);
    if (there)
        return there > 0 ? read_key(dir, name, err) : NULL;
    EVP_PKEY *key = EVP_EC_gen("P-256");
    BIO *bio = BIO_new(BIO_s_secmem());
    int rc;
    if (!key || !bio || PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) != 1)
        rc = tls_fail(err, "cannot make a key");
    else
        rc = write_bio(dir, name, bio, 0600, err);
    BIO_free(bio);
    if (rc) {
        EVP_PKEY_free(key);
        return NULL;
    }
    return key;
}

static int add_ext(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx_nodb(&ctx);
    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    X509_EXTENSION *ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    int good = ext && X509_add_ext(cert, ext, -1) == 1;
    X509_EXTENSION_free(ext);
    return good;
}

enum role { ROLE_OF_CA, ROLE_OF_HEAD, ROLE_OF_NODE };
static const struct {
    const char *constraints, *usage, *extended; /* extended NULL: none */
    long days;
} roles[] = {
    [ROLE_OF_CA] = {"critical,CA:TRUE,pathlen:0", "critical,keyCertSign,cRLSign", NULL, CA_DAYS},
    [ROLE_OF_HEAD] = {"critical,CA:FALSE", "critical,digitalSignature", "serverAuth", CA_DAYS},
    [ROLE_OF_NODE] = {"critical,CA:FALSE", "critical,digitalSignature", "clientAuth", NODE_DAYS},
};

static int set_serial(X509 *cert)
{
    uint8_t bytes[16];
    random_bytes(bytes, sizeof bytes);
    bytes[0] = (bytes[0] & 0x7f) | 0x40; /* positive, and of one length */
    BIGNUM *number = BN_bin2bn(bytes, sizeof bytes, NULL);
    int good = number && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(cert));
    BN_free(number);
    return good;
}

/* issuer NULL: signed by itself. */
static X509 *make_cert(enum role role, const char *cn, EVP_PKEY *subject_key, X509 *issuer,
                       EVP_PKEY *issuer_key, struct error *err)
{
    X509 *cert = X509_new();
    if (!cert)
        goto fail;
    X509_NAME *name = X509_get_subject_name(cert);
    if (X509_set_version(cert, X509_VERSION_3) != 1 || !set_serial(cert) ||
        /* Clocks of machines differ: valid since yesterday. */
        !X509_gmtime_adj(X509_getm_notBefore(cert), -1 * DAYS) ||
        !X509_gmtime_adj(X509_getm_notAfter(cert), roles[role].days * DAYS) ||
        X509_NAME_add_entry_by_txt(name, "CN", V_ASN1_UTF8STRING, (const unsigned char *)cn, -1, -1, 0) !=
            1 ||
        X509_set_issuer_name(cert, issuer ? X509_get_subject_name(issuer) : name) != 1 ||
        X509_set_pubkey(cert, subject_key) != 1)
        goto fail;
    X509 *by = issuer ? issuer : cert;
    if (!add_ext(cert, by, NID_basic_constraints, roles[role].constraints) ||
        !add_ext(cert, by, NID_key_usage, roles[role].usage) ||
        !add_ext(cert, by, NID_subject_key_identifier, "hash") ||
        (roles[role].extended && !add_ext(cert, by, NID_ext_key_usage, roles[role].extended)) ||
        (issuer && !add_ext(cert, by, NID_authority_key_identifier, "keyid:always")))
        goto fail;
    if (X509_sign(cert, issuer_key, EVP_sha256()) == 0)
        goto fail;
    return cert;
fail:
    tls_fail(err, "cannot make a certificate for %s", cn);
    X509_free(cert);
    return NULL;
}

static int write_certs(const char *dir, const char *name, X509 *first, X509 *second, struct error *err)
{
    BIO *bio = BIO_new(BIO_s_mem());
    int rc;
    if (!bio || PEM_write_bio_X509(bio, first) != 1 || (second && PEM_write_bio_X509(bio, second) != 1))
        rc = tls_fail(err, "cannot write %s/%s", dir, name);
    else
        rc = write_bio(dir, name, bio, 0644, err);
    BIO_free(bio);
    return rc;
}

/* ---- the head's files ---- */

static X509 *have_ca(const char *dir, const char *cluster, EVP_PKEY **key, struct error *err)
{
    int cert_there = exists(dir, "ca.crt", err), key_there = exists(dir, "ca.key", err);
    if (cert_there < 0 || key_there < 0)
        return NULL;
    if (cert_there && !key_there) {
        error_set(err, ERR_NOT_FOUND, "%s/ca.key is missing: nodes trust the authority it belongs to", dir);
        return NULL;
    }
    *key = have_key(dir, "ca.key", err);
    if (!*key)
        return NULL;
    if (cert_there)
        return read_cert(dir, "ca.crt", err);
    char cn[TLS_NAME_MAX];
    int n = snprintf(cn, sizeof cn, "muster %s", cluster);
    if (n < 0 || (size_t)n >= sizeof cn) {
        error_set(err, ERR_LIMIT, "cluster name is too long: %.100s", cluster);
        return NULL;
    }
    X509 *cert = make_cert(ROLE_OF_CA, cn, *key, NULL, *key, err);
    if (cert && write_certs(dir, "ca.crt", cert, NULL, err)) {
        X509_free(cert);
        return NULL;
    }
    return cert;
}

static int have_head(const char *dir, X509 *ca, EVP_PKEY *ca_key, struct error *err)
{
    int there = exists(dir, "head.crt", err);
    EVP_PKEY *key = there < 0 ? NULL : have_key(dir, "head.key", err);
    if (!key)
        return -1;
    int rc = 0;
    if (!there) {
        X509 *cert = make_cert(ROLE_OF_HEAD, "head", key, ca, ca_key, err);
        rc = cert ? write_certs(dir, "head.crt", cert, ca, err) : -1;
        X509_free(cert);
    }
    EVP_PKEY_free(key);
    return rc;
}

static int have_secret(const char *dir, struct error *err)
{
    int there = exists(dir, "secret.key", err);
    if (there)
        return there > 0 ? 0 : -1;
    uint8_t secret[32];
    random_bytes(secret, sizeof secret);
    int rc = write_file(dir, "secret.key", secret, sizeof secret, 0600, err);
    OPENSSL_cleanse(secret, sizeof secret);
    return rc;
}

int ca_init(const char *dir, const char *cluster, struct error *err)
{
    EVP_PKEY *key = NULL;
    X509 *ca = have_ca(dir, cluster, &key, err);
    int rc = ca ? have_head(dir, ca, key, err) : -1;
    if (!rc)
        rc = have_secret(dir, err);
    X509_free(ca);
    EVP_PKEY_free(key);
    return rc;
}

int ca_fingerprint(const char *dir, char out[65], struct error *err)
{
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    X509 *ca = read_cert(dir, "ca.crt", err);
    if (!ca)
        return -1;
    int rc = 0;
    if (X509_digest(ca, EVP_sha256(), digest, &len) != 1 || len != 32)
        rc = tls_fail(err, "cannot hash %s/ca.crt", dir);
    else
        hex_encode(digest, len, out);
    X509_free(ca);
    return rc;
}

/* The public key of a request that proves it holds the private one. */
static EVP_PKEY *request_key(const void *csr_pem, size_t len, struct error *err)
{
    BIO *bio = len <= PEM_FILE_MAX ? BIO_new_mem_buf(len ? csr_pem : "", (int)len) : NULL;
    X509_REQ *req = bio ? PEM_read_bio_X509_REQ(bio, NULL, NULL, NULL) : NULL;
    EVP_PKEY *key = req ? X509_REQ_get_pubkey(req) : NULL;
    if (key &&
        (!EVP_PKEY_is_a(key, "EC") || EVP_PKEY_get_bits(key) < 256 || X509_REQ_verify(req, key) != 1)) {
        EVP_PKEY_free(key);
        key = NULL;
    }
    if (!key) {
        tls_fail(err, "certificate request is not valid");
        if (err)
            err->code = ERR_PROTOCOL;
    }
    X509_REQ_free(req);
    BIO_free(bio);
    return key;
}

int ca_sign(const char *dir, const char *name, const void *csr_pem, size_t len, struct buf *cert_pem,
            struct error *err)
{
    char cn[TLS_NAME_MAX];
    if (node_name_check("node name", name, err))
        return -1;
    snprintf(cn, sizeof cn, "node:%s", name);
    EVP_PKEY *subject = request_key(csr_pem, len, err);
    EVP_PKEY *key = subject ? read_key(dir, "ca.key", err) : NULL;
    X509 *ca = key ? read_cert(dir, "ca.crt", err) : NULL;
    X509 *cert = ca ? make_cert(ROLE_OF_NODE, cn, subject, ca, key, err) : NULL;
    BIO *bio = cert ? BIO_new(BIO_s_mem()) : NULL;
    int rc = -1;
    if (bio && PEM_write_bio_X509(bio, cert) == 1) {
        char *data = NULL;
        long n = BIO_get_mem_data(bio, &data);
        buf_add(cert_pem, data, (size_t)n);
        rc = 0;
    } else if (cert) {
        tls_fail(err, "cannot write a certificate for %s", cn);
    }
    BIO_free(bio);
    X509_free(cert);
    X509_free(ca);
    EVP_PKEY_free(key);
    EVP_PKEY_free(subject);
    return rc;
}

/* ---- a node's files ---- */

int node_csr(const char *dir, const char *name, struct buf *csr_pem, struct error *err)
{
    char cn[TLS_NAME_MAX];
    if (node_name_check("node name", name, err))
        return -1;
    snprintf(cn, sizeof cn, "node:%s", name);
    EVP_PKEY *key = have_key(dir, "node.key", err);
    if (!key)
        return -1;
    X509_REQ *req = X509_REQ_new();
    BIO *bio = BIO_new(BIO_s_mem());
    int rc = -1;
    if (req && bio && X509_REQ_set_version(req, X509_REQ_VERSION_1) == 1 &&
        X509_NAME_add_entry_by_txt(X509_REQ_get_subject_name(req), "CN", V_ASN1_UTF8STRING,
                                   (const unsigned char *)cn, -1, -1, 0) == 1 &&
        X509_REQ_set_pubkey(req, key) == 1 && X509_REQ_sign(req, key, EVP_sha256()) > 0 &&
        PEM_write_bio_X509_REQ(bio, req) == 1) {
        char *data = NULL;
        long n = BIO_get_mem_data(bio, &data);
        buf_add(csr_pem, data, (size_t)n);
        rc = 0;
    } else {
        tls_fail(err, "cannot make a certificate request for %s", cn);
    }
    BIO_free(bio);
    X509_REQ_free(req);
    EVP_PKEY_free(key);
    return rc;
}

static X509 *parse_cert(const char *pem)
{
    BIO *bio = BIO_new_mem_buf(pem, -1);
    X509 *cert = bio ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;
    BIO_free(bio);
    return cert;
}

int node_store_cert(const char *dir, const char *cert_pem, const char *ca_pem, struct error *err)
{
    EVP_PKEY *key = read_key(dir, "node.key", err);
    if (!key)
        return -1;
    X509 *cert = parse_cert(cert_pem), *ca = parse_cert(ca_pem);
    EVP_PKEY *ca_key = ca ? X509_get0_pubkey(ca) : NULL;
    int rc = 0;
    if (!cert || !ca_key || X509_check_private_key(cert, key) != 1 || X509_verify(cert, ca_key) != 1) {
        tls_fail(err, "the head's certificate for this node is not valid");
        if (err)
            err->code = ERR_PROTOCOL;
        rc = -1;
    }
    if (!rc)
        rc = write_file(dir, "ca.crt", ca_pem, strlen(ca_pem), 0644, err);
    if (!rc)
        rc = write_file(dir, "node.crt", cert_pem, strlen(cert_pem), 0644, err);
    X509_free(cert);
    X509_free(ca);
    EVP_PKEY_free(key);
    return rc;
}
