#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What machine.py makes of a console: a shell script speaks in QEMU's place."""

import base64
import gzip
import os
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
BOTH = """
one x86_64 plain always 60 program
two x86_64 plain always 60 program
"""


def suite(name, says, status=0, log="", extra=""):
    return "@@ib begin %s\n%s\n@@ib end %s %d\n%s@@ib log %s\n%s\n@@ib over %s\n" % (
        name,
        says,
        name,
        status,
        extra,
        name,
        log,
        name,
    )


class Console(unittest.TestCase):
    def play(self, script, names=("one",), table=BOTH, patience="1"):
        """The tally and what was said about a machine that is this script."""
        with tempfile.TemporaryDirectory() as folder:
            at = lambda name: os.path.join(folder, name)
            with open(at("table"), "w", encoding="utf-8") as f:
                f.write(table)
            command = [sys.executable, os.path.join(HERE, "machine.py"), "--log", at("log"), "--tally", at("tally")]
            command += ["--output", at("out"), "--patience", patience, "--suites", at("table"), *names]
            command += ["--", "/bin/sh", "-c", script, "console=none"]
            done = subprocess.run(
                command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, check=False
            )
            with open(at("tally"), encoding="utf-8") as f:
                tally = tuple(int(word) for word in f.read().split())
            self.files = {}
            for path, _, found in os.walk(at("out")):
                for name in found:
                    with open(os.path.join(path, name), "rb") as f:
                        self.files[os.path.relpath(os.path.join(path, name), at("out"))] = f.read()
        self.assertEqual(done.returncode, 1 if tally[1] else 0, done.stdout + done.stderr)
        return tally, done.stdout

    def say(self, text, **more):
        return self.play("cat <<'EOF'\n%s\n@@ib done\nEOF" % text, **more)

    def test_tally(self):
        self.assertEqual(self.say(suite("one", "hello\n3 passed, 0 failed, 1 skipped"))[0], (3, 0, 1))

    def test_tally_with_failures(self):
        tally, said = self.say(suite("one", "it broke\n3 passed, 2 failed, 1 skipped", 1))
        self.assertEqual(tally, (3, 2, 1))
        self.assertIn("it broke", said)

    def test_tally_and_status_differ(self):
        self.assertEqual(self.say(suite("one", "3 passed, 0 failed, 0 skipped", 1))[0], (3, 1, 0))

    def test_tap(self):
        tap = "1..3\nok 1 - a\nok 2 - b\nthere is no moon\nnot ok 3 # SKIP c\n# ok - tests"
        tally, said = self.say(suite("one", tap))
        self.assertEqual(tally, (2, 0, 1))
        self.assertIn("# SKIP c: there is no moon", said)

    def test_tap_failure(self):
        self.assertEqual(self.say(suite("one", "1..2\nok 1 - a\nnot ok 2 - b", 1))[0], (1, 1, 0))

    def test_tap_that_ends_early(self):
        self.assertEqual(self.say(suite("one", "1..3\nok 1 - a\nok 2 - b"))[0], (2, 1, 0))

    def test_tally_of_nothing(self):
        tally, said = self.say(suite("one", "0 passed, 0 failed, 0 skipped"))
        self.assertEqual(tally, (0, 1, 0))
        self.assertIn("ran no test", said)

    def test_as_many_failures_as_the_status_of_a_skip(self):
        self.assertEqual(self.say(suite("one", "1..2\nok 1 - a\nnot ok 2 - b", 77))[0], (1, 1, 0))

    def test_no_tally(self):
        tally, said = self.say(suite("one", "all is well"))
        self.assertEqual(tally, (0, 1, 0))
        self.assertIn("gave no tally", said)

    def test_skipped_whole(self):
        tally, said = self.say(suite("one", "no such device here", 77))
        self.assertEqual(tally, (0, 0, 1))
        self.assertIn("no such device here", said)

    def test_complaint_of_the_kernel(self):
        for line in (
            "WARNING: CPU: 0 PID: 1 at kernel/x.c:1",
            "BUG: sleeping function",
            "BUG: KASAN: use-after-free",
            "BUG kmalloc-64 (Not tainted): Poison overwritten",
            "rcu: INFO: rcu_preempt self-detected stall on CPU",
            "Call Trace:",
            "DMAR: ERROR: DMA PTE for vPFN 0x1 already set",
            "iommubrokerd[71]: segfault at 0 ip 0 sp 0 error 4",
        ):
            tally, said = self.say(suite("one", "1 passed, 0 failed, 0 skipped", log="[ 1.0] " + line))
            self.assertEqual(tally, (1, 1, 0))
            self.assertIn(line, said)

    def test_innocent_log(self):
        log = "DMAR: [DMA Write NO_PASID] Request device [0000:00:04.0] fault\nFAULT_INJECTION: forcing a failure."
        self.assertEqual(self.say(suite("one", "1 passed, 0 failed, 0 skipped", log=log))[0], (1, 0, 0))

    def test_complaint_at_boot(self):
        text = "@@ib log boot\nWARNING: at boot\n" + suite("one", "1 passed, 0 failed, 0 skipped")
        self.assertEqual(self.say(text)[0], (1, 1, 0))

    def test_processes_left(self):
        extra = "@@ib left one 71 iommubrokerd\n"
        tally, said = self.say(suite("one", "1 passed, 0 failed, 0 skipped", extra=extra))
        self.assertEqual(tally, (1, 1, 0))
        self.assertIn("71 iommubrokerd", said)

    def test_marker_after_an_unfinished_line(self):
        text = suite("one", "1 passed, 0 failed, 0 skipped").replace("\n@@ib end", "@@ib end")
        self.assertEqual(self.say(text)[0], (1, 0, 0))

    def test_file(self):
        data = base64.encodebytes(gzip.compress(b'{"a": 1}\n')).decode()
        text = suite("one", "1 passed, 0 failed, 0 skipped")
        text = text.replace("@@ib over", "@@ib file one a.json\n%s@@ib over" % data)
        self.assertEqual(self.say(text)[0], (1, 0, 0))
        self.assertEqual(self.files, {"one/a.json": b'{"a": 1}\n'})
        self.assertEqual(self.say(text.replace(data, data[:12] + "\n"))[0], (1, 1, 0))

    def test_machine_that_dies_and_the_suites_after(self):
        script = """case $0 in
			*ib.suites=one,two) printf '@@ib begin one\\nKernel panic soon\\n' ;;
			*ib.suites=two) printf '%s' '""" + suite("two", "5 passed, 0 failed, 0 skipped") + "@@ib done\n' ;; esac"
        tally, said = self.play(script, ("one", "two"))
        self.assertEqual(tally, (5, 1, 0))
        self.assertIn("Kernel panic soon", said)

    def test_machine_that_ends_before_any_suite(self):
        tally, said = self.play("echo no boot", ("one", "two"))
        self.assertEqual(tally[0], 0)
        self.assertGreaterEqual(tally[1], 2)
        self.assertIn("no boot", said)

    def test_machine_that_dies_after_its_suites(self):
        text = suite("one", "1 passed, 0 failed, 0 skipped") + "@@ib done\nKernel panic - not syncing: soon"
        tally, said = self.play("cat <<'EOF'\n%s\nEOF" % text)
        self.assertEqual(tally, (1, 1, 0))
        self.assertIn("Kernel panic", said)

    def test_machine_that_does_not_go_off(self):
        text = suite("one", "1 passed, 0 failed, 0 skipped") + "@@ib done"
        tally, said = self.play("cat <<'EOF'\n%s\nEOF\nexec sleep 1000" % text, patience="0.05")
        self.assertEqual(tally, (1, 1, 0))
        self.assertIn("did not go off", said)

    def test_suite_that_does_not_end(self):
        script = """case $0 in
			*=one,two) printf '@@ib begin one\\nstill at it\\n'; exec sleep 1000 ;;
			*) printf '%s' '""" + suite("two", "5 passed, 0 failed, 0 skipped") + "@@ib done\n' ;; esac"
        tally, said = self.play(script, ("one", "two"), BOTH.replace("60", "2"), "0.5")
        self.assertEqual(tally, (5, 1, 0))
        self.assertIn("time limit", said)


def main():
    result = unittest.main(exit=False, verbosity=0).result
    bad = len(result.failures) + len(result.errors)
    print("%d passed, %d failed, %d skipped" % (result.testsRun - bad, bad, len(result.skipped)), flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
