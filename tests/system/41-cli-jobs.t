#!/bin/bash
# muster job and muster task against a real cluster: what is printed (wording that scripts parse), JSON, exit codes.
. "$(dirname "$0")/lib.sh"
start_cluster --nodes 4 --cores-per-node 2
m=$MUSTER_BIN/muster
job=$MUSTER_BIN/classic/job
task=$MUSTER_BIN/classic/task

# ---- submit ----
said=$("$job" submit /numnodes:1 true)
like "$said" '^Job has been submitted\. ID: [0-9]+\.$' "job submit prints HPC Pack's line"
is "$(wc -l <<<"$said")" 1 "... alone"
fails 0 "--wait returns 0 for a job that ends well" "$m" job submit --wait true
like "$said" 'its output: muster task view [0-9]+\.1' "... and says where the output is"
fails 7 "--wait returns the job's exit code" "$m" job submit --wait exit 7
like "$said" 'job [0-9]+ failed' "... and says that it failed"
fails 7 "... of a command line for the shell too" "$m" job submit --wait 'true; exit 7'
fails 137 "a task that a signal ends" "$m" job submit --wait 'kill -9 $$'
is "$("$m" job submit --follow 'echo one; echo two' 2>/dev/null)" $'one\ntwo' "--follow prints the output and nothing else"
is "$("$m" job submit --follow printf '%s|' 'a b' '$HOME' "it's" '' 2>/dev/null)" "a b|\$HOME|it's||" "several words are kept exactly"
is "$("$m" job submit --follow --jobenv 'A=1;B=2' --env B=3 'echo $A$B' 2>/dev/null)" 13 "a task's variables come after the job's"
is "$("$m" job submit --follow --workdir /tmp pwd 2>/dev/null)" /tmp "--workdir"
is "$("$m" job submit --json --wait true 2>/dev/null | jq -r .state)" Finished "--json --wait gives the job at its end"

# ---- new, add, submit --id ----
said=$("$job" new /jobname:'my job' /numcores:1-4 /priority:AboveNormal+5)
like "$said" '^Created job, ID: [0-9]+\.?$' "job new prints HPC Pack's line"
id=$(awk '{print $4}' <<<"$said")
id=${id%.}
said=$("$job" add "$id" /name:first echo hello)
is "$said" "Task $id.1 added." "job add says which task"
one_line_error 2 "option --numnodes: job $id counts cores: expected --numcores" "a task's unit is its job's" \
    "$m" job add "$id" --numnodes 1 true
is "$("$m" job add "$id" --json 'exit 3' | jq -c '[.job, .task]')" "[$id,2]" "job add --json"
is "$(job_state "$id")" Configuring "a new job is Configuring"
said=$("$job" submit "/id:$id")
is "$said" "Job has been submitted. ID: $id." "job submit /id"
ok "it ends" wait_for 30 job_ended "$id"
is "$(job_state "$id")" Failed "a job with a failed task has failed"

# ---- view ----
said=$("$job" view "$id")
like "$said" '^State +: Failed$' "job view: State"
like "$said" '^Job Name +: my job$' "... the name"
like "$said" '^Priority +: AboveNormal\+5$' "... the priority by name"
is "$(grep -vcE '^[A-Z][A-Za-z ()]+ *:( .*)?$' <<<"$said")" 0 "... every line is Name : value"
is "$(grep -oE '^[^:]*:' <<<"$said" | awk '{print length}' | sort -u | wc -l)" 1 "... aligned"
said=$("$job" view "$id" /history)
for shape in "Created by $("$m" job view "$id" --json | jq -r .owner)" 'Submitted' 'Started' 'Started on node[0-9]+ with [0-9]+ cores' \
    'Ended on node[0-9]+' 'Job Failed'; do
    is "$(grep -cE "^[-0-9/]+ [:0-9]+( [AP]M)?  $shape\$" <<<"$said")" 1 "job view /history: $shape"
done
is "$("$m" job view "$id" --detailed --history --json | jq -r '.task_list | length')" 2 "job view --json --detailed has the tasks"
is "$("$m" job view "$id" --json | jq -r '.min, .max, .unit, .exit_code' | paste -sd' ')" "1 4 core 3" "... sizes and the exit code"
is "$("$m" job listtasks "$id" --format table | awk 'NR > 2 {print $1}' | paste -sd' ')" "$id.1 $id.2" "job listtasks as a table"
is "$("$m" job listtasks "$id" --state failed --json | jq -r '.[].task')" 2 "... by state"
is "$("$m" job listtasks "$id" | grep -c '^Task ID')" 2 "... as a list, the default"
more=$("$m" job new | awk '{ print $4 }')
"$m" job add "$more" true >/dev/null && "$m" job add "$more" true >/dev/null
like "$("$m" job submit --id "$more" --wait 2>&1)" "its tasks: muster job listtasks $more\$" "--wait for several tasks says where to look"
fails 1 "stdout that is closed is a failure" bash -c '"$0" job submit true >&-' "$m"

# ---- task view ----
said=$("$task" view "$id.1")
like "$said" '^State +: Finished$' "task view: State"
like "$said" '^Exit Code +: 0$' "... exit code"
like "$said" '^Allocated Nodes +: node' "... nodes"
is "$(tail -n 1 <<<"$said")" hello "... and the output"
is "$("$m" task view "$id.1" --output)" hello "task view --output is the output alone"
is "$("$m" task view "$id.1" --json | jq -r .output)" hello "task view --json has it too"
fails 3 "task view --follow returns the task's exit code" "$m" task view "$id.2" --follow
big=$(submit 'seq 1 100000')
wait_for 30 job_ended "$big"
is "$("$m" task view "$big.1" --output | cksum)" "$(seq 1 100000 | cksum)" "half a megabyte of output, all of it"

# ---- list ----
slow=$(submit --jobname slow-one --numcores 1 sleep 300)
said=$("$job" list)
is "$(sed -n 2p <<<"$said" | tr -d -- '- ')" "" "job list: titles and a rule"
is "$(awk -v id="$slow" '$1 == id {print $2}' <<<"$said")" slow-one "... then the job"
unlike "$said" "^ *$id " "... without those that have ended"
like "$("$job" list /all)" "^ *$id " "... which /all shows"
is "$("$m" job list --jobname 'slow*' --json | jq -r '.[].id')" "$slow" "by name"
is "$("$m" job list --state Failed --json | jq -r 'map(.state) | unique | .[]')" Failed "by state"
is "$("$m" job list --all --limit 2 --json | jq -r 'map(.id) | . == (. | sort) and length == 2')" true "the newest, oldest first"
is "$("$m" job list --user nobody-at-all --json)" "[]" "an empty list is JSON too"
is "$("$m" job list --jobname slow-one --format list | grep -c '^State  *:')" 1 "as a list"
full=$(submit --numnodes 4 --exclusive true)
like "$("$m" job view "$full")" '^Pending Reason +: .+' "a waiting job says why"
ok "... and can be cancelled" "$m" job cancel "$full"

# ---- waiting, Ctrl-C ----
wait_for 20 job_is "$slow" Running
(trap - INT; exec "$m" job submit --wait --jobname waited sleep 300) >"$LIB_TMP/out" 2>"$LIB_TMP/err" &
pid=$!
track_pid $pid
wait_for 20 grep -q ID: "$LIB_TMP/out"
waited=$(sed -n 's/.*ID: \([0-9]*\)\.$/\1/p' "$LIB_TMP/out")
wait_for 20 job_is "$waited" Running
kill -INT $pid
wait $pid
is $? 130 "Ctrl-C while waiting: exit code 130"
like "$(cat "$LIB_TMP/err")" "Job $waited goes on; cancel it with 'muster job cancel $waited'" "... and how to cancel"
is "$(job_state "$waited")" Running "... and the job goes on"

# ---- cancel, requeue ----
is "$("$job" cancel "$waited" "$slow" /message:enough | wc -l)" 2 "two jobs at once"
ok "a cancelled job ends" wait_for 30 job_is "$waited" Canceled
ok "... the other too" wait_for 30 job_is "$slow" Canceled
like "$("$m" job view "$waited")" 'enough' "... with the message"
ok "job requeue" "$m" job requeue "$slow" --json
ok "... puts it back" wait_for 30 job_is "$slow" Running
ok "task cancel" "$m" task cancel "$slow.1"
ok "a job whose task is cancelled ends" wait_for 30 job_ended "$slow"

# ---- what the head refuses ----
before=$("$m" job list --all --json | jq length)
one_line_error 2 '9.*4|4.*9' "more nodes than there are: the count is named" "$job" submit /numnodes:9 true
one_line_error 2 '100' "more cores than there are" "$job" submit /numcores:100 true
said=$("$m" job submit --nodegroup no-such true 2>&1)
isnt $? 0 "an unknown group is refused"
like "$said" 'no-such' "... by name"
said=$("$m" job submit --requestednodes node77 true 2>&1)
isnt $? 0 "an unknown node is refused"
like "$said" 'node77' "... by name"
one_line_error 1 '999999' "an unknown job" "$m" job view 999999
one_line_error 1 '999999' "... to cancel" "$m" job cancel 999999
one_line_error 1 "$id.9" "an unknown task" "$m" task view "$id.9"
one_line_error 1 "." "a finished job cannot be cancelled" "$m" job cancel "$big"
one_line_error 1 "." "... nor submitted again" "$m" job submit --id "$big"
is "$("$m" job list --all --json | jq length)" "$before" "nothing of this has made a job"
one_line_error 2 'option /scheduler: "elsewhere": expected' "another cluster's name" "$m" job list --scheduler elsewhere
ok "... and this one's" "$m" job list --scheduler localhost

# ---- terminals: columns fit, colours only there ----
on_terminal() { # COLUMNS WORDS...: muster on a terminal that wide
    local width=$1
    shift
    TERM=xterm script -qec "stty cols $width; $m $*" /dev/null | tr -d '\r'
}
if command -v script >/dev/null; then
    submit --jobname "$(printf 'x%.0s' {1..80})" true >/dev/null
    for width in 60 80 120; do
        widest=$(on_terminal $width job list --all | sed 's/\x1b\[[0-9]*m//g' | awk '{ if (length > n) n = length } END { print n }')
        ok "job list fits $width columns" test "$widest" -le $width
    done
    "$m" job submit --wait no-such-program >/dev/null 2>&1
    like "$(on_terminal 100 job list --all)" 'task 1: node0[0-9]: cannot' "the reason is more than a word or two"
    like "$(on_terminal 80 job list --all)" $'\x1b' "colours on a terminal"
    unlike "$(NO_COLOR=1 on_terminal 80 job list --all)" $'\x1b' "... but not with NO_COLOR"
    unlike "$(on_terminal 80 job list --all --no-color)" $'\x1b' "... nor with --no-color"
    unlike "$("$m" job list --all)" $'\x1b' "... nor in a pipe"
    like "$(on_terminal 80 job submit --wait sleep 1)" 'Running on node' "--wait shows progress on a terminal"
fi

# ---- other users ----
if am_root; then
    user_start
    one_line_error 1 "job $big: only its owner" "another's job cannot be cancelled" as_user muster job cancel "$big"
    one_line_error 1 "only the owner of job $big" "... nor its output read" as_user muster task view "$big.1" --output
    is "$(as_user muster job list --json)" "[]" "one's own jobs are listed, no others"
    one_line_error 1 "only an administrator" "nodes are for administrators" as_user muster node offline node01
    one_line_error 1 "only an administrator" "... groups too" as_user muster group new mine node01
    one_line_error 1 "only an administrator" "... and muster run" as_user muster run id
fi

# ---- a waiting client survives the head ----
"$m" job submit --follow 'echo begin; sleep 2; echo end' >"$LIB_TMP/out" 2>"$LIB_TMP/err" &
pid=$!
track_pid $pid
wait_for 20 grep -q begin "$LIB_TMP/out"
kill -9 "$(head_pid)"
wait $pid
is $? 0 "a wait goes through a restart of the head"
is "$(cat "$LIB_TMP/out")" $'begin\nend' "... and misses no output"
done_testing
