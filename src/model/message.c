/* message.c - helpers for messages that live long (message.h). */
#include "model/message.h"

#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *message_new(const ProtobufCMessageDescriptor *descriptor)
{
    ProtobufCMessage *m = xmalloc(descriptor->sizeof_message);
    protobuf_c_message_init(descriptor, m);
    return m;
}

uint8_t *message_pack(const void *message, size_t *len)
{
    const ProtobufCMessage *m = message;
    *len = protobuf_c_message_get_packed_size(m);
    uint8_t *data = xmalloc(*len ? *len : 1);
    protobuf_c_message_pack(m, data);
    return data;
}

void *message_copy(const void *message)
{
    if (!message)
        return NULL;
    const ProtobufCMessage *m = message;
    size_t len;
    uint8_t *data = message_pack(m, &len);
    void *copy = protobuf_c_message_unpack(m->descriptor, NULL, len, data);
    free(data);
    if (!copy) /* a packed message always unpacks: only memory can be short */
        abort();
    return copy;
}

void message_free(void *message)
{
    if (message)
        protobuf_c_message_free_unpacked(message, NULL);
}

void message_set(char **field, const char *value)
{
    char *old = *field;
    *field = value && *value ? xstrdup(value) : (char *)protobuf_c_empty_string;
    if (old != protobuf_c_empty_string)
        free(old);
}

void message_setf(char **field, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    message_set(field, text);
}
