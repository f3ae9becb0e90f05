# SPDX-License-Identifier: LGPL-2.1-or-later
"""What registrations and refreshes answer, for every mistake that a guest can make."""

import threading

from api import pb
from cases import VmmCase
from fixture import both_transports
from guest import (
    DMA_FIRST, DMA_LAST, ENTRY_INVALID, GIB, MIB, PAGE, PAGE_INVALID, RF, RT, SEGMENT_FRAME, ST,
    Tables,
)  # fmt: skip
from vmm import WINDOW_FIRST, WINDOW_LAST, Started

IOVA = WINDOW_FIRST + 5 * PAGE
INVALAS, OORANGE, INVALTE, INVALTL, TT = 1, 2, 7, 8, 9


@both_transports
class Registration(VmmCase):
    def setUp(self):
        super().setUp()
        self.memory = self.vmm.new_memory()
        self.device = self.vmm.bound()
        self.tables = Tables(self.memory)
        self.tables.map(IOVA, 0x3000)

    def assert_operand(self, answer):
        self.assertEqual(answer.verdict, pb.VERDICT_OPERAND, str(answer))
        self.assertTrue(answer.reason, "says which rule the anchor broke")

    def anchors(self):
        """Name → (iota, pba, pal) of anchors that no guest may register."""
        good = self.tables.iota()
        yield "pba above pal", (good, WINDOW_LAST + 1, WINDOW_FIRST)
        yield "pba below start of DMA", (good, DMA_FIRST - PAGE, WINDOW_LAST)
        yield "pal above end of DMA", (good, WINDOW_FIRST, DMA_LAST + PAGE)
        yield "pal at the very end", (good, WINDOW_FIRST, (1 << 64) - 1)
        for designation in (4, 5, 6, 7):
            yield "designation %d" % designation, (good & ~0x1C | designation << 2, WINDOW_FIRST, WINDOW_LAST)

    def test_bad_anchors(self):
        for name, (iota, pba, pal) in self.anchors():
            with self.subTest(name):
                answer = self.vmm.register(self.device, iota, pba, pal)
                self.assert_operand(answer)
                self.assertEqual(answer.nested, 0)
                self.assertEqual(len(self.vmm.describe().nested), 0)
                self.assertEqual(self.vmm.describe().mappings_reserved, 0)
        answer = self.vmm.register(self.device, self.tables.iota())
        self.assertEqual(answer.verdict, pb.VERDICT_DONE)

    def test_replace_with_a_bad_anchor_keeps_the_old_one(self):
        created = self.vmm.register(self.device, self.tables.iota())
        dma = self.device.engine()
        before = self.vmm.describe().nested[0]
        for name, (iota, pba, pal) in self.anchors():
            with self.subTest(name):
                self.assert_operand(self.vmm.replace(created.nested, iota, pba, pal))
                self.assertTrue(dma.reaches(IOVA))
                after = self.vmm.describe().nested[0]
                self.assertEqual((after.iota, after.first, after.last), (before.iota, before.first, before.last))
        self.assertEqual(self.vmm.refreshed(created.nested), (0, 0))

    def test_replace(self):
        created = self.vmm.register(self.device, self.tables.iota())
        other = Tables(self.memory, top=self.tables.top)
        other.map(IOVA, 0x3000)
        other.map(IOVA + PAGE, 0x8000)
        answer = self.vmm.replace(created.nested, other.iota())
        self.assertEqual((answer.verdict, answer.walk.mapped, answer.walk.unmapped), (pb.VERDICT_DONE, 1, 0))
        narrow = self.vmm.replace(created.nested, other.iota(), pal=IOVA + PAGE - 1)
        self.assertEqual((narrow.verdict, narrow.walk.unmapped), (pb.VERDICT_DONE, 1))
        dma = self.device.engine()
        self.assertTrue(dma.reaches(IOVA))
        self.assertFalse(dma.reaches(IOVA + PAGE))

    def test_window_is_rounded_to_pages(self):
        answer = self.vmm.register(self.device, self.tables.iota(), WINDOW_FIRST + 0xFFF, WINDOW_LAST - 0xFFF)
        self.assertEqual(answer.verdict, pb.VERDICT_DONE)
        told = self.vmm.describe().nested[0]
        self.assertEqual((told.first, told.last), (WINDOW_FIRST, WINDOW_LAST))

    def test_twice_is_a_sequence_error(self):
        created = self.vmm.register(self.device, self.tables.iota())
        again = self.vmm.register(self.device, self.tables.iota())
        self.assertEqual((again.verdict, again.nested), (pb.VERDICT_SEQUENCE, 0))
        self.assertEqual((again.condition_code, again.status), (1, 24))
        self.assertTrue(self.device.engine().reaches(IOVA))
        self.vmm.mutate("DestroyNested", nested=created.nested)
        with self.refused("NOT_FOUND"):
            self.vmm.mutate("DestroyNested", nested=created.nested)
        self.assertEqual(self.vmm.register(self.device, self.tables.iota()).verdict, pb.VERDICT_DONE)

    def test_deregister_unmaps_and_gives_back(self):
        created = self.vmm.register(self.device, self.tables.iota())
        dma = self.device.engine()
        self.assertGreater(self.vmm.describe().mappings_reserved, 0)
        self.assertEqual(self.vmm.mutate("DestroyNested", nested=created.nested).leaves_dropped, 1)
        self.assertFalse(dma.reaches(IOVA))
        told = self.vmm.describe()
        self.assertEqual((told.mappings_reserved, told.devices[0].attachment), (0, pb.ATTACHMENT_BLOCKED))

    def test_relaxed_not_granted(self):
        # rules as in test_rules; here only that T = 0 with none is an operand error or a grant
        info = self.vmm.ask("GetDeviceInfo", device=self.device.handle).info
        answer = self.vmm.register(self.device, 0, pal=WINDOW_LAST)
        self.assertEqual(answer.verdict == pb.VERDICT_DONE, info.relaxed_granted)

    def test_a_walk_error_at_registration_is_an_event(self):
        self.memory.write64(self.tables.entry_gpa(IOVA + GIB * 4, RT), 0)
        answer = self.vmm.register(self.device, self.tables.iota(), pal=IOVA + 8 * GIB - 1)
        self.assertEqual(answer.verdict, pb.VERDICT_DONE, str(answer))
        self.assertTrue(self.device.engine().reaches(IOVA))

    def test_tables_outside_memory_at_registration(self):
        answer = self.vmm.register(self.device, 0x7000_0000 | 0x804)
        self.assertEqual(answer.verdict, pb.VERDICT_DONE, str(answer))
        self.assert_verdict(
            self.vmm.refresh(answer.nested, (IOVA, PAGE))[0], pb.VERDICT_ERROR, INVALTE, outside_memory=True
        )


@both_transports
class Refresh(VmmCase):
    def setUp(self):
        super().setUp()
        self.started = Started(self.vmm, pal=WINDOW_LAST)
        self.tables, self.memory = self.started.tables, self.started.memory

    def refresh(self, start=IOVA, length=PAGE):
        return self.vmm.refresh(self.started.nested, (start, length))[0]

    def test_ranges(self):
        self.tables.map(IOVA, 0x3000)
        for start, length, verdict, code in (
            (IOVA, 0, pb.VERDICT_DONE, None),
            (WINDOW_FIRST - PAGE, PAGE, pb.VERDICT_ERROR, OORANGE),
            (WINDOW_FIRST - PAGE, 2 * PAGE, pb.VERDICT_ERROR, OORANGE),
            (WINDOW_LAST + 1, PAGE, pb.VERDICT_ERROR, OORANGE),
            (WINDOW_LAST, 2, pb.VERDICT_ERROR, OORANGE),
            (0, PAGE, pb.VERDICT_ERROR, OORANGE),
            ((1 << 64) - PAGE, PAGE, pb.VERDICT_ERROR, OORANGE),
            ((1 << 64) - PAGE, 2 * PAGE, pb.VERDICT_ERROR, OORANGE),
            (WINDOW_FIRST, (1 << 64) - 1, pb.VERDICT_ERROR, OORANGE),
            (IOVA, (1 << 64) - IOVA, pb.VERDICT_ERROR, OORANGE),
        ):
            with self.subTest(start=hex(start), length=hex(length)):
                self.assert_verdict(self.refresh(start, length), verdict, code)
                self.assertFalse(self.started.dma.reaches(IOVA), "nothing was done")
        result = self.refresh(IOVA + 0xFFF, 1)
        self.assert_verdict(result, pb.VERDICT_DONE)
        self.assertEqual(result.mapped, 1, "widened to the whole page")

    def test_each_range_is_answered_by_itself(self):
        self.tables.map(IOVA, 0x3000)
        self.tables.map(IOVA + MIB, 0x4000)
        results = self.vmm.refresh(
            self.started.nested, (IOVA, PAGE), (WINDOW_FIRST - PAGE, PAGE), (IOVA + MIB, PAGE), (IOVA, 0)
        )
        done, error = pb.VERDICT_DONE, pb.VERDICT_ERROR
        self.assertEqual([r.verdict for r in results], [done, error, done, done])
        self.assertEqual([r.mapped for r in results], [1, 0, 1, 0])

    def test_a_full_batch(self):
        for n in range(256):
            self.tables.map(IOVA + n * PAGE, 0x3000)
        results = self.vmm.refresh(self.started.nested, *((IOVA + n * PAGE, PAGE) for n in range(256)))
        self.assertEqual([r.mapped for r in results], [1] * 256)

    def walk_errors(self):
        """What a guest writes into an entry → (level, value, event code, fault fields)."""
        outside = 0x4000_0000
        yield "zero region entry", RT, 0, INVALTE, {}
        yield "zero segment entry", ST, 0, INVALTE, {}
        yield "length not 3", RT, self.entry(RT) & ~0x3, INVALTL, {}
        yield "offset not 0", RT, self.entry(RT) | 0x40, INVALTL, {}
        yield "type of another level", RT, self.entry(RT) ^ 0xC, TT, {}
        yield "segment of another type", ST, self.entry(ST) | 0x4, TT, {}
        yield "table outside memory", RT, outside | 0x7, INVALTE, {"outside_memory": True}
        yield "page table outside memory", ST, outside, INVALTE, {"outside_memory": True}
        yield "table at the end of the world", RT, ~0x3FFF & (1 << 64) - 1 | 0x7, INVALTE, {"outside_memory": True}
        yield "table half outside", ST, 16 * MIB, INVALTE, {"outside_memory": True}

    def entry(self, level):
        return self.memory.read64(self.tables.entry_gpa(IOVA, level))

    def test_walk_errors(self):
        levels = {RT: pb.TABLE_LEVEL_REGION_THIRD, ST: pb.TABLE_LEVEL_SEGMENT}
        for name, level, value, code, fault in self.walk_errors():
            with self.subTest(name):
                self.started.show(IOVA, 0x3000)
                self.assertTrue(self.started.dma.reaches(IOVA))
                at = self.tables.entry_gpa(IOVA, level)
                good = self.memory.read64(at)
                self.memory.write64(at, value)
                result = self.refresh()
                self.assert_verdict(result, pb.VERDICT_ERROR, code, **fault)
                self.assertEqual(result.fault.iova, IOVA, str(result))
                if not fault:
                    self.assertEqual(result.fault.level, levels[level], str(result))
                    self.assertEqual(result.fault.entry, value, str(result))
                self.assertTrue(result.fault.text)
                self.assertEqual((result.mapped, result.unmapped), (0, 1), "everything under it is unmapped")
                self.assertFalse(self.started.dma.reaches(IOVA))
                self.memory.write64(at, good)

    def test_nothing_is_mapped_beside_an_error(self):
        self.tables.map(IOVA, 0x3000)
        self.memory.write64(self.tables.entry_gpa(IOVA + MIB, ST), 0)
        result = self.refresh(IOVA, 2 * MIB)
        self.assert_verdict(result, pb.VERDICT_ERROR, INVALTE)
        self.assertEqual(result.mapped, 0)
        self.assertFalse(self.started.dma.reaches(IOVA))

    def test_tables_that_point_to_themselves(self):
        root = self.tables.root
        at = self.tables.entry_gpa(IOVA, RT)
        self.memory.write64(at, root | 0x7)
        # an address whose segment index leads to that very entry again
        again = WINDOW_FIRST + (at - root) // 8 * MIB
        self.assert_verdict(self.refresh(again), pb.VERDICT_ERROR, TT)
        loop = Tables(self.memory, designation=RF, top=self.tables.top)
        self.memory.write64(loop.root, loop.root | 0xF)
        answer = self.vmm.replace(self.started.nested, loop.iota())
        self.assertEqual(answer.verdict, pb.VERDICT_DONE, str(answer))
        self.assert_verdict(self.refresh(), pb.VERDICT_ERROR, TT)
        # a page table that is its own segment table and root
        flat = Tables(self.memory, designation=ST, top=loop.top)
        for n in range(2048):
            self.memory.write64(flat.root + 8 * n, flat.root)
        self.assertEqual(self.vmm.replace(self.started.nested, flat.iota(), pal=WINDOW_FIRST + MIB).verdict, pb.VERDICT_DONE)
        self.assertIn(self.refresh().verdict, (pb.VERDICT_DONE, pb.VERDICT_ERROR))

    def test_absent_at_every_level(self):
        for level, absent in ((RT, ENTRY_INVALID), (ST, ENTRY_INVALID), ("page", PAGE_INVALID)):
            with self.subTest(level=level):
                self.started.show(IOVA, 0x3000)
                self.started.show(WINDOW_LAST + 1 - MIB, 0x4000)
                at = self.tables.entry_gpa(IOVA, level)
                good = self.memory.read64(at)
                self.memory.write64(at, absent)
                # an unaligned start must not skip the head of what lies behind it
                unmapped = self.vmm.refreshed(self.started.nested, (IOVA, WINDOW_LAST - IOVA + 1))[1]
                self.assertFalse(self.started.dma.reaches(IOVA))
                self.assertEqual(unmapped, 2 if level == RT else 1)
                self.memory.write64(at, good)
                self.vmm.refreshed(self.started.nested)

    def test_frames_outside_memory_are_events_not_errors(self):
        self.tables.map(IOVA, 0x4000_0000)
        self.tables.map(IOVA + PAGE, 0x3000)
        result = self.refresh(IOVA, 2 * PAGE)
        self.assert_verdict(result, pb.VERDICT_DONE)
        self.assertEqual(result.mapped, 1)
        self.assertFalse(self.started.dma.reaches(IOVA))
        self.assertTrue(self.started.dma.reaches(IOVA + PAGE))

    def test_frame_zero_is_legal(self):
        self.memory.write(0, b"frame zero")
        self.assertEqual(self.started.show(IOVA, 0), (1, 0))
        self.assertEqual(self.started.dma.read(IOVA, 10), b"frame zero")

    def test_a_frame_that_straddles_the_end_of_memory(self):
        self.tables.map_segment(IOVA & ~(MIB - 1), 16 * MIB)
        self.assert_verdict(self.refresh(), pb.VERDICT_DONE)
        self.assertFalse(self.started.dma.reaches(IOVA))
        self.memory.write64(self.tables.entry_gpa(IOVA, ST), (15 * MIB) | SEGMENT_FRAME)
        self.assertEqual(self.vmm.refreshed(self.started.nested), (256, 0))

    def test_changed_while_it_is_walked(self):
        """A vCPU that rewrites its tables all the time: every answer is a verdict, and what is
        installed at the end is what the tables say at the end."""
        stop = threading.Event()
        entries = [self.tables.entry_gpa(IOVA + n * PAGE, "page") for n in range(200)]
        segment = self.tables.entry_gpa(IOVA, ST)
        good = self.memory.read64(segment)

        def scribble():
            n = 0
            while not stop.is_set():
                n += 1
                self.memory.write64(entries[n % 200], (n * 0x1000) % (12 * MIB) | (0x200 if n % 3 else 0))
                self.memory.write64(segment, (ENTRY_INVALID, 0, good, good)[n % 4])

        vcpu = threading.Thread(target=scribble)
        vcpu.start()
        try:
            seen = {r.verdict for _ in range(300) for r in self.vmm.refresh(self.started.nested)}
        finally:
            stop.set()
            vcpu.join()
        self.assertLessEqual(seen, {pb.VERDICT_DONE, pb.VERDICT_ERROR})
        self.memory.write64(segment, good)
        self.vmm.refreshed(self.started.nested)
        for n in range(200):
            told = self.vmm.explain(self.started.nested, IOVA + n * PAGE)
            self.assertTrue(told.consistent, str(told))

    def test_refresh_of_a_detached_domain(self):
        self.vmm.attach(self.started.device, pb.ATTACHMENT_BLOCKED)
        self.tables.map(IOVA, 0x3000)
        result = self.refresh()
        self.assertIn(result.verdict, (pb.VERDICT_DONE, pb.VERDICT_ERROR), str(result))
        self.assertFalse(self.started.dma.reaches(IOVA))

    def test_whole_aperture_many_leaves(self):
        count = 2000
        for n in range(count):
            self.tables.map(WINDOW_FIRST + n * 3 * PAGE, (n % 1024) * PAGE, writable=n % 2 == 0)
        self.assertEqual(self.vmm.refreshed(self.started.nested), (count, 0))
        self.assertEqual(self.vmm.describe().nested[0].live_leaves, count)
        before = self.vmm.describe().nested[0]
        self.assertEqual(self.vmm.refreshed(self.started.nested), (0, 0))
        after = self.vmm.describe().nested[0]
        self.assertEqual(
            (after.backend_maps, after.backend_unmaps), (before.backend_maps, before.backend_unmaps),
            "nothing changed: no call of the backend",
        )  # fmt: skip
        for n in range(0, count, 2):
            self.tables.unmap(WINDOW_FIRST + n * 3 * PAGE)
        self.assertEqual(self.vmm.refreshed(self.started.nested), (0, count // 2))
