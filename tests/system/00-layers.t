#!/bin/bash
# The layering: each folder of src/ includes only from the folders before it, every header compiles alone,
# and core and sched call nothing that does I/O, reads a clock or a random source.
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
n=0
ok() { # RESULT NAME
    n=$((n + 1))
    if [ "$1" = 0 ]; then echo "ok $n - $2"; else echo "not ok $n - $2"; fi
}

out=$(tools/check-includes 2>&1)
ok $? "include direction by folder"
[ -z "$out" ] || sed 's/^/# /' <<<"$out"

# A violation is seen: the rule is tested on a copy with one more include.
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
mkdir -p "$tmp/tools"
cp -r src "$tmp/src"
cp tools/check-includes "$tmp/tools/"
sed -i '1i #include "core/core.h"' "$tmp/src/base/buf.c"
"$tmp/tools/check-includes" >/dev/null 2>&1
ok $((! $?)) "an include in the wrong direction is refused"

calls='(time|clock_gettime|gettimeofday|clock_boot_[a-z]+|clock_wall_ms|rand|random|getrandom|open|openat|read|write|socket|printf|fprintf|getenv|log_(error|warn|info|debug)) *\('
bad=$(grep -nE "(^|[^a-z_])$calls" src/core/*.c src/sched/*.c | grep -vE ':[0-9]+: *(\*|/\*)')
ok "$([ -z "$bad" ]; echo $?)" "core and sched do no I/O, read no clock, draw no chance"
[ -z "$bad" ] || sed 's/^/# /' <<<"$bad"

missing=$(for h in src/base/*.h src/model/*.h src/sched/*.h src/core/*.h src/store/*.h src/wire/*.h; do
    cc -std=gnu17 -D_GNU_SOURCE -fsyntax-only -Isrc -I. -Ibuild -x c "$h" 2>&1 | grep -m1 'error' || :
done)
ok "$([ -z "$missing" ]; echo $?)" "every header of the libraries compiles alone"
[ -z "$missing" ] || sed 's/^/# /' <<<"$missing"
echo "1..$n"
