/* names.h - what names and texts may look like, and the order in which people expect them.
 *
 * Everything from outside passes through here before it is kept. Limits are HPC Pack's where
 * it has them (reference: job and task properties), else ours.
 */
#ifndef MUSTER_MODEL_NAMES_H
#define MUSTER_MODEL_NAMES_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>

#define NODE_NAME_MAX 64
#define GROUP_NAME_MAX 64
#define JOB_NAME_MAX 80
#define TASK_NAME_MAX 80
#define COMMAND_LINE_MAX 32768
#define PATH_TEXT_MAX 4095
#define MESSAGE_MAX 128
#define DESCRIPTION_MAX 256
#define ENV_NAME_MAX 256
#define ENV_TOTAL_MAX 65536 /* bytes of all names and values of one job or task */
#define ENV_COUNT_MAX 1024
#define LIST_MAX 10000 /* names in one list of nodes */
#define GROUPS_MAX 64  /* names in one list of groups */

/* Letters, digits, '.', '_', '-', not first a '.' or '-': a node's name is a folder and a host
 * name. `what` names the option in the error: "node name x/y: ...". 0 or -1. */
int node_name_check(const char *what, const char *name, struct error *err);
/* As a node's, and blanks inside. */
int group_name_check(const char *what, const char *name, struct error *err);
/* Any text without control characters, valid UTF-8, at most `max` bytes. */
int text_check(const char *what, const char *text, size_t max, struct error *err);
/* A path or a command line: as text, but tabs are fine, and newlines where `lines` says so. */
int free_text_check(const char *what, const char *text, size_t max, bool lines, struct error *err);
/* [A-Za-z_][A-Za-z0-9_.()-]*, not one of the scheduler's own (CCP_..., MUSTER_...). */
int env_name_check(const char *what, const char *name, struct error *err);
bool env_name_reserved(const char *name);

/* Whole-string UTF-8 check without overlong forms and surrogates. */
bool utf8_valid(const char *text, size_t len);

/* Compares without case, runs of digits by value: node2 < node10. Names that differ only in
 * leading zeros are still different ("n1" < "n01"), so 0 means equal without case. */
int natural_compare(const char *a, const char *b);

#endif
