# SPDX-License-Identifier: LGPL-2.1-or-later
"""A client's side of an update ring, as proto/iommubroker/ring_layout.h says, without the library."""

import mmap
import os
import select
import struct

from api import pb
from transport import PATIENCE, TAKE, Grpc

HEADER_BYTES, LANE_BYTES, ENTRY_BYTES, LINE = 128, 256, 64, 64
SUBMISSION = struct.Struct("=IIQQQQI20x")
COMPLETION = struct.Struct("=QIIIIQQQ16x")
WORD = struct.Struct("=I")
REFRESH, MAP, UNMAP = 1, 2, 3
MASK = 2**32 - 1


class Completion:
    def __init__(self, data):
        (self.user_data, self.verdict, self.condition_code, self.status, self.event_code,
         self.failing_iova, self.mapped, self.unmapped) = COMPLETION.unpack(data)  # fmt: skip


class Ring:
    def __init__(self, vmm, lanes=1, entries=16):
        self.vmm, self.lanes, self.entries = vmm, lanes, entries
        created = vmm.mutate("CreateUpdateRing", guest=vmm.guest, lanes=lanes, entries=entries)
        self.handle = created.ring
        self.memory_fd, self.submit_fd = self.take(created.memory), self.take(created.submit_doorbell)
        self.complete_fds = [self.take(ref) for ref in created.complete_doorbells]
        self.memory = mmap.mmap(self.memory_fd, 0)
        self.next = 0

    def take(self, ref):
        """On either transport under a token."""
        client = self.vmm.client
        if client.name == "grpc":
            return client.take(ref)
        reply = Grpc.native(
            client.packets, TAKE, pb.TakeDescriptorRequest(token=ref.token), pb.TakeDescriptorResponse
        )
        return reply.fds[0]

    def lane(self, lane):
        return HEADER_BYTES + lane * (LANE_BYTES + 2 * self.entries * ENTRY_BYTES)

    def load(self, at):
        return WORD.unpack_from(self.memory, at)[0]

    def store(self, at, value):
        WORD.pack_into(self.memory, at, value & MASK)

    def submit(self, nested, iova, length, lane=0, operation=REFRESH, gpa=0, writable=0):
        base = self.lane(lane)
        tail = self.load(base)
        self.next += 1
        entry = base + LANE_BYTES + tail % self.entries * ENTRY_BYTES
        SUBMISSION.pack_into(self.memory, entry, operation, nested, iova, length, gpa, self.next, writable)
        self.store(base, tail + 1)
        # a fence is not to be had here: the daemon is rung whether it sleeps or not
        os.write(self.submit_fd, b"!")
        return self.next

    def reap(self, lane=0):
        base = self.lane(lane)
        head = self.load(base + 3 * LINE)
        self.store(base + 3 * LINE + 4, 1)
        poller = select.poll()
        poller.register(self.complete_fds[lane], select.POLLIN)
        waited = 0
        while self.load(base + 2 * LINE) == head:
            assert not self.load(base + 2 * LINE + 4), "the lane was stopped"
            # short sleeps, for want of a fence
            if poller.poll(50):
                assert os.read(self.complete_fds[lane], 64), "the ring has ended"
            waited += 1
            assert waited < PATIENCE * 20, "no completion"
        entry = base + LANE_BYTES + (self.entries + head % self.entries) * ENTRY_BYTES
        done = Completion(self.memory[entry : entry + ENTRY_BYTES])
        self.store(base + 3 * LINE, head + 1)
        return done

    def fault(self, lane=0):
        return self.load(self.lane(lane) + 2 * LINE + 4)

    def refresh(self, nested, iova, length, lane=0, **more):
        number = self.submit(nested, iova, length, lane, **more)
        done = self.reap(lane)
        assert done.user_data == number
        return done

    def ended(self):
        """All ends of the daemon's are closed."""
        poller = select.poll()
        poller.register(self.complete_fds[0], select.POLLIN)
        while poller.poll(PATIENCE * 1000):
            if not os.read(self.complete_fds[0], 4096):
                return True
        return False

    def destroy(self):
        self.vmm.mutate("DestroyUpdateRing", ring=self.handle)

    def close(self):
        self.memory.close()
        for fd in (self.memory_fd, self.submit_fd, *self.complete_fds):
            os.close(fd)
