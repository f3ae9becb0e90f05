#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""tracepoints_test.py PROGRAM: its ELF notes hold every tracepoint of daemon/util/trace.h, with that
many arguments each, and no other."""

import os
import re
import subprocess
import sys

SOURCE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def table():
    with open(os.path.join(SOURCE, "daemon/util/trace.h"), encoding="utf-8") as f:
        found = dict(re.findall(r"^\s*X\((\w+), (\d+),", f.read(), re.M))
    assert found, "no table"
    return {name: int(n) for name, n in found.items()}


def notes(program):
    """Name → set of numbers of arguments, one for each place that it stands at."""
    text = subprocess.run(["readelf", "-n", program], capture_output=True, text=True, check=True).stdout
    found = {}
    for provider, name, arguments in re.findall(r"Provider: (\S+)\s+Name: (\S+)\s.*?Arguments:([^\n]*)", text, re.S):
        if provider == "iommubroker":
            # "-4@%eax 8@(%rax,%rdi,8) 8@$5": each begins with its size
            found.setdefault(name, set()).add(len(re.findall(r"(?:^|\s)-?\d+f?@", arguments)))
    return found


def complaints(wanted, found):
    for name, n in wanted.items():
        if name not in found:
            yield "no tracepoint " + name
        elif found[name] != {n}:
            yield "%s has %s arguments, the table says %d" % (name, found[name], n)
    for name in found.keys() - wanted.keys():
        yield "%s is not in the table" % name


def main():
    for found in ({}, {"a": {2}}, {"a": {1, 2}}, {"a": {1}, "b": {1}}):
        if not list(complaints({"a": 1}, found)):
            print("self-check: %s was taken for good" % found)
            return 1
    wrong = list(complaints(table(), notes(sys.argv[1])))
    print("\n".join(wrong) or "%d tracepoints" % len(table()))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
