#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""How long a daemon takes to come back: restart_bench.py BUILD

A supervisor kills it under 256 guests with 4,096 regions and 1,048,576 installed leaves, each a run of
its own, and with none, by turns; from the kill to READY=1. Prints one JSON object a line."""

import json
import os
import statistics
import subprocess
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "scenario"))
os.environ["IB_BUILD"] = sys.argv[1]

from supervisor import Supervised  # noqa: E402

GUESTS, REGIONS, LEAVES, TURNS = 256, 16, 4096, 9
LIMITS = "[Limits]\nGuestsMax=1024\nDevicesMax=1024\nNestedDomainsMax=1024\nMappingsMax=1073741824\n"
FUNCTION = "[EmulatedFunction]\nFunctionId=%d\nPciAddress=0000:%02x:%02x.0\n"


def daemon():
    functions = "".join(FUNCTION % (i + 1, i >> 5, i & 31) for i in range(GUESTS))
    return Supervised(settings={"iommubrokerd.conf": LIMITS + functions})


def kill(served):
    begun = time.monotonic()
    served.crash()
    return (time.monotonic() - begun) * 1000


def main():
    full, empty = daemon(), daemon()
    load = subprocess.Popen(
        [os.path.join(sys.argv[1], "tests/bench/restart_load"), full.run + "/fd.sock", *map(str, (GUESTS, REGIONS, LEAVES))],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        if load.stdout.readline() != "ready\n":
            sys.exit("restart_bench: the guests could not be made")
        times = [(kill(full), kill(empty)) for _ in range(TURNS)]
        load.stdin.close()
        if load.stdout.readline() != "served\n" or load.wait() or full.log().count("256 guests with 4096") != TURNS:
            sys.exit("restart_bench: a guest was lost: " + full.log()[-2000:])
    finally:
        load.kill()
        for served in (full, empty):
            served.kill()
            served.remove()
    row = {"name": "restart_256_guests_million_mappings", "value": round(statistics.median(t[0] for t in times), 1)}
    row.update(unit="ms", ratio=round(statistics.median(t[0] / t[1] for t in times), 3), against="restart without guests")
    print(json.dumps(row))


main()
