/* frame_test.c - frames in, frames out, and bytes that are no frames. */
#include "tests/unit/tap.h"
#include "base/mem.h"
#include "wire/frame.h"

#include <malloc.h>

static void make_request(struct buf *out, size_t tasks)
{
    Mu__Frame frame = MU__FRAME__INIT;
    Mu__Request request = MU__REQUEST__INIT;
    Mu__JobCreate create = MU__JOB_CREATE__INIT;
    Mu__JobSpec spec = MU__JOB_SPEC__INIT;
    Mu__TaskSpec task = MU__TASK_SPEC__INIT;
    Mu__TaskSpec **list = xcalloc(tasks, sizeof *list);
    struct error err;
    task.command_line = (char *)"true";
    for (size_t i = 0; i < tasks; i++)
        list[i] = &task;
    spec.name = (char *)"a job";
    create.spec = &spec;
    create.n_tasks = tasks;
    create.tasks = list;
    request.id = 77;
    request.kind_case = MU__REQUEST__KIND_JOB_CREATE;
    request.job_create = &create;
    frame.kind_case = MU__FRAME__KIND_REQUEST;
    frame.request = &request;
    ok(frame_encode(&frame, out, &err) == 0, "a request for %zu tasks is encoded: %zu bytes", tasks,
       out->len);
    free(list);
}

static void test_round_trip(void)
{
    struct buf bytes = BUF_INIT;
    struct error err;
    Mu__Frame *frame = NULL;
    size_t used = 0;
    make_request(&bytes, 2);
    size_t first = bytes.len;
    make_request(&bytes, 1);
    ok(frame_decode(bytes.data, bytes.len, FRAME_MAX, &frame, &used, &err) == 1, "decoded");
    is_int(used, first, "the first of two is taken");
    ok(frame->kind_case == MU__FRAME__KIND_REQUEST && frame->request->id == 77 &&
           frame->request->job_create->n_tasks == 2,
       "it says what was said");
    is_str(frame->request->job_create->tasks[1]->command_line, "true", "to the last string");
    struct buf again = BUF_INIT;
    ok(frame_encode(frame, &again, &err) == 0 && again.len == first && !memcmp(again.data, bytes.data, first),
       "encoded anew it is the same, byte for byte");
    frame_free(frame);
    int more = 0;
    for (size_t len = 0; len < first; len++)
        more += frame_decode(bytes.data, len, FRAME_MAX, &frame, &used, &err) == 0;
    is_int(more, first, "every beginning of it asks for more");
    buf_free(&again);
    buf_free(&bytes);
}

static int decode(const char *data, size_t len, size_t limit, struct error *err)
{
    Mu__Frame *frame = NULL;
    size_t used;
    int rc = frame_decode(data, len, limit, &frame, &used, err);
    if (rc == 1)
        frame_free(frame);
    return rc;
}

static void test_broken(void)
{
    struct error err = {0};
    is_int(decode("\0\0\0\0", 4, FRAME_MAX, &err), -1, "a frame of no bytes is refused");
    is_int(err.code, ERR_PROTOCOL, "as a breach of the protocol");
    is_int(decode("\xff\xff\xff\xff", 4, FRAME_MAX, &err), -1,
           "a length beyond the limit is refused at once");
    is_int(decode("\0\4\0\1", 4, FRAME_MAX_HELLO, &err), -1, "one byte beyond the limit too");
    is_int(decode("\0\4\0\0", 4, FRAME_MAX_HELLO, &err), 0, "the limit itself is waited for");
    is_int(decode("\0\0\0\2\x0a\x05", 6, FRAME_MAX, &err), -1, "a message cut short within is refused");
    is_int(decode("\0\0\0\1\x07", 5, FRAME_MAX, &err), -1, "an impossible wire type is refused");
    is_int(decode("\0\0\0\3\xa2\x06\x00", 7, FRAME_MAX, &err), 1,
           "a kind that only newer versions know is decoded");

    /* Frame.request.job_create.spec with a field 0 and a field 1000 in it. */
    Mu__Frame *frame = NULL;
    size_t used;
    struct buf again = BUF_INIT;
    const char unknown[] = "\0\0\0\x0f\x12\x0d\x1a\x0b\x0a\x09\x80\x00\x01\xc0\x3e\x01\x40\xd0\x0f";
    is_int(frame_decode(unknown, sizeof unknown - 1, FRAME_MAX, &frame, &used, &err), 1,
           "fields unknown here pass");
    ok(frame_encode(frame, &again, &err) == 0 && again.len == used - 6, "but are not passed on");
    frame_free(frame);
    buf_free(&again);

    /* Two kinds in one frame, and a kind twice: the last one holds, nothing leaks. */
    is_int(decode("\0\0\0\4\x0a\x00\x12\x00", 8, FRAME_MAX, &err), 1, "two kinds in one frame");
    is_int(decode("\0\0\0\x08\x0a\x02\x1a\x00\x0a\x02\x1a\x00", 12, FRAME_MAX, &err), 1, "one kind twice");
}

/* A frame of `len` bytes that is `unit` repeated inside Frame.order (a message field). */
static struct buf repeated(uint8_t field, const char *unit, size_t unit_len, size_t count)
{
    struct buf b = BUF_INIT;
    size_t inner = unit_len * count, total = inner + 6;
    uint8_t head[] = {(uint8_t)(total >> 24), (uint8_t)(total >> 16), (uint8_t)(total >> 8), (uint8_t)total,
                      field};
    buf_add(&b, head, sizeof head);
    for (int i = 0; i < 5; i++)
        buf_addc(&b, (char)(((inner >> (7 * i)) & 0x7f) | (i < 4 ? 0x80 : 0)));
    for (size_t i = 0; i < count; i++)
        buf_add(&b, unit, unit_len);
    return b;
}

static void test_cap(void)
{
    struct error err = {0};
    struct buf bytes = BUF_INIT;
    make_request(&bytes, 10000);
    is_int(decode(bytes.data, bytes.len, FRAME_MAX, &err), 1, "a request for 10,000 one-word tasks passes");
    buf_free(&bytes);

    /* NodeOrder.prepare: empty PrepareOrders, 2 bytes on the wire, more than 200 in memory each. */
    bytes = repeated(0x22, "\x12\x00", 2, (FRAME_MAX - 6) / 2);
    struct mallinfo2 before = mallinfo2();
    is_int(decode(bytes.data, bytes.len, FRAME_MAX, &err), -1, "8 MiB of empty submessages are refused");
    struct mallinfo2 after = mallinfo2();
    ok(after.uordblks + after.hblkhd <= before.uordblks + before.hblkhd + 4096,
       "and all memory is given back");
    buf_free(&bytes);
    bytes = repeated(0x22, "\x12\x00", 2, 1000);
    is_int(decode(bytes.data, bytes.len, FRAME_MAX, &err), -1,
           "a short frame that would grow 100-fold is refused");
    buf_free(&bytes);

    ok(wire_unpack_cap(FRAME_MAX) == 8u * FRAME_MAX + (16u << 20) && wire_unpack_cap(0) == 64 * 1024,
       "the cap is what the header says");
    ok(!wire_unpack(&mu__job__descriptor, "\xff", 1), "a stored row that is broken gives NULL");
    ProtobufCMessage *job = wire_unpack(&mu__job__descriptor, NULL, 0);
    ok(job && ((Mu__Job *)job)->id == 0, "a row of no bytes is all defaults");
    wire_free(job);
    wire_free(NULL);
    frame_free(NULL);
}

static void test_too_long(void)
{
    Mu__Frame frame = MU__FRAME__INIT;
    Mu__JoinRequest join = MU__JOIN_REQUEST__INIT;
    struct buf out = BUF_INIT;
    struct error err = {0};
    join.csr_pem.len = FRAME_MAX;
    join.csr_pem.data = xcalloc(1, FRAME_MAX);
    frame.kind_case = MU__FRAME__KIND_JOIN;
    frame.join = &join;
    ok(frame_encode(&frame, &out, &err) < 0 && err.code == ERR_LIMIT && out.len == 0,
       "too long a frame is not made: %s", err.text);
    free(join.csr_pem.data);
    buf_free(&out);
}

int main(void)
{
    test_round_trip();
    test_broken();
    test_cap();
    test_too_long();
    return tap_done();
}
