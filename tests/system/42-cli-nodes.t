#!/bin/bash
# muster node, group and run against a real cluster.
. "$(dirname "$0")/lib.sh"
start_cluster --nodes 3 --cores-per-node 2
m=$MUSTER_BIN/muster
wait_for 20 all_online

# ---- node ----
said=$("$MUSTER_BIN/classic/node" list)
like "$(head -n 1 <<<"$said")" '^Node Name +State' "node list: titles"
like "$(sed -n 2p <<<"$said")" '^-+ ' "... a rule"
is "$(tail -n +3 <<<"$said" | awk '{print $1}' | paste -sd' ')" "node01 node02 node03" "... then a node per line, its name first"
is "$("$m" node list --json | jq -r 'map(.cores) | add')" 6 "node list --json"
is "$("$m" node list 'node[02-03]' --json | jq -r 'map(.name) | join(" ")')" "node02 node03" "nodes by range"
is "$("$m" node list '*3' --json | jq -r 'map(.name) | join(" ")')" "node03" "... by wildcard"
like "$("$m" node view node01)" '^State +: Online$' "node view"
is "$("$m" node listcores | tail -n +3 | wc -l)" 6 "node listcores has a line per core"
is "$("$m" node listcores --state idle --json | jq length)" 6 "... by state"
one_line_error 1 'node99' "an unknown node" "$m" node view node99
one_line_error 1 'node99' "... to take offline" "$m" node offline node99
one_line_error 1 'no node matches "x\*"' "a wildcard without match" "$m" node list 'x*'
said=$("$m" node offline node03 --comment "bad cable")
is "$said" "Node node03 is now Offline." "node offline"
is "$("$m" node list --state offline --json | jq -r '.[].comment')" "bad cable" "... with its comment"
fails 0 "... and online again" "$m" node online node03
is "$said" "Node node03 is now Online." "... it says so"
ok "all of them" "$m" node offline --all
is "$("$m" node list --json | jq -r 'map(.state) | unique | .[]')" Offline "... are offline"
ok "and back" "$m" node online --all

# ---- group ----
is "$("$m" group new AzureNodes 'node[01-02]' --description 'the fast ones')" "Group AzureNodes created." "group new"
is "$("$m" group list azurenodes --json | jq -r '.[0].nodes | join(" ")')" "node01 node02" "its nodes, by name without case"
like "$("$m" group list)" 'AzureNodes +2 +node\[01-02\] +the fast ones' "group list"
ok "group add" "$m" group add AzureNodes node03
ok "group remove" "$m" group remove AzureNodes node01,node02
is "$("$m" node list --group AzureNodes --json | jq -r '.[].name')" node03 "node list --group"
said=$("$m" group new azurenodes 2>&1)
isnt $? 0 "a group that is there already is refused"
one_line_error 1 'nothere' "an unknown group" "$m" group delete nothere
one_line_error 1 'node99' "an unknown node" "$m" group add AzureNodes node99
is "$("$m" job submit --follow --nodegroup AZURENODES hostname 2>/dev/null)" node03 "a job in a group"

ok "a name with a blank" "$m" group new "Fast Nodes" node02
is "$("$m" job submit --follow --nodegroup "fast nodes" hostname 2>/dev/null)" node02 "... which a job can ask for"
"$m" group delete "Fast Nodes" >/dev/null

# ---- run ----
is "$("$MUSTER_BIN/classic/clusrun" hostname | sort)" $'node01: node01\nnode02: node02\nnode03: node03' "clusrun: each line after its node's name"
is "$("$m" run --sorted 'echo a; echo b')" "$(for n in 1 2 3; do printf 'node0%s: a\nnode0%s: b\n' $n $n; done)" "--sorted"
is "$("$m" run --collate echo same)" $'----------------\nnode[01-03] (3)\n----------------\nsame' "--collate"
is "$("$m" run --nodes 'node[01-02]' --exclude 'node02' hostname)" "node01: node01" "--nodes and --exclude"
is "$("$m" run --nodegroup AzureNodes hostname)" "node03: node03" "--nodegroup"
is "$("$m" run --nodes node01 --env A=7 --workdir /tmp 'echo $A $PWD')" "node01: 7 /tmp" "--env and --workdir"
fails 3 "the exit code is the worst" "$m" run 'case $(hostname) in node02) exit 3 ;; node03) exit 2 ;; esac'
like "$said" 'node02: exit code 3$' "... and the nodes are named"
is "$("$m" run --json hostname | jq -c 'map(.output)')" '["node01\n","node02\n","node03\n"]' "run --json"
is "$("$m" run --nodes node01 'printf a')" "node01: a" "a last line without its end"
one_line_error 1 'no node is named "node99"' "an unknown node" "$m" run --nodes node99 true
one_line_error 1 'nothere' "an unknown group" "$m" run --nodegroup nothere true

# ---- JSON: what is printed is documented ----
id=$(submit true)
wait_for 20 job_ended "$id"
documented() { # WORDS...: every name in the document stands in docs/json.md
    local missing= name names
    names=$("$m" "$@" | jq -r '.. | objects | keys[]' | sort -u)
    for name in ${names:-nothing-printed}; do
        grep -qE "[\`\"]$name[\`\"]" "$LIB_TOP/docs/json.md" || missing+=" $name"
    done
    is "$missing" "" "JSON of $*: every name is documented"
}
documented job view --json "$id" --detailed --history
documented task view --json "$id.1"
documented job add --json "$("$m" job new --json | jq .id)" true
documented node list --json
documented node listcores --json
documented group list --json
documented run --json true
documented cluster status --json

# Ctrl-C ends the command everywhere.
mark=$LIB_TMP/mark
(trap - INT; exec "$m" run 'echo up; exec sleep 321') >"$mark" 2>&1 &
pid=$!
track_pid $pid
three_up() { [ "$(grep -c up "$mark")" = 3 ]; }
ok "a command runs on three nodes" wait_for 20 three_up
kill -INT $pid
wait $pid
is $? 130 "Ctrl-C: exit code 130"
no_sleep() { ! pgrep -f 'sleep 321'; }
ok "... and nothing of it is left" wait_for 20 no_sleep
done_testing
