/* tls.h - TLS 1.3 for links, and the head as a small certificate authority (OpenSSL 3, P-256).
 *
 * Files of the head, in its folder: ca.key, ca.crt (10 years), head.key, head.crt (signed by the
 * CA, subject CN=head), secret.key (32 random bytes from which attempt keys and routes are
 * derived). Files of a node: node.key, node.crt (CN=node:NAME), ca.crt. Keys have mode 0600.
 */
#ifndef MUSTER_WIRE_TLS_H
#define MUSTER_WIRE_TLS_H

#include "base/buf.h"
#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

struct tls_context;

/* Head's side: shows head.crt; asks for a client certificate and verifies it against the CA when
 * shown (a joining machine has none: link_peer_name() is NULL then). TLS 1.3 only, no tickets. */
struct tls_context *tls_server(const char *dir, struct error *err);
/* Agent's side: shows node.crt, verifies the head against ca.crt. */
struct tls_context *tls_node(const char *dir, struct error *err);
/* A joining machine: no certificate; the CA that the head shows in its chain must have this SHA-256
 * fingerprint (hex, as in struct token). */
struct tls_context *tls_join(const char *ca_fingerprint, struct error *err);
void tls_free(struct tls_context *tls);

/* Makes ca.*, head.*, secret.key in `dir` (existing folder). Existing files are kept: repeating is fine. */
int ca_init(const char *dir, const char *cluster, struct error *err);
/* SHA-256 of the CA certificate (DER), lower-case hex, 64 characters + 0. */
int ca_fingerprint(const char *dir, char out[65], struct error *err);
/* Signs a request for CN=node:`name` (whatever subject it asks for), 2 years. Appends PEM. A name
 * that node_name_check() refuses is ERR_USAGE, a request that does not hold ERR_PROTOCOL. */
int ca_sign(const char *dir, const char *name, const void *csr_pem, size_t len, struct buf *cert_pem,
            struct error *err);
/* Makes node.key in `dir` (kept if there) and a request for it. Appends PEM. */
int node_csr(const char *dir, const char *name, struct buf *csr_pem, struct error *err);
/* Checks that the certificate belongs to node.key and is signed by the CA; writes node.crt, ca.crt. */
int node_store_cert(const char *dir, const char *cert_pem, const char *ca_pem, struct error *err);

/* Join tokens: "muster1.ID.SECRET.FINGERPRINT": ID 8 hex, SECRET 32 hex. The head keeps only the
 * SHA-256 of the secret. token_equal() compares id and secret in constant time. */
struct token {
    char id[9];
    uint8_t secret_hash[32];
    char fingerprint[65];
};
int token_make(const char *fingerprint, struct token *token, struct buf *text, struct error *err);
int token_parse(const char *text, struct token *token, struct error *err); /* a text from outside */
bool token_equal(const struct token *a, const struct token *b);

/* Keys of an attempt: HKDF-SHA256 of secret.key, info = "muster LABEL ATTEMPT" (decimal; the
 * store's generation is not in it). label "psk" 32 bytes, "route" 24 bytes. The same for the same
 * attempt, on every head. */
int secret_load(const char *dir, uint8_t secret[32], struct error *err);
int secret_derive(const uint8_t secret[32], const char *label, uint64_t attempt, void *out, size_t len,
                  struct error *err);

/* Random bytes from the kernel; aborts if there are none. */
void random_bytes(void *out, size_t len);
void hex_encode(const void *data, size_t len, char *out /* 2*len+1 */);

#endif
