/* secret.c - random bytes, and the keys of attempts.
 *
 * Attempt keys are derived, never stored: the same secret.key and attempt number give the same key
 * on a restarted or second head (HKDF, RFC 5869, without salt). */
#include "wire/tls.h"

#include "base/file.h"
#include "wire/tls_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

void random_bytes(void *out, size_t len)
{
    uint8_t *at = out;
    while (len) {
        ssize_t n = getrandom(at, len, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            abort(); /* keys made from anything else would be worse than no program */
        at += n, len -= (size_t)n;
    }
}

void hex_encode(const void *data, size_t len, char *out)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *at = data;
    for (size_t i = 0; i < len; i++) {
        out[2 * i] = digits[at[i] >> 4];
        out[2 * i + 1] = digits[at[i] & 15];
    }
    out[2 * len] = 0;
}

int secret_load(const char *dir, uint8_t secret[32], struct error *err)
{
    char path[TLS_PATH_MAX];
    struct buf file = BUF_INIT;
    if (tls_path(path, dir, "secret.key", err) || file_read(AT_FDCWD, path, 64, &file, err)) {
        buf_free(&file);
        return -1;
    }
    int rc = 0;
    if (file.len == 32)
        memcpy(secret, file.data, 32);
    else
        rc = error_set(err, ERR_PROTOCOL, "%s has %zu bytes: expected 32", path, file.len);
    OPENSSL_cleanse(file.data, file.len);
    buf_free(&file);
    return rc;
}

int secret_derive(const uint8_t secret[32], const char *label, uint64_t attempt, void *out, size_t len,
                  struct error *err)
{
    char info[128];
    int n = snprintf(info, sizeof info, "muster %s %" PRIu64, label, attempt);
    if (n < 0 || (size_t)n >= sizeof info)
        return error_set(err, ERR_LIMIT, "label of a key is too long: %s", label);
    char digest[] = "SHA256";
    uint8_t key[32];
    memcpy(key, secret, sizeof key);
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, key, sizeof key),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, info, (size_t)n),
        OSSL_PARAM_construct_end(),
    };
    EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
    EVP_KDF_CTX *ctx = kdf ? EVP_KDF_CTX_new(kdf) : NULL;
    int good = ctx && EVP_KDF_derive(ctx, out, len, params) > 0;
    EVP_KDF_CTX_free(ctx);
    EVP_KDF_free(kdf);
    OPENSSL_cleanse(key, sizeof key);
    return good ? 0 : tls_fail(err, "cannot derive a key");
}
