# SPDX-License-Identifier: LGPL-2.1-or-later
"""Requests in every wrong order: refused with what is missing, nothing changed, and the right order
still works afterwards."""

from api import Refused, pb
from cases import VmmCase
from fixture import both_transports
from guest import DMA_FIRST, MIB, PAGE, Tables
from vmm import WINDOW_FIRST, Started, Vmm

IOVA = WINDOW_FIRST + 5 * PAGE


@both_transports
class WrongOrder(VmmCase):
    def assert_precondition(self, call):
        with self.refused("FAILED_PRECONDITION") as caught:
            call()
        self.assertTrue(
            {"PreconditionFailure", "ErrorInfo"} & set(caught.exception.details), str(caught.exception)
        )

    def test_nested_before_bind(self):
        memory, device = self.vmm.new_memory(), self.vmm.open(1)
        tables = Tables(memory)
        self.assert_precondition(lambda: self.vmm.register(device, tables.iota()))
        self.assert_precondition(lambda: self.vmm.managed(device))
        self.assertEqual(self.vmm.describe().mappings_reserved, 0)
        device.bind()
        self.assertEqual(self.vmm.register(device, tables.iota()).verdict, pb.VERDICT_DONE)

    def test_attach_before_bind(self):
        self.vmm.new_memory(gpa=DMA_FIRST)
        device = self.vmm.open(1)
        for to in (pb.ATTACHMENT_PARENT, pb.ATTACHMENT_BLOCKED):
            try:
                self.vmm.attach(device, to)
                self.assertEqual(to, pb.ATTACHMENT_BLOCKED, "nothing attached is blocked already")
            except Refused as error:
                self.assertEqual(error.code, "FAILED_PRECONDITION", str(error))
        device.bind()
        self.vmm.attach(device, pb.ATTACHMENT_PARENT)

    def test_bind_twice(self):
        self.vmm.new_memory()
        device = self.vmm.bound(1)
        with self.assertRaises(Refused) as caught:
            device.bind()
        self.assertIn(caught.exception.code, ("FAILED_PRECONDITION", "ALREADY_EXISTS"), str(caught.exception))
        self.assertTrue(self.vmm.describe().devices[0].bound)

    def test_bind_without_memory(self):
        device = self.vmm.bound(1)
        memory = self.vmm.new_memory()
        tables = Tables(memory)
        tables.map(IOVA, 0x3000)
        self.assertEqual(self.vmm.register(device, tables.iota()).walk.mapped, 1)
        self.assertTrue(device.engine().reaches(IOVA))

    def test_open_twice(self):
        self.vmm.open(1)
        with self.assertRaises(Refused) as caught:
            self.vmm.open(1)
        self.assertIn(caught.exception.code, ("ALREADY_EXISTS", "FAILED_PRECONDITION"), str(caught.exception))
        other = self.new_vmm()
        with self.assertRaises(Refused) as caught:
            other.open(1)
        self.assertIn(caught.exception.code, ("ALREADY_EXISTS", "FAILED_PRECONDITION"), str(caught.exception))
        self.assertEqual(len(self.vmm.describe().devices), 1)

    def test_attach_to_a_nested_domain_of_another_device(self):
        started = Started(self.vmm)
        other = self.vmm.bound(2)
        with self.refused("INVALID_ARGUMENT", field="nested"):
            self.vmm.attach(other, pb.ATTACHMENT_NESTED, started.nested)

    def test_attach_names_a_nested_domain_only_when_nested(self):
        started = Started(self.vmm)
        with self.refused("INVALID_ARGUMENT", field="nested"):
            self.vmm.attach(started.device, pb.ATTACHMENT_PARENT, started.nested)

    def test_after_close_device(self):
        started = Started(self.vmm)
        started.show(IOVA, 0x3000)
        started.device.close()
        for call in (
            lambda: started.device.close(),
            lambda: started.device.bind(),
            lambda: self.vmm.register(started.device, started.tables.iota()),
            lambda: self.vmm.refresh(started.nested),
            lambda: self.vmm.attach(started.device, pb.ATTACHMENT_BLOCKED),
            lambda: self.vmm.explain(started.nested, IOVA),
            lambda: self.vmm.ask("GetDescriptor", device=started.device.handle),
        ):
            with self.refused("NOT_FOUND"):
                call()

    def test_after_destroy_guest(self):
        started = Started(self.vmm)
        handle = started.memory.handle
        self.vmm.mutate("DestroyGuest", guest=self.vmm.guest)
        for call in (
            lambda: self.vmm.describe(),
            lambda: self.vmm.mutate("DestroyGuest", guest=self.vmm.guest),
            lambda: self.vmm.mutate("ResetGuest", guest=self.vmm.guest),
            lambda: self.vmm.map(handle, 0, MIB),
            lambda: self.vmm.add_file(started.memory.fd),
            lambda: self.vmm.open(3),
            lambda: started.device.bind(),
            lambda: self.vmm.refresh(started.nested),
            lambda: self.vmm.mutate("DestroyNested", nested=started.nested),
        ):
            with self.refused("NOT_FOUND"):
                call()
            if hasattr(self.vmm.client, "attached"):
                self.vmm.client.attached = []

    def test_memory_of_another_guest_of_the_same_session(self):
        memory = self.vmm.new_memory()
        other = Vmm(self.vmm.client, self.vmm.ids)
        self.clients.callback(other.close)
        with self.refused("NOT_FOUND"):
            other.map(memory.handle, 0, MIB)
        with self.refused("NOT_FOUND"):
            other.mutate("RemoveMemoryFile", guest=other.guest, memory_file=memory.handle)

    def test_update_of_an_s390_domain_and_replace_of_a_managed_one(self):
        started = Started(self.vmm)
        managed = self.vmm.managed(self.vmm.bound(2)).nested
        for call in (
            lambda: self.vmm.entries(started.nested, (IOVA, PAGE, 0, pb.ACCESS_READ)),
            lambda: self.vmm.replace(managed, started.tables.iota()),
        ):
            with self.assertRaises(Refused) as caught:
                call()
            self.assertIn(caught.exception.code, ("FAILED_PRECONDITION", "INVALID_ARGUMENT"), str(caught.exception))

    def test_destroy_while_attached_blocks_first(self):
        started = Started(self.vmm)
        started.show(IOVA, 0x3000)
        self.vmm.mutate("DestroyNested", nested=started.nested)
        self.assertFalse(started.dma.reaches(IOVA))

    def test_unmap_all_memory_under_an_attached_device(self):
        started = Started(self.vmm)
        started.show(IOVA, 0x3000)
        self.vmm.unmap(0, 16 * MIB)
        self.assertFalse(started.dma.reaches(IOVA))
        self.assertEqual(self.daemon.status().pinned_bytes, 0)
        result = self.vmm.refresh(started.nested, (IOVA, PAGE))[0]
        self.assert_verdict(result, pb.VERDICT_ERROR, 7, outside_memory=True)

    def test_close_session_twice(self):
        client = self.client()
        client.call("CloseSession")
        try:
            client.call("CloseSession")
        except Exception as error:
            self.assertIn(type(error).__name__, ("Refused", "Disconnected"))
