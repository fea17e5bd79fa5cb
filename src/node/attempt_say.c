/* attempt_say.c - what the head is told of attempts: reports and output.
 *
 * A report goes out when something changes, when the head names the attempt, and all of them in
 * Hello. Output goes out of the keeper's spool under the head's credit, a piece of each task in turn. */
#include "node/attempt.h"
#include "base/log.h"
#include "base/mem.h"
#include "node/agent.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_MAX 65536

void attempt_say(struct attempt *a)
{
    if (!a->dirty) {
        a->dirty = true;
        TAILQ_INSERT_TAIL(&a->all->dirty, a, next_dirty);
    }
    agent_soon(a->all->agent);
}

void attempt_stream(struct attempt *a)
{
    if (a->streams || a->sent >= a->credit || a->sent >= a->report.output_total)
        return;
    a->streams = true;
    TAILQ_INSERT_TAIL(&a->all->streams, a, next_stream);
    agent_soon(a->all->agent);
}

void attempt_stop_streaming(struct attempt *a)
{
    if (a->streams)
        TAILQ_REMOVE(&a->all->streams, a, next_stream);
    a->streams = false;
}

static Mu__AttemptReport *report_make(const struct attempt *a)
{
    Mu__AttemptReport *m = xmalloc(sizeof *m);
    mu__attempt_report__init(m);
    m->attempt = a->id;
    m->phase = (Mu__AttemptPhase)a->report.phase;
    m->exit_code = a->report.exit_code;
    m->exit_signal = a->report.exit_signal;
    m->failure = (Mu__TaskFailure)a->report.failure;
    m->message = xstrdup(a->report.message);
    m->output_total = a->report.output_total;
    m->cpu_ms = a->report.cpu_ms;
    m->has_result = a->report.has_result;
    return m;
}

void attempts_reports_free(Mu__AttemptReport **reports, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(reports[i]->message);
        free(reports[i]);
    }
    free(reports);
}

Mu__AttemptReport **attempts_inventory(struct attempts *all, size_t *count)
{
    struct attempt *a, *next;
    Mu__AttemptReport **list = xcalloc(HASH_COUNT(all->by_id) + 1, sizeof(Mu__AttemptReport *));
    *count = 0;
    HASH_ITER (hh, all->by_id, a, next) {
        a->credit = a->sent = 0;
        attempt_stop_streaming(a);
        list[*count] = report_make(a);
        /* Not heard of so far. To say less than is true is safe: a repeated "go" does nothing. */
        if (!a->report.phase)
            list[*count]->phase = MU__ATTEMPT_PHASE__PHASE_PREPARED;
        (*count)++;
        if (a->dirty)
            TAILQ_REMOVE(&all->dirty, a, next_dirty);
        a->dirty = false;
    }
    return list;
}

/* The next piece of an attempt's output, NULL when there is none (or it cannot be read). */
static Mu__OutputChunk *chunk_make(struct attempt *a)
{
    char path[64];
    struct error err = {0};
    uint64_t offset = a->sent;
    snprintf(path, sizeof path, "%s/out", a->name);
    if (a->spool.fd < 0 && spool_open_read(&a->spool, a->all->folder, path, &err)) {
        if (err.code != ERR_NOT_FOUND)
            log_error("attempt %s: %s", a->name, err.text);
        return NULL;
    }
    if (spool_refresh(&a->spool, &err)) {
        log_error("attempt %s: %s", a->name, err.text);
        return NULL;
    }
    size_t want = a->credit - a->sent < CHUNK_MAX ? (size_t)(a->credit - a->sent) : CHUNK_MAX;
    uint8_t *data = xmalloc(want);
    ssize_t n = spool_read(&a->spool, &offset, data, want, NULL, &err);
    if (n <= 0) {
        free(data);
        return NULL;
    }
    Mu__OutputChunk *m = xmalloc(sizeof *m);
    mu__output_chunk__init(m);
    m->attempt = a->id;
    m->offset = offset - (uint64_t)n;
    m->data = (ProtobufCBinaryData){(size_t)n, data};
    a->sent = offset;
    return m;
}

bool attempts_collect(struct attempts *all, Mu__NodeReport *report, size_t max)
{
    size_t bytes = 0, cap = 0;
    struct attempt *a, *next;
    /* One piece of each in turn, so that a task that prints much does not keep others waiting. */
    while (bytes < max && (a = TAILQ_FIRST(&all->streams))) {
        Mu__OutputChunk *chunk = chunk_make(a);
        attempt_stop_streaming(a);
        if (!chunk)
            continue;
        report->output = xgrow(report->output, &cap, report->n_output + 1, sizeof(Mu__OutputChunk *));
        report->output[report->n_output++] = chunk;
        bytes += chunk->data.len + 32;
        attempt_stream(a);
    }
    cap = 0;
    TAILQ_FOREACH_SAFE(a, &all->dirty, next_dirty, next)
    {
        if (bytes >= max + CHUNK_MAX)
            break;
        if (a->report.phase) {
            report->attempts =
                xgrow(report->attempts, &cap, report->n_attempts + 1, sizeof(Mu__AttemptReport *));
            report->attempts[report->n_attempts++] = report_make(a);
            bytes += 64 + strlen(a->report.message);
        }
        TAILQ_REMOVE(&all->dirty, a, next_dirty);
        a->dirty = false;
        if (!a->folder && !a->alive && a->report.phase == KEEPER_RELEASED && !a->has_route && !a->first)
            attempt_drop(a); /* made up only to answer the end of something that is not here */
    }
    if (!TAILQ_EMPTY(&all->dirty) || !TAILQ_EMPTY(&all->streams))
        agent_soon(all->agent);
    return report->n_output || report->n_attempts;
}

void attempts_report_free(Mu__NodeReport *report)
{
    for (size_t i = 0; i < report->n_output; i++) {
        free(report->output[i]->data.data);
        free(report->output[i]);
    }
    free(report->output);
    attempts_reports_free(report->attempts, report->n_attempts);
}
