# SPDX-License-Identifier: LGPL-2.1-or-later
"""tally.py BUILD: count the single tests of the last "meson test" of a build folder.

A cmocka program counts as many tests as it ran; any other program as one. Prints failures in full
and why something was skipped; the last line is "N passed, N failed, N skipped".
"""

import json
import os
import re
import sys

# cmocka writes these to either stream
LINE = re.compile(r"^\[\s+(OK|FAILED|SKIPPED)\s+\] (\S+)$", re.M)
SUMMARY = re.compile(r"^\[\s+FAILED\s+\] \d+ test")


def outcomes(record):
    """(name, outcome) of each test of one program."""
    text = record.get("stdout", "") + "\n" + record.get("stderr", "")
    seen = {}
    for outcome, name in LINE.findall(text):
        if not name.isdigit():
            # failed ones are named again at the end
            seen[name] = {"OK": "passed", "FAILED": "failed", "SKIPPED": "skipped"}[outcome]
    found = [(record["name"] + "." + name, outcome) for name, outcome in seen.items()]
    good = record["result"] in ("OK", "EXPECTEDFAIL", "SKIP")
    if not found:
        found = [(record["name"], {"SKIP": "skipped"}.get(record["result"], "passed" if good else "failed"))]
    elif not good and "failed" not in seen.values():
        # it died, or a sanitizer spoke at its end
        found.append((record["name"] + " (%s)" % record["result"], "failed"))
    return found, text


def main():
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    with open(os.path.join(sys.argv[1], "meson-logs", "testlog.json"), encoding="utf-8") as log:
        for line in log:
            record = json.loads(line)
            found, text = outcomes(record)
            for name, outcome in found:
                counts[outcome] += 1
                if outcome == "skipped":
                    print("skipped %s: %s" % (name, reason(text, name)))
            if any(outcome == "failed" for _, outcome in found):
                print("FAILED %s\n%s" % (record["name"], text[-20000:]))
    print("%(passed)d passed, %(failed)d failed, %(skipped)d skipped" % counts)
    return 1 if counts["failed"] or not sum(counts.values()) else 0


def reason(text, name):
    """What the test said before it skipped."""
    before = re.split(r"^\[\s+SKIPPED\s+\] %s$" % re.escape(name.split(".")[-1]), text, flags=re.M)[0]
    lines = [l for l in before.splitlines() if l.strip() and not l.startswith("[")]
    return lines[-1].strip() if lines else "it says so itself"


if __name__ == "__main__":
    sys.exit(main())
