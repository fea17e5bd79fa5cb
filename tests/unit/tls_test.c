/* tls_test.c - the head's certificate authority, tokens, and keys of attempts. */
#include "tests/unit/tap.h"
#include "base/file.h"
#include "base/mem.h"
#include "wire/tls.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[] = "/tmp/muster-tls-XXXXXX";

static char *make_dir(const char *name)
{
    char *dir = xasprintf("%s/%s", folder, name);
    mkdir(dir, 0700);
    return dir;
}

static void read_into(const char *dir, const char *name, struct buf *out)
{
    char *path = xasprintf("%s/%s", dir, name);
    struct error err;
    if (file_read(AT_FDCWD, path, 1 << 20, out, &err))
        ok(false, "%s", err.text);
    free(path);
}

static int mode_of(const char *dir, const char *name)
{
    char *path = xasprintf("%s/%s", dir, name);
    struct stat st;
    int mode = stat(path, &st) ? -1 : (int)(st.st_mode & 0777);
    free(path);
    return mode;
}

static void remove_file(const char *dir, const char *name)
{
    char *path = xasprintf("%s/%s", dir, name);
    unlink(path);
    free(path);
}

static void test_init(void)
{
    struct error err = {0};
    char *dir = make_dir("init");
    struct buf first = BUF_INIT, second = BUF_INIT;
    char one[65], two[65];
    ok(ca_init(dir, "test", &err) == 0, "a new authority (%s)", err.text);
    is_int(mode_of(dir, "ca.key"), 0600, "keys are private");
    is_int(mode_of(dir, "head.key"), 0600, "the head's too");
    is_int(mode_of(dir, "secret.key"), 0600, "and the secret");
    ok(ca_fingerprint(dir, one, &err) == 0 && strlen(one) == 64, "it has a fingerprint");
    read_into(dir, "secret.key", &first);
    remove_file(dir, "head.crt");
    ok(ca_init(dir, "other", &err) == 0 && ca_fingerprint(dir, two, &err) == 0,
       "repeating makes what is missing");
    read_into(dir, "secret.key", &second);
    ok(!strcmp(one, two) && second.len == 32 && !memcmp(first.data, second.data, 32),
       "and keeps what is there");
    struct tls_context *tls = tls_server(dir, &err);
    ok(tls != NULL, "it serves");
    tls_free(tls);
    remove_file(dir, "ca.key");
    ok(ca_init(dir, "test", &err) < 0 && err.code == ERR_NOT_FOUND, "a lost key is not made anew: %s",
       err.text);
    ok(ca_init("/nonexistent", "test", &err) < 0, "a folder that is not there: %s", err.text);
    buf_free(&first);
    buf_free(&second);
    free(dir);
}

static void test_node(void)
{
    struct error err = {0};
    char *head = make_dir("head"), *other = make_dir("other"), *node = make_dir("node"),
         *thief = make_dir("thief");
    struct buf csr = BUF_INIT, again = BUF_INIT, cert = BUF_INIT, ca = BUF_INIT, wrong_ca = BUF_INIT;
    ca_init(head, "test", &err);
    ca_init(other, "test", &err);
    ok(node_csr(node, "node01", &csr, &err) == 0, "a node asks for its certificate");
    is_int(mode_of(node, "node.key"), 0600, "its key is private");
    ok(node_csr(node, "node01", &again, &err) == 0, "it may ask again, with the same key");
    ok(ca_sign(head, "node01", csr.data, csr.len, &cert, &err) == 0, "the head signs");
    read_into(head, "ca.crt", &ca);
    read_into(other, "ca.crt", &wrong_ca);
    ok(node_store_cert(node, cert.data, wrong_ca.data, &err) < 0 && err.code == ERR_PROTOCOL,
       "a certificate of another authority is not kept: %s", err.text);
    ok(node_store_cert(node, "garbage", ca.data, &err) < 0, "nor is garbage");
    buf_reset(&again);
    node_csr(thief, "node01", &again, &err);
    ok(node_store_cert(thief, cert.data, ca.data, &err) < 0, "nor one for somebody else's key");
    ok(node_store_cert(node, cert.data, ca.data, &err) == 0, "the right one is");
    struct tls_context *tls = tls_node(node, &err);
    ok(tls != NULL, "and serves");
    tls_free(tls);
    ok(!tls_node(thief, &err), "without one: %s", err.text);

    static const char *const bad[] = {
        "",   "-x",     "a b", "a/b",
        "..", "node:x", "ä",   "01234567890123456789012345678901234567890123456789012345678901234"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        ok(ca_sign(head, bad[i], csr.data, csr.len, &cert, &err) < 0 && err.code == ERR_USAGE,
           "name refused: '%s'", bad[i]);
    buf_reset(&cert);
    char longest[65];
    memset(longest, 'n', 64), longest[64] = 0;
    ok(ca_sign(head, longest, csr.data, csr.len, &cert, &err) == 0, "64 characters are a name");
    csr.data[csr.len / 2] ^= 1;
    ok(ca_sign(head, "node01", csr.data, csr.len, &cert, &err) < 0 && err.code == ERR_PROTOCOL,
       "a request that was changed on its way is refused: %s", err.text);
    ok(ca_sign(head, "node01", "", 0, &cert, &err) < 0, "an empty one too");
    buf_free(&csr), buf_free(&again), buf_free(&cert), buf_free(&ca), buf_free(&wrong_ca);
    free(head), free(other), free(node), free(thief);
}

static void test_tokens(void)
{
    struct error err = {0};
    struct token made, parsed, other;
    struct buf text = BUF_INIT, second = BUF_INIT;
    char fingerprint[65];
    memset(fingerprint, 'a', 64);
    fingerprint[64] = 0;
    ok(token_make(fingerprint, &made, &text, &err) == 0, "a token is made");
    is_int(text.len, 8 + 8 + 1 + 32 + 1 + 64, "it has its length");
    ok(token_parse(text.data, &parsed, &err) == 0 && token_equal(&made, &parsed), "parsed it is the same");
    is_str(parsed.fingerprint, fingerprint, "with the fingerprint");
    token_make(fingerprint, &other, &second, &err);
    ok(!token_equal(&made, &other), "another one is another");
    text.data[20] = text.data[20] == '0' ? '1' : '0';
    ok(token_parse(text.data, &other, &err) == 0 && !token_equal(&made, &other),
       "one wrong digit of the secret tells");
    int refused = 0;
    for (size_t len = 0; len < second.len; len++) {
        char *cut = xstrndup(second.data, len);
        refused += token_parse(cut, &other, &err) < 0 && err.code == ERR_USAGE;
        free(cut);
    }
    is_int(refused, second.len, "no beginning of a token is one");
    second.data[0] = 'M';
    ok(token_parse(second.data, &other, &err) < 0, "another prefix is none: %s", err.text);
    ok(token_make("short", &made, &text, &err) < 0, "a wrong fingerprint is refused");
    buf_free(&text);
    buf_free(&second);
}

static void test_keys(void)
{
    struct error err = {0};
    uint8_t secret[32], one[32], two[32], route[24], random[32] = {0}, zero[32] = {0};
    char hex[65];
    for (int i = 0; i < 32; i++)
        secret[i] = (uint8_t)i;
    ok(secret_derive(secret, "psk", 42, one, 32, &err) == 0, "a key is derived");
    hex_encode(one, 32, hex);
    /* openssl kdf -keylen 32 -kdfopt digest:SHA256 -kdfopt hexkey:000102..1f -kdfopt info:"muster psk 42"
     * HKDF */
    is_str(hex, "b04106915591e6784665e5c9ed9b3e24cef2932d5980a59532597d01526916ed", "it is RFC 5869's");
    secret_derive(secret, "psk", 42, two, 32, &err);
    ok(!memcmp(one, two, 32), "the same each time");
    secret_derive(secret, "psk", 43, two, 32, &err);
    ok(memcmp(one, two, 32) != 0, "another for another attempt");
    secret_derive(secret, "route", 42, route, 24, &err);
    ok(memcmp(one, route, 24) != 0, "another for another use");
    char *dir = make_dir("keys");
    ok(secret_load(dir, secret, &err) < 0 && err.code == ERR_NOT_FOUND, "a missing secret is said so");
    ca_init(dir, "test", &err);
    ok(secret_load(dir, secret, &err) == 0, "the head's secret is loaded");
    char *path = xasprintf("%s/secret.key", dir);
    file_write(AT_FDCWD, path, "short", 5, 0600, false, &err);
    ok(secret_load(dir, secret, &err) < 0 && err.code == ERR_PROTOCOL, "a damaged one is refused: %s",
       err.text);
    random_bytes(random, sizeof random);
    ok(memcmp(random, zero, sizeof zero) != 0, "random bytes are not zero");
    free(path);
    free(dir);
}

int main(void)
{
    struct error err;
    if (!mkdtemp(folder))
        return 1;
    test_init();
    test_node();
    test_tokens();
    test_keys();
    ok(file_remove_tree(AT_FDCWD, folder, &err) == 0, "cleaned up");
    return tap_done();
}
