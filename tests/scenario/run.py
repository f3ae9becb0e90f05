# SPDX-License-Identifier: LGPL-2.1-or-later
"""Run the scenarios against a build folder: run.py --build DIR [--jobs N] [--list] [NAME…]

A NAME is a part of a test's id (test_memory.RegionsGrpc.test_cut). Test classes run in parallel,
each in a process of its own. The last line is "N passed, N failed, N skipped"; every skip says why.
"""

import argparse
import concurrent.futures
import json
import os
import subprocess
import sys
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.dont_write_bytecode = True


def cases():
    """Ids of all tests, by their class."""
    by_class = {}

    def walk(suite):
        for item in suite:
            if isinstance(item, unittest.TestSuite):
                walk(item)
            elif type(item).__name__ == "_FailedTest":
                raise item._exception
            else:
                module, name, test = item.id().split(".")
                # a suite over both transports is a base of the two
                if not getattr(sys.modules[module], name).__dict__.get("_abstract"):
                    by_class.setdefault(module + "." + name, []).append(item.id())

    walk(unittest.TestLoader().discover(HERE, pattern="test_*.py", top_level_dir=HERE))
    return by_class


def weight(name, ids):
    """How long a class takes, roughly: a class may say it by itself."""
    module, case = name.split(".")
    return getattr(getattr(sys.modules[module], case), "weight", 1) * len(ids)


class Tally(unittest.TestResult):
    """One line of JSON for each test."""

    def __init__(self):
        super().__init__()
        self.begun = {}

    def tell(self, test, outcome, text=""):
        json.dump({"id": test.id(), "outcome": outcome, "text": text, "seconds": time.monotonic() - self.t0}, sys.stdout)
        sys.stdout.write("\n")
        sys.stdout.flush()

    def startTest(self, test):
        super().startTest(test)
        self.t0 = time.monotonic()
        self.told = self.bad = False
        self.texts = []

    def addError(self, test, error):
        super().addError(test, error)
        self.texts.append(self._exc_info_to_string(error, test))

    addFailure = addError

    def addSubTest(self, test, subtest, error):
        if error is not None:
            self.texts.append(str(subtest) + "\n" + self._exc_info_to_string(error, test))

    def addSkip(self, test, reason):
        if not hasattr(self, "t0"):
            self.t0 = time.monotonic()
        self.told = True
        self.tell(test, "skipped", reason)

    def stopTest(self, test):
        super().stopTest(test)
        if not self.told or self.texts:
            self.tell(test, "failed" if self.texts else "passed", "\n".join(self.texts))


def run_here(ids):
    unittest.TestLoader().loadTestsFromNames(ids).run(Tally())


def run_class(ids, environment, limit):
    command = [sys.executable, os.path.abspath(__file__), "--here", *ids]
    try:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=limit
        )
        out, err, status = done.stdout, done.stderr, done.returncode
    except subprocess.TimeoutExpired as error:
        out, err, status = (error.stdout or b"").decode(), "no end after %d s" % limit, 1
    results = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    missing = set(ids) - {r["id"] for r in results}
    for test in sorted(missing):
        results.append({"id": test, "outcome": "failed", "text": "did not end (status %s)\n%s" % (status, err[-3000:]), "seconds": 0})
    return results


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", default=os.environ.get("IB_BUILD"))
    parser.add_argument("--jobs", type=int, default=2 * (os.cpu_count() or 1))
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--verbose", action="store_true", help="a line for every test")
    parser.add_argument("--here", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--without", help="leave out what holds this")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    if options.here:
        return run_here(options.here)
    environment = dict(os.environ, IB_BUILD=os.path.abspath(options.build or "."), PYTHONDONTWRITEBYTECODE="1")
    os.environ["IB_BUILD"] = environment["IB_BUILD"]
    chosen = {}
    for name, ids in cases().items():
        ids = [i for i in ids if not options.names or any(n in i for n in options.names)]
        ids = [i for i in ids if not options.without or options.without not in i]
        if ids:
            chosen[name] = ids
    if options.list:
        for ids in chosen.values():
            print("\n".join(ids))
        return 0
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        # the longest first
        order = [ids for _, ids in sorted(chosen.items(), key=lambda item: weight(*item), reverse=True)]
        running = [pool.submit(run_class, ids, environment, 60 + 60 * len(ids)) for ids in order]
        for future in concurrent.futures.as_completed(running):
            for result in future.result():
                counts[result["outcome"]] += 1
                if result["outcome"] == "failed":
                    print("FAILED %s\n%s" % (result["id"], result["text"]), flush=True)
                elif result["outcome"] == "skipped":
                    print("skipped %s: %s" % (result["id"], result["text"]), flush=True)
                elif options.verbose:
                    print("passed %s (%.2f s)" % (result["id"], result["seconds"]), flush=True)
    print("%(passed)d passed, %(failed)d failed, %(skipped)d skipped" % counts)
    return 1 if counts["failed"] or not sum(counts.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
