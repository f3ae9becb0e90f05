#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Documents name what is there: files and functions of ARCHITECTURE, tests of SECURITY, links of
README, suites of the machines. docs_test.py SOURCE; needs the interpreter of the scenarios to list
them."""

import os
import re
import subprocess
import sys

SOURCE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def read(path):
    with open(os.path.join(SOURCE, path), encoding="utf-8") as f:
        return f.read()


def find(name):
    """Files are named as in an include, or from the top."""
    for folder in ("", "daemon", "client"):
        path = os.path.join(SOURCE, folder, name)
        if os.path.exists(path):
            return path
    return None


def architecture():
    text = read("docs/ARCHITECTURE.md")
    for name in sorted(set(re.findall(r"\b(?:[a-z0-9_]+/)+[a-z0-9_]+\.(?:c|h|py)\b", text))):
        if not find(name):
            yield "ARCHITECTURE: no file " + name
    code = ""
    for folder in ("daemon", "client"):
        for at, _, names in os.walk(os.path.join(SOURCE, folder)):
            for name in names:
                if name.endswith((".c", ".h")):
                    code += read(os.path.relpath(os.path.join(at, name), SOURCE))
    path = text.split("## The path of one refresh")[1].split("## Where a method runs")[0]
    for name in sorted(set(re.findall(r"\b[a-z0-9]+(?:_[a-z0-9]+)+\b(?!\.)", path))):
        if not re.search(r"\b%s\b" % name, code):
            yield "ARCHITECTURE: no function " + name


def suites():
    """The table of tests/vm/suites: words of each line."""
    for line in read("tests/vm/suites").splitlines():
        if line and not line.startswith("#"):
            yield line.split()


def machines():
    """What runs inside a machine is there and can be understood."""
    guest = os.path.join(SOURCE, "tests", "vm", "guest")
    built = read("tests/vm/guest/meson.build") + "'conformance_iommufd'"
    names = set()
    for words in suites():
        if len(words) < 6:
            yield "suites: not a suite: " + " ".join(words)
            continue
        name, architectures, boot, when, seconds, command = words[:6]
        if name in names:
            yield "suites: twice: " + name
        names.add(name)
        if not set(architectures.split(",")) <= {"x86_64", "s390x"}:
            yield "suites: %s: no architecture %s" % (name, architectures)
        if boot.split("+")[0] not in ("plain", "systemd") or when not in ("always", "named"):
            yield "suites: %s: no such boot or when" % name
        if not seconds.isdigit() or int(seconds) == 0:
            yield "suites: %s: no limit" % name
        if not os.access(os.path.join(guest, command), os.X_OK) and "'%s'" % command not in built:
            yield "suites: %s: no program %s" % (name, command)


def security():
    runner = os.path.join(SOURCE, "tests", "scenario", "run.py")
    listed = subprocess.run(
        [sys.executable, runner, "--list"], capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL
    ).stdout
    units = read("tests/unit/meson.build")
    module = None
    for row in read("docs/SECURITY.md").splitlines():
        cells = row.split("|")
        for name in re.findall(r"`([A-Za-z_0-9.:-]+)`", cells[-2]) if row.startswith("| ") else ():
            if name.startswith("vm:"):
                if name[3:] not in {words[0] for words in suites()}:
                    yield "SECURITY: no suite " + name
                continue
            if name.startswith("unit:"):
                if not re.search(r"^(\s*|foreach .*|test\()'%s'[],]" % name[5:], units, re.M):
                    yield "SECURITY: no unit test " + name
                continue
            if name.startswith("test_"):
                module = name.split(".")[0]
            elif module and name[0].isupper():
                name = module + "." + name
            # a suite over both transports is listed once for each
            parts = name.split(".")
            pattern = r"^%s" % parts[0]
            pattern += r"\.%s(Grpc|Native)?" % parts[1] if len(parts) > 1 else ""
            pattern += r"\.%s$" % parts[2] if len(parts) > 2 else r"\."
            if not re.search(pattern, listed, re.M):
                yield "SECURITY: no test " + name


def links():
    for page in ("README.md",):
        for target in re.findall(r"\]\(([^)#]+)\)", read(page)):
            if not os.path.exists(os.path.join(SOURCE, target)):
                yield "%s: no %s" % (page, target)


def main():
    found = [*architecture(), *security(), *links(), *machines()]
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
