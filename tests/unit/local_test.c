/* The folder of a local cluster: what is read from it, what is refused, and what follows from it. */
#include "base/file.h"
#include "local/cluster.h"
#include "tap.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[] = "/tmp/muster-local-test.XXXXXX";

static const char good[] =
    "{\"version\": 1, \"name\": \"demo\", \"nodes\": 300, \"cores_per_node\": 2, \"port\": 0,"
    " \"no_namespaces\": false, \"user\": \"\", \"head_uid\": 1000, \"head_gid\": 1000}";

static const struct {
    const char *name, *text, *says;
} broken[] = {
    {"no JSON", "nodes: 4", "cluster.json"},
    {"an empty file", "", "cluster.json"},
    {"a missing value", "{\"version\": 1}", "name"},
    {"a newer version",
     "{\"version\": 2, \"name\": \"demo\", \"nodes\": 4, \"cores_per_node\": 2, \"port\": 0, "
     "\"no_namespaces\": false,"
     " \"user\": \"\", \"head_uid\": 1, \"head_gid\": 1}",
     "version 2"},
    {"no nodes",
     "{\"version\": 1, \"name\": \"demo\", \"nodes\": 0, \"cores_per_node\": 2, \"port\": 0, "
     "\"no_namespaces\": false,"
     " \"user\": \"\", \"head_uid\": 1, \"head_gid\": 1}",
     "range"},
    {"a port that is none",
     "{\"version\": 1, \"name\": \"demo\", \"nodes\": 4, \"cores_per_node\": 2, \"port\": 70000,"
     " \"no_namespaces\": false, \"user\": \"\", \"head_uid\": 1, \"head_gid\": 1}",
     "range"},
};

static void write_config(const char *text)
{
    char path[128];
    snprintf(path, sizeof path, "%s/cluster.json", dir);
    struct error err;
    if (file_write(AT_FDCWD, path, text, strlen(text), 0644, false, &err) < 0)
        printf("Bail out! %s\n", err.text);
}

static void test_reading(void)
{
    struct cluster c;
    struct error err = {0};
    is_int(cluster_open(&c, dir, &err), -1, "a folder without cluster.json has no cluster");
    is_int(err.code, ERR_NOT_FOUND, "and says so by its code");
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        write_config(broken[i].text);
        err = (struct error){0};
        ok(cluster_open(&c, dir, &err) == -1 && strstr(err.text, broken[i].says) && !strchr(err.text, '\n'),
           "%s is refused in one line that says what is wrong", broken[i].name);
    }
    write_config(good);
    is_int(cluster_open(&c, dir, &err), 0, "a good one is read");
    is_int(c.nodes, 300, "nodes are as written");
    is_str(c.name, "demo", "the name is as written");
    is_str(cluster_node_name(&c, 0), "node01", "nodes count from 1");
    is_str(cluster_node_name(&c, 299), "node300", "and have more digits when they must");
    is_str(cluster_node_address(&c, true, 0), "10.77.0.11", "the first address");
    is_str(cluster_node_address(&c, true, 299), "10.77.1.54", "addresses go on in the next 256");
    is_str(cluster_node_address(&c, false, 1), "127.0.0.12", "one host: loopback addresses");
}

static void test_choices(void)
{
    struct cluster c;
    struct error err = {0};
    struct cluster_choice other = {.nodes = 4};
    ok(cluster_init(&c, dir, &other, NULL, &err) == -1 && err.code == ERR_EXISTS &&
           strstr(err.text, "300 nodes"),
       "other choices than those made are refused");
    char absent[128];
    snprintf(absent, sizeof absent, "%s/new", dir);
    struct cluster_choice name = {.name = "a b"};
    is_int(cluster_init(&c, absent, &name, NULL, &err), -1, "a name with a blank is refused");
    is_int(err.code, ERR_USAGE, "as an error of usage");
    struct cluster_choice many = {.nodes = 5000};
    ok(cluster_init(&c, absent, &many, NULL, &err) == -1 && strstr(err.text, "5000"),
       "too many nodes are refused");
    char deep[512];
    snprintf(deep, sizeof deep, "%s/%0100d", dir, 1);
    struct cluster_choice none = {0};
    ok(cluster_init(&c, deep, &none, NULL, &err) == -1 && err.code == ERR_LIMIT,
       "too long a path is refused");
    ok(access(absent, F_OK) < 0 && access(deep, F_OK) < 0, "and nothing was made");
}

static void test_reach(void)
{
    ok(cluster_open_to_all("/usr/bin"), "/usr/bin is open to all");
    ok(!cluster_open_to_all(dir), "a private folder is not");
    ok(!cluster_open_to_all("/usr/bin/no/such"), "nor is what does not exist");
}

int main(void)
{
    if (!mkdtemp(dir))
        return 1;
    test_reading();
    test_choices();
    test_reach();
    file_remove_tree(AT_FDCWD, dir, NULL);
    return tap_done();
}
