# SPDX-License-Identifier: LGPL-2.1-or-later
"""Two tenants, of which one misbehaves in every way at once. Each call of the other succeeds with
the right answer, its account is exact, and nothing is left of the first when it is gone."""

import collections
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import unittest

from api import PROTO
from fixture import Case, built, eventually
from guest import MIB
from misbehaver import KINDS
from neighbour import GUEST_BYTES, GUEST_MAPPINGS, MORE_BYTES

HERE = os.path.dirname(os.path.abspath(__file__))
BAD_UID, GOOD_UID = 23101, 23102
# Of each kind, and of each neighbour; a soak asks for more.
ROUNDS = int(os.environ.get("IB_TWO_TENANTS_ROUNDS", "1"))
# An end of what must come, of a loaded machine with a sanitizer.
HANG_SECONDS = 100 * max(1, ROUNDS // 2)

QUOTA = """[Match]
User={uid}
[Quota]
SessionsMax=40
GuestsMax={guests}
PinnedMemoryMax={pinned}
MappingsMax=200000
DevicesMax={devices}
NestedDomainsMax=24
RegionsMax=60
MemoryFilesMax=64
ConnectionsMax={connections}
CallsMax=1000
DescriptorsMax=48
EventWatchesMax=100
QueuedMemoryMax=16M
"""
BAD_LIMITS = {
    "guests": 24, "pinned_bytes": 192 * MIB, "mappings": 200000, "devices": 5, "sessions": 40, "connections": 80,
    "calls": 1000, "descriptors": 48, "watches": 100, "queued_bytes": 16 * MIB,
}  # fmt: skip

# What guests and sessions of the other hold.
HELD = ("sessions", "guests", "devices", "nested_domains", "regions", "memory_files", "pinned_bytes", "mappings")

# One process each; those that fork use no gRPC.
CROWD = (
    ("native_storm", "native_unread", "cancels_of_nothing", "native_random"),
    ("die_in_a_pin", "same_request_id", "native_malformed", "descriptors_unused"),
    ("grpc_storm", "grpc_cancels", "wrong_handles", "too_many_sessions"),
    ("rapid_reset", "grpc_unread", "http2_floods", "too_many_connections", "silence"),
    ("hostile_tables", "shrinking"),
    ("pin_and_unpin", "watchers", "greedy", "gone_before_the_answer"),
)


class Crowd:
    """All processes of one tenant, and the lines that they tell."""

    def __init__(self, case, program, uid):
        self.case, self.program, self.uid = case, program, uid
        self.processes, self.readers = [], []
        self.lines = collections.defaultdict(list)
        self.first, self.begun = {}, time.monotonic()

    def start(self, *arguments):
        path = os.path.join(self.case.tree, "tests", "scenario", self.program)
        process = subprocess.Popen(
            [sys.executable, path, self.case.daemon.run, *map(str, arguments)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            user=self.uid, group=self.uid, extra_groups=[],
            env=dict(os.environ, IB_BUILD=os.path.join(self.case.tree, "build"), HOME="/", GRPC_ENABLE_FORK_SUPPORT="0"),
        )  # fmt: skip
        reader = threading.Thread(target=self.read, args=(process,))
        reader.start()
        self.processes.append(process)
        self.readers.append(reader)

    def read(self, process):
        for line in process.stdout:
            self.lines[process.pid].append(line.rstrip())
            self.first.setdefault(" ".join(line.split()[:2]), time.monotonic() - self.begun)

    def all_lines(self):
        return [line for lines in list(self.lines.values()) for line in list(lines)]

    def count(self, start):
        return sum(line.startswith(start) for line in self.all_lines())

    def say(self):
        for process in self.processes:
            process.stdin.write("\n")
            process.stdin.flush()

    def kill(self):
        for process in self.processes:
            process.kill()
        for process, reader in zip(self.processes, self.readers):
            process.wait()
            reader.join()
            process.stdin.close()
            process.stdout.close()
        self.processes, self.readers = [], []


class TwoTenants(Case):
    weight = 60
    settings = {
        "iommubrokerd.conf": "[Clients]\nUsers=%d %d\n" % (BAD_UID, GOOD_UID),
        "quota.d/10-bad.conf": QUOTA.format(uid=BAD_UID, guests=24, pinned="192M", devices=5, connections=80),
        "quota.d/20-good.conf": QUOTA.format(uid=GOOD_UID, guests=2, pinned="34M", devices=2, connections=6),
        "device.d/10-bad.conf": "[Device]\nUser=%d\nFunctionId=1 2 3 4 5\n" % BAD_UID,
        "device.d/20-good.conf": "[Device]\nUser=%d\nFunctionId=6 7\n" % GOOD_UID,
    }

    def setUp(self):
        if os.geteuid() != 0:
            raise unittest.SkipTest("only root can run clients of two users")
        super().setUp()
        self.tree = self.public_tree()
        self.most = collections.Counter()
        self.operator = self.daemon.admin()
        self.clients.callback(self.operator.close)
        self.current("host")
        with open("/proc/%d/maps" % self.daemon.pid) as maps:
            self.sanitized = bool(re.search("lib[at]san|clang_rt", maps.read()))

    def public_tree(self):
        """What the two users run, where they can read it: a home folder may be closed."""
        tree = os.path.join(self.daemon.folder, "tree")
        shutil.copytree(HERE, os.path.join(tree, "tests", "scenario"), ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(PROTO, os.path.join(tree, "proto"))
        os.makedirs(os.path.join(tree, "build", "tests", "scenario"))
        shutil.copy(built("tests/scenario/dma_probe"), os.path.join(tree, "build", "tests", "scenario"))
        subprocess.run(["chmod", "-R", "a+rX", tree], check=True)
        return tree

    def crowd(self, program, uid):
        made = Crowd(self, program, uid)
        self.clients.callback(made.kill)
        return made

    def accounts(self):
        """Tenant → resource → what is told of it. The operator's calls succeed all the while, too."""
        usage = self.operator.call("GetStatus").message.usage
        return {account.tenant: {u.resource: u for u in account.usage} for account in usage}

    def current(self, tenant):
        """Of a tenant what it uses now; one that nobody is of any more is not there."""
        return {name: u.current for name, u in self.accounts().get(tenant, {}).items() if u.current}

    def watch(self):
        """What must hold at any time."""
        bad = self.accounts().get("bad", {})
        for resource, limit in BAD_LIMITS.items():
            if resource in bad:
                self.assertLessEqual(bad[resource].current, limit, resource)
        self.most["memory"] = max(self.most["memory"], self.daemon.memory_bytes())
        self.most["descriptors"] = max(self.most["descriptors"], len(self.daemon.fds()))

    def said(self, crowd, word):
        """Whether each of its processes has; none may fail meanwhile."""
        self.watch()
        for process in crowd.processes:
            self.assertIn(process.poll(), (None, 0), "\n".join(crowd.lines[process.pid][-30:]))
        said = [any(line.startswith(word) for line in crowd.lines[p.pid]) for p in crowd.processes]
        return all(said) or said

    def enough(self, bad, good):
        """Whether each has had its rounds; or who has not."""
        self.said(good, "round")
        self.said(bad, "done")
        for line in bad.all_lines():
            self.assertFalse(line.startswith("broken"), line)
        missing = [kind for kind in KINDS if not bad.count("done %s" % kind) or bad.count("done %s" % kind) + bad.count("thrown-out %s " % kind) < ROUNDS]
        missing += [lines[-1:] for pid, lines in list(good.lines.items()) if len(lines) < ROUNDS + 1]
        return not missing or missing

    def assert_good_account(self):
        """Two guests, and what is theirs; no call was ever refused, and never was there more."""
        mine = self.accounts()["good"]
        now = {name: u.current for name, u in mine.items() if name in HELD}
        self.assertEqual(now, {
            "sessions": 2, "guests": 2, "devices": 2, "nested_domains": 2, "regions": 2, "memory_files": 2,
            "pinned_bytes": 2 * GUEST_BYTES, "mappings": 2 * GUEST_MAPPINGS,
        })  # fmt: skip
        for name, u in mine.items():
            self.assertEqual(u.events, 0, "refusals of %s" % name)
        more = {"regions": 2, "memory_files": 2, "pinned_bytes": 2 * MORE_BYTES}
        for name in now:
            self.assertLessEqual(mine[name].peak, now[name] + more.get(name, 0), name)

    def assert_log(self):
        """Nobody else's words in it, no complaint but of the one who misbehaves, and bounded."""
        with open(self.daemon.log_path, "rb") as file:
            raw = file.read()
        self.assertIsNone(re.search(rb"[\x00-\x09\x0b-\x1f\x7f]", raw), "control characters")
        text = raw.decode()
        self.assertIsNone(re.search("[\x80-\x9f\u2028-\u202e]", text), "what turns a terminal's text around")
        lines = text.splitlines()
        for line in lines:
            self.assertRegex(line, r"^iommubrokerd: (?!error)", "each line is the daemon's own, and none is of its own fault")
            if line.startswith("iommubrokerd: warning: "):
                self.assertRegex(line, r"\b(uid|user) %d\b" % BAD_UID, "who misbehaves")

    def test_one_misbehaves_in_every_way(self):
        self.assertEqual(sorted(kind for kinds in CROWD for kind in kinds), sorted(KINDS))
        good, bad = self.crowd("neighbour.py", GOOD_UID), self.crowd("misbehaver.py", BAD_UID)
        for fid, name in ((6, "native"), (7, "grpc")):
            good.start(name, fid, ROUNDS)
        eventually(lambda: self.said(good, "round"), "the neighbours are at work")
        before = self.daemon.memory_bytes()
        for seed, kinds in enumerate(CROWD):
            bad.start(seed, *kinds)
        self.clients.callback(self.report, bad, good)
        eventually(lambda: self.enough(bad, good), "each had its rounds", HANG_SECONDS)
        good.say()
        eventually(lambda: self.said(good, "holding"), "the neighbours hold a guest each")
        self.assert_good_account()
        self.assertTrue(self.current("bad"), "the other is still at it")
        bad.kill()
        eventually(lambda: not self.current("bad") or self.current("bad"), "nothing is left of who misbehaved")
        self.assert_good_account()
        self.assertEqual(self.current("host")["pinned_bytes"], 2 * GUEST_BYTES)
        good.say()
        eventually(lambda: self.said(good, "ended"), "the neighbours took theirs down")
        good.kill()
        eventually(lambda: not self.current("host") or self.current("host"), "nothing is left of anybody")
        self.assert_log()
        self.assertLess(self.most["memory"] - before, (1500 if self.sanitized else 128) * MIB, "the daemon's memory stays bounded")

    def report(self, bad, good):
        if not os.environ.get("IB_TWO_TENANTS_REPORT"):
            return
        for kind in KINDS:
            thrown = [line for line in bad.all_lines() if line.startswith("thrown-out %s " % kind)]
            print(kind, "first %.1f" % bad.first.get("done " + kind, -1), "done", bad.count("done %s" % kind), "thrown out", len(thrown), thrown[:1], file=sys.stderr)
        print("neighbours' rounds", good.count("round"), dict(self.most), "log lines", self.daemon.log().count("\n"), file=sys.stderr)
