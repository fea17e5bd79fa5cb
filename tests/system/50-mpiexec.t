#!/bin/bash
# mpiexec outside an allocation: unmodified programs of both MPI families, output, input, faults.
. "$(dirname "$0")/lib.sh"
PATH=$MUSTER_BIN:$PATH
export HOME=$LIB_TMP
host=$(hostname)
# Sleeping ranks are told from those of other tests at the same time by how long they sleep.
nap=47$$
families=
for f in mpich openmpi; do
    command -v "mpicc.$f" >/dev/null && "mpicc.$f" "$LIB_TOP/tests/system/allreduce.c" -o "ar.$f" && families+=" $f"
done
[ -n "$families" ] || skip_all "no MPI compiler here"

# took COMMAND...: runs it, milliseconds in $ms, output in $said, exit code in $rc.
took() {
    local from
    from=$(now_ms)
    said=$("$@" 2>&1) && rc=0 || rc=$?
    ms=$(($(now_ms) - from))
}
nothing_left() { # DESCRIPTION PATTERN
    if wait_for 1 eval "! pgrep -f '$2'"; then pass "$1"; else fail "$1" "$(pgrep -af "$2")"; fi
}

# ---- both families ----
for f in $families; do
    for n in 1 2 4; do
        want=$(for ((i = 0; i < n; i++)); do echo "rank $i of $n sum $n"; done)
        took mpiexec -n $n ./ar.$f
        is "$rc $(sort <<<"$said")" "0 $want" "$f: $n ranks find each other"
    done
    fails 7 "$f: MPI_Abort's code is mpiexec's" mpiexec -n 2 ./ar.$f abort 1
    like "$said" "mpiexec: rank 1 on $host called MPI_Abort with code 7" "$f: and its message names the rank"
    fails 253 "$f: a rank that leaves before MPI_Finalize ends the step" mpiexec -n 2 ./ar.$f early 1
    like "$said" "mpiexec: rank 1 on $host exited with code 0 before MPI_Finalize; the step was ended" "$f: and is named"
    fails 3 "$f: a code after MPI_Finalize is passed on" mpiexec -n 2 ./ar.$f code 1 3
    like "$said" "mpiexec: rank 1 on $host exited with code 3" "$f: and told"
    is "$(grep -c '^rank' <<<"$said")" 2 "$f: while the other rank's output is whole"
done
if [ "$families" = " mpich openmpi" ]; then
    fails 255 "two families in one step are refused" mpiexec -n 1 ./ar.mpich : -n 1 ./ar.openmpi
    like "$said" "mixed MPI families in one step: rank 0 on $host speaks PMI-1.*, rank 1 on $host speaks PMIx" "by rank"
fi
is "$(find /tmp -maxdepth 1 -name 'mpi-*' -user "$(id -u)" -newer ar.* 2>/dev/null)" "" "no folder is left in /tmp"

# ---- output and input ----
is "$(mpiexec -n 2 -l sh -c 'echo a; echo b >&2' 2>/dev/null | sort)" $'[0] a\n[1] a' "-l puts the rank before each line"
is "$(printf 'one\ntwo' | mpiexec -n 3 cat)" $'one\ntwo' "stdin goes to rank 0 alone"
is "$(mpiexec -n 1 sh -c 'read -r x; echo "got $x"' </dev/null)" "got " "an empty stdin ends at once"
is "$(mpiexec -n 1 printf 'no newline')" "no newline" "an unfinished last line is written"
mpiexec -n 4 sh -c 'i=0; while [ $i -lt 2000 ]; do echo "rank $PMI_RANK line $i"; i=$((i+1)); done' >lines
is "$(wc -l <lines)" 8000 "four ranks, 2000 lines each: none is lost"
is "$(grep -cvE '^rank [0-3] line [0-9]+$' lines)" 0 "and none is torn"
ordered=0
for r in 0 1 2 3; do
    [ "$(grep "^rank $r " lines | cut -d' ' -f4)" = "$(seq 0 1999)" ] && ordered=$((ordered + 1))
done
is $ordered 4 "each rank's lines are in their order"
head -c 200000000 /dev/zero | tr '\0' 'x' | md5sum | cut -d' ' -f1 >want
is "$(mpiexec -n 1 sh -c 'head -c 200000000 /dev/zero | tr "\0" x' | md5sum | cut -d' ' -f1)" "$(cat want)" "200 MB of output"
is "$(head -c 200000000 /dev/zero | tr '\0' 'x' | mpiexec -n 2 sh -c '[ $PMI_RANK = 1 ] || md5sum' | cut -d' ' -f1)" "$(cat want)" \
    "200 MB of input"
# A reader that does not read: the ranks stand still, mpiexec does not grow.
mkfifo slow
mpiexec -n 2 sh -c 'exec yes' >slow 2>/dev/null &
slow_pid=$!
LIB_PIDS=("$slow_pid:$(started $slow_pid)") # not disowned: its exit code is wanted
exec 5<slow
read -r _ <&5
settled() { # its processor time does not move any more
    local a b
    a=$(awk '{print $14+$15}' /proc/$slow_pid/stat)
    tick
    b=$(awk '{print $14+$15}' /proc/$slow_pid/stat)
    [ "$a" = "$b" ]
}
wait_for 20 settled
rss=$(awk '/VmRSS/{print $2}' /proc/$slow_pid/status)
[ "$rss" -lt 40000 ] && pass "a slow reader does not make mpiexec grow" || fail "a slow reader" "$rss kB"
exec 5<&-
wait $slow_pid
rc=$?
LIB_PIDS=()
is $rc 141 "a reader that leaves ends the step as a pipe does"
is "$(mpiexec -n 2 yes 2>&1 | head -n 1)" y "also under head"

# ---- where and with what ----
is "$(mpiexec -n 1 pwd)" "$LIB_TMP" "runs in mpiexec's folder"
is "$(mpiexec -n 1 -wdir / pwd)" / "-wdir"
is "$(VIA=env mpiexec -genv A 1 -n 1 -env B 2 sh -c 'echo $VIA $A $B' : -n 1 sh -c 'echo $A $B' | sort)" $'1\nenv 1 2' \
    "environment, -genv, -env"
only_standard() ( # COMMAND...: without what the test itself was given
    for f in "/proc/$BASHPID/fd"/*; do
        [ "${f##*/}" -le 2 ] || [ "${f##*/}" = 255 ] || eval "exec ${f##*/}>&-"
    done
    exec "$@"
)
is "$(only_standard mpiexec -n 1 sh -c 'ls /proc/$$/fd; :' | xargs)" "0 1 2 3" \
    "a rank gets its standard descriptors and its PMI socket, nothing of mpiexec's own"
printf 'echo script\n' >a-script && chmod +x a-script
is "$(mpiexec -n 1 a-script)" script "a script without #!, found in the folder"
is "$(mpiexec -n 3 -affinity sh -c 'taskset -pc $$ | sed "s/.*: //"' | sort -u | grep -c '^[0-9]*$')" \
    "$(n=$(nproc); echo $((n < 3 ? n : 3)))" "-affinity binds each rank to one processor, spread"

# ---- faults ----
took mpiexec -n 3 sh -c '[ $PMI_RANK = 1 ] && kill -9 $$; exec sleep '$nap
is "$rc" 137 "a killed rank: 128 + signal"
is "$said" "mpiexec: rank 1 on $host was killed by signal 9 (Killed); the step was ended" "is named"
[ $ms -lt 1000 ] && pass "within a second" || fail "within a second" "$ms ms"
took mpiexec -n 3 sh -c '[ $PMI_RANK = 2 ] && exit 5; exec sleep '$nap
is "$rc $said" "5 mpiexec: rank 2 on $host exited with code 5; the step was ended" "a non-zero exit ends the step"
[ $ms -lt 1000 ] && pass "within a second" || fail "within a second" "$ms ms"
one_line_error 255 "rank 0 on $host cannot be started: cannot find program no-such-program in PATH" "a missing program" \
    mpiexec -n 2 no-such-program
one_line_error 255 "cannot execute ./no-such in work directory $PWD: No such file" "a path below the work directory" mpiexec -n 2 ./no-such
one_line_error 255 "cannot be started: cannot execute /no/such: No such file" "a missing path" mpiexec -n 2 /no/such
one_line_error 255 "cannot be started: cannot enter work directory /no/where: No such file" "a missing folder" \
    mpiexec -n 2 -wdir /no/where true
one_line_error 254 "took longer than 1 s" "-timeout" mpiexec -timeout 1 -n 2 sleep $nap
begin() { # COMMAND...: in the background, its exit code wanted
    "$@" >out 2>&1 &
    pid=$!
    LIB_PIDS+=("$pid:$(started $pid)")
}
finish() { # -> $rc $said $ms
    local from
    from=$(now_ms)
    wait_for 20 gone $pid || kill -9 $pid
    wait $pid
    rc=$?
    ms=$(($(now_ms) - from))
    said=$(cat out)
}
napping() { [ "$(pgrep -fc "^sleep $nap")" -ge 2 ]; }
# What a shell starts in the background ignores SIGINT, and mpiexec would too.
for sig in INT TERM; do
    begin env --default-signal=INT mpiexec -n 2 sh -c "trap '' TERM; sleep $nap & wait; sleep $nap"
    wait_for 20 napping
    kill -s $sig $pid
    finish
    like "$said" "interrupted by signal" "SIG$sig ends it"
    [ $ms -lt 1500 ] && pass "within a second" || fail "within a second" "$ms ms"
done
begin env --ignore-signal=HUP mpiexec -n 1 sh -c "while [ ! -e go ]; do sleep 0.01; done; echo went on"
wait_for 20 pgrep -P $pid
kill -s HUP $pid
touch go
finish
is "$rc $said" "0 went on" "a hangup that nohup ignores is ignored"
begin mpiexec -n 1 sh -c 'exec <&-; echo begun; exec sleep '$nap </dev/zero
wait_for 20 grep -q begun out
kill -s TERM $pid
finish
like "$said" "interrupted by signal" "endless input that a rank does not want does not keep mpiexec from its signals"
begin mpiexec -n 1 sh -c 'echo $$ >holder; while [ ! -e let-go ]; do sleep 0.01; done; echo last words'
wait_for 20 test -s holder
exec 7>/proc/"$(cat holder)"/fd/1 # a pipe of the rank's, held by a stranger to the step
touch let-go
finish
exec 7>&-
is "$rc $said" "0 last words" "a rank's output that somebody else holds open does not keep the step"
for early in INT TERM; do # as early as can be: the ranks may not have become leaders of their groups
    for i in 1 2 3 4 5; do
        begin env --default-signal=INT mpiexec -n 4 sleep $nap
        wait_for 20 pgrep -P $pid
        kill -s $early $pid
        finish
        [ "$ms" -lt 5000 ] || break
    done
    [ "$ms" -lt 5000 ] && pass "SIG$early just after the start ends it too" || fail "SIG$early just after the start" "$ms ms"
done
mpiexec -n 2 sh -c "setsid sleep $nap & sleep $nap & exit 0"
is $? 0 "ranks that leave processes behind"
mpiexec -n 2 sleep $nap &
pid=$!
wait_for 5 pgrep -f "^sleep $nap"
kill -9 $pid
nothing_left "kill -9 of mpiexec takes its ranks along, and nothing is left over from anything above" "^sleep $nap"
like "$(mpiexec -n 2 sh -c 'printf "cmd=nonsense\n" >&3; sleep '$nap 2>&1)" \
    "mpiexec: rank [01] on $host broke the PMI conversation: PMI command .nonsense. before init; the step was ended" \
    "a rank that sends nonsense ends its step, not the server"

init='cmd=init pmi_version=1 pmi_subversion=1\n'
took mpiexec -n 2 sh -c "[ \$PMI_RANK = 0 ] || { printf '$init' >&3; exec 3>&-; }; exec sleep $nap"
is "$rc $said" "253 mpiexec: rank 1 on $host closed its PMI connection before MPI_Finalize; the step was ended" \
    "a rank that hangs up on its server"

took mpiexec -timeout 1 -n 1 sh -c "printf '$init' >&3; cat <&3 >/dev/null & exec yes cmd=get_maxes >&3"
is "$rc $((ms < 4000))" "254 1" "a rank that never stops asking keeps nobody from ending it"
zombies='for i in 1 2 3 4 5 6; do (sleep 0.01 &); done; for i in 1 2 3 4 5 6 7 8 9 10; do
    [ "$(ps -o stat= --ppid $PPID | grep -c Z)" = 0 ] && echo none && break; sleep 0.3; done'
is "$(mpiexec -n 1 sh -c "sleep 0.1; $zombies")" none "orphans of a rank are waited for while it runs"
if [[ $families = *openmpi* ]]; then
    # Whoever knows the name of the namespace can pose as a rank.
    said=$(mpiexec -n 1 sh -c 'echo "$PMIX_NAMESPACE"; env | grep -F "/tmp/mpi-" | head -n 1' 2>&1)
    name=$(head -n 1 <<<"$said")
    ok "the PMIx namespace is not told by the name of a folder in /tmp" \
        eval '[ -n "$name" ] && [[ $said = *"/tmp/mpi-"* ]] && ! tail -n 1 <<<"$said" | grep -qF "${name#muster-}"'
fi

# ---- the command line ----
one_line_error 2 "option -tracefile is not supported in this version" "an option of later is refused by name" mpiexec -tracefile t true
one_line_error 2 "unknown option -bogus" "an unknown one too" mpiexec -bogus true
one_line_error 2 'option -n: "0" is not' "no ranks" mpiexec -n 0 true
one_line_error 2 'host "elsewhere" is not part of this run' "another host" mpiexec -host elsewhere true
one_line_error 2 "no program to run" "nothing to run" mpiexec -n 2
ok "--help" mpiexec --help

# ---- another user ----
if am_root; then
    # The rank plays the stranger: it knows the port, and is somebody else.
    cat >stranger <<'S'
port=${PMIX_SERVER_URI4##*:}
try() { exec 4<>"/dev/tcp/127.0.0.1/$port"; read -rt 1 -n 1 <&4; [ $? -gt 128 ] && echo "$1 waits" || echo "$1 refused"; }
export port
setpriv --reuid 23456 --regid 23456 --clear-groups bash -c "$(declare -f try); try other"
try same
S
    said=$(mpiexec -n 1 -verbose bash stranger 2>&1)
    like "$said" "other refused" "another user's connection to the PMIx server is closed"
    like "$said" "a connection of user 23456 was refused" "and told with -verbose"
    like "$said" "same waits" "the rank's own is not"
else
    skip "another user's connection to the PMIx server is closed" "needs root"
fi
done_testing
