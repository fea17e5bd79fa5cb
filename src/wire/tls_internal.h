/* tls_internal.h - what the files of src/wire share about OpenSSL; not for other folders. */
#ifndef MUSTER_WIRE_TLS_INTERNAL_H
#define MUSTER_WIRE_TLS_INTERNAL_H

#include "wire/tls.h"

#include "wire/openssl.h"

#define TLS_PATH_MAX 4096
#define TLS_NAME_MAX 80 /* "node:" and a node's name */

/* A new session of the context; the caller owns it. */
SSL *tls_session(struct tls_context *tls, struct error *err);
/* The common name of a certificate's subject. 0, or -1 where it has none or one that is too long. */
int tls_common_name(X509 *cert, char out[TLS_NAME_MAX]);
/* dir + "/" + name; -1 with ERR_LIMIT when that is too long. */
int tls_path(char out[TLS_PATH_MAX], const char *dir, const char *name, struct error *err);
/* ERR_IO with OpenSSL's own words appended; empties OpenSSL's queue of errors. Returns -1. */
int tls_fail(struct error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
