# SPDX-License-Identifier: LGPL-2.1-or-later
"""Descriptors of every wrong kind, in every wrong place."""

import contextlib
import fcntl
import os
import select
import socket

from api import Refused, pb
from cases import VmmCase
from fixture import both_transports, eventually
from guest import F_ADD_SEALS, F_SEAL_FUTURE_WRITE, F_SEAL_SHRINK, F_SEAL_WRITE, MIB, PAGE, memfd
from transport import SEND, Grpc


def reopened(fd, flags):
    again = os.open("/proc/self/fd/%d" % fd, flags | os.O_CLOEXEC)
    os.close(fd)
    return again


def socket_fd():
    one, other = socket.socketpair()
    other.close()
    return one.detach()


def pipe_fd():
    reader, writer = os.pipe()
    os.close(writer)
    return reader


def disk_file():
    # TMPDIR may be a tmpfs, which is good memory
    for folder in (os.path.dirname(os.path.abspath(__file__)), "/var/tmp", "/tmp"):
        with contextlib.suppress(OSError):
            fd = os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600)
            if _file_system(fd) not in ("tmpfs", "hugetlbfs"):
                os.posix_fallocate(fd, 0, MIB)
                return fd
            os.close(fd)
    raise OSError("no folder on a disk to write to")


def _file_system(fd):
    device = os.fstat(fd).st_dev
    with open("/proc/self/mountinfo") as f:
        for line in f:
            fields = line.split()
            if fields[2] == "%d:%d" % (os.major(device), os.minor(device)):
                return fields[fields.index("-") + 1]
    return "?"


_epoll = select.epoll()

# name → (maker, writable asked for)
WRONG = {
    "pipe": (pipe_fd, True),
    "socket": (socket_fd, True),
    "/dev/null": (lambda: os.open("/dev/null", os.O_RDWR), True),
    "/dev/zero": (lambda: os.open("/dev/zero", os.O_RDWR), True),
    "file on a disk": (disk_file, True),
    "directory": (lambda: os.open("/", os.O_RDONLY | os.O_DIRECTORY), False),
    "directory of a tmpfs": (lambda: os.open("/dev/shm", os.O_RDONLY | os.O_DIRECTORY), False),
    "O_PATH of a memfd": (lambda: reopened(memfd(MIB), os.O_PATH), False),
    "eventfd": (lambda: os.eventfd(0), True),
    "epoll": (lambda: os.dup(_epoll.fileno()), True),
    "pidfd": (lambda: os.pidfd_open(os.getpid()), True),
    "memory of a process": (lambda: os.open("/proc/self/mem", os.O_RDWR), True),
    "file of /proc": (lambda: os.open("/proc/self/maps", os.O_RDONLY), False),
    "read-only memfd as writable": (lambda: reopened(memfd(MIB), os.O_RDONLY), True),
    "write-only memfd": (lambda: reopened(memfd(MIB), os.O_WRONLY), True),
    "write-only memfd as read-only": (lambda: reopened(memfd(MIB), os.O_WRONLY), False),
    "write-sealed memfd as writable": (lambda: memfd(MIB, seals=F_SEAL_WRITE | F_SEAL_SHRINK), True),
    "future-write-sealed memfd as writable": (lambda: memfd(MIB, seals=F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK), True),
    "empty memfd": (lambda: memfd(0), True),
}  # fmt: skip




@both_transports
class WrongKinds(VmmCase):
    def test_as_memory(self):
        for name, (make, writable) in WRONG.items():
            with self.subTest(name):
                fd = make()
                try:
                    with self.refused("INVALID_ARGUMENT") as caught:
                        self.vmm.add_file(fd, writable)
                    self.assertTrue({"descriptor", "writable"} & set(caught.exception.fields), str(caught.exception))
                finally:
                    os.close(fd)
        self.assertEqual(len(self.vmm.describe().memory_files), 0)

    def test_as_device(self):
        kinds = dict(WRONG, memory=(lambda: memfd(MIB), True))
        for name, (make, _) in kinds.items():
            with self.subTest(name):
                fd = make()
                try:
                    with self.assertRaises(Refused) as caught:
                        self.vmm.open(descriptor=self.vmm.client.give(fd))
                    self.assertEqual(caught.exception.code, "INVALID_ARGUMENT", str(caught.exception))
                    self.assertIn("descriptor", caught.exception.fields, str(caught.exception))
                finally:
                    os.close(fd)
        self.assertEqual(len(self.vmm.describe().devices), 0)

    def test_read_only_is_good_where_only_reading_is_asked(self):
        for make in (lambda: reopened(memfd(MIB), os.O_RDONLY), lambda: memfd(MIB, seals=F_SEAL_WRITE | F_SEAL_SHRINK)):
            fd = make()
            added = self.vmm.add_file(fd, writable=False)
            os.close(fd)
            with self.refused("INVALID_ARGUMENT", field="map[0].access"):
                self.vmm.map(added.memory_file, 0, MIB)
        self.assertEqual(self.vmm.describe().region_bytes, 0)

    def test_sealed_after_it_was_added(self):
        """A write seal that comes after the check is looked at again when it is mapped, or could
        not come: the daemon's own writable mapping prevents it."""
        fd = memfd(MIB, seals=F_SEAL_SHRINK)
        added = self.vmm.add_file(fd)
        try:
            fcntl.fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE)
        except OSError:
            os.close(fd)
            return
        os.close(fd)
        with self.assertRaises(Refused) as caught:
            self.vmm.map(added.memory_file, 0, MIB)
        self.assertIn(caught.exception.code, ("INVALID_ARGUMENT", "FAILED_PRECONDITION"))

    def test_sparse(self):
        fd = memfd(4 * MIB, populate=False)
        added = self.vmm.add_file(fd)
        with self.refused("FAILED_PRECONDITION") as caught:
            self.vmm.map(added.memory_file, 0, 4 * MIB)
        self.assertIn("PreconditionFailure", caught.exception.details)
        os.posix_fallocate(fd, 0, 4 * MIB - PAGE)
        with self.refused("FAILED_PRECONDITION"):
            self.vmm.map(added.memory_file, 0, 4 * MIB)
        os.posix_fallocate(fd, 0, 4 * MIB)
        self.assertEqual(self.vmm.map(added.memory_file, 0, 4 * MIB).region_bytes, 4 * MIB)
        os.close(fd)

    def test_punched_before_it_is_pinned(self):
        memory = self.vmm.new_memory(4 * MIB)
        with self.assertRaises(OSError):
            os.ftruncate(memory.fd, 0)
        _punch(memory.fd, 0, 4 * MIB)
        device = self.vmm.open(1)
        with self.refused("FAILED_PRECONDITION"):
            device.bind()
        self.assertFalse(self.vmm.describe().pinned)
        os.posix_fallocate(memory.fd, 0, 4 * MIB)
        # a bind that had to be undone closes the device: VFIO unbinds with the last descriptor
        device.release()
        if self.vmm.describe().devices:
            device.close()
        self.vmm.open(1).bind()
        self.assertTrue(self.vmm.describe().pinned)

    def test_length_that_is_no_multiple_of_a_page(self):
        fd = memfd(MIB + 1)
        try:
            added = self.vmm.add_file(fd)
            self.assertLessEqual(added.length, MIB + 1)
            with self.refused("INVALID_ARGUMENT"):
                self.vmm.map(added.memory_file, 0, MIB + PAGE)
            self.vmm.map(added.memory_file, 0, MIB)
        except Refused as error:
            self.assertEqual((error.code, "descriptor" in error.fields), ("INVALID_ARGUMENT", True), str(error))
        finally:
            os.close(fd)

    def test_the_same_file_twice(self):
        fd = memfd(MIB)
        first = self.vmm.add_file(fd)
        second = self.vmm.add_file(fd)
        os.close(fd)
        self.assertNotEqual(first.memory_file, second.memory_file)
        self.vmm.map(first.memory_file, 0, MIB)
        self.vmm.map(second.memory_file, MIB, MIB)
        self.assertEqual(self.vmm.describe().region_bytes, 2 * MIB)

    def test_device_descriptor_comes_back_in(self):
        """A function opened by one's own descriptor: refused unless a rule allows it, and never
        another guest's function."""
        device = self.vmm.bound(1)
        other = self.new_vmm()
        with self.assertRaises(Refused) as caught:
            other.open(descriptor=other.client.give(device.fd))
        self.assertIn(
            caught.exception.code, ("PERMISSION_DENIED", "ALREADY_EXISTS", "FAILED_PRECONDITION", "INVALID_ARGUMENT"),
            str(caught.exception),
        )  # fmt: skip


def _punch(fd, offset, length):
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.fallocate(fd, 3, ctypes.c_long(offset), ctypes.c_long(length)):
        raise OSError(ctypes.get_errno(), "fallocate")


class Waiting(VmmCase):
    """Descriptors that gRPC clients send ahead, and fetch afterwards."""

    transport_name = "grpc"
    settings = {"iommubrokerd.conf": "[Clients]\nDescriptorTimeout=300ms\n"}

    def send(self, packets, fd):
        return Grpc.native(packets, SEND, pb.SendDescriptorRequest(), pb.SendDescriptorResponse, [fd]).message.token

    def test_good_for_one_use(self):
        client = self.vmm.client
        fd = memfd(MIB)
        ref = client.give(fd)
        os.close(fd)
        self.vmm.mutate("AddMemoryFile", guest=self.vmm.guest, descriptor=ref, writable=True)
        with self.refused("INVALID_ARGUMENT", field="descriptor"):
            self.vmm.mutate("AddMemoryFile", guest=self.vmm.guest, descriptor=ref, writable=True)

    def test_forgotten_ones_are_closed(self):
        client = self.vmm.client
        fd = memfd(MIB, name="forgotten")
        ref = client.give(fd)
        os.close(fd)
        eventually(lambda: not any("forgotten" in f for f in self.daemon.fds()), "the descriptor is closed")
        with self.refused("INVALID_ARGUMENT", field="descriptor"):
            self.vmm.mutate("AddMemoryFile", guest=self.vmm.guest, descriptor=ref, writable=True)

    def test_tokens_of_another_session(self):
        stranger = self.client("grpc")
        fd = memfd(MIB)
        ref = stranger.give(fd)
        os.close(fd)
        with self.refused("INVALID_ARGUMENT", field="descriptor"):
            self.vmm.mutate("AddMemoryFile", guest=self.vmm.guest, descriptor=ref, writable=True)
        with self.assertRaises(Refused):
            self.vmm.client.take(ref)


class TooManyWaiting(VmmCase):
    transport_name = "grpc"

    def test_sixteen_wait_and_no_more(self):
        client = self.vmm.client
        fd = memfd(MIB, name="waiting")
        refs = [client.give(fd) for _ in range(16)]
        self.assertEqual(len({r.token for r in refs}), 16)
        with self.refused("RESOURCE_EXHAUSTED"):
            client.give(fd)
        os.close(fd)
        eventually(lambda: sum("waiting" in f for f in self.daemon.fds()) == 16, "the one too many is closed")
        self.vmm.mutate("AddMemoryFile", guest=self.vmm.guest, descriptor=refs[3], writable=True)
        client.call("CloseSession")
        eventually(lambda: not any("waiting" in f for f in self.daemon.fds()), "all are closed with their session")
