#!/bin/bash
# A cluster that root starts: the head has an account of its own and no privilege, tasks never run as root, and
# the programs may be in a folder that is closed to those accounts.
. "$(dirname "$0")/lib.sh"
am_root || skip_all "needs root"

# The programs in a folder that only root may enter.
closed=$LIB_TMP/closed
mkdir -m 700 "$closed"
cp -R "$MUSTER_BIN" "$closed/bin"
MUSTER_BIN=$closed/bin

look() { # WHAT: of the running cluster
    local what=$1 pid
    pid=$(head_pid)
    isnt "$(awk '/^Uid/ { print $2 }' "/proc/$pid/status")" 0 "$what: the head does not run as root"
    is "$(awk '/^CapEff/ { print $2 }' "/proc/$pid/status")" 0000000000000000 "$what: it has no capability"
    is "$(stat -c '%u %a' "$MUSTER_DIR/head")" "$(awk '/^Uid/ { print $2 }' "/proc/$pid/status") 700" "$what: its folder is its own and closed"
    is "$(stat -c '%u %a' "$MUSTER_DIR/nodes/node01")" "0 700" "$what: an agent's folder is root's and closed"
    muster job submit --wait 'id -u; echo $HOME; touch ~/here && echo home' >/dev/null 2>&1
    is "$(muster task view 1.1 --output)" "$(id -u nobody)"$'\n'"$MUSTER_DIR/home"$'\n'home "$what: root's task runs as nobody, with a home"
    ok "$what: mpiexec is found" muster job submit --wait --numnodes 2 mpiexec -c 1 true
}

start_cluster --nodes 2
is "$(status .kind)" namespaces "nodes are namespaces"
look namespaces
host() { muster job submit --wait --requestednodes node02 "$1" >/dev/null 2>&1; muster task view "$(muster job list --all --json | jq '.[-1].id').1" --output; }
is "$(host hostname)" node02 "a node has its own name"
is "$(host 'ls /sys/class/net | tr "\n" " "')" "eth0 lo " "and its own network, as /sys shows it"
is "$(host 'getent hosts node01')" "10.77.0.11      node01" "it knows the other by name"
is "$(ip -o link | grep -c mu0)" 0 "the bridge is not seen on this machine"
ok "stop" muster cluster stop
is "$(grep -c "$MUSTER_DIR" /proc/mounts)" 0 "no mount is left"

start_cluster --nodes 2 --no-namespaces
look "one host"
ok "stop of that" muster cluster stop

# An account that came by sudo: it runs the tasks, and is an administrator.
new_folder
export MUSTER_DIR=$folder/c
track_cluster "$MUSTER_DIR"
ok "init after sudo" env SUDO_USER=games "$MUSTER_BIN/muster" cluster init --nodes 1
is "$(jq -r .user "$MUSTER_DIR/cluster.json")" games "tasks of root run as who used sudo"
is "$(jq -r '.admins[0]' "$MUSTER_DIR/head/head.json")" games "who is an administrator"
one_line_error 2 'root' "root as the account of tasks is refused" muster cluster init --dir "$folder/x" --user root
one_line_error 2 'nosuchaccount' "an unknown account is refused" muster cluster init --dir "$folder/x" --user nosuchaccount
done_testing
