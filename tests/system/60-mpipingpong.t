#!/bin/bash
# mpipingpong under our mpiexec and each MPI family's own launcher: what it prints, writes, refuses, and how it exits.
# Several ranks on this one machine, so -m; pairs over TCP on lo (Open MPI) or what MPICH takes by itself.
TEST_SECONDS=300
. "$(dirname "$0")/lib.sh"
tmp=$LIB_TMP bin=$MUSTER_BIN
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_pml=ob1 OMPI_MCA_btl=tcp,self

has() { # FILE PATTERN DESCRIPTION
    like "$(cat "$tmp/$1")" "$2" "$3"
}

launch() { # RANKS ARGUMENT...: runs it, sets $rc
    local ranks=$1
    shift
    case $launcher in
    mpiexec) set -- "$bin/mpiexec" -n "$ranks" "$program" "$@" ;;
    mpirun.openmpi) set -- mpirun.openmpi --oversubscribe -n "$ranks" "$program" "$@" ;;
    mpiexec.hydra) set -- mpiexec.hydra -n "$ranks" "$program" "$@" ;;
    esac
    timeout -k 5 100 "$@" >"$tmp/out" 2>"$tmp/err" </dev/null
    rc=$?
}

host=$(hostname)
check_family() {
    launch 4 -m -p 1:2000 -op -s nul
    is $rc 0 "$family, $launcher: the tutorial's line"
    is "$(grep -Ec "^  .+:[0-3] +.+:[0-3]( +[0-9.]+){5}$" "$tmp/out")" 6 "$family, $launcher: six pairs in the table"
    has out 'MPI library  (Open MPI|MPICH) [0-9]' "$family, $launcher: the library is named"
    has out '^  minimum \(best\) +.* -> ' "$family, $launcher: best pair"
    has out '^  maximum \(worst\) +.* -> ' "$family, $launcher: worst pair"
    has out '^  Path  *(TCP over lo|shared memory)$' "$family, $launcher: the path that was seen"
    is "$(awk 'length > 80' "$tmp/out" | wc -l)" 0 "$family, $launcher: 80 columns"
    is "$(grep -vc 'rank\|^$' "$tmp/err")" 0 "$family, $launcher: nothing on stderr"

    launch 5 -m /T /P:100:500 "$tmp/out.xml"
    is $rc 0 "$family, $launcher: tournament of five, classic spelling"
    is "$(wc -c <"$tmp/out")" 0 "$family, $launcher: with a file and no -op the screen is empty"
    is "$(grep -c '<pair from=' "$tmp/out.xml")" 10 "$family, $launcher: ten pairs in the XML"
    ok "$family, $launcher: the XML is complete" grep -q '</mpipingpong>' "$tmp/out.xml"

    launch 3 -m -p 4000000:5 -ob
    is $rc 0 "$family, $launcher: packets of 4 MB"
    is "$(grep -Ec ":[0-3] +.+:[0-3]( +[0-9.]+){5}$" "$tmp/out")" 0 "$family, $launcher: -ob: no row of a pair"
    has out '^  median  ' "$family, $launcher: but the summary"

    launch 2 -m -oq -p 1:100
    is "$rc $(wc -c <"$tmp/out")" "0 0" "$family, $launcher: -oq is quiet"

    launch 2 -p 1:100 -op nul
    is $rc 2 "$family, $launcher: two ranks of one node without -m"
    has err "^mpipingpong: node $host has 2 ranks: expected one on each node" "$family, $launcher: names the node"
    is "$(wc -c <"$tmp/out")" 0 "$family, $launcher: and measures nothing"

    launch 3 -m -p 1:zero nul
    is $rc 2 "$family, $launcher: a bad value"
    is "$(grep -c '^mpipingpong: option -p: "1:zero": expected 1..100000000 iterations' "$tmp/err")" 1 \
        "$family, $launcher: is named once"

    launch 2 -m -p 1:10 "$tmp/no/such/file.xml"
    is $rc 1 "$family, $launcher: a file that cannot be written"
    has err "^mpipingpong: outfile: \"$tmp/no/such/file.xml\": cannot be written: No such file" "$family, $launcher: is named"

    launch 2 -h
    is "$rc $(grep -c '^mpipingpong: latency and throughput' "$tmp/out")" "0 1" "$family, $launcher: help, once"

    launch 1 -op nul
    is $rc 2 "$family, $launcher: a single rank is refused"
}

# All ranks on one processor: pairs run one at a time, yield, and the report says so.
check_one_processor() {
    local plain=$program
    printf '#!/bin/sh\nexec taskset -c 0 "%s" "$@"\n' "$plain" >"$tmp/bound"
    chmod +x "$tmp/bound"
    program=$tmp/bound
    launch 3 -m -t -p 1:200 -op nul
    program=$plain
    is $rc 0 "$family, $launcher: three ranks on one processor"
    has out 'shared by both ends of 3 pairs' "$family, $launcher: the report says that they shared it"
}

families=0
for family in openmpi mpich; do
    program=$bin/mpipingpong.$family
    [ -x "$program" ] || continue
    families=$((families + 1))
    case $family in openmpi) own=mpirun.openmpi ;; mpich) own=mpiexec.hydra ;; esac
    for launcher in mpiexec $own; do
        command -v "$launcher" >/dev/null || [ "$launcher" = mpiexec ] || continue
        check_family
        check_one_processor
    done
done
[ $families -gt 0 ] || skip_all "no MPI family here"
one_line_error 2 '^mpipingpong: option -r: the serial ring is not in this version; use -s or -t$' \
    "without a launcher: a mode of later versions is refused by name" "$bin/mpipingpong" -r
done_testing
