/* cert.c - a certificate request and a certificate from a stranger, before the head or a node trusts it. */
#include "tests/fuzz/fuzz.h"
#include "base/file.h"
#include "base/mem.h"
#include "wire/tls.h"

#include <fcntl.h>
#include <unistd.h>

static char folder[] = "/tmp/muster-fuzz-XXXXXX";

static void remove_folder(void)
{
    file_remove_tree(AT_FDCWD, folder, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct buf ca;
    struct buf out = BUF_INIT;
    struct error err = {0};
    if (!ca.data) {
        struct buf csr = BUF_INIT;
        CHECK(mkdtemp(folder));
        atexit(remove_folder);
        CHECK(ca_init(folder, "fuzz", &err) == 0 && node_csr(folder, "n", &csr, &err) == 0);
        char *path = xasprintf("%s/ca.crt", folder);
        CHECK(file_read(AT_FDCWD, path, 65536, &ca, &err) == 0);
        free(path);
        buf_free(&csr);
    }
    if (ca_sign(folder, "n", data, size, &out, &err))
        CHECK(err.text[0] && out.len == 0);
    char *text = xstrndup((const char *)data, size);
    CHECK(node_store_cert(folder, text, ca.data, &err) < 0); /* nobody guesses a signature */
    free(text);
    buf_free(&out);
    return 0;
}
