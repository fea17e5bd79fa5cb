/* model_test.c - tables of states, names, priorities, properties. */
#include "model/message.h"
#include "model/names.h"
#include "model/priority.h"
#include "model/properties.h"
#include "model/states.h"
#include "tap.h"

#include <strings.h>

#define JOB(s) MU__JOB_STATE__JOB_STATE_##s
#define TASK(s) MU__TASK_STATE__TASK_STATE_##s

static void test_states(void)
{
    is_str(job_state_name(JOB(QUEUED)), "Queued", "a job's state has HPC Pack's name");
    is_str(task_state_name(TASK(DISPATCHING)), "Dispatching", "so has a task's");
    is_str(node_state_name(2), "Draining", "and a node's");
    is_str(job_state_name(3), "Unknown", "a number that is none is Unknown");
    is_int(job_state_parse("cANCELED"), JOB(CANCELED), "names are found in any case");
    is_int(job_state_parse("Cancelled"), 0, "but not misspelt");
    ok(JOB(QUEUED) == 16 && TASK(QUEUED) == 8, "Queued differs between job and task, as at HPC Pack");

    static const struct {
        int state;
        bool submit, cancel, requeue, add;
    } verbs[] = {
        {JOB(CONFIGURING), true, true, false, true},  {JOB(QUEUED), false, true, false, true},
        {JOB(RUNNING), false, true, true, true},      {JOB(FINISHED), false, false, false, false},
        {JOB(FAILED), false, false, true, false},     {JOB(CANCELED), false, false, true, false},
        {JOB(CANCELING), false, false, false, false},
    };
    for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++)
        ok(job_state_allows(verbs[i].state, VERB_SUBMIT) == verbs[i].submit &&
               job_state_allows(verbs[i].state, VERB_CANCEL) == verbs[i].cancel &&
               job_state_allows(verbs[i].state, VERB_REQUEUE) == verbs[i].requeue &&
               job_state_allows(verbs[i].state, VERB_ADD) == verbs[i].add,
           "verbs of a job that is %s", job_state_name(verbs[i].state));
    is_str(job_states_allowing(VERB_REQUEUE), "Running, Failed or Canceled", "the states of a verb in words");
    ok(!task_state_allows(TASK(FINISHING), VERB_CANCEL), "a task that is finishing cannot be cancelled");

    is_int(state_next(STATE_JOB, JOB(QUEUED), MOVE_START), JOB(RUNNING), "Queued starts into Running");
    is_int(state_next(STATE_JOB, JOB(FINISHED), MOVE_REQUEUE), 0, "a finished job has no way back");
    is_int(state_next(STATE_TASK, TASK(CANCELING), MOVE_FAIL), TASK(FAILED),
           "a running task cancelled is Failed");
    is_int(state_next(STATE_TASK, TASK(QUEUED), MOVE_CANCEL), TASK(CANCELED), "a queued one Canceled");
    int dead_ends = 0;
    for (int s = 1; s <= 1024; s *= 2)
        for (int m = 0; m < MOVE_COUNT; m++) {
            int next = state_next(STATE_JOB, s, (enum move)m);
            dead_ends += next && !strcmp(job_state_name(next), "Unknown");
            next = state_next(STATE_TASK, s, (enum move)m);
            dead_ends += next && !strcmp(task_state_name(next), "Unknown");
        }
    is_int(dead_ends, 0, "every move leads to a state that is in the table");
}

static void test_names(void)
{
    struct error err;
    char text[70];
    memset(text, 'a', sizeof text);
    text[64] = 0;
    is_int(node_name_check("node", text, &err), 0, "64 characters are a name");
    text[64] = 'a', text[65] = 0;
    is_int(node_name_check("node", text, &err), -1, "65 are not");
    static const char *const bad[] = {"", "a b", "a/b", ".hidden", "-x", "a\nb", "n\xc3\xb6"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        is_int(node_name_check("node", bad[i], &err), -1, "bad node name %zu: %s", i, err.text);
    is_int(group_name_check("group", "My Nodes", &err), 0, "a group's name may have blanks inside");
    is_int(group_name_check("group", " x", &err), -1, "but not around");
    is_int(text_check("jobname", "Größe", 80, &err), 0, "UTF-8 is fine in texts");
    is_int(text_check("jobname", "a\xff", 80, &err), -1, "what is not UTF-8 is refused");
    is_int(text_check("jobname", "a\x1b[31m", 80, &err), -1, "control characters are refused");
    ok(!strchr(err.text, 0x1b), "and not repeated in the message");
    is_int(free_text_check("command line", "a\n\tb", 80, true, &err), 0, "a command line may have lines");
    is_int(env_name_check("env", "PATH_2", &err), 0, "a variable's name");
    is_int(env_name_check("env", "CCP_JOBID", &err), -1, "the scheduler's own variables are refused");
    is_int(env_name_check("env", "ccp_nodes", &err), -1, "in any case");
    is_int(env_name_check("env", "2x", &err), -1, "a name does not start with a digit");
    ok(!utf8_valid("\xc0\x80", 2) && !utf8_valid("\xed\xa0\x80", 3) && utf8_valid("\xf0\x9f\x98\x80", 4),
       "overlong forms and surrogates are not UTF-8");
}

static int by_natural(const void *a, const void *b)
{
    return natural_compare(*(const char *const *)a, *(const char *const *)b);
}

static void test_natural(void)
{
    const char *names[] = {
        "node10", "Node2", "n", "node1", "node02", "node2a", "x1y10", "x1y9", "node123456789012345678901"};
    const char *want[] = {"n",    "node1", "Node2", "node2a", "node02", "node10", "node123456789012345678901",
                          "x1y9", "x1y10"};
    size_t n = sizeof names / sizeof names[0];
    qsort(names, n, sizeof names[0], by_natural);
    bool same = true;
    for (size_t i = 0; i < n; i++)
        same =
            same && (!strcmp(names[i], want[i]) || !strcmp(want[i], "node2a") || !strcmp(want[i], "node02"));
    ok(same, "numbers in names count by value");
    ok(natural_compare("NODE7", "node7") == 0, "case does not count");
    ok(natural_compare("n01", "n1") != 0, "leading zeros make another name");
    /* A total order: antisymmetric and transitive over names made of few pieces. */
    static const char *const pieces[] = {"",    "0",  "00", "1", "01", "a", "A",   "a1",
                                         "a01", "1a", "a0", "b", "10", "2", "a1b", "a01a"};
    size_t k = sizeof pieces / sizeof pieces[0];
    int wrong = 0;
    for (size_t a = 0; a < k; a++)
        for (size_t b = 0; b < k; b++) {
            wrong += natural_compare(pieces[a], pieces[b]) != -natural_compare(pieces[b], pieces[a]);
            wrong += (natural_compare(pieces[a], pieces[b]) == 0) != (strcasecmp(pieces[a], pieces[b]) == 0);
            for (size_t c = 0; c < k; c++)
                wrong += natural_compare(pieces[a], pieces[b]) < 0 &&
                         natural_compare(pieces[b], pieces[c]) < 0 &&
                         natural_compare(pieces[a], pieces[c]) >= 0;
        }
    is_int(wrong, 0, "the order is total, and equal means equal without case");
}

static void test_priority(void)
{
    static const struct {
        const char *text;
        int value;
    } rows[] = {
        {"Normal", 2000}, {"normal+1", 2001},  {"AboveNormal-400", 2600}, {"0", 0},
        {"4000", 4000},   {"Lowest", 0},       {"highest", 4000},         {"Highest-4000", 0},
        {"4001", -1},     {"Highest+1", -1},   {"Lowest-1", -1},          {"Urgent", -1},
        {"", -1},         {"Normal+", -1},     {"Normal+x", -1},          {"-5", -1},
        {"+5", -1},       {"99999999999", -1}, {"Normal +1", -1},         {"2000 ", -1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint32_t got = 7;
        struct error err;
        int rc = priority_parse(rows[i].text, &got, &err);
        is_int(rc ? -1 : (int)got, rows[i].value, "priority \"%s\"", rows[i].text);
    }
    char text[32];
    is_str(priority_format(2001, text, sizeof text), "Normal+1", "2001 in words");
    is_str(priority_format(2600, text, sizeof text), "AboveNormal-400", "2600 in words");
    is_str(priority_format(4000, text, sizeof text), "Highest", "4000 in words");
    int wrong = 0;
    for (uint32_t p = 0; p <= PRIORITY_MAX; p++) {
        uint32_t back;
        wrong += priority_parse(priority_format(p, text, sizeof text), &back, NULL) || back != p;
    }
    is_int(wrong, 0, "every number survives the way through words");
}

static void test_tables(void)
{
    is_str(job_property("NUMNODES")->name, "NumNodes", "a property is found by its option");
    ok(!job_property("nosuch"), "or not");
    int wrong = 0;
    for (size_t i = 0; i < job_property_count; i++)
        wrong += !*job_properties[i].help || job_property(job_properties[i].option) != &job_properties[i];
    for (size_t i = 0; i < task_property_count; i++)
        wrong += !*task_properties[i].help || task_property(task_properties[i].option) != &task_properties[i];
    is_int(wrong, 0, "every property has a help text and an option of its own");
}

static void test_messages(void)
{
    Mu__Env *env = message_new(&mu__env__descriptor);
    message_set(&env->name, "A");
    message_setf(&env->value, "%d", 7);
    Mu__Env *copy = message_copy(env);
    message_set(&env->name, NULL);
    is_str(env->name, "", "a string set to nothing is empty");
    is_str(copy->name, "A", "a copy is deep");
    is_str(copy->value, "7", "and whole");
    message_free(env);
    message_free(copy);
    message_free(NULL);
}

int main(void)
{
    test_states();
    test_names();
    test_natural();
    test_priority();
    test_tables();
    test_messages();
    return tap_done();
}
