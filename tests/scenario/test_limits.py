# SPDX-License-Identifier: LGPL-2.1-or-later
"""Limits: N is accepted, N + 1 is refused with the numbers, what is given back can be had again."""


import transport
from api import Refused, pb
from cases import VmmCase
from fixture import Case, both_transports, eventually
from guest import MIB, PAGE, Memory, Tables
from vmm import WINDOW_FIRST, Started

IOVA = WINDOW_FIRST + 5 * PAGE


class LimitCase(VmmCase):
    def assert_quota(self, error, resource, limit, used, requested):
        self.assertEqual(error.code, "RESOURCE_EXHAUSTED", str(error))
        self.assertIn("QuotaFailure", error.details, str(error))
        told = error.metadata
        self.assertEqual(
            (told["resource"], int(told["limit"]), int(told["used"]), int(told["requested"])),
            (resource, limit, used, requested), str(error),
        )  # fmt: skip
        for number in (limit, used, requested):
            self.assertIn(str(number), error.message.replace(",", ""), "the numbers are in the text too")


@both_transports
class Mappings(LimitCase):
    """Leaves of one nested domain: what it reserved when it was made."""

    def setUp(self):
        super().setUp()
        self.started = Started(self.vmm, mappings_max=100)
        self.tables = self.started.tables

    def test_n_fits_and_one_more_does_not(self):
        nested = self.started.nested
        for n in range(100):
            self.tables.map(IOVA + n * PAGE, n * PAGE)
        self.assertEqual(self.vmm.refreshed(nested), (100, 0))
        self.tables.map(IOVA + 200 * PAGE, 0x3000)
        result = self.vmm.refresh(nested, (IOVA + 200 * PAGE, PAGE))[0]
        self.assert_verdict(result, pb.VERDICT_RESOURCES)
        self.assertFalse(self.started.dma.reaches(IOVA + 200 * PAGE))
        self.assertTrue(self.started.dma.reaches(IOVA))
        # refund one, then it fits
        self.assertEqual(self.started.hide(IOVA), (0, 1))
        self.assertEqual(self.vmm.refreshed(nested, (IOVA + 200 * PAGE, PAGE)), (1, 0))
        self.assertTrue(self.started.dma.reaches(IOVA + 200 * PAGE))

    def test_unmaps_took_effect_before_it_ran_out(self):
        """Status 16 comes only when every unmap of the range has happened."""
        nested = self.started.nested
        for n in range(100):
            self.tables.map(IOVA + n * PAGE, n * PAGE)
        self.vmm.refreshed(nested)
        for n in range(90, 100):
            self.tables.unmap(IOVA + n * PAGE)
        for n in range(1000, 1100):
            self.tables.map(WINDOW_FIRST + n * PAGE, 0x3000)
        result = self.vmm.refresh(nested)[0]
        self.assert_verdict(result, pb.VERDICT_RESOURCES)
        self.assertEqual(result.unmapped, 10)
        for n in range(90, 100):
            self.assertFalse(self.started.dma.reaches(IOVA + n * PAGE))
        for n in range(0, 90, 10):
            self.assertTrue(self.started.dma.reaches(IOVA + n * PAGE))
        self.assertLessEqual(self.vmm.describe().nested[0].live_leaves, 100)

    def test_maps_are_tried_again_after_unmaps(self):
        """A full domain in which everything moves: unmaps make room for the maps of one refresh."""
        nested = self.started.nested
        for n in range(100):
            self.tables.map(IOVA + (500 + n) * PAGE, n * PAGE)
        self.vmm.refreshed(nested)
        for n in range(100):
            self.tables.unmap(IOVA + (500 + n) * PAGE)
            self.tables.map(IOVA + n * PAGE, n * PAGE)
        self.assertEqual(self.vmm.refreshed(nested), (100, 100))

    def test_a_segment_frame_that_does_not_fit(self):
        self.tables.map_segment(WINDOW_FIRST + MIB, 2 * MIB)
        result = self.vmm.refresh(self.started.nested)[0]
        self.assert_verdict(result, pb.VERDICT_RESOURCES)

    def test_aliases_are_bounded(self):
        """More than 4,096 places that show one page are refused as want of mappings."""
        vmm = self.vmm
        memory = vmm.files[0][0]
        tables = Tables(memory, top=8 * MIB)
        created = vmm.register(vmm.bound(2), tables.iota(), mappings_max=10000)
        for n in range(4200):
            tables.map(WINDOW_FIRST + n * PAGE, 0x3000)
        result = vmm.refresh(created.nested)[0]
        self.assert_verdict(result, pb.VERDICT_RESOURCES)
        self.assertLessEqual(vmm.describe().nested[1].live_leaves, 4096)


@both_transports
class Reservations(LimitCase):
    settings = {"iommubrokerd.conf": "[Limits]\nMappingsPerGuestMax=1000\nMappingsPerNestedDomainDefault=300\n"}

    def assert_no_room(self, answer):
        """A want of mappings when an anchor is registered is the guest's own status 16."""
        self.assertEqual((answer.verdict, answer.nested), (pb.VERDICT_RESOURCES, 0), str(answer))
        self.assertEqual((answer.condition_code, answer.status), (1, 16))

    def test_reservations_of_a_guest(self):
        self.vmm.new_memory()
        first, second, third = (self.vmm.bound(n) for n in (1, 2, 3))
        a = self.vmm.managed(first, mappings_max=600)
        self.vmm.managed(second)
        self.assertEqual(self.vmm.describe().mappings_reserved, 900)
        self.assert_no_room(self.vmm.managed(third, mappings_max=101))
        self.assertEqual(self.vmm.describe().mappings_reserved, 900)
        usage = {u.resource: u for u in self.vmm.ask("GetUsage").usage}
        self.assertEqual(usage["mappings"].current, 900)
        self.assertEqual(self.vmm.managed(third, mappings_max=100).verdict, pb.VERDICT_DONE)
        self.vmm.mutate("DestroyNested", nested=a.nested)
        self.assertEqual(self.vmm.managed(first, mappings_max=600).verdict, pb.VERDICT_DONE)

    def test_an_anchor_that_finds_no_room(self):
        started = Started(self.vmm, mappings_max=1000)
        self.assert_no_room(self.vmm.register(self.vmm.bound(2), started.tables.iota(), mappings_max=1))
        self.vmm.mutate("DestroyNested", nested=started.nested)
        self.assertEqual(self.vmm.register(self.vmm.devices[1], started.tables.iota(), mappings_max=1).verdict, pb.VERDICT_DONE)

    def test_a_small_window_reserves_no_more_than_it_spans(self):
        self.vmm.new_memory()
        self.vmm.managed(self.vmm.bound(1), last=WINDOW_FIRST + 10 * PAGE - 1, mappings_max=(1 << 64) - 1)
        self.assertEqual(self.vmm.describe().mappings_reserved, 10)

    def test_a_guests_own_limit(self):
        vmm = self.new_vmm(limits=pb.CreateGuestRequest.Limits(pinned_bytes_max=4 * MIB, mappings_max=50))
        memory = Memory(8 * MIB)
        vmm.stack.callback(memory.close)
        handle = vmm.add_memory(memory)
        vmm.map(handle, 0, 4 * MIB)
        with self.assertRaises(Refused) as caught:
            vmm.map(handle, 4 * MIB, PAGE, offset=4 * MIB)
        self.assert_quota(caught.exception, "pinned_bytes", 4 * MIB, 4 * MIB, PAGE)
        vmm.unmap(0, 4 * MIB)
        vmm.map(handle, 0, 4 * MIB, offset=4 * MIB)
        device = vmm.bound(7)
        self.assert_no_room(vmm.managed(device, mappings_max=51))
        self.assertEqual(vmm.managed(device, mappings_max=50).verdict, pb.VERDICT_DONE)


@both_transports
class PinnedBytes(LimitCase):
    settings = {"iommubrokerd.conf": "[Limits]\nPinnedMemoryMax=32M\nPinnedMemoryPerGuestMax=20M\n"}

    def test_guest_then_host(self):
        self.vmm.new_memory(16 * MIB)
        with self.assertRaises(Refused) as caught:
            self.vmm.new_memory(5 * MIB, gpa=64 * MIB)
        self.assert_quota(caught.exception, "pinned_bytes", 20 * MIB, 16 * MIB, 5 * MIB)
        other = self.new_vmm()
        with self.assertRaises(Refused) as caught:
            other.new_memory(17 * MIB)
        self.assert_quota(caught.exception, "pinned_bytes", 32 * MIB, 16 * MIB, 17 * MIB)
        other.new_memory(16 * MIB)
        # one transaction that gives back and takes
        memory, handle = other.files[-1]
        done = other.update(
            unmap=[(0, 16 * MIB - 1)], maps=[dict(memory_file=handle, gpa=32 * MIB, length=16 * MIB, access=2)]
        )
        self.assertEqual(done.region_bytes, 16 * MIB)
        self.assertEqual(self.daemon.status().pinned_bytes, 32 * MIB)
        with self.assertRaises(Refused):
            self.vmm.new_memory(PAGE, gpa=128 * MIB)
        other.unmap(0, 1 << 40)
        self.vmm.new_memory(4 * MIB, gpa=256 * MIB)

    def test_fit_and_usage_tell_the_same(self):
        self.vmm.new_memory(16 * MIB)
        fit = self.vmm.ask("CheckFit", pinned_bytes=17 * MIB)
        self.assertFalse(fit.fits)
        missing = {m.resource: m for m in fit.missing if m.level == "host"}["pinned_bytes"]
        self.assertEqual((missing.limit, missing.used, missing.requested, missing.missing), (32 * MIB, 16 * MIB, 17 * MIB, MIB))
        self.assertTrue(self.vmm.ask("CheckFit", pinned_bytes=16 * MIB, guests=1, regions=1).fits)
        usage = {u.resource: u for u in self.vmm.ask("GetUsage").usage}
        self.assertEqual(usage["pinned_bytes"].current, 16 * MIB)
        self.assertGreaterEqual(usage["pinned_bytes"].peak, 16 * MIB)
        self.assertEqual(usage["guests"].current, 1)
        self.vmm.unmap(0, 16 * MIB)
        usage = {u.resource: u for u in self.vmm.ask("GetUsage").usage}
        self.assertEqual((usage["pinned_bytes"].current, usage["pinned_bytes"].peak), (0, 16 * MIB))

    def test_numbers_that_never_fit(self):
        top = (1 << 64) - 1
        names = ("guests", "pinned_bytes", "regions", "devices", "nested_domains", "mappings", "memory_files")
        fit = self.vmm.ask("CheckFit", **{name: top for name in names})
        self.assertFalse(fit.fits)
        self.assertIn("pinned_bytes", {m.resource for m in fit.missing})
        fit = self.vmm.ask("CheckFit", update_rings=5)
        self.assertEqual([(m.resource, m.level, m.missing) for m in fit.missing], [("rings", "guest", 1)])


@both_transports
class Counts(LimitCase):
    settings = {
        "iommubrokerd.conf": "[Limits]\nGuestsPerSessionMax=3\nRegionsPerGuestMax=4\nDevicesPerGuestMax=2\n"
        "NestedDomainsPerGuestMax=2\nSessionsMax=4\n"
    }

    def test_guests(self):
        more = [self.vmm.mutate("CreateGuest", name="g").guest for _ in range(2)]
        with self.assertRaises(Refused) as caught:
            self.vmm.mutate("CreateGuest", name="g")
        self.assert_quota(caught.exception, "guests", 3, 3, 1)
        self.vmm.mutate("DestroyGuest", guest=more[0])
        self.vmm.mutate("CreateGuest", name="g")

    def test_regions(self):
        memory = Memory(MIB)
        self.vmm.stack.callback(memory.close)
        handle = self.vmm.add_memory(memory)
        for n in range(4):
            self.vmm.map(handle, 2 * n * PAGE, PAGE)
        with self.assertRaises(Refused) as caught:
            self.vmm.map(handle, 64 * PAGE, PAGE)
        self.assertEqual(caught.exception.code, "RESOURCE_EXHAUSTED")
        self.vmm.unmap(0, PAGE)
        self.vmm.map(handle, 64 * PAGE, PAGE)

    def test_devices(self):
        devices = [self.vmm.open(n) for n in (1, 2)]
        with self.assertRaises(Refused) as caught:
            self.vmm.open(3)
        self.assertEqual(caught.exception.code, "RESOURCE_EXHAUSTED")
        devices[0].close()
        self.vmm.open(3)

    def test_nested_domains(self):
        self.vmm.new_memory()
        device = self.vmm.bound(1)
        made = [self.vmm.managed(device, attach=False).nested for _ in range(2)]
        self.assertEqual(self.vmm.managed(device, attach=False).verdict, pb.VERDICT_RESOURCES)
        self.vmm.mutate("DestroyNested", nested=made[0])
        self.vmm.managed(device, attach=False)

    def test_sessions(self):
        others = [self.client() for _ in range(3)]
        with self.assertRaises(Refused) as caught:
            self.client()
        self.assertEqual(caught.exception.code, "RESOURCE_EXHAUSTED")
        others[0].call("CloseSession")
        eventually(lambda: self.daemon.status().sessions == 3, "one session less")
        self.client()


class Connections(Case):
    settings = {"iommubrokerd.conf": "[Limits]\nConnectionsMax=20\n"}

    def test_connections(self):
        """So many and no more; the next is told so by each answer, and served once another is closed."""
        kept = []
        for _ in range(19):
            client = transport.Native(self.daemon.run)
            self.clients.callback(client.close)
            client.call("GetInfo")
            kept.append(client)
        over = []
        for _ in range(3):
            client = transport.Native(self.daemon.run)
            self.clients.callback(client.close)
            try:
                client.call("GetInfo")
            except Refused as refused:
                self.assertEqual(refused.code, "RESOURCE_EXHAUSTED")
                self.assertIn("connections", str(refused))
                over.append(client)
        self.assertGreaterEqual(len(over), 2)
        for client in kept:
            client.call("GetInfo")
        for client in kept[:5]:
            client.close()

        def room():
            try:
                over[0].call("GetInfo")
                return True
            except Refused:
                return False

        eventually(room, "there is room again")
