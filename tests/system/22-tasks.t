#!/bin/bash
# What a task finds on its node, what it may not do, what its keeper's death means, and what is left of it.
. "$(dirname "$0")/lib.sh"

start_cluster --nodes 2
new_work

# run COMMAND...: its output is left in $said, the job in $job.
run() {
    job=$(submit --workdir "$work" "$@")
    wait_for 20 job_ended "$job"
    said=$(task_output "$job.1")
}
message() { task_json "$1.1" | jq -r .message; }

# ---- what it finds ----
run pwd
is "$said" "$work" "it runs in its work directory"
run 'echo $CCP_JOBID.$CCP_TASKID on $(hostname) of $CCP_NODES'
like "$said" "^$job\.1 on (node0[12]) of 1 \1 1$" "it knows its job and nodes"
run 'id -u'
if am_root; then isnt "$said" 0 "it does not run as root"; else is "$said" "$(id -u)" "it runs as its user"; fi
run 'ls -l /proc/self/fd | grep -c -v -E "total|pipe:|/dev/null|/proc/"'
is "$said" 0 "no descriptor of a daemon is open in it"
run 'grep -E "SigBlk|NoNewPrivs" /proc/self/status | tr -d "\t\n"'
is "$said" 'SigBlk:0000000000000000NoNewPrivs:1' "it can gain no privileges; no signal is blocked"
run 'env | grep -ciE "psk|secret|token"'
is "$said" 0 "no secret stands in its environment"
run 'echo one >&2; echo two'
is "$said" $'one\ntwo' "stderr goes with stdout"
run --stdout out.txt --stderr err.txt 'echo one >&2; echo two'
is "$(cat "$work/out.txt" "$work/err.txt")" $'two\none' "files named for them are in the work directory"
like "$(muster task view "$job.1")" "^the output is in $work/out.txt on node node0[12]$" "the task says where they are"
job=$(submit --stdout none/out.txt true)
like "$(muster task view "$job.1")" "^the output is in none/out.txt in the home folder of the task's account" "also without a work directory"

# ---- what cannot be set up says so ----
run --workdir "$work/none" true
like "$(message "$job")" "^node0[12]: work directory $work/none: No such file" "a missing work directory is named, and its node"
run --stdout /proc/none true
like "$(message "$job")" '^node0[12]: stdout /proc/none: No such file' "so is a file that cannot be written"
run --stdin none true
like "$(message "$job")" '^node0[12]: stdin none: No such file' "or read"
run no-such-program
like "$(message "$job")" '^node0[12]: cannot run no-such-program: No such file' "and a command that does not exist"
is "$(job_state "$job")" Failed "the job fails"

# ---- a flood ----
run 'head -c 30000000 /dev/zero | tr "\0" "x"; echo; echo the end'
is "$(job_state "$job")" Finished "a task that prints 30 MB ends well"
like "$(tail -n 1 <<<"$said")" '^the end$' "the end of it is kept"
ok "what is kept is bounded" test "$(du -sk "$MUSTER_DIR/head/spool" | cut -f1)" -lt 8192

# ---- its keeper is killed ----
keeper_of() { # JOB: the keeper above the gate
    local pid
    pid=$(gate_pid)
    awk '/^PPid/ { print $2 }' "/proc/$pid/status"
}
started_twice() { [ "$(wc -l <"$work/runs")" = 2 ]; }
for what in keeper 'keeper and agent'; do
    new_work
    job=$(submit --workdir "$work" "$work/gate $work & $(printf %q "$work/gate") $work/other & wait")
    mkdir "$work/other"
    chmod 777 "$work/other"
    wait_for 10 gate_started
    wait_for 10 test -s "$work/other/runs"
    first=$(leftovers | sort)
    node=$(task_json "$job.1" | jq -r '.allocation[0].node')
    keeper=$(awk '/^PPid/ { print $2 }' "/proc/$(keeper_of "$job")/status")
    is "$(cat "/proc/$keeper/comm")" muster-keeper "the task has a keeper"
    [ "$what" = keeper ] || kill -9 "$(node_pid "$node")"
    kill -9 "$keeper"
    # shellcheck disable=SC2086 # a list of pids
    ok "kill -9 of the $what: nothing of the task lives on" wait_for 10 gone $first
    ok "the task is started again" wait_for 15 started_twice
    open_gate
    touch "$work/other/go"
    wait_for 20 job_ended "$job"
    is "$(job_state "$job")" Finished "and ends well"
    is "$(task_json "$job.1" | jq .auto_requeue_count)" 1 "as a second try that the system is to blame for"
done

# ---- what is left ----
forgotten() { [ -z "$(ls "$MUSTER_DIR"/nodes/*/attempts | grep -E '^[0-9]+$')" ]; }
ok "attempts that have ended are forgotten" wait_for 10 forgotten
run_dir=$(jq -r .run_dir "$MUSTER_DIR/nodes/node01/node.json")
is "$(find "$run_dir" -mindepth 1 -maxdepth 1 -regex '.*/[0-9]+')" "" "no run folder is left"
ids=$(cat "$MUSTER_DIR"/nodes/*/install_id | fold -w 32 | cut -c1-12 | paste -sd'|')
ok "stop" muster cluster stop
is "$(find /sys/fs/cgroup -maxdepth 2 -type d 2>/dev/null | grep -E "$ids")" "" "no cgroup is left after stop"

done_testing
