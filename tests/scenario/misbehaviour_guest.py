# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a VMM, or the guest in it, does wrong with memory, devices, domains and tables.

Rounds as in misbehaviour_wire.py.
"""

import contextlib
import os
import signal
import socket
import struct

from api import METHODS, Disconnected, Refused, pb
from fixture import die_with_parent
from guest import (
    DMA_FIRST, DMA_LAST, ENTRY_LENGTH, GIB, MIB, PAGE, RF, RS, RT, SEGMENT_FRAME, ST, TABLE_BYTES, Tables, memfd,
)  # fmt: skip
from misbehaviour_wire import FORGED, FORGED_NAME, packets
from transport import HEADER
from vmm import WINDOW_FIRST, Vmm

LENGTH = 8 * MIB
# Of its own tenant's memory.
PIN_BYTES = 48 * MIB


class Loose:
    """Guest memory in a file that nobody has sealed, written by calls: mapped, a shrink would be this
    process's end."""

    def __init__(self, trouble, length=LENGTH):
        self.fd = os.memfd_create("loose", os.MFD_CLOEXEC)
        trouble.keep_fd(self.fd)
        os.posix_fallocate(self.fd, 0, length)
        self.gpa, self.length = 0, length

    def read(self, gpa, length):
        return os.pread(self.fd, length, gpa)

    def write(self, gpa, data):
        os.pwrite(self.fd, data, gpa)

    def write64(self, gpa, value):
        self.write(gpa, struct.pack(">Q", value))

    def read64(self, gpa):
        return struct.unpack(">Q", self.read(gpa, 8))[0]


def hostile_guest(trouble, fid):
    """A guest with memory and a bound function."""
    vmm = Vmm(trouble.client(), name=FORGED_NAME, labels={FORGED_NAME: FORGED_NAME})
    trouble.stack.callback(vmm.close)
    memory = Loose(trouble)
    handle = vmm.add_file(memory.fd).memory_file
    vmm.map(handle, 0, LENGTH)
    device = trouble.patiently(lambda: vmm.open(fid))
    device.bind()
    return vmm, memory, device


def fill(memory, table, value, n=2048):
    memory.write(table, struct.pack(">Q", value) * n)


def aliased(memory, rng, designation):
    """Every entry of a table is the one table below; every page is one page."""
    below, at = memory.length - 0x40000, designation
    fill(memory, below, 0x3000, 256)
    for level in range(ST, designation + 1):
        at = memory.length - 0x80000 + level * TABLE_BYTES
        fill(memory, at, below | (level << 2 | ENTRY_LENGTH if level else 0))
        below = at
    return at


def looped(memory, rng, designation):
    """Tables that point at themselves and at each other."""
    table = memory.length - 0x80000
    for n in range(2048):
        memory.write64(table + 8 * n, table | designation << 2 | ENTRY_LENGTH)
    return table


def one_frame(memory, rng, designation):
    """Segment frames: a table says 2,048 times the same megabyte."""
    top = aliased(memory, rng, designation)
    fill(memory, memory.length - 0x80000, MIB | SEGMENT_FRAME)
    return top


def noise(memory, rng, designation):
    """Whatever bytes."""
    for page in range(64):
        memory.write(memory.length - 0x100000 + page * PAGE, b"".join(
            struct.pack(">Q", rng.randrange(memory.length) & ~0x7FF | rng.randrange(16)) for _ in range(512)
        ))  # fmt: skip
    return memory.length - 0x100000


def changing(trouble, memory):
    """Any entry becomes any other, as a guest may at any time."""
    rng = trouble.rng
    for _ in range(50):
        at = memory.length - 0x80000 + 8 * rng.randrange(0x10000 // 8)
        memory.write64(at, rng.choice((0x20, 0x400, memory.read64(at) ^ 1 << rng.randrange(64), rng.getrandbits(64))))


def walk(trouble, vmm, memory, device, shape, designation):
    root = shape(memory, trouble.rng, designation)
    created = vmm.register(
        device, root | 0x800 | designation << 2, DMA_FIRST, trouble.rng.choice((DMA_LAST, DMA_FIRST + GIB - 1)), mappings_max=4096
    )
    if not created.nested:
        return
    for turn in range(3):
        vmm.refresh(created.nested, (DMA_FIRST, DMA_LAST - DMA_FIRST + 1))
        changing(trouble, memory)
        vmm.refresh(created.nested, *((trouble.rng.randrange(1 << 50) & ~0xFFF, 1 << 46) for _ in range(64)))
    with contextlib.suppress(Refused):
        vmm.mutate("DestroyNested", nested=created.nested)


def hostile_tables(trouble):
    """Whole-aperture refreshes of full hostile tables, while they change."""
    vmm, memory, device = hostile_guest(trouble, 1)
    for shape in (aliased, looped, one_frame, noise):
        for designation in (RT, RS, RF):
            with contextlib.suppress(Refused):
                walk(trouble, vmm, memory, device, shape, designation)


def shrinking(trouble):
    """The memory file shrinks under walks, and grows again."""
    vmm, memory, device = hostile_guest(trouble, 2)
    tables = Tables(memory)
    for n in range(200):
        tables.map(WINDOW_FIRST + n * PAGE, n * PAGE)
    created = vmm.register(device, tables.iota(), mappings_max=4096)
    for _ in range(10):
        calls = [vmm.client.start("RefreshNested", whole(created.nested)) for _ in range(4)]
        os.ftruncate(memory.fd, trouble.rng.choice((0, PAGE, LENGTH // 2)))
        calls += [vmm.client.start("RefreshNested", whole(created.nested)) for _ in range(4)]
        for call in calls:
            with contextlib.suppress(Refused):
                call.result()
        os.posix_fallocate(memory.fd, 0, LENGTH)


def whole(nested):
    request = pb.RefreshNestedRequest(nested=nested)
    request.ranges.add(start=DMA_FIRST, length=DMA_LAST - DMA_FIRST + 1)
    return request


def pin_and_unpin(trouble):
    """All the memory that it may have, pinned and given back."""
    vmm = Vmm(trouble.client(), name="pins")
    trouble.stack.callback(vmm.close)
    trouble.patiently(lambda: vmm.open(3)).bind()
    fd = memfd(PIN_BYTES, name="pins")
    trouble.keep_fd(fd)
    handle = vmm.add_file(fd).memory_file
    for _ in range(6):
        trouble.patiently(lambda: vmm.map(handle, 0, PIN_BYTES))
        vmm.unmap(0, PIN_BYTES)


def die_in_a_pin(trouble):
    """Children that are killed while their memory is being pinned; one of their devices' descriptors
    lives on here."""
    for _ in range(3):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            pid = os.fork()
            if not pid:
                with contextlib.suppress(BaseException):
                    victim(trouble, theirs)
                os.kill(os.getpid(), signal.SIGKILL)
            theirs.close()
            try:
                with contextlib.suppress(OSError):
                    trouble.orphans += socket.recv_fds(ours, 1, 1)[1]
                trouble.pause(trouble.rng.choice((0, 0.001, 0.01, 0.05)))
            finally:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
    while len(trouble.orphans) > 8:
        os.close(trouble.orphans.pop(0))


def victim(trouble, channel):
    die_with_parent()
    vmm = Vmm(trouble.client("native"), name="victim")
    fd = memfd(PIN_BYTES, name="victim")
    handle = vmm.add_file(fd).memory_file
    trouble.patiently(lambda: vmm.map(handle, 0, PIN_BYTES))
    device = trouble.patiently(lambda: vmm.open(4))
    vmm.client.start("BindDevice", pb.BindDeviceRequest(request_id=999, device=device.handle))
    socket.send_fds(channel, [b"x"], [device.fd])
    signal.pause()


def watchers(trouble):
    """Event streams that nobody reads, while a guest makes events."""
    vmm, memory, device = hostile_guest(trouble, 5)
    root = noise(memory, trouble.rng, RT)
    for _ in range(20):
        vmm.client.start("WatchEvents", pb.WatchEventsRequest(guest=vmm.guest))
    silent = trouble.client("grpc" if vmm.client.name == "native" else "native")
    guest = Vmm(silent, name="watched")
    trouble.stack.callback(guest.close)
    for _ in range(20):
        trouble.streams.append(silent.start("WatchEvents", pb.WatchEventsRequest(guest=guest.guest)))
    del trouble.streams[:-100]
    for _ in range(10):
        changing(trouble, memory)
        with contextlib.suppress(Refused):
            created = vmm.register(device, root | 0x800 | RT << 2, mappings_max=1000)
            if created.nested:
                vmm.refresh(created.nested)
                vmm.mutate("DestroyNested", nested=created.nested)


def greedy(trouble):
    """More guests, files, regions, devices and domains than are allowed."""
    client = trouble.client()
    made = [trouble.patiently(lambda: Vmm(client, name="greedy"))]
    with contextlib.suppress(Refused):
        for _ in range(40):
            made.append(Vmm(client, ids=made[0].ids, name=FORGED_NAME))
    vmm = made[0]
    fd = memfd(MIB, name="greedy")
    trouble.keep_fd(fd)
    files = []
    with contextlib.suppress(Refused):
        for _ in range(100):
            files.append(vmm.add_file(fd).memory_file)
    with contextlib.suppress(Refused):
        for n in range(100):
            vmm.map(files[0], 2 * n * PAGE, PAGE)
    for fid in range(1, 10):
        with contextlib.suppress(Refused):
            vmm.open(fid)
    for device in list(vmm.devices):
        with contextlib.suppress(Refused):
            device.bind()
            for _ in range(8):
                vmm.managed(device, attach=False, mappings_max=trouble.rng.choice((1, 1000, 1 << 40, (1 << 64) - 1)))
    for one in made:
        one.close()


def wrong_handles(trouble):
    """Every method with handles that are not its own, guessed, and of another kind."""
    client = trouble.client()
    vmm = Vmm(client, name="guesses")
    trouble.stack.callback(vmm.close)
    for method in METHODS.values():
        request = method.request()
        for field in request.DESCRIPTOR.fields:
            if field.name in ("guest", "device", "nested", "memory_file", "ring", "delegation") and field.cpp_type == field.CPPTYPE_UINT64:
                setattr(request, field.name, trouble.rng.choice((0, 1, vmm.guest, vmm.guest ^ 1 << 40, trouble.rng.getrandbits(64))))
        # a stream that goes through would not end; its own guest would
        if method.stream or method.name in ("DestroyGuest", "CloseSession", "OpenSession") or method.admin:
            continue
        for _ in range(5):
            with contextlib.suppress(Refused):
                client.call(method.name, request)
    for secret in (b"", bytes(16), trouble.rng.randbytes(16)):
        with contextlib.suppress(Refused):
            client.call("ResumeGuest", pb.ResumeGuestRequest(request_id=1, secret=secret))


def same_request_id(trouble):
    """One request id for everything: mutations that join others, and that are others."""
    client = trouble.client("native")
    fd = memfd(MIB, name="same")
    trouble.keep_fd(fd)
    guest = client.call("CreateGuest", pb.CreateGuestRequest(request_id=7, name="a")).message.guest
    requests = [
        ("CreateGuest", pb.CreateGuestRequest(request_id=7, name="b")), ("ResetGuest", pb.ResetGuestRequest(request_id=7, guest=guest)),
        ("CreateGuest", pb.CreateGuestRequest(request_id=8, name="c")), ("DestroyGuest", pb.DestroyGuestRequest(request_id=8, guest=guest)),
        ("CancelOperation", pb.CancelOperationRequest(request_id=8)), ("CancelOperation", pb.CancelOperationRequest(request_id=7)),
        ("OpenDevice", pb.OpenDeviceRequest(request_id=9, guest=guest, function_id=5)),
        ("AddMemoryFile", pb.AddMemoryFileRequest(request_id=9, guest=guest, writable=True)),
        ("CloseSession", pb.CloseSessionRequest()),
    ]  # fmt: skip
    for turn in range(3):
        calls = []
        for name, request in trouble.rng.sample(requests, len(requests)):
            if name == "AddMemoryFile":
                request.descriptor.CopyFrom(client.give(fd))
            calls.append(client.start(name, request))
        for call in calls:
            with contextlib.suppress(Refused):
                for held in call.result().fds:
                    os.close(held)


def gone_before_the_answer(trouble):
    """Long mutations whose connection is closed at once."""
    for _ in range(5):
        raw = packets(trouble, session=True)
        name = pb.CreateGuestRequest(request_id=1, name=FORGED[:20]).SerializeToString()
        for n in range(2, 40):
            raw.send(HEADER.pack(METHODS["CreateGuest"].number, 0, n) + name)
        trouble.release()


GUEST = {
    kind.__name__: kind
    for kind in (
        hostile_tables, shrinking, pin_and_unpin, die_in_a_pin, watchers, greedy, wrong_handles, same_request_id,
        gone_before_the_answer,
    )
}  # fmt: skip
EXPECTED = (Refused, Disconnected, OSError)
