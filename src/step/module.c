/* module.c - loading the parts of the step that bring large libraries with them. */
#include "step/pmixmod.h"
#include "base/mem.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void *module_load(const char *name, const char *symbol, struct error *err)
{
    char exe[PATH_MAX], path[PATH_MAX + 64];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    void *handle = NULL;
    if (n > 0) {
        exe[n] = 0;
        *strrchr(exe, '/') = 0;
        snprintf(path, sizeof path, "%s/%s.so", exe, name);
        if (access(path, F_OK) == 0)
            handle = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
        else {
            snprintf(path, sizeof path, "%s/%s.so", MUSTER_MODULE_DIR, name);
            handle = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
        }
    }
    if (!handle) {
        error_set(err, ERR_NOT_FOUND, "cannot load module %s: %s", name, n > 0 ? dlerror() : "no /proc");
        return NULL;
    }
    void *s = dlsym(handle, symbol);
    if (!s)
        error_set(err, ERR_VERSION, "module %s has no %s", path, symbol);
    return s;
}

const struct pmixmod *pmixmod_load(struct error *err)
{
    static const struct pmixmod *mod;
    if (!mod) {
        const struct pmixmod *m = module_load("muster-pmix", "muster_pmix", err);
        if (m && m->abi != PMIXMOD_ABI)
            error_set(err, ERR_VERSION, "module muster-pmix is of another version");
        else
            mod = m;
    }
    return mod;
}
