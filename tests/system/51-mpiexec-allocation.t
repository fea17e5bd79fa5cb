#!/bin/bash
# mpiexec inside an allocation: the tree of step servers, without head and agents (tests/unit/allocation.c
# does what a keeper and an agent would).
. "$(dirname "$0")/lib.sh"
export HOME=$LIB_TMP
chmod 755 "$LIB_TMP"
allocation=$MUSTER_BIN/../tests/unit/allocation
[ -x "$allocation" ] || skip_all "no $allocation"
if am_root; then # steps do not run as root: the allocation becomes nobody, who must reach the programs
    if ! setpriv --reuid 65534 --regid 65534 --clear-groups test -x "$MUSTER_BIN/mpiexec"; then
        cp -R "$MUSTER_BIN" "$LIB_TMP/bin"
        cp "$allocation" "$LIB_TMP/allocation"
        MUSTER_BIN=$LIB_TMP/bin allocation=$LIB_TMP/allocation
    fi
fi
PATH=$MUSTER_BIN:$PATH
families=
for f in mpich openmpi; do
    command -v "mpicc.$f" >/dev/null && "mpicc.$f" "$LIB_TOP/tests/system/allreduce.c" -o "ar.$f" && families+=" $f"
done
mkdir probe
ok "the probe writes topology and template" muster-step --probe --out probe
is "$(ls probe)" $'pmix.env\ntopology.xml' "both files"
if am_root; then
    mkdir -m 777 nameless
    ok "also as a user without account and home" setpriv --reuid 23456 --regid 23456 --clear-groups \
        env -u HOME "$MUSTER_BIN/muster-step" --probe --out nameless
else
    skip "also as a user without account and home" "needs root"
fi
like "$(cat probe/pmix.env)" 'PMIX_RANK=@RANK@' "with words for what differs"
chmod -R a+rX probe
export ALLOCATION_XML=$LIB_TMP/probe/topology.xml
# Every process of this test carries its mark: other clusters' processes on this machine are not ours to count or kill.
export ALLOCATION_MARK=$LIB_TMP
ours() { # NAME: pids of this test's processes of that name
    local p
    for p in $(pgrep -x "$1"); do
        tr '\0' '\n' <"/proc/$p/environ" 2>/dev/null | grep -qxF "ALLOCATION_MARK=$LIB_TMP" && echo "$p"
    done
    return 0
}
# Sleeping ranks are told from those of other tests at the same time by how long they sleep.
nap=48$$
mkdir -m 1777 tmp
alloc() { TMPDIR=$LIB_TMP/tmp "$allocation" "$@"; }
took() {
    local from
    from=$(now_ms)
    said=$("$@" 2>&1) && rc=0 || rc=$?
    ms=$(($(now_ms) - from))
}
in_time() { if [ $ms -lt "$1" ]; then pass "$2"; else fail "$2" "$ms ms"; fi; }

# ---- both families over nodes ----
for f in $families; do
    for shape in "1 2" "2 1" "2 2" "4 1"; do
        set -- $shape
        n=$(($1 * $2))
        took alloc $1 $2 mpiexec "$LIB_TMP/ar.$f"
        is "$rc $(sort <<<"$said")" "0 $(for ((i = 0; i < n; i++)); do echo "rank $i of $n sum $n"; done)" \
            "$f: $1 nodes with $2 cores"
    done
    took alloc 3 1 mpiexec "$LIB_TMP/ar.$f" abort 2
    is "$rc" 7 "$f: MPI_Abort on another node"
    like "$said" "mpiexec: rank 2 on node03 called MPI_Abort with code 7" "$f: is named with rank and node"
done
case $families in *openmpi*)
    took alloc 3 1 mpiexec -env OMPI_MCA_pmix_base_collect_data 0 "$LIB_TMP/ar.openmpi"
    is "$rc $(wc -l <<<"$said")" "0 3" "openmpi: addresses are fetched on demand (direct modex)"
    took alloc 40 1 mpiexec -hosts 3 node01 node34 node40 "$LIB_TMP/ar.openmpi"
    is "$rc $(wc -l <<<"$said")" "0 3" "openmpi: three nodes out of forty" ;;
esac
if [ "$families" = " mpich openmpi" ]; then
    took alloc 2 1 mpiexec -n 1 "$LIB_TMP/ar.mpich" : -n 1 "$LIB_TMP/ar.openmpi"
    like "$said" "rank 0 on node01 speaks PMI-1.*, rank 1 on node02 speaks PMIx" "mixed families over two nodes"
fi

# ---- who runs where ----
where='echo $PMIX_HOSTNAME'
is "$(alloc 4 2 mpiexec -l sh -c "$where" | sort)" "$(for i in 0 1 2 3 4 5 6 7; do echo "[$i] node0$((i / 2 + 1))"; done)" \
    "no -n: a rank per core, block-wise"
is "$(alloc 4 2 mpiexec -c 1 sh -c "$where" | sort)" "$(seq -f node0%g 4)" "-c 1: one per node"
is "$(alloc 3 1 mpiexec -n 5 -l sh -c "$where" | sort)" $'[0] node01\n[1] node02\n[2] node03\n[3] node01\n[4] node02' \
    "more ranks than cores: from the first node again"
is "$(alloc 4 2 mpiexec -hosts 2 node03 2 node02 sh -c "$where" | sort)" $'node02\nnode03\nnode03' "-hosts, without the first node"
is "$(alloc 40 1 mpiexec sh -c "$where" | sort)" "$(seq -f node%02g 40)" "forty nodes: a tree of three levels"
is "$(alloc 2 2 mpiexec -l sh -c 'echo $OMPI_COMM_WORLD_LOCAL_RANK/$MPI_LOCALNRANKS of $PMI_SIZE' | sort)" \
    $'[0] 0/2 of 4\n[1] 1/2 of 4\n[2] 0/2 of 4\n[3] 1/2 of 4' "a rank knows its place on its node"
took alloc 2 1 mpiexec -host node03 true
is "$rc $said" '2 mpiexec: host "node03" is not one of the 2 nodes of this allocation (node01 .. node02)' "a foreign host"
is "$(printf 'a\nb' | alloc 3 1 mpiexec -host node03 cat)" $'a\nb' "stdin reaches rank 0 on another node"
is "$(A=1 alloc 2 1 mpiexec -wdir / sh -c 'echo $A $PWD')" $'1 /\n1 /' "environment and folder reach all nodes"
is "$(alloc 2 1 mpiexec sh -c 'head -c 50000000 /dev/zero | tr "\0" "\n"' | wc -c)" 100000000 "100 MB over the tree"

# ---- faults ----
took alloc 4 1 mpiexec sh -c '[ $PMI_RANK = 2 ] && kill -9 $$; exec sleep '$nap
is "$rc $said" "137 mpiexec: rank 2 on node03 was killed by signal 9 (Killed); the step was ended" "a killed rank on another node"
in_time 1500 "within a second"
took alloc 4 1 mpiexec sh -c '[ $PMI_RANK = 3 ] && exit 9; exec sleep '$nap
is "$rc $said" "9 mpiexec: rank 3 on node04 exited with code 9; the step was ended" "a non-zero exit there"
in_time 1500 "within a second"
took alloc 3 1 mpiexec no-such-program
like "$rc $said" "^255 mpiexec: rank [0-2] on node0[1-3] cannot be started: cannot find program no-such-program in PATH" "a missing program"
export ALLOCATION_PSK_WRONG=1
took alloc 2 1 mpiexec true
unset ALLOCATION_PSK_WRONG
like "$rc $said" "^253 mpiexec: step server on node node02 was lost" "a branch with another key is not spoken to"

# kill_one ROLE [SIGNAL]: of the step server's processes of the allocation that runs
kill_one() {
    local p
    for p in $(ours muster-step); do
        if tr '\0' '\n' <"/proc/$p/environ" 2>/dev/null | grep -qx "MUSTER_STEP_ROLE=$1"; then
            kill "-${2:-9}" "$p"
            return 0
        fi
    done
    return 1
}
begin() { # three nodes, in the background, until all ranks sleep
    TMPDIR=$LIB_TMP/tmp "$allocation" 3 1 mpiexec sleep $nap >out 2>&1 &
    pid=$!
    LIB_PIDS=("$pid:$(started $pid)") # not disowned: its exit code is wanted
    wait_for 10 eval '[ "$(pgrep -fc "^sleep $nap")" = 3 ]'
}
finish() {
    local from
    from=$(now_ms)
    wait $pid
    rc=$?
    LIB_PIDS=()
    ms=$(($(now_ms) - from))
    said=$(cat out)
}
if am_root; then # who may read the environments of others
    begin
    kill_one branch
    finish
    like "$rc $said" "^253 mpiexec: step server on node node0[23] was lost" "kill -9 of a branch's step server"
    in_time 1500 "ends the step within a second"
    begin
    kill_one root
    finish
    like "$rc $said" "^253 mpiexec: step server killed" "kill -9 of the root's"
    in_time 1500 "ends it within a second"
    begin
    kill_one root TERM
    finish
    is "$rc $said" "143 mpiexec: step server on node node01 was told to end by signal 15 (Terminated); the step was ended" \
        "a step server that is told to end does not look like success"
    begin
    kill_one branch TERM
    finish
    like "$rc $said" "^143 mpiexec: step server on node node0[23] was told to end by signal 15" "nor does a branch's"
else
    skip "kill -9 of a step server" "finding it needs root"
fi
begin "$allocation" 3 1 sh -c 'echo $$ >task; exec mpiexec sleep '$nap
pkill -9 -P $pid -x mpiexec
finish
is $rc 137 "kill -9 of mpiexec"
ok "leaves no process" wait_for 2 eval '! pgrep -f "^sleep 48"'
ok "and no step server" wait_for 2 eval '[ -z "$(ours muster-step)" ]'
is "$(find /tmp -maxdepth 1 -name 'alloc-*')" "" "and no folder"

if am_root; then
    exec 6<>slot
    said=$(MUSTER_STEP_ROLE=root muster-step 2>&1 3<&6 4<&6)
    like "$said" "step's context" "a step server without a context says so"
fi
done_testing
