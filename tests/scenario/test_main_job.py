# SPDX-License-Identifier: LGPL-2.1-or-later
"""From nothing to DMA that goes where the guest's tables say, and nowhere else."""

from api import pb
from cases import VmmCase
from fixture import both_transports
from guest import ANCHOR_P, DMA_FIRST, ENTRY_PROTECTED, MIB, PAGE, RF, RS, RT, ST, Tables
from vmm import WINDOW_FIRST, WINDOW_LAST, DmaFault, Started

IOVA = WINDOW_FIRST + 5 * PAGE


@both_transports
class MainJob(VmmCase):
    def test_dma_follows_the_guest_tables(self):
        vmm = self.vmm
        memory = vmm.new_memory()
        device = vmm.bound()
        tables = Tables(memory)
        tables.map(IOVA, 0x3000)
        created = vmm.register(device, tables.iota())
        self.assertEqual((created.verdict, created.walk.mapped), (pb.VERDICT_DONE, 1))
        dma = device.engine()
        memory.write(0x3000, b"read by the device")
        self.assertEqual(dma.read(IOVA, 18), b"read by the device")
        dma.write(IOVA + 100, b"written by the device")
        self.assertEqual(memory.read(0x3064, 21), b"written by the device")
        for elsewhere in (IOVA - PAGE, IOVA + PAGE, 0x3000, 0, WINDOW_LAST + 1):
            self.assert_blocked(dma, elsewhere)

        tables.map(IOVA + PAGE, 0x9000, writable=False)
        self.assert_blocked(dma, IOVA + PAGE)
        self.assertEqual(vmm.refreshed(created.nested, (IOVA + PAGE, PAGE)), (1, 0))
        memory.write(0x9000, b"only to be read")
        self.assertEqual(dma.read(IOVA + PAGE, 15), b"only to be read")
        with self.assertRaises(DmaFault):
            dma.write(IOVA + PAGE, b"x")
        # across both pages in one access
        memory.write(0x3FFC, b"tail")
        memory.write(0x9000, b"head")
        self.assertEqual(dma.read(IOVA + PAGE - 4, 8), b"tailhead")

        tables.unmap(IOVA)
        self.assertEqual(vmm.refreshed(created.nested, (IOVA, PAGE)), (0, 1))
        self.assert_blocked(dma, IOVA)
        self.assertEqual(dma.read(IOVA + PAGE, 4), b"head")

    def test_a_leaf_that_moves_shows_the_new_frame(self):
        started = Started(self.vmm)
        started.memory.write(0x5000, b"old")
        started.memory.write(0x6000, b"new")
        self.assertEqual(started.show(IOVA, 0x5000), (1, 0))
        self.assertEqual(started.dma.read(IOVA, 3), b"old")
        # counted as mapped only: it was installed and still is
        mapped, _ = started.show(IOVA, 0x6000)
        self.assertEqual(mapped, 1)
        self.assertEqual(started.dma.read(IOVA, 3), b"new")
        self.assertEqual(started.show(IOVA, 0x6000), (0, 0), "no change, nothing counted")
        mapped, _ = started.show(IOVA, 0x6000, writable=False)
        self.assertEqual(mapped, 1, "a changed permission counts")
        with self.assertRaises(DmaFault):
            started.dma.write(IOVA, b"x")

    def test_stale_until_refreshed(self):
        started = Started(self.vmm)
        started.show(IOVA, 0x5000)
        started.tables.unmap(IOVA)
        self.assertTrue(started.dma.reaches(IOVA), "the tables are looked at only when told")
        self.assertEqual(self.vmm.refreshed(started.nested), (0, 1))
        self.assertFalse(started.dma.reaches(IOVA))

    def test_every_designation(self):
        far = {ST: DMA_FIRST, RT: DMA_FIRST + (1 << 40), RS: DMA_FIRST + (1 << 51), RF: (1 << 52) + (1 << 45)}
        for designation, iova in far.items():
            with self.subTest(designation=designation):
                vmm = self.new_vmm()
                memory = vmm.new_memory()
                device = vmm.bound(designation + 1)
                tables = Tables(memory, designation)
                # a segment table spans 2 GiB: its window begins at 0, the device's at start of DMA
                if designation == ST:
                    created = vmm.register(device, tables.iota(), pba=DMA_FIRST, pal=DMA_FIRST + MIB)
                    self.assertEqual(created.verdict, pb.VERDICT_DONE)
                    self.assert_verdict(
                        vmm.refresh(created.nested, (DMA_FIRST, PAGE))[0], pb.VERDICT_ERROR
                    )
                    continue
                tables.map(iova, 0x7000)
                created = vmm.register(device, tables.iota(), pal=iova + MIB - 1)
                self.assertEqual((created.verdict, created.walk.mapped), (pb.VERDICT_DONE, 1), str(created))
                memory.write(0x7000, b"here")
                self.assertEqual(device.engine().read(iova, 4), b"here")

    def test_frames_of_a_mebibyte(self):
        started = Started(self.vmm)
        iova = WINDOW_FIRST + 16 * MIB
        started.tables.map_segment(iova, 2 * MIB)
        self.assertEqual(self.vmm.refreshed(started.nested, (iova, MIB)), (256, 0))
        for at in (0, 0x80000, MIB - 8):
            started.memory.write(2 * MIB + at, b"%08x" % at)
            self.assertEqual(started.dma.read(iova + at, 8), b"%08x" % at)
        self.assert_blocked(started.dma, iova + MIB)
        self.assert_blocked(started.dma, iova - 8)
        started.tables.map_segment(iova, 2 * MIB, writable=False)
        self.vmm.refreshed(started.nested, (iova, MIB))
        with self.assertRaises(DmaFault):
            started.dma.write(iova + 0x1000, b"x")
        started.memory.write64(started.tables.entry_gpa(iova, ST), 0x20)
        self.assertEqual(self.vmm.refreshed(started.nested, (iova, MIB)), (0, 256))
        self.assertFalse(started.dma.reaches(iova))

    def test_protection_at_every_level(self):
        started = Started(self.vmm, designation=RF)
        self.assertEqual(started.show(IOVA, 0x3000), (1, 0))
        for level in (RF, RS, RT, ST, "page"):
            with self.subTest(level=level):
                entry = started.tables.entry_gpa(IOVA, level)
                plain = started.memory.read64(entry)
                started.memory.write64(entry, plain | ENTRY_PROTECTED)
                self.vmm.refreshed(started.nested)
                self.assertTrue(started.dma.reaches(IOVA))
                with self.assertRaises(DmaFault):
                    started.dma.write(IOVA, b"x")
                started.memory.write64(entry, plain)
                self.vmm.refreshed(started.nested)
                started.dma.write(IOVA, b"x")
        replaced = self.vmm.replace(started.nested, started.tables.iota(ANCHOR_P))
        self.assertEqual(replaced.verdict, pb.VERDICT_DONE)
        with self.assertRaises(DmaFault):
            started.dma.write(IOVA, b"x")

    def test_two_functions_of_one_guest(self):
        vmm = self.vmm
        memory = vmm.new_memory()
        first, second = vmm.bound(1), vmm.bound(2)
        tables_1 = Tables(memory)
        tables_2 = Tables(memory, top=tables_1.top - MIB)
        tables_1.map(IOVA, 0x1000)
        tables_2.map(IOVA, 0x2000)
        vmm.register(first, tables_1.iota())
        vmm.register(second, tables_2.iota())
        first.engine().write(IOVA, b"by one")
        second.engine().write(IOVA, b"by two")
        self.assertEqual(memory.read(0x1000, 6), b"by one")
        self.assertEqual(memory.read(0x2000, 6), b"by two")
        self.assertEqual(len(vmm.describe().nested), 2)

    def test_registration_walks_filled_tables(self):
        vmm = self.vmm
        memory = vmm.new_memory()
        tables = Tables(memory)
        for n in range(700):
            tables.map(IOVA + n * PAGE, 0x1000 * (n + 1))
        created = vmm.register(vmm.bound(), tables.iota())
        self.assertEqual(created.walk.mapped, 700)
        self.assertEqual(vmm.describe().nested[0].live_leaves, 700)
        self.assertEqual(vmm.refreshed(created.nested), (0, 0))

    def test_description_tells_everything(self):
        started = Started(self.vmm)
        started.show(IOVA, 0x3000)
        told = self.vmm.describe()
        self.assertEqual((told.guest, told.name, told.pinned), (self.vmm.guest, "guest", True))
        self.assertEqual(told.region_bytes, 16 * MIB)
        self.assertEqual([f.length for f in told.memory_files], [16 * MIB])
        region = told.regions[0]
        self.assertEqual((region.gpa, region.length, region.offset), (0, 16 * MIB, 0))
        self.assertEqual(region.access, pb.ACCESS_READ_WRITE)
        device = told.devices[0]
        self.assertEqual((device.device, device.bound), (started.device.handle, True))
        self.assertEqual((device.attachment, device.nested), (pb.ATTACHMENT_NESTED, started.nested))
        nested = told.nested[0]
        self.assertEqual((nested.nested, nested.format, nested.attached), (started.nested, "s390", True))
        self.assertEqual((nested.iota, nested.first, nested.last), (started.tables.iota(), WINDOW_FIRST, WINDOW_LAST))
        self.assertEqual(nested.live_leaves, 1)
        self.assertGreater(nested.backend_maps, 0)
        self.assertGreater(nested.mappings_reserved, 0)

    def test_explain(self):
        started = Started(self.vmm)
        started.show(IOVA, 0x3000, writable=False)
        told = self.vmm.explain(started.nested, IOVA + 0x123)
        self.assertTrue(told.present and told.installed and told.consistent and told.in_guest_memory)
        self.assertEqual(told.gpa & ~0xFFF, 0x3000)
        self.assertEqual((told.access, told.installed_access), (pb.ACCESS_READ, pb.ACCESS_READ))
        levels = [s.level for s in told.steps if s.level != pb.TABLE_LEVEL_ANCHOR]
        self.assertEqual(levels, [pb.TABLE_LEVEL_REGION_THIRD, pb.TABLE_LEVEL_SEGMENT, pb.TABLE_LEVEL_PAGE])
        self.assertEqual(told.steps[-1].entry_gpa, started.tables.entry_gpa(IOVA, "page"))
        self.assertEqual(told.steps[-1].entry, 0x3200)
        self.assertTrue(told.text)
        started.tables.unmap(IOVA)
        told = self.vmm.explain(started.nested, IOVA)
        self.assertFalse(told.present)
        self.assertTrue(told.installed)
        self.assertFalse(told.consistent)
        self.assertFalse(self.vmm.explain(started.nested, IOVA + PAGE).installed)

    def test_reset_keeps_memory_and_blocks(self):
        started = Started(self.vmm)
        started.show(IOVA, 0x3000)
        reply = self.vmm.mutate("ResetGuest", guest=self.vmm.guest)
        self.assertEqual(reply.nested_destroyed, 1)
        self.assertFalse(started.dma.reaches(IOVA))
        told = self.vmm.describe()
        self.assertEqual((len(told.nested), told.pinned, len(told.regions)), (0, True, 1))
        self.assertEqual(told.devices[0].attachment, pb.ATTACHMENT_BLOCKED)
        with self.refused("NOT_FOUND"):
            self.vmm.refresh(started.nested)
        again = self.vmm.register(started.device, started.tables.iota())
        self.assertEqual((again.verdict, again.walk.mapped), (pb.VERDICT_DONE, 1))
        self.assertTrue(started.dma.reaches(IOVA))

    def test_destroy_guest_leaves_nothing(self):
        started = Started(self.vmm)
        started.show(IOVA, 0x3000)
        self.vmm.mutate("DestroyGuest", guest=self.vmm.guest)
        self.assertFalse(started.dma.reaches(IOVA))
        with self.refused("NOT_FOUND"):
            self.vmm.describe()
        self.assertEqual(len(self.vmm.client.call("ListGuests").message.guests), 0)
        status = self.daemon.status()
        self.assertEqual((status.guests, status.devices, status.pinned_bytes, status.mappings_installed), (0, 0, 0, 0))

    def test_close_device_stops_it(self):
        started = Started(self.vmm)
        started.show(IOVA, 0x3000)
        self.assertTrue(started.device.close().still_held, "this VMM holds its descriptor")
        self.assertFalse(started.dma.reaches(IOVA))
        self.assertEqual(len(self.vmm.describe().nested), 0)
        started.device.release()
        again = self.vmm.bound(1)
        self.assertNotEqual(again.handle, started.device.handle)

    def test_get_descriptor(self):
        started = Started(self.vmm)
        started.show(IOVA, 0x3000)
        started.device.release()
        request = pb.GetDescriptorRequest(device=started.device.handle)
        reply = self.vmm.client.call("GetDescriptor", request)
        started.device.fd = self.vmm.client.take(reply.message.descriptor, reply)
        self.assertTrue(started.device.engine().reaches(IOVA))


@both_transports
class Attachments(VmmCase):
    def test_parent_is_one_to_one(self):
        vmm = self.vmm
        memory = vmm.new_memory(gpa=DMA_FIRST + 0x10000)
        device = vmm.bound()
        dma = device.engine()
        self.assertFalse(dma.reaches(DMA_FIRST + 0x10000), "blocked after bind")
        vmm.attach(device, pb.ATTACHMENT_PARENT)
        memory.write(DMA_FIRST + 0x12345, b"one to one")
        self.assertEqual(dma.read(DMA_FIRST + 0x12345, 10), b"one to one")
        vmm.attach(device, pb.ATTACHMENT_BLOCKED)
        self.assertFalse(dma.reaches(DMA_FIRST + 0x12345))

    def test_nested_detached_is_empty_and_filled_again(self):
        started = Started(self.vmm)
        started.show(IOVA, 0x3000)
        self.vmm.attach(started.device, pb.ATTACHMENT_BLOCKED)
        self.assertFalse(started.dma.reaches(IOVA))
        self.assertEqual(self.vmm.describe().nested[0].live_leaves, 0)
        reply = self.vmm.attach(started.device, pb.ATTACHMENT_NESTED, started.nested)
        self.assertEqual((reply.walk.verdict, reply.walk.mapped), (pb.VERDICT_DONE, 1))
        self.assertTrue(started.dma.reaches(IOVA))

    def test_nested_made_detached(self):
        vmm = self.vmm
        memory, device = vmm.new_memory(), vmm.bound()
        tables = Tables(memory)
        tables.map(IOVA, 0x3000)
        created = vmm.register(device, tables.iota(), attach=False)
        self.assertEqual(created.verdict, pb.VERDICT_DONE)
        dma = device.engine()
        self.assertFalse(dma.reaches(IOVA))
        vmm.attach(device, pb.ATTACHMENT_NESTED, created.nested)
        self.assertTrue(dma.reaches(IOVA))


@both_transports
class Managed(VmmCase):
    def test_entries(self):
        vmm = self.vmm
        memory, device = vmm.new_memory(), vmm.bound()
        created = vmm.managed(device)
        self.assertEqual(created.verdict, pb.VERDICT_DONE)
        dma = device.engine()
        results = vmm.entries(
            created.nested,
            (IOVA, 4 * PAGE, 0x10000, pb.ACCESS_READ_WRITE),
            (IOVA + 64 * PAGE, PAGE, 0x20000, pb.ACCESS_READ),
        )
        self.assertEqual([(r.verdict, r.mapped) for r in results], [(pb.VERDICT_DONE, 4), (pb.VERDICT_DONE, 1)])
        dma.write(IOVA + 3 * PAGE, b"managed")
        self.assertEqual(memory.read(0x13000, 7), b"managed")
        with self.assertRaises(DmaFault):
            dma.write(IOVA + 64 * PAGE, b"x")
        # an entry replaces what stood there
        vmm.entries(created.nested, (IOVA + PAGE, PAGE, 0x50000, pb.ACCESS_READ))
        memory.write(0x50000, b"replaced")
        self.assertEqual(dma.read(IOVA + PAGE, 8), b"replaced")
        self.assertTrue(dma.reaches(IOVA) and dma.reaches(IOVA + 2 * PAGE))
        results = vmm.entries(created.nested, (IOVA, 128 * PAGE, 0, pb.ACCESS_UNSPECIFIED))
        self.assertEqual((results[0].verdict, results[0].unmapped), (pb.VERDICT_DONE, 5))
        self.assertFalse(dma.reaches(IOVA) or dma.reaches(IOVA + 64 * PAGE))

    def test_memory_that_goes_takes_its_entries(self):
        vmm = self.vmm
        vmm.new_memory()
        other = vmm.new_memory(MIB, gpa=64 * MIB)
        device = vmm.bound()
        created = vmm.managed(device)
        vmm.entries(created.nested, (IOVA, PAGE, 64 * MIB, pb.ACCESS_READ), (IOVA + PAGE, PAGE, 0, pb.ACCESS_READ))
        dma = device.engine()
        done = vmm.unmap(64 * MIB, MIB)
        self.assertEqual(done.leaves_dropped, 1)
        self.assertFalse(dma.reaches(IOVA))
        self.assertTrue(dma.reaches(IOVA + PAGE))
        self.assertEqual(other.length, MIB)
