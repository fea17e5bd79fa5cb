/* frame.c - a stream of frames, as a peer sends it, cut at any place.
 *
 * What decodes encodes again, and what was encoded decodes to the same bytes; a cut frame asks for more. */
#include "tests/fuzz/fuzz.h"
#include "wire/frame.h"

#include <string.h>

static void check_again(const Mu__Frame *frame)
{
    struct buf once = BUF_INIT, twice = BUF_INIT;
    struct error err;
    Mu__Frame *again = NULL;
    size_t used = 0;
    if (mu__frame__get_packed_size(frame) == 0 || frame_encode(frame, &once, &err))
        return; /* nothing known in it, or longer than a frame of ours may be */
    /* A default that a peer spelled out is left out by us, so only the second time must be the same. */
    int rc = frame_decode(once.data, once.len, FRAME_MAX, &again, &used, &err);
    CHECK(rc == 1 && used == once.len);
    CHECK(frame_encode(again, &twice, &err) == 0);
    CHECK(once.len == twice.len && !memcmp(once.data, twice.data, once.len));
    frame_free(again);
    buf_free(&once);
    buf_free(&twice);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t at = 0, used = 0;
    Mu__Frame *frame;
    struct error err;
    while (frame_decode(data + at, size - at, FRAME_MAX_HELLO, &frame, &used, &err) == 1) {
        CHECK(used >= 5 && used <= size - at);
        Mu__Frame *cut = NULL;
        size_t ignored;
        CHECK(frame_decode(data + at, used - 1, FRAME_MAX_HELLO, &cut, &ignored, &err) == 0);
        check_again(frame);
        frame_free(frame);
        at += used;
    }
    return 0;
}
