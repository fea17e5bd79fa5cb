#!/bin/bash
# A full disk under the store: reads are answered, changes are refused with "store full", running jobs go on, and
# when there is room again all is well by itself.
. "$(dirname "$0")/lib.sh"
am_root || skip_all "mounting a small disk needs root"

new_folder
export MUSTER_DIR=$folder/c
track_cluster "$MUSTER_DIR"
muster cluster init --nodes 2 >/dev/null || bail "no cluster"
# A disk of its own for the head, with the files of init on it.
cp -a "$MUSTER_DIR/head" "$folder/head.copy"
mount -t tmpfs -o "size=6m,mode=700,uid=$(stat -c %u "$MUSTER_DIR/head"),gid=$(stat -c %g "$MUSTER_DIR/head")" tmpfs "$MUSTER_DIR/head" ||
    skip_all "no tmpfs can be mounted here"
track_mount "$MUSTER_DIR/head"
cp -a "$folder/head.copy/." "$MUSTER_DIR/head/"
ok "the cluster starts" muster cluster start --quiet

new_work
job=$(submit --workdir "$work" "$work/gate" "$work")
wait_for 10 gate_started

# Filled by root: what is left belongs to nobody else either.
dd if=/dev/zero of="$MUSTER_DIR/head/ballast" bs=4k 2>/dev/null
refused() { said=$(muster job submit true 2>&1) && return 1; grep -q 'store full' <<<"$said"; }
# The write-ahead log may have had room for a few more.
wait_for 20 refused
like "$said" 'store full' "a change is refused with 'store full'"
is "$(wc -l <<<"$said")" 1 "in one line"
ok "reads are answered" muster job view "$job"
is "$(status .head.state)" running "the head runs"
isnt "$(status .head.store)" ok "status shows the store's trouble"
count=$(muster job list --all --user '*' --json | jq length)

rm "$MUSTER_DIR/head/ballast"
accepted() { muster job submit true >/dev/null 2>&1; }
wait_for 30 accepted && pass "with room again, changes are taken" || fail "with room again, changes are taken"
open_gate
wait_for 20 job_ended "$job"
is "$(job_state "$job")" Finished "the job that ran all the time ends well"
is "$(task_output "$job.1")" "the result is 42" "with its result"
is "$(wc -l <"$work/runs")" 1 "having run once"
is "$(muster job list --all --user '*' --json | jq length)" $((count + 1)) "no refused job came into being"
done_testing
