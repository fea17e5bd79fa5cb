/* rank.h - one process of the step on this node: its descriptors, its PMI-1 conversation, its end.
 *
 * The step owns it and decides; a rank only tells what has happened. Output is read while
 * rank_pause() has not stopped it, so a slow reader at the far end stops the writing process and
 * nothing piles up here.
 */
#ifndef MUSTER_STEP_RANK_H
#define MUSTER_STEP_RANK_H

#include "step/pmi1.h"
#include "step/spawn.h"

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

enum family { FAMILY_NONE, FAMILY_PMI1, FAMILY_PMIX };
#define RANK_READ_MAX (64 * 1024) /* bytes of output taken at once */

struct rank;
struct rank_ops {
    /* Output; stream is 1 or 2, len 0 its end. */
    void (*output)(void *arg, struct rank *r, int stream, const char *data, size_t len);
    void (*input_taken)(void *arg, struct rank *r, size_t len);
    void (*family)(void *arg, struct rank *r, enum family family);
    void (*barrier)(void *arg, struct rank *r);
    void (*abort)(void *arg, struct rank *r, int code, const char *text);
    void (*broken)(void *arg, struct rank *r, const struct error *err); /* PMI conversation */
    /* Its PMI connection ended before finalize; mostly because the process is about to end too. */
    void (*hung_up)(void *arg, struct rank *r);
    /* The process has ended: r->status. What it had said over PMI was handled before. */
    void (*exited)(void *arg, struct rank *r);
};

struct rank {
    const struct rank_ops *ops;
    void *arg;
    uint32_t number;
    pid_t pid; /* 0: not started */
    enum family family;
    bool finalized; /* said goodbye to PMI or PMIx */
    bool exited;
    bool unstarted; /* its fault was told when its start failed */
    int status;     /* as wait(2) gives it */
    struct pmi1 *pmi;
    struct {
        int fd; /* -1: closed */
        struct event *event;
    } exit, out[2], in, comm; /* pidfd, stdout and stderr, stdin, PMI */
    struct buf in_data;       /* waiting for the process to read it */
    bool in_ended, paused;
    struct buf comm_data; /* waiting for the process to read it */
};

/* `spawn` lacks only the descriptors; `wants_input`: it gets a pipe as stdin, else /dev/null.
 * -1: not started, err says why. */
struct rank_start {
    struct event_base *base;
    struct spawn spawn;
    struct pmi1_job pmi;
    bool wants_input;
    int fail_fd; /* where the child says why it does not start; tagged with the rank's number */
};
#define RANK_PMI_FD 3 /* what PMI_FD must say in the environment */
int rank_start(struct rank *r, const struct rank_start *s, struct error *err);
void rank_release(struct rank *r); /* closes everything; kills nothing; does not reap */
void rank_pause(struct rank *r, bool pause);
void rank_signal(struct rank *r, int sig); /* to its process group; ended ranks too (their children) */
void rank_reap(struct rank *r);
/* Input for its stdin; len 0: the end. */
void rank_input(struct rank *r, const void *data, size_t len);
bool rank_drained(const struct rank *r); /* ended, and both output streams too */
void rank_close_output(struct rank *r);  /* its end is told, whoever still holds it */
void rank_set_family(struct rank *r, enum family family);

#endif
