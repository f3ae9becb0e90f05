#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Boots one machine until its suites are over, and counts what they say.

machine.py --log FILE --tally FILE --output DIR --patience N --suites TABLE NAME... -- QEMU ARG...

The console speaks the lines that vm-suites describes. "ib.suites=" is appended to QEMU's kernel
command line (its last argument must be that line). A machine that dies, or in which a suite takes
longer than its limit, is that suite's failure; the suites after it get a machine of their own.
What passed, failed and was skipped is added to the tally's file, as a line of three numbers.
"""

import argparse
import base64
import binascii
import ctypes
import gzip
import os
import re
import selectors
import signal
import subprocess
import sys
import time
import zlib

TALLY = re.compile(r"^(\d+) passed, (\d+) failed, (\d+) skipped$")
RESULT = re.compile(r"^(not )?ok \d+\b")
SKIPPED = re.compile(r"^(not )?ok \d+ .*# ?skip", re.I)  # cmocka says "not ok"
BOOT_SECONDS = 120  # from QEMU's start to the first suite, and after the last
# What no suite may provoke in a kernel. "BUG kmalloc-64" is how the allocator's own checks begin; a
# program that ends by a segmentation fault may have done all that its suite looks at before.
COMPLAINTS = re.compile(
    r"\bWARNING: |\bBUG: |\bBUG \S+ \(|kernel BUG at|\bCall Trace:|\bINFO: |DMAR: ERROR|segfault at |\btraps: |\bOops\b|\bKASAN: |\bUBSAN: |\bKCSAN: |general protection fault|"
    r"Unable to handle kernel|possible circular locking|possible recursive locking|refcount_t: |"
    r"list_(add|del) corruption|blocked for more than|Kernel panic|unreferenced object|"
    r"Unexpected user alignment|suspicious RCU usage|sleeping function called"
)


class Suite:
    """One line of the table, and what came of it."""

    def __init__(self, name, seconds):
        self.name = name
        self.seconds = seconds
        self.lines = []
        self.log = []
        self.files = {}
        self.status = None
        self.left = None
        self.counts = [0, 0, 0]
        self.faults = []
        self.took = 0

    def judge(self):
        """Count what was said; whatever is not said right is a failure."""
        said = [line.rstrip() for line in self.lines if line.strip()]
        tally = TALLY.match(said[-1]) if said else None
        if self.status == 77 and not tally and not any(RESULT.match(line) for line in said):
            self.counts = [0, 0, 1]
        elif tally:
            self.counts = [int(number) for number in tally.groups()]
            if not any(self.counts):
                self.faults.append("ran no test")
        elif self.status is not None:
            self.count_tap(said)
        if self.status not in (None, 0, 77) and not self.counts[1] and not self.faults:
            self.faults.append("exit status %d" % self.status)
        if self.left:
            self.faults.append("left processes behind: " + self.left)
        for line in self.log:
            if COMPLAINTS.search(line):
                self.faults.append("kernel log: " + line.strip())
                break
        self.counts[1] += len(self.faults)

    def count_tap(self, said):
        planned = 0
        for line in said:
            plan = re.match(r"^1\.\.(\d+)$", line)
            if plan:
                planned += int(plan.group(1))
            elif SKIPPED.match(line):
                self.counts[2] += 1
            elif RESULT.match(line):
                self.counts[1 if line.startswith("not") else 0] += 1
        if not planned:
            self.faults.append("gave no tally")
        elif sum(self.counts) != planned:
            self.faults.append("gave %d results of %d" % (sum(self.counts), planned))


class Machine:
    """One run of QEMU. reader() is a small state machine over the console's lines."""

    def __init__(self, command, suites, options):
        self.suites = {suite.name: suite for suite in suites}
        self.options = options
        self.boot_log = []
        self.between = []  # of no suite: only a dying kernel speaks there
        self.into = self.boot_log
        self.suite = None
        self.done = []
        self.over = False
        self.deadline = time.monotonic() + BOOT_SECONDS * options.patience
        command = command[:-1] + [command[-1] + " ib.suites=" + ",".join(self.suites)]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: ctypes.CDLL(None).prctl(1, signal.SIGKILL),
        )

    def run(self, console):
        """Until the machine is off. Returns why it had to be ended, if so."""
        why = None
        pending = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while True:
                rest = self.deadline - time.monotonic()
                if rest <= 0:
                    why = "time limit"
                    break
                if not selector.select(rest):
                    continue
                data = os.read(self.process.stdout.fileno(), 1 << 16)
                if not data:
                    break
                console.write(data)
                console.flush()
                *lines, pending = (pending + data).split(b"\n")
                for line in lines:
                    self.line(line.decode("utf-8", "replace").replace("\r", ""))
        self.line(pending.decode("utf-8", "replace"))
        self.end()
        return why

    def end(self):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()

    def line(self, line):
        # a program may have left the line before unfinished
        at = line.find("@@ib ")
        if at < 0:
            self.into.append(line)
            if self.options.verbose and self.suite and self.into is self.suite.lines:
                print(line, flush=True)
            return
        if at > 0:
            self.into.append(line[:at])
        self.marker(line[at:].split())

    def marker(self, words):
        kind = words[1] if len(words) > 1 else ""
        name = words[2] if len(words) > 2 else ""
        suite = self.suites.get(name)
        if kind == "begin" and suite:
            self.suite = suite
            suite.began = time.monotonic()
            suite.lines = []
            self.into = suite.lines
            self.deadline = time.monotonic() + suite.seconds * self.options.patience
        elif kind == "end" and suite and len(words) > 3:
            suite.status = int(words[3])
            suite.took = time.monotonic() - suite.began
            self.into = []
            self.deadline = time.monotonic() + BOOT_SECONDS * self.options.patience
        elif kind == "left" and suite:
            suite.left = " ".join(words[3:])
        elif kind == "log":
            self.into = suite.log if suite else self.boot_log
        elif kind == "file" and suite and len(words) > 3:
            self.into = suite.files.setdefault(words[3], [])
        elif kind == "over" and suite:
            self.finish()
        elif kind == "done":
            self.over = True

    def finish(self):
        """The suite that is on has had its turn."""
        save(self.suite, self.options.output)
        self.suite.judge()
        tell(self.suite, self.options.verbose)
        self.done.append(self.suite)
        self.suite = None
        self.into = self.between


def save(suite, folder):
    for name, lines in suite.files.items():
        try:
            data = gzip.decompress(base64.b64decode("".join(lines)))
        except (binascii.Error, zlib.error, OSError, EOFError) as error:
            suite.faults.append("file %s did not come out whole: %s" % (name, error))
            continue
        if folder:
            # the name is a suite's word: a file's, in that folder
            at = os.path.join(folder, suite.name)
            os.makedirs(at, exist_ok=True)
            with open(os.path.join(at, os.path.basename(name)), "wb") as f:
                f.write(data)


def tell(suite, verbose):
    failed = suite.counts[1] or suite.faults
    if failed and not verbose:
        print("\n".join(suite.lines))
    if failed:
        for line in suite.log[-20:]:
            print("  kernel: " + line)
    for fault in suite.faults:
        print("FAILED %s: %s" % (suite.name, fault))
    if suite.status == 77 and not failed:
        print("skipped %s: %s" % (suite.name, next((line for line in suite.lines[::-1] if line.strip()), "")))
    why = ""
    for line in suite.lines:
        if (line.startswith("skipped ") or SKIPPED.match(line)) and not failed and not verbose:
            # what it printed before, if that is not another result
            print("%s: %s%s" % (suite.name, line, ": " + why if why and SKIPPED.match(line) else ""))
        why = "" if RESULT.match(line) else line.strip()
    print("%s: %d passed, %d failed, %d skipped (%.0f s)" % (suite.name, *suite.counts, suite.took), flush=True)


def table(path, names):
    found = {}
    with open(path, encoding="utf-8") as f:
        for line in f:
            words = line.split()
            if words and not words[0].startswith("#") and words[0] in names:
                found[words[0]] = Suite(words[0], int(words[4]))
    return [found[name] for name in names]


def boot(todo, command, options, console):
    """One machine for what is left to do. Those that had their turn, and faults of no suite."""
    faults = []
    machine = Machine(command, todo, options)

    def stop(*_):
        machine.end()
        sys.exit(130)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    why = machine.run(console)
    faults += ["kernel log at boot: " + line for line in machine.boot_log if COMPLAINTS.search(line)][:1]
    faults += ["between suites: " + line for line in machine.between if COMPLAINTS.search(line)][:1]
    if machine.suite:
        machine.suite.faults.append(why + ", the machine was ended" if why else "the machine ended in it")
        machine.finish()
    elif not machine.over:
        faults.append(why or "the machine ended before its suites were over")
    elif why:
        faults.append(why + ", the machine did not go off")
    if not machine.done:
        print("\n".join(machine.boot_log[-60:]))
    return machine.done, faults


def boots(suites, command, options):
    """Until every suite has had its turn. Faults that are of no suite."""
    faults = []
    todo = list(suites)
    with open(options.log, "ab") as console:
        while todo and not faults:
            done, faults = boot(todo, command, options, console)
            todo = [suite for suite in todo if suite not in done]
    return faults + ["suite %s was not run" % suite.name for suite in todo]


def main():
    at = sys.argv.index("--")
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--log", required=True)
    parser.add_argument("--tally", required=True)
    parser.add_argument("--output")
    parser.add_argument("--patience", type=float, default=1)
    parser.add_argument("--suites", required=True)
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("names", nargs="+")
    options = parser.parse_args(sys.argv[1:at])
    suites = table(options.suites, options.names)
    faults = boots(suites, sys.argv[at + 1 :], options)
    for fault in faults:
        print("FAILED " + fault)
    counts = [sum(numbers) for numbers in zip(*(suite.counts for suite in suites))]
    counts[1] += len(faults)
    with open(options.tally, "a", encoding="utf-8") as f:
        f.write("%d %d %d\n" % tuple(counts))
    return 1 if counts[1] else 0


if __name__ == "__main__":
    sys.exit(main())
