# SPDX-License-Identifier: LGPL-2.1-or-later
"""WatchEvents: what is told, in which order, and what when nobody listens."""

import os

from api import Refused, pb
from cases import VmmCase
from fixture import both_transports
from guest import MIB, PAGE, Tables
from vmm import WINDOW_FIRST, Started

IOVA = WINDOW_FIRST + 5 * PAGE


class EventCase(VmmCase):
    def watch(self, since=0, guest=None):
        return self.vmm.client.start("WatchEvents", pb.WatchEventsRequest(guest=guest or self.vmm.guest, since=since))

    def take(self, watch, count):
        return [watch.next()[0] for _ in range(count)]

    def refuse_leaf(self, started, n):
        """The n-th leaf that is refused: an event with its IOVA."""
        started.tables.map(IOVA + n * PAGE, 0x4000_0000 + n * PAGE)
        self.vmm.refreshed(started.nested, (IOVA + n * PAGE, PAGE))


@both_transports
class Watching(EventCase):
    def test_refused_leaves(self):
        started = Started(self.vmm)
        rom = self.vmm.new_memory(MIB, gpa=32 * MIB, writable=False)
        watch = self.watch()
        self.refuse_leaf(started, 0)
        event = self.take(watch, 1)[0]
        self.assertEqual(
            (event.kind, event.guest, event.nested, event.iova, event.gpa),
            (pb.EVENT_KIND_LEAF_REFUSED, self.vmm.guest, started.nested, IOVA, 0x4000_0000),
        )
        self.assertTrue(event.text)
        self.assertGreater(event.time_ns, 1_600_000_000 * 10**9)
        started.tables.map(IOVA + PAGE, rom.gpa)
        self.vmm.refreshed(started.nested, (IOVA + PAGE, PAGE))
        event = self.take(watch, 1)[0]
        self.assertEqual((event.kind, event.iova), (pb.EVENT_KIND_LEAF_REFUSED, IOVA + PAGE))
        # the same leaf unchanged is not told again
        self.vmm.refreshed(started.nested)
        self.refuse_leaf(started, 2)
        event = self.take(watch, 1)[0]
        self.assertEqual(event.iova, IOVA + 2 * PAGE)
        watch.cancel()

    def test_errors_at_registration(self):
        memory, device = self.vmm.new_memory(), self.vmm.bound()
        tables = Tables(memory)
        tables.map(IOVA, 0x3000)
        memory.write64(tables.entry_gpa(IOVA, 0), 0)
        watch = self.watch()
        created = self.vmm.register(device, tables.iota())
        self.assertEqual(created.verdict, pb.VERDICT_DONE)
        event = self.take(watch, 1)[0]
        self.assertEqual(event.kind, pb.EVENT_KIND_TRANSLATION_ERROR)
        self.assertEqual((event.fault.event_code, event.fault.level), (7, pb.TABLE_LEVEL_SEGMENT))
        watch.cancel()

    def test_sequence_and_since(self):
        started = Started(self.vmm)
        for n in range(10):
            self.refuse_leaf(started, n)
        watch = self.watch()
        events = self.take(watch, 10)
        numbers = [e.sequence for e in events]
        self.assertEqual(numbers, list(range(numbers[0], numbers[0] + 10)), "rises by one")
        watch.cancel()
        later = self.watch(since=numbers[6])
        self.assertEqual([e.sequence for e in self.take(later, 3)], numbers[7:])
        later.cancel()

    def test_two_watchers_see_the_same(self):
        started = Started(self.vmm)
        one, other = self.watch(), self.watch()
        for n in range(5):
            self.refuse_leaf(started, n)
        self.assertEqual(self.take(one, 5), self.take(other, 5))
        one.cancel()
        other.cancel()

    def test_lost(self):
        started = Started(self.vmm)
        for n in range(1500):
            started.tables.map(IOVA + n * PAGE, 0x4000_0000 + n * PAGE)
        self.vmm.refreshed(started.nested)
        watch = self.watch(since=1)
        first = self.take(watch, 1)[0]
        self.assertEqual(first.kind, pb.EVENT_KIND_LOST, str(first))
        self.assertGreaterEqual(first.lost, 1499 - 1024)
        rest = self.take(watch, 1499 - first.lost)
        self.assertEqual({e.kind for e in rest}, {pb.EVENT_KIND_LEAF_REFUSED})
        numbers = [e.sequence for e in rest]
        self.assertEqual(numbers, list(range(numbers[0], numbers[0] + len(numbers))))
        self.assertLessEqual(len(rest), 1024)
        self.assertEqual(rest[-1].iova, IOVA + 1499 * PAGE, "the newest are kept")
        watch.cancel()

    def test_guest_gone_ends_it(self):
        watch = self.watch()
        self.vmm.mutate("DestroyGuest", guest=self.vmm.guest)
        event = self.take(watch, 1)[0]
        self.assertEqual(event.kind, pb.EVENT_KIND_GUEST_GONE)
        self.assertIsNone(watch.next(), "and then the stream ends")

    def test_session_that_ends(self):
        client = self.client("grpc")
        guest = client.call("CreateGuest", pb.CreateGuestRequest(name="short")).message.guest
        watch = client.start("WatchEvents", pb.WatchEventsRequest(guest=guest))
        client.call("CloseSession")
        try:
            while watch.next() is not None:
                pass
        except Refused as error:
            self.assertIn(error.code, ("CANCELLED", "NOT_FOUND", "UNAUTHENTICATED", "UNAVAILABLE"), str(error))

    def test_cancelled_watches_leave_nothing(self):
        for _ in range(100):
            self.watch().cancel()
        self.assertEqual(self.vmm.describe().guest, self.vmm.guest)

    def test_a_number_ahead(self):
        watch = self.watch(since=1 << 63)
        started = Started(self.vmm)
        self.refuse_leaf(started, 0)
        watch.cancel()
        self.assertEqual(self.vmm.describe().guest, self.vmm.guest)


@both_transports
class LostMemory(EventCase):
    """The file of a region shrinks."""

    settings = {"iommubrokerd.conf": "[Memory]\nRequireSeals=off\n"}

    def test_memory_lost(self):
        self.vmm.new_memory()
        tables_memory = self.vmm.new_memory(4 * MIB, gpa=64 * MIB, seals=0)
        device = self.vmm.bound()
        tables = Tables(tables_memory)
        tables.map(IOVA, 0x3000)
        nested = self.vmm.register(device, tables.iota()).nested
        watch = self.watch()
        os.ftruncate(tables_memory.fd, 0)
        # found by the walk that follows a registration
        self.assertEqual(self.vmm.replace(nested, tables.iota()).verdict, pb.VERDICT_DONE)
        events = self.take(watch, 2)
        self.assertEqual([e.kind for e in events], [pb.EVENT_KIND_TRANSLATION_ERROR, pb.EVENT_KIND_MEMORY_LOST])
        self.assertEqual(events[1].gpa, tables.root)
        watch.cancel()
