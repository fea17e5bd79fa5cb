/* properties.c - the tables of properties.h as arrays. */
#include "model/properties.h"

#include <strings.h>

#define X(name, option, type, initial, help) {name, option, type, initial, help},
const struct property job_properties[] = {JOB_PROPERTIES(X)};
const struct property task_properties[] = {TASK_PROPERTIES(X)};
#undef X
const size_t job_property_count = sizeof job_properties / sizeof job_properties[0];
const size_t task_property_count = sizeof task_properties / sizeof task_properties[0];

static const struct property *find(const struct property *table, size_t count, const char *option)
{
    for (size_t i = 0; i < count; i++)
        if (!strcasecmp(table[i].option, option))
            return &table[i];
    return NULL;
}

const struct property *job_property(const char *option)
{
    return find(job_properties, job_property_count, option);
}

const struct property *task_property(const char *option)
{
    return find(task_properties, task_property_count, option);
}

const char *property_value_form(enum property_type type)
{
    static const char *const forms[] = {
        [PROP_TEXT] = "TEXT",
        [PROP_BOOL] = "true|false",
        [PROP_INT] = "N",
        [PROP_RANGE] = "MIN[-MAX]",
        [PROP_PRIORITY] = "PRIORITY",
        [PROP_RUNTIME] = "[[DAYS:]HOURS:]MINUTES",
        [PROP_NODES] = "NODE[,NODE...]",
        [PROP_GROUPS] = "GROUP[,GROUP...]",
        [PROP_ENV] = "NAME=VALUE[;...]",
        [PROP_PATH] = "PATH",
    };
    return forms[type];
}
