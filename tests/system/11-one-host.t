#!/bin/bash
# Where namespaces are not to be had, nodes are processes on 127.0.0.x.
. "$(dirname "$0")/lib.sh"

start_cluster --nodes 2 --no-namespaces
is "$(status .kind)" "one host" "status says so"
like "$(muster cluster status)" 'one host: processes on 127.0.0.x' "for people too"
is "$(status '[.nodes[].address] | join(" ")')" "127.0.0.11 127.0.0.12" "each node has an address of its own"
ok "a job runs" muster job submit --wait --numnodes 2 true
for family in openmpi mpich; do
    if [ -x "$MUSTER_BIN/mpipingpong.$family" ]; then
        ok "mpipingpong runs between them ($family)" \
            muster job submit --wait --numnodes 2 mpiexec -c 1 "mpipingpong.$family" -p 1:100 nul
    else
        skip "mpipingpong between them" "$family is not here"
    fi
done
pid=$(head_pid)
kill -9 "$pid"
wait_for 10 gone "$pid"
wait_for 10 head_answers
wait_for 10 all_online
ok "after a kill -9 of the head the nodes find it again, and a job runs" muster job submit --wait --numnodes 2 true
new_work
job=$(submit --workdir "$work" "$work/gate" "$work")
wait_for 10 gate_started
ok "stop with a job" muster cluster stop
wait_for 5 no_leftovers
is "$(leftovers)" "" "no process is left"
ok "start again" muster cluster start --quiet
is "$(job_state "$job")" Canceled "that job was cancelled"

# Without a head nobody cancels the job, and without namespaces nothing else ends its processes.
new_work
submit --workdir "$work" "$work/gate" "$work" >/dev/null
wait_for 10 gate_started
local_pid=$(status .supervisor.pid) head=$(head_pid)
kill -9 "$local_pid" "$head"
wait_for 10 gone "$local_pid" "$head"
ok "stop with a job and without a head" muster cluster stop
is "$(leftovers)" "" "no process is left of that either"
done_testing
