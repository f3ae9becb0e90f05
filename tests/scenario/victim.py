# SPDX-License-Identifier: LGPL-2.1-or-later
"""A client that is to be killed.

victim.py FOLDER TRANSPORT state NAME: goes as far as that state, says "there", waits.
victim.py FOLDER TRANSPORT call NAME MICROSECONDS: gets ready, sends the request, and so much later
kills itself without having waited for the answer.
"""

import os
import signal
import subprocess
import sys
import time

import fixture
import transport
from api import METHODS, pb
from guest import DMA_FIRST, MIB, PAGE, Memory, Tables
from vmm import WINDOW_FIRST, WINDOW_LAST, Started, Vmm

IOVA = WINDOW_FIRST + 5 * PAGE


def reach(client, state):
    """Everything is kept alive by the caller."""
    if state == "connected":
        return client.call("GetInfo")
    client.open_session("victim")
    if state == "session":
        return None
    vmm = Vmm(client, name="victim")
    if state == "guest":
        return vmm
    if state == "file":
        memory = Memory()
        vmm.add_memory(memory)
        return vmm, memory
    # to be attached to the parent memory must lie in the DMA window
    memory = vmm.new_memory(gpa=DMA_FIRST if state == "attached to parent" else 0)
    if state == "region":
        return vmm
    device = vmm.open(1)
    if state == "opened":
        return vmm
    device.bind()
    if state == "bound":
        return vmm
    if state == "managed":
        nested = vmm.managed(device).nested
        vmm.entries(nested, (IOVA, 64 * PAGE, 0, pb.ACCESS_READ_WRITE))
        return vmm
    if state == "attached to parent":
        vmm.attach(device, pb.ATTACHMENT_PARENT)
        return vmm
    tables = Tables(memory)
    for n in range(100):
        tables.map(IOVA + n * PAGE, n * PAGE)
    created = vmm.register(device, tables.iota(), attach=state != "registered")
    vmm.refreshed(created.nested)
    if state == "reset":
        vmm.mutate("ResetGuest", guest=vmm.guest)
    return vmm, created


def prepare(client, call):
    """The request of that call, in a state where it has something to do."""
    name = call.split()[0]
    method = METHODS[name]
    request = method.request()
    if call == "GetInfo" or call == "OpenSession":
        return name, request, None
    client.open_session("victim")
    vmm = Vmm(client, name="victim")
    fields = request.DESCRIPTOR.fields_by_name
    if "request_id" in fields:
        request.request_id = 99999
    large = Memory(64 * MIB, gpa=1024 * MIB)
    large_handle = vmm.add_memory(large)
    kept = [vmm, large]
    if name == "BindDevice":
        vmm.map(large_handle, 1024 * MIB, 64 * MIB)
        request.device = vmm.open(1).handle
        return name, request, kept
    started = Started(vmm)
    kept.append(started)
    for n in range(100):
        started.tables.map(IOVA + n * PAGE, n * PAGE)
    spare = vmm.bound(2)
    for field, value in (("guest", vmm.guest), ("device", started.device.handle), ("nested", started.nested)):
        if field in fields:
            setattr(request, field, value)
    fill(call, request, client, vmm, started, spare, large, large_handle)
    return name, request, kept


def fill(call, request, client, vmm, started, spare, large, large_handle):
    anchor = pb.S390Anchor(iota=started.tables.iota(), pba=WINDOW_FIRST, pal=WINDOW_LAST)
    if call == "AddMemoryFile":
        request.descriptor.CopyFrom(client.give(large.fd))
    elif call == "RemoveMemoryFile":
        request.memory_file = large_handle
    elif call == "UpdateMemory":
        request.map.add(memory_file=large_handle, gpa=1024 * MIB, length=64 * MIB, access=pb.ACCESS_READ_WRITE)
    elif call == "UpdateMemory unmap":
        vmm.refreshed(started.nested)
        request.unmap.add(first=0, last=(1 << 64) - 1)
    elif call == "OpenDevice":
        request.function_id = 3
    elif call == "CreateNested":
        request.device, request.attach = spare.handle, True
        request.s390.CopyFrom(anchor)
    elif call == "ReplaceNested":
        request.s390.CopyFrom(anchor)
    elif call == "Attach":
        request.to = pb.ATTACHMENT_PARENT
    elif call == "RefreshNested":
        request.ranges.add(start=WINDOW_FIRST, length=WINDOW_LAST - WINDOW_FIRST + 1)
    elif call == "UpdateNested":
        request.nested = vmm.managed(spare).nested
        request.entries.add(iova=IOVA, length=100 * PAGE, gpa=0, access=pb.ACCESS_READ)
    elif call == "ExplainTranslation":
        request.iova = IOVA
    elif call == "CancelOperation":
        request.request_id = 1
    elif call in ("DestroyGuest", "ResetGuest", "CloseDevice", "DestroyNested", "CloseSession"):
        vmm.refreshed(started.nested)


def main():
    folder, name, kind, what, *more = sys.argv[1:]
    fixture.die_with_parent()
    client = transport.TRANSPORTS[name](folder)
    if kind == "state":
        if what == "leaked":
            kept = reach(client, "refreshed")
            fd = kept[0].devices[0].fd
            heir = subprocess.Popen(["sleep", "600"], pass_fds=[fd], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            print("there", heir.pid, flush=True)
        else:
            kept = reach(client, what)
            print("there", flush=True)
        sys.stdin.read()
        return kept
    method, request, kept = prepare(client, what)
    call = client.start(method, request)
    # gRPC's own threads send it: a request that never left is the case of a state
    time.sleep(float(more[0]) / 1e6 + (0.0005 if name == "grpc" else 0))
    os.kill(os.getpid(), signal.SIGKILL)
    return call, kept


main()
