#!/bin/bash
# What dies inside a job fails it, with the cause; what is cancelled leaves no process.
. "$(dirname "$0")/lib.sh"

start_cluster --nodes 4

# ---- the task's shell ----
new_work
job=$(submit --workdir "$work" "$work/gate" "$work")
wait_for 10 gate_started
kill -9 "$(gate_pid)"
wait_for 10 job_ended "$job"
is "$(job_state "$job")" Failed "kill -9 of the task's shell fails the job"
is "$(task_json "$job.1" | jq -r .exit_signal)" 9 "the task says which signal"
like "$(muster task view "$job.1"; muster job view "$job")" '[Ss]ignal 9|[Kk]illed' "the cause is shown"

# ---- cancel ----
new_work
# Children, a child in a session of its own, and one whose parent has gone.
cat >"$work/family" <<END
#!/bin/bash
"$work/gate" "$work" &
setsid "$work/gate" "$work" &
(setsid "$work/gate" "$work" &)
wait
END
chmod 755 "$work/family"
three_started() { [ "$(wc -l <"$work/runs")" = 3 ]; }
job=$(submit --workdir "$work" "$work/family")
wait_for 10 three_started
is "$(leftovers | wc -l)" 3 "three processes of the task run"
ok "cancel" muster job cancel "$job"
wait_for 20 job_ended "$job"
is "$(job_state "$job")" Canceled "the job is Canceled"
wait_for 5 no_leftovers
is "$(leftovers)" "" "no process is left"

# A task that does not listen to SIGTERM.
cat >"$work/deaf" <<END
#!/bin/bash
trap '' TERM INT HUP
rm -f "$work/runs"
exec "$work/gate" "$work"
END
chmod 755 "$work/deaf"
rm -f "$work/runs"
job=$(submit --workdir "$work" "$work/deaf")
wait_for 10 gate_started
ok "cancel --force" muster job cancel --force "$job"
wait_for 10 job_ended "$job"
is "$(job_state "$job")" Canceled "a deaf task is ended too"
wait_for 5 no_leftovers
is "$(leftovers)" "" "and leaves no process"

# What a task leaves behind when it ends by itself is ended with it.
new_work
muster job submit --workdir "$work" --wait "setsid $work/gate $work & until [ -s $work/runs ]; do :; done" >/dev/null 2>&1
wait_for 5 no_leftovers
is "$(leftovers)" "" "what a finished task left behind is gone"

# ---- MPI steps ----
if [ -x "$MUSTER_BIN/mpiexec" ]; then
    new_work
    four_started() { [ "$(wc -l <"$work/runs" 2>/dev/null)" = 4 ]; }
    job=$(submit --numnodes 4 --workdir "$work" mpiexec -n 4 "$work/gate" "$work")
    wait_for 20 four_started
    kill -9 "$(gate_pid)"
    wait_for 10 job_ended "$job"
    is "$(job_state "$job")" Failed "kill -9 of a rank fails the job"
    like "$(task_output "$job.1")" 'rank [0-9]+.*node0[1-4].*(signal 9|[Kk]illed)' "the message names rank, node and signal"
    wait_for 5 no_leftovers
    is "$(leftovers)" "" "no rank is left"

    new_work
    job=$(submit --numnodes 4 --workdir "$work" mpiexec -n 4 "$work/gate" "$work")
    wait_for 20 four_started
    # The server of the step's ranks: the parent of one of them.
    kill -9 "$(awk '/^PPid/ { print $2 }' "/proc/$(gate_pid)/status")"
    wait_for 20 job_ended "$job"
    is "$(job_state "$job")" Failed "kill -9 of muster-step fails the job"
    like "$(task_output "$job.1"; muster task view "$job.1")" '[Ss]tep' "the message says what was killed"
    wait_for 15 no_leftovers
    is "$(leftovers)" "" "no rank is left of that either"

    new_work
    job=$(submit --numnodes 4 --workdir "$work" mpiexec -n 4 "$work/gate" "$work")
    wait_for 20 four_started
    ok "cancel of an MPI job" muster job cancel "$job"
    wait_for 20 job_ended "$job"
    wait_for 5 no_leftovers
    is "$(leftovers)" "" "leaves no rank on any node"
fi

# ---- stop with jobs that run and jobs that wait ----
new_work
running=$(submit --numnodes 4 --workdir "$work" "$work/gate" "$work")
wait_for 10 gate_started
waiting=$(submit --numnodes 4 true)
said=$(muster cluster stop 2>&1)
like "$said" '1 running job is cancelled' "stop says what it cancels"
is "$(leftovers)" "" "after stop no process of a task is left"
is "$(ls "$MUSTER_DIR/pids")" "" "nor of the cluster"
ok "start again" muster cluster start --quiet
is "$(job_state "$running")" Canceled "the job that ran is Canceled"
wait_for 20 job_ended "$waiting"
is "$(job_state "$waiting")" Finished "the job that waited has run now"
done_testing
