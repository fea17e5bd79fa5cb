#!/bin/bash
# A cluster on this machine: made, started, looked at, stopped; nothing is left of it.
. "$(dirname "$0")/lib.sh"

new_folder
export MUSTER_DIR=$folder/c
track_cluster "$MUSTER_DIR"

one_line_error 1 'no cluster in' "status of a cluster that does not exist" muster cluster status
ok "init makes a cluster" muster cluster init --nodes 3 --cores-per-node 2 --name demo
is "$(jq -r '[.name, .nodes, .cores_per_node] | join(" ")' "$MUSTER_DIR/cluster.json")" "demo 3 2" "cluster.json holds what was chosen"
before=$(cat "$MUSTER_DIR/cluster.json")
ok "init again changes nothing" muster cluster init --nodes 3
one_line_error 1 'has 3 nodes, not 4' "init with other nodes is refused" muster cluster init --nodes 4
is "$(cat "$MUSTER_DIR/cluster.json")" "$before" "and cluster.json is as it was"
is "$(muster cluster status --json | jq -r '[.head.state, .head.pid] | join(" ")')" "dead 0" "before the start the head is dead"

begin=$(now_ms)
ok "start" muster cluster start
took=$(($(now_ms) - begin))
[ $took -lt 3000 ] && pass "it is up in under 3 s" || fail "it is up in under 3 s" "$took ms"
diag "up in $took ms"
json=$(muster cluster status --json)
is "$(jq -r .head.state <<<"$json")" running "the head runs"
is "$(jq -r '[.nodes[].name] | join(" ")' <<<"$json")" "node01 node02 node03" "three nodes are named"
is "$(jq -r '[.nodes[].state] | unique | join(" ")' <<<"$json")" Online "all are Online"
is "$(jq -r '[.nodes[].address] | unique | length' <<<"$json")" 3 "each has an address of its own"
is "$(jq -r '[.nodes[].cores] | unique | join(" ")' <<<"$json")" 2 "each has the cores asked for"
pids=$(jq -r '.head.pid, .supervisor.pid, .nodes[].pid' <<<"$json")
alive=0
for pid in $pids; do [ -d "/proc/$pid" ] && alive=$((alive + 1)); done
is "$alive" 5 "every process that is named lives"
like "$(muster cluster status)" 'node02 +Online +OK' "status for people shows the nodes"

out=$(muster cluster start 2>&1)
like "$out" 'already running' "start on a running cluster says so"
is "$(muster cluster status --json | jq -c '[.head.pid, .supervisor.pid, .nodes[].pid]')" \
    "$(jq -c '[.head.pid, .supervisor.pid, .nodes[].pid]' <<<"$json")" "and leaves every process as it is"

ok "stop" muster cluster stop
# shellcheck disable=SC2086
ok "no process is left" gone $pids
is "$(ls "$MUSTER_DIR/pids")" "" "no pid file is left"
ok "stop again is fine" muster cluster stop

ok "the same cluster starts again" muster cluster start
is "$(muster cluster status --json | jq -r '[.nodes[].state] | unique | join(" ")')" Online "with all nodes Online"
ok "and stops" muster cluster stop

# Bad input: one line that names what is wrong, and nothing is made.
new_folder
one_line_error 2 'nodes.*0.*1 to' "no nodes at all" muster cluster init --dir "$folder/x" --nodes 0
one_line_error 2 'nodes.*abc' "a number that is none" muster cluster init --dir "$folder/x" --nodes abc
one_line_error 2 'nope' "an unknown option" muster cluster init --dir "$folder/x" --nope
[ ! -e "$folder/x" ] && pass "nothing was made" || fail "nothing was made" "$(ls -la "$folder/x")"
long=$folder/$(printf 'x%.0s' {1..100})
one_line_error 1 'too long for a socket' "a folder too long for a socket" muster cluster start --dir "$long"
touch "$folder/file"
one_line_error 1 'file' "a file where the folder should be" muster cluster start --dir "$folder/file"
for i in 1 2 3; do muster cluster start --dir "$folder/same" >"$folder/said.$i" 2>&1 & track_pid $!; starts[i]=$!; done
track_cluster "$folder/same"
bad=0
for pid in "${starts[@]}"; do wait "$pid" || bad=$((bad + 1)); done
is "$bad $(cat "$folder"/said.* | grep -cE 'is up|already running')" "0 3" "three first starts at the same time make one cluster"
muster cluster stop --dir "$folder/same" >"$folder/said.1" 2>&1 & track_pid $!; starts[1]=$!
ok "which can be stopped" muster cluster stop --dir "$folder/same"
wait "${starts[1]}" && rc=0 || rc=$?
is "$rc" 0 "by two at the same time"
muster cluster start --quiet --dir "$folder/same"
dead=$(muster cluster status --dir "$folder/same" --json | jq .supervisor.pid)
kill -9 "$dead"
wait_for 10 gone "$dead"
for i in 1 2; do muster cluster stop --dir "$folder/same" >"$folder/said.$i" 2>&1 & track_pid $!; starts[i]=$!; done
for i in 1 2; do
    wait "${starts[i]}"
    is $? 0 "also when muster-local has died"
done
is "$(ls "$folder/same/pids")" "" "and nothing of it lives"
muster cluster init --dir "$folder/cut" >/dev/null
rm "$folder/cut/cluster.json" "$folder/cut/head/name" "$folder/cut/head/head.crt"
touch "$folder/cut/init.lock"
ok "what an interrupted init has left is completed" muster cluster init --dir "$folder/cut"
ok "... the head's certificate too" test -s "$folder/cut/head/head.crt"
one_line_error 1 'folder of cluster muster' "a head's folder keeps its name" "$MUSTER_BIN/muster-head" init --dir "$folder/cut/head" --name other
mkdir "$folder/others"
echo mine >"$folder/others/hosts"
one_line_error 1 'holds other things' "a folder with other things in it" muster cluster start --dir "$folder/others"
is "$(ls -A "$folder/others"; cat "$folder/others/hosts")" $'hosts\nmine' "nothing in it is touched"
if am_root; then
    user_start
    mkdir -m 755 "$folder/closed"
    one_line_error 1 'ermission denied|cannot be written' "a folder not writable" as_user "$user_bin/muster" cluster start --dir "$folder/closed/c"
    mkdir -m 700 "$folder/private"
    one_line_error 1 'closed to other accounts' "as root, a folder that the head could not reach" muster cluster start --dir "$folder/private/c"
else
    mkdir -m 555 "$folder/closed"
    one_line_error 1 'ermission denied|cannot be written' "a folder not writable" muster cluster start --dir "$folder/closed/c"
fi
new_folder
export MUSTER_DIR=$folder/below/c
track_cluster "$MUSTER_DIR"
ok "start with a umask that closes everything, and a lock in the caller's hand" \
    bash -c 'umask 077; exec 9>"$0"; "$1"/muster cluster start --nodes 1 --quiet' "$folder/lock" "$MUSTER_BIN"
unlike "$(ls -l "/proc/$(muster cluster status --json | jq .supervisor.pid)/fd")" "$folder/lock" \
    "the cluster does not hold on to what its caller had open"
ok "a job runs in it" muster job submit --wait true
ok "and it stops" muster cluster stop
done_testing
