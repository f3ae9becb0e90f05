# SPDX-License-Identifier: LGPL-2.1-or-later
"""Handovers: a guest goes from one VMM process to the next, and never when nobody announced it."""

import contextlib
import itertools
import os

from api import Refused, pb
from cases import VmmCase
from fixture import both_transports, eventually
from guest import PAGE
from vmm import WINDOW_FIRST, Started

IOVA = WINDOW_FIRST + 5 * PAGE
ids = itertools.count(1000)


@both_transports
class Handover(VmmCase):
    def setUp(self):
        super().setUp()
        self.started = Started(self.vmm)
        self.started.show(IOVA, 0x3000)
        self.started.memory.write(0x3000, b"goes on")
        self.ending = None

    def prepare(self, seconds=600, **more):
        self.vmm.mutate("PrepareHandover", guest=self.vmm.guest, seconds=seconds, **more)

    def holder_ends(self):
        """Its connection, or, where that is none of the session's, the session: not answered yet."""
        if self.vmm.client.name == "native":
            self.vmm.client.close()
        else:
            self.ending = self.vmm.client.start("CloseSession")

    def resume(self, client, secret=None):
        request = pb.ResumeGuestRequest(request_id=next(ids), secret=secret or self.vmm.secret)
        return client.call("ResumeGuest", request).message.guest

    def resumed(self, client):
        """Once the end of its holder was seen."""

        resumed = []

        def try_it():
            try:
                resumed.append(self.resume(client))
            except Refused as error:
                self.assertEqual((error.code, error.reason), ("FAILED_PRECONDITION", "GUEST_HELD"), str(error))
            return bool(resumed)

        eventually(try_it, "the guest is resumed")
        return resumed[0]

    def guests(self):
        return self.daemon.status().guests

    def usage(self):
        return {(u.tenant, e.resource): e.current for u in self.daemon.status().usage for e in u.usage}

    def heir_of(self, client):
        """The guest's VMM from now on, with what DescribeGuest tells and GetDescriptor gives."""
        vmm = type(self.vmm).__new__(type(self.vmm))
        vmm.__dict__.update(self.vmm.__dict__)
        vmm.client, vmm.ids = client, itertools.count(1)
        return vmm

    def test_next_process(self):
        used = {k: v for k, v in self.usage().items() if k[1] in ("pinned_bytes", "guests", "devices", "mappings")}
        self.prepare()
        self.holder_ends()
        client = self.client()
        self.assertEqual(self.resumed(client), self.vmm.guest)
        if self.ending:
            self.ending.result()
        heir = self.heir_of(client)
        description = heir.describe()
        self.assertEqual([d.device for d in description.devices], [self.started.device.handle])
        self.assertEqual([n.nested for n in description.nested], [self.started.nested])
        self.assertEqual([f.memory_file for f in description.memory_files], [self.started.memory.handle])
        self.assertEqual(len(description.regions), 1)
        for key, value in used.items():
            self.assertEqual(self.usage()[key], value, key)
        # DMA never stopped, refreshes go on, and descriptors are to be had
        self.assertEqual(self.started.dma.read(IOVA, 7), b"goes on")
        self.started.tables.map(IOVA + PAGE, 0x4000, PAGE, True)
        self.assertEqual(heir.refreshed(self.started.nested, (IOVA + PAGE, PAGE)), (1, 0))
        reply = client.call("GetDescriptor", pb.GetDescriptorRequest(device=self.started.device.handle))
        os.close(client.take(reply.message.descriptor, reply))
        heir.mutate("DestroyGuest", guest=heir.guest)
        self.assertEqual(self.guests(), 0)

    def test_blocked(self):
        self.prepare(block_dma=True)
        self.assertEqual(self.started.dma.read(IOVA, 7), b"goes on")
        self.holder_ends()
        eventually(lambda: not self.started.dma.reaches(IOVA), "its devices are blocked")
        client = self.client()
        self.resumed(client)
        heir = self.heir_of(client)
        self.assertFalse(self.started.dma.reaches(IOVA))
        heir.attach(self.started.device, pb.ATTACHMENT_NESTED, self.started.nested)

    def test_time_is_over(self):
        self.prepare(seconds=1)
        self.holder_ends()
        eventually(lambda: self.guests() == 0, "the guest is released when its time is over")
        self.assertFalse(self.started.dma.reaches(IOVA))
        with self.refused("NOT_FOUND"):
            self.resume(self.client())
        if self.ending:
            self.ending.result()

    def test_not_announced(self):
        self.holder_ends()
        eventually(lambda: self.guests() == 0, "the guest is released at once")
        with self.refused("NOT_FOUND"):
            self.resume(self.client())

    def test_secrets(self):
        self.prepare()
        client = self.client()
        with self.refused("FAILED_PRECONDITION", reason="GUEST_HELD"):
            self.resume(client)
        self.holder_ends()
        for secret in (bytes(16), self.vmm.secret[::-1], client.secret):
            with self.refused("NOT_FOUND"):
                self.resume(client, secret)
        self.assertEqual(self.resumed(client), self.vmm.guest)
        with self.refused("FAILED_PRECONDITION", reason="GUEST_HELD"):
            self.resume(self.client())

    def test_operator_takes_it(self):
        """A guest that waits is to be seen, and to be revoked."""
        self.prepare()
        self.holder_ends()
        self.assertEqual(self.guests(), 1)
        with contextlib.closing(self.daemon.admin()) as admin:
            admin.call("Revoke", pb.RevokeRequest(guest="%x" % self.vmm.guest))
        eventually(lambda: self.guests() == 0, "it is taken down")
        if self.ending:
            self.ending.result()
