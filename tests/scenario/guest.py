# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest as its VMM sees it: memory in a memfd, and zPCI tables that the guest keeps in it."""

import fcntl
import mmap
import os
import struct

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
PAGE = 4096

# Designation types of an anchor, and what the tables look like (s390 zPCI).
ST, RT, RS, RF = 0, 1, 2, 3
LEVEL_SHIFT = {ST: 20, RT: 31, RS: 42, RF: 53}
TABLE_BYTES = 0x4000
PAGE_TABLE_BYTES = 0x800
ANCHOR_T = 0x800
ANCHOR_P = 0x200
ENTRY_INVALID = 0x20
ENTRY_PROTECTED = 0x200
ENTRY_LENGTH = 0x3
SEGMENT_FRAME = 0x400
PAGE_INVALID = 0x400
DMA_FIRST = 0x1_0000_0000
DMA_LAST = 0x1F_FFFF_FFFF_FFFF

F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE, F_SEAL_FUTURE_WRITE = 1, 2, 4, 8, 16
F_ADD_SEALS = 1033


def memfd(length, name="guest", populate=True, seals=F_SEAL_SHRINK, flags=0):
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | flags)
    try:
        os.ftruncate(fd, length)
        if populate and length:
            os.posix_fallocate(fd, 0, length)
        if seals:
            fcntl.fcntl(fd, F_ADD_SEALS, seals)
    except OSError:
        os.close(fd)
        raise
    return fd


class Memory:
    """A memory file, mapped here, that shows up at a guest address."""

    def __init__(self, length=16 * MIB, gpa=0, **options):
        self.fd = memfd(length, **options)
        self.length = length
        self.gpa = gpa
        self.map = mmap.mmap(self.fd, length)

    def read(self, gpa, length):
        at = gpa - self.gpa
        return self.map[at : at + length]

    def write(self, gpa, data):
        at = gpa - self.gpa
        self.map[at : at + len(data)] = data

    def write64(self, gpa, value):
        struct.pack_into(">Q", self.map, gpa - self.gpa, value)

    def read64(self, gpa):
        return struct.unpack_from(">Q", self.map, gpa - self.gpa)[0]

    def close(self):
        self.map.close()
        os.close(self.fd)


class Tables:
    """The guest's own page tables. Tables are taken from the top of the memory downwards."""

    def __init__(self, memory, designation=RT, top=None):
        self.memory = memory
        self.designation = designation
        self.top = memory.gpa + memory.length if top is None else top
        self.root = self.new_table()

    def new_table(self, page_table=False):
        size = PAGE_TABLE_BYTES if page_table else TABLE_BYTES
        self.top = (self.top - size) & ~(size - 1)
        free = PAGE_INVALID if page_table else ENTRY_INVALID
        self.memory.write(self.top, struct.pack(">Q", free) * (size // 8))
        return self.top

    def iota(self, extra=0):
        return self.root | ANCHOR_T | self.designation << 2 | extra

    def entry_gpa(self, iova, level):
        """Where the entry of that level stands; the tables above it are made as needed.
        level: RF … ST, or "page"."""
        table = self.root
        for at in range(self.designation, -1, -1):
            entry = table + (iova >> LEVEL_SHIFT[at] & 0x7FF) * 8
            if at == level:
                return entry
            value = self.memory.read64(entry)
            if value & ENTRY_INVALID:
                below = self.new_table(page_table=at == ST)
                value = below | (at << 2 | ENTRY_LENGTH if at else 0)
                self.memory.write64(entry, value)
            table = value & ~(PAGE_TABLE_BYTES - 1 if at == ST else TABLE_BYTES - 1)
        return table + (iova >> 12 & 0xFF) * 8

    def map(self, iova, gpa, length=PAGE, writable=True):
        for at in range(0, length, PAGE):
            value = (gpa + at) | (0 if writable else ENTRY_PROTECTED)
            self.memory.write64(self.entry_gpa(iova + at, "page"), value)

    def unmap(self, iova, length=PAGE):
        for at in range(0, length, PAGE):
            self.memory.write64(self.entry_gpa(iova + at, "page"), PAGE_INVALID)

    def map_segment(self, iova, gpa, writable=True):
        """A 1 MiB frame."""
        value = gpa | SEGMENT_FRAME | (0 if writable else ENTRY_PROTECTED)
        self.memory.write64(self.entry_gpa(iova, ST), value)
