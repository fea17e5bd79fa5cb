/* frame.c - framing and bounded decoding.
 *
 * protobuf-c takes an allocator; ours counts what is live and refuses beyond a cap that follows
 * from the length of the bytes. Without it two bytes on the wire (an empty submessage) could cost
 * hundreds in memory, and an 8 MiB frame a gigabyte. Memory comes from malloc(), so messages are
 * freed with protobuf-c's default allocator. */
#include "wire/frame.h"

#include <assert.h>
#include <malloc.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct counted {
    size_t live, cap;
};

static void *counted_alloc(void *arg, size_t size)
{
    struct counted *c = arg;
    if (size > c->cap - c->live)
        return NULL;
    void *p = malloc(size ? size : 1);
    if (!p)
        return NULL;
    size_t real = malloc_usable_size(p);
    if (real > c->cap - c->live) {
        free(p);
        return NULL;
    }
    c->live += real;
    return p;
}

static void counted_free(void *arg, void *p)
{
    struct counted *c = arg;
    if (!p)
        return;
    c->live -= malloc_usable_size(p);
    free(p);
}

/* A request for 10,000 one-word tasks is 80 KB and takes 2.5 MB decoded; only short frames may
 * expand so much. */
size_t wire_unpack_cap(size_t len)
{
    size_t small = 64 * len + 64 * 1024;
    size_t large = 8 * len + 16 * 1024 * 1024;
    return small < large ? small : large;
}

static void drop_unknown(ProtobufCMessage *message)
{
    for (unsigned i = 0; i < message->n_unknown_fields; i++)
        free(message->unknown_fields[i].data);
    free(message->unknown_fields);
    message->unknown_fields = NULL;
    message->n_unknown_fields = 0;
}

/* The message fields of a message, in turn: *at is where in the walk we are. NULL ends it. */
struct walk {
    unsigned field;
    size_t item;
};
static ProtobufCMessage *next_part(ProtobufCMessage *message, struct walk *at)
{
    const ProtobufCMessageDescriptor *type = message->descriptor;
    for (; at->field < type->n_fields; at->field++, at->item = 0) {
        const ProtobufCFieldDescriptor *f = &type->fields[at->field];
        if (f->type != PROTOBUF_C_TYPE_MESSAGE)
            continue;
        void *member = (char *)message + f->offset, *quantifier = (char *)message + f->quantifier_offset;
        if (f->label == PROTOBUF_C_LABEL_REPEATED) {
            if (at->item < *(size_t *)quantifier)
                return (*(ProtobufCMessage ***)member)[at->item++];
        } else if (at->item == 0) {
            bool other = f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF && *(uint32_t *)quantifier != f->id;
            ProtobufCMessage *part = other ? NULL : *(ProtobufCMessage **)member;
            at->item = 1;
            if (part)
                return part;
        }
    }
    return NULL;
}

/* Fields of newer versions are dropped, all the way down: protobuf-c would pass them on with whatever we
 * make of the message, into rows and replies, and packs some of them (number 0) so that nobody can read
 * the message again. Types are not recursive, so the depth is the protocol's. */
static void keep_known(ProtobufCMessage *message)
{
    struct walk at = {0};
    ProtobufCMessage *part;
    drop_unknown(message);
    while ((part = next_part(message, &at)))
        keep_known(part);
}

ProtobufCMessage *wire_unpack(const ProtobufCMessageDescriptor *type, const void *data, size_t len)
{
    if (len > WIRE_UNPACK_MAX)
        return NULL;
    struct counted counted = {.cap = wire_unpack_cap(len)};
    ProtobufCAllocator allocator = {counted_alloc, counted_free, &counted};
    ProtobufCMessage *message = protobuf_c_message_unpack(type, &allocator, len, data ? data : "");
    if (message)
        keep_known(message);
    return message;
}

void wire_free(ProtobufCMessage *message)
{
    if (message)
        protobuf_c_message_free_unpacked(message, NULL);
}

int frame_encode(const Mu__Frame *frame, struct buf *out, struct error *err)
{
    size_t size = mu__frame__get_packed_size(frame);
    assert(size > 0); /* a frame of ours always has a kind */
    if (size > FRAME_MAX)
        return error_set(err, ERR_LIMIT, "message of %zu bytes is too long: at most %u", size, FRAME_MAX);
    uint8_t *at = (uint8_t *)buf_reserve(out, 4 + size);
    at[0] = (uint8_t)(size >> 24), at[1] = (uint8_t)(size >> 16);
    at[2] = (uint8_t)(size >> 8), at[3] = (uint8_t)size;
    size_t packed = mu__frame__pack(frame, at + 4);
    assert(packed == size);
    buf_added(out, 4 + packed);
    return 0;
}

int frame_decode(const void *data, size_t len, size_t limit, Mu__Frame **frame, size_t *used,
                 struct error *err)
{
    const uint8_t *at = data;
    if (len < 4)
        return 0;
    size_t size = (size_t)at[0] << 24 | (size_t)at[1] << 16 | (size_t)at[2] << 8 | at[3];
    if (size == 0 || size > limit)
        return error_set(err, ERR_PROTOCOL, "frame of %zu bytes: expected 1 to %zu", size, limit);
    if (len - 4 < size)
        return 0;
    ProtobufCMessage *message = wire_unpack(&mu__frame__descriptor, at + 4, size);
    if (!message)
        return error_set(err, ERR_PROTOCOL, "frame of %zu bytes cannot be decoded", size);
    *frame = (Mu__Frame *)message;
    *used = 4 + size;
    return 1;
}

void frame_free(Mu__Frame *frame)
{
    if (frame)
        wire_free(&frame->base);
}
