/* replay.c - runs a fuzz target over its corpus, without a fuzzer: one test a file.
 *
 * Each file is given whole, cut at every length (or 4096 of them), and with bytes changed by a
 * generator with a fixed seed, so that a failure can be repeated: the last input is in the message. */
#include "tests/fuzz/fuzz.h"
#include "tests/unit/tap.h"
#include "base/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <unistd.h>

#define CUTS 4096
#define DAMAGED 4000

static uint64_t seed = 20261124;

static uint32_t next_random(void) /* splitmix64 */
{
    uint64_t z = seed += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (uint32_t)(z >> 32);
}

/* The exact size, so that a sanitizer sees one byte too many. */
static void run(const uint8_t *data, size_t len)
{
    uint8_t *copy = malloc(len ? len : 1);
    memcpy(copy, data, len);
    LLVMFuzzerTestOneInput(copy, len);
    free(copy);
}

static void run_damaged(const uint8_t *data, size_t len)
{
    uint8_t *copy = malloc(len ? len : 1);
    memcpy(copy, data, len);
    for (uint32_t n = 1 + next_random() % 4; len && n; n--) {
        static const uint8_t telling[] = {0, 1, 0x7f, 0x80, 0xff, '\n', '.', 0x0a, 0x12};
        uint8_t *at = &copy[next_random() % len];
        switch (next_random() % 3) {
        case 0:
            *at ^= (uint8_t)(1u << next_random() % 8);
            break;
        case 1:
            *at = telling[next_random() % sizeof telling];
            break;
        default:
            *at = (uint8_t)next_random();
        }
    }
    run(copy, len);
    free(copy);
}

int main(void)
{
    DIR *dir = opendir(CORPUS);
    struct error err;
    for (struct dirent *e; dir && (e = readdir(dir));) {
        struct buf file = BUF_INIT;
        if (e->d_name[0] == '.')
            continue;
        if (file_read(dirfd(dir), e->d_name, 16 << 20, &file, &err) == 0) {
            const uint8_t *data = (const uint8_t *)buf_str(&file);
            size_t step = file.len * SLOWNESS / CUTS + 1;
            for (size_t len = 0; len <= file.len; len += step)
                run(data, len);
            run(data, file.len);
            for (int i = 0; i < DAMAGED / SLOWNESS; i++)
                run_damaged(data, file.len);
            ok(true, "%s: whole, cut, damaged", e->d_name);
        } else {
            ok(false, "%s: %s", e->d_name, err.text);
        }
        buf_free(&file);
    }
    ok(dir && tap_count > 0, "there is a corpus");
    if (dir)
        closedir(dir);
    return tap_done();
}
