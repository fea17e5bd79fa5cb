# lib.sh - what system tests share: TAP, clusters in temporary folders, waiting for events, cleaning up.
#
#   . "$(dirname "$0")/lib.sh"
#   start_cluster --nodes 2
#   ok "the job ends well" muster job submit --wait true
#   is "$(muster job list --json | jq length)" 1 "one job is listed"
#   done_testing
#
# Everything that a test starts or makes is ended and removed when it ends, however it ends: clusters
# are stopped by their own command, then whatever their pid files still name is killed, by number.
# A test that takes longer than TEST_SECONDS (default 150; set it before sourcing) is ended and fails.
#
# MUSTER_BIN: folder of the programs (default build/bin). KEEP=1 leaves the folders in place.

set -u
export LC_ALL=C.UTF-8
LIB_TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export MUSTER_BIN=${MUSTER_BIN:-$LIB_TOP/build/bin}
unset MUSTER_DIR XDG_STATE_HOME XDG_RUNTIME_DIR NO_COLOR

if [ -z "${LIB_GUARDED-}" ]; then
    # timeout(1) makes a process group of its own and ends all of it.
    LIB_GUARDED=1 exec timeout -k 60 "${TEST_SECONDS:-150}" bash "$0" "$@"
fi

LIB_COUNT=0
LIB_FAILED=0
LIB_CLUSTERS=()
LIB_PIDS=()
LIB_UNMOUNT=()
LIB_TMP=$(mktemp -d "${TMPDIR:-/tmp}/muster-test.XXXXXX")
chmod 755 "$LIB_TMP" # the head's account must be able to pass
# Away from the caller's folder, which other accounts may not be able to enter.
cd "$LIB_TMP" || exit 1

# ---- TAP ----

diag() { sed 's/^/# /' <<<"$*"; }

pass() {
    LIB_COUNT=$((LIB_COUNT + 1))
    echo "ok $LIB_COUNT - $1"
}
fail() { # DESCRIPTION [DIAGNOSTICS]
    LIB_COUNT=$((LIB_COUNT + 1))
    LIB_FAILED=$((LIB_FAILED + 1))
    echo "not ok $LIB_COUNT - $1"
    [ -z "${2-}" ] || diag "$2"
    return 0
}

# ok DESCRIPTION COMMAND...: the command succeeds. Its output is shown when it does not.
ok() {
    local what=$1 out rc
    shift
    out=$("$@" 2>&1) && rc=0 || rc=$?
    if [ $rc = 0 ]; then pass "$what"; else fail "$what" "exit code $rc: $*"$'\n'"$out"; fi
}
# fails CODE DESCRIPTION COMMAND...: it fails with that exit code. What it said is left in $said.
fails() {
    local want=$1 what=$2 rc
    shift 2
    said=$("$@" 2>&1) && rc=0 || rc=$?
    if [ $rc = "$want" ]; then pass "$what"; else fail "$what" "exit code $rc, want $want: $*"$'\n'"$said"; fi
}
is() { # GOT WANT DESCRIPTION
    if [ "$1" = "$2" ]; then pass "$3"; else fail "$3" "got:  $1"$'\n'"want: $2"; fi
}
isnt() { # GOT OTHER DESCRIPTION
    if [ "$1" != "$2" ]; then pass "$3"; else fail "$3" "got: $1"; fi
}
like() { # GOT EXTENDED-REGEX DESCRIPTION
    if grep -qE -- "$2" <<<"$1"; then pass "$3"; else fail "$3" "got:  $1"$'\n'"want: /$2/"; fi
}
unlike() {
    if ! grep -qE -- "$2" <<<"$1"; then pass "$3"; else fail "$3" "got: $1"$'\n'"want nothing like: /$2/"; fi
}
# one_line_error CODE REGEX DESCRIPTION COMMAND...: exit code, one line that fits, nothing else.
one_line_error() {
    local code=$1 regex=$2 what=$3 rc
    shift 3
    said=$("$@" 2>&1) && rc=0 || rc=$?
    if [ $rc = "$code" ] && [ "$(wc -l <<<"$said")" = 1 ] && grep -qE -- "$regex" <<<"$said"; then
        pass "$what"
    else
        fail "$what" "exit code $rc, want $code: $*"$'\n'"said: $said"$'\n'"want one line: /$regex/"
    fi
}
done_testing() {
    echo "1..$LIB_COUNT"
    [ "$LIB_FAILED" = 0 ]
    exit
}
skip_all() {
    echo "1..0 # SKIP $1"
    exit 0
}
skip() { # DESCRIPTION REASON
    LIB_COUNT=$((LIB_COUNT + 1))
    echo "ok $LIB_COUNT - $1 # SKIP $2"
}
bail() {
    diag "$2"
    echo "Bail out! $1"
    exit 1
}

# ---- waiting for events ----

tick() { read -rt 0.03 <> <(:) || :; }

# wait_for SECONDS COMMAND...: until the command succeeds (its output is dropped); fails when it has not by then.
wait_for() {
    local until=$(($(date +%s%N) + $1 * 1000000000))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$(date +%s%N)" -lt $until ] || return 1
        tick
    done
}
# gone PID...: none of them lives (one that has only not been waited for has ended).
gone() {
    local pid
    for pid; do case $(sed 's/.*) //' "/proc/$pid/stat" 2>/dev/null) in '' | Z* | X*) ;; *) return 1 ;; esac; done
}
now_ms() { echo $(($(date +%s%N) / 1000000)); }

# ---- clusters ----

muster() { "$MUSTER_BIN/muster" "$@"; }

# new_folder: an empty one of this test's; its name is left in $folder.
new_folder() {
    LIB_FOLDERS=$((${LIB_FOLDERS:-0} + 1))
    folder=$LIB_TMP/$LIB_FOLDERS
    mkdir "$folder"
}

# start_cluster [OPTIONS of muster cluster start]: in a new folder, which becomes MUSTER_DIR.
start_cluster() {
    new_folder
    export MUSTER_DIR=$folder/c
    LIB_CLUSTERS+=("$MUSTER_DIR")
    local said
    said=$(muster cluster start --quiet "$@" 2>&1) || bail "the cluster does not start" "$said"$'\n'"$(tail -n 20 "$MUSTER_DIR"/log/*.log 2>&1)"
}
# The test makes and starts it by itself; it is only ended with the test.
track_cluster() { LIB_CLUSTERS+=("$1"); }
# When a process started, in ticks since boot: with its number, that names it; a number alone is used again.
started() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }
track_pid() { LIB_PIDS+=("$1:$(started "$1")"); } # of a background process of the test's; it may be waited for
track_mount() { LIB_UNMOUNT+=("$1"); }

status() { muster cluster status --json | jq -r "$1"; }  # JQ-FILTER
head_pid() { status .head.pid; }
node_pid() { status ".nodes[] | select(.name == \"$1\").pid"; }
all_online() { [ "$(status '[.nodes[] | select(.state == "Online" and .health == "OK")] | length')" = "$(status '.nodes | length')" ]; }
head_answers() { [ "$(status .head.state)" = running ]; }

# submit OPTIONS... COMMAND: prints the job's id.
submit() { muster job submit "$@" | sed -n 's/.*ID: *\([0-9]*\)\.$/\1/p'; }
job_state() { muster job view "$1" --json | jq -r .state; }
job_is() { [ "$(job_state "$1")" = "$2" ]; }
job_ended() { case $(job_state "$1") in Finished | Failed | Canceled) ;; *) return 1 ;; esac; }

# new_work: a folder that tasks can write to, whoever they run as; its name is left in $work. In it, the program
# `gate FOLDER`: notes that it has started, waits until the file FOLDER/go exists, prints the result.
new_work() {
    new_folder
    work=$folder
    chmod 777 "$work"
    cat >"$work/gate" <<'END'
#!/bin/bash
echo "started on $(hostname) as $$" >>"$1/runs"
until [ -e "$1/go" ]; do read -rt 0.03 <> <(:); done
echo "the result is $((6 * 7))"
END
    chmod 755 "$work/gate"
}
gate_started() { [ -s "$work/runs" ]; }
gate_pid() { sed -n 's/.* as //p' "$work/runs" | tail -n 1; }
open_gate() { touch "$work/go"; }

task_json() { muster task view "$1" --json; }
task_output() { muster task view "$1" --output; }

# leftovers: processes of tasks (of the clusters of this machine that carry a mark of this test's folder in their command line).
leftovers() { pgrep -f -- "$LIB_TMP/[0-9]+/gate" || true; }
no_leftovers() { [ -z "$(leftovers)" ]; }

# ---- another account ----

# user_start: an ordinary account without a name in this system, with a home of its own: $user_home,
# $user_id, and $user_bin, the programs where it can reach them.
user_start() {
    user_id=${1:-23456}
    user_home=$LIB_TMP/home-$user_id
    mkdir "$user_home"
    chown "$user_id:$user_id" "$user_home"
    user_bin=$MUSTER_BIN
    if ! setpriv --reuid "$user_id" --regid "$user_id" --clear-groups test -x "$MUSTER_BIN/muster"; then
        user_bin=$LIB_TMP/bin
        [ -d "$user_bin" ] || cp -R "$MUSTER_BIN" "$user_bin"
    fi
}
as_user() {
    setpriv --reuid "$user_id" --regid "$user_id" --clear-groups \
        env -i HOME="$user_home" PATH="$user_bin:/usr/bin:/bin" LC_ALL=C.UTF-8 ${MUSTER_DIR:+MUSTER_DIR="$MUSTER_DIR"} "$@"
}
am_root() { [ "$(id -u)" = 0 ]; }

# ---- the end ----

lib_kill_listed() { # DIR: what its pid files name, if it is still the same process
    local file pid start now
    for file in "$1"/pids/*; do
        [ -f "$file" ] || continue
        read -r pid start <"$file"
        now=$(sed 's/.*) //' "/proc/$pid/stat" 2>/dev/null | cut -d' ' -f20)
        [ "$now" != "$start" ] || kill -9 "$pid" 2>/dev/null
    done
}
lib_stop() { # DIR
    [ -d "$1" ] || return 0
    local owner
    owner=$(stat -c %u "$1")
    if [ "$owner" = "$(id -u)" ]; then
        timeout 60 "$MUSTER_BIN/muster" cluster stop --dir "$1" >/dev/null 2>&1
    else
        MUSTER_DIR=$1 user_id=$owner as_user timeout 60 "$user_bin/muster" cluster stop >/dev/null 2>&1
    fi
    lib_kill_listed "$1"
}
lib_end() {
    local rc=$? dir pid
    trap '' TERM INT
    for dir in "${LIB_CLUSTERS[@]+"${LIB_CLUSTERS[@]}"}"; do
        if [ "$LIB_FAILED" -gt 0 ] || [ $rc -gt 1 ]; then
            tail -n 15 "$dir"/log/*.log 2>/dev/null | sed 's/^/# /'
        fi
        lib_stop "$dir"
    done
    for pid in "${LIB_PIDS[@]+"${LIB_PIDS[@]}"}"; do
        [ -n "${pid#*:}" ] && [ "$(started "${pid%:*}")" = "${pid#*:}" ] && kill -9 "${pid%:*}" 2>/dev/null
    done
    for dir in "${LIB_UNMOUNT[@]+"${LIB_UNMOUNT[@]}"}"; do umount "$dir" 2>/dev/null; done
    if [ -n "${KEEP-}" ]; then diag "kept: $LIB_TMP"; else rm -rf "$LIB_TMP"; fi
    exit $rc
}
trap lib_end EXIT
trap 'exit 143' TERM INT HUP
