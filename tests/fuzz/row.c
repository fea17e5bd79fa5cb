/* row.c - messages that are decoded outside of frames: stored rows, and what the steps say.
 *
 * The first byte chooses the message. */
#include "tests/fuzz/fuzz.h"
#include "proto/step.pb-c.h"
#include "wire/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const ProtobufCMessageDescriptor *const types[] = {
        &mu__job__descriptor,   &mu__task__descriptor,         &mu__node__descriptor,
        &mu__group__descriptor, &mu__attempt__descriptor,      &mu__counters__descriptor,
        &mu__event__descriptor, &mu__step_context__descriptor,
    };
    if (!size)
        return 0;
    ProtobufCMessage *message =
        wire_unpack(types[data[0] % (sizeof types / sizeof types[0])], data + 1, size - 1);
    if (!message)
        return 0;
    size_t len = protobuf_c_message_get_packed_size(message);
    uint8_t *packed = malloc(len + 1);
    CHECK(packed && protobuf_c_message_pack(message, packed) == len);
    free(packed);
    wire_free(message);
    return 0;
}
