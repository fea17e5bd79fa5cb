/* config.c - reads head.json. One table of numbers; the other keys have a function each. */
#include "head/config.h"
#include "base/buf.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define CONFIG_FILE "head.json"
#define CONFIG_BYTES_MAX (64 * 1024)
#define CONFIG_LIST_MAX 1000

static const struct {
    const char *key;
    size_t offset;
    uint32_t standard, min, max;
} numbers[] = {
    {"lease_ms", offsetof(struct config, lease_ms), 600000, 1000, 7 * 86400000u},
    {"grace_ms", offsetof(struct config, grace_ms), 15000, 0, 3600000},
    {"heartbeat_ms", offsetof(struct config, heartbeat_ms), 5000, 50, 3600000},
    {"jobs_per_user", offsetof(struct config, user_jobs), 100000, 1, 1000000},
    {"job_mb_per_user", offsetof(struct config, user_job_mb), 256, 1, 1024 * 1024},
    {"spool_total_mb", offsetof(struct config, spool_mb), 0, 1, UINT32_MAX},
};
#define NUMBERS (sizeof numbers / sizeof *numbers)

static int take_admins(struct config *c, json_t *value, struct error *err)
{
    size_t i;
    json_t *name;
    if (!json_is_array(value) || json_array_size(value) > CONFIG_LIST_MAX)
        return error_set(err, ERR_USAGE, CONFIG_FILE ": \"admins\" must be a list of user names");
    c->admins = xcalloc(json_array_size(value) + 1, sizeof *c->admins);
    json_array_foreach (value, i, name) {
        if (!json_is_string(name))
            return error_set(err, ERR_USAGE, CONFIG_FILE ": \"admins\" must be a list of user names");
        c->admins[c->admin_count++] = xstrdup(json_string_value(name));
    }
    return 0;
}

static int take_map(struct config *c, json_t *value, struct error *err)
{
    const char *from;
    json_t *to;
    if (!json_is_object(value) || json_object_size(value) > CONFIG_LIST_MAX)
        return error_set(err, ERR_USAGE, CONFIG_FILE ": \"map\" must be an object {\"user\": \"account\"}");
    c->map = xcalloc(json_object_size(value) + 1, sizeof *c->map);
    json_object_foreach (value, from, to) {
        if (!json_is_string(to))
            return error_set(err, ERR_USAGE, CONFIG_FILE ": \"map\": the account of \"%s\" must be a name",
                             from);
        c->map[c->map_count++] = (struct config_map){xstrdup(from), xstrdup(json_string_value(to))};
    }
    return 0;
}

static int take_log_level(struct config *c, json_t *value, struct error *err)
{
    c->log_level = json_is_string(value) ? log_level_parse(json_string_value(value)) : -1;
    if (c->log_level < 0)
        return error_set(err, ERR_USAGE, CONFIG_FILE ": \"log_level\" must be error, warn, info or debug");
    return 0;
}

static int take_store(struct config *c, json_t *value, struct error *err)
{
    const char *text = json_is_string(value) ? json_string_value(value) : "";
    if (strncmp(text, "postgresql://", 13))
        return error_set(err, ERR_USAGE,
                         CONFIG_FILE ": \"store\" must begin with postgresql:// (without it, "
                                     "the store is a file in the head's folder)");
    c->store = xstrdup(text);
    return 0;
}

static const struct {
    const char *key;
    int (*take)(struct config *c, json_t *value, struct error *err);
} others[] = {
    {"admins", take_admins}, {"map", take_map}, {"log_level", take_log_level}, {"store", take_store}};

static int take_key(struct config *c, const char *key, json_t *value, struct error *err)
{
    for (size_t i = 0; i < NUMBERS; i++) {
        if (strcmp(key, numbers[i].key))
            continue;
        json_int_t n = json_is_integer(value) ? json_integer_value(value) : -1;
        if (n < numbers[i].min || n > numbers[i].max)
            return error_set(err, ERR_USAGE, CONFIG_FILE ": \"%s\" must be a number from %u to %u", key,
                             numbers[i].min, numbers[i].max);
        *(uint32_t *)((char *)c + numbers[i].offset) = (uint32_t)n;
        return 0;
    }
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (!strcmp(key, others[i].key))
            return others[i].take(c, value, err);
    return error_set(err, ERR_USAGE, CONFIG_FILE ": unknown key \"%.64s\"", key);
}

int config_load(struct config *config, int dirfd, struct error *err)
{
    struct buf text = BUF_INIT;
    struct error why;
    json_error_t where;
    *config = (struct config){.log_level = LOG_LEVEL_INFO};
    for (size_t i = 0; i < NUMBERS; i++)
        *(uint32_t *)((char *)config + numbers[i].offset) = numbers[i].standard;
    if (file_read(dirfd, CONFIG_FILE, CONFIG_BYTES_MAX, &text, &why)) {
        buf_free(&text);
        if (why.code == ERR_NOT_FOUND)
            return 0;
        return error_set(err, why.code, "%s", why.text);
    }
    json_t *root = json_loadb(buf_str(&text), text.len, JSON_REJECT_DUPLICATES, &where);
    buf_free(&text);
    if (!json_is_object(root)) {
        json_decref(root);
        return error_set(err, ERR_USAGE, CONFIG_FILE ": line %d: %s", root ? 1 : where.line,
                         root ? "an object is expected" : where.text);
    }
    int rc = 0;
    const char *key;
    json_t *value;
    json_object_foreach (root, key, value) {
        if ((rc = take_key(config, key, value, err)))
            break;
    }
    json_decref(root);
    return rc;
}

void config_free(struct config *config)
{
    for (size_t i = 0; i < config->admin_count; i++)
        free(config->admins[i]);
    for (size_t i = 0; i < config->map_count; i++) {
        free(config->map[i].from);
        free(config->map[i].to);
    }
    free(config->store);
    free(config->admins);
    free(config->map);
    *config = (struct config){0};
}
