#!/usr/bin/env python3
"""Puts the numbered SQL files into a C header: embed.py OUTPUT.h FILE.sql ...

The numbers must be 1, 2, ... without a gap: a store's version is the count of files applied."""
import os
import sys


def c_string(text):
    lines = text.splitlines(keepends=True) or [""]
    return "\n".join('     "%s"' % l.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for l in lines)


def main(output, files):
    parts = ["/* Made from src/store/migrations by embed.py. */", "static const struct {\n    const char *name, *sql;\n} migrations[] = {"]
    for number, path in enumerate(sorted(files), 1):
        name = os.path.basename(path)
        if not name.startswith("%04d-" % number):
            sys.exit("%s: expected a name that begins with %04d-" % (name, number))
        with open(path, encoding="utf-8") as f:
            parts.append('    {"%s",\n%s},' % (name, c_string(f.read())))
    parts.append("};\n")
    with open(output, "w", encoding="utf-8") as f:
        f.write("\n".join(parts))


main(sys.argv[1], sys.argv[2:])
