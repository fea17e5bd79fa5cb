/* message.h - small helpers for generated messages that live long.
 *
 * Rows are protobuf-c messages on the heap, freed with their own free_unpacked(). A string
 * field is either protobuf_c_empty_string or malloc'd: these functions keep it so.
 */
#ifndef MUSTER_MODEL_MESSAGE_H
#define MUSTER_MODEL_MESSAGE_H

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>
#include <stdint.h>

/* Allocates one message and initialises it. */
void *message_new(const ProtobufCMessageDescriptor *descriptor);
/* A deep copy; NULL for NULL. */
void *message_copy(const void *message);
/* Frees a message with all it owns; NULL is fine. */
void message_free(void *message);
/* Packs into malloc'd memory; *len may come out 0 (data is then still a valid pointer). */
uint8_t *message_pack(const void *message, size_t *len);

/* Replaces a string field. `value` NULL counts as "". */
void message_set(char **field, const char *value);
void message_setf(char **field, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
