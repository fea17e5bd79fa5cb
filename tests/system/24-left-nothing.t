#!/bin/bash
# Of a cluster that was stopped nothing is left in /tmp, /dev/shm and /run, however it had ended before.
# Others use these places too, so the test has its own.
if [ -z "${OWN_PLACES-}" ]; then
    if [ "$(id -u)" != 0 ] || ! unshare --mount mount -t tmpfs tmpfs /tmp 2>/dev/null; then
        echo "1..0 # SKIP needs a mount namespace"
        exit 0
    fi
    # The tree may lie in one of them: it is seen through another place.
    top=$(realpath "$(dirname "$0")/../..")
    bin=$(realpath "${MUSTER_BIN:-$top/build/bin}")
    tree=$(mktemp -d /var/tmp/muster-tree.XXXXXX)
    trap 'rmdir "$tree"' EXIT
    case $bin/ in "$top"/*) bin=$tree${bin#"$top"} ;; esac
    # shellcheck disable=SC2016
    OWN_PLACES=1 TMPDIR=/var/tmp MUSTER_BIN=$bin unshare --mount bash -c 'mount --bind "$1" "$2" && cd "$2" || exit 1
        for place in /tmp /dev/shm /run; do mount -t tmpfs -o mode=1777 tmpfs $place || exit 1; done
        exec bash tests/system/24-left-nothing.t' - "$top" "$tree"
    exit
fi
. "$(dirname "$0")/lib.sh"

left() { find /tmp /dev/shm /run -mindepth 1; }
# What descends from a process, with it.
family() { # PID
    local child
    echo "$1"
    for child in $(cat "/proc/$1/task/"*/children 2>/dev/null); do family "$child"; done
}
# muster-local first: it would start anew what ended.
kill_everything() {
    local pid all
    all=$(family "$(status .supervisor.pid)")
    for pid in $all; do kill -9 "$pid" 2>/dev/null; done
    # shellcheck disable=SC2086
    wait_for 10 gone $all
}

is "$(left)" "" "the places are empty before"
start_cluster --nodes 2
is "$(muster job submit --wait --numnodes 2 mpiexec -n 2 hostname >/dev/null 2>&1; echo $?)" 0 "an MPI job runs"
ok "the cluster stops" muster cluster stop
is "$(left)" "" "nothing is left of it"

ok "it starts again" muster cluster start --quiet
new_work
cat >"$work/deep" <<END
#!/bin/bash
cd "\${MUSTER_STEP%/s}" || exit 1
for i in {1..100}; do mkdir d; cd d; done
exec mpiexec -n 2 $work/gate $work
END
chmod 755 "$work/deep"
two_started() { [ "$(wc -l <"$work/runs")" = 2 ]; }
submit --numnodes 2 --workdir "$work" "$work/deep" >/dev/null
wait_for 20 two_started
isnt "$(find /tmp /dev/shm /run -path '*/d/d/d' | wc -l)" 0 "a job runs with a deep run folder"
kill_everything
is "$(leftovers)" "" "everything of the cluster is killed"
ok "it starts again after that" muster cluster start --quiet
wait_for 20 all_online
ok "it stops" muster cluster stop
is "$(left)" "" "nothing is left"

# Agents probe the MPI libraries in the first moments.
ok "it starts" muster cluster start --quiet
kill_everything
ok "it starts again when it was killed in its first moments" muster cluster start --quiet
ok "and stops" muster cluster stop
is "$(left)" "" "nothing is left of that either"
done_testing
