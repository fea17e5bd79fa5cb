#!/bin/bash
# Bad input: one line that names the option or field, the value, and what was expected; exit code 2 (usage) or 1
# (failed); nothing is changed.
. "$(dirname "$0")/lib.sh"

start_cluster --nodes 4
jobs() { muster job list --all --user '*' --json 2>/dev/null | jq length; }
before=$(jobs)

# CODE | REGEX | COMMAND LINE of muster
while IFS='|' read -r code regex line; do
    [ -n "$code" ] || continue
    read -ra words <<<"$line"
    one_line_error "${code// /}" "$(sed 's/^ *//; s/ *$//' <<<"$regex")" "muster $line" muster "${words[@]}"
done <<'END'
2 | nope                     | job submit --nope true
2 | nope                     | job submit /nope:1 true
2 | numnodes.*"?0            | job submit /numnodes:0 true
2 | numnodes.*4-2            | job submit /numnodes:4-2 true
2 | numnodes.*abc            | job submit /numnodes:abc true
2 | numnodes.*-1             | job submit --numnodes=-1 true
2 | numnodes.*999999999999   | job submit /numnodes:99999999999999999999 true
2 | numcores.*0              | job submit /numcores:0 true
2 | 9.*4                     | job submit /numnodes:9 true
2 | 500.*4                   | job submit /numcores:500 true
2 | nosuch                   | job submit /nodegroup:nosuch true
2 | nosuch                   | job submit /requestednodes:nosuch true
2 | priority.*5000           | job submit /priority:5000 true
2 | priority.*Urgent         | job submit /priority:Urgent true
2 | runtime.*soon            | job submit /runtime:soon true
2 | env.*novalue             | job submit /env:novalue true
2 | command                  | job submit
1 | 99999                    | job view 99999
2 | abc                      | job view abc
2 | -1                       | job view -1
1 | 99999                    | job cancel 99999
1 | 99999                    | task view 99999.1
2 | abc                      | task view abc
2 | 1\.2\.3\.4               | task view 1.2.3.4
1 | nosuch                   | node view nosuch
1 | nosuch                   | node online nosuch
1 | nosuch                   | group delete nosuch
1 | nosuch                   | group new G nosuch
2 | nosuch                   | nosuch
2 | nosuch                   | job nosuch
2 | Online                   | node list --state Sleeping
END
is "$(jobs)" "$before" "no job was made by any of it"
is "$(status .head.state)" running "the head still answers"

# Text that is no text.
fails 2 "a name with a control character" muster job submit --jobname $'a\x1b[2Jb' true
unlike "$said" $'\x1b' "its escape sequence does not reach the terminal"
one_line_error 1 'no cluster|not' "a cluster that does not exist" muster job list --dir /no/such/folder

# Bytes that are no frames, on the socket that everyone can reach.
perl -MIO::Socket::UNIX -e '
    $SIG{PIPE} = "IGNORE";
    srand(1);
    for my $i (1 .. 50) {
        my $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die;
        my $n = $i % 3 ? int(rand(2000)) : 8;
        my $bytes = join "", map { chr int rand 256 } 1 .. $n;
        $bytes = pack("N", 0xffffffff) . $bytes if $i % 5 == 0;
        syswrite $s, $bytes;
        close $s;
    }' "$MUSTER_DIR/head.sock"
pid=$(head_pid)
is "$(status .head.state)" running "random bytes on its socket do not hurt the head"
is "$(head_pid)" "$pid" "which is the same process"

# An address in use.
new_folder
track_cluster "$folder/c"
perl -MIO::Socket::INET -e '
    my $s = IO::Socket::INET->new(Listen => 1, LocalAddr => "127.0.0.1:0") or die;
    open my $f, ">", "$ARGV[0]/port.new"; print $f $s->sockport; close $f; rename "$ARGV[0]/port.new", "$ARGV[0]/port";
    select undef, undef, undef, undef;' "$folder" &
track_pid $!
wait_for 5 test -s "$folder/port"
one_line_error 1 'in use' "an address in use" muster cluster start --quiet --dir "$folder/c" --no-namespaces --port "$(cat "$folder/port")"
is "$(ls "$folder/c/pids" 2>/dev/null)" "" "and nothing is left running"
done_testing
