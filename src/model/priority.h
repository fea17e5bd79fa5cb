/* priority.h - a job's priority: 0..4000 with five named bands (HPC Pack's ExpandedPriority). */
#ifndef MUSTER_MODEL_PRIORITY_H
#define MUSTER_MODEL_PRIORITY_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

#define PRIORITY_MAX 4000
#define PRIORITY_NORMAL 2000

/* "Normal", "normal+1", "AboveNormal-400", "2001": to a number 0..4000. 0 or -1. */
int priority_parse(const char *text, uint32_t *priority, struct error *err);

/* 2001 to "Normal+1", 2600 to "AboveNormal-400". Returns `out`. */
const char *priority_format(uint32_t priority, char *out, size_t size);

#endif
