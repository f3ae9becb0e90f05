# SPDX-License-Identifier: LGPL-2.1-or-later
"""Guest memory: files, regions, transactions, what happens to mappings over it."""

import fcntl
import os
import tempfile
import threading
import unittest

from api import Refused, pb
from cases import VmmCase
from fixture import both_transports
from guest import F_SEAL_SHRINK, MIB, PAGE, Memory, Tables, memfd
from vmm import WINDOW_FIRST, DmaFault, Started

IOVA = WINDOW_FIRST + 5 * PAGE


@both_transports
class Regions(VmmCase):
    def test_pinned_with_the_first_device(self):
        vmm = self.vmm
        memory = vmm.new_memory()
        self.assertFalse(vmm.describe().pinned)
        vmm.bound(1)
        self.assertTrue(vmm.describe().pinned)
        done = vmm.map(memory.handle, 64 * MIB, MIB)
        self.assertTrue(done.pinned)
        self.assertEqual(done.region_bytes, 17 * MIB)
        self.assertEqual(self.daemon.status().pinned_bytes, 17 * MIB)
        vmm.bound(2)
        self.assertEqual(self.daemon.status().pinned_bytes, 17 * MIB, "charged once however many devices")

    def test_a_file_in_pieces(self):
        """Several regions of one file, at other guest addresses than in the file."""
        vmm = self.vmm
        memory = Memory(8 * MIB)
        vmm.stack.callback(memory.close)
        handle = vmm.add_memory(memory)
        vmm.update(
            maps=[
                dict(memory_file=handle, offset=4 * MIB, gpa=0, length=4 * MIB, access=pb.ACCESS_READ_WRITE),
                dict(memory_file=handle, offset=0, gpa=4096 * MIB, length=4 * MIB, access=pb.ACCESS_READ_WRITE),
            ]
        )
        device = vmm.bound()
        # the guest's tables lie at guest address 0 and up, that is in the upper half of the file
        shifted = _Shifted(memory, 4 * MIB)
        tables = Tables(shifted, top=4 * MIB)
        tables.map(IOVA, 4096 * MIB + 0x5000)
        self.assertEqual(vmm.register(device, tables.iota()).walk.mapped, 1)
        memory.write(0x5000, b"low half, high address")
        self.assertEqual(device.engine().read(IOVA, 22), b"low half, high address")

    def test_read_only_region(self):
        vmm = self.vmm
        started = Started(vmm)
        rom = vmm.new_memory(MIB, gpa=32 * MIB, writable=False)
        rom.write(32 * MIB, b"firmware")
        self.assertEqual(started.show(IOVA, 32 * MIB, writable=False), (1, 0))
        self.assertEqual(started.device.engine().read(IOVA, 8), b"firmware")
        with self.assertRaises(DmaFault):
            started.device.engine().write(IOVA, b"x")
        # a writable leaf over it is not installed: an event, and the refresh goes on
        started.tables.map(IOVA + PAGE, 32 * MIB)
        started.tables.map(IOVA + 2 * PAGE, 0x3000)
        self.assertEqual(vmm.refreshed(started.nested, (IOVA, 3 * PAGE)), (1, 0))
        dma = started.device.engine()
        self.assertFalse(dma.reaches(IOVA + PAGE))
        self.assertTrue(dma.reaches(IOVA + 2 * PAGE))

    def test_unmap_takes_nested_mappings_first(self):
        started = Started(self.vmm)
        more = self.vmm.new_memory(MIB, gpa=32 * MIB)
        started.show(IOVA, 32 * MIB)
        started.show(IOVA + PAGE, 0x3000)
        dma = started.device.engine()
        self.assertTrue(dma.reaches(IOVA))
        done = self.vmm.unmap(32 * MIB, MIB)
        self.assertEqual((done.leaves_dropped, done.region_bytes), (1, 16 * MIB))
        self.assertFalse(dma.reaches(IOVA))
        self.assertTrue(dma.reaches(IOVA + PAGE), "neighbours do not notice")
        # memory that comes is walked for before the answer, without any refresh
        done = self.vmm.map(more.handle, 32 * MIB, MIB)
        self.assertEqual(done.leaves_restored, 1)
        more.write(32 * MIB, b"restored")
        self.assertEqual(started.device.engine().read(IOVA, 8), b"restored")

    def test_unmap_of_nothing_is_no_error(self):
        self.vmm.new_memory()
        done = self.vmm.unmap(64 * MIB, 64 * MIB)
        self.assertEqual(done.region_bytes, 16 * MIB)
        self.assertEqual(self.vmm.update(unmap=[(0, (1 << 64) - 1)]).region_bytes, 0)

    def test_cut_on_the_granule_only(self):
        vmm = self.vmm
        memory = Memory(16 * MIB)
        vmm.stack.callback(memory.close)
        handle = vmm.add_memory(memory)
        vmm.map(handle, 0, 8 * MIB, granule=2 * MIB)
        vmm.map(handle, 8 * MIB, 8 * MIB, offset=8 * MIB)
        vmm.bound()
        for gpa, length in ((MIB, MIB), (0, MIB), (2 * MIB, PAGE), (8 * MIB, PAGE), (12 * MIB, 4 * MIB)):
            with self.subTest(gpa=hex(gpa), length=hex(length)):
                with self.assertRaises(Refused) as caught:
                    vmm.unmap(gpa, length)
                self.assertEqual(caught.exception.code, "INVALID_ARGUMENT")
                self.assertTrue(any(f.startswith("unmap[0]") for f in caught.exception.fields), str(caught.exception))
                self.assertEqual(vmm.describe().region_bytes, 16 * MIB)
        done = vmm.unmap(2 * MIB, 2 * MIB)
        self.assertEqual(done.region_bytes, 14 * MIB)
        self.assertEqual(
            sorted((r.gpa, r.length, r.offset) for r in vmm.describe().regions),
            [(0, 2 * MIB, 0), (4 * MIB, 4 * MIB, 4 * MIB), (8 * MIB, 8 * MIB, 8 * MIB)],
        )
        self.assertEqual(self.daemon.status().pinned_bytes, 14 * MIB)

    def test_a_transaction_is_whole_or_nothing(self):
        vmm = self.vmm
        started = Started(vmm)
        started.show(IOVA, 0x3000)
        handle = started.memory.handle
        before = vmm.describe()
        good = dict(memory_file=handle, gpa=64 * MIB, length=MIB, access=pb.ACCESS_READ_WRITE)
        bad = (
            ("ALREADY_EXISTS", dict(good, gpa=64 * MIB + PAGE)),
            ("ALREADY_EXISTS", dict(good, gpa=15 * MIB)),
            ("NOT_FOUND", dict(good, gpa=128 * MIB, memory_file=1)),
            ("INVALID_ARGUMENT", dict(good, gpa=128 * MIB, offset=16 * MIB)),
            ("INVALID_ARGUMENT", dict(good, gpa=(1 << 64) - PAGE)),
        )
        for code, entry in bad:
            with self.subTest(code=code, entry=entry):
                with self.refused(code):
                    vmm.update(maps=[good, entry])
                self.assertEqual(vmm.describe(), before)
                self.assertTrue(started.dma.reaches(IOVA))
        # unmaps before a map that fails take no effect either
        with self.refused("ALREADY_EXISTS"):
            vmm.update(unmap=[(0, 16 * MIB - 1)], maps=[good, good])
        after = vmm.describe()
        self.assertEqual(after.regions, before.regions)
        self.assertTrue(started.dma.reaches(IOVA))

    def test_what_comes_back_alike_stays_in_place(self):
        vmm = self.vmm
        started = Started(vmm)
        started.show(IOVA, 0x3000)
        before = vmm.describe().nested[0]
        handle = vmm.files[0][1]
        done = vmm.update(
            unmap=[(0, 16 * MIB - 1)],
            maps=[dict(memory_file=handle, gpa=0, length=16 * MIB, access=pb.ACCESS_READ_WRITE)],
        )
        self.assertEqual((done.leaves_dropped, done.leaves_restored), (0, 0))
        after = vmm.describe().nested[0]
        self.assertEqual(after.backend_unmaps, before.backend_unmaps)
        self.assertTrue(started.dma.reaches(IOVA))

    def test_move_in_one_transaction(self):
        vmm = self.vmm
        started = Started(vmm)
        more = vmm.new_memory(MIB, gpa=32 * MIB)
        started.show(IOVA, 33 * MIB)
        self.assertFalse(started.device.engine().reaches(IOVA))
        done = vmm.update(
            unmap=[(32 * MIB, 33 * MIB - 1)],
            maps=[dict(memory_file=more.handle, gpa=33 * MIB, length=MIB, access=pb.ACCESS_READ_WRITE)],
        )
        self.assertEqual(done.leaves_restored, 1)
        self.assertTrue(started.device.engine().reaches(IOVA))

    def test_tables_in_memory_that_goes(self):
        vmm = self.vmm
        vmm.new_memory()
        tables_memory = vmm.new_memory(4 * MIB, gpa=64 * MIB)
        device = vmm.bound()
        tables = Tables(tables_memory)
        tables.map(IOVA, 0x3000)
        nested = vmm.register(device, tables.iota()).nested
        vmm.unmap(64 * MIB, 4 * MIB)
        result = vmm.refresh(nested, (IOVA, PAGE))[0]
        self.assert_verdict(result, pb.VERDICT_ERROR, 7, outside_memory=True)
        self.assertFalse(device.engine().reaches(IOVA))

    def test_remove_file(self):
        vmm = self.vmm
        memory = vmm.new_memory()
        with self.refused("FAILED_PRECONDITION"):
            vmm.mutate("RemoveMemoryFile", guest=vmm.guest, memory_file=memory.handle)
        vmm.unmap(0, 16 * MIB)
        vmm.mutate("RemoveMemoryFile", guest=vmm.guest, memory_file=memory.handle)
        with self.refused("NOT_FOUND"):
            vmm.mutate("RemoveMemoryFile", guest=vmm.guest, memory_file=memory.handle)
        with self.refused("NOT_FOUND"):
            vmm.map(memory.handle, 0, MIB)

    def test_the_most_files_a_guest_may_have(self):
        for _ in range(64):
            fd = memfd(PAGE)
            self.vmm.add_file(fd)
            os.close(fd)
        fd = memfd(PAGE)
        with self.refused("RESOURCE_EXHAUSTED"):
            self.vmm.add_file(fd)
        os.close(fd)

    def test_the_most_ranges_in_one_call(self):
        memory = Memory(512 * PAGE)
        self.vmm.stack.callback(memory.close)
        handle = self.vmm.add_memory(memory)
        entry = dict(memory_file=handle, length=PAGE, access=pb.ACCESS_READ_WRITE)
        maps = [dict(entry, gpa=2 * n * PAGE, offset=n * PAGE) for n in range(512)]
        self.assertEqual(self.vmm.update(maps=maps).region_bytes, 512 * PAGE)
        with self.refused("INVALID_ARGUMENT", field="map"):
            self.vmm.update(maps=maps + [dict(entry, gpa=4096 * PAGE)])
        done = self.vmm.update(unmap=[(2 * n * PAGE, (2 * n + 1) * PAGE - 1) for n in range(512)])
        self.assertEqual(done.region_bytes, 0)
        with self.refused("INVALID_ARGUMENT", field="unmap"):
            self.vmm.update(unmap=[(n * PAGE, n * PAGE + PAGE - 1) for n in range(513)])


class _Shifted:
    """A view of a memory in which guest address 0 is at a place in the file."""

    def __init__(self, memory, offset):
        self.memory, self.offset, self.gpa, self.length = memory, offset, 0, memory.length - offset

    def write(self, gpa, data):
        self.memory.write(gpa + self.offset, data)

    def write64(self, gpa, value):
        self.memory.write64(gpa + self.offset, value)

    def read64(self, gpa):
        return self.memory.read64(gpa + self.offset)


@both_transports
class Files(VmmCase):
    """Files other than a plain memfd that are good memory."""

    def use(self, fd, length, page=PAGE):
        vmm = self.vmm
        added = vmm.add_file(fd)
        self.assertEqual((added.length, added.page_bytes), (length, page))
        vmm.new_memory(gpa=256 * MIB)
        tables = Tables(vmm.files[0][0])
        vmm.map(added.memory_file, 0, length)
        device = vmm.bound()
        tables.map(IOVA, 0x1000)
        vmm.register(device, tables.iota())
        memory = _Open(fd)
        vmm.files.append((memory, added.memory_file))
        os.pwrite(fd, b"through another file", 0x1000) if page == PAGE else None
        dma = device.engine()
        if page == PAGE:
            self.assertEqual(dma.read(IOVA, 20), b"through another file")
        else:
            self.assertTrue(dma.reaches(IOVA))

    def test_tmpfs_file(self):
        with tempfile.TemporaryFile(dir="/dev/shm") as file:
            os.posix_fallocate(file.fileno(), 0, 4 * MIB)
            self.use(file.fileno(), 4 * MIB)

    def test_memfd_that_cannot_be_sealed(self):
        fd = os.memfd_create("unsealable", os.MFD_CLOEXEC)
        os.posix_fallocate(fd, 0, 4 * MIB)
        self.use(fd, 4 * MIB)
        os.close(fd)

    def test_huge_pages(self):
        fd = huge_pages(self, 2)
        self.use(fd, 4 * MIB, page=2 * MIB)
        told = {f.length: f for f in self.vmm.describe().memory_files}[4 * MIB]
        self.assertTrue(told.huge_pages)
        self.assertEqual(told.page_bytes, 2 * MIB)
        os.close(fd)

    def test_huge_pages_are_not_split(self):
        fd = huge_pages(self, 2)
        added = self.vmm.add_file(fd)
        os.close(fd)
        with self.refused("INVALID_ARGUMENT", field="map[0].offset"):
            self.vmm.map(added.memory_file, 0, 2 * MIB, offset=MIB)

    def test_huge_pages_without_pages_behind_them(self):
        fd = huge_pages(self, 2, populate=False)
        added = self.vmm.add_file(fd)
        os.close(fd)
        with self.refused("FAILED_PRECONDITION"):
            self.vmm.map(added.memory_file, 0, 4 * MIB)


class _Open:
    def __init__(self, fd):
        self.fd = fd


HUGE = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"


def huge_pages(case, pages, populate=True):
    """A memfd of so many huge pages of 2 MiB; skips where there are none and none can be set up."""
    # one test at a time: the number of huge pages is the machine's
    turn = open(__file__, encoding="utf-8")
    fcntl.flock(turn, fcntl.LOCK_EX)
    case.addCleanup(turn.close)
    try:
        with open(HUGE) as f:
            before = int(f.read())
        if before < 8:
            with open(HUGE, "w") as f:
                f.write("8")
            case.addCleanup(_write, HUGE, str(before))
        fd = os.memfd_create("huge", os.MFD_CLOEXEC | os.MFD_HUGETLB | 21 << 26)
        os.ftruncate(fd, pages * 2 * MIB)
        if populate:
            os.posix_fallocate(fd, 0, pages * 2 * MIB)
        return fd
    except OSError as error:
        raise unittest.SkipTest("no huge pages here, and none can be set up: %s" % error) from None


def _write(path, text):
    with open(path, "w") as f:
        f.write(text)


@both_transports
class Shrunk(VmmCase):
    """Memory files that shrink behind the daemon's back: reads of tables end in SIGBUS."""

    settings = {"iommubrokerd.conf": "[Memory]\nRequireSeals=off\n"}

    def test_under_a_walk(self):
        vmm = self.vmm
        vmm.new_memory()
        tables_memory = vmm.new_memory(4 * MIB, gpa=64 * MIB, seals=0)
        device = vmm.bound()
        tables = Tables(tables_memory)
        tables.map(IOVA, 0x3000)
        nested = vmm.register(device, tables.iota()).nested
        dma = device.engine()
        self.assertTrue(dma.reaches(IOVA))
        os.ftruncate(tables_memory.fd, 0)
        for _ in range(3):
            result = vmm.refresh(nested, (IOVA, PAGE))[0]
            self.assert_verdict(result, pb.VERDICT_ERROR, 7, outside_memory=True)
        self.assertFalse(dma.reaches(IOVA), "what can no longer be read is not shown")
        self.assertFalse(vmm.explain(nested, IOVA).present)
        with self.refused("FAILED_PRECONDITION"):
            vmm.map(tables_memory.handle, 128 * MIB, MIB)

    def test_before_registration(self):
        vmm = self.vmm
        vmm.new_memory()
        tables_memory = vmm.new_memory(4 * MIB, gpa=64 * MIB, seals=0)
        device = vmm.bound()
        tables = Tables(tables_memory)
        tables.map(IOVA, 0x3000)
        os.ftruncate(tables_memory.fd, 0)
        answer = vmm.register(device, tables.iota())
        self.assertEqual((answer.verdict, answer.walk.mapped), (pb.VERDICT_DONE, 0))

    def test_shrinking_and_growing_all_the_time(self):
        vmm = self.vmm
        vmm.new_memory()
        tables_memory = vmm.new_memory(4 * MIB, gpa=64 * MIB, seals=0)
        device = vmm.bound()
        tables = Tables(tables_memory)
        for n in range(64):
            tables.map(IOVA + n * PAGE, 0x3000)
        nested = vmm.register(device, tables.iota()).nested
        stop = threading.Event()

        def pump():
            while not stop.is_set():
                os.ftruncate(tables_memory.fd, 0)
                os.ftruncate(tables_memory.fd, 4 * MIB)

        thread = threading.Thread(target=pump)
        thread.start()
        try:
            for _ in range(200):
                result = vmm.refresh(nested)[0]
                self.assertIn(result.verdict, (pb.VERDICT_DONE, pb.VERDICT_ERROR))
        finally:
            stop.set()
            thread.join()


@both_transports
class Seals(VmmCase):
    settings = {"iommubrokerd.conf": "[Memory]\nRequireSeals=required\n"}

    def test_required(self):
        with self.refused("INVALID_ARGUMENT", field="descriptor"):
            self.vmm.new_memory(seals=0)
        with tempfile.TemporaryFile(dir="/dev/shm") as file:
            os.posix_fallocate(file.fileno(), 0, MIB)
            with self.refused("INVALID_ARGUMENT", field="descriptor"):
                self.vmm.add_file(file.fileno())
        self.vmm.new_memory(seals=F_SEAL_SHRINK)


@both_transports
class Populating(VmmCase):
    settings = {"iommubrokerd.conf": "[Memory]\nUnpopulatedMemory=charge\n"}

    def test_charge(self):
        memory = self.vmm.new_memory(populate=False)
        self.vmm.bound()
        self.assertEqual(os.fstat(memory.fd).st_blocks * 512, 16 * MIB, "populated by the daemon")


@both_transports
class LongPins(VmmCase):
    settings = {"iommubrokerd.conf": "[Memory]\nPinSliceSize=1M\n"}

    def test_progress(self):
        vmm = self.vmm
        vmm.new_memory(64 * MIB)
        device = vmm.bound()
        kinds = [m.WhichOneof("update") for m in device.bind_messages]
        self.assertEqual(kinds[-1], "done")
        self.assertGreater(kinds.count("progress"), 1, "a bind that pins 64 slices tells of some")
        done = [m.progress.done_bytes for m in device.bind_messages[:-1]]
        self.assertEqual(done, sorted(done))
        self.assertEqual({m.progress.total_bytes for m in device.bind_messages[:-1]}, {64 * MIB})
        more = Memory(64 * MIB)
        vmm.stack.callback(more.close)
        vmm.map(vmm.add_memory(more), 256 * MIB, 64 * MIB)
        kinds = [m.WhichOneof("update") for m in vmm.update_messages]
        self.assertGreater(kinds.count("progress"), 1)

    def test_cancel_undoes_everything(self):
        vmm = self.vmm
        vmm.new_memory()
        vmm.bound()
        more = Memory(1024 * MIB)
        vmm.stack.callback(more.close)
        handle = vmm.add_memory(more)
        before = vmm.describe()
        cancelled = 0
        for attempt in range(20):
            number = vmm.id()
            request = pb.UpdateMemoryRequest(request_id=number, guest=vmm.guest)
            request.map.add(memory_file=handle, gpa=4096 * MIB, length=1024 * MIB, access=pb.ACCESS_READ_WRITE)
            call = vmm.client.start("UpdateMemory", request)
            first = call.next()
            if first[0].WhichOneof("update") == "progress":
                try:
                    vmm.client.call("CancelOperation", pb.CancelOperationRequest(request_id=number))
                except Refused as error:
                    self.assertEqual(error.code, "NOT_FOUND", "it was over already")
            try:
                call.result()
                vmm.unmap(4096 * MIB, 1024 * MIB)
            except Refused as error:
                self.assertEqual(error.code, "CANCELLED")
                cancelled += 1
            self.assertEqual(vmm.describe(), before)
            self.assertEqual(self.daemon.status().pinned_bytes, before.region_bytes)
            if cancelled:
                break
        self.assertGreater(cancelled, 0, "no attempt was cancelled in time")
