#!/bin/bash
# An ordinary user's cluster: everything runs as that user, in a user namespace; nobody else's tasks run.
. "$(dirname "$0")/lib.sh"
am_root || skip_all "the tests as an ordinary user are 10-cluster and 20-restart themselves"

user_start
export MUSTER_DIR=$user_home/c
track_cluster "$MUSTER_DIR"
muster() { as_user "$user_bin/muster" "$@"; }

ok "start" muster cluster start --quiet
json=$(muster cluster status --json)
is "$(jq -r '[.nodes[].state] | unique | join(" ")' <<<"$json")" Online "all nodes are Online"
owners=
for pid in $(jq -r '.head.pid, .supervisor.pid, .nodes[].pid' <<<"$json"); do owners="$owners $(stat -c %u "/proc/$pid")"; done
is "$(tr ' ' '\n' <<<"$owners" | sort -u | tr -d '\n')" "$user_id" "every process is that user's"
job=$(muster job submit --wait id -u >/dev/null 2>&1; muster job list --all --json | jq '.[0].id')
is "$(muster task view "$job.1" --output)" "$user_id" "a task runs as that user"
said=$(as_user "$user_bin/muster" run --all hostname 2>&1)
like "$said" 'node04' "a command runs on every node, under the node's name"

said=$(MUSTER_DIR=$MUSTER_DIR "$MUSTER_BIN/muster" job submit --wait id -u 2>&1) && rc=0 || rc=$?
isnt "$rc" 0 "another account's task does not run there"
fails 1 "another account cannot stop it" env MUSTER_DIR="$MUSTER_DIR" "$MUSTER_BIN/muster" cluster stop
like "$said" 'belongs to account' "and is told whose it is"
is "$(muster cluster status --json | jq -r .head.state)" running "it still runs"
ok "its owner stops it" muster cluster stop
# shellcheck disable=SC2046
nothing_left() { gone $(pgrep -u "$user_id"); }
ok "no process of the user is left" nothing_left
done_testing
