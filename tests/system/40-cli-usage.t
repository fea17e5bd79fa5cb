#!/bin/bash
# The command line without a cluster: every mistake is one line that names it, exit code 2; help; manual pages.
. "$(dirname "$0")/lib.sh"

export MUSTER_DIR=$LIB_TMP/none
m=$MUSTER_BIN/muster

# ---- mistakes ----
# Each line: exit code, regular expression, the words after muster.
while IFS='|' read -r code regex words; do
    [ -n "$code" ] || continue
    eval "set -- $words"
    one_line_error "$code" "$regex" "muster $words" "$m" "$@"
done <<'TABLE'
2|unknown command "jb"; did you mean job|jb
2|unknown command "frobnicate"|frobnicate
2|unknown option "--frobnicate"|--frobnicate
2|muster job: unknown command "sumbit"; did you mean submit|job sumbit
2|muster job: clone is not supported in this version|job clone 3
2|muster job: FINISH is not supported|JOB FINISH 3
2|unknown option --numnods; did you mean --numnodes|job submit --numnods 4 true
2|unknown option /numnods; did you mean /numnodes|job submit /numnods:4 true
2|unknown option --name; did you mean --jobname|job new --name x
2|unknown option /script|job submit /script
2|option /numnodes: "0": expected MIN|job submit /numnodes:0 true
2|option /numnodes: "4-2": expected MIN|job submit /numnodes:4-2 true
2|option /numnodes: "abc": expected MIN|job submit /numnodes:abc true
2|option /numnodes: "": expected MIN|job submit /numnodes: true
2|option /NumNodes: "-1": expected MIN|job submit /NumNodes:-1 true
2|option --numcores: "1.5": expected MIN|job submit --numcores 1.5 true
2|option --numcores: "99999999999999999999": expected MIN|job submit --numcores=99999999999999999999 true
2|option /numprocessors: "x": expected MIN|job submit /numprocessors:x true
2|options --numcores and --numnodes: expected one|job submit --numcores 2 --numnodes 2 true
2|option --numnodes needs a value: --numnodes MIN|job submit --numnodes
2|option /numnodes needs a value: /numnodes:MIN|job submit /numnodes 4 true
2|option --priority: "4001": expected 0 to 4000|job submit --priority 4001 true
2|option --priority: "urgent": expected 0 to 4000|job submit --priority urgent true
2|option /runtime: "1:2:3:4": expected|job submit /runtime:1:2:3:4 true
2|option /runtime: "0": expected|job submit /runtime:0 true
2|option /runtime: "soon": expected|job submit /runtime:soon true
2|option --jobenv: "A": expected NAME=VALUE|job submit --jobenv A true
2|option --env: "CCP_JOBID=7": .*reserved|job submit --env CCP_JOBID=7 true
2|option --exclusive: "perhaps": expected true or false|job submit --exclusive=perhaps true
2|option /license is not supported in this version|job submit /license:x:1 true
2|option /holduntil is not supported in this version|job submit /holduntil:10 true
2|option /jobfile is not supported in this version|job submit /jobfile:a.xml
2|option /parametric is not supported in this version|job submit /parametric:1-10 true
2|option /nodegroupop: "Union": expected Intersect|job submit /nodegroupop:Union true
2|option /jobtemplate: "fast": expected Default|job submit /jobtemplate:fast true
2|option --type: "Service": expected Basic|job submit --type Service true
2|option /nodegroup: "a,,b": expected names|job submit /nodegroup:a,,b true
2|option --requestednodes: node name "node\[4-1\]": expected a range|job submit '--requestednodes=node[4-1]' true
2|option --jobname: ".*": expected at most 80|job submit --jobname xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx true
2|option --name: "a,b": expected a name without commas|job submit --name a,b true
2|the command to run is missing|job submit --numnodes 2
2|command line is empty|job submit ''
2|option --id: job id "x": expected a number|job submit --id x
2|option --id: "3": expected no command beside it|job submit --id 3 true
2|option --id: "3": changing a job.s options|job submit --id 3 --numnodes 2
2|options --follow and --json: expected one|job submit --follow --json true
2|job id "abc": expected a number|job view abc
2|job id "0": expected a number|job view 0
2|job id "1.1": expected a number|job cancel 2 1.1
2|the job id is missing|job view
2|unexpected "2"|job view 1 2
2|option --state: "Sleeping": expected states|job list --state Sleeping
2|option --format: "xml": expected list or table|job list --format xml
2|option --limit: "0": expected a number from 1|job list --limit 0
2|task id "12": expected JOB.TASK|task view 12
2|task id "12.0": expected JOB.TASK|task cancel 12.0
2|task id "1.2.3": subtasks are not supported|task view 1.2.3
2|the job id or the command is missing|job add 12
2|option --numcores: "\*": expected MIN|job add 12 --numcores '*' true
2|expected either node names or --all|node offline
2|expected either node names or --all|node online --all node01
2|option --state: "Up": expected Online|node list --state Up
2|node: approve is not supported|node approve n1
2|the command to run is missing|run --all
2|options --all and --nodes: expected one|run --all --nodes a true
2|--sorted, --interleaved and --collate: expected one|run --sorted --collate true
2|option --outputdir is not supported|run --outputdir /tmp true
2|group name|group new -- -x
1|no cluster in .*none; start one with 'muster cluster start'|job list
1|no cluster in .*none; start one with 'muster cluster start'|run hostname
1|no cluster in /nowhere/x; start|node list --dir /nowhere/x
TABLE

mkdir "$LIB_TMP/stopped"
one_line_error 1 "the cluster in .*stopped has no running head; start it with" "a cluster without a head" \
    "$m" job list --dir "$LIB_TMP/stopped"
said=$("$m" job view $'1\e[2J' 2>&1)
like "$said" '"1\\x1b\[2J"' "control characters of a bad value are shown, not sent"

# ---- help ----
fails 2 "muster alone prints short help" "$m"
like "$said" '^  job ' "... with the commands"
fails 2 "a noun alone prints its help" "$m" job
ok "muster --version" "$m" --version
ok "muster help" "$m" help
for noun in cluster job task node group run; do
    ok "muster help $noun" "$m" help $noun
    ok "muster $noun --help" "$m" $noun --help
    ok "muster $noun /?" "$m" $noun '/?'
done
like "$("$m" job submit --help)" '^  muster job submit \[options\] COMMAND' "help of a command shows its usage"
like "$("$m" help job submit)" '--nodegroup GROUPS' "... and its options"
like "$("$m" JOB Submit /HELP)" '^Examples' "... in any case, with /help"
like "$("$m" job help submit)" '^Examples' "... and as muster job help submit"

said=$("$m" help 2>&1 >/dev/full)
is "$?: $said" "1: muster: cannot write the output: No space left on device" "output that cannot be written is a failure"

# ---- classic names ----
for name in job task node clusrun; do
    ok "$name --help" "$MUSTER_BIN/classic/$name" --help
done
one_line_error 2 '^job submit: option /numnodes: "0"' "a classic name speaks for itself" \
    "$MUSTER_BIN/classic/job" submit /numnodes:0 true

# ---- the folder ----
one_line_error 1 "no cluster in $LIB_TMP/rel;" "a relative --dir counts from here" "$m" job list --dir rel
one_line_error 1 "no cluster in $LIB_TMP/b;" "--dir goes before MUSTER_DIR" env MUSTER_DIR="$LIB_TMP/a" "$m" job list --dir b
if am_root; then
    user_start
    unset MUSTER_DIR
    one_line_error 1 "no cluster in $user_home/.local/state/muster;" "the default folder of a user" as_user muster job list
    one_line_error 1 "no cluster in /x/muster;" "... with XDG_STATE_HOME" as_user env XDG_STATE_HOME=/x muster job list
    said=$(XDG_STATE_HOME=/x "$m" job list --scheduler no-such-cluster 2>&1)
    like "$said" '/var/lib/muster/default' "the default folder of root"
fi

# ---- manual pages: every option in a program's help stands in its page ----
pages=$LIB_TOP/docs/man
for program in mpiexec muster-head muster-node muster-local; do
    if [ ! -x "$MUSTER_BIN/$program" ]; then
        skip "manual of $program" "not built"
        continue
    fi
    page=$(ls "$pages/$program".[18])
    missing=
    for option in $("$MUSTER_BIN/$program" --help | grep -oE '(^|[ ,])--?[a-z][a-z-]*' | tr -d ' ,' | sort -u); do
        sed 's/\\-/-/g' "$page" | grep -qF -- "$option" || missing+=" $option"
    done
    is "$missing" "" "manual of $program has every option of its help"
done
if command -v man >/dev/null; then
    for page in "$pages"/*.[18] "$(dirname "$MUSTER_BIN")"/docs/man/*.1; do
        is "$(man --warnings -l "$page" 2>&1 >/dev/null | head -n 3)" "" "$(basename "$page") is clean roff"
    done
fi
done_testing
