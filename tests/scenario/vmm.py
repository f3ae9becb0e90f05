# SPDX-License-Identifier: LGPL-2.1-or-later
"""A VMM over either transport: what tests say in one line each.

request ids are counted up, so that every mutation here is protected as a careful VMM's would be.
"""

import contextlib
import itertools
import os
import subprocess

from api import METHODS, pb
from fixture import built
from guest import DMA_FIRST, MIB, PAGE, RT, Memory, Tables

WINDOW_FIRST = DMA_FIRST
WINDOW_LAST = DMA_FIRST + (64 << 20) * 8 - 1  # 512 MiB


class DmaFault(Exception):
    """The device's DMA went nowhere. kind: what the engine says, iova: where."""


class Dma:
    """The DMA engine of one emulated function, in a process of its own that holds the device's
    descriptor and those of the guest's memory files, and nothing else."""

    def __init__(self, device_fd, memory_fds):
        fds = [device_fd, *memory_fds]
        self.process = subprocess.Popen(
            [built("tests/scenario/dma_probe"), *map(str, fds)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=fds, text=True,
        )  # fmt: skip

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().split()
        if not answer:
            raise AssertionError("dma_probe ended")
        if answer[0] == "fault":
            raise DmaFault(" ".join(answer[1:]))
        assert answer[0] == "ok", answer
        return answer[1:]

    def read(self, iova, length):
        answer = self.ask("read %d %d" % (iova, length))
        return bytes.fromhex(answer[0])

    def write(self, iova, data):
        self.ask("write %d %s" % (iova, data.hex()))

    def where(self, iova):
        """(inode, offset, readable, writable) of what the device reaches there."""
        inode, offset, readable, writable = map(int, self.ask("where %d" % iova))
        return inode, offset, bool(readable), bool(writable)

    def reaches(self, iova):
        """Anything at all, memory that this engine was not given included."""
        try:
            return self.where(iova)[2]
        except DmaFault:
            return False

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


class Device:
    def __init__(self, vmm, handle, fd, fid):
        self.vmm, self.handle, self.fd, self.fid = vmm, handle, fd, fid
        self.dma = None

    def bind(self, **more):
        request = pb.BindDeviceRequest(request_id=self.vmm.id(), device=self.handle, **more)
        reply = self.vmm.client.call("BindDevice", request)
        assert reply.message.WhichOneof("update") == "done"
        self.bind_messages = reply.messages
        return reply.message.done

    def engine(self):
        """The DMA engine, with the memory files as they are now."""
        if self.dma:
            self.dma.close()
        self.dma = Dma(self.fd, [memory.fd for memory, _ in self.vmm.files])
        return self.dma

    def close(self):
        request = pb.CloseDeviceRequest(request_id=self.vmm.id(), device=self.handle)
        return self.vmm.client.call("CloseDevice", request).message

    def release(self):
        if self.dma:
            self.dma.close()
            self.dma = None
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None


class Vmm:
    """One session with one guest."""

    def __init__(self, client, ids=None, guest=None, **create):
        """guest: one that was delegated; else one is made."""
        self.client = client
        # of the session: a second guest of it counts on
        self.ids = ids or itertools.count(1)
        self.stack = contextlib.ExitStack()
        self.files = []  # (Memory, handle)
        self.devices = []
        self.guest = guest
        if guest:
            return
        create.setdefault("name", "guest")
        created = self.mutate("CreateGuest", **create)
        self.guest, self.secret = created.guest, created.secret

    def id(self):
        return next(self.ids)

    def mutate(self, method, **fields):
        """A mutation with a request id of its own; its (last) message."""
        request = METHODS[method].request(request_id=self.id(), **fields)
        return self.client.call(method, request).message

    def ask(self, method, **fields):
        return self.client.call(method, METHODS[method].request(**fields)).message

    def add_file(self, fd, writable=True):
        return self.mutate(
            "AddMemoryFile", guest=self.guest, descriptor=self.client.give(fd), writable=writable
        )

    def add_memory(self, memory, writable=True):
        added = self.add_file(memory.fd, writable)
        self.files.append((memory, added.memory_file))
        return added.memory_file

    def new_memory(self, length=16 * MIB, gpa=0, writable=True, **options):
        """A memfd of ours, added and mapped whole at gpa."""
        memory = Memory(length, gpa, **options)
        self.stack.callback(memory.close)
        handle = self.add_memory(memory, writable)
        access = pb.ACCESS_READ_WRITE if writable else pb.ACCESS_READ
        self.map(handle, gpa, length, access=access)
        memory.handle = handle
        return memory

    def update(self, unmap=(), maps=()):
        request = pb.UpdateMemoryRequest(request_id=self.id(), guest=self.guest)
        for first, last in unmap:
            request.unmap.add(first=first, last=last)
        for entry in maps:
            request.map.add(**entry)
        reply = self.client.call("UpdateMemory", request)
        assert reply.message.WhichOneof("update") == "done", reply.message
        self.update_messages = reply.messages
        return reply.message.done

    def map(self, handle, gpa, length, offset=0, access=pb.ACCESS_READ_WRITE, granule=0):
        entry = dict(memory_file=handle, offset=offset, gpa=gpa, length=length, access=access, granule=granule)
        return self.update(maps=[entry])

    def unmap(self, gpa, length):
        return self.update(unmap=[(gpa, gpa + length - 1)])

    def open(self, fid=1, **address):
        if not address:
            address = {"function_id": fid}
        request = pb.OpenDeviceRequest(request_id=self.id(), guest=self.guest, **address)
        reply = self.client.call("OpenDevice", request)
        fd = self.client.take(reply.message.descriptor, reply)
        device = Device(self, reply.message.device, fd, fid)
        self.devices.append(device)
        self.stack.callback(device.release)
        return device

    def bound(self, fid=1):
        device = self.open(fid)
        device.bind()
        return device

    def register(self, device, iota, pba=WINDOW_FIRST, pal=WINDOW_LAST, attach=True, **more):
        return self.mutate(
            "CreateNested", device=device.handle, attach=attach,
            s390=pb.S390Anchor(iota=iota, pba=pba, pal=pal), **more,
        )  # fmt: skip

    def managed(self, device, first=WINDOW_FIRST, last=WINDOW_LAST, attach=True, **more):
        return self.mutate(
            "CreateNested", device=device.handle, attach=attach, managed=pb.AddressRange(first=first, last=last), **more
        )

    def replace(self, nested, iota, pba=WINDOW_FIRST, pal=WINDOW_LAST):
        return self.mutate("ReplaceNested", nested=nested, s390=pb.S390Anchor(iota=iota, pba=pba, pal=pal))

    def refresh(self, nested, *ranges):
        """Ranges of (start, length); the results, one for each."""
        request = pb.RefreshNestedRequest(nested=nested)
        for start, length in ranges or [(WINDOW_FIRST, WINDOW_LAST - WINDOW_FIRST + 1)]:
            request.ranges.add(start=start, length=length)
        return list(self.client.call("RefreshNested", request).message.results)

    def refreshed(self, nested, *ranges):
        """The same, of which each must be DONE; (mapped, unmapped) in sum."""
        results = self.refresh(nested, *ranges)
        for result in results:
            assert result.verdict == pb.VERDICT_DONE, result
        return sum(r.mapped for r in results), sum(r.unmapped for r in results)

    def entries(self, nested, *entries):
        request = pb.UpdateNestedRequest(request_id=self.id(), nested=nested)
        for iova, length, gpa, access in entries:
            request.entries.add(iova=iova, length=length, gpa=gpa, access=access)
        return list(self.client.call("UpdateNested", request).message.results)

    def attach(self, device, to, nested=0):
        return self.mutate("Attach", device=device.handle, to=to, nested=nested)

    def describe(self):
        return self.ask("DescribeGuest", guest=self.guest).description

    def explain(self, nested, iova):
        return self.ask("ExplainTranslation", nested=nested, iova=iova).explanation

    def close(self):
        self.stack.close()


class Started:
    """What most tests begin with: memory, a bound function, the guest's tables, registered."""

    def __init__(self, vmm, fid=1, designation=RT, **register):
        self.vmm = vmm
        self.memory = vmm.new_memory()
        self.device = vmm.bound(fid)
        self.tables = Tables(self.memory, designation)
        self.created = vmm.register(self.device, self.tables.iota(), **register)
        assert self.created.verdict == pb.VERDICT_DONE, self.created
        self.nested = self.created.nested
        self.dma = self.device.engine()

    def show(self, iova, gpa, length=PAGE, writable=True):
        """The guest maps and refreshes."""
        self.tables.map(iova, gpa, length, writable)
        return self.vmm.refreshed(self.nested, (iova, length))

    def hide(self, iova, length=PAGE):
        self.tables.unmap(iova, length)
        return self.vmm.refreshed(self.nested, (iova, length))
