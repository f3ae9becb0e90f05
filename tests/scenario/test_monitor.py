# SPDX-License-Identifier: LGPL-2.1-or-later
"""What operators are told as it happens."""

import contextlib
import os
import queue
import threading

from api import Refused, pb
from cases import VmmCase
from fixture import PATIENCE, eventually
from guest import PAGE
from vmm import WINDOW_FIRST, Started

IOVA = WINDOW_FIRST + 5 * PAGE
NOWHERE = 0x4000_0000  # no memory of the guest's
TENANT = "uid:%d" % os.getuid()


class Watcher:
    """A Monitor call; its events by and by."""

    def __init__(self, admin):
        self.call = admin.start("Monitor")
        self.events = queue.Queue()
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        with contextlib.suppress(Refused):
            while (got := self.call.next()) is not None:
                self.events.put(got[0])

    def until(self, kind, **fields):
        """The next of that kind, and all that came before it."""
        before = []
        while True:
            try:
                event = self.events.get(timeout=PATIENCE)
            except queue.Empty:
                raise AssertionError("no %s, but %s" % (kind, [e.kind for e in before])) from None
            if event.kind == kind and all(getattr(event, n) == v for n, v in fields.items()):
                return event, before
            before.append(event)

    def close(self):
        self.call.cancel()
        self.thread.join(PATIENCE)


class Monitor(VmmCase):
    settings = {"iommubrokerd.conf": "[Limits]\nGuestsPerSessionMax=2\n"}

    def watch(self):
        admin = self.daemon.admin()
        self.clients.callback(admin.close)
        watcher = Watcher(admin)
        self.clients.callback(watcher.close)
        self.until_watched()
        return watcher

    def until_watched(self):
        with contextlib.closing(self.daemon.admin()) as admin:
            watched = lambda: "iommubroker_monitors 1\n" in admin.call("GetMetrics").message.text
            eventually(watched, "somebody watches")

    def test_a_life(self):
        watcher = self.watch()
        client = self.client()
        opened, _ = watcher.until("session_opened", pid=os.getpid())
        self.assertEqual((opened.tenant, opened.uid), (TENANT, os.getuid()))
        vmm = self.new_vmm(name="watched")
        created, _ = watcher.until("guest_created", guest_name="watched")
        self.assertEqual((created.guest, created.tenant), (vmm.guest, TENANT))
        started = Started(vmm, fid=2)
        device, _ = watcher.until("device_opened")
        self.assertIn("0000:00:02.0", device.text)
        # the guest's own mistake is an event of the guest's
        started.tables.map(IOVA, NOWHERE)
        vmm.refreshed(started.nested, (IOVA, PAGE))
        wrong, _ = watcher.until("leaf_refused", guest=vmm.guest)
        self.assertIn("0x%x" % NOWHERE, wrong.text)
        self.assertEqual((wrong.guest_name, wrong.tenant, wrong.pid), ("watched", TENANT, os.getpid()))
        vmm.mutate("DestroyGuest", guest=vmm.guest)
        watcher.until("guest_gone", guest=vmm.guest)
        client.close()
        closed, _ = watcher.until("session_closed")
        self.assertIn("closed because", closed.text)

    def test_a_refusal_with_its_numbers(self):
        watcher = self.watch()
        self.vmm.mutate("CreateGuest", name="second")
        with self.refused("RESOURCE_EXHAUSTED"):
            self.vmm.mutate("CreateGuest", name="third")
        event, _ = watcher.until("refusal")
        self.assertEqual((event.tenant, event.pid), (TENANT, os.getpid()))
        self.assertIn("guests: 1 requested, 2 of 2 used", event.text)
        self.assertIn("QUOTA_EXCEEDED", event.text)

    def test_numbers_rise_by_one_and_a_reload_is_told(self):
        watcher = self.watch()
        with contextlib.closing(self.daemon.admin()) as admin:
            admin.call("Configure", pb.ConfigureRequest())
        reloaded, before = watcher.until("reloaded")
        with open(os.path.join(self.daemon.config, "iommubrokerd.conf"), "w") as f:
            f.write("[Limits]\nNonsense=1\n")
        with contextlib.closing(self.daemon.admin()) as admin, self.assertRaises(Refused):
            admin.call("Configure", pb.ConfigureRequest())
        refused, between = watcher.until("reload_refused")
        self.assertIn("Nonsense", refused.text)
        numbers = [e.sequence for e in [*before, reloaded, *between, refused]]
        self.assertEqual(numbers, list(range(numbers[0], numbers[0] + len(numbers))))
        self.assertGreater(reloaded.time_ns, 10**18)

    def test_who_does_not_read_is_told_what_was_lost(self):
        started = Started(self.vmm)
        admin = self.daemon.admin()
        self.clients.callback(admin.close)
        call = admin.start("Monitor")
        self.until_watched()
        # far more than what the connection and the ring hold
        for round in range(40):
            for n in range(256):
                started.tables.map(IOVA + n * PAGE, NOWHERE + (round * 256 + n) * PAGE)
            self.vmm.refreshed(started.nested, (IOVA, 256 * PAGE))
        last = call.next()[0]
        while last.kind != "lost":
            event = call.next()[0]
            self.assertTrue(event.kind == "lost" or event.sequence == last.sequence + 1)
            last = event
        self.assertGreater(last.lost, 0)
        # what is posted meanwhile can push more out before it is read, and that is told, too
        after = call.next()[0]
        while after.kind == "lost":
            last, after = after, call.next()[0]
        self.assertEqual(after.sequence, last.sequence + 1)
        call.cancel()

    def test_only_so_many_watch(self):
        watchers = [self.daemon.admin() for _ in range(17)]
        for admin in watchers:
            self.clients.callback(admin.close)
        calls = [admin.start("Monitor") for admin in watchers]
        told = queue.Queue()

        def read(call):
            try:
                while call.next() is not None:
                    pass
            except Refused as error:
                told.put(str(error))

        threads = [threading.Thread(target=read, args=(call,), daemon=True) for call in calls]
        for thread in threads:
            thread.start()
        self.assertIn("16 operators watch already", told.get(timeout=PATIENCE))
        for call in calls:
            call.cancel()
        for thread in threads:
            thread.join(PATIENCE)
