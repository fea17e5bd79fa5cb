/* openssl.h - OpenSSL's headers. Its type ERR_STATE (unused by us) has the name of an error code of
 * base/error.h, so it is renamed while they are read. Include this instead of <openssl/...>. */
#ifndef MUSTER_WIRE_OPENSSL_H
#define MUSTER_WIRE_OPENSSL_H

#include "base/error.h"

#define ERR_STATE OPENSSL_ERR_STATE_TYPE
#include <event2/bufferevent_ssl.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#undef ERR_STATE

#endif
