#!/bin/bash
# Head, agents and muster-local are killed in the middle of a job: it ends with the right result, having run once.
. "$(dirname "$0")/lib.sh"

start_cluster --nodes 3

# survives WHAT: with the job $job at its gate, does what the function `strike` does, opens the gate, looks at the end.
survives() {
    local what=$1 job
    new_work
    job=$(submit --workdir "$work" "$work/gate" "$work")
    wait_for 10 gate_started || fail "the job starts before $what" "$(muster job view "$job" 2>&1)"
    strike
    open_gate
    wait_for 30 job_ended "$job"
    is "$(job_state "$job")" Finished "$what: the job ends well"
    is "$(task_output "$job.1")" "the result is 42" "$what: with the right result"
    is "$(wc -l <"$work/runs")" 1 "$what: it ran once"
    is "$(task_json "$job.1" | jq '.requeue_count + .auto_requeue_count + .retry_count')" 0 "$what: it was not queued again"
}

kill_head() {
    local pid
    pid=$(head_pid)
    kill -9 "$pid"
    wait_for 10 gone "$pid"
    wait_for 10 head_answers
    isnt "$(head_pid)" "$pid" "another head answers"
}
strike() { kill_head; }
survives "kill -9 of the head"
is "$(muster job list --all --json | jq length)" 1 "the job is still listed, once"

agent_back() { local pid; pid=$(node_pid "$1"); [ "$pid" != 0 ] && [ "$pid" != "$2" ]; }
strike() {
    local node pid
    node=$(muster job view "$job" --json | jq -r '.allocation[0].node')
    pid=$(node_pid "$node")
    kill -9 "$pid"
    wait_for 10 agent_back "$node" "$pid"
    isnt "$(node_pid "$node")" "$pid" "another agent runs on $node"
}
survives "kill -9 of the agent"

strike() {
    local node pid
    node=$(muster job view "$job" --json | jq -r '.allocation[0].node')
    pid=$(node_pid "$node")
    kill -9 "$(head_pid)" "$pid"
    wait_for 10 agent_back "$node" "$pid"
    wait_for 10 head_answers
}
survives "kill -9 of head and agent at once"

strike() {
    local pid before
    before=$(muster cluster status --json | jq -c '[.head.pid, .nodes[].pid]')
    pid=$(status .supervisor.pid)
    kill -9 "$pid"
    wait_for 10 gone "$pid"
    is "$(muster cluster status --json | jq -c '[.head.pid, .nodes[].pid]')" "$before" "head and agents outlive muster-local"
    is "$(status .supervisor.state)" dead "status says that muster-local is dead"
    ok "start brings it back" muster cluster start --quiet
    is "$(muster cluster status --json | jq -c '[.head.pid, .nodes[].pid]')" "$before" "which takes over what lives"
    # What it took over, it restarts like its own.
    kill_head
}
survives "kill -9 of muster-local"

strike() {
    kill -9 "$(status .supervisor.pid)" "$(head_pid)"
    wait_for 5 test "$(status .head.state)" = dead
    ok "start on a cluster whose head died brings it back" muster cluster start --quiet
}
survives "kill -9 of muster-local and head"

# A head that was killed between two jobs goes on counting.
first=$(submit true)
kill_head
second=$(submit true)
is "$second" $((first + 1)) "job ids go on"
wait_for 20 job_ended "$second"
is "$(job_state "$second")" Finished "and jobs run"
wait_for 10 all_online
is "$(status '[.nodes[] | select(.state == "Online" and .health == "OK")] | length')" 3 "all nodes are Online at the end"
done_testing
