/* hello.c - the head's Hello. */
#include "head/hello.h"

#define PROTOCOL 1
#define PROTOCOL_MIN 1

int hello_check(const Mu__Hello *hello, struct error *err)
{
    if (hello->protocol_min <= PROTOCOL && hello->protocol >= PROTOCOL_MIN)
        return 0;
    return error_set(err, ERR_VERSION, "protocol %u to %u is spoken there, %d here", hello->protocol_min,
                     hello->protocol, PROTOCOL);
}

void hello_send(const struct head *head, struct link *link, const struct error *err)
{
    Mu__Hello hello = MU__HELLO__INIT;
    Mu__ErrorReply error = MU__ERROR_REPLY__INIT;
    Mu__Frame frame = MU__FRAME__INIT;
    hello.protocol = PROTOCOL;
    hello.protocol_min = PROTOCOL_MIN;
    hello.software = (char *)"muster-head " MUSTER_VERSION;
    hello.role = MU__ROLE__ROLE_HEAD;
    hello.cluster = (char *)head->cluster;
    hello.generation = head->generation;
    if (err) {
        error.code = err->code;
        error.text = (char *)err->text;
        hello.error = &error;
    }
    frame.kind_case = MU__FRAME__KIND_HELLO;
    frame.hello = &hello;
    link_send(link, &frame);
}
