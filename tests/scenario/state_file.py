# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest's state file as daemon/state/state_file.c and record.c lay it out, written down once more:
so that what one version leaves is looked at, and changed into what another would have left, while
no daemon has it."""

import collections
import os
import struct
import zlib

HEADER = struct.Struct("=QII")
DESCRIPTION = struct.Struct("=QQQQQ")  # sequence, offset, bytes, checksum of them, checksum of all this
RECORD = struct.Struct("=HHIII")
MAGIC = 0x69624775657374F1
WORDS, WORDS_AT, PAGE = 32, 96, 4096
MUST_KNOW = 1
GUEST, LABEL, SESSION, FILE, REGION, DEVICE, NESTED, LEFTOVER, ANSWER, RING = range(1, 11)

Record = collections.namedtuple("Record", "type flags fixed tail")


def padded(data):
    return data + bytes(-len(data) % 8)


def parse(content):
    """Its records."""
    records, at = [], 0
    while at < len(content):
        kind, flags, fixed, tail, zero = RECORD.unpack_from(content, at)
        assert zero == 0, "no record at %d" % at
        at += RECORD.size
        records.append(Record(kind, flags, content[at : at + fixed], content[at + -(-fixed // 8) * 8 :][:tail]))
        at += (-(-fixed // 8) + -(-tail // 8)) * 8
    assert at == len(content), "the last record is cut"
    return records


def pack(records):
    return b"".join(
        RECORD.pack(r.type, r.flags, len(r.fixed), len(r.tail), 0) + padded(r.fixed) + padded(r.tail) for r in records
    )


class StateFile:
    """fd: borrowed. Nobody may be writing to it, or else copies change while they are read."""

    def __init__(self, fd):
        self.fd = fd

    def _description(self, copy):
        found = DESCRIPTION.unpack(os.pread(self.fd, DESCRIPTION.size, HEADER.size + copy * DESCRIPTION.size))
        return found if found[4] == self._checksum(copy, *found[:4]) else None

    @staticmethod
    def _checksum(copy, *fields):
        return 0x80000000 << 32 | zlib.crc32(struct.pack("=QQQQQ", copy, *fields))

    def _holds(self):
        magic, _, page = HEADER.unpack(os.pread(self.fd, HEADER.size, 0))
        assert (magic, page) == (MAGIC, PAGE), (hex(magic), page)
        copies = [(self._description(copy), copy) for copy in (0, 1)]
        return max((found, copy) for found, copy in copies if found)

    def content(self):
        (_, at, length, checksum, _), _ = self._holds()
        content = os.pread(self.fd, length, at)
        assert zlib.crc32(content) == checksum, "the checksum is another"
        return content

    def records(self):
        return parse(self.content())

    def write(self, records):
        """Another commit, behind all that is there."""
        (sequence, *_), copy = self._holds()
        content, at = pack(records), -(-os.fstat(self.fd).st_size // PAGE) * PAGE
        os.ftruncate(self.fd, at + -(-len(content) // PAGE) * PAGE)
        os.pwrite(self.fd, content, at)
        fields = (sequence + 1, at, len(content), zlib.crc32(content))
        data = DESCRIPTION.pack(*fields, self._checksum(1 - copy, *fields))
        os.pwrite(self.fd, data, HEADER.size + (1 - copy) * DESCRIPTION.size)

    def set_version(self, version):
        os.pwrite(self.fd, struct.pack("=I", version), 8)

    def set_word(self, index, value):
        os.pwrite(self.fd, struct.pack("=Q", value), WORDS_AT + 8 * index)

    def set_shadow_version(self, version):
        """Of the storage of the first nested domain, whose place is behind eight numbers of its record."""
        nested = next(r for r in self.records() if r.type == NESTED)
        os.pwrite(self.fd, struct.pack("=I", version), struct.unpack_from("=Q", nested.fixed, 64)[0] + 8)

    def swap_bytes(self):
        """As if it were of a machine of the other byte order: of the magic is enough."""
        os.pwrite(self.fd, os.pread(self.fd, 8, 0)[::-1], 0)


def text(data):
    return data.split(b"\0")[0].decode()


def guest_name(records):
    """Of the guest whose file it is: handle, secret and uuid come before it."""
    return next(text(r.fixed[40:104]) for r in records if r.type == GUEST)
