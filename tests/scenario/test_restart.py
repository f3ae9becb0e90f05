# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon is killed, again and again, and nobody notices more than a pause.

VMMs with changing tables, memory and devices run beside a DMA loop that must never fault
(restart_vmm.c). After each death every page of their windows, as their devices see it, is compared
with their tables; at the end nothing may be left, in the ledger or in the store."""

import collections
import contextlib
import os
import random
import re
import subprocess

from fixture import PATIENCE, Case, built, die_with_parent, eventually
from supervisor import Supervised

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TABLE = os.path.join(SOURCE, "daemon", "util", "crash_point.h")
POINT = re.compile(r'^\tX\(\w+, "([a-z-]+)",', re.M)
# Points that need more than one VMM (see test_restart_sessions), memory that cannot be mapped back, or a
# client over gRPC (see test_watchdog).
ELSEWHERE = {"home-lost", "delegated", "memory-put-back", "bytes-read", "call-taken"}


class Vmm:
    def __init__(self, daemon, functions, seed, relaxed=()):
        self.process = subprocess.Popen(
            [built("tests/scenario/restart_vmm"), daemon.run + "/fd.sock", *map(str, (*functions, seed, *relaxed))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=die_with_parent,
        )  # fmt: skip
        self.expect("ready")

    def expect(self, word):
        line = self.process.stdout.readline().strip()
        if line.split(" ")[0] != word:
            raise AssertionError("the VMM says '%s', expected '%s …'" % (line, word))
        return line

    def ask(self, command, word):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(command + "\n")
            self.process.stdin.flush()
        return self.expect(word)

    def pause(self):
        """Until go(): what it holds, by the ledger's names."""
        return {name: int(n) for name, n in re.findall(r"(\w+) (\d+)", self.ask("pause", "held"))}

    def go(self):
        self.ask("go", "ok")

    def check(self):
        return [int(number) for number in re.findall(r"\d+", self.ask("check", "ok"))]

    def quit(self):
        self.ask("quit", "bye")
        if self.process.wait(PATIENCE):
            raise AssertionError("the VMM ended with %d" % self.process.returncode)

    def kill(self):
        self.process.kill()
        self.process.wait()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()


class RestartCase(Case):
    daemon_class = Supervised
    weight = 100

    def check(self, vmm, when):
        try:
            return vmm.check()
        except AssertionError as error:
            raise AssertionError("%s: %s; log: %s" % (when, error, self.daemon.log()[-5000:])) from None

    def start(self, functions, seed=1, relaxed=None):
        vmm = Vmm(self.daemon, functions, seed, [relaxed] if relaxed else [])
        self.clients.callback(vmm.kill)
        return vmm


# What a guest, a ring, … has of descriptors in the store.
STORED = {"guests": 2, "memory_files": 1, "devices": 1, "rings": 5}


class Killed(RestartCase):
    """All in one class, one after another: kernels were seen to take minutes to reap processes of several
    supervisors that die all the time side by side.

    A thousand deaths, or as many as $IB_KILLS says; drawn anew each time, or from $IB_SEED."""

    settings = {
        "device.d/all.conf": "[Device]\nFunctionId=3\nRelaxedTranslation=yes\n[Device]\nFunctionId=1 2 4 5 6 7 8\n"
    }

    def kill(self, share, functions):
        """So many of them, under a VMM for each two functions."""
        seed = os.environ.get("IB_SEED") or os.urandom(4).hex()
        chance = random.Random("%s %r" % (seed, functions))
        vmms = [self.start(two, chance.randrange(1 << 30)) for two in functions]
        before, stored = [vmm.check() for vmm in vmms], []
        self.measures = {}
        while not self.measures:
            self.assert_ledger(vmms, "before any death")
        for n in range(int(int(os.environ.get("IB_KILLS", "1000")) * share)):
            # how far they get differs by itself; a pause that is drawn spreads it further
            with contextlib.suppress(subprocess.TimeoutExpired):
                vmms[0].process.wait(chance.random() * 0.05)
            self.daemon.crash()
            if n % 10 == 0:
                for vmm in vmms:
                    self.check(vmm, "seed %s, after death %d" % (seed, n))
                self.assert_ledger(vmms, "seed %s, after death %d" % (seed, n))
                stored.append(self.daemon.supervisor.stored_bytes())
        for vmm, begun in zip(vmms, before):
            done = self.check(vmm, "seed %s, at the end" % seed)
            self.assertTrue(all(a > b for a, b in zip(done, begun)), (begun, done))
            vmm.quit()
        self.assertEqual(re.findall(".*is not taken over.*", self.daemon.log()), [])
        self.assert_level(stored)

    def assert_level(self, samples):
        """Nothing stays behind at each death: one page a time would be twice of what is let pass."""
        part = len(samples) // 4
        if part >= 6:
            growth = (sum(samples[-part:]) - sum(samples[:part])) / part
            self.assertLess(growth, 512 * 1024, samples)

    def assert_ledger(self, vmms, when):
        """While they pause: what the daemon has charged is what they hold together, no more and no less,
        for the tenant and for the host; and so is what lies in the store."""
        held = collections.Counter()
        try:
            for vmm in vmms:
                held.update(vmm.pause())
            self.daemon_holds(held, when)
        finally:
            for vmm in vmms:
                vmm.go()

    def measured(self, held, charged, name):
        """What nested domains with their rings cost, each as much as it did before any death."""
        tables = held["rings"] - held["managed"]
        if not held["managed"]:
            self.measures.setdefault(name, charged[name] // tables)
        each = self.measures.get(name, charged[name])
        rest = charged[name] - tables * each
        if name in self.measures and held["managed"]:
            rest = held["managed"] * self.measures.setdefault(name + " of managed", rest // held["managed"])
        return tables * each + rest

    def daemon_holds(self, held, when):
        status = self.daemon.status()
        self.assertEqual(len(status.usage), 2, when)
        for usage in status.usage:
            charged = {one.resource: one.current for one in usage.usage}
            for name in charged.keys() & held.keys():
                self.assertEqual(charged[name], held[name], "%s: %s of %s" % (when, name, usage.tenant))
            for name in ("table_bytes", "mappings"):
                self.assertEqual(charged[name], self.measured(held, charged, name), "%s: %s of %s" % (when, name, usage.tenant))
        self.assertEqual(status.mappings_installed, held["leaves"], when)
        stored = sum(n * held[name] for name, n in STORED.items())
        eventually(lambda: len(self.daemon.supervisor.names()) == stored, "%s: %d are stored" % (when, stored))
        self.assertEqual(self.daemon.status().stored_descriptors, stored, when)

    def test_under_one_vmm(self):
        self.kill(0.25, [(1, 2)])

    def test_under_two(self):
        self.kill(0.25, [(3, 4), (5, 6)])

    def test_under_three(self):
        self.kill(0.25, [(1, 2), (3, 4), (5, 6)])

    def test_under_four(self):
        self.kill(0.25, [(1, 2), (3, 4), (5, 6), (7, 8)])

    def test_stopped_in_good_order(self):
        """A restart by the service manager leaves guests as they are, too."""
        vmm = self.start((1, 2))
        for _ in range(10):
            vmm.check()
            self.daemon.restart()
        vmm.check()
        vmm.quit()

    def test_a_vmm_that_dies_meanwhile(self):
        """Its guest is released by whoever comes next, the other's lives."""
        one, other = self.start((1, 2)), self.start((3, 4))
        one.check()
        self.daemon.supervisor.restart_seconds = 0.5
        self.daemon.process.kill()
        one.kill()
        eventually(lambda: self.daemon.supervisor.ready and self.daemon.alive(), "a successor")
        eventually(lambda: self.daemon.status().guests <= 2, "its guest is gone")
        other.check()
        other.quit()

    def test_at_each_point_of_one_half(self):
        self.die_at(slice(0, None, 2))

    def test_at_each_point_of_the_other(self):
        self.die_at(slice(1, None, 2))

    def die_at(self, half):
        """Each named point, in the table's order: the daemon dies there once, and its successor goes on
        where it was."""
        with open(TABLE) as f:
            points = POINT.findall(f.read())[half]
        if not subprocess.run([built("daemon/iommubrokerd"), "--crash-points"], capture_output=True, text=True).stdout:
            self.skipTest("built without -Dcrash_points=true")
        vmm = self.start((1, 2), relaxed=3)
        missed = [point for point in points if point not in ELSEWHERE and not self.dies(vmm, point)]
        eventually(lambda: self.daemon.supervisor.ready and self.daemon.alive(), "the last one is through")
        vmm.check()
        vmm.quit()
        self.assertEqual(missed, [])
        # of a domain that is being destroyed there is nothing to be attached to, and nothing wrong
        self.assertEqual(re.findall(".*cannot be attached as it was.*", self.daemon.log()), [])
        self.assertEqual(re.findall(".*is not taken over.*", self.daemon.log()), [])

    def dies(self, vmm, point):
        """Whether the daemon passed the point before long."""
        eventually(lambda: self.daemon.supervisor.ready and self.daemon.alive(), "the one before is through")
        starts = self.daemon.supervisor.starts
        self.daemon.crash(once={"IOMMUBROKER_CRASH_AT": point + (":3" if point == "pin-area" else "")})
        for _ in range(200):
            # time for what the VMM does to come round
            with contextlib.suppress(subprocess.TimeoutExpired):
                vmm.process.wait(0.03)
            self.check(vmm, "at " + point)
            if self.daemon.supervisor.starts > starts + 1:
                return True
        return False
