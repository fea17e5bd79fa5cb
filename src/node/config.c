/* config.c - DIR/node.json. See config.h. */
#include "node/config.h"
#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"
#include "wire/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CONFIG_MAX (256 * 1024)

static int take_pairs(struct pair **list, size_t *count, const char *key, json_t *value, struct error *err)
{
    const char *name;
    json_t *item;
    if (!json_is_object(value))
        return error_set(err, ERR_USAGE, "\"%s\": expected an object of strings", key);
    *list = xcalloc(json_object_size(value) + 1, sizeof **list);
    json_object_foreach (value, name, item) {
        if (!json_is_string(item))
            return error_set(err, ERR_USAGE, "\"%s\": \"%s\": expected a string", key, name);
        (*list)[(*count)++] = (struct pair){xstrdup(name), xstrdup(json_string_value(item))};
    }
    return 0;
}

static int take(struct node_config *c, const char *key, json_t *value, struct error *err)
{
#define X(field)                                                                                             \
    if (!strcmp(key, #field)) {                                                                              \
        if (!json_is_string(value))                                                                          \
            return error_set(err, ERR_USAGE, "\"%s\": expected a string", key);                              \
        c->field = xstrdup(json_string_value(value));                                                        \
        return 0;                                                                                            \
    }
    CONFIG_STRINGS(X)
#undef X
#define X(field, max)                                                                                        \
    if (!strcmp(key, #field)) {                                                                              \
        if (!json_is_integer(value) || json_integer_value(value) < 0 || json_integer_value(value) > (max))   \
            return error_set(err, ERR_USAGE, "\"%s\": expected a number from 0 to %d", key, max);            \
        c->field = (uint64_t)json_integer_value(value);                                                      \
        return 0;                                                                                            \
    }
    CONFIG_NUMBERS(X)
#undef X
#define X(field)                                                                                             \
    if (!strcmp(key, #field)) {                                                                              \
        if (!json_is_boolean(value))                                                                         \
            return error_set(err, ERR_USAGE, "\"%s\": expected true or false", key);                         \
        c->field = json_is_true(value);                                                                      \
        return 0;                                                                                            \
    }
    CONFIG_FLAGS(X)
#undef X
    if (!strcmp(key, "map"))
        return take_pairs(&c->map, &c->map_count, key, value, err);
    if (!strcmp(key, "env"))
        return take_pairs(&c->env, &c->env_count, key, value, err);
    return error_set(err, ERR_USAGE, "\"%s\": no such setting", key);
}

static void default_to(char **field, const char *value)
{
    if (*field && **field)
        return;
    free(*field);
    *field = xstrdup(value);
}

static int set_defaults(struct node_config *c, struct error *err)
{
    char text[PATH_MAX];
    if (!c->name || !c->head)
        return error_set(err, ERR_USAGE, "\"%s\": required", c->name ? "head" : "name");
    if (address_split(c->head, c->head_host, &c->head_port, err))
        return error_prefix(err, "\"head\"");
    snprintf(text, sizeof text, geteuid() == 0 ? "/run/muster" : "/tmp/muster-%u", geteuid());
    default_to(&c->run_dir, text);
    default_to(&c->path, "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    ssize_t n = readlink("/proc/self/exe", text, sizeof text - 1);
    text[n > 0 ? n : 0] = 0;
    char *slash = strrchr(text, '/');
    if (slash)
        *slash = 0;
    default_to(&c->bin, text);
#define X(field) default_to(&c->field, "");
    CONFIG_STRINGS(X)
#undef X
    return 0;
}

static json_t *read_json(const char *path, struct error *err)
{
    struct buf text = BUF_INIT;
    json_error_t where;
    json_t *root = NULL;
    if (file_read(AT_FDCWD, path, CONFIG_MAX, &text, err) == 0) {
        root = json_loadb(buf_str(&text), text.len, JSON_REJECT_DUPLICATES, &where);
        if (!root)
            error_set(err, ERR_USAGE, "%s:%d: %s", path, where.line, where.text);
        else if (!json_is_object(root)) {
            error_set(err, ERR_USAGE, "%s: expected a JSON object", path);
            json_decref(root);
            root = NULL;
        }
    }
    buf_free(&text);
    return root;
}

int config_load(struct node_config *config, const char *path, struct error *err)
{
    const char *key;
    json_t *value, *root = read_json(path, err);
    if (!root)
        return -1;
    int rc = 0;
    json_object_foreach (root, key, value)
        if (rc == 0)
            rc = take(config, key, value, err);
    json_decref(root);
    if (rc == 0)
        rc = set_defaults(config, err);
    return rc ? error_prefix(err, "%s", path) : 0;
}

static void release_pairs(struct pair *list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(list[i].name);
        free(list[i].value);
    }
    free(list);
}

void config_release(struct node_config *c)
{
#define X(field) free(c->field);
    CONFIG_STRINGS(X)
#undef X
    release_pairs(c->map, c->map_count);
    release_pairs(c->env, c->env_count);
    *c = (struct node_config){0};
}

const char *config_mapped(const struct node_config *config, const char *account)
{
    for (size_t i = 0; i < config->map_count; i++)
        if (!strcmp(config->map[i].name, account))
            return config->map[i].value;
    return NULL;
}

int config_join(const char *path, const char *name, const char *head, struct error *err)
{
    struct error first = {0};
    json_t *root = read_json(path, &first);
    if (!root && first.code != ERR_NOT_FOUND) {
        if (err)
            *err = first;
        return -1;
    }
    if (!root)
        root = json_object();
    json_object_set_new(root, "name", json_string(name));
    json_object_set_new(root, "head", json_string(head));
    char *text = json_dumps(root, JSON_INDENT(2));
    json_decref(root);
    if (!text)
        return error_set(err, ERR_INTERNAL, "cannot write %s", path);
    int rc = file_write(AT_FDCWD, path, text, strlen(text), 0600, true, err);
    free(text);
    return rc;
}
