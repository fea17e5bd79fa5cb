#!/bin/bash
# The processes that hold the namespaces are killed: others take their place, in the same namespaces where anything
# still lives there, in new ones where not.
. "$(dirname "$0")/lib.sh"

start_cluster --nodes 2
[ "$(status .kind)" != "one host" ] || skip_all "no namespaces here"

pid_of() { cut -d' ' -f1 "$MUSTER_DIR/pids/$1" 2>/dev/null; }
another() { local pid; pid=$(pid_of "$1"); [ -n "$pid" ] && [ "$pid" != "$2" ] && ! gone "$pid"; }
strike() { # NAME...: kill -9 of all of them at once; until each runs again
    local name
    declare -A was
    for name; do was[$name]=$(pid_of "$name"); done
    kill -9 "${was[@]}"
    for name; do wait_for 15 another "$name" "${was[$name]}" || fail "$name runs again"; done
}
net() { readlink "/proc/$(pid_of "$1")/ns/net"; }
works() {
    wait_for 15 all_online || fail "$1: nodes are online again" "$(muster cluster status 2>&1)"
    ok "$1: a job runs on both nodes" muster job submit --wait --numnodes 2 mpiexec -c 1 true
}

before=$(net node01)
strike node01-anchor
is "$(net node01-anchor)" "$before" "a node's anchor: the new one holds the same namespace"
works "after that"

before=$(net network)
strike network
is "$(net network)" "$before" "the network's anchor: the same"
works "after that"

strike node02-anchor node02
isnt "$(pid_of node02)" "" "anchor and agent: both run again"
works "after that"

strike network head
wait_for 15 head_answers
works "after the network's anchor and the head"

strike network head node01-anchor node01 node02-anchor node02
wait_for 15 head_answers
works "after all of them"

pids=$(cut -d' ' -f1 "$MUSTER_DIR"/pids/*)
ok "stop" muster cluster stop
# shellcheck disable=SC2086
ok "nothing is left" gone $pids

# Two who start the same cluster at once.
muster cluster start --quiet >"$folder/one" 2>&1 &
first=$!
ok "two starts at once: the one" muster cluster start --quiet
wait $first && pass "and the other" || fail "and the other" "$(cat "$folder/one")"
is "$(status '[.nodes[] | select(.health == "OK")] | length')" 2 "there is one cluster"
done_testing
