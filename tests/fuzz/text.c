/* text.c - short texts that people and peers give: join tokens and addresses. */
#include "tests/fuzz/fuzz.h"
#include "base/mem.h"
#include "wire/listener.h"
#include "wire/tls.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = xstrndup((const char *)data, size), host[256];
    struct token token;
    struct error err = {0};
    uint16_t port;
    if (token_parse(text, &token, &err) == 0)
        CHECK(strlen(token.id) == 8 && strlen(token.fingerprint) == 64);
    else
        CHECK(err.code == ERR_USAGE && err.text[0]);
    if (address_split(text, host, &port, &err) == 0)
        CHECK(host[0] && strlen(host) < sizeof host);
    else
        CHECK(err.code == ERR_USAGE && err.text[0]);
    free(text);
    return 0;
}
