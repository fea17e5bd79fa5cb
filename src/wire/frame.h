/* frame.h - the framing of wire.proto as an engine: bytes in, messages out, no descriptors.
 *
 * A frame is 4 bytes big-endian length (1..limit), then a packed mu.Frame. Decoding holds at most
 * wire_unpack_cap(length) bytes at any time, whatever the bytes say. A frame of a kind that a newer
 * peer knows decodes with kind_case MU__FRAME__KIND__NOT_SET: ignore it. Fields that are not known
 * here are dropped: what a peer said can be kept and passed on as it is.
 */
#ifndef MUSTER_WIRE_FRAME_H
#define MUSTER_WIRE_FRAME_H

#include "base/buf.h"
#include "base/error.h"
#include "proto/wire.pb-c.h"

#define FRAME_MAX (8u * 1024 * 1024)  /* after the peer is known */
#define FRAME_MAX_HELLO (256u * 1024) /* before */

/* Appends the frame to `out`. Longer than FRAME_MAX is ERR_LIMIT. */
int frame_encode(const Mu__Frame *frame, struct buf *out, struct error *err);

/* Takes one frame off the front of data[0..len). 1: *frame is set (free it with frame_free()) and
 * *used says how many bytes it took; 0: more bytes are needed; -1: broken, the connection cannot go on. */
int frame_decode(const void *data, size_t len, size_t limit, Mu__Frame **frame, size_t *used,
                 struct error *err);
void frame_free(Mu__Frame *frame);

/* The same bounded decoding for any message (stored rows, step.proto). NULL on broken bytes.
 * Free with wire_free(). */
#define WIRE_UNPACK_MAX (64u * 1024 * 1024)
size_t wire_unpack_cap(size_t len); /* the smaller of 64 * len + 64 KiB and 8 * len + 16 MiB */
ProtobufCMessage *wire_unpack(const ProtobufCMessageDescriptor *type, const void *data, size_t len);
void wire_free(ProtobufCMessage *message);

#endif
