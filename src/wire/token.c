/* token.c - join tokens: "muster1.ID.SECRET.FINGERPRINT".
 *
 * The id finds the token, the secret proves that it was given out, the fingerprint lets the joining
 * machine know the head. Only the secret's hash is kept by the head. */
#include "wire/tls.h"

#include "wire/tls_internal.h"

#include <string.h>

#define TOKEN_PREFIX "muster1."
#define ID_HEX 8
#define SECRET_HEX 32
#define FINGERPRINT_HEX 64

static bool is_hex(const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (!((s[i] >= '0' && s[i] <= '9') || (s[i] >= 'a' && s[i] <= 'f')))
            return false;
    return true;
}

static int hash_secret(const char *secret, uint8_t out[32], struct error *err)
{
    unsigned len = 0;
    if (!EVP_Digest(secret, SECRET_HEX, out, &len, EVP_sha256(), NULL) || len != 32)
        return tls_fail(err, "cannot hash a token");
    return 0;
}

int token_make(const char *fingerprint, struct token *token, struct buf *text, struct error *err)
{
    if (strlen(fingerprint) != FINGERPRINT_HEX || !is_hex(fingerprint, FINGERPRINT_HEX))
        return error_set(err, ERR_USAGE, "fingerprint of the CA: expected %d hexadecimal digits",
                         FINGERPRINT_HEX);
    uint8_t random[(ID_HEX + SECRET_HEX) / 2];
    char secret[SECRET_HEX + 1];
    random_bytes(random, sizeof random);
    memset(token, 0, sizeof *token);
    hex_encode(random, ID_HEX / 2, token->id);
    hex_encode(random + ID_HEX / 2, SECRET_HEX / 2, secret);
    memcpy(token->fingerprint, fingerprint, FINGERPRINT_HEX + 1);
    int rc = hash_secret(secret, token->secret_hash, err);
    if (!rc)
        buf_addf(text, TOKEN_PREFIX "%s.%s.%s", token->id, secret, fingerprint);
    OPENSSL_cleanse(random, sizeof random);
    OPENSSL_cleanse(secret, sizeof secret);
    return rc;
}

int token_parse(const char *text, struct token *token, struct error *err)
{
    const size_t prefix = sizeof TOKEN_PREFIX - 1;
    const char *id = text + prefix, *secret = id + ID_HEX + 1, *fingerprint = secret + SECRET_HEX + 1;
    /* The length is checked first: then every pointer above lies within the text. */
    if (strlen(text) != prefix + ID_HEX + 1 + SECRET_HEX + 1 + FINGERPRINT_HEX ||
        memcmp(text, TOKEN_PREFIX, prefix) || id[ID_HEX] != '.' || secret[SECRET_HEX] != '.' ||
        !is_hex(id, ID_HEX) || !is_hex(secret, SECRET_HEX) || !is_hex(fingerprint, FINGERPRINT_HEX))
        return error_set(err, ERR_USAGE, "not a join token: expected muster1.ID.SECRET.FINGERPRINT");
    memset(token, 0, sizeof *token);
    memcpy(token->id, id, ID_HEX);
    memcpy(token->fingerprint, fingerprint, FINGERPRINT_HEX);
    return hash_secret(secret, token->secret_hash, err);
}

bool token_equal(const struct token *a, const struct token *b)
{
    int differ = CRYPTO_memcmp(a->id, b->id, sizeof a->id);
    differ |= CRYPTO_memcmp(a->secret_hash, b->secret_hash, sizeof a->secret_hash);
    return differ == 0;
}
