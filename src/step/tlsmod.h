/* tlsmod.h - TLS 1.3 with a pre-shared key as an engine: bytes in, bytes out. In a module of its
 * own (muster-tls.so), because a step on one node does without OpenSSL's start-up time. */
#ifndef MUSTER_STEP_TLSMOD_H
#define MUSTER_STEP_TLSMOD_H

#include "base/buf.h"
#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

struct tlsmod {
    /* One end of one connection. NULL: err. */
    void *(*begin)(bool server, const uint8_t *psk, size_t psk_len, struct error *err);
    void (*end)(void *tls);
    /* Encrypted bytes from the peer; plain bytes are appended to `plain`, what must go to the peer
     * to `out`. -1: the peer has another key, or the stream is broken. */
    int (*input)(void *tls, const void *data, size_t len, struct buf *plain, struct buf *out,
                 struct error *err);
    bool (*ready)(const void *tls); /* the handshake is done: output() may be used */
    int (*output)(void *tls, const void *data, size_t len, struct buf *out, struct error *err);
};

#endif
