/* fuzz.h - what a fuzz target is.
 *
 * A target takes bytes from outside and must neither crash nor break what it checks with CHECK().
 * The same source is run in two ways: by libFuzzer (meson setup -Dfuzz=true with clang: the
 * program tests/fuzz/fuzz_NAME), and by ./test under every compiler (replay_NAME_test), which
 * replays tests/fuzz/corpus/NAME with every file whole, cut and damaged.
 */
#ifndef MUSTER_TESTS_FUZZ_H
#define MUSTER_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(cond)                                                                                          \
    do {                                                                                                     \
        if (!(cond)) {                                                                                       \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #cond);                        \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

#endif
