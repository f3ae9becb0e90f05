# SPDX-License-Identifier: LGPL-2.1-or-later
"""A tenant that does its work: neighbour.py FOLDER TRANSPORT FUNCTION-ID ROUNDS

The main job over and over, each answer compared with what it must be. "round N" is told after each;
after ROUNDS, and when a line comes on stdin, it makes one guest more, whole, says "holding" and
waits for another line; then it takes that down and says "ended". Any call that fails, and any
answer that is not the right one, ends it with a traceback and status 1.
"""

import itertools
import select
import sys

import fixture
import transport
from guest import MIB, PAGE
from vmm import WINDOW_FIRST, Started, Vmm

# What one guest of it holds, as the ledger must count it.
GUEST_BYTES = 16 * MIB
GUEST_MAPPINGS = 1000
# And for a moment.
MORE_BYTES = MIB
MORE_GPA, MORE_IOVA = 64 * MIB, WINDOW_FIRST + 64 * MIB
IOVA = WINDOW_FIRST + 5 * PAGE


def tell(text):
    print(text, flush=True)


def equal(got, want, what):
    if got != want:
        raise AssertionError("%s: %r, not %r" % (what, got, want))


class Neighbour:
    def __init__(self, folder, transport_name, fid):
        self.folder, self.transport_name, self.fid = folder, transport_name, fid
        self.client = self.ids = None
        self.turn = 0

    def connect(self):
        self.client = transport.TRANSPORTS[self.transport_name](self.folder)
        self.client.open_session("neighbour")
        self.ids = itertools.count(1)

    def disconnect(self):
        self.client.call("CloseSession")
        self.client.close()

    def make_guest(self):
        vmm = Vmm(self.client, ids=self.ids, name="neighbour-%d" % self.fid)
        return vmm, Started(vmm, fid=self.fid, mappings_max=GUEST_MAPPINGS)

    def page_by_page(self, started):
        """A page that is mapped is reached, as what it shows; one that is not is not."""
        for n in range(8):
            gpa = (3 + self.turn % 7 + n) * PAGE
            text = b"round %d page %d" % (self.turn, n)
            started.memory.write(gpa, text)
            equal(started.show(IOVA, gpa), (1, 0), "a page is shown")
            equal(started.dma.read(IOVA, len(text)), text, "the device reads it")
            started.dma.write(IOVA + 2048, text)
            equal(started.memory.read(gpa + 2048, len(text)), text, "the device writes it")
        equal(started.hide(IOVA), (0, 1), "the page is taken away")
        equal(started.dma.reaches(IOVA), False, "the device does not reach it any more")

    def many_pages(self, vmm, started):
        for n in range(200):
            started.tables.map(IOVA + n * PAGE, n * PAGE)
        equal(vmm.refreshed(started.nested), (200, 0), "pages are shown all at once")
        equal(vmm.refreshed(started.nested), (0, 0), "and nothing changed since")
        inode, offset, readable, writable = started.dma.where(IOVA + 150 * PAGE)
        equal((offset, readable, writable), (150 * PAGE, True, True), "where one of them is")
        nested = vmm.describe().nested
        equal([n.live_leaves for n in nested], [200], "what the description counts")
        explained = vmm.explain(started.nested, IOVA + 150 * PAGE)
        equal((explained.installed_gpa, explained.consistent), (150 * PAGE, True), "how it is explained")

    def memory_goes(self, vmm, started):
        """Memory comes, and is taken away under the pages that show it."""
        more = vmm.new_memory(MORE_BYTES, gpa=MORE_GPA)
        for n in range(16):
            started.tables.map(MORE_IOVA + n * PAGE, MORE_GPA + n * PAGE)
        equal(vmm.refreshed(started.nested, (MORE_IOVA, 16 * PAGE)), (16, 0), "pages of more memory")
        more.write(MORE_GPA + PAGE, b"more")
        dma = started.device.engine()
        equal(dma.read(MORE_IOVA + PAGE, 4), b"more", "the device reads it")
        equal(vmm.unmap(MORE_GPA, MORE_BYTES).leaves_dropped, 16, "pages whose memory went")
        equal(dma.reaches(MORE_IOVA), False, "the device does not reach them")
        vmm.mutate("RemoveMemoryFile", guest=vmm.guest, memory_file=vmm.files.pop()[1])
        started.dma = dma

    def work(self):
        self.turn += 1
        if self.turn % 3 == 1:
            self.connect()
        vmm, started = self.make_guest()
        try:
            self.page_by_page(started)
            self.many_pages(vmm, started)
            self.memory_goes(vmm, started)
            equal(vmm.mutate("DestroyNested", nested=started.nested).leaves_dropped, 200, "the domain goes")
            equal(started.dma.reaches(IOVA), False, "and all of its pages")
            started.device.release()
            equal(started.device.close().still_held, False, "nobody holds the device")
            vmm.mutate("DestroyGuest", guest=vmm.guest)
            equal(len(self.client.call("ListGuests").message.guests), 0, "the guest is gone")
        finally:
            vmm.close()
        if self.turn % 3 == 0:
            self.disconnect()
        tell("round %d" % self.turn)

    def hold(self):
        """One guest as it is in the middle of its life."""
        if self.turn % 3 == 0:
            self.connect()
        vmm, started = self.make_guest()
        self.many_pages(vmm, started)
        tell("holding")
        sys.stdin.readline()
        equal(vmm.refreshed(started.nested), (0, 0), "nothing changed meanwhile")
        equal(started.dma.where(IOVA + 7 * PAGE)[1], 7 * PAGE, "the device's page is where it was")
        vmm.close()
        vmm.mutate("DestroyGuest", guest=vmm.guest)
        self.disconnect()
        tell("ended")


def main():
    folder, transport_name, fid, rounds = sys.argv[1:]
    fixture.die_with_parent()
    neighbour = Neighbour(folder, transport_name, int(fid))
    for _ in range(int(rounds)):
        neighbour.work()
    # and go on until it is told
    while not select.select([sys.stdin], [], [], 0)[0]:
        neighbour.work()
    sys.stdin.readline()
    neighbour.hold()


if __name__ == "__main__":
    main()
