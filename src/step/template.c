/* template.c - what libpmix would put into a rank's environment, recorded once per boot.
 *
 * The cache folder's name carries the boot's id and the inode and time of libpmix, so that an
 * upgrade or a reboot finds nothing and records anew. A child process records: libpmix leaves
 * threads and state behind that a launcher which may never need them should not have.
 */
#include "step/template.h"
#include "base/file.h"
#include "base/mem.h"
#include "step/pmixmod.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define TEMPLATE_MAX (256 * 1024)

int template_record(const char *folder, struct error *err)
{
    const struct pmixmod *mod = pmixmod_load(err);
    if (!mod)
        return -1;
    struct buf env = BUF_INIT, xml = BUF_INIT;
    int rc = mod->probe(folder, &env, &xml, err);
    int dir = rc ? -1 : open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (rc == 0 && dir < 0)
        rc = error_sys(err, "cannot open folder %s", folder);
    /* topology.xml last: where it is, both are (the agent looks for it). */
    if (rc == 0 && (file_write(dir, "pmix.env", env.data, env.len, 0644, false, err) ||
                    file_write(dir, "topology.xml", xml.data, xml.len, 0644, false, err)))
        rc = -1;
    if (dir >= 0)
        close(dir);
    buf_free(&env);
    buf_free(&xml);
    return rc;
}

static int record_in_child(const char *folder, struct error *err)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC))
        return error_sys(err, "cannot make a pipe");
    pid_t pid = fork();
    if (pid < 0) {
        close(fds[0]);
        close(fds[1]);
        return error_sys(err, "cannot fork");
    }
    if (pid == 0) {
        struct error why = {0};
        int rc = template_record(folder, &why);
        if (rc)
            file_write_all(fds[1], why.text, strlen(why.text));
        _exit(rc ? 1 : 0);
    }
    close(fds[1]);
    char text[400];
    ssize_t n = read(fds[0], text, sizeof text);
    close(fds[0]);
    int status;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 0;
    return error_set(err, ERR_UNAVAILABLE, "%.*s", n > 0 ? (int)n : 14, n > 0 ? text : "the probe died");
}

static int cache_folder(char *out, size_t size)
{
    char boot[64] = "";
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, boot, sizeof boot - 1);
    if (fd >= 0)
        close(fd);
    if (n < 8)
        return -1;
    boot[8] = 0;
    struct stat st;
    if (stat(MUSTER_LIBPMIX, &st))
        return -1;
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    const char *tail = cache && cache[0] == '/' ? "" : "/.cache";
    const char *head = cache && cache[0] == '/' ? cache : home;
    if (!head || head[0] != '/')
        return -1;
    int len = snprintf(out, size, "%s%s/muster/launch-%s-%llx-%llx", head, tail, boot,
                       (unsigned long long)st.st_ino, (unsigned long long)st.st_mtime);
    return len > 0 && (size_t)len < size ? 0 : -1;
}

static int read_env(struct template *t, const char *folder, struct error *err)
{
    char path[PATH_MAX];
    buf_reset(&t->env);
    snprintf(path, sizeof path, "%s/pmix.env", folder);
    if (file_read(AT_FDCWD, path, TEMPLATE_MAX, &t->env, err))
        return -1;
    snprintf(path, sizeof path, "%s/topology.xml", folder);
    free(t->topology_xml);
    t->topology_xml = xstrdup(access(path, R_OK) == 0 ? path : "");
    return 0;
}

/* Only a folder of our own is believed: what stands in it goes into our ranks' environment. */
static bool is_ours(const char *folder)
{
    struct stat st;
    return lstat(folder, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid() && !(st.st_mode & 022);
}

static int make_anew(struct template *t, const char *scratch, struct error *err)
{
    char folder[PATH_MAX];
    if (snprintf(folder, sizeof folder, "%s/muster-probe-XXXXXX", scratch) >= (int)sizeof folder ||
        !mkdtemp(folder))
        return error_sys(err, "cannot make a folder in %s", scratch);
    int rc = record_in_child(folder, err);
    if (rc == 0)
        rc = read_env(t, folder, err);
    file_remove_tree(AT_FDCWD, folder, NULL);
    if (t->topology_xml)
        t->topology_xml[0] = 0;
    return rc;
}

int template_load(struct template *t, const char *folder, const char *scratch, struct error *err)
{
    *t = (struct template){.topology_xml = xstrdup("")};
    if (folder && read_env(t, folder, NULL) == 0)
        return 0;
    char cache[PATH_MAX];
    if (cache_folder(cache, sizeof cache) == 0) {
        if (is_ours(cache) && read_env(t, cache, NULL) == 0)
            return 0;
        if (file_mkdirs(cache, 0700, NULL) == 0 && is_ours(cache))
            return record_in_child(cache, err) ? -1 : read_env(t, cache, err);
    }
    return make_anew(t, scratch, err);
}

void template_free(struct template *t)
{
    buf_free(&t->env);
    free(t->topology_xml);
    t->topology_xml = NULL;
}

void template_fill(const char *line, size_t len, const struct template_values *v, struct buf *out)
{
    const struct {
        const char *word, *text;
        unsigned number;
    } words[] = {
        {"@NSPACE@", v->nspace, 0}, {"@SERVER@", v->server, 0}, {"@HOST@", v->host, 0},
        {"@TMPDIR@", v->tmpdir, 0}, {"@RANK@", NULL, v->rank},  {"@PORT@", NULL, v->port},
    };
    for (size_t i = 0; i < len;) {
        size_t w = 0, n = sizeof words / sizeof words[0];
        if (line[i] == '@')
            while (w < n && (len - i < strlen(words[w].word) ||
                             strncmp(line + i, words[w].word, strlen(words[w].word))))
                w++;
        if (line[i] != '@' || w == n) {
            buf_addc(out, line[i++]);
            continue;
        }
        if (words[w].text)
            buf_adds(out, words[w].text);
        else
            buf_addf(out, "%u", words[w].number);
        i += strlen(words[w].word);
    }
}
