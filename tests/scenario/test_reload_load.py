# SPDX-License-Identifier: LGPL-2.1-or-later
"""Many configurations in a row under load, over both transports: lower than what is used, higher,
and broken ones between. No call fails but those that the new limits refuse, and these say so."""

import collections
import contextlib
import os
import signal
import threading

from api import Refused, pb
from cases import VmmCase
from fixture import eventually
from guest import MIB, PAGE
from vmm import WINDOW_FIRST, Started

RELOADS = 60
IOVA = WINDOW_FIRST + 5 * PAGE
RULE = """[Match]
User=%d
[Quota]
GuestsMax={guests}
PinnedMemoryMax={pinned}M
RegionsMax={regions}
""" % os.getuid()
# Between what four VMMs use without their bursts (4 guests, 64 MiB, 4 regions) and far above, and
# below: then what they have stays theirs.
LIMITS = ({"guests": 100, "pinned": 4096, "regions": 400}, {"guests": 2, "pinned": 20, "regions": 2},
          {"guests": 5, "pinned": 65, "regions": 5}, {"guests": 1, "pinned": 1, "regions": 1},
          {"guests": 4, "pinned": 64, "regions": 4})  # fmt: skip


class Worker(threading.Thread):
    """One VMM: refreshes, whose page is looked at through the device, and memory that comes and goes.
    What a limit may refuse is counted; everything else must succeed."""

    def __init__(self, case, vmm, fid):
        super().__init__()
        self.case, self.vmm, self.fid = case, vmm, fid
        self.counts = collections.Counter()
        self.failure = None
        self.started = Started(vmm, fid=fid, mappings_max=100)

    def run(self):
        try:
            while not self.case.stop.is_set():
                self.turn()
        except Exception as error:  # noqa: BLE001: whatever it is, it is the finding
            self.failure = repr(error)

    def turn(self):
        started, text = self.started, b"turn %d" % self.counts["turns"]
        started.memory.write(0x3000, text)
        assert started.show(IOVA, 0x3000) == (1, 0)
        assert started.dma.read(IOVA, len(text)) == text
        assert started.hide(IOVA) == (0, 1)
        assert not started.dma.reaches(IOVA)
        self.more_memory()
        self.more_guests()
        assert self.vmm.describe().region_bytes == 16 * MIB
        self.counts["turns"] += 1

    @contextlib.contextmanager
    def may_be_refused(self, what):
        """By a limit of the file that was reloaded, which is named with its line."""
        try:
            yield
            self.counts[what + " done"] += 1
        except Refused as error:
            told = error.metadata
            if error.code != "RESOURCE_EXHAUSTED" or "/quota.d/50-mine.conf:" not in told.get("rule", "") or told["tenant"] != "mine":
                raise
            # refused means that it would have been above the limit
            assert int(told["used"]) + int(told["requested"]) > int(told["limit"]), error
            self.counts[what + " refused"] += 1

    def more_memory(self):
        with self.may_be_refused("memory"):
            self.vmm.new_memory(MIB, gpa=1024 * MIB)
        # taking away what may be there, and the file, is never refused
        self.vmm.unmap(1024 * MIB, MIB)
        while len(self.vmm.files) > 1:
            self.vmm.mutate("RemoveMemoryFile", guest=self.vmm.guest, memory_file=self.vmm.files.pop()[1])

    def more_guests(self):
        with self.may_be_refused("guest"):
            guest = self.vmm.mutate("CreateGuest", name="second").guest
            self.vmm.mutate("DestroyGuest", guest=guest)


class ReloadUnderLoad(VmmCase):
    weight = 20
    settings = {"quota.d/50-mine.conf": RULE.format(**LIMITS[0])}

    def write(self, name, text):
        with open(os.path.join(self.daemon.config, name), "w") as file:
            file.write(text)

    def mine(self):
        """Resource → (used, limit, whether that is over it), as operators are told."""
        request = pb.ShowQuotaRequest(tenant="mine")
        for account in self.admin.call("ShowQuota", request).messages:
            if account.level == "tenant":
                return {limit.resource: (limit.current, limit.max, limit.over) for limit in account.limits}
        raise AssertionError("no such tenant")

    def broken(self):
        """A mistake in another file: nothing of what was written holds."""
        before = {name: limit[1] for name, limit in self.mine().items()}
        self.write("quota.d/50-mine.conf", RULE.format(guests=7, pinned=777, regions=77))
        self.write("quota.d/60-bad.conf", "[Match]\nUser=*\n[Quota]\nGuestMax=1\n")
        with self.refused("FAILED_PRECONDITION", reason="BAD_CONFIGURATION") as refused:
            self.admin.call("Configure")
        self.assertIn("60-bad.conf:4", refused.exception.message)
        self.assertEqual({name: limit[1] for name, limit in self.mine().items()}, before)
        os.unlink(os.path.join(self.daemon.config, "quota.d/60-bad.conf"))

    def lower_than_used(self, limits):
        """What is over is shown so, and is still there."""
        for resource, most, used in (("guests", limits["guests"], 4), ("pinned_bytes", limits["pinned"] * MIB, 64 * MIB)):
            current, limit, over = self.mine()[resource]
            self.assertEqual(limit, most)
            self.assertGreaterEqual(current, used)
            self.assertEqual(over, current > most, resource)

    def reload(self, turn):
        limits = LIMITS[turn % len(LIMITS)]
        self.write("quota.d/50-mine.conf", RULE.format(**limits))
        if turn % 3:
            self.admin.call("Configure")
        else:
            os.kill(self.daemon.pid, signal.SIGHUP)
            eventually(lambda: self.mine()["guests"][1] == limits["guests"], "it holds")
        self.lower_than_used(limits)

    def test_calls_go_on(self):
        self.stop = threading.Event()
        self.admin = self.daemon.admin()
        self.clients.callback(self.admin.close)
        vmms = [self.vmm] + [self.new_vmm(name) for name in ("grpc", "native", "grpc")]
        workers = [Worker(self, vmm, fid) for fid, vmm in enumerate(vmms, 1)]
        for worker in workers:
            worker.start()
        try:
            for turn in range(RELOADS):
                self.reload(turn)
                if turn % 4 == 3:
                    self.broken()
                target = min(worker.counts["turns"] for worker in workers) + turn % 2
                eventually(
                    lambda: all(w.counts["turns"] >= target or w.failure for w in workers) or [w.counts for w in workers],
                    "every VMM has its turn",
                )
        finally:
            self.stop.set()
            for worker in workers:
                worker.join()
        self.assertEqual([worker.failure for worker in workers], [None] * 4)
        total = sum((worker.counts for worker in workers), collections.Counter())
        for what in ("memory done", "memory refused", "guest done", "guest refused"):
            self.assertGreater(total[what], 0, str(total))
        self.reload(0)
        self.assertEqual({name: self.mine()[name] for name in ("guests", "pinned_bytes")}, {
            "guests": (4, 100, False), "pinned_bytes": (64 * MIB, 4096 * MIB, False),
        })  # fmt: skip
        workers[0].turn()
